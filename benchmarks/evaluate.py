"""What an ensemble costs, what a temperature mends, and how quickly completions are written, on the starter.

`python -m benchmarks.evaluate [--quick] [--json]`. Pairs are written by the starter's grammar; which of two replies is
chosen follows a hidden taste with a seventh of the choices turned round, so that no reward model can be sure. An
ensemble of four heads and a single one train on the same pairs, in turns. Another ensemble is trained too long, without
early stopping, so that it is too sure of itself; the recipe `evaluate` fits its temperature on validation pairs and
reports on test pairs, beside the floor below which so many pairs show no error. One by one is
`model.generate` for each completion with the same sampling settings; loading models is not counted.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import set_seed

from benchmarks._report import Bar, Outcome, run_benchmark
from benchmarks.train import make_folder, make_rows
from storage.configs import SamplingSettings
from storage.enums import RunKind, SnapshotForm, Split
from storage.evaluation_configs import EvaluateConfig
from storage.snapshots import FORMS
from trainer.folder import Job, RunFolder
from trainer.policy import STARTER, Policies, Request, generator_of, load_policies, resolve_base_model
from trainer.run import OK, default_threads, execute, quiet_environment
from trainer.starter import grammar

HEADS = 4
EPOCHS = 6  # too many
ECE = {"before": "ece_before", "after": "ece", "floor": "ece_floor", "upper end": "ece_high"}
TURNED = 7  # one choice in so many
SEED = 21


def measure(args: argparse.Namespace) -> Outcome:
    """Every figure of this benchmark."""
    quiet_environment()
    import trainer.preload  # noqa: F401  whoever comes first must not pay for the imports

    pairs, rounds = (64, 3) if args.quick else (384, 5)
    held_out = 240 if args.quick else 600
    splits = {
        Split.TRAIN: noisy_rows(pairs, 1),
        Split.VALIDATION: noisy_rows(held_out, 2),
        Split.TEST: noisy_rows(held_out, 3),
    }
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        ensemble, single = in_turns(scratch, splits[Split.TRAIN], rounds)
        figures = calibration(scratch, splits)
    batched, alone = completions_per_second(*((32, 4) if args.quick else (128, 12)))
    return Outcome(
        [
            Bar(f"time of {HEADS} heads over one", ensemble / single, 1.6, "<="),
            Bar("ECE after the temperature", figures["ece"], 0.1, "<="),
            Bar("completions a second, batched over one by one", batched / alone, 4),
        ],
        {
            "pairs": pairs,
            "rounds": rounds,
            "held out pairs": held_out,
            "threads": default_threads(RunKind.REWARD),
            "seconds": {"ensemble": round(ensemble, 2), "single": round(single, 2)},
            # So few pairs show no less than the floor, whatever the temperature mends.
            "ece": {name: round(figures[key], 4) for name, key in ECE.items()},
            "figures": {key: round(value, 4) for key, value in figures.items() if value is not None},
            "completions_per_second": {"batched": round(batched, 2), "one by one": round(alone, 2)},
        },
    )


def noisy_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Pairs of the starter's language, one choice in `TURNED` turned round."""
    rng = random.Random(seed)
    rows = make_rows(count, 100 + seed)
    for row in rows:
        row["prompt_hash"] = f"{seed:x}{row['prompt_id']:x}"
        if rng.random() < 1 / TURNED:
            row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
        if rng.random() < 0.5:
            row["chosen_id"], row["rejected_id"] = row["rejected_id"], row["chosen_id"]
    return rows


def in_turns(scratch: Path, rows: list[dict[str, Any]], rounds: int) -> tuple[float, float]:
    """Seconds from pairs on disk to a trained adapter, of an ensemble and of one head: the median, taken in turns."""
    taken: dict[int, list[float]] = {HEADS: [], 1: []}
    for number in range(rounds + 1):
        for heads, seconds in taken.items():
            folder = make_folder(
                scratch / f"{heads}-{number}", RunKind.REWARD, {Split.TRAIN: rows}, heads=heads, epochs=1
            )
            started = time.perf_counter()
            _execute(folder)
            if number:  # the first round warms
                seconds.append(time.perf_counter() - started)
    return statistics.median(taken[HEADS]), statistics.median(taken[1])


