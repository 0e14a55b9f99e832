"""Passwords, the login throttle, and the middleware that stands before every page.

Four layers, outermost first: `SecurityHeaders`, `SameOrigin`, `BodyLimit`, `Gate`. They are plain ASGI, so event
streams pass through unbuffered. Every answer leaves with the headers, refusals included.
"""

from __future__ import annotations

import ipaddress
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote, urlsplit

import anyio
import anyio.to_thread
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy.orm import Session, sessionmaker
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feedback_app.i18n.edge import tell
from storage.accounts import SEEN_NOTED_EVERY, find_session, note_seen
from storage.engine import one_look, translate_errors
from storage.enums import Role
from storage.errors import Invalid, StoreUnavailable
from storage.models import utc_now

COOKIE = "feedback_session"
MIN_PASSWORD, MAX_PASSWORD = 10, 1000

# OWASP's Argon2id profile of 19 MiB: two at a time keep the web process well under its memory bar.
_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_hashing = anyio.CapacityLimiter(2)
# Compared against when the account is unknown or has no password, so that both take equally long.
_nobody = _hasher.hash(secrets.token_urlsafe(16))


# --- passwords ---


def hash_password(password: str) -> str:
    """Argon2id hash of `password`; raises `Invalid` when it is too short or absurdly long. Slow on purpose."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise Invalid(f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters; choose another")
    return _hasher.hash(password)


def password_matches(password_hash: str | None, password: str) -> bool:
    """Whether `password` is the one behind `password_hash`; takes as long when there is no hash."""
    try:
        _hasher.verify(password_hash or _nobody, password[:MAX_PASSWORD])
    except (VerificationError, InvalidHashError):
        return False
    return password_hash is not None


async def password_matches_soon(password_hash: str | None, password: str) -> bool:
    """`password_matches` in a thread: the event loop goes on serving."""
    return await anyio.to_thread.run_sync(password_matches, password_hash, password, limiter=_hashing)


async def hash_password_soon(password: str) -> str:
    """`hash_password` in a thread: the event loop goes on serving."""
    return await anyio.to_thread.run_sync(hash_password, password, limiter=_hashing)


def network_of(host: str) -> str:
    """What counts as one address for the throttle: an IPv4 address, or the /64 that an IPv6 customer commonly owns."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:  # a host name of a test client, a socket path
        return host
    if address.version == 4:
        return str(address)
    return str(address.ipv4_mapped or ipaddress.ip_network((int(address), 64), strict=False))


