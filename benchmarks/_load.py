"""The people and programs of `benchmarks.annotate`, in a process of their own: `python -m benchmarks._load SPEC.json`.

A client as lean as asyncio allows (one keep-alive connection each, requests written as bytes, replies cut at their
length), because it shares the cores with what it measures; what it costs is in its figures. Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import orjson

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_SAID = "No date is given, and the name is wrong; say which day the parcel comes, please."
THINK_SECONDS = 1.0
_HOPELESS = 50  # errors after which a load gives up


@dataclass(frozen=True)
class Spec:
    """What is to be done: `kind` is think, hammer, api-known, api-new or label-studio."""

    kind: str
    port: int
    seconds: float  # measured, after `warm_up`
    warm_up: float
    path: str  # of the requests
    credentials: list[str]  # a cookie or a token, one for each person or program
    functions: dict[str, int] = field(default_factory=dict)  # numbers of Gradio's functions by name
    first: int = 0  # api: the first item to be judged, or the first number in new texts
    limit: int = 10**9  # submits at most


class Reply(NamedTuple):
    """An HTTP answer."""

    status: int
    body: bytes


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time; connects again when the server has closed it."""

    def __init__(self, port: int, head: str) -> None:
        self._port, self._head = port, head
        self._transport: Any = None
        self._waiting: asyncio.Future[Reply] | None = None
        self._data = b""

    async def post(self, path: str, body: Any, extra: str = "") -> Reply:
        """The answer to `body` sent as JSON."""
        loop = asyncio.get_running_loop()
        if self._transport is None or self._transport.is_closing():
            self._transport, _ = await loop.create_connection(lambda: self, "127.0.0.1", self._port)
        packed = orjson.dumps(body)
        head = f"POST {path} HTTP/1.1\r\n{self._head}{extra}content-length: {len(packed)}\r\n\r\n"
        self._waiting, self._data = loop.create_future(), b""
        self._transport.write(head.encode() + packed)
        return await asyncio.wait_for(self._waiting, 60)

    def data_received(self, data: bytes) -> None:
        """Collect an answer until it is whole."""
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0 or self._waiting is None or self._waiting.done():
            return
        length = _LENGTH.search(self._data, 0, end + 2)
        if length is None:
            self._waiting.set_exception(RuntimeError("an answer without a length"))
        elif len(self._data) >= end + 4 + int(length[1]):
            self._waiting.set_result(Reply(int(self._data[9:12]), self._data[end + 4 :]))

    def connection_lost(self, error: Exception | None) -> None:
        """Whoever waits is told."""
        self._transport = None
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error or ConnectionResetError("the server closed the connection"))


@dataclass
class Figures:
    """What came of it; times in milliseconds by kind of request."""

    times: dict[str, list[float]] = field(default_factory=dict)
    errors: int = 0
    first_errors: list[str] = field(default_factory=list)
    seconds: float = 0.0
    cpu_seconds: float = 0.0


