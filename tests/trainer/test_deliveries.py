"""Webhooks on their way to a real receiver that takes, refuses, dawdles or is down; and a sender that is killed."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from storage import webhooks
from storage.engine import make_engine, make_sessions
from storage.models import WebhookDelivery, utc_now
from tests import factories
from tests.app import until
from trainer.deliveries import Sender, send_next
from trainer.posting import NotDelivered, post


class Receiver:
    """An HTTP server whose answers are set by the test; remembers what came."""

    def __init__(self) -> None:
        self.came: list[tuple[dict[str, str], bytes]] = []
        self.status, self.delay, self.drip = 200, 0.0, False
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.came.append((dict(self.headers.items()), body))
                time.sleep(outer.delay)
                if outer.drip:
                    for _ in range(100):
                        self.wfile.write(b"H")
                        self.wfile.flush()
                        time.sleep(0.1)
                self.send_response(outer.status)
                if outer.status == 302:
                    self.send_header("location", f"{outer.url}/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

            def handle(self):
                with contextlib.suppress(OSError):  # the sender hung up
                    super().handle()

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def ids(self) -> list[int]:
        return [json.loads(body)["id"] for _, body in list(self.came)]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def hook(sessions, receiver):
    """A webhook on the receiver, with one event to tell; gives its id."""
    return hook_on(sessions, receiver.url + "/hook?shop=1")


def hook_on(sessions, url, events=1):
    with sessions.begin() as session:
        project = factories.make_project(session)
        webhook = webhooks.add_webhook(session, project, url, ["run"], private=True)
        for number in range(events):
            webhooks.announce(session, project.id, webhooks.WebhookEvent.RUN, {"run": number})
        return webhook.id


def deliveries(sessions, hook):
    with sessions() as session:
        return webhooks.last_deliveries(session, webhooks.get_webhook(session, hook), 1000)


def make_due(sessions):
    with sessions.begin() as session:
        waiting = update(WebhookDelivery).where(WebhookDelivery.next_attempt_at.is_not(None))
        session.execute(waiting.values(next_attempt_at=utc_now()))


def test_a_delivery_arrives_signed_and_is_not_sent_again(sessions, receiver, hook):
    assert send_next(sessions, hook, private=True)
    assert not send_next(sessions, hook, private=True)
    ((headers, body),) = receiver.came
    with sessions() as session:
        secret = webhooks.get_webhook(session, hook).secret
    stamp = int(headers["Feedback-Timestamp"])
    assert headers["Feedback-Signature"] == webhooks.sign(secret, stamp, body)
    assert abs(stamp - time.time()) < 60
    said = json.loads(body)
    (row,) = deliveries(sessions, hook)
    assert (said["id"], said["event"], said["data"]) == (row.id, "run", {"run": 0})
    assert headers["Feedback-Delivery"] == str(row.id)
    assert (row.last_status, row.attempts, row.next_attempt_at) == (200, 1, None)


@pytest.mark.parametrize(("status", "error"), [(500, "HTTP 500"), (404, "HTTP 404"), (302, "redirects are not")])
def test_a_refusal_is_visible_and_tried_again_with_the_same_id(sessions, receiver, hook, status, error):
    receiver.status = status
    send_next(sessions, hook, private=True)
    (row,) = deliveries(sessions, hook)
    assert row.last_status == status
    assert error in row.last_error
    assert row.next_attempt_at > utc_now()
    receiver.status = 204
    make_due(sessions)
    send_next(sessions, hook, private=True)
    assert receiver.ids == [row.id, row.id]
    (row,) = deliveries(sessions, hook)
    assert (row.attempts, row.last_error) == (2, None)
    assert row.delivered_at is not None


def test_nobody_listening_and_nobody_answering_in_time(sessions, receiver):
    with socket.socket() as taken:  # bound, never listening
        taken.bind(("127.0.0.1", 0))
        down = hook_on(sessions, f"http://127.0.0.1:{taken.getsockname()[1]}/")
        send_next(sessions, down, private=True)
    assert "refused" in deliveries(sessions, down)[0].last_error
    receiver.delay = 1.5
    slow = hook_on(sessions, receiver.url)
    send_next(sessions, slow, private=True, seconds=0.3)
    assert "no answer within 0.3 s" in deliveries(sessions, slow)[0].last_error
    receiver.delay, receiver.drip = 0.0, True
    began = time.monotonic()
    make_due(sessions)
    send_next(sessions, slow, private=True, seconds=0.5)
    assert time.monotonic() - began < 9  # one byte every tenth of a second would hold a plain timeout for ten
    assert "no answer within 0.5 s" in deliveries(sessions, slow)[0].last_error


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "[::1]", "0.0.0.0"])
def test_addresses_inside_are_refused_when_something_is_sent_too(receiver, host):
    port = receiver.server.server_address[1]
    with pytest.raises(NotDelivered, match=r"FEEDBACK_WEBHOOK_PRIVATE|not known"):
        post(f"http://{host}:{port}/", b"{}", {}, private=False)
    assert receiver.came == []


def test_a_name_that_nobody_knows(sessions):
    hook = hook_on(sessions, "https://nobody.invalid/hook")
    send_next(sessions, hook, private=True)
    assert "not known" in deliveries(sessions, hook)[0].last_error


def test_an_encrypted_receiver_must_show_a_certificate_that_holds(sessions, receiver):
    hook = hook_on(sessions, receiver.url.replace("http:", "https:"))
    send_next(sessions, hook, private=True)
    assert "encryption" in deliveries(sessions, hook)[0].last_error
    assert receiver.came == []


def test_a_slow_receiver_holds_nobody_else_up(sessions, receiver):
    slow = Receiver()
    slow.delay = 3.0
    hook_on(sessions, slow.url, events=5)
    quick = hook_on(sessions, receiver.url, events=100)
    sender = Sender(sessions, private=True)
    try:
        until(lambda: len(receiver.came) == 100, "a hundred deliveries", 60)
        assert len(slow.came) < 5
    finally:
        sender.stop()
        slow.server.shutdown()
        slow.server.server_close()
    assert all(row.delivered_at for row in deliveries(sessions, quick))
    assert sorted(receiver.ids) == sorted({*receiver.ids})


def test_a_switched_off_webhook_is_left_alone(sessions, receiver, hook):
    with sessions.begin() as session:
        webhooks.switch_webhook(session, webhooks.get_webhook(session, hook), on=False)
    assert not send_next(sessions, hook, private=True)
    assert receiver.came == []


KILLED = """
    import sys
    from datetime import timedelta
    from storage.engine import make_engine, make_sessions
    from trainer.deliveries import Sender
    import threading
    Sender(make_sessions(make_engine(sys.argv[1])), private=True, lease=timedelta(seconds=1))
    threading.Event().wait()
"""


def test_kill_9_in_the_middle_of_sending_loses_nothing(database_url, receiver):
    engine = make_engine(database_url)
    sessions = make_sessions(engine)
    hook = hook_on(sessions, receiver.url, events=20)
    receiver.delay = 0.1
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(KILLED), database_url])
    try:
        until(lambda: len(receiver.came) >= 4, "the first deliveries", 60)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    receiver.delay = 0.0
    sender = Sender(sessions, private=True, lease=timedelta(seconds=1))
    try:
        until(lambda: all(row.delivered_at for row in deliveries(sessions, hook)), "all deliveries", 60)
    finally:
        sender.stop()
    with sessions() as session:
        wanted = set(session.scalars(select(WebhookDelivery.id).where(WebhookDelivery.webhook_id == hook)))
    assert set(receiver.ids) == wanted
    engine.dispose()
    assert 20 <= len(receiver.ids) <= 21  # at most the one under way came twice, with the same id
