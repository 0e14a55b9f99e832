"""`feedback-app monitor`: what people say of the model versions in service, and alerts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from feedback_app.commands.shared import JsonFlag, OptionalProject, emit, open_store, pick_project, table

_NAMES = ("win_rate", "rating", "resolution")


def monitor(project: OptionalProject = None, as_json: JsonFlag = False) -> None:
    """Win rate, rating and resolution by version, the champion beside what it replaced, and alerts.

    A worker looks every minute, and raises an alert (a webhook tells of it) when a figure has fallen.
    """
    from storage.engine import read_only
    from storage.monitoring import as_shown

    with open_store() as store, read_only(store.sessions) as session:
        found = pick_project(session, project)
        payload = {"project": found.name, **as_shown(session, found)}
    rows = [
        (f"{row['version']}{' *' if row['champion'] else ''}", *(_figure(row[name]) for name in _NAMES))
        for row in payload["versions"]
    ]
    lines = [f"{'ended' if one['ended_at'] else 'ALERT'}: {one['text']}" for one in payload["alerts"]]
    emit(payload, as_json, table(("version", *_NAMES), rows, found.name), *_since(payload["champion"]), *lines)


def _figure(told: Mapping[str, Any]) -> str:
    if told["value"] is None:
        return "-"
    return f"{told['value']:.3g} ({told['low']:.3g} to {told['high']:.3g}, {told['n']})"


def _since(told: Mapping[str, Any] | None) -> list[str]:
    if told is None:
        return ["no version took over from another one by a promotion"]
    lines = [f"{told['version']} since it took over from {told['instead_of']}:"]
    for one in told["figures"]:
        before = one["before"]["value"]
        state = "fallen" if one["fallen"] else "too few judgements to say" if not one["enough"] else "not below"
        hold = "-" if before is None else f"{before:.3g}"
        lines.append(f"  {one['name']} {_figure(one['live'])}, to hold: {hold}: {state}")
    return lines
