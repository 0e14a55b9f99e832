"""How good the shipped starter is on requests it has never seen: `python -m benchmarks.starter [--quick] [--json]`.

Everything is sampled at temperature 0.8 from the held-out slot combinations, and read back by the checker.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks._report import Bar, Outcome, run_benchmark
from storage.wordings import JUDGE, NO, YES
from trainer.starter import checker, grammar
from trainer.starter.critiques import wanted_values
from trainer.starter.facets import FACETS, ChatMessage, Critique, Facets, Request
from trainer.starter.lessons import critique_to_judge
from trainer.templates import judge_messages, refine_messages

FOLDER = Path(__file__).parent.parent / "trainer" / "starter" / "model"
TEMPERATURE = 0.8
BATCH = 250
SEED = 20


class Starter(NamedTuple):
    """A model that is asked, and its tokenizer."""

    model: Any
    tokenizer: Any


class Judged(NamedTuple):
    """One question to the judge: what was asked about, the true verdict and the model's."""

    facet: str
    truth: bool
    verdict: bool


def load(folder: Path) -> Starter:
    """The model in single precision, for CPUs without bfloat16 units."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return Starter(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), tokenizer)


def sample(starter: Starter, prompts: Sequence[Sequence[ChatMessage]]) -> list[str]:
    """One completion a prompt; prompts of like length share a batch."""
    completions = [""] * len(prompts)
    for rows, inputs in _batches(starter, prompts):
        ids = starter.model.generate(
            **inputs, do_sample=True, temperature=TEMPERATURE, top_k=0, top_p=1.0, max_new_tokens=160
        )
        texts = starter.tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        for row, text in zip(rows, texts, strict=True):
            completions[row] = text
    return completions


def judge(starter: Starter, conversations: Sequence[Sequence[ChatMessage]]) -> list[bool]:
    """Whether yes is likelier than no as the next token."""
    yes, no = (starter.tokenizer.convert_tokens_to_ids(word) for word in (YES, NO))
    verdicts = [False] * len(conversations)
    for rows, inputs in _batches(starter, conversations):
        with torch.inference_mode():
            logits = starter.model(**inputs, logits_to_keep=1).logits[:, -1]
        for row, verdict in zip(rows, (logits[:, yes] > logits[:, no]).tolist(), strict=True):
            verdicts[row] = verdict
    return verdicts


def _batches(starter: Starter, prompts: Sequence[Sequence[ChatMessage]]) -> Iterator[tuple[list[int], Any]]:
    texts = [
        starter.tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False) for prompt in prompts
    ]
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        yield rows, starter.tokenizer([texts[row] for row in rows], return_tensors="pt", padding=True)


def draft_critiques(requests: Sequence[Request], read: Sequence[Facets], rng: random.Random) -> list[Critique]:
    """One critique a draft, of a facet drawn evenly."""
    critiques = []
    for request, facets in zip(requests, read, strict=True):
        facet = rng.choice(tuple(FACETS))
        current = facets.value(facet)
        critiques.append(
            grammar.write_critique(rng, facet, current, rng.choice(wanted_values(facet, current)), request)
        )
    return critiques


def refine_share(starter: Starter, requests: Sequence[Request], drafts: Sequence[str], seed: int) -> dict[str, float]:
    """Shares of refinements that mend the criticised facet, that keep the others, and that do both."""
    rng = random.Random(seed)
    rows = [
        (request, draft, facets)
        for request, draft in zip(requests, drafts, strict=True)
        if (facets := checker.read_reply(request, draft)) is not None
    ]
    critiques = draft_critiques([row[0] for row in rows], [row[2] for row in rows], rng)
    refined = sample(
        starter,
        [
            refine_messages(request.messages, draft, critique.full)
            for (request, draft, _), critique in zip(rows, critiques, strict=True)
        ],
    )
    counts = Counter[str]()
    for (request, _, before), critique, text in zip(rows, critiques, refined, strict=True):
        after = checker.read_reply(request, text)
        mended = after is not None and after.value(critique.facet) is critique.wanted
        kept = after is not None and after.but(before.value(critique.facet)) == before
        counts.update({"mended": mended, "kept": kept, "both": mended and kept})
    return {name: counts[name] / max(len(rows), 1) for name in ("mended", "kept", "both")}


def judged(starter: Starter, requests: Sequence[Request], seed: int) -> list[Judged]:
    """The judge's verdicts on replies of every kind, half of which meet their critique."""
    rng = random.Random(seed)
    truths, conversations = [], []
    for request in requests:
        facets = grammar.sample_facets(rng, uniform=True)
        critique, met = critique_to_judge(rng, request, facets)
        reply = grammar.write_reply(rng, request, facets)
        wording = rng.randrange(len(JUDGE))
        truths.append((critique.facet, met))
        conversations.append(judge_messages(request.messages, reply, critique.full, wording))
    verdicts = judge(starter, conversations)
    return [Judged(facet, met, verdict) for (facet, met), verdict in zip(truths, verdicts, strict=True)]


