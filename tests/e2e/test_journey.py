"""The whole loop in a real browser against a real server and real workers.

Log in by link, annotate ten items with critiques, train as operator, watch the plot move, compare before and after,
promote, see new completions, download the export and load it.
"""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from feedback_app.demo_project import DEMO_PROJECT
from tests.app import App, running_app, until
from tests.browser import OpenBrowser
from tests.e2e.conftest import Picture

ITEMS = 10
SLOW = 90_000  # milliseconds; on a busy machine
# Ten items are few: two of a test split are not among them for sure.
SETTINGS = "max_steps=24\nmin_train_pairs=6\nmin_test_pairs=0\nearly_stopping=false\nbatch_size=4"


# Another item, with all its fields: a person needs longer than that to begin, this test does not.
NEXT_ITEM = """([assignment, rewrites]) => {
  const stage = document.querySelector('#fb-stage');
  const fields = (where) => [...document.querySelectorAll(where + ' textarea')].map((field) => field.value);
  return stage && stage.dataset.assignment !== assignment && fields('.fb-critique').every((text) => text === '')
    && fields('.fb-rewrite').every((text, side) => text !== rewrites[side]);
}"""


@pytest.mark.timeout(600)
def test_the_whole_loop(open_browser: OpenBrowser, home: Path, tmp_path: Path, picture: Picture) -> None:
    with running_app(home) as app, open_browser() as annotator, open_browser() as operator:
        for page in (annotator, operator):
            page.set_default_timeout(SLOW)
        _log_in(annotator, app, "annotator", picture)
        _annotate(annotator, app, picture)
        _log_in(operator, app, "operator")
        _train(operator, picture)
        _compare(operator, picture)
        _promote(operator)
        _see_new_completions(annotator, app)
        _download(operator, tmp_path, picture)
        operator.get_by_role("tab", name="Users").click()
        operator.get_by_text("annotator", exact=True).first.wait_for()
        picture(operator, "operate-users")
        assert "torch" not in _maps_of_web(app)


def _log_in(page: Any, app: App, name: str, picture: Picture | None = None) -> None:
    if picture:
        page.goto(f"{app.url}/login")
        picture(page, "login")
    page.goto(app.links[name])
    page.locator("form button[type=submit]").click()
    page.goto(f"{app.url}/{'annotate' if name == 'annotator' else 'operate'}/")


def _assignment(page: Any) -> str:
    return str(page.locator("#fb-stage[data-state=item]").get_attribute("data-assignment"))


def _annotate(page: Any, app: App, picture: Picture) -> None:
    """Ten items with the keys: a preference, a critique each, a rewrite now and then."""
    page.locator("#fb-stage[data-state=item]").wait_for(state="attached")
    for number in range(ITEMS):
        assignment = _assignment(page)
        page.locator("body").click(position={"x": 5, "y": 300})  # out of the text field
        page.keyboard.press("12"[number % 2])
        critique = page.locator(".fb-critique textarea").nth(number % 2)
        critique.fill(f"Give a date and greet by name, please ({number}).")
        if number % 3 == 0:
            side = page.locator(".fb-side").nth(number % 2)
            rewrite = side.get_by_label("as it should be")
            if not rewrite.is_visible():  # it stays open from item to item
                side.get_by_text("Rewrite", exact=False).first.click()
            until(rewrite.input_value, "the reply in the rewrite field")
            page.wait_for_timeout(500)  # nobody types sooner; the field is made when it is first opened
            rewrite.fill(f"Dear customer, we will send it by Friday. Case {number}.")
        if number == 3:
            picture(page, "annotate")
        rewrites = page.eval_on_selector_all(".fb-rewrite textarea", "fields => fields.map((field) => field.value)")
        critique.press("Control+Enter")
        page.wait_for_function(NEXT_ITEM, arg=[assignment, rewrites])
    assert _query(app, "SELECT count(*) FROM annotations WHERE status = 'submitted'") == ITEMS
    assert _query(app, "SELECT count(*) FROM critiques") == ITEMS
    assert _query(app, "SELECT count(*) FROM refinements") == 4
    page.locator("#fb-stage[data-state=item]").wait_for(state="attached")
    page.emulate_media(color_scheme="dark")
    page.reload()
    page.locator("#fb-stage[data-state=item]").wait_for(state="attached")
    picture(page, "annotate-dark")
    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme="light")
    picture(page, "annotate-phone")
    page.set_viewport_size({"width": 1280, "height": 900})


