"""The pictures of the documents, taken of a store that `feedback-app demo` has filled; only where they are asked for.

FEEDBACK_SCREENSHOTS names the folder. The demo takes some minutes; with PICTURES_OF its folder (`feedback-app demo
--home DIR`) can be used again and again: a copy of it is opened.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from feedback_app.demo_people import Annotator, Taste
from feedback_app.demo_project import DEMO_PROJECT
from feedback_app.security import COOKIE
from storage import accounts, annotations, gold, projects
from storage.engine import make_engine, make_sessions
from storage.enums import ItemStatus, Role
from storage.models import Annotation, Critique, Item, Project, Resolution, User
from storage.practice import begin_round, practise_next
from tests import factories
from tests.app import App, running_app, until
from tests.browser import SCREENSHOTS, OpenBrowser
from tests.e2e.conftest import Picture
from tests.web.looking import ITEM

pytestmark = [
    pytest.mark.skipif(not SCREENSHOTS, reason="FEEDBACK_SCREENSHOTS asks for the pictures of the documents"),
    pytest.mark.timeout(1800),
]
NAMES, LEARNERS = ("Mira", "Jonas", "Aiko"), ("Nora", "Sven")
SECOND_LOOKS, GOLD = 60, 6  # items that everybody has judged, and of which an operator says what is right
WORDS = {"polite": "not polite", "kind": "not polite", "date": "no date", "when": "no date", "short": "too long"}
WHY = "The right one greets by name, gets the order right and says what happens *by when*."
MESSAGE = "Hello, I am Nora. The black lamp from order #44170 has not arrived after 9 days. Where is it?"


def test_the_pictures_of_the_documents(open_browser: OpenBrowser, tmp_path: Path, picture: Picture) -> None:
    home = _demo(tmp_path)
    cookies = _furnish(home)
    with running_app(home) as app:

        @contextmanager
        def seen_by(name: str, path: str, **looks: Any) -> Iterator[Any]:
            with open_browser(**looks) as page:
                page.context.add_cookies([{"name": COOKIE, "value": cookies[name], "url": app.url}])
                page.goto(app.url + path)
                yield page

        with open_browser() as page:
            page.goto(app.url + "/login")
            picture(page, "login")
        _operating(seen_by, picture)
        _annotating(seen_by, picture)
        _talking(seen_by, picture)
        _asked_back(seen_by, app, picture)


def _demo(folder: Path) -> Path:
    made = folder / "home"
    if kept := os.environ.get("PICTURES_OF"):
        shutil.copytree(kept, made)
    else:
        subprocess.run([sys.executable, "-m", "feedback_app", "demo", "--home", str(made)], check=True)
        asked = ["evaluate", "policy-v1", "--project", DEMO_PROJECT, "--wait"]
        place = os.environ | {"FEEDBACK_HOME": str(made)}
        subprocess.run([sys.executable, "-m", "feedback_app", *asked], env=place, check=True)
    return made


# --- the store ---


def _furnish(home: Path) -> dict[str, str]:
    """Names, tags, second opinions and gold items; gives everybody's session cookie."""
    engine = make_engine(f"sqlite:///{home / 'feedback.db'}")
    with make_sessions(engine).begin() as session:
        project = projects.get_project(session, DEMO_PROJECT)
        asked = {"daily_target": 120, "practice_items": 4, "check_every": 15, "resolution_share": 1.0}
        tags = [*dict.fromkeys(WORDS.values()), "invented"]
        projects.update_project(session, project, tags=tags, overlap=len(NAMES))
        people = list(session.scalars(select(User).where(User.role == Role.ANNOTATOR).order_by(User.id)))
        for user, name in zip(people, NAMES, strict=True):
            user.name = name
        learners = [accounts.create_user(session, name, Role.ANNOTATOR) for name in LEARNERS]
        olga = accounts.create_user(session, "Olga", Role.ADMIN)
        _mark(session, project, olga)
        projects.update_project(session, project, annotation_settings=asked)
        _look_again(session, project, people)
        for number, user in enumerate(learners):
            _practise(session, project, user, Annotator(Taste(1 + number), random.Random(number)))
        for critique in session.scalars(select(Critique)):
            critique.tags = [tag for word, tag in WORDS.items() if word in critique.text.lower()][:1]
        cookies = {user.name: factories.make_login(session, user) for user in [*people, olga]}
    engine.dispose()
    return cookies


def _quality(project: Project) -> int:
    return next(one.id for one in project.criteria if one.name == "quality")


def _mark(session: Session, project: Project, who: User) -> None:
    expert = Annotator(Taste(1), random.Random(0))
    items = session.scalars(select(Item).where(Item.status == ItemStatus.OPEN).order_by(Item.id).limit(GOLD))
    for item in items:
        texts = [(one.completion_id, one.completion.text) for one in item.members]
        said = expert.judge(item.prompt.messages, texts, _quality(project))
        gold.mark(session, item, gold.standard_from(said, explanation=WHY), who)


