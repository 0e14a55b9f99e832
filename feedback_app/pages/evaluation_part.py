"""What an evaluation found, in the detail of its run: figures with intervals, slices, calibration, notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from feedback_app.i18n import listed, message, named, sentence, t
from feedback_app.pages import render
from feedback_app.pages.render import Markup, Row
from feedback_app.pages.spread import spread_rows
from storage.seeds import OverSeeds

_SIDE, _EDGE = 220.0, 36.0
_LEAST = 0.5  # the winner that is predicted is never less probable


def found(evaluation: Mapping[str, Any], seeds: OverSeeds | None = None) -> Markup:
    """An evaluation as `storage.evaluations.shown` gives it."""
    parts: list[str] = [f'<p class="op-muted">{_about(evaluation)}</p>', _figures(evaluation["figures"])]
    parts += [render.note(sentence(message(note))) for note in evaluation["notes"]]
    if seeds is not None and seeds.figures:
        parts.append(render.fold(t("Over seeds"), _seeds(seeds)))
    if evaluation["reliability"]:
        parts.append(render.fold(t("Calibration"), _calibration(evaluation)))
    if evaluation["slices"]:
        parts.append(render.fold(t("By tag, source, length and script"), _slices(evaluation["slices"])))
    return Markup("".join(parts))


def _about(evaluation: Mapping[str, Any]) -> str:
    version = f"<b>{escape(evaluation['version'])}</b>"
    if evaluation["against"] is None:
        return t("{version} on prompts that never train", version=version)
    rival = f"<b>{escape(evaluation['against'])}</b>"
    told = t("{version} beside {champion} on prompts that never train", version=version, champion=rival)
    judge = evaluation["judged_by"]
    return f"{told} · {t('judged by {version}', version=escape(judge))}" if judge else told


def _figures(figures: Mapping[str, Mapping[str, Any]]) -> Markup:
    columns = [t("figure"), t("value"), t("95 % interval"), t("champion"), t("difference"), t("n")]
    rows = [
        Row(
            [
                named(name),
                render.number(one["value"]),
                _interval(one),
                render.number(one["champion"]) if one["champion"] is not None else "",
                _difference(one["difference"]),
                render.number(one["n"]),
            ]
        )
        for name, one in figures.items()
    ]
    return render.table(columns, rows, "")


def _interval(held: Mapping[str, Any]) -> str:
    if held["low"] is None:
        return ""
    return t("{low} to {high}", low=render.number(held["low"]), high=render.number(held["high"]))


def _difference(apart: Mapping[str, Any] | None) -> str:
    return f"{render.number(apart['value'])} ({_interval(apart)})" if apart and apart["low"] is not None else ""


def _seeds(seeds: OverSeeds) -> Markup:
    told = t(
        "Trained with {n} seeds, all else the same: {versions}. What differs here is luck.",
        n=len(seeds.versions),
        versions=listed(seeds.versions),
    )
    columns = [t("figure"), t("mean"), t("standard deviation"), t("range"), t("n")]
    table = render.table(columns, [Row(list(row)) for row in spread_rows(seeds)], "")
    return Markup(f'<p class="op-muted">{escape(told)}</p>{table}')


def _slices(slices: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Markup:
    rows = [
        Row([_slice(part), named(name), render.number(one["value"]), _interval(one), render.number(one["n"])])
        for part, figures in slices.items()
        for name, one in figures.items()
    ]
    return render.table([t("slice"), t("figure"), t("value"), t("95 % interval"), t("n")], rows, "")


def _slice(part: str) -> Markup:
    """`tag:late`: the kind of slice in the reader's words, and which one it is."""
    kind, _, which = part.partition(":")
    return Markup(f"{escape(named(kind))}: <b>{escape(which)}</b>")


def _calibration(evaluation: Mapping[str, Any]) -> Markup:
    temperature = evaluation["temperature"]
    told = t("How sure the reward model was of a winner, and how often it was right. On the line is well calibrated.")
    legend = t("Filled: after the temperature {temperature}. Hollow: before.", temperature=render.number(temperature))
    drawn = _diagram(evaluation["reliability"], evaluation["reliability_before"])
    return Markup(f'<p class="op-muted">{escape(told)} {escape(legend)}</p>{drawn}')


def _diagram(after: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]]) -> Markup:
    """A reliability diagram: a dot a bin, at its confidence (across, from one half) and its accuracy (upwards)."""

    def x(value: float) -> float:
        return _EDGE + (value - _LEAST) / (1 - _LEAST) * (_SIDE - _EDGE)

    def y(value: float) -> float:
        return (1 - value) * (_SIDE - _EDGE)

    def dots(bins: Sequence[Mapping[str, Any]], style: str) -> str:
        return "".join(
            f'<circle cx="{x(one["confidence"]):.1f}" cy="{y(one["accuracy"]):.1f}" r="5" style="{style}"/>'
            for one in bins
        )

    words = "; ".join(
        t("{sure} sure, {right} right", sure=f"{one['confidence']:.0%}", right=f"{one['accuracy']:.0%}")
        for one in after
    )
    bottom = _SIDE - _EDGE
    text = "fill:var(--fb-muted);font-size:12px"
    labels = [
        f'<text x="{x(at):.0f}" y="{bottom + 18:.0f}" text-anchor="{anchor}" style="{text}">{at:.0%}</text>'
        for at, anchor in ((0.5, "start"), (0.75, "middle"), (1.0, "end"))
    ]
    labels += [f'<text x="0" y="{max(10, y(at)):.0f}" style="{text}">{at:.0%}</text>' for at in (0.0, 0.5, 1.0)]
    frame = (
        f'<rect x="{_EDGE}" y="0" width="{_SIDE - _EDGE}" height="{bottom}" style="fill:none;stroke:var(--fb-line)"/>'
    )
    line = (
        f'<line x1="{x(0.5):.0f}" y1="{y(0.5):.0f}" x2="{x(1):.0f}" y2="{y(1):.0f}" '
        'style="stroke:var(--fb-muted);stroke-dasharray:4 3"/>'
    )
    return Markup(
        f'<svg viewBox="0 -6 {_SIDE + 6:g} {_SIDE:g}" width="{_SIDE + 40:g}" role="img" aria-label="{escape(words)}">'
        f"<title>{escape(words)}</title>{frame}{line}{''.join(labels)}"
        f"{dots(before, 'fill:none;stroke:var(--fb-muted);stroke-width:1.5')}"
        f"{dots(after, 'fill:var(--fb-accent)')}</svg>"
    )