def calibration(scratch: Path, splits: dict[Split, list[dict[str, Any]]]) -> dict[str, Any]:
    """The figures that the recipe gives of an ensemble that was trained too long, with the upper end of its ECE."""
    trained = make_folder(
        scratch / "reward", RunKind.REWARD, splits, heads=HEADS, epochs=EPOCHS, eval_steps=100, early_stopping=False
    )
    _execute(trained)
    folder = RunFolder(scratch / "evaluate")
    folder.path.mkdir()
    for split in (Split.VALIDATION, Split.TEST):
        table = pa.Table.from_pylist(splits[split], schema=FORMS[SnapshotForm.PREFERENCE].schema)
        pq.write_table(table, folder.split(split))
    about = (
        {"kind": "about", "prompt_id": row["prompt_id"], "source": "", "tags": [], "text": row["prompt"][-1]["content"]}
        for row in splits[Split.TEST]
    )
    folder.requests.write_text("".join(json.dumps(row) + "\n" for row in about), "utf-8")
    folder.write_job(
        Job(
            recipe=RunKind.EVALUATE,
            run_id=2,
            project="benchmark",
            base_model=STARTER,
            config=EvaluateConfig().model_dump(mode="json"),
            rewards={"reward-v1": str(trained.out)},
            evaluated="reward-v1",
        )
    )
    _execute(folder)
    stored = json.loads((folder.out / "evaluation.json").read_text("utf-8"))
    figures = {name: one["value"] for name, one in stored["figures"].items()}
    return figures | {"ece_high": stored["figures"]["ece"]["high"], "temperature": stored["temperature"]}


def _execute(folder: RunFolder) -> None:
    if execute(folder) != OK:
        raise RuntimeError(folder.events.read_text().splitlines()[-1])


# --- writing ---


def completions_per_second(together: int, single: int) -> tuple[float, float]:
    """By our generator, two completions a prompt, and by `model.generate` one at a time, before and after it."""
    torch.set_num_threads(default_threads(RunKind.GENERATE))
    sampling = SamplingSettings()
    policies = load_policies(resolve_base_model(STARTER), {"policy-v0": None}, device="cpu")
    prompts = [request.messages for request in grammar.sample_prompts(together // 2, seed=SEED, held_out=True)]
    requests = [Request(messages, "policy-v0") for messages in prompts for _ in range(2)]
    one_by_one(policies, requests[:1], sampling)  # warm
    half = single // 2
    slow = one_by_one(policies, requests[:half], sampling)
    started = time.perf_counter()
    written = generator_of(policies, sampling)(requests, SEED)
    seconds = time.perf_counter() - started
    slow += one_by_one(policies, requests[half:single], sampling)
    return sum(one is not None for one in written) / seconds, single / slow


def one_by_one(policies: Policies, requests: list[Request], sampling: SamplingSettings) -> float:
    """Seconds for the same work as its authors' documentation shows it."""
    model, tokenizer = policies.model, policies.tokenizer
    set_seed(SEED)
    started = time.perf_counter()
    for request in requests:
        asked = tokenizer.apply_chat_template(request.messages, add_generation_prompt=True, return_dict=True)
        ids = torch.tensor([asked["input_ids"]])
        with torch.inference_mode():
            made = model.generate(
                ids, do_sample=True, temperature=sampling.temperature, top_k=0, top_p=sampling.top_p,
                max_new_tokens=sampling.max_new_tokens, attention_mask=torch.ones_like(ids),
                pad_token_id=tokenizer.pad_token_id,
            )  # fmt: skip
        tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    raise SystemExit(run_benchmark("evaluate", measure))