class Load:
    """All people at once, until the time is over."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.figures = Figures()
        self.done: Counter[str] = Counter()
        self._from = self._until = 0.0
        self._number = spec.first

    async def run(self) -> Figures:
        """Do what the spec says and report."""
        kinds = {"think": self._thinking, "hammer": self._hammering, "label-studio": self._elsewhere}
        person = kinds.get(self.spec.kind, self._sending)
        begun = time.perf_counter()
        self._from = begun + self.spec.warm_up
        self._until = self._from + self.spec.seconds
        cpu = time.process_time()
        await asyncio.gather(*(person(n, one) for n, one in enumerate(self.spec.credentials)))
        elapsed = time.perf_counter() - begun
        self.figures.seconds = elapsed - self.spec.warm_up
        self.figures.cpu_seconds = (time.process_time() - cpu) * self.figures.seconds / elapsed
        return self.figures

    @property
    def _over(self) -> bool:
        enough = self.done["submit"] >= self.spec.limit or self.figures.errors >= _HOPELESS
        return enough or time.perf_counter() >= self._until

    async def _timed(self, name: str, ask: Callable[[], Awaitable[Reply]]) -> Any:
        """The answer's JSON, its time noted; None for an error, which is counted."""
        asked = time.perf_counter()
        try:
            reply = await ask()
            line = "" if reply.status in (200, 201) else f"{reply.status} {reply.body[:300].decode(errors='replace')}"
        except (OSError, RuntimeError, TimeoutError) as error:
            line = repr(error)
        answered = time.perf_counter()
        self.done[name] += 1
        if answered >= self._from:
            self.figures.times.setdefault(name, []).append(1000 * (answered - asked))
        if line:
            self._wrong(f"{name}: {line}")
            return None
        return orjson.loads(reply.body)

    def _wrong(self, line: str) -> None:
        self.figures.errors += 1
        if len(self.figures.first_errors) < 5:
            self.figures.first_errors.append(line)

    # --- people ---

    async def _thinking(self, n: int, cookie: str) -> None:
        # They come within the first second, not all in one instant.
        rng = random.Random(n)
        await asyncio.sleep(rng.random() * THINK_SECONDS)
        person = _Annotator(self, cookie)
        while not self._over:
            if not await person.next_item():
                return
            await asyncio.sleep(THINK_SECONDS / 2)
            await person.save()
            await asyncio.sleep(THINK_SECONDS / 2)
            await person.submit()

    async def _hammering(self, _n: int, cookie: str) -> None:
        person = _Annotator(self, cookie)
        if await person.next_item():
            while not self._over and await person.submit():
                pass

    async def _sending(self, n: int, token: str) -> None:
        head = f"host: 127.0.0.1\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n"
        connection = Connection(self.spec.port, head)
        while not self._over:
            self._number += 1
            body = {"project": "bench", "feedback": [self._feedback(n, self._number)]}
            key = f"idempotency-key: {self.spec.kind}-{self._number}\r\n"
            answer = await self._timed("submit", partial(connection.post, self.spec.path, body, key))
            if answer is not None and answer["stored"] != 1:
                self._wrong(f"not stored: {answer}")

    async def _elsewhere(self, _n: int, credentials: str) -> None:
        head = f"host: 127.0.0.1:{self.spec.port}\r\ncontent-type: application/json\r\ncookie: {credentials}\r\n"
        head += f"referer: http://127.0.0.1:{self.spec.port}/\r\n"
        connection = Connection(self.spec.port, head)
        body = {
            "result": [
                {"from_name": "pw", "to_name": "a,b", "type": "pairwise", "value": {"selected": "left"}},
                {"from_name": "critique", "to_name": "a", "type": "textarea", "value": {"text": [_SAID]}},
            ],
            "lead_time": 20,
        }
        while not self._over:
            path = f"{self.spec.path}/{self._number}/annotations/"
            self._number += 1
            await self._timed("submit", partial(connection.post, path, body))

    def _feedback(self, n: int, number: int) -> dict[str, Any]:
        said: dict[str, Any] = {
            "annotator": f"person {n}",
            "preference": {"outcome": "first", "strength": 2},
            "critiques": [{"completion": 1, "text": _SAID}],
        }
        if self.spec.kind == "api-known":
            return said | {"completion_ids": [2 * number - 1, 2 * number]}
        texts = [f"Your parcel {number} comes on Tuesday.", f"The parcel comes, order {number}."]
        return said | {"prompt": f"Where is my parcel {number}?", "completions": texts}


class _Annotator:
    """One person's open tab: what the page's script would send."""

    def __init__(self, load: Load, cookie: str) -> None:
        head = f"host: 127.0.0.1\r\ncookie: feedback_session={cookie}\r\ncontent-type: application/json\r\n"
        self._load = load
        self._connection = Connection(load.spec.port, head)
        self._session = cookie[:11]
        self._assignment = ""

    async def _call(self, name: str, function: str, *values: Any) -> Any:
        body = {"data": values, "fn_index": self._load.spec.functions[function], "session_hash": self._session}
        answer = await self._load._timed(name, lambda: self._connection.post(self._load.spec.path, body))
        return None if answer is None else answer["data"]

    async def next_item(self) -> bool:
        """Ask for the item to be judged now: the one in hand or a new one."""
        return self._took(await self._call("next item", "looked", "bench"))

    async def save(self) -> None:
        """Autosave what has been typed."""
        await self._call("draft", "saved", self._assignment, 1000 * time.time(), self._form())

    async def submit(self) -> bool:
        """Send the judgement; the answer brings the next item."""
        before = self._assignment
        data = await self._call("submit", "submitted", "bench", before, 20, self._form())
        if data is not None and (data[-1] or data[2] == before):
            self._load._wrong(f"not taken: {data[-1]!r}")
        return self._took(data)

    def _took(self, data: Any) -> bool:
        if data is None:
            return False
        self._assignment = data[2]
        if not self._assignment:
            self._load._wrong("no item left")
        return bool(self._assignment)

    def _form(self) -> dict[str, Any]:
        critique = {"text": _SAID, "tags": ["vague"], "fix": "", "start": None, "end": None}
        return {
            "outcome": "first",
            "strength": 2,
            "ranks": [],
            "sides": [
                {"ratings": {"1": 4}, "critiques": [], "refinement": ""},
                {"ratings": {"1": 2}, "critiques": [critique], "refinement": ""},
            ],
        }


def main() -> None:
    """Read the spec, make the load, print the figures."""
    spec = Spec(**json.loads(Path(sys.argv[1]).read_text()))
    print(orjson.dumps(asdict(asyncio.run(Load(spec).run()))).decode())


if __name__ == "__main__":
    main()
