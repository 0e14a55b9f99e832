"""After a promotion: the version in service beside what it replaced, and alerts when it falls below.

The champion's live figures (`storage.live_figures`) are those of judgements since its promotion. They stand against
those that its predecessor had until then; the win rate, which depends on whom one meets, counts comparisons with the
predecessor alone and stands against a half. A figure that lies below with its whole interval, on as many judgements as
the project wants on both sides, raises an alert: a row, a webhook, a note on the page, and, where the project says so,
the predecessor takes over again. An alert ends when the figure is back, or the version is not in service any more.

The figures are looked at every minute, so the intervals hold at all looks together. A champion that is as good as its
predecessor raises an alert in its whole time with a probability of at most the project's `watch_error`, which its three
figures share: half of each part is for what comes in (a confidence sequence, `storage.sequential.reach`), half for the
predecessor's figure, which stands still and has an ordinary interval. The variance of ratings is drawn towards the
widest as in I. Waudby-Smith and A. Ramdas, *Estimating means of bounded random variables by betting* (JRSS B 86, 2024):
a few ratings that are all alike are sure of nothing. tests/storage/test_monitoring.py simulates the rate of alarms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import sqrt
from statistics import NormalDist
from typing import Any, NamedTuple

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from storage import audit
from storage.configs import parse
from storage.enums import VersionStatus
from storage.errors import Conflict
from storage.gate_configs import GateSettings
from storage.live_figures import NAMES, NOTHING, Live, figures_of, share_of, trends, wins_of
from storage.models import Alert, ModelVersion, Project, Promotion, utc_now
from storage.registry import champion, roll_back
from storage.sequential import reach
from storage.webhooks import WebhookEvent, announce

RECENT = timedelta(days=7)  # for which an alert that has ended is still told
_BEST = 4  # times `watch_least`: where the intervals are tightest
_WIDEST = 4.0  # the largest variance of a rating from 1 to 5


class Compared(NamedTuple):
    """A live figure of the champion beside the one that it is held to; `low` and `high` bound the difference always."""

    name: str
    live: Live
    before: Live
    difference: float | None
    low: float | None
    high: float | None
    enough: bool  # judgements on both sides

    @property
    def fallen(self) -> bool:
        """Whether the figure lies below, beyond doubt."""
        return self.enough and self.high is not None and self.high < 0

    @property
    def back(self) -> bool:
        """Whether nothing speaks for a fall any more."""
        return self.difference is None or self.difference >= 0


@dataclass(frozen=True)
class Watched:
    """The champion since its promotion, and the version that it replaced."""

    version: ModelVersion
    previous: ModelVersion
    promotion: Promotion
    compared: list[Compared]


def watched(session: Session, project: Project) -> Watched | None:
    """The champion's live figures beside its predecessor's; None where nobody was replaced by a promotion."""
    version = champion(session, project)
    if version is None:
        return None
    promotion = session.scalar(
        select(Promotion)
        .where(Promotion.version_id == version.id, Promotion.rolled_back_at.is_(None))
        .order_by(Promotion.id.desc())
        .limit(1)
    )
    previous = session.get(ModelVersion, promotion.previous_id) if promotion and promotion.previous_id else None
    if promotion is None or previous is None:
        return None
    settings, at = parse(GateSettings, project.gate_settings or {}), promotion.created_at
    live = figures_of(session, [version.id], since=at)[version.id]
    met = wins_of(session, [version.id], at, None)[version.id].get(previous.id, (0, 0))
    live["win_rate"] = share_of(*met)
    before = {"win_rate": Live(0.5, 0, 0.0)}
    if any(live[name].n >= settings.watch_least for name in NAMES[1:]):  # looked up only where it can say something
        before |= {name: row for name, row in figures_of(session, [previous.id], until=at)[previous.id].items()
                   if name != "win_rate"}  # fmt: skip
    compared = [_compare(name, live[name], before.get(name, NOTHING), settings) for name in NAMES]
    return Watched(version, previous, promotion, compared)


def _compare(name: str, live: Live, before: Live, settings: GateSettings) -> Compared:
    if live.value is None or before.value is None:
        return Compared(name, live, before, None, None, None, False)
    fixed = before.n == 0  # a half, not an estimate
    difference, least = live.value - before.value, settings.watch_least
    share = settings.watch_error / len(NAMES) / (1 if fixed else 2)
    far = sqrt(_variance(name, live)) * reach(live.n, share, _BEST * least)
    if not fixed:
        far += sqrt(_variance(name, before) / before.n) * NormalDist().inv_cdf(1 - share / 2)
    enough = live.n >= least and (fixed or before.n >= least)
    return Compared(name, live, before, difference, difference - far, difference + far, enough)


def _variance(name: str, one: Live) -> float:
    """Of one judgement; shares are drawn towards a half already."""
    return (_WIDEST + one.n * one.variance) / (one.n + 1) if name == "rating" else one.variance


def needs_watching(session: Session, project: Project) -> bool:
    """Whether `watch` would change something; reads only."""
    found = watched(session, project)
    return bool(_to_end(session, project, found) or _to_raise(session, project, found))


def watch(session: Session, project: Project, now: datetime | None = None) -> list[Alert]:
    """Raise and end the alerts of a project, and roll back where it says so; returns the alerts that are new.

    Twice in a row is as good as once, by however many workers.
    """
    session.execute(select(Project.id).where(Project.id == project.id).with_for_update(key_share=True))
    moment = now or utc_now()
    found = watched(session, project)
    for alert in _to_end(session, project, found):
        alert.ended_at = moment
    raised = [_raise(session, project, found, one, moment) for one in _to_raise(session, project, found) if found]
    session.flush()
    if raised and found is not None and parse(GateSettings, project.gate_settings or {}).roll_back:
        _roll_back(session, project, raised, moment)
    return raised


def _to_end(session: Session, project: Project, found: Watched | None) -> list[Alert]:
    back = {one.name for one in found.compared if one.back} if found else set()
    return [
        alert
        for alert in open_alerts(session, project)
        if found is None or alert.version_id != found.version.id or alert.name in back
    ]


def _to_raise(session: Session, project: Project, found: Watched | None) -> list[Compared]:
    if found is None:
        return []
    there = {alert.name for alert in open_alerts(session, project) if alert.version_id == found.version.id}
    return [one for one in found.compared if one.fallen and one.name not in there]


def _raise(session: Session, project: Project, found: Watched, fallen: Compared, now: datetime) -> Alert:
    live, before = fallen.live, fallen.before
    if fallen.name == "win_rate":
        text = f"{found.version.name} wins {live.value:.0%} of {live.n} comparisons with {found.previous.name}"
    else:
        text = (
            f"{fallen.name} of {found.version.name} is {live.value:.2f} on {live.n} judgements; "
            f"{found.previous.name} had {before.value:.2f} when it was replaced"
        )
    alert = Alert(
        project_id=project.id,
        version_id=found.version.id,
        name=fallen.name,
        text=text,
        figures={
            "live": live.as_dict(),
            "before": before.as_dict(),
            "difference": {"value": fallen.difference, "low": fallen.low, "high": fallen.high},
            "previous": found.previous.name,
            "rolled_back_to": None,
        },
        created_at=now,
    )
    session.add(alert)
    session.flush()
    audit.record(session, None, "alert", found.version.name, project, name=fallen.name, text=text)
    told = {"alert": alert.id, "version": found.version.name, "name": fallen.name, "text": text}
    announce(session, project.id, WebhookEvent.ALERT, told)
    return alert


def _roll_back(session: Session, project: Project, raised: Sequence[Alert], now: datetime) -> None:
    try:
        back = roll_back(session, project, None, reason=f"by itself: {raised[0].text}", now=now)
    except Conflict:
        return  # nothing was in service before: the alert stands
    for alert in open_alerts(session, project):
        alert.figures = {**alert.figures, "rolled_back_to": back.name}
        alert.ended_at = now
    session.flush()


def open_alerts(session: Session, project: Project) -> list[Alert]:
    """Alerts that have not ended, newest first."""
    wanted = select(Alert).where(Alert.project_id == project.id, Alert.ended_at.is_(None))
    return list(session.scalars(wanted.order_by(Alert.id.desc()).execution_options(populate_existing=True)))


def recent_alerts(session: Session, project: Project, now: datetime | None = None) -> list[Alert]:
    """Alerts that are open, or were raised within the last week; newest first."""
    since = (now or utc_now()) - RECENT
    wanted = select(Alert).where(
        Alert.project_id == project.id, or_(Alert.ended_at.is_(None), Alert.created_at >= since)
    )
    return list(session.scalars(wanted.order_by(Alert.id.desc()).limit(10)))


def as_shown(session: Session, project: Project) -> Mapping[str, Any]:
    """All of it for JSON."""
    found = watched(session, project)
    since = None
    if found is not None:
        since = {
            "version": found.version.name,
            "instead_of": found.previous.name,
            "promoted_at": found.promotion.created_at,
            "figures": [
                {
                    "name": one.name,
                    "live": one.live.as_dict(),
                    "before": one.before.as_dict(),
                    "difference": {"value": one.difference, "low": one.low, "high": one.high},
                    "enough": one.enough,
                    "fallen": one.fallen,
                }
                for one in found.compared
            ],
        }
    return {
        "champion": since,
        "versions": [
            {
                "version": row.version.name,
                "champion": row.version.status is VersionStatus.CHAMPION,
                **{name: figure.as_dict() for name, figure in row.figures.items()},
            }
            for row in trends(session, project)
        ],
        "alerts": [
            {"name": one.name, "text": one.text, "at": one.created_at, "ended_at": one.ended_at, **one.figures}
            for one in recent_alerts(session, project)
        ],
    }
