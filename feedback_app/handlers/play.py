"""The playground: write to the project's models, see two completions come, judge them, go on. One transaction each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from feedback_app import policies
from feedback_app.handlers.annotate import ItemView, item_view
from feedback_app.handlers.annotate_form import parse_form, time_spent, to_submission, whole
from feedback_app.handlers.context import Context
from feedback_app.handlers.values import text
from storage import annotations as feedback
from storage import items, members, playground
from storage.configs import AnnotationSettings, parse
from storage.enums import Role, TurnState
from storage.errors import Conflict
from storage.leases import lease_of
from storage.models import Assignment, Conversation, Criterion, Message, Project, User
from storage.playground import Writer

State = Literal["no project", "off", "typing", "writing", "item", "judged"]


@dataclass(frozen=True)
class PlayView:
    """Where the person is. `texts` are the completions as far as they are written, from left to right."""

    user: str
    role: Role
    project: str | None
    projects: list[str]
    state: State
    guidelines: str = ""
    criteria: tuple[Criterion, ...] = ()
    tags: tuple[str, ...] = ()
    settings: AnnotationSettings = AnnotationSettings()  # noqa: RUF009  frozen
    messages: tuple[Message, ...] = ()
    draft: str = ""
    texts: tuple[str, ...] = ()
    turn: int = 0
    error: str = ""
    writer: Writer = Writer("asleep")  # noqa: RUF009  immutable
    item: ItemView | None = None
    rewritten: tuple[bool, ...] = ()  # by place: the person has written it as they would have it
    better: int | None = None  # the place of the completion that they preferred

    @property
    def moves(self) -> tuple[Any, ...]:
        """What may change by itself."""
        return (self.state, self.turn, self.texts, self.error, self.writer)

    @property
    def unsettled(self) -> bool:
        """Whether something changes without the person doing anything: to be looked at again soon."""
        return self.state == "writing" or (
            self.state in ("typing", "judged") and self.writer.state in ("waiting", "loading", "silent")
        )


def open_page(ctx: Context, name: str | None, project: str | None, kept: Any = None) -> PlayView:
    """The page as it is loaded: the conversation in the project asked for, or in the first; the model is woken."""
    with ctx.writing(name, policies.annotate) as (session, user):
        return _see(session, user, project, wake=True, kept=kept)


def look(ctx: Context, name: str | None, project: str | None) -> PlayView:
    """Look again; a message that no process will answer any more is seen to."""
    with ctx.reading(name, policies.annotate) as (session, user):
        found = members.find_project(session, user, project or "")
        talk = _talk(session, found, user) if found is not None and playground.is_on(found) else None
        if talk is None or found is None or not playground.left_alone(session, talk):
            return _see(session, user, project, talk=talk)
    with ctx.writing(name, policies.annotate) as (session, user):
        return _see(session, user, project)


def keep(ctx: Context, name: str | None, project: str | None, draft: Any) -> Writer:
    """Keep what is being typed, and have the model ready by the time it is sent."""
    with ctx.writing(name, policies.annotate) as (session, user):
        found = members.get_project(session, user, project or "")
        playground.keep_draft(session, playground.my_conversation(session, found, user), text(draft, "message"))
        playground.wake(session, found)
        return playground.writer_of(session, found)


def send(ctx: Context, name: str | None, project: str | None, said: Any) -> PlayView:
    """Ask for two completions; raises `Invalid` and `Conflict` as `storage.playground.send` does."""
    with ctx.writing(name, policies.annotate) as (session, user):
        found = members.get_project(session, user, project or "")
        talk = playground.my_conversation(session, found, user)
        playground.send(session, found, talk, text(said, "message"))
        return _see(session, user, found.name)


def stop(ctx: Context, name: str | None, project: str | None) -> PlayView:
    """Take back the message that is being answered."""
    with ctx.writing(name, policies.annotate) as (session, user):
        found = members.get_project(session, user, project or "")
        playground.stop(session, playground.my_conversation(session, found, user))
        return _see(session, user, found.name)


def begin_anew(ctx: Context, name: str | None, project: str | None) -> PlayView:
    """Leave the conversation and begin another one."""
    with ctx.writing(name, policies.annotate) as (session, user):
        found = members.get_project(session, user, project or "")
        playground.begin_anew(session, playground.my_conversation(session, found, user))
        playground.wake(session, found)
        return _see(session, user, found.name)


def go_on(ctx: Context, name: str | None, project: str | None, side: int, *, rewritten: bool) -> PlayView:
    """Go on with the completion at place `side`, or with the person's rewrite of it."""
    with ctx.writing(name, policies.annotate) as (session, user):
        found = members.get_project(session, user, project or "")
        playground.go_on(session, playground.my_conversation(session, found, user), side, rewritten=rewritten)
        playground.wake(session, found)
        return _see(session, user, found.name)


