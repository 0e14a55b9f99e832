"""A refiner behind an OpenAI-compatible endpoint: chat completions over HTTP, patient with a server that is busy.

Where it is and its key come from the environment of whoever runs the worker (FEEDBACK_REFINER_URL,
FEEDBACK_REFINER_KEY) and from nowhere else: an operator who could name another address would be sent the key. It never
reaches a row or a log.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import httpx2

from storage.errors import Invalid, TrainingFailed
from storage.models import Message, utc_now

MOST_BYTES = 4_000_000  # of one answer; what sends more is no chat server
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
_AGAIN = frozenset({408, 409, 425, 429}) | frozenset(range(500, 600))


class Answer(NamedTuple):
    """What the endpoint wrote; `truncated`: it had to stop before it was done."""

    text: str
    truncated: bool
    token_count: int | None


class _TryAgain(Exception):
    """No usable answer this time; `after` is the pause that the server asked for, in seconds."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


@dataclass(frozen=True)
class Endpoint:
    """An address, a model there, and how patient to be with it."""

    url: str
    model: str
    key: str = ""
    timeout_seconds: float = 120.0
    retries: int = 5
    parallel: int = 4
    first_pause: float = FIRST_PAUSE

    def write(
        self,
        conversations: Sequence[list[Message]],
        options: dict[str, Any],
        seed: int,
        pause: Callable[[float], None] = time.sleep,
    ) -> list[Answer]:
        """One answer a conversation, in order; `options` are further fields of the request, seeds count from `seed`.

        `pause` waits so many seconds and may raise to give up. Raises `TrainingFailed` when one conversation got no
        usable answer however often it was asked, and `Invalid` when the server refuses the request as such.
        """
        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        timeout = httpx2.Timeout(self.timeout_seconds, connect=min(10.0, self.timeout_seconds))
        given_up = threading.Event()

        def hold(seconds: float) -> None:
            pause(seconds)
            if given_up.is_set():  # another conversation failed for good: nobody waits for this one any more
                raise TrainingFailed("given up")

        with httpx2.Client(headers=headers, timeout=timeout) as client, ThreadPoolExecutor(self.parallel) as pool:
            waiting = [
                pool.submit(self._patiently, client, {"messages": messages, "seed": seed + n, **options}, hold)
                for n, messages in enumerate(conversations)
            ]
            try:
                return [one.result() for one in waiting]
            except BaseException:
                given_up.set()
                pool.shutdown(cancel_futures=True, wait=False)
                raise

    def _patiently(self, client: httpx2.Client, body: dict[str, Any], pause: Callable[[float], None]) -> Answer:
        delay = self.first_pause
        for attempt in range(self.retries + 1):
            try:
                return self._once(client, {"model": self.model, "stream": False, **body})
            except _TryAgain as error:
                if attempt == self.retries:
                    raise TrainingFailed(
                        f"the refiner at {self.url} gave no usable answer after {attempt + 1} attempts ({error}); "
                        "what was refined before is kept: queue the run again once it answers"
                    ) from error
                pause(min(LONGEST_PAUSE, max(delay, error.after or 0.0)))
                delay *= 2
        raise AssertionError("unreachable")

    def _once(self, client: httpx2.Client, body: dict[str, Any]) -> Answer:
        address = f"{self.url.rstrip('/')}/chat/completions"
        try:
            with client.stream("POST", address, json=body) as response:
                content = self._read(response)
        except httpx2.TimeoutException as error:
            raise _TryAgain(f"no answer within {self.timeout_seconds:g} s") from error
        except httpx2.HTTPError as error:
            raise _TryAgain(self._quiet(str(error) or type(error).__name__)) from error
        except httpx2.InvalidURL as error:
            raise Invalid("FEEDBACK_REFINER_URL is no address; write http://host:port/v1") from error
        if response.status_code in _AGAIN:
            raise _TryAgain(f"HTTP {response.status_code}", _asked_for(response.headers.get("retry-after")))
        if response.status_code != httpx2.codes.OK:
            said = self._quiet(" ".join(content.decode("utf-8", "replace").split()))
            raise Invalid(
                f"the refiner at {self.url} refuses: HTTP {response.status_code} {said}; "
                "check FEEDBACK_REFINER_URL, FEEDBACK_REFINER_KEY and endpoint_model"
            )
        return _understood(content)

    def _read(self, response: httpx2.Response) -> bytes:
        """The whole answer, bounded in size and in time: the client's own clock starts anew with every byte."""
        started, content = time.monotonic(), b""
        for part in response.iter_bytes():
            content += part
            if len(content) > MOST_BYTES:
                raise _TryAgain(f"an answer of more than {MOST_BYTES:,} bytes")
            if time.monotonic() - started > self.timeout_seconds:
                raise _TryAgain(f"no whole answer within {self.timeout_seconds:g} s")
        return content

    def _quiet(self, text: str) -> str:
        """A line from outside, short and without the key, should a server repeat it."""
        return (text.replace(self.key, "***") if self.key else text)[:200]


def endpoint_from_environment(model: str | None, **patience: Any) -> Endpoint:
    """The installation's refiner; raises `Invalid` with the mend when it has none or no model is named."""
    url = os.environ.get("FEEDBACK_REFINER_URL", "").strip()
    if not url:
        raise Invalid("no refiner endpoint is set up: set FEEDBACK_REFINER_URL for the worker, or use refiner=champion")
    if not model:
        raise Invalid("set endpoint_model to the name of a model that the refiner endpoint serves")
    return Endpoint(url, model, os.environ.get("FEEDBACK_REFINER_KEY", "").strip(), **patience)


def _asked_for(header: str | None) -> float | None:
    """The seconds that a Retry-After asks for, as a number or as a date; None when it is neither."""
    try:
        return max(0.0, float(header or ""))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(header or "")
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - utc_now()).total_seconds())


def _understood(content: bytes) -> Answer:
    try:
        told = json.loads(content)
        choice = told["choices"][0]
        text = choice["message"]["content"]
        used = (told.get("usage") or {}).get("completion_tokens")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise _TryAgain("its answer is no chat completion") from error
    if text is not None and not isinstance(text, str):
        raise _TryAgain("its answer holds no text")
    truncated = choice.get("finish_reason") == "length"
    return Answer((text or "").strip(), truncated, used if isinstance(used, int) else None)