def _train(page: Any, picture: Picture) -> None:
    """Start a DPO run from the page and watch it: the step counts, the plot changes, it succeeds."""
    page.locator("#op-preview").get_by_text("train pairs").wait_for()
    page.locator("#op-kind").get_by_text("Policy (DPO)").click()
    page.get_by_text("More settings").click()
    page.get_by_label("name=value").fill(SETTINGS)
    page.locator("#op-start").click()
    head = page.locator("#op-run-head")
    head.get_by_text("dpo").wait_for()
    until(lambda: _step(page) >= 1, "the first step")
    first, early = _step(page), page.locator("#op-plots").screenshot()
    until(lambda: _step(page) > first + 5, "further steps")
    until(lambda: page.locator("#op-plots").screenshot() != early, "the plot to move")
    lines = page.locator("#op-plots .mark-line path[stroke]").evaluate_all(
        "all => all.map((one) => one.getAttribute('d'))"
    )
    assert any(line and line.count("L") > 2 for line in lines), lines  # points, not only axes
    picture(page, "operate-runs")
    until(lambda: head.locator("[data-status=succeeded]").count(), "the end of training", 300)
    assert "policy-v1" in head.inner_text()


def _step(page: Any) -> int:
    found = re.search(r"step ([\d,]+) of", page.locator("#op-run-head").inner_text())
    return int(found[1]) if found else 0


def _compare(page: Any, picture: Picture) -> None:
    """Let the candidate write beside the champion, and look at both on the same prompts."""
    page.locator("#op-kind").get_by_text("Completions").click()
    page.get_by_label("name=value").fill("prompts=4\ncandidate_share=1")
    page.locator("#op-start").click()
    head = page.locator("#op-run-head")
    head.get_by_text("generate").wait_for()
    until(lambda: head.locator("[data-status=succeeded]").count(), "the candidate's completions", 200)
    page.get_by_role("tab", name="Models").click()
    page.locator("tr[data-version=policy-v1]").click()
    page.locator("#op-version-detail").get_by_text("policy-v1").first.wait_for()
    page.locator(".op-compare").first.wait_for()
    picture(page, "operate-models")


def _promote(page: Any) -> None:
    page.get_by_role("button", name="Decide").click()
    page.locator("#op-reason textarea").fill("kinder, and with a date")
    page.locator("#op-confirm").click()
    page.locator("tr[data-version=policy-v1] [data-status=champion]").wait_for()


def _see_new_completions(page: Any, app: App) -> None:
    """The queue is filled anew by the promoted version, and the annotator sees it without a reload."""
    by_champion = (
        "SELECT count(*) FROM completions c JOIN model_versions v ON v.id = c.model_version_id "
        "WHERE v.kind = 'policy' AND v.number = 1"
    )
    until(lambda: _query(app, by_champion), "completions by policy-v1")

    def written_by() -> int:
        return _query(
            app,
            "SELECT max(v.number) FROM assignments a JOIN item_completions m ON m.item_id = a.item_id "
            "JOIN completions c ON c.id = m.completion_id JOIN model_versions v ON v.id = c.model_version_id "
            f"WHERE a.id = {int(_assignment(page))}",
        )

    for _ in range(6):  # what was leased before the promotion is still theirs
        page.locator("#fb-stage[data-state=item]").wait_for(state="attached")
        if written_by() == 1:
            return
        assignment = _assignment(page)
        page.locator("#fb-skip").click()
        page.wait_for_function(
            "before => document.querySelector('#fb-stage')?.dataset.assignment !== before", arg=assignment
        )
    pytest.fail("the annotator still gets completions of the old policy")


def _download(page: Any, tmp_path: Path, picture: Picture) -> None:
    """The export comes down through the browser and loads as it is."""
    from datasets import load_dataset

    page.get_by_role("tab", name="Data").click()
    link = page.locator(f"a[href='/exports/{DEMO_PROJECT}/preference.jsonl']")
    link.wait_for()
    picture(page, "operate-data")
    with page.expect_download() as download:
        link.click()
    path = tmp_path / "preference.jsonl"
    download.value.save_as(path)
    rows = load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert {"prompt", "chosen", "rejected"} <= set(rows.column_names)
    assert len(rows) >= ITEMS
    assert rows[0]["chosen"][0]["role"] == "assistant"


def _maps_of_web(app: App) -> str:
    import psutil

    web = next(p for p in psutil.Process(app.process.pid).children() if p.cmdline()[2:4] == ["feedback_app", "web"])
    return " ".join(mapped.path for mapped in web.memory_maps())


def _query(app: App, query: str) -> int:
    with sqlite3.connect(app.home / "feedback.db", timeout=20) as connection:
        row = connection.execute(query).fetchone()
        return int(row[0]) if row else 0
