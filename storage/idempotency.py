"""Answers kept for a week: a request that comes again with its idempotency key does nothing and is answered as before.

The key's row is inserted first, in the transaction that does the work. A second request with the same key waits at
that insert until the first ends: then it finds the answer, or, when the first failed and left nothing, does the work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from storage.errors import Invalid
from storage.ingest.bulk import among_pairs
from storage.models import ApiRequest, JsonObject, utc_now

KEEP_FOR = timedelta(days=7)
_OTHER_REQUEST = "this Idempotency-Key was used for another request; choose a new key for a new request"
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
    insert_once = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    made = session.scalar(
        insert_once(ApiRequest)
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
        raise Invalid(_OTHER_REQUEST)
    return Kept(row.status, row.response)


def keep_answer(session: Session, token_id: int, key: str, status: int, response: JsonObject) -> None:
    """Keep the answer to the request begun under `key`; committed with what the request did."""
    session.execute(
        update(ApiRequest)
        .where(ApiRequest.token_id == token_id, ApiRequest.key == key)
        .values(status=status, response=response)
    )


class Keyed(NamedTuple):
    """A request as it is known again: whose token, its key, and the hash of what it says."""

    token_id: int
    key: str
    request_hash: str


def kept_answers(session: Session, requests: Sequence[Keyed]) -> dict[Keyed, Kept]:
    """Those of several requests that were answered before; raises `Invalid` where a key stands for another request.

    The caller does the work of the others and ends with `keep_answers`.
    """
    asked = {(one.token_id, one.key): one for one in requests}
    if not asked:
        return {}
    found = session.execute(
        select(
            ApiRequest.token_id, ApiRequest.key, ApiRequest.request_hash, ApiRequest.status, ApiRequest.response
        ).where(among_pairs(session, (ApiRequest.token_id, ApiRequest.key), list(asked)))
    )
    kept = {}
    for token_id, key, request_hash, status, response in found:
        one = asked.get((token_id, key))
        if one is None:  # the key of one, the token of another
            continue
        if one.request_hash != request_hash:
            raise Invalid(_OTHER_REQUEST)
        kept[one] = Kept(status, response)
    return kept


def keep_answers(session: Session, answers: Mapping[Keyed, JsonObject], *, now: datetime | None = None) -> None:
    """Keep the answers to several requests, committed with what they did.

    Raises `IntegrityError` when one of them was answered elsewhere meanwhile: then nothing of this transaction must
    stay, and a second look finds that answer.
    """
    moment = now or utc_now()
    rows = [{**one._asdict(), "status": 200, "response": said, "created_at": moment} for one, said in answers.items()]
    if rows:
        session.execute(insert(ApiRequest), rows)


def sweep_requests(session: Session, *, now: datetime | None = None) -> None:
    """Forget answers older than a week."""
    session.execute(delete(ApiRequest).where(ApiRequest.created_at < (now or utc_now()) - KEEP_FOR))