def balanced_accuracy(rows: Sequence[Judged]) -> float:
    """Mean of the shares judged right among the met and among the unmet."""
    shares = []
    for truth in (True, False):
        verdicts = [row.verdict is truth for row in rows if row.truth is truth]
        shares.append(sum(verdicts) / max(len(verdicts), 1))
    return sum(shares) / 2


def reply_bars(requests: Sequence[Request], replies: Sequence[str]) -> tuple[list[Bar], dict[str, Any]]:
    """Parsing, copying and variety of one reply a request."""
    read = [checker.read_reply(request, text) for request, text in zip(requests, replies, strict=True)]
    parsed = [facets for facets in read if facets is not None]
    names, orders = [], []
    for request, text in zip(requests, replies, strict=True):
        stated = checker.mentions(text)
        names += [name == request.name for name in stated.names]
        orders += [order == request.order for order in stated.orders]
    shares = {
        facet: {value.value: count / max(len(parsed), 1) for value, count in counts.most_common()}
        for facet in FACETS
        for counts in (Counter(facets.value(facet) for facets in parsed),)
    }
    commonest = max((max(values.values(), default=1.0) for values in shares.values()), default=1.0)
    bars = [
        Bar("replies that parse", len(parsed) / len(replies), 0.97),
        Bar("names right when greeted", sum(names) / max(len(names), 1), 0.95),
        Bar("order numbers right when stated", sum(orders) / max(len(orders), 1), 0.95),
        Bar("share of the commonest value of any facet", commonest, 0.85, "<="),
    ]
    return bars, {"facet_shares": {k: {n: round(x, 3) for n, x in v.items()} for k, v in shares.items()}}


def measure(args: argparse.Namespace) -> Outcome:
    """Every held-out bar of the starter."""
    torch.manual_seed(SEED)
    starter = load(args.model)
    n = 150 if args.quick else 1000
    samples = 250 if args.quick else 500
    requests = grammar.sample_prompts(n, seed=SEED, held_out=True)
    replies = sample(starter, [request.messages for request in requests])
    bars, extra = reply_bars(requests, replies)
    rng = random.Random(SEED)
    written = [grammar.write_reply(rng, request, grammar.sample_facets(rng, uniform=True)) for request in requests]
    own = refine_share(starter, requests, replies, SEED)
    any_kind = refine_share(starter, requests, written, SEED + 1)
    verdicts = judged(starter, grammar.sample_prompts(2 * n, seed=SEED + 2, held_out=True), SEED)
    different = len(set(sample(starter, [requests[0].messages] * samples)))
    size = sum(file.stat().st_size for file in args.model.iterdir()) / 2**20
    bars += [
        Bar("refinements of its own replies that mend and keep", own["both"], 0.85),
        Bar("refinements of any replies that mend and keep", any_kind["both"], 0.85),
        Bar("judge, balanced accuracy", balanced_accuracy(verdicts), 0.90),
        Bar(f"different replies in {samples} samples of one prompt", different, 200),
        Bar("size of the folder, MB", size, 10, "<="),
    ]
    extra |= {
        "samples": n,
        "refine_own": {name: round(share, 3) for name, share in own.items()},
        "refine_any": {name: round(share, 3) for name, share in any_kind.items()},
        "judge_by_facet": {
            facet: round(balanced_accuracy([row for row in verdicts if row.facet == facet]), 3) for facet in FACETS
        },
        "examples": [{"prompt": r.text, "reply": text} for r, text in zip(requests[:5], replies, strict=False)],
    }
    return Outcome(bars, extra)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The one option beside the common two."""
    parser.add_argument("--model", type=Path, default=FOLDER, help="another folder to measure")


if __name__ == "__main__":
    raise SystemExit(run_benchmark("starter", measure, arguments=arguments))
