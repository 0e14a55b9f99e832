"""One POST to an address that an operator wrote down: checked, bounded in time and size, redirects not followed."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlsplit

from storage.webhooks import is_public

SECONDS = 10.0  # for everything: looking the name up aside, a receiver that drips its answer is cut off too


class NotDelivered(Exception):
    """Nobody took it: the address leads inside, nobody listens, or there was no answer in time."""


def post(url: str, body: bytes, headers: Mapping[str, str], *, private: bool, seconds: float = SECONDS) -> int:
    """Send `body`; the status of the answer, whose body is not read. Raises `NotDelivered` with one line.

    The name is looked up once and the connection goes to the very address that was checked, so that a name which
    leads elsewhere the next moment gains nothing. Unless `private`, addresses inside our own network are refused.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    secure = parts.scheme == "https"
    connection = http.client.HTTPConnection(host, parts.port or (443 if secure else 80), timeout=seconds)
    sock = _connect(host, connection.port, private, seconds)
    # The clock of a socket starts anew with every byte; this one does not.
    late = threading.Event()
    cut = threading.Timer(seconds, _hang_up, [sock, late])
    cut.daemon = True
    cut.start()
    try:
        connection.sock = _secured(sock, host) if secure else sock
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        shown = f"[{host}]" if ":" in host else host
        named = {"Host": shown + (f":{parts.port}" if parts.port else ""), "Connection": "close"}
        connection.request("POST", target, body, {**named, **headers})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        if late.is_set():
            raise NotDelivered(f"no answer within {seconds:g} s") from error
        raise NotDelivered(_reason(error, seconds)) from error
    finally:
        cut.cancel()
        connection.close()
        sock.close()


def _connect(host: str, port: int, private: bool, seconds: float) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NotDelivered(f"the name {host} is not known") from error
    addresses = [(family, place) for family, _, _, _, place in found if private or is_public(str(place[0]))]
    if not addresses:
        raise NotDelivered(f"{host} leads inside this machine's network; FEEDBACK_WEBHOOK_PRIVATE=1 allows that")
    family, place = addresses[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.settimeout(seconds)
    try:
        sock.connect(place)
    except OSError as error:
        sock.close()
        raise NotDelivered(_reason(error, seconds)) from error
    return sock


def _secured(sock: socket.socket, host: str) -> ssl.SSLSocket:
    return ssl.create_default_context().wrap_socket(sock, server_hostname=host)


def _hang_up(sock: socket.socket, late: threading.Event) -> None:
    late.set()
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _reason(error: Exception, seconds: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {seconds:g} s"
    if isinstance(error, ssl.SSLError):
        return f"the certificate or the encryption is wrong: {error.reason or error}"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (text or type(error).__name__).splitlines()[0].lower()[:200]
