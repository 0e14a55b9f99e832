"""Exports in the hands of those they are for: `datasets.load_dataset`, and TRL's trainers with no mapping between."""

from __future__ import annotations

import pytest

from storage.engine import make_engine, make_sessions
from storage.enums import Outcome, Split
from storage.export import export
from tests.storage.feedback import Desk

pytestmark = pytest.mark.usefixtures("one_thread")
WORDS = ["parcel", "late", "refund", "order", "blue", "lamp", "thanks", "sorry", "today"]


@pytest.fixture
def one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder with a Llama of one layer, and its tokenizer with a chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    vocabulary = {word: n for n, word in enumerate(["<pad>", "<end>", "<unk>", "user", "assistant", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>")
    fast.chat_template = (
        "{% for m in messages %}{{ m.role + ' ' + m.content + ' <end> ' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant ' }}{% endif %}"
    )
    fast.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=128, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def desk(sqlite_url):
    engine = make_engine(sqlite_url)
    with make_sessions(engine).begin() as session:
        desk = Desk(session)
        for n in range(12):
            prompt = desk.prompt(" ".join(WORDS[: n % 7 + 1]) + f" {n}", list(Split)[0 if n < 8 else 1 + n % 2])
            pair = desk.completion(prompt, "thanks sorry"), desk.completion(prompt, "late late")
            refinement = (pair[1], "thanks today") if n % 3 == 0 else None
            ratings = [(pair[0], "quality", 5), (pair[1], "quality", 1)]
            desk.judge("ann", pair, Outcome.FIRST, 2, ratings, refinement, critique=(pair[1], "too slow", 0, 4))
        yield desk
    engine.dispose()


def load(path, format, tmp_path):
    from datasets import load_dataset

    cache = str(tmp_path / "cache")
    if format == "hf":
        return load_dataset(str(path), cache_dir=cache)
    kind = {"jsonl": "json", "parquet": "parquet", "csv": "csv"}[format]
    return load_dataset(kind, data_files=str(path), cache_dir=cache)


@pytest.mark.parametrize("format", ["jsonl", "parquet", "hf"])
def test_preference_exports_go_straight_into_dpo_training(desk, tiny, tmp_path, format):
    from trl import DPOConfig, DPOTrainer

    out = tmp_path / f"pairs.{format}"
    rows = export(desk.session, desk.project, "preference", format, out).rows
    data = load(out, format, tmp_path)
    assert sum(len(part) for part in data.values()) == rows == 16
    arguments = DPOConfig(
        output_dir=str(tmp_path / "run"), use_cpu=True, bf16=False, max_steps=2, per_device_train_batch_size=4,
        report_to=[], save_strategy="no", logging_steps=1, disable_tqdm=True,
    )  # fmt: skip
    trainer = DPOTrainer(model=str(tiny), args=arguments, train_dataset=data["train"])
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 2
    assert losses[0] == pytest.approx(0.6931, abs=0.01)  # policy and reference agree at the first step
    assert trainer.train_dataset[0]["chosen_ids"] != trainer.train_dataset[0]["rejected_ids"]


def test_the_folder_has_its_splits_and_loads_by_name_alone(desk, tmp_path):
    export(desk.session, desk.project, "preference", "hf", tmp_path / "folder")
    data = load(tmp_path / "folder", "hf", tmp_path)
    assert {name: set(part["split"]) for name, part in data.items()} == {s.value: {s.value} for s in Split}
    assert data["test"][0]["chosen"] == [{"role": "assistant", "content": "thanks sorry"}]


@pytest.mark.parametrize("what", ["unpaired", "prompt-completion", "ratings", "critiques", "annotations"])
def test_every_table_loads_from_a_folder(desk, tmp_path, what):
    rows = export(desk.session, desk.project, what, "hf", tmp_path / "folder").rows
    assert sum(len(part) for part in load(tmp_path / "folder", "hf", tmp_path).values()) == rows > 0


def test_unpaired_and_prompt_completion_exports_go_straight_into_their_trainers(desk, tiny, tmp_path):
    from trl import KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

    common = {
        "output_dir": str(tmp_path / "run"), "use_cpu": True, "bf16": False, "max_steps": 1, "report_to": [],
        "per_device_train_batch_size": 4, "save_strategy": "no", "disable_tqdm": True,
    }  # fmt: skip
    for what, trainer, config in (
        ("unpaired", KTOTrainer, KTOConfig),
        ("prompt-completion", SFTTrainer, SFTConfig),
    ):
        out = tmp_path / f"{what}.jsonl"
        assert export(desk.session, desk.project, what, "jsonl", out).rows > 0
        data = load(out, "jsonl", tmp_path)["train"]
        made = trainer(model=str(tiny), args=config(**common), train_dataset=data)
        assert made.train().training_loss > 0
