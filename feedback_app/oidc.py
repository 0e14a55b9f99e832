"""Signing in through an OpenID Connect provider: authorization code with PKCE, state and nonce, by Authlib.

What a sign-in must remember between the two redirects (`Pending`) travels in a cookie of the browser that began it: so
an answer that was meant for another browser, or that was forged, finds nothing it fits.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx2

from feedback_app.handlers.account import Vouched
from feedback_app.settings import Settings
from storage.enums import Role
from storage.errors import FeedbackError

CALLBACK = "/login/oidc/callback"
TIMEOUT = 10.0  # seconds for each of the provider's answers
# Signatures that only the provider can make. With "none" or a shared secret anybody, or any client, could.
ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"})
_LEEWAY = 60  # seconds by which two clocks may differ
_RANK = (Role.ADMIN, Role.OPERATOR, Role.ANNOTATOR)

_log = logging.getLogger(__name__)


class SignInFailed(FeedbackError):
    """The provider cannot be reached, refused, or said something that does not hold; one line for the login page."""


class Pending(NamedTuple):
    """A sign-in on its way: what the answer is checked against, and where the person wanted to go."""

    state: str
    nonce: str
    verifier: str
    onward: str = ""

    def as_cookie(self) -> str:
        """One line that a cookie can hold."""
        return urlencode(self._asdict())

    @classmethod
    def from_cookie(cls, cookie: str | None) -> Pending | None:
        """The sign-in in a cookie; None when there is none or it is damaged."""
        given = dict(parse_qsl(cookie or "")[:10])
        try:
            return cls(given["state"], given["nonce"], given["verifier"], given.get("onward", ""))
        except KeyError:
            return None


class Provider:
    """The provider named in the settings. Its addresses and keys are asked for at the first sign-in, then kept."""

    def __init__(self, settings: Settings) -> None:
        from authlib.integrations.starlette_client import OAuth  # a third of a second: only where it is used

        self.issuer = settings.oidc_issuer.rstrip("/")
        self.redirect_uri = settings.url + CALLBACK
        self.claim, self.roles = settings.oidc_groups_claim, settings.oidc_roles
        self.label = urlsplit(self.issuer).netloc
        self._app: Any = OAuth().register(
            "oidc",
            client_id=settings.oidc_client_id,
            client_secret=settings.oidc_client_secret or None,
            server_metadata_url=f"{self.issuer}/.well-known/openid-configuration",
            client_kwargs={
                "code_challenge_method": "S256",
                "timeout": TIMEOUT,
                # A public client (no secret) proves itself by PKCE alone.
                **({} if settings.oidc_client_secret else {"token_endpoint_auth_method": "none"}),
            },
        )

    async def begin(self, onward: str = "") -> tuple[str, Pending]:
        """Where to send the browser, and what to remember; raises `SignInFailed` when the provider is not there."""
        metadata = await self._metadata()
        offered = metadata.get("scopes_supported") or []
        # Not every provider knows the scope "groups", and some refuse what they do not know.
        scope = " ".join(["openid", "profile", "email", *(["groups"] if "groups" in offered else [])])
        state, nonce = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        made = await self._app.create_authorization_url(self.redirect_uri, scope=scope, state=state, nonce=nonce)
        return made["url"], Pending(state, nonce, made["code_verifier"], onward)

    async def finish(self, answer: Mapping[str, str], pending: Pending | None) -> Vouched:
        """Whom the provider vouches for in its `answer` (the query of the callback).

        Raises `SignInFailed` when the answer does not belong to `pending`, is refused, or is not rightly signed.
        """
        if pending is None or not secrets.compare_digest(answer.get("state", "").encode(), pending.state.encode()):
            raise SignInFailed("this sign-in was begun in another browser or too long ago; try again")
        if "error" in answer or not answer.get("code"):
            _log.warning("sign-in refused by %s: %s", self.label, ascii(answer.get("error", "no code"))[:200])
            raise SignInFailed(f"the provider {self.label} did not sign you in; try again, or ask an operator")
        claims = await self._claims(answer["code"], pending)
        groups = claims.get(self.claim)
        listed = groups if isinstance(groups, list) else [groups]
        named = {one for one in listed if isinstance(one, str)}
        meant = {role for group, role in self.roles.items() if group in named or group == "*"}
        return Vouched(
            issuer=self.issuer,
            subject=str(claims["sub"])[:255],
            name=_name(claims),
            role=next((role for role in _RANK if role in meant), None),
        )

    async def _metadata(self) -> dict[str, Any]:
        try:
            metadata: dict[str, Any] = await self._app.load_server_metadata()
        except (httpx2.HTTPError, httpx2.InvalidURL, json.JSONDecodeError, TypeError) as error:
            raise self._away(error) from error
        if metadata.get("issuer", "").rstrip("/") != self.issuer:
            raise self._away(ValueError(f"it calls itself {ascii(metadata.get('issuer'))[:200]}"))
        known = metadata.get("id_token_signing_alg_values_supported") or ["RS256"]
        metadata["id_token_signing_alg_values_supported"] = [name for name in known if name in ALGORITHMS]
        return metadata

    async def _claims(self, code: str, pending: Pending) -> dict[str, Any]:
        from authlib.common.errors import AuthlibBaseError
        from joserfc.errors import JoseError

        metadata = await self._metadata()
        options = {
            "iss": {"essential": True, "value": metadata["issuer"]},
            "aud": {"essential": True, "value": self._app.client_id},
        }
        try:
            token = await self._app.fetch_access_token(
                self.redirect_uri, code=code, code_verifier=pending.verifier, grant_type="authorization_code"
            )
            claims = await self._app.parse_id_token(token, pending.nonce, claims_options=options, leeway=_LEEWAY)
            if claims is not None and self.claim not in claims and metadata.get("userinfo_endpoint"):
                told = await self._app.userinfo(token=token)
                if told.get("sub") == claims["sub"]:
                    claims = {**told, **claims}
        except (AuthlibBaseError, JoseError, ValueError, KeyError) as error:
            # What is wrong is for the log: the person can only try again.
            _log.warning("sign-in by %s failed: %s: %s", self.label, type(error).__name__, ascii(str(error))[:300])
            raise SignInFailed(f"the answer of {self.label} does not hold; try again, or ask an operator") from error
        except httpx2.HTTPError as error:
            raise self._away(error) from error
        if not claims:
            raise SignInFailed(f"the provider {self.label} did not say who you are; ask an operator")
        return dict(claims)

    def _away(self, error: Exception) -> SignInFailed:
        _log.warning("sign-in service %s: %s: %s", self.issuer, type(error).__name__, ascii(str(error))[:300])
        return SignInFailed(
            f"the provider {self.label} cannot be reached just now; sign in with a password, or try again later"
        )


def _name(claims: Mapping[str, Any]) -> str:
    for claim in ("preferred_username", "name", "email"):
        if isinstance(claims.get(claim), str) and claims[claim].strip():
            # Only what stands before the @: addresses are nobody's business on the pages.
            return str(claims[claim]).strip().partition("@")[0] or "user"
    return "user"
