"""Webhook rows: who is told, in the event's own transaction; claiming, backing off, giving up."""

from __future__ import annotations

import hashlib
import hmac
import random
import threading
from datetime import timedelta

import pytest
from sqlalchemy import select

from storage import registry, runs, webhooks
from storage.enums import RunKind, RunStatus
from storage.errors import Conflict, Invalid, NotFound
from storage.models import WebhookDelivery, utc_now
from tests import factories

URL = "https://receiver.example/hook"
LEASE = timedelta(seconds=30)


def hook(session, project, *events):
    return webhooks.add_webhook(session, project, URL, events or tuple(webhooks.WebhookEvent))


def told(session):
    rows = session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.id))
    return [(row.event, row.payload.get("action") or row.payload.get("status")) for row in rows]


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("ftp://receiver.example/", "web address"),
        ("receiver.example", "web address"),
        ("https://", "web address"),
        ("https://[::1", "web address"),
        ("https://host:99999/", "web address"),
        ("https://a b.example/", "web address"),
        ("https://user:pass@receiver.example/", "password"),
        ("https://receiver.example/" + "x" * 2000, "too long"),
        ("http://127.0.0.1:8000/", "FEEDBACK_WEBHOOK_PRIVATE"),
        ("http://localhost/", "FEEDBACK_WEBHOOK_PRIVATE"),
        ("http://10.0.0.7/", "FEEDBACK_WEBHOOK_PRIVATE"),
        ("http://169.254.169.254/latest/meta-data", "FEEDBACK_WEBHOOK_PRIVATE"),
        ("http://[::1]/", "FEEDBACK_WEBHOOK_PRIVATE"),
        ("http://[::ffff:127.0.0.1]/", "FEEDBACK_WEBHOOK_PRIVATE"),
    ],
)
def test_addresses_that_no_webhook_may_have(session, url, word):
    project = factories.make_project(session)
    with pytest.raises(Invalid, match=word):
        webhooks.add_webhook(session, project, url, ["run"])
    if "PRIVATE" in word:
        assert webhooks.add_webhook(session, project, url, ["run"], private=True).url == url


def test_a_webhook_hears_of_the_events_it_asked_for_and_its_project_only(session):
    project, other = factories.make_project(session), factories.make_project(session)
    hook(session, project, "run")
    everything = hook(session, project)
    webhooks.switch_webhook(session, hook(session, project), on=False)
    assert webhooks.announce(session, project.id, webhooks.WebhookEvent.RUN, {"run": 1}) == 2
    assert webhooks.announce(session, project.id, webhooks.WebhookEvent.PROMOTION, {"version": "policy-v1"}) == 1
    assert webhooks.announce(session, other.id, webhooks.WebhookEvent.RUN, {"run": 2}) == 0
    assert [row.event for row in webhooks.last_deliveries(session, everything)] == ["promotion", "run"]
    with pytest.raises(Invalid, match="unknown event"):
        hook(session, project, "everything")
    with pytest.raises(NotFound):
        webhooks.get_webhook(session, everything.id, other)


def test_a_project_has_at_most_twenty(session):
    project = factories.make_project(session)
    for _ in range(webhooks.MAX_WEBHOOKS):
        hook(session, project)
    with pytest.raises(Conflict, match="remove one"):
        hook(session, project)


def test_a_submitted_and_an_imported_annotation_are_told(session):
    project, user = factories.make_project(session), factories.make_user(session)
    hook(session, project, "annotation")
    factories.make_items(session, project, 1)
    annotation = factories.make_annotation(session, project, user)
    row = session.scalars(select(WebhookDelivery)).one()
    assert (row.event, row.payload["action"], row.payload["annotations"]) == (
        "annotation",
        "submitted",
        [annotation.id],
    )


def test_every_end_of_a_run_is_told(session):
    project = factories.make_project(session)
    hook(session, project, "run")
    ids = [factories.make_run(session, project, RunKind.GENERATE).id for _ in range(3)]
    runs.request_cancel(session, runs.get_run(session, ids[0]), None)
    for run_id, status in ((ids[1], RunStatus.SUCCEEDED), (ids[2], RunStatus.FAILED)):
        runs.claim_run(session, "w", {RunKind.GENERATE})
        runs.finish_run(session, run_id, "w", status, error="no" if status is RunStatus.FAILED else None)
    assert told(session) == [("run", "cancelled"), ("run", "succeeded"), ("run", "failed")]


def test_a_run_whose_worker_was_lost_too_often_is_told(session):
    project = factories.make_project(session)
    hook(session, project, "run")
    factories.make_run(session, project, RunKind.GENERATE)
    long_ago = utc_now() - timedelta(hours=1)
    runs.claim_run(session, "w", {RunKind.GENERATE}, now=long_ago)
    runs.requeue_lost(session, timedelta(minutes=1), max_attempts=1)
    assert told(session) == [("run", "failed")]


def test_promotions_and_roll_backs_are_told(session):
    project = factories.make_project(session)
    registry.base_version(session, project, "starter")
    hook(session, project, "promotion")
    registry.promote(session, factories.make_version(session, project), None, "better")
    registry.roll_back(session, project, None)
    assert told(session) == [("promotion", "promoted"), ("promotion", "rolled back")]


def test_an_event_that_is_rolled_back_is_not_told(sessions):
    with sessions.begin() as session:
        project = factories.make_project(session)
        hook(session, project)
    with sessions() as session:  # closed without a commit, as when the event itself fails
        webhooks.announce(session, project.id, webhooks.WebhookEvent.RUN, {})
    with sessions() as session:
        assert webhooks.due_webhooks(session) == []


