"""TRL preference rows: `prompt`, `chosen`, `rejected`; or `chosen` and `rejected` that both begin with the prompt."""

from __future__ import annotations

from itertools import takewhile

from storage.ingest.records import (
    BadRow,
    Record,
    Row,
    checked_prompt,
    checked_text,
    comparison,
    completion_of,
    decoded,
    messages_of,
    prompt_of,
    value_of,
)


def parse(row: Row) -> Record:
    """Standard or conversational, with the prompt in its own column or as the common beginning of both sides."""
    if row.get("prompt") is not None:
        return comparison(prompt_of(row), completion_of(row, "chosen"), completion_of(row, "rejected"))
    chosen, rejected = (decoded(value_of(row, name)) for name in ("chosen", "rejected"))
    if isinstance(chosen, list) and isinstance(rejected, list):
        return _conversational(messages_of(chosen, "chosen"), messages_of(rejected, "rejected"))
    return _standard(checked_text(chosen, "chosen"), checked_text(rejected, "rejected"))


def _conversational(chosen: list[dict[str, str]], rejected: list[dict[str, str]]) -> Record:
    if not chosen or len(chosen) != len(rejected) or chosen[:-1] != rejected[:-1]:
        raise BadRow("'chosen' and 'rejected' differ before the last message")
    for name, messages in (("chosen", chosen), ("rejected", rejected)):
        if messages[-1]["role"] != "assistant":
            raise BadRow(f"'{name}' does not end with a message of the assistant")
    texts = checked_text(chosen[-1]["content"], "chosen"), checked_text(rejected[-1]["content"], "rejected")
    return comparison(checked_prompt(chosen[:-1]), *texts)


def _standard(chosen: str, rejected: str) -> Record:
    """The rule of trl.extract_prompt: the common beginning is the prompt; a space there belongs to the completions."""
    if chosen == rejected:
        raise BadRow("the two completions are the same text")
    prompt = _common_beginning(chosen, rejected)
    if prompt.endswith(" "):
        prompt = prompt[:-1]
    texts = checked_text(chosen[len(prompt) :], "chosen"), checked_text(rejected[len(prompt) :], "rejected")
    return comparison([{"role": "user", "content": checked_text(prompt, "prompt")}], *texts)


def _common_beginning(one: str, other: str) -> str:
    return "".join(a for a, _ in takewhile(lambda both: both[0] == both[1], zip(one, other, strict=False)))
