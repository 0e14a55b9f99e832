"""How quickly critiques are refined: everything in batches, beside one at a time, interleaved in one run.

`python -m benchmarks.refine [--quick] [--json]`. The starter rewrites drafts as written critiques ask: K samples
a critique, each judged by five wordings, the best selected. One at a time is the same work by plain `transformers`: a
`generate` call for each sample and a forward pass for each question. Both sides have the same threads; loading the
models is not counted. Beside the ratio it says what selection is worth: the share of selected refinements that mend
what was criticised and keep the rest, against a sample drawn at random from the same ones.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from benchmarks._report import Bar, Outcome, run_benchmark
from storage.configs import SamplingSettings
from storage.critique_configs import RefineConfig
from storage.enums import RunKind
from storage.wordings import JUDGE, NO, YES
from trainer.folder import Job, RunFolder
from trainer.judge import answer_tokens
from trainer.policy import STARTER, Policies, load_policies, resolve_base_model
from trainer.recipes import refine
from trainer.refining import Candidate, select
from trainer.run import default_threads, quiet_environment
from trainer.starter import checker, grammar
from trainer.starter.critiques import wanted_values
from trainer.starter.facets import FACETS, Facets, Request
from trainer.templates import judge_messages, refine_messages, told

SAMPLES = 5
TOKENS = 160
SEED = 11


def measure(args: argparse.Namespace) -> Outcome:
    """The ratio, and what selection is worth."""
    quiet_environment()
    threads = default_threads(RunKind.REFINE)
    torch.set_num_threads(threads)
    batched, single = (24, 2) if args.quick else (128, 8)
    asked = make_requests(batched)
    policies = load_policies(resolve_base_model(STARTER), {"policy-v0": None}, device="cpu")
    one_by_one(policies, asked[:1])  # warm
    slow = [one_by_one(policies, asked[: single // 2])]
    with tempfile.TemporaryDirectory() as scratch:
        rate, drafts, result = in_batches(Path(scratch), asked)
    slow.append(one_by_one(policies, asked[single // 2 : single]))
    slow_rate = single / sum(slow)
    quality = _quality(asked, drafts)
    return Outcome(
        [
            Bar("batched over one at a time, critiques a second", rate / slow_rate, 5),
            Bar("selected refinements that mend and keep", quality["selected"], 0.85),
        ],
        {
            "critiques": batched,
            "samples": SAMPLES,
            "threads": threads,
            "critiques_per_second": round(rate, 3),
            "one_at_a_time_per_second": round(slow_rate, 3),
            "quality": {name: round(value, 3) for name, value in quality.items()},
            "rejected": result["rejected"],
        },
    )


Asked = tuple[Request, dict[str, Any], Facets]


def make_requests(count: int) -> list[Asked]:
    """Drafts on unseen slot combinations, a critique of one flaw each, and what the reply should be like after it."""
    rng = random.Random(SEED)
    found = []
    for number, request in enumerate(grammar.sample_prompts(count, seed=SEED, held_out=True)):
        before = grammar.sample_facets(rng)
        facet = rng.choice(tuple(FACETS))
        wanted = rng.choice(wanted_values(facet, before.value(facet)))
        critique = grammar.write_critique(rng, facet, before.value(facet), wanted, request)
        row = {
            "critique_id": number, "completion_id": number, "prompt_id": number, "messages": request.messages,
            "completion": grammar.write_reply(rng, request, before), "critique": critique.text, "span_start": None,
            "span_end": None, "tags": [], "fix": critique.fix,
        }  # fmt: skip
        found.append((request, row, before.but(wanted)))
    return found


def in_batches(scratch: Path, asked: list[Asked]) -> tuple[float, list[dict[str, Any]], dict[str, Any]]:
    """Critiques a second by the recipe, sampling and judging; its drafts and its result."""
    folder = RunFolder(scratch / "run")
    folder.path.mkdir()
    folder.requests.write_text("".join(json.dumps(row) + "\n" for _, row, _ in asked), "utf-8")
    job = Job(
        recipe=RunKind.REFINE, run_id=1, project="benchmark", base_model=STARTER, seed=SEED,
        config=RefineConfig(samples=SAMPLES, device="cpu").model_dump(mode="json"), adapters={"policy-v0": None},
        sampling=SamplingSettings(max_new_tokens=TOKENS).model_dump(),
    )  # fmt: skip
    result = refine.run(folder, job)
    lines = (folder.path / "drafts.jsonl").read_text("utf-8").splitlines()
    return result["critiques_per_second"], [json.loads(line) for line in lines if line], result


def one_by_one(policies: Policies, asked: list[Asked]) -> float:
    """Seconds for the same work, one sample and one question at a time."""
    model, tokenizer = policies.model, policies.tokenizer
    yes, no = answer_tokens(tokenizer, YES, NO)
    set_seed(SEED)
    started = time.perf_counter()
    for _, row, _ in asked:
        said = told(row["critique"], row["fix"]).text
        prompt = _ids(tokenizer, refine_messages(row["messages"], row["completion"], said))
        for _ in range(SAMPLES):
            with torch.inference_mode():
                ids = model.generate(
                    prompt, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=TOKENS,
                    attention_mask=torch.ones_like(prompt), pad_token_id=tokenizer.pad_token_id,
                )  # fmt: skip
                text = tokenizer.decode(ids[0, prompt.shape[1] :], skip_special_tokens=True)
                for wording in range(len(JUDGE)):
                    question = _ids(tokenizer, judge_messages(row["messages"], text, said, wording))
                    logits = model(question, logits_to_keep=1).logits[0, -1]
                    torch.sigmoid(logits[yes].logsumexp(-1) - logits[no].logsumexp(-1)).item()
    return time.perf_counter() - started


def _ids(tokenizer: Any, messages: Any) -> torch.Tensor:
    rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    return torch.tensor([rendered["input_ids"]])


def _quality(asked: list[Asked], drafts: list[dict[str, Any]]) -> dict[str, float]:
    """Shares that mend what was criticised and keep the rest: of those selected, and of all that were not refused."""
    by_critique = {draft["critique_id"]: draft["candidates"] for draft in drafts}
    selected, every, config = [], [], RefineConfig()
    for request, row, wanted in asked:
        candidates = [Candidate(**one) for one in by_critique.get(row["critique_id"], [])]
        kept, _ = select(candidates, 1, config.min_judge, config.change_penalty)
        right = {one.text: checker.read_reply(request, one.text) == wanted for one in candidates}
        if kept:
            selected.append(right[kept[0].text])
            every.append(sum(right.values()) / len(right))
    return {
        "selected": sum(selected) / max(1, len(selected)),
        "at_random": sum(every) / max(1, len(every)),
        "critiques_refined": len(selected) / len(asked),
    }


if __name__ == "__main__":
    raise SystemExit(run_benchmark("refine", measure))
