"""What the commands share: their options, how they speak, and the way to the store."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, sessionmaker

    from feedback_app.settings import Settings
    from storage.enums import LinkPurpose
    from storage.models import Project, User

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object, last on stdout.")]
RunSettings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A setting of the run, e.g. seed=2; may be repeated."),
]
WaitFlag = Annotated[bool, typer.Option("--wait", help="Stay until it has ended; when no worker takes it, do it here.")]
ProjectName = Annotated[str, typer.Option("--project", "-p", metavar="PROJECT", help="The project's name.")]
OptionalProject = Annotated[
    str | None,
    typer.Option("--project", "-p", metavar="PROJECT", help="The project's name; may be left out when there is one."),
]

FIRST_COLUMN = 24  # characters of a table that are not squeezed


class Store(NamedTuple):
    """An open store and the settings that led to it."""

    settings: Settings
    sessions: sessionmaker[Session]


@contextmanager
def open_store() -> Iterator[Store]:
    """The installation's store; an empty database gets its tables first, an older or newer one is refused."""
    from feedback_app.settings import load_settings
    from storage.engine import make_engine, make_sessions, translate_errors

    settings = load_settings()
    with translate_errors():
        prepare_home(settings)
        prepare_schema(settings)
        engine = make_engine(settings.store_url)
        try:
            yield Store(settings, make_sessions(engine))
        finally:
            engine.dispose()


def prepare_home(settings: Settings) -> None:
    """Make the data folder, for its owner only: it holds what people wrote."""
    from storage.errors import StoreUnavailable

    try:
        settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnavailable(
            f"the data folder {settings.home} cannot be made ({error.strerror}); set FEEDBACK_HOME to a folder of yours"
        ) from error


def prepare_schema(settings: Settings) -> None:
    """Create the tables of an empty database; `StoreUnavailable` for an older or a newer schema."""
    from storage.schema import check, require_current, upgrade

    if check(settings.store_url).state == "empty":
        upgrade(settings.store_url)
    require_current(settings.store_url)


def pick_project(session: Session, name: str | None) -> Project:
    """The named project, or the only one there is."""
    from storage.errors import Invalid
    from storage.projects import get_project, list_projects

    if name is not None:
        return get_project(session, name)
    projects = list_projects(session)
    if len(projects) == 1:
        return projects[0]
    known = (
        ", ".join(project.name for project in projects) or "none yet; import prompts or run `feedback-app up --demo`"
    )
    raise Invalid(f"say which project with --project NAME; projects: {known}")


def one_time_link(settings: Settings, session: Session, user: User, purpose: LinkPurpose) -> str:
    """A new link that signs the user in once, as people click it."""
    from storage.accounts import issue_link

    token = issue_link(session, user, purpose, timedelta(hours=settings.link_hours))
    return f"{settings.url}/login/link/{token}"


def say(line: str) -> None:
    """A line for the person at the terminal: stderr, so that stdout stays what scripts read."""
    print(line, file=sys.stderr, flush=True)


def emit(payload: dict[str, Any], as_json: bool, *lines: Any) -> None:
    """End a command: the payload as one JSON object, or `lines` (texts and rich tables) for people."""
    if as_json:
        print(json.dumps(payload, default=plain), flush=True)
        return
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for line in lines:
        console.print(line, markup=False) if isinstance(line, str) else console.print(line)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str | None = None) -> Any:
    """A rich table; values are shown by `shown` and never read as markup."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    result = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, show_header=any(columns))
    texts = [[shown(value) for value in row] for row in rows]
    for number, column in enumerate(columns):
        # What a row is about stays on one line; the figures beside it can wrap between words.
        longest = max((len(row[0]) for row in texts), default=0) if number == 0 else 0
        result.add_column(column, overflow="fold", min_width=min(longest, FIRST_COLUMN))
    for row in texts:
        result.add_row(*(Text(text) for text in row))
    return result


def shown(value: Any) -> str:
    """A value for people: short numbers, local reading order of times, a dash for nothing."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return str(value)


def plain(value: Any) -> Any:
    """What JSON does not know, as JSON."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
