"""ShareGPT ranking as LLaMA-Factory writes it: `conversations` of {from, value}, `chosen`, `rejected`."""

from __future__ import annotations

from typing import Any

from storage.ingest.records import BadRow, Record, Row, checked_prompt, checked_text, comparison, value_of
from storage.models import Message

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "system": "system",
}


def parse(row: Row) -> Record:
    """The dialogue so far, and two last turns of the assistant; an optional `system` column comes first."""
    conversations = value_of(row, "conversations")
    if not isinstance(conversations, list):
        raise BadRow("'conversations' is not a list of turns")
    messages = [_message(turn, "conversations") for turn in conversations]
    if row.get("system"):
        messages.insert(0, {"role": "system", "content": checked_text(row["system"], "system")})
    return comparison(checked_prompt(messages), _completion(row, "chosen"), _completion(row, "rejected"))


def _completion(row: Row, name: str) -> str:
    value = value_of(row, name)
    if isinstance(value, str):
        return checked_text(value, name)
    message = _message(value, name)
    if message["role"] != "assistant":
        raise BadRow(f"'{name}' is not a turn of the assistant")
    return checked_text(message["content"], name)


def _message(turn: Any, name: str) -> Message:
    if not isinstance(turn, dict) or not isinstance(turn.get("from"), str) or not isinstance(turn.get("value"), str):
        raise BadRow(f"'{name}' holds a turn without from and value")
    role = _ROLES.get(turn["from"])
    if role is None:
        raise BadRow(f"'{name}' holds a turn of '{turn['from'][:40]}', which is neither human, gpt nor system")
    return {"role": role, "content": turn["value"]}
