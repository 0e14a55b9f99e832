"""Training speed: our recipes beside two plain TRL scripts on the same pairs, interleaved in one run.

`python -m benchmarks.train [--quick] [--only store memory reward …] [--json]`. Pairs are written by the starter's
grammar. One script leaves all that makes speed at TRL's defaults, the other is tuned by hand. All sides use one model,
LoRA, schedule, batch size, epochs and threads, and no evaluation; seconds count everything from pairs on disk to a
trained adapter, imports and a first short run of each side apart, and the order changes from round to round. The full
mode repeats it on a larger model, and trains on 1,000 pairs as an operator would, held-out pairs, early stopping and
all. `queued to first step` and `last step to served` go through a real store and a warm worker, which answers somebody
in the playground before and after (`benchmarks._through_store`). Peak memory is that of a process of its own for each
side.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks._memory import peak_mb
from benchmarks._report import Bar, Outcome, run_benchmark
from benchmarks._through_store import through_the_store
from storage.configs import DpoConfig, RewardConfig, resolve_dpo, resolve_reward
from storage.enums import RunKind, SnapshotForm, Split
from storage.snapshots import FORMS
from trainer.folder import Job, RunFolder
from trainer.run import OK, default_threads, execute, quiet_environment
from trainer.starter import grammar

KINDS = (RunKind.DPO, RunKind.REWARD)
PARTS = ("store", "dpo", "reward", "dpo-35M", "reward-35M", "memory", "thousand")
QUICK = ("store", "reward")
BATCH, EPOCHS, RATE = 8, 3, 1e-3  # TRL's own batch size and epochs
BETA, ANCHOR, CENTRE = 0.3, 0.2, 0.01  # ours for few pairs; without them the losses would be others
DEFAULTS: dict[str, Any] = {}
# What one sets who knows the machine. Autocast to bfloat16 too, where the processor has it; the starter is too small.
BY_HAND: dict[str, Any] = {"bf16": False, "gradient_checkpointing": False}
OURS, PLAIN, TUNED = "ours", "TRL's defaults", "TRL, tuned by hand"
ORDERED = "ours, in the script's order"  # ours takes rows of like length together: other batches, other losses


class Trained(NamedTuple):
    """Seconds from pairs on the disk to the saved adapter, those of the processor, and the loss of each step."""

    seconds: float
    cpu_seconds: float
    losses: list[float]

    @property
    def samples(self) -> int:
        """Pairs seen, each as often as there were epochs."""
        return BATCH * len(self.losses)


Beside = dict[str, list[Trained]]  # of each side, by round


Maker = Callable[[Path, str, list[dict[str, Any]], RunKind], Trained]


def measure(args: argparse.Namespace) -> Outcome:
    """Every figure of this benchmark."""
    quiet_environment()
    pairs, rounds = (16, 1) if args.quick else (64, 2)
    bars: list[Bar] = []
    extra: dict[str, Any] = {"threads": default_threads(RunKind.DPO), "pairs": pairs, "rounds": rounds}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        rows = make_rows(pairs, seed=1)
        only = args.only or (QUICK if args.quick else PARTS)
        if "store" in only:
            bars += _store(scratch / "store", 64 if args.quick else 400, extra)
        for kind in KINDS:
            if kind.value in only:
                bars += _compared(
                    beside_trl(scratch, "starter", kind, rows, rounds, 2 if args.quick else 8), kind.value, extra
                )
        larger = make_model(scratch / "larger")
        for kind in KINDS:
            if f"{kind.value}-35M" in only:
                found = beside_trl(scratch / "larger-runs", larger, kind, rows[:16], rounds, 2)
                bars += _compared(found, f"{kind.value}, 35M parameters", extra)
        if "memory" in only:
            bars += _memory(scratch, larger, rows[:16], extra)
        if "thousand" in only:
            seconds, result = thousand(scratch / "thousand")
            bars.append(Bar("DPO on 1,000 pairs of the starter s", seconds, 180, "<="))
            extra["DPO on 1,000 pairs"] = result
    return Outcome(bars, extra)


def _store(home: Path, pairs: int, extra: dict[str, Any]) -> list[Bar]:
    waited = through_the_store(home, make_rows(pairs, seed=5))
    extra["from the last step to, s"] = {name: round(value, 2) for name, value in waited._asdict().items()}
    return [
        Bar("queued to first step s", waited.first_step, 3.0, "<="),
        Bar("last step to served s", waited.served, 3.0, "<="),
    ]


def _memory(scratch: Path, larger: str, rows: list[dict[str, Any]], extra: dict[str, Any]) -> list[Bar]:
    """Peak memory over that of the script tuned by hand."""
    bars = []
    for size, base in (("starter", "starter"), ("35M parameters", larger)):
        for kind in KINDS:
            sides = {
                side: peak_mb(side, kind, base, rows, scratch / f"memory-{size}-{kind}-{side}")
                for side in ("ours", "by hand")
            }
            extra[f"peak memory MB, {kind.value}, {size}"] = {side: round(peak) for side, peak in sides.items()}
            bars.append(
                Bar(f"peak memory over TRL's, {kind.value}, {size}", sides["ours"] / sides["by hand"], 1.1, "<=")
            )
    return bars


def _compared(found: Beside, name: str, extra: dict[str, Any]) -> list[Bar]:
    """Our speed over that of each of TRL's sides."""

    def speed(side: str, cpu: bool = False) -> float:
        return statistics.median(one.samples / (one.cpu_seconds if cpu else one.seconds) for one in found[side])

    extra[f"{name}: by the processor's time, over defaults and by hand"] = [
        round(speed(OURS, cpu=True) / speed(side, cpu=True), 2) for side in (PLAIN, TUNED)
    ]
    for side, rounds in found.items():
        losses = rounds[0].losses
        epoch = max(1, len(losses) // EPOCHS)
        extra[f"{name}: {side}"] = {
            "samples/s": round(speed(side), 2),
            "samples/CPU s": round(speed(side, cpu=True), 2),
            "losses by third of the steps": [
                round(statistics.mean(losses[place : place + epoch]), 3) for place in range(0, len(losses), epoch)
            ],
        }
    return [
        Bar(f"{name} samples/s over TRL's defaults", speed(OURS) / speed(PLAIN), 2.0),
        Bar(f"{name} samples/s over TRL, tuned by hand", speed(OURS) / speed(TUNED), 1.2),
        Bar(f"{name} largest difference of a loss", _apart(found[ORDERED][0], found[TUNED][0]), 0.01, "<="),
    ]


def _apart(one: Trained, other: Trained) -> float:
    return max(abs(mine - theirs) for mine, theirs in zip(one.losses, other.losses, strict=True))


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


def make_folder(
    path: Path, kind: RunKind, splits: dict[Split, list[dict[str, Any]]], base: str = "starter", **asked: Any
) -> RunFolder:
    """A run folder on a base model, its config resolved as `queue_training` would."""
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
    job = Job(recipe=kind, run_id=1, project="benchmark", config=config.model_dump(mode="json"), base_model=base)
    folder.write_job(job)
    return folder


# --- beside TRL ---


def beside_trl(
    scratch: Path, base: str, kind: RunKind, rows: list[dict[str, Any]], rounds: int, plain_steps: int
) -> Beside:
    """What each side took and came to, in turns, each round in another order; ours also on the script's batches.

    `plain_steps`: after so many the script with TRL's defaults ends, which takes long; it is measured once.
    """
    import torch
    from transformers import Trainer

    import trainer.preload  # noqa: F401  whoever comes first must not pay for the imports
    from trainer.callbacks import WatchedTrainer

    torch.set_num_threads(default_threads(kind))
    sides: dict[str, Maker] = {OURS: run_ours, TUNED: partial(run_trl, **BY_HAND)}
    plain: Maker = partial(run_trl, max_steps=plain_steps, **DEFAULTS)
    places = count()

    def trained(maker: Maker, some: list[dict[str, Any]]) -> Trained:
        path = scratch / f"{kind}-{next(places)}"
        done = maker(path, base, some, kind)
        shutil.rmtree(path)
        return done

    for maker in sides.values():
        trained(maker, rows[:BATCH])
    done: Beside = {name: [] for name in sides}
    for number in range(rounds):
        for name in sorted(sides, reverse=number % 2 == 1):
            done[name].append(trained(sides[name], rows))
    with patch.object(WatchedTrainer, "_get_train_sampler", Trainer._get_train_sampler):
        done[ORDERED] = [trained(run_ours, rows)]
    return done | {PLAIN: [trained(plain, rows)]}


def run_ours(path: Path, base: str, rows: list[dict[str, Any]], kind: RunKind) -> Trained:
    """Train through the run folder."""
    reward: dict[str, Any] = {"heads": 1, "center_rewards_coefficient": CENTRE}
    asked = reward if kind is RunKind.REWARD else {"beta": BETA, "sft_weight": ANCHOR}
    asked |= {"epochs": EPOCHS, "batch_size": BATCH, "learning_rate": RATE, "early_stopping": False}
    folder = make_folder(path, kind, {Split.TRAIN: rows}, base, **asked)
    started, cpu = time.perf_counter(), time.process_time()
    if execute(folder) != OK:
        raise RuntimeError(folder.events.read_text().splitlines()[-1])
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    events = [json.loads(line) for line in folder.events.read_text().splitlines()]
    losses = [e["values"]["loss"] for e in events if e["event"] == "metrics" and "loss" in e["values"]]
    return Trained(seconds, cpu_seconds, losses)


def run_trl(path: Path, base: str, rows: list[dict[str, Any]], kind: RunKind, **chosen: Any) -> Trained:
    """The script that TRL's documentation would have one write; `chosen`: what it sets besides."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, set_seed
    from trl import DPOConfig, DPOTrainer, RewardTrainer
    from trl import RewardConfig as TrlRewardConfig

    from trainer.policy import resolve_base_model

    path.mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=FORMS[SnapshotForm.PREFERENCE].schema), path / "train.parquet")
    started, cpu = time.perf_counter(), time.process_time()
    set_seed(0)  # as ours: the head of a reward model starts random
    source = resolve_base_model(base)
    table = pq.read_table(path / "train.parquet", columns=["prompt", "chosen", "rejected"])
    common: dict[str, Any] = {
        "output_dir": str(path), "use_cpu": True, "learning_rate": RATE, "num_train_epochs": EPOCHS,
        "per_device_train_batch_size": BATCH, "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
        "logging_steps": 1, "warmup_steps": 0.1, "seed": 0, **chosen,
    }  # fmt: skip
    reward = kind is RunKind.REWARD
    lora = LoraConfig(
        task_type="SEQ_CLS" if reward else "CAUSAL_LM", r=16, lora_alpha=16, target_modules="all-linear",
        modules_to_save=["score"] if reward else None,
    )  # fmt: skip
    parts: dict[str, Any] = {
        "train_dataset": Dataset(table), "peft_config": lora, "processing_class": AutoTokenizer.from_pretrained(source)
    }  # fmt: skip
    trainer: Any
    if reward:
        classifier = AutoModelForSequenceClassification.from_pretrained(source, num_labels=1, dtype="float32")
        scoring = TrlRewardConfig(**common, center_rewards_coefficient=CENTRE)
        trainer = RewardTrainer(model=classifier, args=scoring, **parts)
    else:
        model = AutoModelForCausalLM.from_pretrained(source, dtype="float32")
        settings = DPOConfig(**common, beta=BETA, loss_type=["sigmoid", "sft"], loss_weights=[1.0, ANCHOR])
        trainer = DPOTrainer(model=model, args=settings, **parts)
    trainer.train()
    trainer.save_model(str(path / "adapter"))
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    return Trained(seconds, cpu_seconds, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry])


def make_model(path: Path) -> str:
    """A model of some 35 million parameters with the starter's vocabulary and random weights; gives its folder."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from trainer.policy import resolve_base_model

    tokenizer = AutoTokenizer.from_pretrained(resolve_base_model("starter"))
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=576, intermediate_size=1536, num_hidden_layers=9, num_attention_heads=9,
        num_key_value_heads=9, max_position_embeddings=1024, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


def thousand(path: Path) -> tuple[float, dict[str, Any]]:
    """Seconds of DPO on 1,000 training pairs with the defaults, and what came out."""
    splits = {Split.TRAIN: make_rows(1000, 2), Split.VALIDATION: make_rows(125, 3), Split.TEST: make_rows(125, 4)}
    folder = make_folder(path, RunKind.DPO, splits)
    started = time.perf_counter()
    if execute(folder) != OK:
        raise RuntimeError(folder.events.read_text().splitlines()[-1])
    seconds = time.perf_counter() - started
    result = json.loads(folder.events.read_text().splitlines()[-1])["values"]
    names = ("steps", "kept_step", "test_accuracy", "tokens_per_second", "peak_memory_mb")
    return seconds, {name: round(result[name], 3) for name in names}


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", choices=PARTS, help="these parts, in full unless --quick")


if __name__ == "__main__":
    raise SystemExit(run_benchmark("train", measure, arguments=_arguments))
