"""Quality figures: what operators see of agreement and of each annotator. Annotators never see each other's figures."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from feedback_app import policies
from feedback_app.handlers.context import Context
from storage import members
from storage.models import utc_now
from storage.quality import Report, quality_report

# So that the tab opens at once however large a project is; the command line looks at everything.
NEWEST = 5_000


@dataclass(frozen=True)
class QualityView:
    """The figures of a project; None where there is no project yet."""

    report: Report | None
    now: datetime


def see_quality(ctx: Context, name: str | None, project: str | None) -> QualityView:
    """The figures of the newest annotations in `project`."""
    with ctx.reading(name, policies.see_operations) as (session, user):
        found = members.find_project(session, user, project) if project else None
        return QualityView(quality_report(session, found, NEWEST) if found else None, utc_now())
