"""Which item comes next for a person, why, and how probable that was.

Three ways to choose, mixed by the project's `AnnotationSettings`:

- random (`random_share`): a random id between the oldest and the newest open item of the project; the first free item
  from there on, beyond the end from the beginning again. An item behind a gap is a little more probable; the
  propensity says by how much, exactly.
- repeat (`repeat_share`): an item with as many annotations as wanted, by others, uniformly from those of the newest
  `looks.REPEATS` such items that this person may judge; it gets one place more (`Item.wanted`). Only with an overlap
  of 1: a higher one has every item judged twice anyway. Where nothing is to be repeated, and with a higher overlap, the
  share goes to the last way.
- the rest: of the newest `NEWEST` free items those that reward models have scored, highest disagreement times novelty
  first (`storage.scores`); without such scores the oldest free item.

The propensity of an open item is therefore random_share * (its gap / the range of ids) + rest (if the third way leads
to it), that of a repeated item repeat_share / (number of candidates), given what was free in this moment. A person gets
nothing, not even a repeat, once no open item is left for them. Items of others (`owner_id`) never come. Gold items come
as attention checks only (`storage.checks`), which take their share first: the propensity of all others is lower by it.

Nothing here reads the whole queue: each query follows an index, and steps over items that are open but not for
this person (theirs already, or full of leases).
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage import checks
from storage.asked import Asked, live_leases, look_at
from storage.configs import AnnotationSettings, parse
from storage.engine import writes_alone
from storage.enums import ItemStatus, SelectionReason
from storage.looks import DICE_BITS, NO_LIMIT, PLAIN, RANGED, REPEATABLE, UNLOCKED, Way, below, look
from storage.models import Item, Project, User
from storage.scores import ensemble, priorities

NEWEST = 64
_OLDEST = 16  # alternatives where others take the oldest in the same instant
_TRIES = 30
_PAUSE_SECONDS = 0.01
_LAST_ID = 2**31 - 1


class Chosen(NamedTuple):
    """The next item, locked, with why it came and how probable that was."""

    item: Item
    reason: SelectionReason
    propensity: float
    asked: Asked | None = None  # what it asks, where that was read on the way


def choose(session: Session, project: Project, user: User, now: datetime, rng: random.Random) -> Chosen | None:
    """Lock the next item for `user`; None when nothing is left for them. The caller makes the lease of it.

    Where transactions run side by side (PostgreSQL), an item that another one holds is passed over, never waited for:
    waiting could end in a circle with a submit in this same transaction.
    """
    queue = _Queue(session, project, user, now)
    settings = parse(AnnotationSettings, project.annotation_settings or {})
    for _ in range(_TRIES):
        place = rng.random()
        seen = queue.look(settings, place < settings.random_share, rng.getrandbits(DICE_BITS))
        wanted, reason = queue.wanted(seen)
        if not wanted:
            return None
        check = checks.draw(session, project, user, settings.check_every, rng)
        if check.item is not None:
            return Chosen(check.item, SelectionReason.ATTENTION, check.propensity)
        chosen = _draw(queue, settings, seen, wanted, reason, place, rng)
        if chosen is not None:
            return chosen._replace(propensity=chosen.propensity * (1 - check.share))
        time.sleep(_PAUSE_SECONDS)  # others hold what is free this instant; they are done within milliseconds
    return None


def _draw(
    queue: _Queue,
    settings: AnnotationSettings,
    seen: _Seen,
    wanted: list[int],
    reason: SelectionReason,
    place: float,
    rng: random.Random,
) -> Chosen | None:
    repeat_share = settings.repeat_share if seen.repeats else 0.0
    rest_share = 1 - settings.random_share - repeat_share
    if settings.random_share <= place < settings.random_share + repeat_share:
        candidates = queue.repeats()
        rng.shuffle(candidates)
        for item_id in candidates:
            locked = queue.lock(item_id, repeat=True)
            if locked is not None:
                return Chosen(locked.item, SelectionReason.REPEAT, repeat_share / len(candidates), locked.asked)
    if place < settings.random_share:
        # In a circle: beyond the newest comes the oldest.
        ids, reason = [seen.from_start or seen.oldest[0]], SelectionReason.RANDOM
    else:
        ids = wanted
    for item_id in ids:
        locked = queue.lock(item_id)
        if locked is None:
            continue
        top = wanted[0] if reason is SelectionReason.RANDOM else item_id
        by_chance = 0.0
        if settings.random_share:
            by_chance = settings.random_share * _chance(item_id, seen, queue.before(item_id, seen, reason))
        return Chosen(locked.item, reason, by_chance + (rest_share if item_id == top else 0.0), locked.asked)
    return None


def _chance(item_id: int, seen: _Seen, before: int) -> float:
    """The probability that a random start leads to this item; `before` is the free item before it, 0: none."""
    gap = item_id - before if before else item_id - seen.low + 1 + seen.high - (seen.last or item_id)
    return min(1.0, gap / (seen.high - seen.low + 1))


class _Seen(NamedTuple):
    """The queue as one statement shows it: ids of items, 0 where there is none."""

    low: int  # the first and the last of the project's open items
    high: int
    oldest: list[int]  # free for the person, the oldest first
    last: int  # the newest free one
    from_start: int  # the first free one from the random start on
    below_start: int  # the last free one before it
    repeats: bool  # there is something to repeat
    rewards: bool  # there are reward models


@dataclass(frozen=True)
class _Queue:
    """The queue as one person sees it at one moment."""

    session: Session
    project: Project
    user: User
    now: datetime

    def _values(self, **values: int) -> dict[str, Any]:
        return {
            "project": self.project.id,
            "user": self.user.id,
            "now": self.now,
            "overlap": self.project.overlap,
            **values,
        }

    def _newest(self, start: int, most: int) -> dict[int, int]:
        """Up to `most` free items from `start` down, newest first: their prompts by id."""
        return dict(self.session.connection().execute(below(self._way(), most), self._values(start=start)).all())

    def _way(self) -> Way:
        return PLAIN if writes_alone(self.session) else RANGED

    def look(self, settings: AnnotationSettings, by_chance: bool, dice: int) -> _Seen:
        """All that a choice rests on; what stands around a random start, which `dice` throws, where it is asked for."""
        repeats = settings.repeat_share > 0 and self.project.overlap == 1
        # Alternatives are for what others lock in the same instant.
        most = 1 if writes_alone(self.session) else _OLDEST
        statement = look(self._way(), most, settings.random_share > 0, by_chance, repeats)
        found: dict[str, list[int]] = defaultdict(list)
        for what, number in self.session.connection().execute(statement, self._values(dice=dice)):
            found[what].append(number)
        one = {what: numbers[0] for what, numbers in found.items()}
        return _Seen(
            one.get("low", 0),
            one.get("high", 0),
            sorted(found["oldest"]),
            one.get("last", 0),
            one.get("from start", 0),
            one.get("below start", 0),
            "repeats" in one,
            "rewards" in one,
        )

    def wanted(self, seen: _Seen) -> tuple[list[int], SelectionReason]:
        """Items by how much they are wanted, and what decided that."""
        if seen.oldest and seen.rewards:
            versions = [version.id for version in ensemble(self.session, self.project)]
            ranked = priorities(self.session, self._newest(_LAST_ID, NEWEST), versions)
            if ranked:
                return sorted(ranked, key=lambda item_id: (-ranked[item_id], item_id)), SelectionReason.UNCERTAIN
        return seen.oldest, SelectionReason.OLDEST

    def before(self, item_id: int, seen: _Seen, reason: SelectionReason) -> int:
        """The free item before one that was chosen, 0: none."""
        if reason is SelectionReason.RANDOM:
            return seen.below_start if seen.from_start else 0
        if reason is SelectionReason.OLDEST:
            place = seen.oldest.index(item_id)
            return seen.oldest[place - 1] if place else 0
        return next(iter(self._newest(item_id - 1, 1)), 0)

    def repeats(self) -> list[int]:
        """Judged items that this person may judge as well."""
        return list(self.session.scalars(select(REPEATABLE.c.id).order_by(REPEATABLE.c.id), self._values()))

    def lock(self, item_id: int, *, repeat: bool = False) -> _Locked | None:
        """Lock the item, unless another transaction holds it or has filled it since; a repeat gets its place."""
        item = self.session.scalar(UNLOCKED, {"item": item_id})
        if item is None:
            return None
        places = self.project.overlap + 1 if repeat else _places(item, self.project.overlap)
        asked = None
        # PostgreSQL found the item by what was committed when that statement began; whoever held the lock until now may
        # have leased it since. A new statement sees it. SQLite's writers take turns.
        if not writes_alone(self.session):
            fitting = ItemStatus.DONE if repeat else ItemStatus.OPEN
            asked = look_at(self.session, item.id, self.user.id, self.now)
            if item.status is not fitting or item.judged + asked.others >= places:
                return None
        if repeat:
            item.wanted = places
            self.session.flush()
        return _Locked(item, asked)


class _Locked(NamedTuple):
    item: Item
    asked: Asked | None


def _places(item: Item, overlap: int) -> int:
    if item.gold is not None:  # for as many as are to be checked by it
        return NO_LIMIT
    return overlap if item.wanted is None else item.wanted


def has_room(session: Session, item: Item, user: User, now: datetime) -> bool:
    """Whether one more annotator fits on the item beside its annotations and the live leases of others."""
    return item.judged + live_leases(session, item, user, now) < places(session, item)


def places(session: Session, item: Item) -> int:
    """How many annotators an item is for: its own number, or else the project's overlap; a gold item is for all."""
    return _places(item, session.get_one(Project, item.project_id).overlap)
