"""`feedback-app models compare`: two to four versions side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from feedback_app.commands.shared import JsonFlag, OptionalProject, emit, open_store, pick_project, shown, table

if TYPE_CHECKING:
    from storage.chances import Chances
    from storage.comparing import Changed, Comparison, Measured, Written

Versions = Annotated[
    list[str], typer.Argument(metavar="VERSION…", help="Two to four, for instance policy-v3 policy-v4.")
]
Prompts = Annotated[int, typer.Option("--prompts", min=0, max=1000, help="So many prompts that they all wrote for.")]


def compare(
    versions: Versions, project: OptionalProject = None, prompts: Prompts = 3, as_json: JsonFlag = False
) -> None:
    """Two to four versions side by side: figures, curves, settings, training data, and what they write."""
    from storage.comparing import chances_of, pick_versions, written
    from storage.comparing import compare as put_side_by_side
    from storage.engine import read_only

    with open_store() as store, read_only(store.sessions) as session:
        found = pick_project(session, project)
        rows = pick_versions(session, found, versions)
        result = put_side_by_side(session, rows)
        texts = written(session, rows, limit=prompts).rows if prompts else []
        known = chances_of(session, found, texts)
        names = [row.name for row in rows]
        payload = {
            "project": found.name,
            "versions": names,
            "status": [row.status for row in rows],
            "gate": [side.gate.verdict if side.gate else None for side in result.sides],
            "evaluated": {one.name: [_figure(value) for value in one.values] for one in result.evaluated},
            "seeds": [one.as_dict() for one in result.seeds],
            "trained": {one.name: [value and value.value for value in one.values] for one in result.trained},
            "settings": {one.name: one.values for one in result.settings},
            "data": [_data(one) for one in result.data],
            "curves": [side.curves for side in result.sides],
            "completions": [
                {"prompt": one.messages, "texts": one.texts, "better_than_first": _better(one, known)} for one in texts
            ],
            "no_probabilities": known.why if texts and not known.of else None,
        }
    emit(payload, as_json, *_lines(names, result, texts))


def _better(one: Written, known: Chances) -> list[dict[str, Any] | None]:
    found = [known.of.get((own or 0, one.ids[0] or 0)) for own in one.ids]
    return [chance and chance._asdict() for chance in found]


def _figure(value: Any) -> dict[str, Any] | None:
    return None if value is None else value._asdict()


def _data(one: Changed) -> dict[str, Any]:
    told: dict[str, Any] = {"version": one.version, "why": one.why or None}
    if one.difference is not None:
        told |= one.difference.total._asdict()
        told["settings"] = {name: list(values) for name, values in one.difference.settings.items()}
    return told


def _lines(names: list[str], result: Comparison, texts: list[Written]) -> list[Any]:
    states = [
        ("status", *(side.version.status for side in result.sides)),
        ("gate", *(side.gate.verdict if side.gate else None for side in result.sides)),
    ]
    measured = [_row(one) for one in (*result.evaluated, *result.trained)]
    settings = [(one.name, *map(shown, one.values)) for one in result.settings]
    lines: list[Any] = [table(("", *names), [*states, *measured, *settings]), f"{result.alike} settings are the same"]
    for group in result.seeds:
        spreads = [
            (name, f"{one.mean:.4g}", f"{one.deviation:.4g}", f"{one.low:.4g} to {one.high:.4g}", one.n)
            for name, one in group.figures.items()
        ]
        lines.append(f"over seeds {', '.join(map(str, group.seeds))}: {', '.join(group.versions)}")
        lines += [table(("", "mean", "standard deviation", "range", "n"), spreads)] if spreads else []
    for one in result.data:
        if one.difference is None:
            lines.append(f"data of {one.version} beside {names[0]}: {one.why}")
        else:
            total = one.difference.total
            counts = f"{total.added} rows added, {total.removed} removed, {total.changed} changed"
            lines.append(f"data of {one.version} beside {names[0]}: {counts}")
    for row in texts:
        lines.append("\n" + " ".join(row.messages[-1]["content"].split()))
        lines += [f"  {name}: {text}" for name, text in zip(names, row.texts, strict=True) if text is not None]
    return lines


def _row(one: Measured) -> tuple[Any, ...]:
    cells: list[str | None] = []
    for value in one.values:
        if value is None or value.value is None:
            cells.append(None)
        elif value.low is None or value.high is None:
            cells.append(shown(value.value))
        else:
            cells.append(f"{value.value:.4g} ({value.low:.4g} to {value.high:.4g})")
    return (one.name, *cells)
