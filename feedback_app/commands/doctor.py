"""`feedback-app doctor`: what is wrong with this installation, and the mend."""

from __future__ import annotations

import typer

from feedback_app.commands.shared import JsonFlag, emit, say, table


def doctor(as_json: JsonFlag = False) -> None:
    """Check this installation, say what is wrong and how to mend it; exit 1 when something is."""
    from feedback_app.doctor import examine

    checks = list(examine(say))
    wrong = [check for check in checks if not check.ok]
    payload = {"ok": not wrong, "checks": [check._asdict() for check in checks]}
    if wrong:
        payload["error"] = "; ".join(f"{check.name}: {check.found}" for check in wrong)
    rows = [("ok" if check.ok else "WRONG", check.name, check.found) for check in checks]
    lines = [f"{check.name}: {check.mend}" for check in wrong]
    emit(payload, as_json, table(("", "check", "found"), rows), *lines, *(["nothing is wrong"] if not wrong else []))
    if wrong:
        raise typer.Exit(1)
