"""Two to four versions side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from feedback_app import policies
from feedback_app.handlers.context import Context
from storage import comparing, members, registry
from storage.chances import Chances
from storage.comparing import Comparison, WrittenPage
from storage.errors import Invalid
from storage.models import ModelVersion, Project


@dataclass(frozen=True)
class CompareView:
    """The versions there are to choose from, and those that were chosen side by side; `problem`: why not."""

    project: str
    versions: list[ModelVersion]
    chosen: list[str]
    comparison: Comparison | None
    page: WrittenPage
    chances: Chances
    problem: Invalid | None = None


def see_comparison(
    ctx: Context, name: str | None, project: str, chosen: Sequence[str], before: int | None = None
) -> CompareView:
    """The chosen versions side by side; without a choice, the champion and the newest candidate where both are there.

    Raises `NotFound` for a project or a version that is not there for this person.
    """
    with ctx.reading(name, policies.see_operations) as (session, user):
        found = members.get_project(session, user, project)
        every = registry.list_versions(session, found)
        nothing, unknown = WrittenPage([], None), Chances({}, "")
        wanted = list(chosen) or _usual(session, found)
        if not wanted:
            return CompareView(found.name, every, [], None, nothing, unknown)
        try:
            versions = comparing.pick_versions(session, found, wanted)
        except Invalid as error:
            return CompareView(found.name, every, wanted, None, nothing, unknown, error)
        page = comparing.written(session, versions, before=before)
        return CompareView(
            project=found.name,
            versions=every,
            chosen=[version.name for version in versions],
            comparison=comparing.compare(session, versions),
            page=page,
            chances=comparing.chances_of(session, found, page.rows),
        )


def _usual(session: Session, project: Project) -> list[str]:
    pair = registry.champion(session, project), registry.newest_candidate(session, project)
    return [one.name for one in pair if one is not None] if None not in pair else []
