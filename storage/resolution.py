"""Was it fixed? After a promotion the people who criticised see what the new champion writes for the same prompt.

Which critiques are asked about is drawn by chance from all live ones on completions of other versions, those that were
called fixed before among them: otherwise a later version would only meet what the earlier ones failed at. Of critiques
on held-out prompts (validation and test: nothing of them ever trains) those with a tag that the drawn ones have come
first: a similar complaint where nothing could be learnt by heart. The same text as before is no fix, and nobody is
asked about it.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Select, exists, select
from sqlalchemy.orm import Session

from storage.configs import AnnotationSettings, GenerateConfig, parse
from storage.enums import ItemKind, ItemStatus, ModelKind, ResolutionVerdict, RunKind, Split
from storage.errors import Conflict, Invalid, NotFound
from storage.items import add_item, lock_item
from storage.judged import live_annotation
from storage.models import (
    Annotation,
    Completion,
    Critique,
    Item,
    ModelVersion,
    Project,
    Promotion,
    Prompt,
    Resolution,
    Run,
    User,
    utc_now,
)
from storage.quality.shares import Share
from storage.registry import champion
from storage.runs import queue_run
from storage.windows import belongs

MOST = 40  # critiques asked about after a promotion
A_PERSON = 10  # of them by one person
_HELD_OUT = 0.5  # of them at most on prompts that never train


class _Asked(NamedTuple):
    critique_id: int
    user_id: int
    prompt_id: int
    split: Split
    tags: list[str]


def due(session: Session, project: Project) -> bool:
    """Whether the champion took over by a promotion and nobody has been asked about it yet."""
    settings = parse(AnnotationSettings, project.annotation_settings or {})
    promotion = _promotion_to_ask_about(session, project) if settings.resolution_share > 0 else None
    if promotion is None:
        return False
    return session.execute(_candidates(project, promotion.version_id).limit(1)).first() is not None


def queue_answers(session: Session, project: Project) -> Run | None:
    """Queue the run that lets the champion answer criticised prompts again; None when there is nothing to ask.

    Raises `Conflict` when another worker was first.
    """
    promotion = _promotion_to_ask_about(session, project)
    version = champion(session, project)
    if promotion is None or version is None:
        return None
    drawn = draw(session, project, version)
    if not drawn:
        return None
    config = GenerateConfig(
        prompts=len({one.prompt_id for one in drawn}),
        completions_per_prompt=1,
        critique_ids=tuple(one.critique_id for one in drawn),
    )
    return queue_run(
        session, project, RunKind.GENERATE, asked={}, config=config, parent_version=version, cause=_cause(promotion)
    )


def _cause(promotion: Promotion) -> str:
    return f"resolution after promotion {promotion.id}"


def _promotion_to_ask_about(session: Session, project: Project) -> Promotion | None:
    version = champion(session, project, ModelKind.POLICY)
    if version is None:
        return None
    last = session.scalar(
        select(Promotion)
        .where(Promotion.version_id == version.id, Promotion.rolled_back_at.is_(None))
        .order_by(Promotion.id.desc())
        .limit(1)
    )
    if last is None or session.scalar(select(exists().where(Run.project_id == project.id, Run.cause == _cause(last)))):
        return None
    return last


def draw(session: Session, project: Project, version: ModelVersion) -> list[_Asked]:
    """The critiques to ask about; the same ones for the same version and feedback."""
    rows = session.execute(_candidates(project, version.id).order_by(Critique.id))
    found = [_Asked._make(row) for row in rows]
    random.Random(f"resolution {project.id} {version.id}").shuffle(found)
    trained = _within([one for one in found if one.split is Split.TRAIN], MOST)
    complaints = {tag for one in trained for tag in one.tags or ()}
    held_out = [one for one in found if one.split is not Split.TRAIN]
    held_out.sort(key=lambda one: not complaints & set(one.tags or ()))  # stable: by chance within each
    share = int(MOST * _HELD_OUT)
    few = _within(held_out, share if trained else MOST)
    return _within([*few, *trained], MOST)


def _candidates(project: Project, version_id: int) -> Select[int, int, int, Split, list[str]]:
    """Live critiques of what other versions wrote, by people who can answer, on which this one was not held yet."""
    held = exists().where(Resolution.critique_id == Critique.id, Resolution.version_id == version_id)
    return (
        select(Critique.id, Annotation.user_id, Prompt.id, Prompt.split, Critique.tags)
        .join(Annotation, Annotation.id == Critique.annotation_id)
        .join(Completion, Completion.id == Critique.completion_id)
        .join(Prompt, Prompt.id == Completion.prompt_id)
        .join(User, User.id == Annotation.user_id)
        .where(
            belongs(Prompt.project_id, project),  # by the critiques: most prompts have none
            live_annotation(),
            User.disabled_at.is_(None),  # imported annotators cannot answer
            Completion.text != "",
            Completion.model_version_id != version_id,  # nor what people wrote: it has none
            ~held,
        )
    )


def _within(asked: Iterable[_Asked], most: int) -> list[_Asked]:
    """The first of them, one a prompt and not too many of one person."""
    kept: list[_Asked] = []
    prompts: set[int] = set()
    persons: Counter[int] = Counter()
    for one in asked:
        if len(kept) < most and one.prompt_id not in prompts and persons[one.user_id] < A_PERSON:
            kept.append(one)
            prompts.add(one.prompt_id)
            persons[one.user_id] += 1
    return kept


def prompts_of(session: Session, critique_ids: Sequence[int]) -> list[Prompt]:
    """The prompts that the critiques are about, each once."""
    wanted = (
        select(Completion.prompt_id)
        .join(Critique, Critique.completion_id == Completion.id)
        .where(Critique.id.in_(list(critique_ids)))
    )
    return list(session.scalars(select(Prompt).where(Prompt.id.in_(wanted)).order_by(Prompt.id)))


def enter_answers(
    session: Session,
    run: Run,
    version: ModelVersion,
    answers: Mapping[int, Completion],
    *,
    now: datetime | None = None,
) -> int:
    """Ask the authors of the run's critiques about the answers, by prompt; returns how many items were made.

    Critiques that were taken back meanwhile are left out. Entering a run again changes nothing.
    """
    config = parse(GenerateConfig, run.config)
    made = 0
    query = (
        select(Critique, Annotation.user_id)
        .join(Annotation, Annotation.id == Critique.annotation_id)
        .where(Critique.id.in_(config.critique_ids), live_annotation())
        .order_by(Critique.id)
    )
    for critique, user_id in session.execute(query).all():
        old = session.get_one(Completion, critique.completion_id)
        new = answers.get(old.prompt_id)
        if new is None or _entered(session, critique, new, version):
            continue
        prompt = session.get_one(Prompt, old.prompt_id)
        row = Resolution(
            critique_id=critique.id,
            completion_id=new.id,
            version_id=version.id,
            held_out=prompt.split is not Split.TRAIN,
        )
        if new.text.strip() == old.text.strip():
            row.verdict, row.judged_at = ResolutionVerdict.NOT, now or utc_now()
        else:
            owner = session.get_one(User, user_id)
            row.item_id = add_item(session, prompt, [old, new], ItemKind.RESOLUTION, owner=owner).row.id
            made += 1
        session.add(row)
        session.flush()
    return made


def _entered(session: Session, critique: Critique, new: Completion, version: ModelVersion) -> bool:
    return bool(
        session.scalar(
            select(
                exists().where(
                    Resolution.critique_id == critique.id,
                    Resolution.completion_id == new.id,
                    Resolution.version_id == version.id,
                )
            )
        )
    )


def answer(
    session: Session, item_id: int, user: User, verdict: ResolutionVerdict, *, now: datetime | None = None
) -> Resolution:
    """Record what the author of a critique says of the new completion; they may change their mind.

    Raises `NotFound` unless the item is theirs, `Conflict` when the critique was taken back.
    """
    row = session.scalar(select(Resolution).where(Resolution.item_id == item_id))
    item = session.get(Item, item_id)
    if row is None or item is None or item.owner_id != user.id:
        raise NotFound("this question was not put to you; load the next one")
    lock_item(session, item_id)
    critique = session.get_one(Critique, row.critique_id)
    alive = select(exists().where(Annotation.id == critique.annotation_id, live_annotation()))
    if not session.scalar(alive):
        raise Conflict("the critique was changed or taken back in the meantime; load the next question")
    if not isinstance(verdict, ResolutionVerdict):
        raise Invalid(f"say one of: {', '.join(ResolutionVerdict)}")
    row.verdict, row.user_id, row.judged_at = verdict, user.id, now or utc_now()
    item.status = ItemStatus.DONE
    session.flush()
    return row


@dataclass
class Rates:
    """What people said of one version's answers; `fixed` is the resolution rate with its interval."""

    verdicts: dict[str, int] = field(default_factory=dict)
    waiting: int = 0
    fixed: Share = Share(0, 0)  # noqa: RUF009  frozen
    held_out: Share = Share(0, 0)  # noqa: RUF009  frozen
    by_tag: dict[str, Share] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "verdicts": self.verdicts,
            "waiting": self.waiting,
            "fixed": _share(self.fixed),
            "held_out": _share(self.held_out),
            "by_tag": {tag: _share(share) for tag, share in self.by_tag.items()},
        }


