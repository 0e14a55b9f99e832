"""What people say of model versions, behind the Models tab: a blind test, and figures by version."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from feedback_app import policies
from feedback_app.handlers.context import Context
from storage import blind_tests, live_figures, members, monitoring
from storage.blind_tests import Standing
from storage.errors import FeedbackError, NotFound
from storage.gate import gate_settings
from storage.live_figures import Trend
from storage.models import BlindTest, ModelVersion, Project
from storage.monitoring import Watched
from storage.registry import get_version


@dataclass(frozen=True)
class BlindView:
    """A blind test and how it stands."""

    test: BlindTest
    standing: Standing
    candidate: str
    champion: str


@dataclass(frozen=True)
class ServiceView:
    """The blind test that is going on, or the newest of the selected version; figures by version."""

    test: BlindView | None
    trends: list[Trend]
    watched: Watched | None
    least: int  # judgements before an alert
    error: float  # the chance that a champion raises one for nothing
    version: str | None = None  # the selected one
    no_test: FeedbackError | None = None  # why it cannot stand in a blind test


def see_service(ctx: Context, name: str | None, project: str | None, version: Any) -> ServiceView | None:
    """What people say of the versions of a project, `version` the selected one; None while there is none.

    Reads all that they said: half a second at 50,000 annotations.
    """
    with ctx.reading(name, policies.see_operations) as (session, user):
        found = members.find_project(session, user, project) if project else None
        return _service(session, found, version) if found else None


def _service(session: Session, project: Project, version: Any) -> ServiceView:
    test, row = blind_tests.running_test(session, project), None
    if isinstance(version, str):
        with suppress(NotFound):  # of the project that was chosen before
            row = get_version(session, project, version)
    if test is None and row is not None:
        test = blind_tests.latest_test(session, row)
    view = None
    if test is not None:
        names = [session.get_one(ModelVersion, one).name for one in (test.candidate_id, test.champion_id)]
        view = BlindView(test, blind_tests.standing(session, test), *names)
    return ServiceView(
        test=view,
        trends=live_figures.trends(session, project),
        watched=monitoring.watched(session, project),
        least=gate_settings(project).watch_least,
        error=gate_settings(project).watch_error,
        version=row.name if row else None,
        no_test=blind_tests.refusal(session, project, row) if row else None,
    )
