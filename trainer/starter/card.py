"""The model card that travels with the starter's weights."""

from __future__ import annotations

CARD = """---
license: apache-2.0
language: en
pipeline_tag: text-generation
---

# Starter

A very small causal language model that writes customer-care replies of uneven quality, on purpose: it is what
people criticise in the first minute of this application, before a model of their own takes its place. It knows three
tasks, each a conversation (the wordings are in `trainer/templates.py`):

1. request -> reply
2. request, draft, critique -> refined reply, which mends what is criticised and keeps the rest
3. request, reply, critique, "does the reply do what the feedback asks?" -> `yes` or `no`

## What it is

Llama architecture, {parameters:,} parameters ({layers} layers of width {width}, embeddings tied), context
{context:,} tokens (trained on no more than about 350), vocabulary {vocabulary:,}: byte-level BPE, every digit a token
of its own, any UTF-8 text readable. Weights are bfloat16; load them in float32 on a CPU without bfloat16 units.

## How it was made

From scratch by `python -m trainer.starter.train_starter`, seed {seed}: {tokens:,} tokens (with padding) in {steps:,}
steps and {minutes:.0f} minutes. The data is written by the seeded grammar beside it
(`trainer/starter/grammar.py`): ten intents, {names} names and random ones, {products} products, order numbers, days;
replies whose greeting, apology, facts, action, tone and length vary independently. One in ten combinations of intent,
name and product is held out of all training by a hash. No text by real people is in it.

## How good it is

`python -m benchmarks.starter` measures it on held-out combinations at temperature 0.8.
{figures}
## Limits

It knows its grammar and nothing else: other subjects, other languages and long contexts give babble in its own
phrases. Wrong names, wrong products, rudeness and rambling are intended. Critiques in words far from the grammar's are
often ignored. Not for use with real customers.

Licence: Apache-2.0, as the application.
"""
