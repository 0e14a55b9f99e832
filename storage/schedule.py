"""When a project trains by itself: a pure decision from its policy, its annotations and its runs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from apscheduler.triggers.cron import CronTrigger
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from storage import audit
from storage.configs import PolicyMode, TrainingPolicy, parse
from storage.enums import RunKind, RunStatus
from storage.errors import Invalid
from storage.models import AuditEvent, Project, Run
from storage.progress import count_usable
from storage.registry import champion
from storage.resolution import resolution_rates

STARTED = [kind for kind in RunKind if kind.trains or kind is RunKind.CYCLE]  # what a policy can start
_TRAINING = ", ".join(STARTED)
_REFUSED = "train.refused"  # in the log; its subject is the cause
_NEWS = timedelta(minutes=5)  # between two refusals of one cause that are noted


@dataclass(frozen=True)
class Due:
    """What the policy asks for now.

    `kinds` is empty unless training is due; each kind is queued with its own cause, `f"{cause}:{kind}"`. `next_at` is
    the next cron time; `reason` is one line for people: why training is due, or why not and what it waits for.
    `refused` says why the kinds that are due have not started, as of the last look of a worker.
    """

    reason: str
    kinds: list[RunKind] = field(default_factory=list)
    cause: str | None = None
    next_at: datetime | None = None
    refused: tuple[str, ...] = ()


def check_policy(policy: TrainingPolicy) -> None:
    """Raise `Invalid` when a policy could never start: a bad cron line, or a kind that trains nothing."""
    for kind in policy.kinds:
        if kind not in STARTED:
            raise Invalid(f"setting 'kinds': '{kind}' trains nothing; choose from: {_TRAINING}")
    if not policy.kinds:
        raise Invalid(f"setting 'kinds' is empty; choose from: {_TRAINING}")
    if RunKind.CYCLE in policy.kinds and len(policy.kinds) > 1:
        raise Invalid("setting 'kinds': a cycle trains all that is needed; choose it alone, or leave it out")
    if policy.mode is PolicyMode.CRON:
        next_cron(policy.cron, datetime.now(UTC))


def next_cron(cron: str, after: datetime) -> datetime | None:
    """The first moment after `after` that matches the five cron fields (UTC); None when there is none any more."""
    try:
        trigger = CronTrigger.from_crontab(cron, timezone=UTC)
    except ValueError as error:
        raise Invalid(f"setting 'cron': {error}; write five fields, for example '0 3 * * *'") from error
    # The trigger's answer includes its start: passing `after` as the previous firing makes it strictly later.
    found: datetime | None = trigger.get_next_fire_time(after, after)
    return found


def due(session: Session, project: Project, now: datetime) -> Due:
    """Whether training is due for `project` at `now`, under which cause, and what to tell people.

    Two calls for one cause give the same cause, and `queue_training` refuses it the second time. A cause rests on the
    last training (every_n, resolution) or on the cron time that has passed, so a worker that was off makes up for one
    time, not for all it missed.
    """
    found = _due(session, project, now)
    return replace(found, refused=_refused(session, project, found)) if found.kinds else found


def note_refusal(session: Session, project: Project, found: Due, kind: RunKind, why: str, now: datetime) -> None:
    """Keep why a kind that is due could not start: what is new, and not every few seconds, however often one tries."""
    cause = f"{found.cause}:{kind.value}"
    last = _last_refusal(session, project, cause)
    if last is None or (last.detail["why"] != why and last.at < now - _NEWS):
        audit.record(session, None, _REFUSED, cause, project, kind=kind.value, why=why)


def _refused(session: Session, project: Project, found: Due) -> tuple[str, ...]:
    told = [_last_refusal(session, project, f"{found.cause}:{kind.value}") for kind in found.kinds]
    return tuple(dict.fromkeys(str(one.detail["why"]) for one in told if one is not None))


def _last_refusal(session: Session, project: Project, cause: str) -> AuditEvent | None:
    return session.scalar(
        select(AuditEvent)
        .where(AuditEvent.project_id == project.id, AuditEvent.action == _REFUSED, AuditEvent.subject == cause)
        .order_by(AuditEvent.id.desc())
        .limit(1)
    )


def _due(session: Session, project: Project, now: datetime) -> Due:
    policy = parse(TrainingPolicy, project.training_policy)
    if policy.mode is PolicyMode.OFF:
        return Due("training starts by hand only")
    kinds = [RunKind(kind) for kind in policy.kinds]
    last = _last_training(session, project)
    next_at = next_cron(policy.cron, now) if policy.mode is PolicyMode.CRON else None
    if last is not None and not last.status.ended:
        return Due(f"run {last.id} ({last.kind.value}) is {last.status.value}", next_at=next_at)
    fresh = count_usable(session, project, since=_trained_until(session, last) if last else None)
    if policy.mode is PolicyMode.EVERY_N:
        return _every_n(policy.every_n, fresh, last, kinds)
    if policy.mode is PolicyMode.RESOLUTION:
        return _resolution(session, project, policy, fresh, last, kinds)
    return _cron(policy.cron, project, fresh, last, kinds, now, next_at)


def _every_n(wanted: int, fresh: int, last: Run | None, kinds: list[RunKind]) -> Due:
    if fresh < wanted:
        more = "1 more annotation is" if wanted - fresh == 1 else f"{wanted - fresh} more annotations are"
        return Due(f"{more} needed ({fresh} of {wanted} since the last training)")
    since = f"run {last.id}" if last is not None else "the start"
    return Due(f"{fresh} new annotations since {since}", kinds, f"every_n after {since}")


def _resolution(
    session: Session, project: Project, policy: TrainingPolicy, fresh: int, last: Run | None, kinds: list[RunKind]
) -> Due:
    """Training follows a low rate and something new to learn from: else a low rate would train on and on."""
    version = champion(session, project)
    rates = resolution_rates(session, project).get(version.id) if version is not None else None
    if version is None or rates is None or rates.fixed.total < policy.resolution_least:
        known = rates.fixed.total if rates is not None else 0
        return Due(
            f"the resolution rate needs {policy.resolution_least} answers about the champion; there are {known} so far"
        )
    hits, total = rates.fixed.hits, rates.fixed.total
    if hits >= policy.resolution_below * total:
        bar = f"{policy.resolution_below:.0%}"
        return Due(f"{version.name} fixed {hits} of {total} things that people criticised, not less than {bar}")
    waits = _every_n(policy.every_n, fresh, last, kinds)
    reason = f"{version.name} fixed {hits} of {total} things that people criticised; {waits.reason}"
    since = f"run {last.id}" if last is not None else "the start"
    return Due(reason, waits.kinds, f"resolution after {since}" if waits.kinds else None)


def _cron(
    cron: str,
    project: Project,
    fresh: int,
    last: Run | None,
    kinds: list[RunKind],
    now: datetime,
    next_at: datetime | None,
) -> Due:
    since = last.created_at if last is not None else project.created_at
    passed = next_cron(cron, since)
    if passed is None or passed > now:
        when = f"{next_at:%Y-%m-%d %H:%M} UTC" if next_at else "never again"
        return Due(f"next training {when}", next_at=next_at)
    if fresh == 0:
        return Due("no new annotations since the last training", next_at=next_at)
    return Due(f"{fresh} new annotations at {passed:%Y-%m-%d %H:%M} UTC", kinds, f"cron {passed.isoformat()}", next_at)


def _last_training(session: Session, project: Project) -> Run | None:
    # An unfinished one first, whatever came after it; a cancelled one still answers its cause. A cycle stands for its
    # children.
    unfinished = Run.status.in_((RunStatus.QUEUED, RunStatus.RUNNING))
    return session.scalar(
        select(Run)
        .where(Run.project_id == project.id, Run.kind.in_(STARTED), Run.parent_run_id.is_(None))
        .order_by(unfinished.desc(), Run.id.desc())
        .limit(1)
    )


def _trained_until(session: Session, last: Run) -> datetime:
    """When the newest data was frozen that the last training used."""
    child = select(func.max(Run.created_at)).where(Run.parent_run_id == last.id, Run.snapshot_id.is_not(None))
    return session.scalar(child) or last.created_at
