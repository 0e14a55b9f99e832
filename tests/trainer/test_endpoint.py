"""A refiner behind an endpoint: a server that is busy, slow, broken or talks nonsense, and one that is real."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

from storage.errors import Invalid, TrainingFailed
from storage.models import utc_now
from tests.trainer.conftest import Executor
from tests.trainer.test_refine import FolderMaker, refine_folder, row, selected  # noqa: F401  a fixture
from trainer.endpoint import LONGEST_PAUSE, MOST_BYTES, Answer, Endpoint, endpoint_from_environment
from trainer.policy import STARTER, resolve_base_model
from trainer.starter import checker, grammar
from trainer.starter.facets import Action, Apology, Facets, Facts, Greeting, Length, Tone

KEY = "sk-very-secret"
ASK = [[{"role": "user", "content": "Where is it?"}]]
Reply = tuple[int, dict[str, str], bytes] | None


def chat(text: Any, reason: str = "stop") -> Reply:
    body = {"choices": [{"message": {"content": text}, "finish_reason": reason}], "usage": {"completion_tokens": 4}}
    return 200, {}, json.dumps(body).encode()


class Server:
    """Answers each request with the next of `replies`, the last one for ever; None: drips and never ends."""

    def __init__(self, *replies: Reply | Callable[[dict[str, Any]], Reply]) -> None:
        self.replies = list(replies)
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with lock:
                    outer.asked.append({"path": self.path, **body})
                    outer.headers.append(dict(self.headers))
                    reply = outer.replies.pop(0) if len(outer.replies) > 1 else outer.replies[0]
                told = reply(body) if callable(reply) else reply
                with contextlib.suppress(OSError):  # the client may have gone
                    self._answer(told)

            def _answer(self, told: Reply) -> None:
                if told is None:
                    self.send_response(200)
                    self.end_headers()
                    for _ in range(40):
                        self.wfile.write(b" ")
                        self.wfile.flush()
                        time.sleep(0.05)
                    return
                status, headers, content = told
                self.send_response(status)
                for name, value in {"content-length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    made: list[Server] = []

    def start(*replies: Any) -> Server:
        made.append(Server(*replies))
        return made[-1]

    yield start
    for server in made:
        server.close()


def _endpoint(url: str, **fields: Any) -> Endpoint:
    return Endpoint(url, "big", KEY, **{"timeout_seconds": 0.6, "retries": 3, "first_pause": 0.01, **fields})


def test_a_busy_or_broken_server_is_asked_again_with_growing_pauses(serve: Callable[..., Server]) -> None:
    until = format_datetime(utc_now() + timedelta(seconds=30), usegmt=True)
    server = serve(
        (429, {"retry-after": "0.05"}, b"slow down"), (503, {}, b""), (200, {}, b"<html>"),
        (429, {"retry-after": until}, b""), (429, {"retry-after": "soon"}, b""), (429, {"retry-after": "9999"}, b""),
        chat("It comes. ", "length"),
    )  # fmt: skip
    pauses: list[float] = []
    found = _endpoint(server.url, retries=6).write(ASK, {"temperature": 1.0, "max_tokens": 9}, 7, pauses.append)
    assert found == [Answer("It comes.", truncated=True, token_count=4)]
    assert pauses == [0.05, 0.02, 0.04, pytest.approx(28, abs=2), 0.16, LONGEST_PAUSE]
    assert len(server.asked) == 7
    assert server.asked[0] == {
        "path": "/v1/chat/completions", "model": "big", "stream": False, "messages": ASK[0], "seed": 7,
        "temperature": 1.0, "max_tokens": 9,
    }  # fmt: skip
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ((500, {}, KEY.encode()), "HTTP 500"),
        (None, "no whole answer within 0.6 s"),
        ((200, {}, b"x" * (MOST_BYTES + 1)), "more than"),
        ((200, {}, b'{"choices": []}'), "no chat completion"),
        ((200, {}, b"[1]"), "no chat completion"),
        (chat([1]), "no text"),
    ],
)
def test_no_usable_answer_ends_in_one_line(serve: Callable[..., Server], reply: Reply, said: str) -> None:
    server = serve(reply)
    with pytest.raises(TrainingFailed, match=f"after 2 attempts .*{said}") as failed:
        _endpoint(server.url, retries=1).write(ASK, {}, 0)
    assert KEY not in str(failed.value)
    assert len(server.asked) == 2


def test_a_refusal_is_not_repeated_and_never_repeats_the_key(serve: Callable[..., Server]) -> None:
    server = serve((401, {}, f"bad key {KEY}".encode()))
    with pytest.raises(Invalid, match=r"HTTP 401 bad key \*\*\*; check FEEDBACK_REFINER_URL") as failed:
        _endpoint(server.url).write(ASK, {}, 0)
    assert KEY not in str(failed.value)
    assert len(server.asked) == 1
    with pytest.raises(TrainingFailed, match="no usable answer"):
        _endpoint("http://127.0.0.1:9/v1", retries=1).write(ASK, {}, 0)
    assert _endpoint(serve(chat(None)).url).write(ASK, {}, 0)[0].text == "", "an empty answer is one, and refused later"


def test_the_endpoint_is_told_by_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEEDBACK_REFINER_URL", raising=False)
    with pytest.raises(Invalid, match="set FEEDBACK_REFINER_URL"):
        endpoint_from_environment("big")
    monkeypatch.setenv("FEEDBACK_REFINER_URL", "http://there/v1")
    with pytest.raises(Invalid, match="endpoint_model"):
        endpoint_from_environment(None)
    monkeypatch.setenv("FEEDBACK_REFINER_KEY", KEY)
    assert endpoint_from_environment("big", retries=1) == Endpoint("http://there/v1", "big", KEY, retries=1)


def test_an_endpoint_refines_and_when_it_dies_what_was_done_is_kept(
    serve: Callable[..., Server],
    refine_folder: FolderMaker,  # noqa: F811
    run: Executor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alive = threading.Event()
    alive.set()

    def answer(body: dict[str, Any]) -> Reply:
        if len(server.asked) > 32 and not alive.is_set():
            return 503, {}, b""
        return chat(f"Reply {body['seed'] % 5} to {body['messages'][-1]['content'][:40]}")

    server = serve(answer)
    monkeypatch.setenv("FEEDBACK_REFINER_URL", server.url)
    monkeypatch.setenv("FEEDBACK_REFINER_KEY", KEY)
    asked: dict[str, Any] = {
        "refiner": "endpoint", "endpoint_model": "big", "samples": 4, "parallel": 4, "retries": 1, "timeout_seconds": 5,
    }  # fmt: skip
    rows = [row(number, f"Too short {number}.") for number in range(12)]
    alive.clear()
    folder = refine_folder("run", rows, **asked)
    failed = run(folder)
    assert failed.code == 1
    assert "gave no usable answer after 2 attempts (HTTP 503)" in failed.error["message"]
    assert {one["critique_id"] for one in selected(failed)} == set(range(8)), "two chunks of 4 critiques were done"
    alive.set()
    before = len(server.asked)
    whole = run(folder)
    assert whole.code == 0
    assert len(server.asked) - before == 16, "only the third chunk is asked for"
    kept = selected(whole)
    assert {one["critique_id"] for one in kept} == set(range(12))
    assert all(one["version"] is None and one["endpoint_model"] == "big" for one in kept)
    told = b"".join(path.read_bytes() for path in folder.path.rglob("*") if path.is_file())
    assert KEY.encode() not in told


@pytest.fixture
def transformers_serve(tmp_path: Path) -> Iterator[str]:
    """A real OpenAI-compatible server, with the starter."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    model = resolve_base_model(STARTER)
    command = [str(Path(sys.executable).parent / "transformers"), "serve", model, "--host", "127.0.0.1"]
    with (tmp_path / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--device", "cpu", "--dtype", "float32"], stdout=log, stderr=log
        )
    try:
        until = time.monotonic() + 200
        while True:
            assert process.poll() is None, (tmp_path / "serve.log").read_text()[-2000:]
            assert time.monotonic() < until, "transformers serve did not come up"
            try:
                if httpx2.get(f"http://127.0.0.1:{port}/health", timeout=2).status_code == 200:
                    break
            except httpx2.HTTPError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


@pytest.mark.timeout(400)
def test_transformers_serve_refines_with_the_starter(
    transformers_serve: str,
    refine_folder: FolderMaker,  # noqa: F811
    run: Executor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FEEDBACK_REFINER_URL", transformers_serve)
    request = grammar.sample_prompts(1, seed=3, held_out=True)[0]
    facets = Facets(Greeting.MISSING, Apology.NO, Facts.RIGHT, Action.CONCRETE, Tone.NEUTRAL, Length.SHORT)
    draft = grammar.write_reply(random.Random(1), request, facets)
    rows = [
        row(
            1,
            "You forgot to greet the customer.",
            draft,
            messages=request.messages,
            fix=f"Greet {request.name} by name.",
        )
    ]
    folder = refine_folder(
        "run", rows, base=STARTER, refiner="endpoint", endpoint_model=resolve_base_model(STARTER), samples=3,
        min_judge=0.5, max_new_tokens=120, timeout_seconds=120,
    )  # fmt: skip
    outcome = run(folder)
    assert outcome.code == 0, outcome.events[-1]
    (kept,) = selected(outcome)
    read = checker.read_reply(request, kept["text"])
    assert read is not None
    assert read.greeting is Greeting.RIGHT
    assert kept["judge"] > 0.5