def _look_again(session: Session, project: Project, people: list[User]) -> None:
    """What one person has judged the others judge as well."""
    waiting = list(session.scalars(select(Item).where(Item.status == ItemStatus.OPEN, Item.gold.is_(None))))
    judged = select(Item.id).where(Item.status == ItemStatus.DONE).order_by(Item.id).limit(SECOND_LOOKS)
    session.execute(update(Item).where(Item.id.in_(judged)).values(status=ItemStatus.OPEN))
    for item in waiting:
        item.status = ItemStatus.STALE  # out of the way for the moment
    session.flush()
    session.expire_all()
    for number, user in enumerate(people):
        rng = random.Random(number)
        person = Annotator(Taste(1), rng)
        while (lease := factories.items.lease_next(session, project, user, rng=rng)) is not None:
            said = person.judge(lease.prompt_messages, lease.completions, _quality(project))
            annotations.submit(session, lease.assignment_id, user, said)
    for item in waiting:
        item.status = ItemStatus.OPEN


def _practise(session: Session, project: Project, user: User, person: Annotator) -> None:
    begin_round(session, project, user)
    while (lease := practise_next(session, project, user, rng=random.Random(0))) is not None:
        said = person.judge(lease.prompt_messages, lease.completions, _quality(project))
        annotations.submit(session, lease.assignment_id, user, said)


# --- the pages ---


def _operating(seen_by: Any, picture: Picture) -> None:
    tabs = {
        "Models": "#op-versions table",
        "Data": "#op-exports table",
        "Gold": "#op-gold-people table",
        "Users": "#op-users table",
        "Project": "#op-members",
    }
    with seen_by("Olga", f"/operate/?project={DEMO_PROJECT}") as page:
        page.click("#op-runs tr:has-text('dpo')")
        page.wait_for_selector("#op-run-head >> text=dpo")
        page.wait_for_selector("#op-plots .mark-line path[stroke]")
        page.evaluate("scrollTo(0, 0)")
        picture(page, "operate-runs")
        for tab, seen in tabs.items():
            page.get_by_role("tab", name=tab).click()
            page.wait_for_selector(seen)
            if tab == "Models":
                page.click("tr[data-version^=policy]:not(:has-text('policy-v0'))")
                page.wait_for_selector(".op-compare")
                page.set_viewport_size({"width": 1280, "height": 1360})
            picture(page, f"operate-{tab.lower()}")
            page.set_viewport_size({"width": 1280, "height": 900})
    for path, name in (("/lineage/{}/policy-v1", "lineage"), ("/compare/{}?v=policy-v0&v=policy-v1", "compare")):
        with seen_by("Olga", path.format(DEMO_PROJECT)) as page:
            page.wait_for_selector("h1")
            picture(page, name)
    with seen_by("Olga", f"/operate/?project={DEMO_PROJECT}", dark=True) as page:
        page.get_by_role("tab", name="Quality").click()
        page.wait_for_selector("#op-quality section")
        picture(page, "operate-quality")


def _annotating(seen_by: Any, picture: Picture) -> None:
    with seen_by("Mira", f"/annotate/?project={DEMO_PROJECT}") as page:
        page.wait_for_selector(ITEM)
        page.keyboard.press("1")
        page.keyboard.press("1")
        page.click("#fb-side-a .fb-rating label:nth-child(4) >> nth=0")
        page.fill("#fb-side-b .fb-critique textarea", "Kind, but it could say the same in half the words.")
        page.click("#fb-side-b .fb-tag >> text=too long")
        page.fill("#fb-side-b .fb-fix textarea", "We are sorry, and see to it today.")
        page.keyboard.press("Escape")
        picture(page, "annotate")
    for name, looks in {"annotate-dark": {"dark": True}, "annotate-phone": {"width": 390, "height": 844}}.items():
        with seen_by("Jonas", f"/annotate/?project={DEMO_PROJECT}", **looks) as page:
            page.wait_for_selector(ITEM)
            page.keyboard.press("2")
            picture(page, name)
    with seen_by("Mira", f"/mine/?project={DEMO_PROJECT}") as page:
        page.wait_for_selector(".mi-lines a")
        picture(page, "mine")


def _talking(seen_by: Any, picture: Picture) -> None:
    with seen_by("Mira", f"/play/?project={DEMO_PROJECT}") as page:
        page.fill("#pl-box textarea", MESSAGE)
        page.keyboard.press("Enter")
        page.wait_for_selector(ITEM, state="attached", timeout=300_000)
        page.keyboard.press("1")
        picture(page, "playground")


def _asked_back(seen_by: Any, app: App, picture: Picture) -> None:
    """After the demo's promotion the worker has the new champion answer where people criticised."""
    engine = make_engine(f"sqlite:///{app.home / 'feedback.db'}")
    sessions = make_sessions(engine)

    def entered() -> int:
        with sessions() as session:
            return session.scalar(select(func.count(Resolution.id))) or 0

    until(entered, "answers to critiques", 600)
    with sessions() as session:
        joined = select(User.name).join(Annotation).join(Critique).join(Resolution)
        asked = session.scalars(joined.where(Resolution.item_id.is_not(None))).first()
    engine.dispose()
    for path, name in (("/questions", "questions"), ("/critiques", "critiques")):
        with seen_by(asked or NAMES[0], f"{path}?project={DEMO_PROJECT}") as page:
            page.wait_for_selector("h1")
            picture(page, name)
