"""Answers kept for a week: a request that comes again with its idempotency key does nothing and is answered as before.

The key's row is inserted first, in the transaction that does the work. A second request with the same key waits at
that insert until the first ends: then it finds the answer, or, when the first failed and left nothing, does the work.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from storage.errors import Invalid
from storage.models import ApiRequest, JsonObject, utc_now

KEEP_FOR = timedelta(days=7)
MAX_KEY = 120


class Kept(NamedTuple):
    """An answer that was given before."""

    status: int
    response: JsonObject


def begin_request(
    session: Session, token_id: int, key: str, request_hash: str, *, now: datetime | None = None
) -> Kept | None:
    """The answer kept under `key`, or None: the caller does the work and ends with `keep_answer`.

    Raises `Invalid` for a key that is none, and when it stands for another request.
    """
    if not key or len(key) > MAX_KEY or not key.isascii() or not key.isprintable():
        raise Invalid(f"an Idempotency-Key is 1 to {MAX_KEY} printable ASCII characters; choose another")
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    made = session.scalar(
        insert(ApiRequest)
        .values(
            token_id=token_id,
            key=key,
            request_hash=request_hash,
            status=0,
            response={},
            created_at=now or utc_now(),
        )
        .on_conflict_do_nothing()
        .returning(ApiRequest.id)
    )
    if made is not None:
        return None
    row = session.scalars(select(ApiRequest).where(ApiRequest.token_id == token_id, ApiRequest.key == key)).one()
    if row.request_hash != request_hash:
        raise Invalid("this Idempotency-Key was used for another request; choose a new key for a new request")
    return Kept(row.status, row.response)


def keep_answer(session: Session, token_id: int, key: str, status: int, response: JsonObject) -> None:
    """Keep the answer to the request begun under `key`; committed with what the request did."""
    session.execute(
        update(ApiRequest)
        .where(ApiRequest.token_id == token_id, ApiRequest.key == key)
        .values(status=status, response=response)
    )


def sweep_requests(session: Session, *, now: datetime | None = None) -> None:
    """Forget answers older than a week."""
    session.execute(delete(ApiRequest).where(ApiRequest.created_at < (now or utc_now()) - KEEP_FOR))
