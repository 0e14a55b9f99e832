"""Webhooks: addresses of other programs, and the deliveries that are on their way to them.

Problem: a program wants to know what happens in a project, and may be down when it does. Decision: an event becomes a
row for each webhook that asked for it, in the very transaction that made the event; `trainer.deliveries` sends the
rows and tries again until a day has passed. Invariant: what was committed is delivered at least once or visible with
its last error, whoever is killed when; `id` lets a receiver drop what comes twice.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import random
import secrets
from collections.abc import Collection
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import urlsplit

from sqlalchemy import bindparam, delete, func, insert, select, update
from sqlalchemy.orm import Session

from storage.errors import Conflict, Invalid, NotFound
from storage.models import JsonObject, Project, Webhook, WebhookDelivery, utc_now

MAX_WEBHOOKS = 20
MAX_URL = 2_000
FIRST_DELAY, LONGEST_DELAY = timedelta(seconds=5), timedelta(hours=3)
GIVE_UP_AFTER = timedelta(hours=24)
DOWN_PAUSE = timedelta(seconds=60)  # longest time for which one failed connection holds up the other deliveries
KEEP_FOR = timedelta(days=30)


class WebhookEvent(StrEnum):
    """What a webhook can ask to be told."""

    ANNOTATION = "annotation"
    RUN = "run"
    PROMOTION = "promotion"
    ALERT = "alert"


class Claimed(NamedTuple):
    """A delivery that this process may send now; `attempts` counts this one."""

    id: int
    webhook_id: int
    url: str
    secret: str
    event: str
    project: str
    payload: JsonObject
    created_at: datetime
    attempts: int


def add_webhook(
    session: Session, project: Project, url: str, events: Collection[WebhookEvent | str], *, private: bool = False
) -> Webhook:
    """Tell `url` about `events` from now on; its `secret` signs what is sent.

    Raises `Invalid` for an address that is none, one of this machine or its network (unless `private`), no or unknown
    events; `Conflict` when the project has `MAX_WEBHOOKS`.
    """
    cleaned = checked_url(url, private=private)
    wanted = _events(events)
    count = session.scalar(select(func.count()).select_from(Webhook).where(Webhook.project_id == project.id))
    if (count or 0) >= MAX_WEBHOOKS:
        raise Conflict(f"the project has {MAX_WEBHOOKS} webhooks already; remove one first")
    row = Webhook(project_id=project.id, url=cleaned, secret=f"whsec_{secrets.token_urlsafe(32)}", events=wanted)
    session.add(row)
    session.flush()
    return row


def checked_url(url: str, *, private: bool = False) -> str:
    """`url` if a webhook may have it: http or https, a host, no user name in it, and none of our own network.

    A host name is looked up when something is sent, and refused then if it leads inside.
    """
    given = url.strip()
    try:
        parts = urlsplit(given)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise Invalid(f"not a web address: {given[:100]!r}; write https://host/path") from error
    if parts.scheme not in ("http", "https") or not host or not given.isprintable() or " " in given:
        raise Invalid(f"not a web address: {given[:100]!r}; write https://host/path")
    if len(given) > MAX_URL:
        raise Invalid(f"the address is too long; at most {MAX_URL:,} characters are allowed")
    if parts.username is not None or parts.password is not None:
        raise Invalid("the address holds a user name or password; leave it out, every delivery is signed")
    if not private and not _may_be_public(host):
        raise Invalid(f"{host} is inside this machine's network; FEEDBACK_WEBHOOK_PRIVATE=1 allows such addresses")
    return given


def _may_be_public(host: str) -> bool:
    try:
        return is_public(host)
    except ValueError:  # a name
        return host.lower().rstrip(".") != "localhost" and not host.lower().rstrip(".").endswith(".localhost")


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet; raises `ValueError` when it is no address."""
    found = ipaddress.ip_address(address.split("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if inner is not None:
            return inner.is_global and not inner.is_multicast
    return found.is_global and not found.is_multicast


def get_webhook(session: Session, webhook_id: int, project: Project | None = None) -> Webhook:
    """The webhook of that number (of `project`, when given); raises `NotFound`."""
    row = session.get(Webhook, webhook_id)
    if row is None or (project is not None and row.project_id != project.id):
        raise NotFound(f"there is no webhook {webhook_id}; see: feedback-app webhooks list")
    return row


def list_webhooks(session: Session, project: Project | None = None) -> list[Webhook]:
    """The webhooks of a project, or all, oldest first."""
    query = select(Webhook).order_by(Webhook.id)
    return list(session.scalars(query if project is None else query.where(Webhook.project_id == project.id)))


def switch_webhook(session: Session, webhook: Webhook, on: bool, *, now: datetime | None = None) -> None:
    """Stop or resume telling; what happened while it was off is not told later."""
    webhook.disabled_at = None if on else webhook.disabled_at or now or utc_now()
    session.flush()


def remove_webhook(session: Session, webhook: Webhook) -> None:
    """Forget a webhook and all that was sent or was to be sent to it."""
    session.execute(delete(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook.id))
    session.delete(webhook)
    session.flush()


def last_deliveries(session: Session, webhook: Webhook, limit: int = 20) -> list[WebhookDelivery]:
    """What was sent, is tried again or was given up, newest first."""
    mine = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook.id)
    return list(session.scalars(mine.order_by(WebhookDelivery.id.desc()).limit(limit)))


def announce(session: Session, project_id: int, event: WebhookEvent, payload: JsonObject) -> int:
    """Note an event for each webhook that asked for it, in the caller's transaction; returns how many there are.

    `payload` holds ids and states, never what people wrote: a receiver with a token reads that through the API.
    """
    asked = session.connection().execute(_ASKED, {"project": project_id}).all()
    if not asked:  # nearly always
        return 0
    now = utc_now()
    rows = [
        {
            "webhook_id": webhook_id,
            "event": event.value,
            "payload": payload,
            "attempts": 0,
            "next_attempt_at": now,
            "created_at": now,
        }
        for webhook_id, events in asked
        if event in events
    ]
    if rows:
        session.execute(insert(WebhookDelivery), rows)
    return len(rows)


_ASKED = select(Webhook.id, Webhook.events).where(
    Webhook.project_id == bindparam("project"), Webhook.disabled_at.is_(None)
)


# --- sending ---


def due_webhooks(session: Session, *, now: datetime | None = None) -> list[int]:
    """The webhooks in force that have something to be sent now."""
    return list(
        session.scalars(
            select(WebhookDelivery.webhook_id)
            .join(Webhook, Webhook.id == WebhookDelivery.webhook_id)
            .where(WebhookDelivery.next_attempt_at <= (now or utc_now()), Webhook.disabled_at.is_(None))
            .distinct()
        )
    )


def claim_delivery(
    session: Session, webhook_id: int, *, lease: timedelta, now: datetime | None = None
) -> Claimed | None:
    """The next delivery of a webhook, nobody else's for the length of `lease`; None when nothing is due.

    The attempt counts from here: a sender that is killed leaves a delivery that is due again when the lease is over.
    """
    moment = now or utc_now()
    row = session.scalar(
        select(WebhookDelivery)
        .join(Webhook, Webhook.id == WebhookDelivery.webhook_id)
        .where(
            WebhookDelivery.webhook_id == webhook_id,
            WebhookDelivery.next_attempt_at <= moment,
            Webhook.disabled_at.is_(None),
        )
        .order_by(WebhookDelivery.next_attempt_at, WebhookDelivery.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=WebhookDelivery)
    )
    if row is None:
        return None
    row.attempts += 1
    row.next_attempt_at = moment + lease
    webhook = row.webhook
    project = session.scalars(select(Project.name).where(Project.id == webhook.project_id)).one()
    session.flush()
    return Claimed(
        row.id, webhook.id, webhook.url, webhook.secret, row.event, project, row.payload, row.created_at, row.attempts
    )


def note_delivered(session: Session, claimed: Claimed, status: int, *, now: datetime | None = None) -> None:
    """The receiver took it."""
    session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.id == claimed.id)
        .values(delivered_at=now or utc_now(), next_attempt_at=None, last_status=status, last_error=None)
    )


