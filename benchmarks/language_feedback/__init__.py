"""Does written criticism make a better model than ratings alone? `python -m benchmarks.language_feedback`.

Registered before the first run; nothing below is chosen by looking at its result:

- Everything goes the way an operator's data goes: store -> snapshot -> refine -> TRL -> generate, on the starter, by
  worker processes. What a hidden taste is enters the store as annotations only.
- A seed is one hidden taste: weights over the facets of a reply, and two facets that are liked otherwise in some
  matters. People see two replies of the base model; each look has noise. They compare, rate from 1 to 5, and write a
  critique of one flaw of the worse reply (varied wording, half with a concrete fix, 10 % ask for something useless).
- The same people say the same things in every arm; the arms differ in what of it is entered (`arms.ARMS`).
- Arms of one size train for equally many optimiser steps (`arms.STEPS`, set on the development seeds 1000 and up).
- Quality: points of the taste, from 0 (worst) to 1 (best), of what the trained policy writes for prompts of slot
  combinations that neither the starter nor the annotators have seen. KL: nats a reply, policy to base, on its replies.
- Differences are paired by seed and prompt; intervals are 95 % by a bootstrap over seeds, then over their prompts.
- It passes when (default - ratings) > 0 and (default - shuffled) > 0 with intervals above zero at 200 and 800
  annotations. The goal beyond: the default at 200 reaches the ratings at 800.
"""
