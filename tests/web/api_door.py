"""Helpers of the API's tests: tokens, and a client that sends one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
from starlette.testclient import TestClient

from feedback_app.api import PATH
from storage import accounts, projects, tokens
from storage.enums import Role, TokenScope


def make_token(
    house: Any,
    role: Role = Role.OPERATOR,
    scopes: Any = tuple(TokenScope),
    project: str | None = None,
    lifetime: timedelta | None = None,
) -> str:
    """A new user's token, in plain."""
    name = house.person(role)
    with house.sessions.begin() as session:
        user = accounts.get_user(session, name)
        only = projects.get_project(session, project) if project else None
        return tokens.create_token(session, user, "test", scopes, project=only, lifetime=lifetime).plain


def program(house: Any, token: str | None = None, **made: Any) -> TestClient:
    """A program that calls the API, as a new operator unless told otherwise."""
    plain = token if token is not None else make_token(house, **made)
    return TestClient(
        house.app,
        base_url=f"http://testserver{PATH}",
        headers={"authorization": f"Bearer {plain}"},
        raise_server_exceptions=False,
    )


def far_program(house: Any, address: str, **made: Any) -> httpx.Client:
    """A program that calls the API over a real port, where requests meet each other.

    A `TestClient` has one event loop for several requests only inside `with`, which starts and ends the application
    once more, and with it, for whoever comes after, the queues of its pages.
    """
    headers = {"authorization": f"Bearer {make_token(house, **made)}"}
    return httpx.Client(base_url=f"{address}{PATH}", headers=headers, timeout=60)
