"""Small pieces of HTML for the operate page; everything that comes from people or models is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any, NamedTuple

from feedback_app.i18n import here, listed, moment, named, reader, t


class Markup(str):
    """HTML made by this module: not escaped again."""

    __slots__ = ()


class Row(NamedTuple):
    """A row of a table; `attributes` are set on its <tr>."""

    cells: Sequence[Any]
    attributes: Mapping[str, str] = {}


def h(value: Any) -> str:
    """`value` as HTML text: escaped, unless this module made it."""
    return value if isinstance(value, Markup) else escape(str(value))


def table(columns: Sequence[str], rows: Iterable[Row], empty: str) -> Markup:
    """A table; `empty` is the line shown when there are no rows, and says what to do next."""
    body = []
    for row in rows:
        attributes = "".join(f' {key}="{escape(value)}"' for key, value in row.attributes.items())
        cells = "".join(
            f'<td data-label="{escape(label)}">{h(cell)}</td>' for label, cell in zip(columns, row.cells, strict=True)
        )
        body.append(f"<tr{attributes}>{cells}</tr>")
    if not body:
        return Markup(f'<p class="op-empty">{escape(empty)}</p>')
    # A column of buttons has no name, and no header to be read out.
    heads = "".join(f"<th>{escape(label)}</th>" if label else "<td></td>" for label in columns)
    return Markup(
        f'<div class="op-scroll"><table class="op-table"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def badge(status: str) -> Markup:
    """A status as a coloured word, in the reader's language."""
    return Markup(f'<span class="op-badge" data-status="{escape(status)}">{escape(t(status))}</span>')


def facts(pairs: Iterable[tuple[str, Any]]) -> Markup:
    """Name and value, one under the other; values of None are left out."""
    inner = "".join(f"<dt>{h(key)}</dt><dd>{h(value)}</dd>" for key, value in pairs if value is not None)
    return Markup(f'<dl class="op-facts">{inner}</dl>')


def figures(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Nested figures that code has named, for `facts`, in the reader's words."""
    return [(named(key), number(value)) for key, value in flat(values)]


def stats(pairs: Iterable[tuple[str, Any]]) -> Markup:
    """Figures side by side."""
    inner = "".join(f"<div><b>{h(value)}</b><span>{escape(key)}</span></div>" for key, value in pairs)
    return Markup(f'<div class="op-stats">{inner}</div>')


def note(message: Any, kind: str = "info") -> Markup:
    """A line in a box: info, good, warn or bad."""
    return Markup(f'<p class="op-note" data-kind="{escape(kind)}">{h(message)}</p>')


def fold(title: str, body: Markup, is_open: bool = False) -> Markup:
    """A heading that shows and hides `body`."""
    # A checkbox keeps its state when the page refreshes itself; the `open` of <details> would be reset each time.
    mark = " checked" if is_open else ""
    return Markup(
        f'<div class="op-fold"><label><input type="checkbox"{mark}>{escape(title)}</label>'
        f'<div class="op-folded">{body}</div></div>'
    )


def when(at: datetime | None, now: datetime) -> Markup:
    """A moment relative to now, with the time in the reader's zone and in UTC on hover."""
    if at is None:
        return Markup("–")
    exact = f"{at:%Y-%m-%d %H:%M:%S} UTC"
    if reader().zone != "UTC":
        exact = f"{here(at):%Y-%m-%d %H:%M:%S} ({exact})"
    return Markup(f'<time datetime="{at.isoformat()}" title="{exact}">{escape(ago(at, now))}</time>')


def ago(at: datetime, now: datetime) -> str:
    """`3 min ago`, `in 2 h`, or the date when it is further away than a week."""
    seconds = (now - at).total_seconds()
    if abs(seconds) > 7 * 86400:
        return moment(at)
    if abs(seconds) < 5:
        return t("now")
    span = duration(abs(seconds))
    return t("{span} ago", span=span) if seconds > 0 else t("in {span}", span=span)


def duration(seconds: float) -> str:
    """`45 s`, `3 min`, `2 h 10 min`, `4 d`."""
    whole = round(seconds)
    if whole < 60:
        return t("{n} s", n=whole)
    minutes = round(whole / 60)
    if minutes < 60:
        return t("{n} min", n=minutes)
    hours, rest = divmod(minutes, 60)
    if hours < 48:
        return t("{n} h {rest} min", n=hours, rest=rest) if rest else t("{n} h", n=hours)
    return t("{n} d", n=round(hours / 24))


def number(value: Any) -> str:
    """A figure short enough to read: 1,234, 0.8123, 1.0e-05."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return t("yes") if value else t("no")
    if not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if value != 0 and (abs(value) < 0.001 or abs(value) >= 1e6):
        return f"{value:.1e}"
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested figures as (name, value) with dotted names; lists are given as text."""
    pairs: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            pairs.extend(flat(value, f"{prefix}{key}."))
        elif isinstance(value, list):
            pairs.append((f"{prefix}{key}", listed(map(str, value))))
        else:
            pairs.append((f"{prefix}{key}", value))
    return pairs
