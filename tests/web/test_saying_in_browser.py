"""What can be said of an item, in Chromium: marked passages, tags, fixes, rewrites, rankings; and what helps."""

from __future__ import annotations

import pytest

from storage.enums import AnnotationStatus, ItemKind
from storage.models import Completion
from tests import factories
from tests.web.looking import ITEM, annotation_of, next_item, url_of, wait_for

pytestmark = pytest.mark.usefixtures("idle_queue")


def test_a_rewrite_typed_at_once_is_kept_and_shows_what_changes(house, visit):
    name, project = house.person(), house.project()
    with house.sessions.begin() as session:
        found = factories.projects.get_project(session, project)
        factories.make_items(session, found, 2, texts=["It comes on Monday.", "It comes."])
    with visit(name, url_of(project)) as page:
        page.wait_for_selector(ITEM)
        side = "a" if "Monday" in page.inner_text("#fb-side-a .fb-text") else "b"
        # In one go, without a moment between opening the field and writing.
        page.evaluate(
            """side => { document.querySelector(`#fb-side-${side} .fb-rewrite summary`).click();
              const field = document.querySelector(`#fb-side-${side} .fb-rewrite textarea`);
              field.value = 'It comes on Tuesday.'; field.dispatchEvent(new InputEvent('input', {bubbles: true})); }""",
            side,
        )
        diff = page.locator(f"#fb-side-{side} .fb-diff")
        assert (diff.locator("del").inner_text(), diff.locator("ins").inner_text()) == ("Monday", "Tuesday")
        arrived = next_item(page)
        page.keyboard.press("3")
        page.keyboard.press("Control+Enter")
        arrived()
    (refinement,) = annotation_of(house, name).refinements
    with house.sessions() as session:
        assert session.get(Completion, refinement.refined_id).text == "It comes on Tuesday."


RICH = "Dear 😀 Ann, **your parcel** left on *Monday* and [arrives](https://shop.example/arrives) on Thursday."


def _marked(house):
    """A person, and a project with one item of which one completion is `RICH`."""
    name, project = house.person(), house.project()
    with house.sessions.begin() as session:
        found = factories.projects.get_project(session, project)
        factories.projects.update_project(session, found, tags=["wrong fact", "no date"])
        factories.make_item(session, found, texts=[RICH, "Another reply."])
    return name, project


def _critiques(house, name):
    return [
        (RICH[one.span_start : one.span_end] if one.span_start is not None else None, one.text, one.tags, one.fix)
        for one in annotation_of(house, name).critiques
    ]


def _rich_side(page):
    page.wait_for_selector("text=on Thursday")
    return "#fb-side-a" if "Thursday" in page.inner_text("#fb-side-a .fb-text") else "#fb-side-b"


def test_a_passage_is_marked_with_the_mouse_tagged_and_mended(house, visit):
    name, project = _marked(house)
    with visit(name, url_of(project)) as page:
        page.wait_for_selector(ITEM)
        side = _rich_side(page)
        bold, day = (page.locator(f"{side} .fb-text {tag}").bounding_box() for tag in ("strong", "em"))
        page.mouse.move(bold["x"] + 1, bold["y"] + 5)
        page.mouse.down()
        page.mouse.move(day["x"] + day["width"] - 1, day["y"] + 5, steps=3)
        page.mouse.up()
        page.click("#fb-criticise")
        page.keyboard.type("Which one?")  # the field has the focus
        page.keyboard.press("Alt+2")
        page.fill(f"{side} .fb-passage .fb-fix textarea", "your book left on Tuesday")
        wait_for(lambda: "Tuesday" in str(getattr(annotation_of(house, name, AnnotationStatus.DRAFT), "draft", "")))
        page.reload()
        page.wait_for_selector(f"{side} .fb-passage")
        assert page.input_value(f"{side} .fb-passage .fb-fix textarea") == "your book left on Tuesday"
        assert page.locator('.fb-tag[aria-pressed="true"]').all_inner_texts() == ["no date"]
        page.wait_for_function("CSS.highlights.get('fb-passage')?.size === 1")
        page.keyboard.press("2")
        page.click("#fb-submit")
        page.wait_for_selector("#fb-stage[data-state=empty]")
    assert _critiques(house, name) == [
        ("**your parcel** left on *Monday*", "Which one?", ["no date"], "your book left on Tuesday")
    ]


def test_a_passage_is_marked_with_keys_alone_and_the_mark_can_be_taken_off(house, visit):
    name, project = _marked(house)
    with visit(name, url_of(project)) as page:
        page.wait_for_selector(ITEM)
        side = _rich_side(page)
        page.focus(f"{side} [data-plain]")
        page.keyboard.press("Enter")  # the plain text has the focus
        page.wait_for_selector(f"{side} .fb-plain-text textarea")
        page.keyboard.press("Control+Home")
        for _ in range(6):
            page.keyboard.press("ArrowRight")
        for _ in range(4):
            page.keyboard.press("Shift+ArrowRight")
        page.wait_for_selector("#fb-criticise")
        page.keyboard.press("c")
        page.keyboard.type("Her name is Anna.")
        assert page.inner_text(f"{side} .fb-quote q").strip("“”") == "Ann"
        page.keyboard.press("Escape")
        page.click(f"{side} .fb-off-mark")
        assert page.locator(".fb-passage").count() == 0
        assert page.input_value(f"{side} .fb-critique textarea") == "Her name is Anna."
        page.keyboard.press("3")
        page.keyboard.press("Control+Enter")
        page.wait_for_selector("#fb-stage[data-state=empty]")
    assert _critiques(house, name) == [(None, "Her name is Anna.", [], None)]