def _share(share: Share) -> dict[str, Any]:
    low, high = share.bounds
    return {"fixed": share.hits, "of": share.total, "rate": share.value, "low": low, "high": high}


def resolution_rates(session: Session, project: Project) -> dict[int, Rates]:
    """How each version of the project resolved the critiques it was held against, by version id.

    Critiques that were taken back since do not count.
    """
    rows = session.execute(
        select(Resolution.version_id, Resolution.verdict, Resolution.held_out, Critique.tags)
        .join(Critique, Critique.id == Resolution.critique_id)
        .join(Annotation, Annotation.id == Critique.annotation_id)
        .join(ModelVersion, ModelVersion.id == Resolution.version_id)
        .where(ModelVersion.project_id == project.id, live_annotation())
    )
    rates: dict[int, Rates] = defaultdict(Rates)
    for version_id, verdict, held_out, tags in rows:
        if verdict is None:
            rates[version_id].waiting += 1
            continue
        fixed = verdict is ResolutionVerdict.FIXED
        of = rates[version_id]
        of.verdicts[verdict.value] = of.verdicts.get(verdict.value, 0) + 1
        of.fixed = _counted(of.fixed, fixed)
        if held_out:
            of.held_out = _counted(of.held_out, fixed)
        for tag in dict.fromkeys(tags or ()):
            of.by_tag[tag] = _counted(of.by_tag.get(tag, Share(0, 0)), fixed)
    for of in rates.values():
        of.by_tag = dict(sorted(of.by_tag.items(), key=lambda found: (-found[1].total, found[0])))
    return dict(rates)


def _counted(share: Share, hit: bool) -> Share:
    return Share(share.hits + hit, share.total + 1)
