"""A large store, built in bulk: what an installation looks like after 100,000 annotations."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from datetime import timedelta
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Engine, insert

from storage.enums import (
    AnnotationStatus,
    AssignmentStatus,
    CompletionOrigin,
    ItemKind,
    ItemStatus,
    Outcome,
    Role,
)
from storage.ingest.identity import fingerprint
from storage.models import (
    Annotation,
    Assignment,
    Base,
    Completion,
    Criterion,
    Critique,
    Item,
    ItemCompletion,
    Preference,
    Project,
    Prompt,
    Rating,
    User,
    utc_now,
)
from storage.prompts import content_hash, split_of, text_hash

ANNOTATORS = 10
OVERLAP = 2
_START = utc_now()
_TEXT = "your parcel order refund invoice is late broken today tomorrow sorry we will send a new one by Tuesday thank"
_WORDS = _TEXT.split()


def fill(engine: Engine, annotations: int, fresh: int) -> None:
    """Project 1 of an SQLite store with `annotations` judged and `fresh` unjudged items, at an overlap of 2.

    Each judged item has one annotation, by one of ten people in turn, with a preference and two ratings, every fourth
    with a critique. Every third is still open for a second annotator, so that the queue has much to walk past. Texts
    are of 20 to 60 words.
    """
    project = {"id": 1, "name": "bench", "guidelines": "", "overlap": OVERLAP, "sampling": {}, "training_policy": {}}
    everything = range(1, annotations + fresh + 1)
    judged = range(1, annotations + 1)
    with engine.begin() as connection:
        _put(connection, User, _users())
        _put(connection, Project, [project])
        _put(connection, Criterion, [{"id": 1, "project_id": 1, "name": "quality", "position": 0}])
        _put(connection, Prompt, map(_prompt, everything))
        _put(connection, Completion, (row for n in everything for row in _completions(n)))
        _put(connection, Item, (_item(n, n <= annotations) for n in everything))
        _put(connection, ItemCompletion, (row for n in everything for row in _members(n)))
        _put(connection, Assignment, (_assignment(n, annotations) for n in judged))
        _put(connection, Annotation, (_annotation(n, annotations) for n in judged))
        _put(connection, Preference, map(_preference, judged))
        _put(connection, Rating, (row for n in judged for row in _ratings(n)))
        _put(connection, Critique, map(_critique, judged[::4]))
    _analyze(engine)


def copy(source: Engine, target: Engine) -> None:
    """The rows of an SQLite store into an empty PostgreSQL one, by COPY."""
    with source.connect() as reading, target.begin() as writing:
        writing.exec_driver_sql("SET LOCAL TimeZone = 'UTC'")  # SQLite's times have no zone
        raw: Any = writing.connection.driver_connection
        for table in _TABLES:
            columns = ", ".join(column.name for column in table.__table__.columns)
            rows = reading.exec_driver_sql(f"SELECT {columns} FROM {table.__tablename__}")
            with raw.cursor().copy(f"COPY {table.__tablename__} ({columns}) FROM STDIN") as stream:
                for row in rows:
                    stream.write_row(row)
            if "id" in table.__table__.columns:
                name = table.__tablename__
                writing.exec_driver_sql(
                    f"SELECT setval(pg_get_serial_sequence('{name}', 'id'), (SELECT max(id) FROM {name}))"
                )
    _analyze(target)


_TABLES: tuple[type[Base], ...] = (
    User, Project, Criterion, Prompt, Completion, Item, ItemCompletion, Assignment, Annotation, Preference, Rating,
    Critique,
)  # fmt: skip


def _analyze(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("ANALYZE")


def _put(connection: Connection, kind: type[Base], rows: Iterable[dict[str, Any]]) -> None:
    iterator = iter(rows)
    while batch := list(islice(iterator, 5_000)):
        connection.execute(insert(kind), batch)


def _sentence(seed: int) -> str:
    rng = random.Random(seed)
    return " ".join(rng.choices(_WORDS, k=rng.randint(20, 60))) + f" {seed}"


def _users() -> list[dict[str, Any]]:
    return [{"id": n, "name": f"annotator {n}", "role": Role.ANNOTATOR} for n in range(1, ANNOTATORS + 1)]


def _prompt(n: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": _sentence(n)}]
    digest = content_hash(messages)
    return {
        "id": n, "project_id": 1, "content_hash": digest, "messages": messages, "split": split_of(digest),
        "source": "bench",
    }  # fmt: skip


def _completions(n: int) -> Iterator[dict[str, Any]]:
    for number in (2 * n - 1, 2 * n):
        written = _sentence(-number)
        yield {
            "id": number, "prompt_id": n, "content_hash": text_hash(written), "text": written,
            "origin": CompletionOrigin.MODEL,
        }  # fmt: skip


def _item(n: int, judged: bool) -> dict[str, Any]:
    done = judged and n % 3 != 0
    return {
        "id": n, "project_id": 1, "prompt_id": n, "kind": ItemKind.PAIR,
        "fingerprint": fingerprint(ItemKind.PAIR, (2 * n - 1, 2 * n)),
        "status": ItemStatus.DONE if done else ItemStatus.OPEN, "judged": int(judged),
    }  # fmt: skip


def _members(n: int) -> list[dict[str, Any]]:
    return [{"item_id": n, "position": place, "completion_id": 2 * n - 1 + place} for place in (0, 1)]


def _judge(n: int) -> int:
    return n % ANNOTATORS + 1


def _assignment(n: int, annotations: int) -> dict[str, Any]:
    closed = _START - timedelta(seconds=annotations - n)
    return {
        "id": n, "project_id": 1, "item_id": n, "user_id": _judge(n), "status": AssignmentStatus.SUBMITTED,
        "shown_order": [2 * n - 1, 2 * n], "leased_at": closed, "expires_at": closed, "closed_at": closed,
    }  # fmt: skip


def _annotation(n: int, annotations: int) -> dict[str, Any]:
    return {
        "id": n, "item_id": n, "user_id": _judge(n), "assignment_id": n, "seconds_spent": 20.0,
        "status": AnnotationStatus.SUBMITTED, "submitted_at": _START - timedelta(seconds=annotations - n),
    }  # fmt: skip


def _preference(n: int) -> dict[str, Any]:
    return {
        "id": n, "annotation_id": n, "first_id": 2 * n - 1, "second_id": 2 * n, "strength": 2,
        "outcome": Outcome.FIRST if n % 2 else Outcome.SECOND,
    }  # fmt: skip


def _ratings(n: int) -> Iterator[dict[str, Any]]:
    for place in (0, 1):
        yield {
            "id": 2 * n - 1 + place, "annotation_id": n, "completion_id": 2 * n - 1 + place, "criterion_id": 1,
            "value": 1 + (n + place) % 5,
        }  # fmt: skip


def _critique(n: int) -> dict[str, Any]:
    return {"id": n, "annotation_id": n, "completion_id": 2 * n, "text": _sentence(n), "tags": ["vague"]}
