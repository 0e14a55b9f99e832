"""What people say of model versions, behind the Models tab: a blind test, the trend by version, alerts."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from storage import blind_tests, live_figures, monitoring
from storage.blind_tests import Standing
from storage.live_figures import Trend
from storage.models import Alert, BlindTest, ModelVersion, Project
from storage.monitoring import Watched


@dataclass(frozen=True)
class BlindView:
    """A blind test and how it stands."""

    test: BlindTest
    standing: Standing
    candidate: str
    champion: str


@dataclass(frozen=True)
class ServiceView:
    """The blind test that is going on, or the newest of the selected version; figures by version; alerts."""

    test: BlindView | None
    trends: list[Trend]
    watched: Watched | None
    least: int  # judgements before an alert
    alerts: list[Alert]


def see_service(session: Session, project: Project, version: ModelVersion, least: int) -> ServiceView:
    """What people say of the versions of a project."""
    test = blind_tests.running_test(session, project) or blind_tests.latest_test(session, version)
    view = None
    if test is not None:
        names = [session.get_one(ModelVersion, one).name for one in (test.candidate_id, test.champion_id)]
        view = BlindView(test, blind_tests.standing(session, test), *names)
    return ServiceView(
        test=view,
        trends=live_figures.trends(session, project),
        watched=monitoring.watched(session, project),
        least=least,
        alerts=monitoring.recent_alerts(session, project),
    )
