"""Training speed: our recipes beside a plain TRL script on the same pairs, interleaved in one run.

`python -m benchmarks.train [--quick] [--json]`. Pairs are written by the starter's grammar. Both sides use the same
model, LoRA, batch size, epochs and threads, and no evaluation; seconds count everything from pairs on disk to a trained
adapter, imports apart. The full mode also trains on 1,000 pairs as an operator would, held-out pairs, early stopping
and all. `queued to first step` goes through a real store and a warm worker.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks._report import Bar, Outcome, run_benchmark
from storage.configs import DpoConfig, RewardConfig, resolve_dpo, resolve_reward
from storage.enums import RunKind, SnapshotForm, Split
from storage.snapshots import FORMS
from trainer.folder import Job, RunFolder
from trainer.run import OK, default_threads, execute, quiet_environment
from trainer.starter import grammar

BATCH = 16
Maker = Callable[[Path, list[dict[str, Any]], RunKind], float]


def measure(args: argparse.Namespace) -> Outcome:
    """Every figure of this benchmark."""
    quiet_environment()
    pairs, rounds = (32, 1) if args.quick else (128, 3)
    bars: list[Bar] = []
    extra: dict[str, Any] = {"threads": default_threads(RunKind.DPO), "pairs": pairs, "rounds": rounds}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        bars.append(Bar("queued to first step s", first_step(scratch / "store", 64 if args.quick else 400), 3.0, "<="))
        rows = make_rows(pairs, seed=1)
        for kind in (RunKind.DPO, RunKind.REWARD):
            ours, plain = interleaved(scratch, kind, rows, rounds)
            extra[f"{kind} samples/s"], extra[f"{kind} samples/s, plain TRL"] = round(ours, 2), round(plain, 2)
            bars.append(Bar(f"{kind} samples/s over plain TRL", ours / plain, 0.9))
        if not args.quick:
            seconds, result = thousand(scratch / "thousand")
            bars.append(Bar("DPO on 1,000 pairs of the starter s", seconds, 180, "<="))
            extra["DPO on 1,000 pairs"] = result
    return Outcome(bars, extra)


def make_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Snapshot rows: two replies of the starter's language, the warmer the better."""
    rng = random.Random(seed)
    rows = []
    for index, request in enumerate(grammar.sample_prompts(count, seed, held_out=False)):
        replies = [grammar.write_reply(rng, request, grammar.sample_facets(rng)) for _ in range(2)]
        chosen, rejected = sorted(replies, key=lambda text: ("orry" in text, len(text)), reverse=True)
        rows.append(
            {
                "prompt": request.messages,
                "chosen": [{"role": "assistant", "content": chosen}],
                "rejected": [{"role": "assistant", "content": rejected}],
                "source": "comparison",
                "weight": 1.0,
                "prompt_id": index,
                "chosen_id": 2 * index,
                "rejected_id": 2 * index + 1,
                "annotation_ids": [index],
                "prompt_hash": str(index),
            }
        )
    return rows


def make_folder(path: Path, kind: RunKind, splits: dict[Split, list[dict[str, Any]]], **asked: Any) -> RunFolder:
    """A run folder on the starter, its config resolved as `queue_training` would."""
    folder = RunFolder(path)
    folder.path.mkdir(parents=True)
    for split in Split:
        pq.write_table(
            pa.Table.from_pylist(splits.get(split, []), schema=FORMS[SnapshotForm.PREFERENCE].schema),
            folder.split(split),
        )
    pairs = len(splits[Split.TRAIN])
    config = (
        resolve_dpo(DpoConfig(**asked), pairs) if kind is RunKind.DPO else resolve_reward(RewardConfig(**asked), pairs)
    )
    job = Job(recipe=kind, run_id=1, project="benchmark", config=config.model_dump(mode="json"), base_model="starter")
    folder.write_job(job)
    return folder


# --- beside plain TRL ---


def interleaved(scratch: Path, kind: RunKind, rows: list[dict[str, Any]], rounds: int) -> tuple[float, float]:
    """Samples a second of our recipe and of plain TRL: the median over rounds, taken in turns."""
    import torch

    import trainer.preload  # noqa: F401  whoever comes first must not pay for the imports

    torch.set_num_threads(default_threads(kind))
    seconds: dict[Maker, list[float]] = {run_ours: [], run_plain: []}
    for number in range(rounds):
        for maker, taken in seconds.items():
            path = scratch / f"{kind}-{number}-{maker.__name__}"
            taken.append(maker(path, rows, kind))
            shutil.rmtree(path)
    return len(rows) / statistics.median(seconds[run_ours]), len(rows) / statistics.median(seconds[run_plain])


def run_ours(path: Path, rows: list[dict[str, Any]], kind: RunKind) -> float:
    """Seconds of one epoch through the run folder."""
    folder = make_folder(path, kind, {Split.TRAIN: rows}, epochs=1, batch_size=BATCH, early_stopping=False)
    started = time.perf_counter()
    if execute(folder) != OK:
        raise RuntimeError(folder.events.read_text().splitlines()[-1])
    return time.perf_counter() - started


