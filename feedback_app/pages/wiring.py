"""What both Gradio pages share: turn a handler into an event function, and a top bar."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from html import escape
from typing import Any, TypeVar

import gradio as gr

from feedback_app.i18n import Reader, later, message, reading, sentence, t
from storage.engine import explain
from storage.enums import Role
from storage.errors import FeedbackError

T = TypeVar("T")

# A queued event shows toasts; `private` keeps it out of the API page. Neither guards anything: the policies do.
QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
# Values go from and to the browser as they are: Gradio's steps around them take longer than a handler. What comes in
# is checked by the handlers anyway; what goes out has the form that the component's script takes.
AS_IS: dict[str, Any] = {"preprocess": False, "postprocess": False}
QUEUED: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "trigger_mode": "once"}
# For what only reads, on a page where people also do something: asked for again while it is under way, it looks once
# more, and static/events.js lets it put nothing over what was asked for later. A slow one goes through the queue.
LOOK: dict[str, Any] = {**QUICK, "trigger_mode": "always_last"}
SLOW_LOOK: dict[str, Any] = {**QUEUED, "trigger_mode": "always_last"}


def event(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function(name, *values)` as a Gradio event function: the signed-in name first, people's errors as toasts."""

    def call(request: gr.Request, *values: Any) -> Any:
        with reading(_reader_of(request)):
            try:
                return function(request.username, *values)
            except FeedbackError as error:
                raise toast(message(str(error))) from error
            except Exception as error:
                line = explain(error)
                if line is None:
                    raise
                raise toast(message(line)) from error

    call.__name__ = getattr(function, "__name__", "call")
    # Gradio finds the request argument by its annotation; a quoted one would be looked up in the wrong module.
    call.__annotations__ = {"request": gr.Request}
    return call


def plain(function: Callable[..., T]) -> Callable[..., T]:
    """Have an unqueued event whose values go `AS_IS` answered by `feedback_app.quick`, past Gradio.

    For what writes and is done in milliseconds: it may share its transaction with other calls.
    """
    function.plain = True  # type: ignore[attr-defined]  # a mark on the function, which Gradio hands on as it is
    return function


def streaming(
    looks: Callable[..., AsyncIterator[T]], show: Callable[[T], list[Any]], outputs: int
) -> Callable[..., Any]:
    """As `event`, for what is shown while it comes about: `show` makes the outputs of each thing that `looks` gives.

    Gradio sends the last outputs once more when the event ends; by then the page may show something else, so the last
    ones change nothing.
    """

    async def call(request: gr.Request, *values: Any) -> AsyncIterator[list[Any]]:
        reader = _reader_of(request)
        try:
            async for one in looks(request.username, *values):
                with reading(reader):
                    shown = show(one)
                yield shown
            yield [gr.skip() for _ in range(outputs)]
        except Exception as error:
            line = str(error) if isinstance(error, FeedbackError) else explain(error)
            if line is None:
                raise
            with reading(reader):
                raise toast(message(line)) from error

    call.__name__ = looks.__name__
    call.__annotations__ = {"request": gr.Request}
    return call


def _reader_of(request: gr.Request) -> Reader:
    # Noted by `i18n.edge` on the request: an event of the queue runs in a task of Gradio's.
    state = request.request.scope.get("state", {}) if request.request else {}
    who: Reader = state.get("reader", Reader())
    return who


def told(function: Callable[..., list[Any]], outputs: int) -> Callable[..., list[Any]]:
    """As `event`, for an event outside the queue, where toasts are silent: its last output is the page's notice.

    `function` returns `outputs` values and the notice. What people can mend leaves the others as they are.
    """

    def quick(name: str | None, *values: Any) -> list[Any]:
        try:
            return function(name, *values)
        except Exception as error:
            line = str(error) if isinstance(error, FeedbackError) else explain(error)
            if line is None:
                raise
            return [*(gr.skip() for _ in range(outputs)), notice(message(line))]

    quick.__name__ = function.__name__
    return event(quick)


def notice(line: str) -> str:
    """One line over the page that goes by itself, read out by screen readers; "" for none."""
    # The moment makes each notice a new element: the same line twice is shown twice.
    said = f'<div class="fb-notice" role="alert" data-at="{time.monotonic_ns()}">{escape(sentence(line))}</div>'
    return said if line else ""


def toast(message: str) -> gr.Error:
    """A message for the person, without a traceback in the log."""
    return gr.Error(sentence(message), print_exception=False, duration=10)


def account_links(name: str, role: Role, here: str) -> str:
    """The right end of the top bar: the other page, the name, the account and sign out."""
    other = ""
    if here != "annotate":
        other = f'<a class="fb-link" href="/annotate/">{t("Annotate")}</a>'
    if here != "play":
        other += f'<a class="fb-link" href="/play/">{t("Playground")}</a>'
    if here != "operate" and role is not Role.ANNOTATOR:
        other += f'<a class="fb-link" href="/operate/">{t("Operate")}</a>'
    initial = escape(name[:1].upper())
    return f"""{other}
<details class="fb-menu"><summary title="{t("Account")}"><span class="fb-avatar">{initial}</span></summary>
<div class="fb-menu-list"><p><strong>{escape(name)}</strong><br><span>{t(role.value)}</span></p>
<a href="/mine/">{t("My annotations")}</a>
<a href="/account">{t("Your account")}</a>
<form method="post" action="/logout"><button type="submit">{t("Sign out")}</button></form></div></details>"""


# The page's name is there for those who listen; everybody else sees it in the tab.
HEADING = '<h1 class="fb-unseen">{}</h1>'
BRAND = (
    f'<a class="fb-skip-bar" href="#fb-work">{later("Skip to the work")}</a>'
    '<a class="fb-brand" href="/"><img src="/static/icon.svg" alt="" width="26" height="26"><b>Feedback</b></a>'
)
