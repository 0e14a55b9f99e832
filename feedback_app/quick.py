"""Events of an annotator's page that pass their values as they are: the item, the draft, the submit.

Problem: Gradio takes longer to route, check and convert such a call than its handler takes, and SQLite, which has one
writer, waits for the disk with each transaction. Decision: what `wiring.plain` marks is answered here, with the person
whom the gate found; on SQLite calls that arrive while a transaction is under way share the next one, on PostgreSQL
they run side by side (a shared transaction would hold the items of several people, and wait for others who do).
Everything else goes on to Gradio. Invariant: nobody is answered before their own call is committed, and a call that
fails takes no other with it: it is done again alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feedback_app.handlers.context import Context, DoAlone
from feedback_app.i18n import message, sentence
from feedback_app.security import SignedIn
from feedback_app.together import Together
from storage.errors import FeedbackError

if TYPE_CHECKING:
    import gradio as gr

RUN = "/gradio_api/run/"
# Few enough that the first in a transaction need not wait long for the last.
MOST = 12
LANES = 5  # transactions side by side on PostgreSQL: more only take turns for the processor


class _Event(NamedTuple):
    """A function of a page, with what a call of it must bring."""

    function: Callable[..., Any]
    inputs: int
    outputs: int


class _Failed(NamedTuple):
    """What a function raised."""

    error: Exception


class Quick:
    """Answers the plain events of `pages` (by their address); passes all else on to `app`."""

    def __init__(self, app: ASGIApp, ctx: Context, pages: Mapping[str, gr.Blocks]) -> None:
        self.app, self.ctx, self.pages = app, ctx, pages
        self._events: dict[str, dict[int, _Event]] = {}
        one_writer = ctx.sessions.kw["bind"].dialect.name == "sqlite"
        most, lanes = (MOST, 1) if one_writer else (1, LANES)
        self._together = Together[Callable[[], Any], Any](self._work, lambda chosen, _: len(chosen) < most, lanes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the event, or pass the request on."""
        page, _, name = str(scope.get("path", "")).partition(RUN)
        if not name or page not in self.pages or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        body = await Request(scope, receive).body()
        call = self._call(page, scope, body)
        if call is None:
            await self.app(scope, _again(body, receive), send)
            return
        begun = time.perf_counter()
        try:
            outcome = await self._together.ask(call)
        except FeedbackError as error:
            outcome = error
        await _answer(outcome, time.perf_counter() - begun)(scope, receive, send)

    def _call(self, page: str, scope: Scope, body: bytes) -> Callable[[], Any] | None:
        """The call that a request asks for; None when Gradio shall answer it."""
        try:
            asked = orjson.loads(body)
            event = self._events_of(page).get(asked["fn_index"])
            values = asked["data"]
        except (ValueError, TypeError, KeyError):
            return None
        user: SignedIn | None = scope.get("state", {}).get("user")
        if event is None or user is None or not isinstance(values, list) or len(values) != event.inputs:
            return None
        return partial(_run, event, scope, user.name, values)

    def _events_of(self, page: str) -> dict[int, _Event]:
        if page not in self._events:
            self._events[page] = {
                number: _Event(one.fn, len(one.inputs), len(one.outputs))
                for number, one in self.pages[page].fns.items()
                if one.fn is not None and getattr(one.fn, "plain", False)
            }
        return self._events[page]

    def _work(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        if len(calls) == 1:
            return [calls[0]()]
        try:
            return self.ctx.together(calls)
        except DoAlone as alone:
            raise RuntimeError("one of several calls failed; each is done again alone") from alone


def _run(event: _Event, scope: Scope, name: str, values: list[Any]) -> Any:
    import gradio as gr  # after server has set its variables

    try:
        made = event.function(gr.Request(request=Request(scope), username=name), *values)
    except Exception as error:  # told to whoever asked, as Gradio does
        return _Failed(error)
    return [] if event.outputs == 0 else [made] if event.outputs == 1 else made


def _answer(outcome: Any, seconds: float) -> Response:
    if isinstance(outcome, FeedbackError):
        return Response(orjson.dumps({"error": sentence(message(str(outcome)))}), 503, media_type="application/json")
    if isinstance(outcome, _Failed):
        from gradio.utils import error_payload

        if getattr(outcome.error, "print_exception", True):
            logging.getLogger(__name__).error("an event of a page failed", exc_info=outcome.error)
        content: dict[str, Any] = error_payload(outcome.error, False)
        return Response(orjson.dumps(content), 500, media_type="application/json")
    content = {"data": outcome, "is_generating": False, "duration": seconds, "average_duration": seconds}
    content |= {"render_config": None, "changed_state_ids": []}
    return Response(orjson.dumps(content), media_type="application/json")


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives a body once more."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
