"""CSV cells that a spreadsheet would run as a formula: guarded when written, as they were when read back."""

from __future__ import annotations

import re

# A cell that begins with an apostrophe of its own gets another, so that reading always takes off exactly one.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def guarded(cell: str) -> str:
    """The cell with an apostrophe in front where it would be a formula."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def unguarded(cell: str) -> str:
    """The cell that `guarded` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
