"""HH-RLHF: `chosen` and `rejected` are whole dialogues of Human and Assistant that differ in the last turn."""

from __future__ import annotations

import re

from storage.ingest.records import BadRow, Record, Row, checked_prompt, checked_text, comparison, text_of
from storage.models import Message

_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def is_dialogue(value: object) -> bool:
    """True for a text in the format's notation."""
    return isinstance(value, str) and value.lstrip("\n").startswith("Human:") and "\n\nAssistant:" in value


def parse(row: Row) -> Record:
    """Two dialogues with the same turns up to the last one, which is the assistant's."""
    chosen, rejected = _turns(text_of(row, "chosen"), "chosen"), _turns(text_of(row, "rejected"), "rejected")
    if chosen[:-1] != rejected[:-1]:
        raise BadRow("'chosen' and 'rejected' differ before the last turn")
    texts = checked_text(chosen[-1]["content"], "chosen"), checked_text(rejected[-1]["content"], "rejected")
    return comparison(checked_prompt(chosen[:-1]), *texts)


def _turns(dialogue: str, name: str) -> list[Message]:
    before, *parts = _TURN.split(dialogue)
    if before.strip() or not parts:
        raise BadRow(f"'{name}' is not a dialogue of Human and Assistant")
    turns = [{"role": _ROLES[who], "content": said.strip()} for who, said in zip(parts[::2], parts[1::2], strict=True)]
    if turns[-1]["role"] != "assistant":
        raise BadRow(f"'{name}' does not end with a turn of the assistant")
    return turns
