"""A tiny Llama with a chat template, run folders around it, and a way to execute them in this process."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy.orm import Session, sessionmaker

from storage.configs import parse
from storage.critique_configs import RECIPES
from storage.engine import make_engine, make_sessions
from storage.enums import RunKind, SnapshotForm, Split
from storage.snapshots import FORMS
from tests.factories import make_project, make_prompt
from tests.trainer.working import TRAINING
from trainer.folder import Job, RunFolder
from trainer.launch import warm_up
from trainer.run import execute
from trainer.worker import Worker, WorkerSettings

TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message.role + '|>' + message.content + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
WORDS = ["parcel", "late", "refund", "order", "seven", "blue", "lamp", "thanks", "sorry", "today", "broken", "Ännchen"]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a Llama of two layers and a byte-level tokenizer, context 256."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>", padding_side="left"
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True, initializer_range=0.2,
        eos_token_id=fast.eos_token_id, pad_token_id=fast.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def sentence(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words))


def rows_of(count: int, seed: int = 0, words: int = 6, weight: float = 1.0) -> list[dict[str, Any]]:
    """Snapshot rows: the chosen completion begins with thanks, the rejected one does not."""
    rng = random.Random(seed)
    return [
        {
            "prompt": [{"role": "user", "content": sentence(rng, words)}],
            "chosen": [{"role": "assistant", "content": "thanks " + sentence(rng, rng.randint(2, words))}],
            "rejected": [{"role": "assistant", "content": sentence(rng, rng.randint(2, words))}],
            "source": "comparison",
            "weight": weight,
            "prompt_id": index,
            "chosen_id": 2 * index + rng.randint(0, 1),
            "rejected_id": 2 * index + 1,
            "annotation_ids": [index],
            "prompt_hash": f"{index:064x}",
        }
        for index in range(count)
    ]


def single_rows_of(count: int, seed: int = 0, words: int = 6, weight: float = 1.0) -> list[dict[str, Any]]:
    """Snapshot rows of one completion: every other one begins with thanks, and is good."""
    rng = random.Random(seed)
    return [
        {
            "prompt": [{"role": "user", "content": sentence(rng, words)}],
            "completion": [
                {
                    "role": "assistant",
                    "content": ("" if index % 2 else "thanks ") + sentence(rng, rng.randint(2, words)),
                }
            ],
            "label": index % 2 == 0,
            "feedback": [{"text": "no thanks", "tags": [], "span_start": None, "span_end": None, "fix": None}]
            if index % 2
            else [],
            "rating": 1.0 - index % 2,
            "source": "rating",
            "weight": weight,
            "prompt_id": index,
            "completion_id": index,
            "annotation_ids": [index],
            "prompt_hash": f"{index:064x}",
        }
        for index in range(count)
    ]


def write_rows(folder: RunFolder, split: Split, rows: list[dict[str, Any]], form: SnapshotForm | None = None) -> None:
    schema = FORMS[form or SnapshotForm.PREFERENCE].schema
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder.split(split))


@dataclass
class Outcome:
    """What `execute` left behind."""

    code: int
    folder: RunFolder
    events: list[dict[str, Any]]

    def series(self, name: str) -> list[tuple[int, float | None]]:
        return [
            (event["step"], event["values"][name])
            for event in self.events
            if event["event"] == "metrics" and name in event["values"]
        ]

    @property
    def result(self) -> dict[str, Any]:
        found = [event["values"] for event in self.events if event["event"] == "result"]
        assert found, self.events[-3:]
        values: dict[str, Any] = found[-1]
        return values

    @property
    def error(self) -> dict[str, Any]:
        return next(event for event in self.events if event["event"] == "error")


FolderMaker = Callable[..., RunFolder]
Executor = Callable[[RunFolder], Outcome]


@pytest.fixture
def make_folder(tmp_path: Path, tiny_base: Path) -> FolderMaker:
    """`make_folder("dpo", "name", train=24, **asked)`: a run folder of pairs, ready to execute."""

    def make(
        kind: str,
        name: str = "run",
        *,
        train: int = 24,
        held_out: int = 8,
        rows: list[dict[str, Any]] | None = None,
        base: Path | None = None,
        **asked: Any,
    ) -> RunFolder:
        folder = RunFolder(tmp_path / name)
        folder.path.mkdir()
        form = RunKind(kind).form
        make_rows = rows_of if form is SnapshotForm.PREFERENCE else single_rows_of
        write_rows(folder, Split.TRAIN, rows if rows is not None else make_rows(train, 1), form)
        write_rows(folder, Split.VALIDATION, make_rows(held_out, 2), form)
        write_rows(folder, Split.TEST, make_rows(held_out, 3), form)
        asked = {"batch_size": 8, "lora_r": 4, "threads": 1, "device": "cpu"} | asked
        pairs = len(rows) if rows is not None else train
        recipe = RECIPES[RunKind(kind)]
        config = recipe.resolve(parse(recipe.config, asked), pairs)
        job = Job(
            recipe=RunKind(kind),
            run_id=1,
            project="tiny",
            config=config.model_dump(mode="json"),
            base_model=str(base or tiny_base),
            seed=asked.get("seed", 0),
            sampling={"max_new_tokens": 60},  # some of what it samples ends by itself
        )
        folder.write_job(job)
        return folder

    return make


@pytest.fixture
def run() -> Executor:
    """Execute a run folder in this process."""

    def run_folder(folder: RunFolder) -> Outcome:
        code = execute(folder)
        events = [json.loads(line) for line in folder.events.read_text("utf-8").splitlines()]
        return Outcome(code, folder, events)

    return run_folder


@pytest.fixture(scope="session")
def warm() -> None:
    """A forkserver that has imported everything heavy."""
    warm_up()


@pytest.fixture
def sessions(sqlite_url: str) -> Iterator[sessionmaker[Session]]:
    engine = make_engine(sqlite_url)
    yield make_sessions(engine)
    engine.dispose()


@pytest.fixture
def project_id(sessions: sessionmaker[Session], tiny_base: Path) -> int:
    """A project on the tiny model with prompts, and no automatic filling."""
    with sessions.begin() as session:
        project = make_project(
            session,
            "care",
            base_model=str(tiny_base),
            queue_target=0,
            sampling={"max_new_tokens": 12, "temperature": 1.0},
        )
        for split in Split:
            for _ in range(3):
                make_prompt(session, project, split=split)
        return project.id


@pytest.fixture
def make_worker(sessions: sessionmaker[Session], sqlite_url: str, home: Path) -> Iterator[Callable[..., Worker]]:
    made: list[Worker] = []

    def make(kinds: frozenset[RunKind] = TRAINING, **fields: Any) -> Worker:
        made.append(
            Worker(WorkerSettings(sqlite_url, home, kinds=kinds, poll_seconds=0.05, device="cpu", **fields), sessions)
        )
        return made[-1]

    yield make
    for worker in made:
        worker.close()
