"""Sends what `storage.webhooks` has noted: in threads of the worker, so that no page and no run waits for a receiver.

A delivery is claimed in one transaction, sent, and its outcome noted in another. Whoever is killed in between leaves a
claim that runs out: the delivery is sent again, with the same id. Any number of workers may do this side by side.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from storage.engine import read_only
from storage.idempotency import sweep_requests
from storage.webhooks import (
    Claimed,
    claim_delivery,
    due_webhooks,
    note_delivered,
    note_failed,
    sign,
    sweep_deliveries,
)
from trainer.posting import SECONDS, NotDelivered, post

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
SWEEP_SECONDS = 3600.0
LEASE = timedelta(seconds=3 * SECONDS)
AT_ONCE = 8  # receivers written to at the same time; each gets one delivery after the other
AT_A_TIME = 50  # deliveries to one receiver before another look, so that a busy one leaves room


class Sender:
    """Looks every second for something to send until `stop`; begins at once."""

    def __init__(self, sessions: sessionmaker[Session], *, private: bool, lease: timedelta = LEASE) -> None:
        self._sessions, self._private, self._lease = sessions, private, lease
        self._ending = threading.Event()
        self._under_way: dict[int, Future[None]] = {}
        self._thread = threading.Thread(target=self._look_and_send, name="deliveries", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Begin nothing new and wait for what is being sent, at most as long as one delivery may take."""
        self._ending.set()
        self._thread.join(SECONDS + 2)

    def _look_and_send(self) -> None:
        next_sweep = 0.0
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="delivery") as pool:
            while not self._ending.is_set():
                try:
                    self._look(pool)
                    if time.monotonic() >= next_sweep:
                        next_sweep = time.monotonic() + SWEEP_SECONDS
                        self._sweep()
                except (SQLAlchemyError, OSError) as error:
                    log.warning("deliveries: the store cannot be used now, trying again: %s", error)
                self._ending.wait(LOOK_SECONDS)

    def _look(self, pool: ThreadPoolExecutor) -> None:
        self._under_way = {key: future for key, future in self._under_way.items() if not future.done()}
        with read_only(self._sessions) as session:
            due = due_webhooks(session)
        for webhook_id in due:
            if webhook_id not in self._under_way:
                self._under_way[webhook_id] = pool.submit(self._send_to, webhook_id)

    def _sweep(self) -> None:
        with self._sessions.begin() as session:
            sweep_requests(session)
            sweep_deliveries(session)

    def _send_to(self, webhook_id: int) -> None:
        try:
            for _ in range(AT_A_TIME):
                if self._ending.is_set() or not send_next(
                    self._sessions, webhook_id, private=self._private, lease=self._lease
                ):
                    return
        except Exception:  # the claim runs out and the delivery is sent again
            log.exception("deliveries to webhook %s", webhook_id)


def send_next(
    sessions: sessionmaker[Session],
    webhook_id: int,
    *,
    private: bool,
    lease: timedelta = LEASE,
    seconds: float = SECONDS,
) -> bool:
    """Send the webhook's next delivery and note what came of it; False when nothing was due."""
    with sessions.begin() as session:
        claimed = claim_delivery(session, webhook_id, lease=lease)
    if claimed is None:
        return False
    error, status = _send(claimed, private, seconds)
    with sessions.begin() as session:
        if error is None and status is not None:
            note_delivered(session, claimed, status)
        else:
            again = note_failed(session, claimed, error or "", status=status, rng=random.Random())
            log.info("delivery %s to %s: %s; again at %s", claimed.id, claimed.url, error, again)
    return True


def _send(claimed: Claimed, private: bool, seconds: float) -> tuple[str | None, int | None]:
    """What went wrong (None: nothing) and the receiver's status (None: nobody answered)."""
    body = body_of(claimed)
    timestamp = int(time.time())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "feedback-app-webhook/1",
        "Feedback-Event": claimed.event,
        "Feedback-Delivery": str(claimed.id),
        "Feedback-Timestamp": str(timestamp),
        "Feedback-Signature": sign(claimed.secret, timestamp, body),
    }
    try:
        status = post(claimed.url, body, headers, private=private, seconds=seconds)
    except NotDelivered as error:
        return str(error), None
    if 200 <= status < 300:
        return None, status
    return (f"HTTP {status}: redirects are not followed" if 300 <= status < 400 else f"HTTP {status}"), status


def body_of(claimed: Claimed) -> bytes:
    """What is sent, the same at every attempt: `id` stays, so that a receiver can drop what it has seen."""
    return json.dumps(
        {
            "id": claimed.id,
            "event": claimed.event,
            "project": claimed.project,
            "created_at": claimed.created_at.isoformat(),
            "data": claimed.payload,
        },
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode()