def note_failed(
    session: Session,
    claimed: Claimed,
    error: str,
    *,
    status: int | None = None,
    now: datetime | None = None,
    rng: random.Random | None = None,
) -> datetime | None:
    """The receiver did not take it: when it is tried again, None when it is given up after a day.

    Without a `status` there was nobody to talk to: the webhook's other deliveries wait a moment too, instead of
    running into the same timeout one by one.
    """
    moment = now or utc_now()
    again: datetime | None = moment + delay_after(claimed.attempts, rng or random.Random())
    if again is not None and again > claimed.created_at + GIVE_UP_AFTER:
        again = None
    session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.id == claimed.id)
        .values(next_attempt_at=again, last_status=status, last_error=error[:500])
    )
    if status is None:
        pause = moment + min(DOWN_PAUSE, (again or moment + DOWN_PAUSE) - moment)
        session.execute(
            update(WebhookDelivery)
            .where(
                WebhookDelivery.webhook_id == claimed.webhook_id,
                WebhookDelivery.next_attempt_at <= moment,
                WebhookDelivery.id != claimed.id,
            )
            .values(next_attempt_at=pause)
        )
    return again


def delay_after(attempts: int, rng: random.Random) -> timedelta:
    """Twice as long after each attempt, from five seconds to three hours, spread by a half either way."""
    seconds = min(FIRST_DELAY.total_seconds() * 2 ** min(attempts - 1, 20), LONGEST_DELAY.total_seconds())
    return timedelta(seconds=seconds * rng.uniform(0.5, 1.5))


def sign(secret: str, timestamp: int, body: bytes) -> str:
    """The value of `Feedback-Signature`: HMAC-SHA256 over the timestamp, a dot and the body, in hex."""
    digest = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return f"v1={digest}"


def sweep_deliveries(session: Session, *, now: datetime | None = None) -> None:
    """Forget deliveries that ended long ago."""
    ended = WebhookDelivery.next_attempt_at.is_(None)
    session.execute(delete(WebhookDelivery).where(ended, WebhookDelivery.created_at < (now or utc_now()) - KEEP_FOR))


def _events(given: Collection[WebhookEvent | str]) -> list[str]:
    try:
        wanted = {WebhookEvent(event) for event in given}
    except ValueError as error:
        raise Invalid(f"unknown event; choose from: {', '.join(WebhookEvent)}") from error
    if not wanted:
        raise Invalid(f"a webhook needs at least one event; choose from: {', '.join(WebhookEvent)}")
    return [event.value for event in WebhookEvent if event in wanted]
