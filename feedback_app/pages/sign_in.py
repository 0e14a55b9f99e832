"""Routes of /login, /login/link, /login/oidc, /logout, /set-password, /language and /: plain forms, no JavaScript."""

from __future__ import annotations

import math
from typing import Annotated
from urllib.parse import quote

import anyio.to_thread
from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from feedback_app import policies
from feedback_app.handlers import account
from feedback_app.handlers.account import Browser
from feedback_app.handlers.context import Context
from feedback_app.i18n import LANGUAGES, plural, said, t
from feedback_app.i18n.edge import COOKIE_SECONDS, LANGUAGE_COOKIE
from feedback_app.oidc import CALLBACK, Pending, Provider
from feedback_app.pages.plain import page
from feedback_app.security import (
    COOKIE,
    MIN_PASSWORD,
    Throttle,
    hash_password_soon,
    network_of,
    password_matches_soon,
    safe_next,
    signed_in,
)
from storage.errors import FeedbackError

# Of a sign-in through a provider, for as long as it takes there.
OIDC_COOKIE, OIDC_SECONDS = "feedback_oidc", 900

Text = Annotated[str, Form(max_length=2000)]


class SignInRoutes:
    """The routes with what they share: the context, the provider and two throttles.

    Five failures of one account from one address, or fifty of one address, have to wait; both are counted in a window
    of five minutes. No account waits because of what comes from elsewhere: a stranger cannot lock anybody out.
    """

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.per_account = Throttle(limit=5, window=300)
        self.per_address = Throttle(limit=50, window=300)
        self.provider = Provider(ctx.settings) if ctx.settings.oidc_issuer else None
        self.router = APIRouter(include_in_schema=False)
        for path, method, route in (
            ("/", "GET", self.home),
            ("/login", "GET", self.login_form),
            ("/login", "POST", self.login),
            ("/login/oidc", "GET", self.to_provider),
            (CALLBACK, "GET", self.from_provider),
            ("/login/link/{token}", "GET", self.link_form),
            ("/login/link/{token}", "POST", self.link),
            ("/logout", "GET", self.logout_form),
            ("/logout", "POST", self.logout),
            ("/set-password", "GET", self.password_form),
            ("/set-password", "POST", self.set_password),
            ("/language", "POST", self.language),
        ):
            self.router.add_api_route(path, route, methods=[method], response_model=None)

    async def home(self, request: Request) -> Response:
        """Send people to the page of their role."""
        user = await signed_in(self.ctx.sessions, request)
        return _go(policies.home_of(user.role) if user else "/login")

    async def login_form(self, request: Request, next: str = "") -> Response:
        """The sign-in form; who is signed in already goes on."""
        user = await signed_in(self.ctx.sessions, request)
        if user:
            return _go(safe_next(next) or policies.home_of(user.role))
        return self._login_page(200, "", "", safe_next(next))

    async def login(self, request: Request, name: Text = "", password: Text = "", next: Text = "") -> Response:
        """Check name and password; too many failures have to wait."""
        name, onward = name.strip(), safe_next(next)
        address = _address(request)
        keys = ((self.per_account, (name.casefold(), address)), (self.per_address, (address,)))
        wait = max(throttle.wait(key) for throttle, key in keys)
        if wait > 0:
            return self._slow_down(wait, name, onward)
        # Counted before the slow part, so that parallel guesses do not slip through together.
        for throttle, key in keys:
            throttle.failed(key)
        known = await anyio.to_thread.run_sync(account.credentials, self.ctx, name)
        if not await password_matches_soon(known.password_hash, password):
            return self._login_page(401, t("Name and password do not fit together. Please try again."), name, onward)
        self.per_account.succeeded((name.casefold(), address))
        self.per_address.take_back((address,))
        entry = await anyio.to_thread.run_sync(account.enter, self.ctx, name, _browser(request))
        return self._entered(entry, onward)

    async def to_provider(self, next: str = "") -> Response:
        """Send the browser to the OpenID Connect provider."""
        if self.provider is None:
            return _go("/login")
        try:
            url, pending = await self.provider.begin(safe_next(next) or "")
        except FeedbackError as error:
            return self._login_page(503, said(error), "", safe_next(next))
        response = RedirectResponse(url, 303)
        # Lax: it comes along when the provider sends the browser back here, and on nothing that another site submits.
        self._set_cookie(response, OIDC_COOKIE, pending.as_cookie(), OIDC_SECONDS, CALLBACK)
        return response

    async def from_provider(self, request: Request) -> Response:
        """The provider's answer: sign in, or say on the login page why not."""
        if self.provider is None:
            return _go("/login")
        key = (_address(request),)
        wait = self.per_address.wait(key)
        if wait > 0:
            return self._slow_down(wait, "", None)
        pending = Pending.from_cookie(request.cookies.get(OIDC_COOKIE))
        try:
            vouched = await self.provider.finish(request.query_params, pending)
            entry = await anyio.to_thread.run_sync(account.enter_by_provider, self.ctx, vouched, _browser(request))
        except FeedbackError as error:
            self.per_address.failed(key)
            response = self._login_page(403, said(error), "", safe_next(pending.onward) if pending else None)
        else:
            response = self._entered(entry, safe_next(pending.onward) if pending else None)
        response.delete_cookie(OIDC_COOKIE, path=CALLBACK)
        return response

    async def link_form(self, request: Request, token: str) -> Response:
        """A button: opening the link does not use it, so mail scanners and previews cannot burn it."""
        lead = t("This one-time link signs you in on this browser.")
        return page("link", t("Welcome"), lead=lead, here=request.url.path)

    async def link(self, request: Request, token: str) -> Response:
        """Redeem a one-time link."""
        key = (_address(request),)
        wait = self.per_address.wait(key)
        if wait > 0:
            return self._slow_down(wait, "", None)
        try:
            entry = await anyio.to_thread.run_sync(account.enter_by_link, self.ctx, token, _browser(request))
        except FeedbackError as error:
            self.per_address.failed(key)
            links = [(t("Go to sign in"), "/login")]
            return page("notice", t("This link does not work"), status=410, lead=said(error), links=links)
        return self._entered(entry, "/set-password" if entry.choose_password else None)

    async def logout_form(self, request: Request) -> Response:
        """Ask, for those who come by a link: only a POST signs out."""
        if await signed_in(self.ctx.sessions, request) is None:
            return _go("/login")
        return page("notice", t("Sign out?"), links=[(t("Stay signed in"), "/")], sign_out=True)

    async def logout(self, request: Request) -> Response:
        """End the session; drafts kept in this browser go too."""
        token = request.cookies.get(COOKIE)
        if token:
            await anyio.to_thread.run_sync(account.leave, self.ctx, token)
        response = _go("/login")
        response.delete_cookie(COOKIE, path="/")
        response.headers["clear-site-data"] = '"storage"'
        return response

    async def password_form(self, request: Request) -> Response:
        """Choose a password, or change it."""
        user = await signed_in(self.ctx.sessions, request)
        if user is None:
            return _go("/login?next=/set-password")
        present = await anyio.to_thread.run_sync(account.own_password_hash, self.ctx, user.name)
        return self._password_page(user.name, present)

    async def set_password(
        self, request: Request, current: Text = "", password: Text = "", again: Text = ""
    ) -> Response:
        """Store the new password; every other browser of this person is signed out."""
        user = await signed_in(self.ctx.sessions, request)
        if user is None:
            return _go("/login?next=/set-password")
        key = (user.name.casefold(), "set-password")
        wait = self.per_account.wait(key)
        present = await anyio.to_thread.run_sync(account.own_password_hash, self.ctx, user.name)
        if wait > 0:
            return self._password_page(user.name, present, _patience(wait), 429)
        if password != again:
            return self._password_page(user.name, present, t("The two passwords differ."), 422)
        if present is not None:
            self.per_account.failed(key)
            if not await password_matches_soon(present, current):
                return self._password_page(user.name, present, t("The current password is not right."), 401)
            self.per_account.succeeded(key)
        try:
            hashed = await hash_password_soon(password)
        except FeedbackError as error:
            return self._password_page(user.name, present, said(error), 422)
        entry = await anyio.to_thread.run_sync(
            account.change_password, self.ctx, user.name, present, hashed, _browser(request)
        )
        return self._entered(entry, None)

    async def language(self, request: Request, language: Text = "", next: Text = "") -> Response:
        """Read the pages in another language, with or without an account."""
        user = await signed_in(self.ctx.sessions, request)
        response = _go(safe_next(next) or "/")
        if language in LANGUAGES:
            if user is not None:
                await anyio.to_thread.run_sync(account.choose_language, self.ctx, user.name, language)
            self._set_cookie(response, LANGUAGE_COOKIE, language, COOKIE_SECONDS, "/")
        return response

    def _password_page(self, name: str, present: str | None, problem: str = "", status: int = 200) -> Response:
        return page(
            "password",
            t("Choose a password") if present is None else t("Change password"),
            status=status,
            # Isolated: a name may be written from right to left.
            lead=t("For the account “{name}”.", name=f"\u2068{name}\u2069"),
            problem=problem,
            name=name,
            ask_current=present is not None,
            minimum=MIN_PASSWORD,
            can_skip=True,
            here="/set-password",
        )

    def _slow_down(self, wait: float, name: str, onward: str | None) -> Response:
        response = self._login_page(429, _patience(wait), name, onward)
        response.headers["retry-after"] = str(math.ceil(wait))
        return response

    def _entered(self, entry: account.Entry, onward: str | None) -> Response:
        response = _go(onward or policies.home_of(entry.role))
        self._set_cookie(response, COOKIE, entry.token, int(self.ctx.settings.session_days * 86400), "/")
        return response

    def _login_page(self, status: int, problem: str, name: str, onward: str | None) -> Response:
        label = self.provider.label if self.provider else ""
        here = f"/login?next={quote(onward, safe='')}" if onward else "/login"
        return page(
            "login", t("Sign in"), status=status, problem=problem, name=name, next=onward, provider=label, here=here
        )

    def _set_cookie(self, response: Response, name: str, value: str, seconds: int, path: str) -> None:
        secure = self.ctx.settings.url.startswith("https://")
        response.set_cookie(name, value, max_age=seconds, httponly=True, samesite="lax", secure=secure, path=path)


def _go(path: str) -> Response:
    # 303: the browser follows with a GET, also after a POST.
    return RedirectResponse(path, 303)


def _browser(request: Request) -> Browser:
    return Browser(request.headers.get("user-agent", ""), request.client.host if request.client else "")


def _address(request: Request) -> str:
    return network_of(request.client.host) if request.client else ""


def _patience(wait: float) -> str:
    minutes = max(1, math.ceil(wait / 60))
    return plural(
        minutes,
        "Too many attempts. Please wait {n} minute and try again.",
        "Too many attempts. Please wait {n} minutes and try again.",
    )
