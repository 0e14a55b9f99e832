"""The Data tab: counts, import, prompts by hand, export."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import gradio as gr

from feedback_app.handlers import data as handlers
from feedback_app.handlers.context import Context
from feedback_app.handlers.data import DOWNLOAD_FORMATS, DataView
from feedback_app.i18n import later, message, plural, t
from feedback_app.pages import render
from feedback_app.pages.render import Markup, Row
from feedback_app.pages.webhooks_part import WebhooksPart
from feedback_app.pages.wiring import QUEUED, event
from storage.ingest import FORMATS as IMPORT_FORMATS
from storage.ingest import IngestReport

_ADDED = ("prompts", "completions", "pairs", "ratings", "critiques", "refinements")


class DataTab:
    """The tab's components; `outputs` stand in the order of `values`."""

    def __init__(self, project: gr.Dropdown) -> None:
        self.project = project
        with gr.Column(elem_classes="op-card"):
            gr.HTML(f"<h3>{later('What there is')}</h3>", js_on_load=None)
            self.counts = gr.HTML("", elem_id="op-counts", js_on_load=None)
        with gr.Row(elem_classes="op-split"):
            with gr.Column(min_width=320, elem_classes="op-card"):
                gr.HTML(f"<h3>{later('Import')}</h3>", js_on_load=None)
                self.file = gr.File(
                    label=later("JSONL, JSON, CSV, Parquet or .jsonl.gz"), elem_id="op-file", height=130
                )
                self.format = gr.Dropdown(["auto", *IMPORT_FORMATS], value="auto", label=later("Format"))
                self.take = gr.Button(later("Import"), variant="primary", elem_id="op-import")
                self.report = gr.HTML("", elem_id="op-report", js_on_load=None)
            with gr.Column(min_width=320, elem_classes="op-card"):
                gr.HTML(f"<h3>{later('Add prompts by hand')}</h3>", js_on_load=None)
                self.prompts = gr.Textbox(
                    label=later("Prompts"),
                    info=later("As a user would write them. A line of --- begins the next one."),
                    lines=6,
                    max_lines=20,
                    elem_id="op-prompts",
                )
                self.add = gr.Button(later("Add"), variant="primary", elem_id="op-add")
        with gr.Column(elem_classes="op-card"):
            gr.HTML(f"<h3>{later('Export')}</h3>", js_on_load=None)
            self.exports = gr.HTML("", elem_id="op-exports", js_on_load=None)
        self.webhooks = WebhooksPart(project)

    @property
    def outputs(self) -> list[Any]:
        """What a look at the data changes."""
        return [self.counts, self.exports]

    def connect(self, ctx: Context) -> None:
        """Wire the tab's events."""
        self.webhooks.connect(ctx)

        def take(name: str | None, project: str | None, path: Any, format: Any) -> list[Any]:
            report = handlers.import_file(ctx, name, project, path, format)
            return [*values(handlers.see_data(ctx, name, project)), show_report(report), None]

        def add(name: str | None, project: str | None, given: Any) -> list[Any]:
            new = handlers.add_prompts(ctx, name, project, given)
            gr.Info(
                plural(
                    new,
                    "{n} new prompt; completions follow by themselves.",
                    "{n} new prompts; completions follow by themselves.",
                )
            )
            return [*values(handlers.see_data(ctx, name, project)), ""]

        busy = {**QUEUED, "show_progress": "full"}
        self.take.click(
            event(take),
            [self.project, self.file, self.format],
            [*self.outputs, self.report, self.file],
            concurrency_limit=1,
            show_progress_on=self.report,
            **busy,
        )
        self.add.click(
            event(add), [self.project, self.prompts], [*self.outputs, self.prompts], concurrency_limit=2, **QUEUED
        )


def values(view: DataView) -> list[Any]:
    """The values of `DataTab.outputs` for `view`."""
    if view.project is None:
        missing = render.note(t("Create a project first, on the Project tab."))
        return [missing, missing]
    figures = [(t(name), f"{n:,}") for name, n in view.counts.items()]
    queue = [(t(name), f"{n:,}") for name, n in view.queue._asdict().items()] if view.queue else []
    counts = f'{render.stats(figures)}<p class="op-muted">{t("Items in the queue")}</p>{render.stats(queue)}'
    return [counts, _exports(view)]


def _exports(view: DataView) -> str:
    project = quote(view.project or "", safe="")
    rows = [
        Row(
            [
                Markup(f"<b>{what}</b>"),
                _held(what),
                Markup(
                    " ".join(
                        f'<a class="op-button" href="/exports/{project}/{what}.{form}" download>{form}</a>'
                        for form in DOWNLOAD_FORMATS
                    )
                ),
            ]
        )
        for what in view.tables
    ]
    return render.table([t("table"), t("what it holds"), t("download")], rows, "")


def _held(table: str) -> str:
    told = {
        "preference": t("chosen and rejected, ready for DPO and reward training"),
        "unpaired": t("completions with a good/bad label, for KTO"),
        "prompt-completion": t("the best completions, for supervised tuning"),
        "ratings": t("every rating, one a row"),
        "critiques": t("every critique with its completion"),
        "refinements": t("what was rewritten because of critiques, and which"),
        "annotations": t("everything as it was said, one annotation a row"),
        "quality": t("how each annotator stands beside the others, by criterion"),
    }
    return told.get(table, "")


def show_report(report: IngestReport) -> str:
    """What an import added and what it skipped, with reasons."""
    added = render.stats((t(name), f"{getattr(report, name):,}") for name in _ADDED)
    parts = [render.note(t("Read as {format}.", format=report.format), "good"), added]
    if report.skipped:
        rows = [Row([f"{n:,}", message(reason)]) for reason, n in report.skipped.items()]
        parts.append(render.table([t("skipped"), t("why")], rows, ""))
    if report.skipped_lines:
        lines = [Row([f"{line:,}", message(reason)]) for line, reason in report.skipped_lines[:20]]
        parts.append(render.table([t("line"), t("why")], lines, ""))
    return "".join(parts)
