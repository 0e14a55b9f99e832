"""Routes of /account, "Your account": language, sessions and API tokens; plain forms, no JavaScript."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any
from urllib.parse import quote

import anyio.to_thread
from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from feedback_app.handlers import account
from feedback_app.handlers.account import AccountView
from feedback_app.handlers.context import Context
from feedback_app.i18n import LANGUAGES, day, said, t
from feedback_app.i18n.edge import COOKIE_SECONDS, LANGUAGE_COOKIE
from feedback_app.pages.plain import page
from feedback_app.pages.render import ago
from feedback_app.security import COOKIE, SignedIn, signed_in
from storage.enums import TokenScope
from storage.errors import FeedbackError
from storage.models import ApiToken, utc_now
from storage.tokens import token_state

PATHS = ("/account", "/account/language", "/account/sessions/end", "/account/sessions/end-all", "/account/tokens",
         "/account/tokens/revoke")  # fmt: skip
_BROWSERS = ("Edg", "OPR", "Firefox", "SamsungBrowser", "CriOS", "Chrome", "Safari")
_BROWSER_NAMES = {"Edg": "Edge", "OPR": "Opera", "CriOS": "Chrome", "SamsungBrowser": "Samsung Internet"}
_SYSTEMS = {
    "Android": "Android",
    "iPhone": "iPhone",
    "iPad": "iPad",
    "Windows": "Windows",
    "Mac OS X": "macOS",
    "CrOS": "ChromeOS",
    "Linux": "Linux",
}

Text = Annotated[str, Form(max_length=2000)]
Number = Annotated[int, Form(ge=0, le=2**31 - 1)]


class AccountRoutes:
    """The routes with the context they share."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.router = APIRouter(include_in_schema=False)
        for path, method, route in (
            ("/account", "GET", self.show),
            ("/account/language", "POST", self.language),
            ("/account/sessions/end", "POST", self.end_session),
            ("/account/sessions/end-all", "POST", self.end_all_sessions),
            ("/account/tokens", "POST", self.make_token),
            ("/account/tokens/revoke", "POST", self.revoke_token),
        ):
            self.router.add_api_route(path, route, methods=[method], response_model=None)

    async def show(self, request: Request) -> Response:
        """The account as it stands."""
        user = await signed_in(self.ctx.sessions, request)
        return await self._page(user) if user else _to_login()

    async def language(self, request: Request, language: Text = "") -> Response:
        """Choose the language of the pages."""
        response = await self._do(request, partial(account.choose_language, language=language))
        if language in LANGUAGES:
            secure = self.ctx.settings.url.startswith("https://")
            response.set_cookie(LANGUAGE_COOKIE, language, COOKIE_SECONDS, samesite="lax", httponly=True, secure=secure)
        else:
            response.delete_cookie(LANGUAGE_COOKIE)
        return response

    async def end_session(self, request: Request, session: Number) -> Response:
        """Sign one browser out."""
        return await self._do(request, partial(account.end_session, session_id=session))

    async def end_all_sessions(self, request: Request) -> Response:
        """Sign out everywhere, here too; drafts kept in this browser go as well."""
        user = await signed_in(self.ctx.sessions, request)
        if user is not None:
            await anyio.to_thread.run_sync(account.end_all_sessions, self.ctx, user.name)
        response = RedirectResponse("/login", 303)
        response.delete_cookie(COOKIE, path="/")
        response.headers["clear-site-data"] = '"storage"'
        return response

    async def make_token(
        self,
        request: Request,
        days: Number,
        name: Text = "",
        scope: Annotated[list[str] | None, Form(max_length=20)] = None,
        project: Text = "",
    ) -> Response:
        """Make a token and show it, this once: the answer is not a redirect, so nothing keeps it."""
        user = await signed_in(self.ctx.sessions, request)
        if user is None:
            return _to_login()
        make = partial(account.make_token, self.ctx, user.name, name, scope or [], days, project)
        try:
            made = await anyio.to_thread.run_sync(make)
        except FeedbackError as error:
            asked = {"name": name, "scope": scope or [], "project": project}
            return await self._page(user, problem=said(error), asked=asked, status=422)
        return await self._page(user, made=made)

    async def revoke_token(self, request: Request, token: Number) -> Response:
        """End a token."""
        return await self._do(request, partial(account.revoke_token, token_id=token))

    async def _do(self, request: Request, change: Callable[[Context, str], None]) -> Response:
        user = await signed_in(self.ctx.sessions, request)
        if user is None:
            return _to_login()
        try:
            await anyio.to_thread.run_sync(change, self.ctx, user.name)
        except FeedbackError as error:
            return await self._page(user, problem=said(error), status=422)
        return RedirectResponse("/account", 303)

    async def _page(self, user: SignedIn, *, made: str = "", status: int = 200, **more: Any) -> Response:
        view = await anyio.to_thread.run_sync(account.see_account, self.ctx, user.name, made)
        return page(
            "account",
            t("Your account"),
            status=status,
            wide=True,
            lead=f"\u2068{view.name}\u2069 · {t(view.role.value)}",
            view=view,
            languages={"": t("As the browser asks"), **LANGUAGES},
            lifetimes=account.TOKEN_DAYS,
            scopes=_scopes(),
            sessions=_sessions(view, user.session_id),
            tokens=[_token(row, view) for row in view.tokens],
            **more,
        )


def _scopes() -> dict[str, str]:
    return {
        TokenScope.READ.value: t("read items, annotations and models"),
        TokenScope.WRITE.value: t("send prompts, completions and feedback"),
        TokenScope.EXPORT.value: t("download what was collected"),
    }


def device_of(user_agent: str) -> str:
    """`Firefox on Linux` from what a browser says of itself; its first word where that is no browser we know."""
    browser = next((name for name in _BROWSERS if f"{name}/" in user_agent), "")
    system = next((name for sign, name in _SYSTEMS.items() if sign in user_agent), "")
    if not browser:
        return re.split(r"[\s/;(]", user_agent.strip(), maxsplit=1)[0][:40] or t("Unknown device")
    browser = _BROWSER_NAMES.get(browser, browser)
    return t("{browser} on {system}", browser=browser, system=system) if system else browser


def _sessions(view: AccountView, here: int) -> list[dict[str, Any]]:
    now = utc_now()
    return [
        {
            "id": row.id,
            "device": device_of(row.user_agent),
            "address": row.address,
            "seen": ago(row.last_seen_at or row.created_at, now),
            "since": day(row.created_at),
            "here": row.id == here,
        }
        for row in view.sessions
    ]


def _token(row: ApiToken, view: AccountView) -> dict[str, Any]:
    state = token_state(row)
    only = _project(row.project_id, view) if row.project_id else t("all projects")
    return {
        "id": row.id,
        "name": row.name,
        "state": t(state),
        "live": state == "in force",
        "kind": "" if state == "in force" else "over",
        "scopes": ", ".join(row.scopes),
        "project": only,
        "until": t("until {day}", day=day(row.expires_at)) if row.expires_at else t("no end"),
        "used": t("used {when}", when=ago(row.last_used_at, utc_now())) if row.last_used_at else t("never used"),
    }


def _project(project_id: int, view: AccountView) -> str:
    return view.projects.get(project_id) or t("a project you are no member of")


def _to_login() -> Response:
    return RedirectResponse(f"/login?next={quote('/account', safe='')}", 303)
