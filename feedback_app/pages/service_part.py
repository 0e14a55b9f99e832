"""What people say of model versions, on the Models tab: a blind test, figures by version, and alerts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import gradio as gr

from feedback_app.handlers import service as handlers
from feedback_app.handlers.context import Context
from feedback_app.handlers.service import BlindView, ServiceView
from feedback_app.i18n import later, message, named, plural, sentence, t
from feedback_app.pages import render
from feedback_app.pages.interval_plot import Scale, draw
from feedback_app.pages.render import Markup, Row
from feedback_app.pages.wiring import SLOW_LOOK, event
from storage.enums import BlindTestState, VersionStatus
from storage.live_figures import NAMES, Live
from storage.models import Alert, utc_now
from storage.monitoring import Compared

_SCALES = {"win_rate": Scale(0, 1), "rating": Scale(1, 5), "resolution": Scale(0, 1)}


class ServicePart:
    """Two cards: the blind test with its buttons, and the figures by version."""

    def __init__(self) -> None:
        with gr.Column(elem_classes="op-card", elem_id="op-blind-card"):
            self.test = gr.HTML("", elem_id="op-blind", js_on_load=None)
            with gr.Row():
                self.start = gr.Button(later("Start a blind test"), elem_id="op-blind-start", min_width=120)
                self.stop = gr.Button(later("Stop it"), elem_id="op-blind-stop", min_width=120)
        with gr.Column(elem_classes="op-card"):
            self.trend = gr.HTML("", elem_id="op-trend", js_on_load=None)

    def connect(
        self, ctx: Context, project: gr.Dropdown, selected: gr.Textbox, seen: Sequence[Any], done: Iterable[Any]
    ) -> None:
        """Look when something is `seen` or `done` (events under way); beside them, for it reads all people said."""

        def people_said(name: str | None, chosen: str | None, version: Any) -> list[Any]:
            return values(handlers.see_service(ctx, name, chosen, version))

        asked = {"fn": event(people_said), "inputs": [project, selected], "outputs": self.outputs}
        gr.on(list(seen), **asked, **SLOW_LOOK, concurrency_limit=1)
        for one in done:
            one.success(**asked, **SLOW_LOOK, concurrency_limit=1)

    @property
    def outputs(self) -> list[Any]:
        """What a look at a version changes."""
        return [self.test, self.start, self.stop, self.trend]


def values(view: ServiceView | None) -> list[Any]:
    """The values of `ServicePart.outputs`."""
    if view is None:
        hidden = gr.Button(visible=False)
        return ["", hidden, hidden, ""]
    running = view.test is not None and view.test.test.state is BlindTestState.RUNNING
    start = gr.Button(visible=view.version is not None and not running, interactive=view.no_test is None)
    return [_test(view.test) + _no_test(view, running), start, gr.Button(visible=running), _trend(view)]


def _no_test(view: ServiceView, running: bool) -> str:
    """Why the selected version cannot be tested by people."""
    if running or view.no_test is None:
        return ""
    return f'<p class="op-muted">{render.h(sentence(message(str(view.no_test))))}</p>'


def alerts(found: Iterable[Alert]) -> str:
    """A note for each alert of the last days."""
    notes = []
    for one in found:
        when = render.ago(one.created_at, utc_now())
        said = t("{said} ({when})", said=sentence(message(one.text)), when=when)
        back = one.figures.get("rolled_back_to")
        if back:
            said += " " + t("{version} was put back into service by itself.", version=back)
        elif one.ended_at is not None:
            said += " " + t("This has ended.")
        notes.append(render.note(said, "bad" if one.ended_at is None or back else "info"))
    return "".join(notes)


# --- the blind test ---


def _test(view: BlindView | None) -> str:
    head = f"<h3>{t('Compared by people, blind')}"
    if view is None:
        hint = t(
            "Let people compare the newest candidate with the champion inside the normal queue: they do not know that "
            "they do, and it ends by itself once one side has won."
        )
        return f"{head}</h3>{render.note(hint)}"
    found, state = view.standing, view.test.state
    share = {"value": found.share.value, "low": found.share.low, "high": found.share.high}
    kinds = {BlindTestState.CANDIDATE: "pass", BlindTestState.CHAMPION: "fail"}
    plot = draw(share, least=0.5, kind=kinds.get(state, "inconclusive"), scale=Scale(0, 1))
    pairs = [
        (t("versions"), t("{version} against {champion}", version=view.candidate, champion=view.champion)),
        (t("won"), _won(view)),
        (t("interval"), Markup(f"{plot} {render.h(_interval(view))}") if plot else None),
        (t("ties"), f"{found.ties:,}" if found.ties else None),
        (t("pairs that wait"), f"{found.waiting:,}" if state is BlindTestState.RUNNING else None),
        (t("still needed"), _needed(view) if state is BlindTestState.RUNNING else None),
    ]
    end = f" {render.badge(state.value)}</h3>"
    return head + end + render.facts(pairs) + _bar(view)


def _won(view: BlindView) -> str:
    return plural(
        view.standing.decided,
        "{wins} of {n} decided comparison by {version}",
        "{wins} of {n} decided comparisons by {version}",
        wins=f"{view.standing.wins:,}",
        version=view.candidate,
    )


def _interval(view: BlindView) -> str:
    share = view.standing.share
    return t(
        "{low} to {high}, sure to {sure} however often one looks",
        low=f"{share.low:.0%}",
        high=f"{share.high:.0%}",
        sure=f"{1 - view.standing.error:.0%}",
    )


def _needed(view: BlindView) -> str:
    found = view.standing
    if found.needed is None:
        return t("up to {n} more decided comparisons; it may stay undecided", n=f"{found.most - found.decided:,}")
    return t("about {n} more decided comparisons, if people go on like this", n=f"{found.needed:,}")


def _bar(view: BlindView) -> Markup:
    found = view.standing
    if view.test.state is not BlindTestState.RUNNING:
        return Markup("")
    whole = found.most if found.needed is None else found.decided + found.needed
    done = found.decided / max(whole, 1)
    return Markup(f'<div class="op-progress" role="presentation"><i style="width: {done:.0%}"></i></div>')


# --- figures by version ---


def _trend(view: ServiceView) -> str:
    head = f"<h3>{t('What people say, by version')}</h3>"
    rows = [
        Row(
            [
                Markup(f"<b>{escape(one.version.name)}</b>"),
                *(_figure(name, one.figures[name], one.version.status) for name in NAMES),
            ]
        )
        for one in view.trends
    ]
    empty = t("Nobody has judged what a version wrote yet.")
    table = render.table([t("version"), *(named(name) for name in NAMES)], rows, empty)
    return f'{head}<div class="op-gate-table">{table}</div>{_since(view)}'


def _figure(name: str, figure: Live, status: VersionStatus) -> Any:
    if figure.value is None:
        return "–"
    told = figure.as_dict()
    plot = draw(told, kind="pass" if status is VersionStatus.CHAMPION else "none", scale=_SCALES[name])
    shown = f"{figure.value:.2f}" if name == "rating" else f"{figure.value:.0%}"
    return Markup(f'{shown} <span class="op-muted">{render.h(t("of {n}", n=f"{figure.n:,}"))}</span> {plot}')


def _since(view: ServiceView) -> str:
    """The champion since its promotion, beside what it replaced."""
    found = view.watched
    if found is None:
        return ""
    title = t("{version} since it took over from {previous}", version=found.version.name, previous=found.previous.name)
    rows = [
        Row([Markup(f"<b>{escape(named(one.name))}</b>"), _live(one), _hold(one), _difference(one), _state(one, view)])
        for one in found.compared
    ]
    columns = [t("figure"), t("since then"), t("to hold"), t("difference"), t("state")]
    sure = t(
        "Differences hold at every look together: a champion that is as good raises an alert in its whole time with a "
        "probability of at most {error}.",
        error=f"{view.error:.1%}",
    )
    table = f'<div class="op-gate-table">{render.table(columns, rows, "")}</div>'
    return f'<h4>{escape(title)}</h4>{table}<p class="op-muted">{escape(sure)}</p>'


def _live(one: Compared) -> Any:
    if one.live.value is None:
        return "–"
    return Markup(
        f'{render.h(render.number(one.live.value))} <span class="op-muted">'
        f"{render.h(t('of {n}', n=f'{one.live.n:,}'))}</span>"
    )


def _hold(one: Compared) -> str:
    return render.number(one.before.value)


def _difference(one: Compared) -> Markup:
    told = {"value": one.difference, "low": one.low, "high": one.high}
    return draw(told, least=0.0, kind="fail" if one.fallen else "pass" if one.enough else "none")


def _state(one: Compared, view: ServiceView) -> Any:
    if one.fallen:
        return Markup(f'<span class="op-badge" data-status="fail">{render.h(t("fallen"))}</span>')
    if not one.enough:
        few = t("at least {n} judgements on both sides", n=view.least)
        return Markup(f'<span class="op-muted op-why">{render.h(few)}</span>')
    return t("not below")
