"""What fits is tokenised as TRL would; what does not is shortened or left out by the stated rule, and counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from storage.enums import Split
from storage.errors import NotEnoughData, NotFound, StoreUnavailable
from tests.trainer.conftest import FolderMaker, rows_of, write_rows
from trainer.datasets import fit_prompt, load_splits, prompt_ids, tokenise_pairs, tokenised
from trainer.folder import Cancelled


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_base)


def _row(prompt: list[tuple[str, str]], chosen: str = "thanks", rejected: str = "sorry") -> dict[str, Any]:
    row = rows_of(1)[0]
    row["prompt"] = [{"role": role, "content": content} for role, content in prompt]
    row["chosen"] = [{"role": "assistant", "content": chosen}]
    row["rejected"] = [{"role": "assistant", "content": rejected}]
    return row


def test_pairs_that_fit_are_tokenised_as_trl_does(tokenizer: Any) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    rows = rows_of(5)
    plain = Dataset.from_list([{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in rows])
    trainer = object.__new__(DPOTrainer)  # only its tokenisation is wanted
    trainer._tokenizer = tokenizer
    theirs = trainer._prepare_dataset(plain, tokenizer, DPOConfig(use_cpu=True, bf16=False, max_length=None), "train")
    for ours, row in zip(tokenise_pairs(tokenizer, rows, 256), theirs, strict=True):
        assert not isinstance(ours, str)
        assert (ours.prompt, ours.chosen, ours.rejected) == (row["prompt_ids"], row["chosen_ids"], row["rejected_ids"])
        assert not ours.shortened


def test_a_long_prompt_loses_its_beginning_and_no_completion_is_cut(tokenizer: Any) -> None:
    long = " ".join(f"word{n}" for n in range(200))
    row = _row([("user", long)], chosen="thanks today")
    whole = tokenise_pairs(tokenizer, [row], 100_000)[0]
    pair = tokenise_pairs(tokenizer, [row], 100)[0]
    assert not isinstance(whole, str)
    assert not isinstance(pair, str)
    assert pair.shortened
    assert (pair.chosen, pair.rejected) == (whole.chosen, whole.rejected)
    assert len(pair.prompt) + len(pair.chosen) <= 100
    text = tokenizer.decode(pair.prompt)
    assert text.startswith("<|user|>")
    assert text.endswith("word199<|end|><|assistant|>")


def test_whole_messages_go_first_and_the_system_message_stays(tokenizer: Any) -> None:
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "parcel " * 60},
        {"role": "assistant", "content": "sorry " * 60},
        {"role": "user", "content": "refund today"},
    ]
    budget = len(prompt_ids(tokenizer, [messages[0], messages[3]]))
    fitted = fit_prompt(tokenizer, messages, budget)
    assert fitted is not None
    assert fitted.messages == [messages[0], messages[3]]
    assert fitted.ids == prompt_ids(tokenizer, fitted.messages)


def test_cutting_never_splits_a_character(tokenizer: Any) -> None:
    messages = [{"role": "user", "content": "猫が好きです" * 40}]
    fitted = fit_prompt(tokenizer, messages, 64)
    assert fitted is not None
    assert len(fitted.ids) <= 64
    assert "�" not in fitted.messages[0]["content"]
    assert messages[0]["content"].endswith(fitted.messages[0]["content"])


def test_what_cannot_fit_is_left_out_with_its_reason(tokenizer: Any) -> None:
    rows = [
        _row([("user", "parcel")], chosen="sorry " * 300),
        _row([("system", "be kind " * 300), ("user", "parcel")]),
        _row([("user", "parcel")]),
    ]
    assert [p if isinstance(p, str) else "kept" for p in tokenise_pairs(tokenizer, rows, 64)] == [
        "completion too long",
        "prompt too long",
        "kept",
    ]


def test_the_report_counts_every_pair(make_folder: FolderMaker, tokenizer: Any) -> None:
    rows = [*rows_of(3), _row([("user", "parcel")], chosen="sorry " * 300), _row([("user", "parcel " * 300)])]
    folder = make_folder("dpo", rows=rows)
    data, fit = load_splits(folder, tokenizer, 64)
    assert fit["train"] == {
        "pairs": 5, "kept": 4, "shortened": 1, "left_out": {"completion too long": 1}, "max_length": 64
    }  # fmt: skip
    assert len(data[Split.TRAIN]) == 4
    lines = folder.events.read_text()
    assert "4 of 5 pairs used, 1 prompts shortened, 1 left out (completion too long)" in lines


def test_tokens_are_made_once_and_found_again(make_folder: FolderMaker, tokenizer: Any) -> None:
    folder = make_folder("dpo")
    first, fit = tokenised(folder, Split.TRAIN, tokenizer, 128)
    folder.split(Split.TRAIN).unlink()  # a second reading would fail
    again, same_fit = tokenised(folder, Split.TRAIN, tokenizer, 128)
    assert first.to_dict() == again.to_dict()
    assert fit == same_fit
    assert first._fingerprint == again._fingerprint


def test_nothing_that_fits_is_refused_in_one_line(make_folder: FolderMaker, tokenizer: Any) -> None:
    folder = make_folder("dpo", rows=[_row([("user", "parcel")], chosen="sorry " * 300)])
    with pytest.raises(NotEnoughData, match="no training pair fits 64 tokens"):
        load_splits(folder, tokenizer, 64)


def test_a_missing_or_damaged_file_is_one_line(make_folder: FolderMaker, tokenizer: Any) -> None:
    folder = make_folder("dpo")
    folder.split(Split.TRAIN).write_bytes(b"no parquet")
    with pytest.raises(StoreUnavailable, match="cannot be read"):
        load_splits(folder, tokenizer, 64)
    folder.split(Split.TRAIN).unlink()
    with pytest.raises(NotFound, match="is missing"):
        load_splits(folder, tokenizer, 64)


def test_cancel_is_seen_while_tokenising(make_folder: FolderMaker, tokenizer: Any) -> None:
    folder = make_folder("dpo")
    write_rows(folder, Split.TRAIN, rows_of(400))
    folder.cancel_file.touch()
    with pytest.raises(Cancelled):
        load_splits(folder, tokenizer, 64)
