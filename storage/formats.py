"""Format checks: what every completion of a project must look like, as `NAME: KIND VALUE`, one a line.

    greeting: contains Dear
    no links: lacks http
    signed: matches Regards,\\s+\\w+$
    short: at_most 600
    not empty: at_least 20

`contains` and `lacks` take text as it stands, `matches` a regular expression that is looked for anywhere (`^` and `$`
are the beginning and the end of the completion), `at_most` and `at_least` a number of characters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

KINDS = ("contains", "lacks", "matches", "at_most", "at_least")
MOST, LONGEST = 20, 300  # checks, and characters of one
_LINE = re.compile(r"\s*(?P<name>[^:]{1,60}?)\s*:\s*(?P<kind>\w+)\s+(?P<value>\S.*?)\s*", re.DOTALL)


class FormatCheck(NamedTuple):
    """One check."""

    name: str
    kind: str
    value: str

    def holds(self, text: str) -> bool:
        """Whether a completion is as it must be."""
        if self.kind == "matches":
            return re.search(self.value, text) is not None
        if self.kind == "contains":
            return self.value in text
        if self.kind == "lacks":
            return self.value not in text
        return len(text) <= int(self.value) if self.kind == "at_most" else len(text) >= int(self.value)


def parse_format(line: str) -> FormatCheck:
    """The check that a line says; raises `ValueError` with the mend."""
    found = _LINE.fullmatch(line)
    if found is None or len(line) > LONGEST:
        raise ValueError(f"write NAME: KIND VALUE, as in 'short: at_most 600', not '{line[:60]}'")
    check = FormatCheck(found["name"], found["kind"], found["value"])
    if check.kind not in KINDS:
        raise ValueError(f"'{check.name}': choose from: {', '.join(KINDS)}, not '{check.kind}'")
    if check.kind.startswith("at_") and not check.value.isdecimal():
        raise ValueError(f"'{check.name}': {check.kind} takes a number of characters, not '{check.value[:40]}'")
    if check.kind == "matches":
        try:
            re.compile(check.value)
        except re.error as error:
            raise ValueError(f"'{check.name}': {error} in the expression '{check.value[:40]}'") from error
    return check


def check_formats(lines: Sequence[str]) -> tuple[str, ...]:
    """The lines without empty ones; raises `ValueError` for one that says no check, and for two of one name."""
    kept = tuple(line.strip() for line in lines if line.strip())
    if len(kept) > MOST:
        raise ValueError(f"at most {MOST} checks")
    names = [parse_format(line).name for line in kept]
    if len(set(names)) < len(names):
        raise ValueError("two checks have the same name; give each its own")
    return kept
