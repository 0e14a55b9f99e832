"""An OpenID Connect provider on loopback that says whatever a test wants, for tests of what must not be believed."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import orjson
from joserfc import jwt
from joserfc.jwk import RSAKey

KEY, STRANGERS_KEY = (RSAKey.generate_key(2048, {"kid": "k"}) for _ in range(2))


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class Liar:
    """A provider on loopback that answers the token request with whatever a test wants."""

    issuer: str = ""
    claims: dict[str, Any] = field(default_factory=dict)
    key: Any = field(default_factory=lambda: KEY)
    header: dict[str, Any] = field(default_factory=lambda: {"alg": "RS256", "kid": "k"})
    algorithms: list[str] = field(default_factory=lambda: ["RS256", "HS256", "none"])
    calls_itself: str = ""
    raw: bytes | None = None

    def metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.calls_itself or self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "id_token_signing_alg_values_supported": self.algorithms,
        }

    def token(self) -> bytes:
        if self.raw is not None:
            return self.raw
        if self.header["alg"] == "RS256":
            signed = jwt.encode(self.header, self.claims, self.key, algorithms=["RS256"])
        else:  # by hand: the library makes no such thing
            said = ".".join(_base64(orjson.dumps(part)) for part in (self.header, self.claims))
            public = KEY.as_pem(private=False)
            mark = hmac.digest(public, said.encode(), "sha256") if self.header["alg"] == "HS256" else b""
            signed = f"{said}.{_base64(mark)}"
        return orjson.dumps({"access_token": "a", "token_type": "Bearer", "id_token": signed})


@contextmanager
def lying() -> Iterator[Liar]:
    """Serve a liar on a free port."""
    liar = Liar()

    class Handler(BaseHTTPRequestHandler):
        def _say(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:  # the handler's own naming
            keys = {"keys": [KEY.as_dict(private=False)]}
            self._say(orjson.dumps(keys if self.path == "/jwks" else liar.metadata()))

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self._say(liar.token())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    liar.issuer = f"http://127.0.0.1:{server.server_port}"
    try:
        yield liar
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
