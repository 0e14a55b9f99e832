"""The pages in Chromium against a real server."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from feedback_app.security import COOKIE
from storage.enums import AnnotationStatus, Outcome, Role, RunStatus
from storage.models import Annotation, Completion, Preference
from storage.queue import queue_counts
from tests import factories
from tests.web.conftest import PASSWORD
from tests.web.looking import ITEM, annotation_of, next_item, url_of, wait_for

pytestmark = pytest.mark.usefixtures("idle_queue")
HOSTILE = """<script>window.hacked = 1</script><img src="/static/none" onerror="window.hacked = 2">
<svg onload="window.hacked = 3"></svg><iframe srcdoc="<script>parent.hacked = 4</script>"></iframe>
[click](javascript:window.hacked=5) ![far](https://far.example/pixel.png) ${window.hacked = 6} {{constructor}}
<style>body { display: none }</style><a href="https://far.example" ping="https://far.example">x</a> END"""


def test_an_item_is_judged_with_the_keyboard_and_the_next_is_there(house, visit):
    name, project = house.person(), house.project(items=3)
    with visit(name, url_of(project)) as page:
        page.wait_for_selector(ITEM)
        for key in "1", "2", "2", "2":
            page.keyboard.press(key)
        page.click("#fb-side-a .fb-scale label:nth-child(4)")
        page.fill("#fb-side-b .fb-critique textarea", "No date")
        arrived = next_item(page)
        page.focus("#fb-side-b .fb-critique textarea")
        page.keyboard.type(" is given.")
        page.keyboard.press("Control+Enter")
        arrived()
        row = annotation_of(house, name)
        assert (row.preferences[0].outcome, row.preferences[0].strength) == (Outcome.SECOND, 2)
        assert [one.value for one in row.ratings] == [4]
        assert [one.text for one in row.critiques] == ["No date is given."]
        assert row.refinements == []
        assert row.seconds_spent is not None
        # Nothing of the last item is left on the next one.
        assert page.input_value("#fb-side-b .fb-critique textarea") == ""
        assert page.locator(".fb-scale input:checked").count() == 0
        assert page.locator('.fb-verdict [aria-pressed="true"]').count() == 0
        assert page.evaluate("window.scrollY") == 0
        assert "1 today" in page.inner_text(".fb-progress")


def test_a_submit_without_a_verdict_says_what_is_missing(house, visit):
    name, project = house.person(), house.project(items=1)
    with visit(name, url_of(project)) as page:
        page.wait_for_selector(ITEM)
        page.click("#fb-submit")
        page.wait_for_selector("text=Choose A, B, tie or both bad first")
    assert annotation_of(house, name) is None


def test_two_quick_clicks_store_one_annotation(house, visit):
    name, project = house.person(), house.project(items=2)
    with visit(name, url_of(project)) as page:
        page.wait_for_selector(ITEM)
        page.keyboard.press("3")
        arrived = next_item(page)
        page.evaluate("() => { const b = document.getElementById('fb-submit'); b.click(); b.click(); }")
        arrived()
        page.wait_for_timeout(300)
    with house.sessions() as session:
        user = factories.accounts.get_user(session, name)
        count = session.scalars(select(Annotation).where(Annotation.user_id == user.id)).all()
    assert len(count) == 1


def test_a_draft_survives_a_reload(house, visit):
    name, project = house.person(), house.project(items=2)
    with visit(name, url_of(project)) as page:
        page.wait_for_selector(ITEM)
        assignment = page.get_attribute("#fb-stage", "data-assignment")
        page.keyboard.press("4")
        page.click("#fb-side-b .fb-rating:nth-child(2) label:nth-child(5)")
        page.fill("#fb-side-a .fb-critique textarea", "half a thought")
        page.click("text=Rewrite B")
        page.fill("#fb-side-b .fb-rewrite textarea", "B as it should be")
        wait_for(
            lambda: "B as it should be" in str(getattr(annotation_of(house, name, AnnotationStatus.DRAFT), "draft", ""))
        )
        page.reload()
        page.wait_for_selector(ITEM)
        assert page.get_attribute("#fb-stage", "data-assignment") == assignment
        page.wait_for_selector("#fb-side-b .fb-rewrite textarea")
        assert page.input_value("#fb-side-a .fb-critique textarea") == "half a thought"
        assert page.input_value("#fb-side-b .fb-rewrite textarea") == "B as it should be"
        assert page.locator("#fb-pick-both_bad[aria-pressed=true]").count() == 1
        assert page.locator(".fb-scale input:checked").input_value() == "5"
        arrived = next_item(page)
        page.click("#fb-submit")
        arrived()
    row = annotation_of(house, name)
    assert (len(row.refinements), len(row.critiques), row.preferences[0].outcome) == (1, 1, Outcome.BOTH_BAD)


def test_a_lost_session_leads_to_sign_in_and_the_words_are_kept(house, visit, address):
    name, project = house.person(password=True), house.project(items=1)
    with visit(name, url_of(project)) as page:
        page.wait_for_selector(ITEM)
        with house.sessions.begin() as session:
            factories.accounts.close_sessions_of(session, factories.accounts.get_user(session, name))
        page.fill("#fb-side-a .fb-critique textarea", "typed after the session ended")
        page.wait_for_url("**/login?next=**")
        assert annotation_of(house, name, AnnotationStatus.DRAFT) is None
        page.fill("#name", name)
        page.fill("#password", PASSWORD)
        page.click("button[type=submit]")
        page.wait_for_selector(ITEM)
        assert page.input_value("#fb-side-a .fb-critique textarea") == "typed after the session ended"


def test_hostile_completions_are_harmless_and_the_page_stays_on_its_host(house, visit, address):
    name, project = house.person(), house.project()
    with house.sessions.begin() as session:
        found = factories.projects.get_project(session, project)
        prompt = factories.make_prompt(session, found, text=HOSTILE)
        factories.make_item(session, found, prompt=prompt, texts=[HOSTILE, HOSTILE + " again"])
    answered = []
    with visit(name, "/login") as page:
        page.on("requestfinished", lambda request: answered.append(request.url))
        page.goto(address + url_of(project))
        page.wait_for_selector(ITEM)
        page.wait_for_selector("text=END again")
        page.click("text=Guidelines")
        page.keyboard.press("Escape")
        page.wait_for_timeout(500)
        assert page.evaluate("window.hacked") is None
        assert page.locator("iframe, .fb-text script, .fb-text svg[onload]").count() == 0
        assert page.locator('a[href^="javascript:"]').count() == 0
        assert page.is_visible("#fb-submit")
    assert [url for url in answered if not url.startswith((address, "data:", "blob:"))] == []
    assert len(answered) > 20


def test_on_a_phone_nothing_overflows_and_targets_are_large_enough(house, visit):
    name, project = house.person(), house.project()
    with house.sessions.begin() as session:
        found = factories.projects.get_project(session, project)
        factories.make_item(
            session, found, texts=["x" * 400, "```\n" + "y" * 400 + "\n```\n| a | b |\n|---|---|\n| 1 | 2 |"]
        )
    with visit(name, url_of(project), width=390, height=844) as page:
        page.wait_for_selector(ITEM)
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        a, b = (page.locator(f"#fb-side-{side}").bounding_box() for side in "ab")
        assert b["y"] >= a["y"] + a["height"]
        small = page.evaluate(
            """() => [...document.querySelectorAll('button, .fb-scale label, summary, a.fb-link')]
              .filter(e => e.offsetParent && !e.closest('.icon-button-wrapper'))
              .map(e => [e.textContent.trim().slice(0, 30), e.getBoundingClientRect()])
              .filter(([, box]) => box.height > 0 && box.height < 40).map(([text, box]) => [text, box.height])"""
        )
        assert small == []
        bar = page.locator("#fb-actions").bounding_box()
        assert bar["y"] + bar["height"] <= 845
        for dark in (False, True):
            page.emulate_media(color_scheme="dark" if dark else "light")
            page.wait_for_function("dark => document.body.classList.contains('dark') === dark", arg=dark)


def test_an_empty_queue_says_so_and_fills_by_itself(house, visit):
    name, project = house.person(), house.project()
    with visit(name, url_of(project)) as page:
        page.wait_for_selector("text=Nothing to judge right now")
        assert not page.is_visible("#fb-submit")
        with house.sessions.begin() as session:
            factories.make_items(session, factories.projects.get_project(session, project), 1)
        page.wait_for_selector(ITEM)
        assert page.is_visible("#fb-submit")


def test_skip_and_flag(house, visit):
    name, project = house.person(), house.project(items=3)
    with visit(name, url_of(project)) as page:
        page.wait_for_selector(ITEM)
        arrived = next_item(page)
        page.click("#fb-skip")
        arrived()
        page.click("text=Flag…")
        page.fill("#fb-flag-panel textarea", "names a real person")
        arrived = next_item(page)
        page.click("#fb-flag")
        arrived()
        page.wait_for_selector("#fb-flag-panel", state="hidden")
    with house.sessions() as session:
        found = factories.projects.get_project(session, project)
        assert queue_counts(session, found).flagged == 1


def test_an_annotator_is_told_that_the_operate_page_is_not_theirs(house, visit):
    with visit(house.person(), "/operate/") as page:
        page.wait_for_selector("text=Not for this account")


def test_a_chosen_run_survives_a_reload_and_a_live_one_moves(house, visit):
    operator = house.person(Role.OPERATOR)
    with house.sessions.begin() as session:
        found = factories.make_project(session)
        older = factories.make_run(session, found, worker="w").id
        factories.runs.finish_run(session, older, "w", RunStatus.FAILED, error="no disk space; free some")
        live = factories.make_run(session, found, worker="w").id
        factories.runs.heartbeat(session, live, "w", 1, 10)
        project = found.name
    with visit(operator, url_of(project, "operate")) as page:
        page.wait_for_selector(f"text=Run {live} · dpo")
        with house.sessions.begin() as session:
            factories.runs.heartbeat(session, live, "w", 7, 10)
        page.wait_for_selector("text=step 7 of 10")
        page.click(f'tr[data-run="{older}"]')
        page.wait_for_selector("text=No disk space; free some".lower())
        assert f"run={older}" in page.url
        page.reload()
        page.wait_for_selector(f"text=Run {older} · dpo")
        page.click("#op-resume")
        page.wait_for_selector(f"text=Run {older} is queued again")
        page.wait_for_selector("#op-resume", state="hidden")
    with house.sessions() as session:
        assert factories.runs.get_run(session, older).status is RunStatus.QUEUED


def test_what_training_would_use_is_counted_again_when_the_operator_comes_back(house, visit):
    title = house.project(items=3)
    with visit(house.person(Role.OPERATOR), url_of(title, "operate")) as page:
        page.locator("#op-preview .op-stats").get_by_text("0", exact=True).first.wait_for()
        with house.sessions.begin() as session:
            project = factories.projects.get_project(session, title)
            factories.make_annotation(session, project, factories.make_user(session))
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # no tab of this browser is ever hidden
        page.locator("#op-preview .op-stats").get_by_text("1", exact=True).first.wait_for()


def test_an_operator_invites_somebody_and_the_link_lets_them_in(house, visit, open_browser, address):
    operator, invited = house.person(Role.OPERATOR), f"invited by {house.person()}"
    house.project()
    with visit(operator, "/operate/") as page:
        page.wait_for_selector("#op-runs p, #op-runs table")
        page.click('button[role="tab"]:has-text("Users")')
        page.fill("#op-invite-name input, #op-invite-name textarea", invited)
        page.click("#op-invite")
        page.wait_for_selector(".op-link input")
        link = page.input_value(".op-link input")
    with open_browser() as page:
        page.goto(address + link[link.index("/login/link/") :])
        page.click("button")
        page.wait_for_url("**/set-password")
        page.fill("#password", PASSWORD)
        page.fill("#again", PASSWORD)
        page.click("button[type=submit]")
        page.wait_for_url("**/annotate/**")
        cookies = {cookie["name"]: cookie for cookie in page.context.cookies()}
        assert cookies[COOKIE]["httpOnly"]
        assert COOKIE not in page.evaluate("document.cookie")


def test_seven_tabs_of_one_person_all_load(house, visit, address):
    """A browser has six connections to one server: if a tab held one, the seventh would never load."""
    name, project = house.person(), house.project(items=1)
    with visit(name, url_of(project)) as page:
        pages = [page] + [page.context.new_page() for _ in range(6)]
        for one in pages[1:]:
            one.goto(address + url_of(project))
        for one in pages:
            one.wait_for_selector(ITEM)


def test_preferences_count_the_order_that_was_shown(house, visit):
    """What the annotator saw on the left is what `first` means in the store."""
    name, project = house.person(), house.project()
    with house.sessions.begin() as session:
        found = factories.projects.get_project(session, project)
        for number in range(6):
            factories.make_item(session, found, texts=[f"good {number}", f"bad {number}"])
    with visit(name, url_of(project)) as page:
        page.wait_for_selector(ITEM)
        for _ in range(6):
            left = page.inner_text("#fb-side-a .fb-text")
            arrived = next_item(page)
            page.keyboard.press("1" if "good" in left else "2")
            page.click("#fb-submit")
            arrived()
    with house.sessions() as session:
        user = factories.accounts.get_user(session, name)
        rows = session.scalars(select(Preference).join(Annotation).where(Annotation.user_id == user.id)).all()
        texts = {
            session.get(Completion, row.first_id if row.outcome is Outcome.FIRST else row.second_id).text
            for row in rows
        }
    assert texts == {f"good {number}" for number in range(6)}
