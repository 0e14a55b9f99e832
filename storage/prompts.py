"""Prompts and completions, each stored once per content, and the split that a prompt belongs to for ever."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from storage.enums import CompletionOrigin, Split
from storage.errors import Invalid
from storage.models import Base, Completion, JsonObject, Message, Project, Prompt

ROLES = ("system", "user", "assistant")
PLAYGROUND_SOURCE = "playground"  # of a prompt that somebody wrote for themselves: the queue is not filled with it
_UNSTORABLE = {0: "\ufffd", **dict.fromkeys(range(0xD800, 0xE000), "\ufffd")}

T = TypeVar("T", bound=Base)


class Added(NamedTuple, Generic[T]):
    """A row, and whether this call made it (False: it was there already)."""

    row: T
    created: bool


def storable(text: str) -> str:
    """`text` with U+FFFD for what PostgreSQL or UTF-8 cannot hold: NUL and lone surrogates.

    A byte-level model can write both; the replacement sign is what its tokenizer would show a person.
    """
    return text.translate(_UNSTORABLE)


def clean_messages(messages: Sequence[Message]) -> list[Message]:
    """Chat messages as stored: `role` and `content` only; raises `Invalid` unless they ask for a completion."""
    cleaned: list[Message] = []
    for message in messages:
        role, content = message.get("role"), message.get("content")
        if role not in ROLES or not isinstance(content, str):
            raise Invalid("a prompt's message needs a role (system, user or assistant) and a text as content")
        cleaned.append({"role": role, "content": storable(content)})
    if not cleaned or cleaned[-1]["role"] != "user":
        raise Invalid("a prompt must end with a message of the user")
    if not cleaned[-1]["content"].strip():
        raise Invalid("a prompt's last message is empty")
    return cleaned


def content_hash(messages: Sequence[Message]) -> str:
    """SHA-256 (hex) of the messages' canonical JSON: roles and contents in order, nothing else."""
    canonical = [{"content": message["content"], "role": message["role"]} for message in messages]
    return text_hash(json.dumps(canonical, ensure_ascii=False, separators=(",", ":")))


def text_hash(text: str) -> str:
    """SHA-256 (hex) of a text in UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def split_of(content_hash: str) -> Split:
    """The split of a prompt by its content's hash: 80 % train, 10 % validation, 10 % test, the same for ever."""
    bucket = int(content_hash[:8], 16) % 100
    if bucket < 80:
        return Split.TRAIN
    return Split.VALIDATION if bucket < 90 else Split.TEST


def add_prompt(session: Session, project: Project, messages: Sequence[Message], source: str) -> Added[Prompt]:
    """Store a prompt once per project; `source` says where it came from and stays that of the first time."""
    cleaned = clean_messages(messages)
    digest = content_hash(cleaned)
    return insert_once(
        session,
        Prompt,
        {"project_id": project.id, "content_hash": digest},
        {"messages": cleaned, "source": source, "split": split_of(digest)},
    )


def add_completion(
    session: Session,
    prompt: Prompt,
    text: str,
    origin: CompletionOrigin,
    *,
    model_version_id: int | None = None,
    run_id: int | None = None,
    sampling: JsonObject | None = None,
    seed: int | None = None,
    token_count: int | None = None,
    mean_logprob: float | None = None,
    latency_ms: float | None = None,
) -> Added[Completion]:
    """Store a completion once per prompt and text; a text that is there already keeps its first origin.

    `latency_ms` is that of its batch, `mean_logprob` in nats per token. Raises `Invalid` for an empty text.
    """
    cleaned = storable(text)
    if not cleaned.strip():
        raise Invalid("a completion is empty")
    return insert_once(
        session,
        Completion,
        {"prompt_id": prompt.id, "content_hash": text_hash(cleaned)},
        {
            "text": cleaned,
            "origin": origin,
            "model_version_id": model_version_id,
            "run_id": run_id,
            "sampling": sampling,
            "seed": seed,
            "token_count": token_count,
            "mean_logprob": mean_logprob,
            "latency_ms": latency_ms,
        },
    )


def insert_once(session: Session, kind: type[T], key: dict[str, Any], values: dict[str, Any]) -> Added[T]:
    """The row of `kind` with the unique `key`, inserted with `values` unless it is there; safe under a race."""
    find = select(kind).filter_by(**key)
    found = session.scalar(find)
    if found is not None:
        return Added(found, False)
    # INSERT … ON CONFLICT is the same on both databases, but SQLAlchemy keeps it in each dialect.
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    made = session.scalar(insert(kind).values(**key, **values).on_conflict_do_nothing().returning(kind))
    return Added(made, True) if made is not None else Added(session.scalars(find).one(), False)