def submit(ctx: Context, name: str | None, project: str | None, assignment: Any, seconds: Any, raw: Any) -> PlayView:
    """Store what was said of the completions; a second submit is harmless. Raises `Invalid` when something misses."""
    try:
        with ctx.writing(name, policies.annotate) as (session, user):
            form, spent = parse_form(raw), time_spent(seconds)
            feedback.submit(session, whole(assignment), user, lambda shown: to_submission(shown, form, spent))
            return _see(session, user, project)
    except Conflict:  # another tab or a double click was first: show where the person is
        return look(ctx, name, project)


# --- to the page ---


def _talk(session: Session, project: Project, user: User) -> Conversation | None:
    return session.scalar(select(Conversation).filter_by(project_id=project.id, user_id=user.id))


def _see(
    session: Session,
    user: User,
    wanted: str | None,
    *,
    wake: bool = False,
    kept: Any = None,
    talk: Conversation | None = None,
) -> PlayView:
    known = members.list_projects(session, user)
    project = next((one for one in known if one.name == wanted), known[0] if known else None)
    names = [one.name for one in known]
    if project is None:
        return PlayView(user.name, user.role, None, names, "no project")
    closed = playground.closed_because(session, project, user)
    if closed is not None:
        return PlayView(user.name, user.role, project.name, names, "off", error=closed)
    if talk is None:
        talk = playground.my_conversation(session, project, user)
        playground.settle(session, project, talk)
        if wake:
            playground.wake(session, project)
    judged = playground.judged_assignment(session, talk)
    return PlayView(
        user=user.name,
        role=user.role,
        project=project.name,
        projects=names,
        state=_state(talk, judged),
        guidelines=project.guidelines,
        criteria=tuple(project.criteria),
        tags=tuple(project.tags),
        settings=parse(AnnotationSettings, project.annotation_settings),
        messages=tuple(talk.messages),
        draft=talk.draft,
        texts=tuple(talk.texts),
        turn=talk.turn,
        error=talk.error or "",
        writer=playground.writer_of(session, project),
        item=_item(session, project, user, talk, kept) if talk.state is TurnState.WRITTEN and judged is None else None,
        rewritten=_rewritten(session, judged),
        better=_better(session, judged),
    )


def _state(talk: Conversation, judged: Assignment | None) -> State:
    if talk.state is TurnState.WRITTEN:
        return "item" if judged is None else "judged"
    return "typing" if talk.state is TurnState.TYPING else "writing"


def _item(session: Session, project: Project, user: User, talk: Conversation, kept: Any) -> ItemView:
    assignment = items.own_assignment(session, talk.assignment_id or 0, user)
    return item_view(lease_of(session, assignment), project, kept)


def _rewritten(session: Session, judged: Assignment | None) -> tuple[bool, ...]:
    if judged is None:
        return ()
    mine = playground.rewrites(session, judged)
    return tuple(completion_id in mine for completion_id in judged.shown_order)


def _better(session: Session, judged: Assignment | None) -> int | None:
    found = playground.preferred(session, judged) if judged is not None else None
    return judged.shown_order.index(found) if judged is not None and found in judged.shown_order else None