def run_plain(path: Path, rows: list[dict[str, Any]], kind: RunKind) -> float:
    """Seconds of one epoch of the script that TRL's documentation would have one write."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
    from trl import DPOConfig, DPOTrainer, RewardTrainer
    from trl import RewardConfig as TrlRewardConfig

    from trainer.policy import resolve_base_model

    path.mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=FORMS[SnapshotForm.PREFERENCE].schema), path / "train.parquet")
    started = time.perf_counter()
    base = resolve_base_model("starter")
    table = pq.read_table(path / "train.parquet", columns=["prompt", "chosen", "rejected"])
    common: dict[str, Any] = {
        "output_dir": str(path), "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "learning_rate": 1e-3,
        "num_train_epochs": 1, "per_device_train_batch_size": BATCH, "save_strategy": "no", "report_to": "none",
        "disable_tqdm": True, "logging_steps": 1,
    }  # fmt: skip
    reward = kind is RunKind.REWARD
    lora = LoraConfig(
        task_type="SEQ_CLS" if reward else "CAUSAL_LM", r=16, lora_alpha=16, target_modules="all-linear",
        modules_to_save=["score"] if reward else None,
    )  # fmt: skip
    parts: dict[str, Any] = {
        "train_dataset": Dataset(table), "peft_config": lora, "processing_class": AutoTokenizer.from_pretrained(base)
    }  # fmt: skip
    trainer: Any
    if reward:
        classifier = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype="float32")
        trainer = RewardTrainer(model=classifier, args=TrlRewardConfig(**common), **parts)
    else:
        model = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
        settings = DPOConfig(**common, loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.2])
        trainer = DPOTrainer(model=model, args=settings, **parts)
    trainer.train()
    trainer.save_model(str(path / "adapter"))
    return time.perf_counter() - started


def thousand(path: Path) -> tuple[float, dict[str, Any]]:
    """Seconds of DPO on 1,000 training pairs with the defaults, and what came out."""
    import json

    splits = {Split.TRAIN: make_rows(1000, 2), Split.VALIDATION: make_rows(125, 3), Split.TEST: make_rows(125, 4)}
    folder = make_folder(path, RunKind.DPO, splits)
    started = time.perf_counter()
    if execute(folder) != OK:
        raise RuntimeError(folder.events.read_text().splitlines()[-1])
    seconds = time.perf_counter() - started
    result = json.loads(folder.events.read_text().splitlines()[-1])["values"]
    names = ("steps", "kept_step", "test_accuracy", "tokens_per_second", "peak_memory_mb")
    return seconds, {name: round(result[name], 3) for name in names}


# --- through the store ---


def first_step(home: Path, pairs: int) -> float:
    """Seconds from queueing a DPO run to its first step in SQL, with a worker that is warm and idle."""
    from storage.engine import make_engine, make_sessions, read_only
    from storage.models import Project
    from storage.runs import get_run
    from storage.schema import upgrade
    from storage.training import queue_training
    from trainer.launch import Child, warm_up
    from trainer.worker import Worker, WorkerSettings, kinds_of

    home.mkdir(parents=True)
    url = f"sqlite:///{home / 'feedback.db'}"
    upgrade(url)
    engine = make_engine(url)
    sessions = make_sessions(engine)
    with sessions.begin() as session:
        project_id = _judged_project(session, pairs)
    warm_up()
    (home / "warm").mkdir()
    warm = Child(RunFolder(home / "warm"), nice=0)  # ends at once, for want of a run.json, when the imports are done
    while warm.exit_code is None:
        time.sleep(0.05)
    worker = Worker(WorkerSettings(url, home, kinds=kinds_of(["train"])), sessions)
    with sessions.begin() as session:
        project = session.get_one(Project, project_id)
        run_id = queue_training(session, project, RunKind.DPO, {}, home=home, default_base_model="starter").id
    started = time.perf_counter()
    while True:
        worker.tick()
        with read_only(sessions) as session:
            run = get_run(session, run_id)
            if run.step or run.status.ended:
                break
        time.sleep(0.02)
    seconds = time.perf_counter() - started
    worker.close()
    engine.dispose()
    if not run.step:
        raise RuntimeError(f"the run did not start: {run.error}")
    return seconds


def _judged_project(session: Any, pairs: int) -> int:
    """A project with so many comparisons on prompts of every split."""
    from storage.accounts import create_user
    from storage.annotations import PreferenceInput, Submission, record_imported
    from storage.enums import CompletionOrigin, Outcome, Role
    from storage.items import add_item
    from storage.projects import create_project
    from storage.prompts import add_completion, add_prompt

    project = create_project(session, "benchmark")
    user = create_user(session, "benchmark", Role.ANNOTATOR)
    for number, row in enumerate(make_rows(pairs, seed=5)):
        prompt = add_prompt(session, project, row["prompt"], "benchmark").row
        texts = [row[side][0]["content"] for side in ("chosen", "rejected")]
        first, second = (add_completion(session, prompt, text, CompletionOrigin.IMPORTED).row for text in texts)
        item = add_item(session, prompt, [first, second]).row
        preference = PreferenceInput(first.id, second.id, Outcome.FIRST, None)
        record_imported(session, item, user, Submission(preference=preference), f"{number:064d}")
    identity: int = project.id
    return identity


if __name__ == "__main__":
    raise SystemExit(run_benchmark("train", measure))
