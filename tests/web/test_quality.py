"""The Quality tab and its command: who may see it, what it says, and how it looks in a browser."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys

import pytest

from feedback_app import quality_words as words
from feedback_app.cli import main
from feedback_app.handlers import quality
from feedback_app.pages import quality_tab
from storage import accounts
from storage.enums import Outcome, Role
from storage.errors import NotAllowed
from storage.models import Assignment, utc_now
from storage.quality import Interval, Metric, Question, Share
from storage.quality.reliability import Beside
from tests.storage.feedback import Desk

HOSTILE = "<img src=x onerror=alert(1)>"


def fill(session, name, things=40, people=("ann", "ben", HOSTILE)):
    """People judge the same pairs: they mostly agree on quality, not on tone, and the second rates it higher."""
    rng = random.Random(1)
    desk = Desk(session, name, [("quality", 1, 5), ("tone", 1, 5)])
    for number in range(things):
        prompt = desk.prompt(f"{name} {number}")
        pair = desk.completion(prompt, "short"), desk.completion(prompt, "somewhat longer")
        good = rng.randint(2, 4)
        for place, who in enumerate(people):
            tone = min(5, rng.randint(1, 3) + 2 * (place == 1))
            made = desk.judge(
                who,
                pair if rng.random() < 0.5 else pair[::-1],
                Outcome.FIRST if rng.random() < 0.8 else Outcome.SECOND,
                ratings=[(pair[0], "quality", good + (rng.random() < 0.1)), (pair[0], "tone", tone)],
                critique=(pair[0], "too curt") if number % 4 == 0 else None,
                seconds_spent=rng.uniform(20, 60),
            )
            lease = Assignment(
                project_id=desk.project.id, item_id=made.item_id, user_id=made.user_id, shown_order=[pair[0].id],
                expires_at=utc_now(),
            )  # fmt: skip
            session.add(lease)
            session.flush()
            made.assignment_id = lease.id
    return desk


@pytest.fixture(scope="module")
def judged(house):
    """The name of a project that three people judged."""
    with house.sessions.begin() as session:
        return fill(session, "judged by three").project.name


def _question(value=0.5, low=0.4, high=0.6, things=100, offsets=()):
    beside = {name: Beside(Share(5, 10), Interval(by, by - 0.1, by + 0.1)) for name, by in offsets}
    figure = Interval(value, low, high) if value is not None else None
    return Question("tone", Metric.ORDINAL, (1, 5), figure, things, 2 * things, beside)


def test_annotators_and_strangers_see_no_figures(house, judged):
    disabled = house.person(Role.OPERATOR)
    with house.sessions.begin() as session:
        accounts.disable_user(session, accounts.get_user(session, disabled))
    for name in (house.person(), "ann", disabled, "nobody", None, ""):
        with pytest.raises(NotAllowed):
            quality.see_quality(house.ctx, name, judged)
    for role in (Role.OPERATOR, Role.ADMIN):
        assert quality.see_quality(house.ctx, house.person(role), judged).report.used == 120


def test_the_tab_tells_in_words_and_escapes_names(house, olga, judged):
    shown = quality_tab.show(quality.see_quality(house.ctx, olga, judged))
    assert "Agreement on quality is good: 0." in shown
    # One person rates everything higher: that is not to be told of the two others as well.
    assert re.search(r"On tone people disagree more than by chance.*; one person reads the scale differently", shown)
    assert re.search(r"\(ben rates 1\.\d higher than the others\)", shown)
    assert re.search(r"People lean to the first \(A\) one: 7\d % \(6\d..8\d\) of 120", shown)
    assert "All 120 annotations that count" in shown
    assert HOSTILE not in shown
    assert "&lt;img src=x" in shown


@pytest.mark.parametrize("overlapping", [False, True])
def test_empty_tabs_say_what_to_do_next(house, olga, overlapping):
    with house.sessions.begin() as session:
        desk = Desk(session, f"quiet {overlapping}")
        if overlapping:
            prompt = desk.prompt("one")
            desk.judge("ann", (desk.completion(prompt, "a"), desk.completion(prompt, "b")), Outcome.TIE)
    shown = quality_tab.show(quality.see_quality(house.ctx, olga, desk.project.name))
    assert ("set overlap to 2" in shown) is overlapping
    assert ("invite annotators on the Users tab" in shown) is not overlapping
    assert "Create a project first" in quality_tab.show(quality.see_quality(house.ctx, olga, None))


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ((0.91, 0.85, 0.95), "Agreement on tone is good: 0.91 (0.85..0.95)."),
        ((0.7, 0.6, 0.8), "is fair: 0.70"),
        ((0.5, 0.4, 0.6), "is weak: 0.50"),
        ((0.31, 0.22, 0.4), "is poor: 0.31 (0.22..0.40)"),
        ((-0.3, -0.4, -0.2), "On tone people disagree more than by chance"),
        ((0.05, -0.1, 0.2), "no better than chance: 0.05 (-0.10..0.20)"),
        ((None, 0, 0), "Everybody always said the same of tone"),
    ],
)
def test_agreement_in_words(figures, said):
    assert said in words.agreement(_question(*figures))


def test_words_name_who_reads_the_scale_differently_and_what_is_too_little():
    told = words.agreement(_question(0.31, 0.22, 0.4, offsets=[("ann", 0.9), ("ben", -0.8), ("cat", 0.45)]))
    assert told == (
        "Agreement on tone is poor: 0.31 (0.22..0.40); two people read the scale differently "
        "(ann rates 0.9 higher, ben rates 0.8 lower than the others)."
    )
    assert "rests on 5 completions only" in words.agreement(_question(things=5))


@pytest.mark.parametrize(
    ("hits", "position", "length"),
    [
        (50, "No position bias to be seen: 50 % (40..60) of 100", "No length bias to be seen"),
        (80, "People lean to the first (A) one: 80 %", "People prefer the longer completion"),
        (20, "People lean to the second (B) one: 20 %", "People prefer the shorter completion"),
    ],
)
def test_leanings_in_words(hits, position, length):
    assert position in words.position(Share(hits, 100))
    assert length in words.length(Share(hits, 100))


def test_the_web_process_starts_without_the_statistics_of_others():
    code = "import sys, feedback_app.server; print([m for m in ('evalica', 'scipy', 'torch') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip().splitlines()[-1] == "[]"


def test_the_command_looks_at_everything(house, judged, monkeypatch, capsys):
    monkeypatch.setenv("FEEDBACK_HOME", str(house.settings.home))
    assert main(["quality", "--project", judged, "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said["project"], said["annotations"], said["headline"]) == (judged, 120, "comparisons")
    assert [one["name"] for one in said["agreement"]] == ["comparisons", "quality", "tone"]
    assert {one["name"] for one in said["annotators"]} == {"ann", "ben", HOSTILE}
    assert said["first"]["n"] == 120
    assert main(["quality", "--project", judged]) == 0
    told = capsys.readouterr().out
    assert "Agreement on quality is good" in told
    assert main(["quality", "--project", "no such project", "--json"]) == 1
    assert "no such project" in json.loads(capsys.readouterr().out)["error"]


def _open_tab(page):
    tab = page.locator('#op-tabs [role="tab"]:has-text("Quality")')
    page.wait_for_timeout(500)  # Gradio moves tabs that do not fit into a menu, once it has measured them
    if tab.count():
        tab.click()
        return
    page.click('#op-tabs [aria-label="More tabs"]')
    page.click('#op-tabs .overflow-dropdown button:has-text("Quality")')


def test_the_tab_opens_in_the_browser(house, visit, olga, judged):
    with visit(olga, f"/operate/?project={judged.replace(' ', '%20')}", width=390, height=900, dark=True) as page:
        page.wait_for_selector("#op-runs p, #op-runs table")
        _open_tab(page)
        page.wait_for_selector("text=Agreement on quality is good")
        assert page.locator("#op-quality .op-range").count() > 5
        assert page.locator("#op-quality img").count() == 0
        for width in (390, 1280):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            box = page.locator("#op-quality .op-range span").first.bounding_box()
            assert box["width"] > 3  # the interval is there to be seen