def _ranking(house, count=4):
    name, project = house.person(), house.project()
    with house.sessions.begin() as session:
        found = factories.projects.get_project(session, project)
        texts = [f"Reply {number}." for number in range(count)]
        factories.make_item(session, found, texts=texts, kind=ItemKind.RANKING)
    return name, project


def _order(page):
    return page.eval_on_selector_all(".fb-order .fb-chip b, .fb-order .fb-gap", "all => all.map(e => e.textContent)")


def _ranks(house, name, shown):
    with house.sessions() as session:
        ids = {session.get(Completion, one.completion_id).text: one.rank for one in annotation_of(house, name).rankings}
    return [ids[text] for text in shown]


def test_completions_are_ranked_with_keys(house, visit):
    name, project = _ranking(house)
    with visit(name, url_of(project)) as page:
        page.wait_for_selector(ITEM)
        shown = page.locator(".fb-side:not(.fb-off) .fb-text span.md").all_inner_texts()
        assert len(shown) == 4
        page.keyboard.press("3")
        page.keyboard.press("1")
        page.keyboard.press("Control+Enter")
        page.wait_for_selector("text=Rank all 4 first")
        page.keyboard.press("4")  # and B is the last one left
        assert _order(page) == ["C", "›", "A", "›", "D", "›", "B"]
        page.keyboard.press("ArrowUp")
        page.keyboard.press("=")
        assert _order(page) == ["C", "=", "D", "›", "A", "›", "B"]
        page.focus("#fb-side-b")
        page.keyboard.press("ArrowUp")
        assert _order(page) == ["C", "=", "D", "›", "B", "›", "A"]
        wait_for(lambda: annotation_of(house, name, AnnotationStatus.DRAFT) is not None)
        page.reload()
        page.wait_for_selector(".fb-order .fb-chip")
        assert _order(page) == ["C", "=", "D", "›", "B", "›", "A"]
        page.keyboard.press("Control+Enter")
        page.wait_for_selector("#fb-stage[data-state=empty]")
    assert _ranks(house, name, [text.strip() for text in shown]) == [3, 2, 1, 1]


def test_completions_are_ranked_by_dragging(house, visit):
    name, project = _ranking(house, 3)
    with visit(name, url_of(project)) as page:
        page.wait_for_selector(ITEM)
        page.click('.fb-chip[data-side="0"]')
        page.click('.fb-chip[data-side="1"]')
        assert _order(page) == ["A", "›", "B", "›", "C"]
        last, first = (page.locator(f'.fb-chip[data-side="{side}"]').bounding_box() for side in (2, 0))
        page.mouse.move(last["x"] + 10, last["y"] + 10)
        page.mouse.down()
        page.mouse.move(first["x"] + 4, first["y"] + 10, steps=4)
        page.mouse.up()
        assert _order(page) == ["C", "›", "A", "›", "B"]
        page.click(".fb-gap >> nth=1")
        assert _order(page) == ["C", "›", "A", "=", "B"]
        shown = page.locator(".fb-side:not(.fb-off) .fb-text span.md").all_inner_texts()
        page.click("#fb-submit")
        page.wait_for_selector("#fb-stage[data-state=empty]")
    assert _ranks(house, name, [text.strip() for text in shown]) == [2, 2, 1]


def test_a_project_that_judges_first_opens_critiques_after_the_verdict(house, visit):
    name, project = house.person(), house.project(items=1)
    with house.sessions.begin() as session:
        found = factories.projects.get_project(session, project)
        asked = {"order": "judge_first", "daily_target": 40}
        factories.projects.update_project(session, found, annotation_settings=asked)
    with visit(name, url_of(project)) as page:
        page.wait_for_selector(ITEM)
        assert "of 40 today" in page.inner_text(".fb-progress")
        assert not page.is_visible("#fb-side-a .fb-critique textarea")
        page.keyboard.press("1")
        page.wait_for_selector("#fb-side-a .fb-critique textarea")


def test_guidelines_stand_beside_the_work_where_there_is_room(house, visit):
    name, project = house.person(), house.project(items=1, guidelines="# Be kind")
    with visit(name, url_of(project), width=1500) as page:
        page.wait_for_selector("#fb-guidelines h1")
        work, aside = (page.locator(where).bounding_box() for where in ("#fb-work", "#fb-guidelines"))
        assert work["x"] + work["width"] <= aside["x"]
        page.click("#fb-guidelines [data-close]")
        page.wait_for_selector("#fb-guidelines", state="hidden")
        page.reload()
        page.wait_for_selector(ITEM)
        assert not page.is_visible("#fb-guidelines")
        page.click("text=Guidelines")
        page.wait_for_selector("#fb-guidelines h1")
        page.set_viewport_size({"width": 1200, "height": 800})
        page.wait_for_selector("#fb-guidelines", state="hidden")


def test_of_a_long_conversation_the_last_turn_is_in_view(house, visit):
    name, project = house.person(), house.project()
    with house.sessions.begin() as session:
        found = factories.projects.get_project(session, project)
        turns = [
            {"role": ("user", "assistant")[n % 2], "content": f"Turn {n}. " + "So it goes. " * 60} for n in range(7)
        ]
        prompt = factories.prompts.add_prompt(session, found, turns, "test").row
        factories.make_item(session, found, prompt=prompt)
    with visit(name, url_of(project)) as page:
        page.wait_for_selector(ITEM)
        page.wait_for_function(
            """() => { const box = document.querySelector('#fb-prompt').getBoundingClientRect();
              const rows = document.querySelectorAll('#fb-prompt .message-row');
              const last = rows.length === 7 && rows[6].getBoundingClientRect();
              return last && last.top >= box.top - 2 && last.top < box.bottom - 20; }"""
        )
