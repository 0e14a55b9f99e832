"""Values from the browser, which can be anything: turned into what storage takes, or refused in one line."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any, TypeVar

from storage.errors import Invalid

E = TypeVar("E", bound=StrEnum)
MAX_TEXT = 100_000


def to_enum(kind: type[E], value: Any, what: str) -> E:
    """`value` as a member of `kind`; raises `Invalid` that lists the choices."""
    try:
        return kind(value)
    except ValueError as error:
        raise Invalid(f"unknown {what}; choose from: {', '.join(kind)}") from error


def whole(value: Any, what: str) -> int:
    """`value` as a whole number; raises `Invalid`."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise Invalid(f"{what}: give a whole number")
    try:
        return int(value)
    except ValueError as error:
        raise Invalid(f"{what}: give a whole number (got {str(value)[:40]!r})") from error


def number(value: Any, what: str) -> float | None:
    """`value` as a number; None when it is empty. Raises `Invalid`."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        if not isinstance(value, bool) and isinstance(value, int | float | str):
            return float(value)
    except ValueError:
        pass
    raise Invalid(f"{what}: give a number, or nothing (got {str(value)[:40]!r})")


def text(value: Any, what: str, longest: int = MAX_TEXT) -> str:
    """`value` as text; None counts as empty. Raises `Invalid` when it is no text or too long."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Invalid(f"{what}: give text")
    if len(value) > longest:
        raise Invalid(f"{what}: at most {longest} characters (got {len(value)})")
    return value


def parse_pairs(value: Any) -> dict[str, Any]:
    """Lines of name=value as settings: JSON where it reads as such, else text. Raises `Invalid` with the line."""
    pairs: dict[str, Any] = {}
    for line in text(value, "more settings").splitlines():
        line = line.strip()
        if not line:
            continue
        key, equals, given = line.partition("=")
        key, given = key.strip(), given.strip()
        if not equals or not key or not given:
            raise Invalid(f"more settings: write name=value on each line (got {line[:60]!r})")
        if key in pairs:
            raise Invalid(f"more settings: '{key}' is there twice")
        try:
            pairs[key] = json.loads(given)
        except ValueError:
            pairs[key] = given
    return pairs