class Throttle:
    """Counts failures per key in a sliding window, in memory; at most `capacity` keys are remembered."""

    def __init__(
        self, limit: int, window: float, capacity: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limit, self.window, self.capacity, self.clock = limit, window, capacity, clock
        self._failures: OrderedDict[tuple[str, ...], deque[float]] = OrderedDict()

    def wait(self, key: tuple[str, ...]) -> float:
        """Seconds until `key` may try again; 0 when it may now."""
        times = self._failures.get(key)
        if times is None:
            return 0.0
        now = self.clock()
        while times and times[0] <= now - self.window:
            times.popleft()
        if not times:
            del self._failures[key]
        return times[0] + self.window - now if len(times) >= self.limit else 0.0

    def failed(self, key: tuple[str, ...]) -> None:
        """Remember a failure of `key`."""
        self._failures.setdefault(key, deque(maxlen=self.limit)).append(self.clock())
        self._failures.move_to_end(key)
        while len(self._failures) > self.capacity:
            self._failures.popitem(last=False)

    def succeeded(self, key: tuple[str, ...]) -> None:
        """Forget the failures of `key`."""
        self._failures.pop(key, None)

    def take_back(self, key: tuple[str, ...]) -> None:
        """Forget the newest failure of `key`: it was counted ahead of time and none came of it."""
        times = self._failures.get(key)
        if times:
            times.pop()


# --- who is asking ---


@dataclass(frozen=True)
class SignedIn:
    """The user behind a request, as far as the edge needs to know."""

    name: str
    role: Role
    session_id: int = 0
    language: str | None = None  # what they chose; None: what the browser asks for


def find_signed_in(sessions: sessionmaker[Session], token: str | None) -> SignedIn | None:
    """The user whose session cookie is `token`; None when it is missing, unknown, ended or the user is disabled.

    Notes at most once a minute that the session was seen.
    """
    if not token or len(token) > 200:
        return None
    now = utc_now()
    with translate_errors(), one_look(sessions) as connection:
        found = find_session(connection, token, now=now)
    if found is None:
        return None
    user = SignedIn(found.name, found.role, found.id, found.language)
    if found.last_seen_at is None or now - found.last_seen_at >= SEEN_NOTED_EVERY:
        # A full disk or a busy database must not keep anybody from reading: then it is noted another time.
        with suppress(StoreUnavailable), translate_errors(), sessions.begin() as session:
            note_seen(session, user.session_id, now=now)
    return user


async def signed_in(sessions: sessionmaker[Session], connection: HTTPConnection) -> SignedIn | None:
    """`find_signed_in` for a request's cookie, in a thread; from here on the answer is in that person's language."""
    token = connection.cookies.get(COOKIE)
    user = await anyio.to_thread.run_sync(find_signed_in, sessions, token) if token else None
    if user is not None and user.language:
        tell(connection.scope, user.language)
    return user


def auth_dependency(roles: Collection[Role]) -> Callable[[HTTPConnection], Awaitable[str | None]]:
    """Gradio's question "who is this": the name that `Gate` found, if their role is one of `roles`, else None (401)."""

    async def who(request: HTTPConnection) -> str | None:
        user: SignedIn | None = request.scope.get("state", {}).get("user")
        return user.name if user and user.role in roles else None

    # Gradio's routes are resolved by annotation; a quoted name would not be found from there.
    who.__annotations__ = {"request": HTTPConnection}
    return who


# --- middleware ---

_POLICY = {
    "default-src": "'self'",
    # Gradio's page carries an inline config and compiles `js=` handlers at run time.
    "script-src": "'self' 'unsafe-inline' 'unsafe-eval'",
    "style-src": "'self' 'unsafe-inline'",
    # A completion's Markdown can name remote images: they are not fetched, so reading one tells nobody.
    "img-src": "'self' data: blob:",
    "media-src": "'self' data: blob:",
    "font-src": "'self' data:",
    "connect-src": "'self'",
    "worker-src": "'self' blob:",
    "frame-src": "'none'",
    "object-src": "'none'",
    "base-uri": "'self'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
}


def _csp(**changes: str) -> str:
    policy = _POLICY | {key.replace("_", "-"): value for key, value in changes.items()}
    return "; ".join(f"{key} {value}" for key, value in policy.items())


CSP_PAGES = _csp()
CSP_PLAIN = _csp(script_src="'none'", worker_src="'none'", connect_src="'none'", style_src="'self'")


class SecurityHeaders:
    """Sets CSP and the other security headers on every answer; plain pages run no script at all."""

    def __init__(self, app: ASGIApp, scripted: tuple[str, ...]) -> None:
        self.app, self.scripted = app, scripted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and add the headers to its answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path: str = scope["path"]
        scripted = path.startswith(self.scripted)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["content-security-policy"] = CSP_PAGES if scripted else CSP_PLAIN
                headers["x-content-type-options"] = "nosniff"
                headers["x-frame-options"] = "DENY"
                headers["referrer-policy"] = "same-origin"
                headers["cross-origin-opener-policy"] = "same-origin"
                headers["cross-origin-resource-policy"] = "same-origin"
                headers["permissions-policy"] = "camera=(), microphone=(), geolocation=(), payment=()"
                if "cache-control" not in headers and "/assets/" not in path:
                    headers["cache-control"] = "no-store"
            await send(message)

        await self.app(scope, receive, with_headers)


class SameOrigin:
    """Refuses every unsafe method that a browser sends from another site.

    `Sec-Fetch-Site` where the browser sends it, else `Origin` against `Host` (and the public address). A client that
    sends neither is no browser and carries no cookie of one.
    """

    SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

    def __init__(self, app: ASGIApp, public_url: str) -> None:
        self.app, self.public = app, urlsplit(public_url).netloc

    def allows(self, headers: Headers) -> bool:
        """Whether an unsafe request with these headers comes from our own pages or from no page at all."""
        site = headers.get("sec-fetch-site")
        if site is not None:
            return site in ("same-origin", "none")
        origin = headers.get("origin")
        return origin is None or urlsplit(origin).netloc in {headers.get("host"), self.public} - {"", None}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 403."""
        if scope["type"] == "http" and scope["method"] not in self.SAFE and not self.allows(Headers(scope=scope)):
            await JSONResponse({"error": "cross-site request refused"}, 403)(scope, receive, send)
            return
        await self.app(scope, receive, send)


class _TooLarge(Exception):
    pass


class BodyLimit:
    """Answers 413 to bodies over the limit of their path, whether announced or streamed."""

    def __init__(self, app: ASGIApp, default: int, limits: Mapping[str, int]) -> None:
        self.app, self.default, self.limits = app, default, dict(limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its body counted."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.limits.get(scope["path"].rstrip("/"), self.default)
        refusal = JSONResponse({"error": f"request too large: at most {limit} bytes here"}, 413)
        announced = Headers(scope=scope).get("content-length", "0")
        if not announced.isdigit() or int(announced) > limit:
            await refusal(scope, receive, send)
            return
        seen, started = 0, False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise _TooLarge
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            if seen > limit and not started:  # whoever read the body made another answer of the error
                raise _TooLarge
            started = True
            await send(message)

        try:
            await self.app(scope, counted, watched)
        except _TooLarge:
            if not started:
                await refusal(scope, receive, send)


class Mount(NamedTuple):
    """A guarded page: who may enter, and what of Gradio it needs beyond the common paths."""

    roles: frozenset[Role]
    extra: tuple[str, ...] = ()


class Gate:
    """Lets nobody pass to a mounted page without a session of the right role.

    Of Gradio's routes only those that the pages use are reachable; the rest (several of them unguarded) is not there.
    """

    # Files of the front end: the same for everybody, and needed before the first call.
    PUBLIC = ("/assets/", "/static/", "/theme.css", "/favicon.ico", "/gradio_api/theme.css")
    USED = (
        "/config",
        "/gradio_api/queue/",
        "/gradio_api/run/",
        "/gradio_api/startup-events",
        "/gradio_api/heartbeat/",
        "/gradio_api/cancel",
        "/gradio_api/reset",
        "/gradio_api/info",
    )

    def __init__(
        self, app: ASGIApp, sessions: sessionmaker[Session], mounts: Mapping[str, Mount], denied: ASGIApp
    ) -> None:
        self.app, self.sessions, self.mounts, self.denied = app, sessions, dict(mounts), denied

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Find the user, then pass on, redirect to the login page, or refuse."""
        if scope["type"] == "websocket":  # no page uses one
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path: str = scope["path"]
        prefix = next((name for name in self.mounts if path == name or path.startswith(f"{name}/")), None)
        if prefix is None:
            await self.app(scope, receive, send)
            return
        response = await self._refusal(scope, self.mounts[prefix], path[len(prefix) :])
        await (response or self.app)(scope, receive, send)

    async def _refusal(self, scope: Scope, mount: Mount, inner: str) -> ASGIApp | None:
        # None: let it through.
        if inner.startswith(self.PUBLIC):
            return None
        if inner not in ("", "/") and not inner.startswith(self.USED + mount.extra):
            return JSONResponse({"error": "not found"}, 404)
        connection = HTTPConnection(scope)
        page = "text/html" in connection.headers.get("accept", "") and inner in ("", "/")
        try:
            user = await signed_in(self.sessions, connection)
        except StoreUnavailable as error:
            return JSONResponse({"error": str(error)}, 503)
        if user is None:
            return self._to_login(connection) if page else JSONResponse({"error": "not signed in"}, 401)
        if user.role not in mount.roles:
            return self.denied if page else JSONResponse({"error": "your role may not use this page"}, 403)
        scope.setdefault("state", {})["user"] = user
        return None

    @staticmethod
    def _to_login(connection: HTTPConnection) -> Response:
        wanted = connection.url.path + (f"?{connection.url.query}" if connection.url.query else "")
        return RedirectResponse(f"/login?next={quote(wanted, safe='/')}", 303)


def safe_next(wanted: str | None) -> str | None:
    """`wanted` when it is a path of this site, else None: a login link must not lead elsewhere."""
    if not wanted or not wanted.startswith("/") or wanted.startswith(("//", "/\\")) or len(wanted) > 500:
        return None
    return None if any(ord(letter) < 32 for letter in wanted) or "\\" in wanted else wanted
