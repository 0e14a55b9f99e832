"""Many small requests in few transactions: feedback through the API, what annotators do on their page.

Problem: the store has one writer and a commit waits for the disk, so that one transaction a request is some 150 a
second however many ask. Decision: while a transaction is under way, the requests that arrive wait and then share the
next one. Invariant: nobody is answered before what they sent is committed, and one request that fails takes no
other with it (it is done again alone).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import anyio
import anyio.to_thread

from storage.errors import FeedbackError

Asked = TypeVar("Asked")
Given = TypeVar("Given")

MAX_WAITING = 2_000
MAX_TOGETHER = 64


class TooBusy(FeedbackError):
    """More requests are waiting than this process should hold."""


class Together(Generic[Asked, Given]):
    """`ask` from any request; `work` does several at once in a thread, `lanes` batches at a time.

    `work` returns an answer for each, in order; `fits` says whether one may join those chosen for a batch already.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Asked]], list[Given]],
        fits: Callable[[Sequence[Asked], Asked], bool],
        lanes: int = 1,
    ) -> None:
        self._work, self._fits, self._lanes = work, fits, lanes
        self._waiting: deque[tuple[Asked, asyncio.Future[Given]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, asked: Asked) -> Given:
        """The answer, once it is committed; raises what `work` raised for this one, `TooBusy` when too many wait."""
        if len(self._waiting) >= MAX_WAITING:
            raise TooBusy("too many requests are waiting; try again in a second")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Given] = loop.create_future()
        self._waiting.append((asked, future))
        self._tasks = {task for task in self._tasks if not task.done() and task.get_loop() is loop}
        if len(self._tasks) < self._lanes:
            self._tasks.add(loop.create_task(self._drain()))
        return await future

    async def _drain(self) -> None:
        limiter = anyio.CapacityLimiter(1)  # a thread of its own: pages never wait for it
        while self._waiting:
            batch = self._next_batch()
            try:
                given = await anyio.to_thread.run_sync(self._work, [asked for asked, _ in batch], limiter=limiter)
            except Exception as error:  # handed to whoever asked
                if len(batch) == 1:
                    _settle(batch[0][1], error)
                    continue
                for one in batch:
                    await self._alone(*one, limiter)
                continue
            for (_, future), answer in zip(batch, given, strict=True):
                _settle(future, answer)

    async def _alone(self, asked: Asked, future: asyncio.Future[Given], limiter: anyio.CapacityLimiter) -> None:
        try:
            _settle(future, (await anyio.to_thread.run_sync(self._work, [asked], limiter=limiter))[0])
        except Exception as error:  # handed to whoever asked
            _settle(future, error)

    def _next_batch(self) -> list[tuple[Asked, asyncio.Future[Given]]]:
        batch = [self._waiting.popleft()]
        while (
            self._waiting
            and len(batch) < MAX_TOGETHER
            and self._fits([asked for asked, _ in batch], self._waiting[0][0])
        ):
            batch.append(self._waiting.popleft())
        return batch


def _settle(future: asyncio.Future[Given], outcome: Given | Exception) -> None:
    if future.done():  # the client went away
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
