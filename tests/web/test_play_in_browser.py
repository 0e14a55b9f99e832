"""A whole evening in the playground: the real pages, a real worker with a real process, and the starter."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import select

from feedback_app.handlers import play as handlers
from storage import playground, turns
from storage.engine import read_only
from storage.enums import AnnotationStatus, ItemKind, Outcome, RunKind, RunStatus, SelectionReason
from storage.models import Annotation, Assignment, Conversation, Item, Prompt, Run, User
from tests import factories
from tests.web.looking import annotation_of, url_of, wait_for
from trainer.launch import warm_up
from trainer.worker import Worker, WorkerSettings

pytestmark = [pytest.mark.usefixtures("idle_queue"), pytest.mark.timeout(280)]
TYPING, WRITING, ITEM, JUDGED = (
    f'#fb-stage[data-state="{state}"]' for state in ("typing", "writing", "item", "judged")
)
BOX = "#pl-box textarea"
# Noise that ends when there is no room left, so that there is time to kill and to stop; and the starter as it is.
LONG = {"max_new_tokens": 1500, "temperature": 4.0}
SHORT = {"max_new_tokens": 80, "temperature": 1.0}


@pytest.fixture
def worker(house) -> Iterator[Worker]:
    """A worker for the playground, turning in a thread beside the server."""
    warm_up()
    settings = house.settings
    made = Worker(
        WorkerSettings(settings.store_url, settings.home, kinds=frozenset({RunKind.PLAYGROUND}), device="cpu"),
        house.sessions,
    )
    ending = threading.Event()

    def turn() -> None:
        while not ending.wait(0.05):
            made.tick()

    thread = threading.Thread(target=turn)
    thread.start()
    yield made
    ending.set()
    thread.join()
    made.close()


def _sampling(house, project: str, sampling: dict[str, float]) -> None:
    with house.sessions.begin() as session:
        factories.projects.update_project(session, factories.projects.get_project(session, project), sampling=sampling)


def _process(house, worker, project) -> int:
    """Of those that answer, the one that answers in this project: pages of other tests may have asked for one too."""
    live = [lane._live for lane in worker._talks if lane._live is not None]
    with read_only(house.sessions) as session:
        return next(one.child.pid for one in live if session.get_one(Run, one.run_id).project.name == project)


def _typed(page, text: str) -> None:
    """Wait until that stands in the box: Gradio fills it a moment after the stage."""
    page.wait_for_function("text => document.querySelector('#pl-box textarea').value === text", arg=text)


def _texts(page) -> list[str]:
    return [page.inner_text(f"#fb-side-{letter} .fb-text") for letter in "ab"]


def test_type_stream_judge_and_go_on(house, visit, worker, picture):
    name, project = house.person(), house.project(sampling=LONG)
    with visit(name, url_of(project, "play")) as page:
        page.set_default_timeout(90_000)  # a cold process loads torch; beside other tests that takes its time
        page.wait_for_selector(TYPING, state="attached")
        picture(page, "play-1-empty")
        # What is typed survives a reload, at once and on another device a moment later.
        page.fill(BOX, "Where is my order")
        page.reload()
        page.wait_for_function("() => document.querySelector('#pl-box textarea')?.value === 'Where is my order'")
        wait_for(lambda: _talk(house, name).draft == "Where is my order")
        page.fill(BOX, "Where is my order 4417? It should have come on")
        page.press(BOX, "Shift+Enter")
        page.keyboard.type("Monday.")
        assert page.input_value(BOX).endswith("come on\nMonday.")
        page.press(BOX, "Enter")
        page.wait_for_selector(WRITING, state="attached")
        grown = set()
        page.wait_for_function(
            "() => [...'ab'].some((x) => document.querySelector(`#fb-side-${x} .fb-text`).innerText.length > 20)"
        )
        picture(page, "play-2-writing")

        # The process is killed in the middle: said in one line, and the words are back in the box.
        os.kill(_process(house, worker, project), signal.SIGKILL)
        page.wait_for_selector("#pl-status[data-kind=bad]")
        assert "killed" in page.inner_text("#pl-status")
        _typed(page, "Where is my order 4417? It should have come on\nMonday.")
        picture(page, "play-3-failed")
        _sampling(house, project, SHORT)
        page.click("#pl-send")
        page.wait_for_selector(WRITING, state="attached")
        while not page.query_selector(ITEM):
            grown.add(tuple(_texts(page)))
            time.sleep(0.03)
        assert len(grown) > 1  # it came bit by bit
        shown = _texts(page)
        picture(page, "play-4-item")

        # A reload brings back the conversation and what is not judged yet; the draft too.
        page.fill("#fb-side-b .fb-critique textarea", "Too vague.")
        wait_for(lambda: annotation_of(house, name, AnnotationStatus.DRAFT) is not None)
        page.reload()
        page.wait_for_selector(ITEM, state="attached")
        page.wait_for_function("text => document.querySelector('#fb-side-a .fb-text').innerText === text", arg=shown[0])
        assert page.input_value("#fb-side-b .fb-critique textarea") == "Too vague."
        page.keyboard.press("Escape")
        page.keyboard.press("1")
        page.click("text=Rewrite B")
        page.fill("#fb-side-b .fb-rewrite textarea", "It is on its way and comes today.")
        page.click("#fb-submit")
        page.wait_for_selector(JUDGED, state="attached")
        assert not page.is_visible("#pl-go-a-rewrite")
        picture(page, "play-5-judged")
        page.click("#pl-go-b-rewrite")
        page.wait_for_selector(TYPING, state="attached")
        assert "comes today" in page.inner_text("#fb-prompt")
        page.fill(BOX, "Thank you. Can I change the address?")
        picture(page, "play-6-next")
        _sampling(house, project, LONG)
        page.click("#pl-send")
        page.wait_for_selector(WRITING, state="attached")
        page.click("#pl-stop")
        page.wait_for_selector(TYPING, state="attached")
        _typed(page, "Thank you. Can I change the address?")
        _sampling(house, project, SHORT)
        page.click("#pl-send")
        page.wait_for_selector(ITEM, state="attached")
        page.keyboard.press("Control+Enter")  # nothing is chosen yet
        page.wait_for_selector("text=Choose A, B, tie or both bad first")
        page.keyboard.press("2")
        page.keyboard.press("Control+Enter")
        page.wait_for_selector(JUDGED, state="attached")
        page.keyboard.press("2")
        page.wait_for_selector(TYPING, state="attached")
        page.click("#pl-begin")
        page.wait_for_selector("text=Talk to the model")

    with read_only(house.sessions) as session:
        user = session.scalars(select(User).filter_by(name=name)).one()
        rows = session.scalars(select(Annotation).where(Annotation.user_id == user.id).order_by(Annotation.id)).all()
        assert [row.preferences[0].outcome for row in rows] == [Outcome.FIRST, Outcome.SECOND]
        assert (len(rows[0].critiques), len(rows[0].refinements)) == (1, 1)
        for row in rows:
            item, lease = session.get_one(Item, row.item_id), session.get_one(Assignment, row.assignment_id)
            assert (item.kind, item.owner_id) == (ItemKind.PLAYGROUND, user.id)
            assert (lease.reason, lease.propensity) == (SelectionReason.OWN, 1.0)
        asked = session.get_one(Prompt, session.get_one(Item, rows[1].item_id).prompt_id).messages
        assert [message["role"] for message in asked] == ["user", "assistant", "user"]
        assert asked[1]["content"] == "It is on its way and comes today."
        ended = session.scalars(
            select(Run.status).where(Run.kind == RunKind.PLAYGROUND, Run.project.has(name=project)).order_by(Run.id)
        ).all()
        assert ended == [RunStatus.FAILED, RunStatus.RUNNING]


def _talk(house, name) -> Conversation:
    with read_only(house.sessions) as session:
        user = session.scalars(select(User).filter_by(name=name)).one()
        return session.scalars(select(Conversation).filter_by(user_id=user.id)).one()


def test_looks_on_a_phone_and_in_the_dark(house, visit, picture):
    """What a person sees who comes back to completions that they have not judged."""

    def look(page, state):
        for dark, width in ((True, 1280), (False, 390)):
            page.emulate_media(color_scheme="dark" if dark else "light")
            page.set_viewport_size({"width": width, "height": 844})
            page.wait_for_function("dark => document.body.classList.contains('dark') === dark", arg=dark)
            picture(page, f"play-{'dark' if dark else 'light'}-{width}-{state}")
            assert page.evaluate("document.documentElement.scrollWidth") <= width

    name, project = house.person(), house.project()
    with house.sessions.begin() as session:
        found, user = factories.projects.get_project(session, project), factories.accounts.get_user(session, name)
        talk = playground.my_conversation(session, found, user)
        playground.send(session, found, talk, "Where is my order 4417?")
        run = factories.runs.claim_run(session, "w", [RunKind.PLAYGROUND])
        turn = turns.turns_waiting(session, found.id)[0]
        turns.hand_over(session, turn, run.id)
        turns.add_pieces(session, run.id, turn.key, [(0, "It is on its way"), (0, "Please ask")])
        version = factories.registry.base_version(session, found, "starter")
    with visit(name, url_of(project, "play")) as page:
        page.wait_for_selector(WRITING, state="attached")
        page.wait_for_function("() => document.querySelector('#fb-side-b .fb-text').innerText === 'Please ask'")
        look(page, "writing")
        assert page.is_visible("#pl-stop")
        with house.sessions.begin() as session:
            written = [
                turns.WrittenTurn(text, version.id, {}, 1, 9, -1.0, 80.0)
                for text in ("It is on its way.", "Please ask the courier.")
            ]
            turns.enter_written(session, run.id, turn.key, written)
        page.wait_for_selector(ITEM, state="attached")
        look(page, "item")
        assert page.is_visible("#fb-submit")
        page.click("#pl-leave")
        page.wait_for_selector("text=Talk to the model")
        look(page, "empty")


def test_another_project_is_shown_while_the_first_one_answers(house, visit):
    """The page waits for the model of one project; the person goes to another one, and stays there."""
    name, first, second = house.person(), house.project(), house.project()
    with visit(name, url_of(first, "play")) as page:
        page.wait_for_selector(TYPING, state="attached")
        page.fill(BOX, "Where is my order 4417?")
        page.dblclick("#pl-send")  # the second click is harmless
        page.wait_for_selector(WRITING, state="attached")
        page.fill("#fb-project input", second)
        page.press("#fb-project input", "Enter")
        page.wait_for_selector(TYPING, state="attached")
        with house.sessions.begin() as session:
            project = factories.projects.get_project(session, first)
            version = factories.registry.base_version(session, project, "starter")
            run = session.scalars(select(Run).filter_by(kind=RunKind.PLAYGROUND, project_id=project.id)).one()
            turn = turns.turns_waiting(session, project.id)[0]
            turns.hand_over(session, turn, run.id)
            texts = ("It is on its way.", "Please ask the courier.")
            turns.enter_written(
                session, run.id, turn.key, [turns.WrittenTurn(one, version.id, {}, 1, 9, -1.0, 80.0) for one in texts]
            )
        page.wait_for_timeout(1500)  # three looks of the event that would show it
        assert page.query_selector(TYPING) is not None
        page.fill("#fb-project input", first)
        page.press("#fb-project input", "Enter")
        page.wait_for_selector(ITEM, state="attached")


def test_stop_right_after_send_is_the_last_word(house, visit, monkeypatch):
    """The page looks whether its message was taken; what it saw comes after Stop has taken the message back."""
    name, project = house.person(), house.project()
    looked, shown, look = threading.Event(), threading.Event(), handlers.look

    def slow_look(*asked):
        view = look(*asked)
        if view.state == "writing" and not shown.is_set():
            looked.set()
            assert shown.wait(30)
        return view

    monkeypatch.setattr(handlers, "look", slow_look)
    with visit(name, url_of(project, "play")) as page:
        page.wait_for_selector(TYPING, state="attached")
        page.fill(BOX, "Where is my order 4417?")
        page.click("#pl-send")
        assert looked.wait(30)
        page.click("#pl-stop")
        page.wait_for_selector(TYPING, state="attached")
        shown.set()
        page.wait_for_timeout(1500)  # what was seen before it would be there by now
        assert page.query_selector(TYPING) is not None
        _typed(page, "Where is my order 4417?")


def test_of_two_projects_chosen_one_after_the_other_the_second_is_shown(house, visit, monkeypatch):
    name, (first, slow, quick) = house.person(), [house.project(guidelines=f"Mind the {what}.") for what in "abc"]
    opened, shown, open_page = threading.Event(), threading.Event(), handlers.open_page

    def slowly(ctx, user, project, kept):
        view = open_page(ctx, user, project, kept)
        if project == slow:
            opened.set()
            assert shown.wait(30)
        return view

    def choose(page, project):
        page.fill("#fb-project input", project)
        page.press("#fb-project input", "Enter")

    monkeypatch.setattr(handlers, "open_page", slowly)
    with visit(name, url_of(first, "play")) as page:
        page.wait_for_selector(TYPING, state="attached")
        choose(page, slow)
        assert opened.wait(30)
        choose(page, quick)
        page.wait_for_selector("#fb-guidelines >> text=Mind the c.", state="attached")
        shown.set()
        page.wait_for_timeout(1500)  # what was asked for before it would be there by now
        assert page.query_selector("#fb-guidelines >> text=Mind the c.") is not None
        assert page.input_value("#fb-project input") == quick
