"""One application for the whole suite, with people and items; every test works with users and projects of its own."""

from __future__ import annotations

import itertools
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker
from starlette.routing import Mount
from starlette.testclient import TestClient

from feedback_app.handlers.context import Context
from feedback_app.security import COOKIE, hash_password
from feedback_app.server import create_app, listen
from feedback_app.settings import Settings, load_settings
from storage.engine import make_engine, make_sessions
from storage.enums import Role, RunStatus
from storage.models import Run
from tests import factories
from tests.browser import chromium, open_browser, picture

__all__ = ["chromium", "open_browser", "picture"]

PASSWORD = "correct horse battery"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class House:
    """The application under test and its store."""

    settings: Settings
    app: FastAPI
    sessions: sessionmaker[Session]

    @property
    def ctx(self) -> Context:
        return Context(self.settings, self.sessions)

    def person(self, role: Role = Role.ANNOTATOR, *, password: bool = False) -> str:
        """A new user; hashing is slow, so a password only where the test signs in with one."""
        name = f"{role.value}-{next(_numbers)}"
        with self.sessions.begin() as session:
            factories.make_user(session, name, role, password_hash=hash_password(PASSWORD) if password else None)
        return name

    def cookie(self, name: str) -> str:
        """The session cookie of a signed-in browser."""
        with self.sessions.begin() as session:
            return factories.make_login(session, factories.accounts.get_user(session, name))

    def project(self, items: int = 0, **fields: Any) -> str:
        """A new project with `items` pairs in its queue."""
        with self.sessions.begin() as session:
            project = factories.make_project(session, f"project {next(_numbers)}", **fields)
            factories.make_items(session, project, items)
            return project.name


@contextmanager
def housed(template: Path, home: Path) -> Iterator[House]:
    """An application with a store of its own, in `home`."""
    shutil.copy(template, home / "feedback.db")
    settings = load_settings(home=home, port=0, max_upload_mb=1)
    engine = make_engine(settings.store_url)
    yield House(settings, create_app(settings), make_sessions(engine))
    engine.dispose()


@pytest.fixture(scope="session")
def house(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with housed(sqlite_template, tmp_path_factory.mktemp("home")) as made:
        yield made


@pytest.fixture
def client(house: House) -> TestClient:
    """A browser without JavaScript that nobody is signed in with; it follows no redirects."""
    # Without its lifespan, which would close the shared store.
    return TestClient(house.app, base_url="http://testserver", follow_redirects=False)


@pytest.fixture
def as_user(house: House) -> Callable[[str], TestClient]:
    """A client signed in as a user."""

    def sign_in(name: str) -> TestClient:
        made = TestClient(house.app, base_url="http://testserver", follow_redirects=False)
        made.cookies.set(COOKIE, house.cookie(name))
        return made

    return sign_in


@pytest.fixture
def idle_queue(house: House) -> Iterator[None]:
    """No run is queued or running, before and after: whoever claims the oldest would take another test's."""

    def empty() -> None:
        with house.sessions.begin() as session:
            unfinished = update(Run).where(Run.status.in_((RunStatus.QUEUED, RunStatus.RUNNING)))
            session.execute(unfinished.values(status=RunStatus.CANCELLED))

    empty()
    yield
    empty()


@contextmanager
def serving(app: FastAPI, settings: Settings) -> Iterator[str]:
    """Serve on a free port in a thread; gives the address."""
    sock = listen(settings)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive(), "the server ended"
        assert time.monotonic() < deadline, "the server did not start in time"
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(15)
        assert not thread.is_alive(), "the server did not stop"


@contextmanager
def at_home(house: House) -> Iterator[str]:
    """The application on a real port."""
    with serving(house.app, house.settings) as url:
        yield url
        # Whoever starts the shared application once more, and ends it, ends what its pages answer from.
        pages = [mount.app for mount in house.app.routes if isinstance(mount, Mount)]
        queues = [page.get_blocks()._queue for page in pages if hasattr(page, "get_blocks")]
        assert queues
        assert not any(queue.stopped for queue in queues)


@pytest.fixture(scope="session")
def address(house: House) -> Iterator[str]:
    with at_home(house) as url:
        yield url


Visit = Callable[..., AbstractContextManager[Any]]


@pytest.fixture
def visit(house: House, address: str, open_browser: Any) -> Visit:
    """`with visit(name, "/annotate/") as page:` opens a page in Chromium, signed in; `script` runs before its own."""

    @contextmanager
    def opened(name: str, path: str, script: str = "", **size: Any) -> Iterator[Any]:
        with open_browser(**size) as page:
            page.add_init_script(script)
            page.context.add_cookies([{"name": COOKIE, "value": house.cookie(name), "url": address, "httpOnly": True}])
            page.goto(address + path)
            yield page

    return opened


@pytest.fixture(scope="module")
def one_page(chromium: Any) -> Iterator[Any]:
    """One page for a whole file: what pages load stays in its cache."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()


@pytest.fixture
def visit_again(house: House, address: str, one_page: Any) -> Visit:
    """As `visit`, in the one page of the file; the name "" is nobody's."""

    @contextmanager
    def opened(name: str, path: str) -> Iterator[Any]:
        one_page.context.clear_cookies()
        one_page.set_viewport_size({"width": 1280, "height": 900})
        if name:
            cookie = {"name": COOKIE, "value": house.cookie(name), "url": address, "httpOnly": True}
            one_page.context.add_cookies([cookie])
        one_page.goto(address + path)
        yield one_page

    return opened


@pytest.fixture
def no_download_left(house: House) -> Iterator[None]:
    """What the test downloads is on the disk no longer."""
    folder = house.settings.home / "tmp" / "downloads"
    before = set(folder.glob("*"))
    yield
    assert set(folder.glob("*")) <= before


@pytest.fixture
def olga(house: House) -> str:
    """The name of an operator."""
    return house.person(Role.OPERATOR)