def test_a_claimed_delivery_comes_back_when_its_sender_was_killed(session):
    project = factories.make_project(session)
    webhook = hook(session, project)
    webhooks.announce(session, project.id, webhooks.WebhookEvent.RUN, {"run": 7})
    now = utc_now()
    assert webhooks.due_webhooks(session, now=now) == [webhook.id]
    first = webhooks.claim_delivery(session, webhook.id, lease=LEASE, now=now)
    assert (first.payload, first.attempts, first.project) == ({"run": 7}, 1, project.name)
    assert webhooks.claim_delivery(session, webhook.id, lease=LEASE, now=now) is None
    later = now + LEASE
    again = webhooks.claim_delivery(session, webhook.id, lease=LEASE, now=later)
    assert (again.id, again.attempts) == (first.id, 2)
    webhooks.note_delivered(session, again, 204, now=later)
    assert webhooks.due_webhooks(session, now=later + timedelta(days=2)) == []
    row = session.get_one(WebhookDelivery, first.id, populate_existing=True)
    assert (row.last_status, row.last_error, row.delivered_at) == (204, None, later)


def test_failures_back_off_and_are_given_up_after_a_day(session):
    project = factories.make_project(session)
    webhook = hook(session, project)
    webhooks.announce(session, project.id, webhooks.WebhookEvent.RUN, {})
    rng, now, waits = random.Random(0), utc_now(), []
    start = now
    while True:
        claimed = webhooks.claim_delivery(session, webhook.id, lease=LEASE, now=now)
        again = webhooks.note_failed(session, claimed, "HTTP 500", status=500, now=now, rng=rng)
        if again is None:
            break
        waits.append((again - now).total_seconds())
        now = again
    assert 2.5 <= waits[0] <= 7.5
    assert waits[5] > 4 * waits[1]
    assert max(waits) <= 1.5 * 3 * 3600
    assert timedelta(hours=18) < now - start <= timedelta(hours=24)
    assert 12 <= len(waits) <= 25
    row = webhooks.last_deliveries(session, webhook)[0]
    assert (row.next_attempt_at, row.last_error, row.delivered_at) == (None, "HTTP 500", None)
    assert webhooks.due_webhooks(session, now=now + timedelta(days=9)) == []


def test_a_receiver_that_is_down_holds_up_its_own_deliveries_only(session):
    project, other = factories.make_project(session), factories.make_project(session)
    down, up = hook(session, project), hook(session, other)
    for _ in range(3):
        webhooks.announce(session, project.id, webhooks.WebhookEvent.RUN, {})
    webhooks.announce(session, other.id, webhooks.WebhookEvent.RUN, {})
    now = utc_now()
    claimed = webhooks.claim_delivery(session, down.id, lease=LEASE, now=now)
    webhooks.note_failed(session, claimed, "connection refused", now=now)
    assert webhooks.due_webhooks(session, now=now) == [up.id]
    assert down.id in webhooks.due_webhooks(session, now=now + webhooks.DOWN_PAUSE)
    refused = webhooks.claim_delivery(session, up.id, lease=LEASE, now=now)
    webhooks.announce(session, other.id, webhooks.WebhookEvent.RUN, {})
    webhooks.note_failed(session, refused, "HTTP 500", status=500, now=utc_now())
    assert up.id in webhooks.due_webhooks(session)  # it answers: the next one may well be taken


def test_two_senders_never_claim_the_same_delivery(sessions):
    with sessions.begin() as session:
        project = factories.make_project(session)
        webhook = hook(session, project)
        for _ in range(40):
            webhooks.announce(session, project.id, webhooks.WebhookEvent.RUN, {})
    seen, lock = [], threading.Lock()

    def work():
        while True:
            with sessions.begin() as session:
                claimed = webhooks.claim_delivery(session, webhook.id, lease=LEASE)
            if claimed is None:
                return
            with lock:
                seen.append(claimed.id)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    # With SKIP LOCKED a sender may find nothing while another holds the last row; no row is ever claimed twice.
    assert len(seen) == len(set(seen)) == 40


def test_the_signature_is_the_documented_one():
    expected = hmac.new(b"whsec_x", b'1700000000.{"a":1}', hashlib.sha256).hexdigest()
    assert webhooks.sign("whsec_x", 1_700_000_000, b'{"a":1}') == f"v1={expected}"


def test_removing_a_webhook_takes_its_deliveries_along(session):
    project = factories.make_project(session)
    webhook = hook(session, project)
    webhooks.announce(session, project.id, webhooks.WebhookEvent.RUN, {})
    webhooks.remove_webhook(session, webhook)
    assert webhooks.list_webhooks(session, project) == []
    assert session.scalars(select(WebhookDelivery)).all() == []


def test_what_ended_long_ago_is_forgotten_and_what_waits_is_not(session):
    project = factories.make_project(session)
    webhook = hook(session, project)
    for _ in range(2):
        webhooks.announce(session, project.id, webhooks.WebhookEvent.RUN, {})
    webhooks.note_delivered(session, webhooks.claim_delivery(session, webhook.id, lease=LEASE), 200)
    webhooks.sweep_deliveries(session, now=utc_now() + timedelta(days=31))
    assert [row.delivered_at for row in webhooks.last_deliveries(session, webhook)] == [None]
