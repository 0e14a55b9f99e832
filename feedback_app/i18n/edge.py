"""Where a request's language and time zone are found, and where a page built for everybody gets its reader's words."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from functools import lru_cache
from zoneinfo import ZoneInfo

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feedback_app.i18n import ENGLISH, LANGUAGES, Reader, fill, of_scripts, read_by, reader

# The language chosen in this browser, and its time zone (static/language.js).
LANGUAGE_COOKIE, ZONE_COOKIE = "feedback_language", "feedback_zone"
COOKIE_SECONDS = 365 * 86400


def find_reader(connection: HTTPConnection, setting: str | None = None) -> Reader:
    """Whom to make a page for: the account's `setting`, else this browser's choice, else what the browser asks for."""
    chosen = setting or connection.cookies.get(LANGUAGE_COOKIE)
    language = chosen if chosen in LANGUAGES else asked_for(connection.headers.get("accept-language", ""))
    return Reader(language, _zone(connection.cookies.get(ZONE_COOKIE, "")))


def asked_for(accept: str) -> str:
    """The language that an Accept-Language header likes best among ours; English when it names none of them."""
    wishes: list[tuple[float, str]] = []
    for part in accept[:500].split(","):
        tag, _, quality = part.strip().partition(";")
        try:
            wishes.append((float(quality.strip().removeprefix("q=") or 1), tag.strip().lower()))
        except ValueError:
            continue
    for liked, tag in sorted(wishes, key=lambda wish: -wish[0]):
        ours = next((one for one in LANGUAGES if tag.partition("-")[0] == one.partition("-")[0]), None)
        if ours and liked > 0:
            return ours
    return ENGLISH


@lru_cache(maxsize=1000)
def _zone(name: str) -> str:
    # A zone is looked up as a file, so only what can be a name of one is.
    try:
        return ZoneInfo(name).key if re.fullmatch(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*", name) else "UTC"
    except (KeyError, ValueError, OSError):
        return "UTC"


class Language:
    """Finds out for whom a page is made, and fills the pages of Gradio in their language.

    `signed_in` says it again once it knows the account.
    """

    FILLED = ("", "/", "/config", "/gradio_api/info")

    def __init__(self, app: ASGIApp, pages: Collection[str]) -> None:
        self.app = app
        self.filled = {page + path for page in pages for path in self.FILLED}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, made for its reader."""
        if scope["type"] == "http":
            tell(scope)
            send = _filling(send) if scope["path"] in self.filled and scope["method"] == "GET" else send
        await self.app(scope, receive, send)


def tell(scope: Scope, setting: str | None = None) -> None:
    """Note on the request for whom its answer is made; events of Gradio's queue run elsewhere and read it there."""
    who = find_reader(HTTPConnection(scope), setting)
    scope.setdefault("state", {})["reader"] = who
    read_by(who)


def _filling(send: Send) -> Send:
    start: Message = {}
    body = bytearray()

    async def filled(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start":
            start = message
            return
        if message["type"] != "http.response.body":  # what templates tell test clients
            await send(message)
            return
        body.extend(message.get("body", b""))
        if message.get("more_body"):
            return
        kind = Headers(scope=start).get("content-type", "")
        text = bytes(body)
        if kind.startswith(("text/html", "application/json")) and start["status"] == 200:
            page = fill(text.decode())
            text = (_own_words(page) if kind.startswith("text/html") else page).encode()
            MutableHeaders(scope=start)["content-length"] = str(len(text))
        await send(start)
        await send({"type": "http.response.body", "body": text})

    return filled


def _own_words(page: str) -> str:
    """A page of Gradio that says its language, with the words of our scripts before anything of it runs."""
    language = reader().language
    words = json.dumps(of_scripts(language), ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    page = page.replace('lang="en"', f'lang="{language}"', 1)
    script = f'<script>window.feedback={{words:{words}}}</script><script src="/static/language.js"></script>'
    return page.replace("<head>", f"<head>{script}", 1)
