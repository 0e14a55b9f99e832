"""My annotations: revised, taken up again, listed, searched, opened with their history; on both databases."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from storage import annotations, history
from storage.annotations import CritiqueInput, PreferenceInput, RankInput, RefinementInput, Submission
from storage.enums import AnnotationStatus, ItemKind, ItemStatus, Outcome
from storage.errors import Conflict, Invalid, NotFound
from storage.history import Filter, State
from storage.items import Lease
from storage.models import Annotation, Item, Project, User, utc_now
from tests import factories


@pytest.fixture
def project(session: Session) -> Project:
    return factories.make_project(session, "care")


@pytest.fixture
def ann(session: Session) -> User:
    return factories.make_user(session, "ann")


def _lease(session: Session, project: Project, user: User, prompt: str | None = None) -> Lease:
    row = factories.make_prompt(session, project, prompt)
    factories.make_item(session, project, prompt=row)
    return factories.make_lease(session, project, user)


def test_a_revision_takes_the_place_and_the_old_words_stay(session: Session, project: Project, ann: User) -> None:
    lease = _lease(session, project, ann)
    old = annotations.submit(session, lease.assignment_id, ann, factories.full_submission(lease, project))
    (first, _), (second, _) = lease.completions
    annotations.draft_revision(session, old.id, ann, {"half": "typed"})
    assert (old.status, old.draft) == (AnnotationStatus.SUBMITTED, {"half": "typed"})
    new = annotations.revise(
        session, old.id, ann, Submission(preference=PreferenceInput(first, second, Outcome.SECOND, 1))
    )
    session.expire_all()
    assert (old.superseded_at is not None, old.superseded_by_id, old.draft) == (True, new.id, None)
    assert (old.preferences[0].outcome, len(old.critiques), len(old.refinements)) == (Outcome.FIRST, 1, 1)
    assert (new.preferences[0].outcome, new.critiques, new.assignment_id) == (Outcome.SECOND, [], lease.assignment_id)
    item = session.get_one(Item, lease.item_id)
    assert (item.judged, item.status) == (1, ItemStatus.DONE)
    assert annotations.count_usable(session, project) == 1
    assert annotations.my_progress(session, project, ann)[:2] == (1, 1)


def test_only_what_counts_can_be_revised_and_only_by_its_author(session: Session, project: Project, ann: User) -> None:
    lease = _lease(session, project, ann)
    old = annotations.submit(session, lease.assignment_id, ann, factories.prefer_first(lease))
    said = factories.prefer_first(lease, strength=3)
    with pytest.raises(NotFound):
        annotations.revise(session, old.id, factories.make_user(session), said)
    with pytest.raises(NotFound):
        annotations.draft_revision(session, old.id, factories.make_user(session), {})
    with pytest.raises(Invalid, match="nothing was judged"):
        annotations.revise(session, old.id, ann, Submission())
    assert (old.superseded_at, session.get_one(Item, lease.item_id).judged) == (None, 1)
    new = annotations.revise(session, old.id, ann, said)
    for stale in (
        lambda: annotations.revise(session, old.id, ann, said),
        lambda: annotations.withdraw(session, old.id, ann),
        lambda: annotations.draft_revision(session, old.id, ann, {}),
    ):
        with pytest.raises(Conflict, match="revised in the meantime"):
            stale()
    annotations.withdraw(session, new.id, ann)
    with pytest.raises(Conflict, match="does not count"):
        annotations.revise(session, new.id, ann, said)
    assert session.get_one(Item, lease.item_id).judged == 0


def test_many_tabs_that_revise_at_once_leave_one_newest(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        project, ann = factories.make_project(session), factories.make_user(session)
        lease = _lease(session, project, ann)
        first = annotations.submit(session, lease.assignment_id, ann, factories.prefer_first(lease)).id
    outcomes: list[str] = []
    ready = threading.Barrier(8)

    def revise(number: int) -> None:
        ready.wait()
        try:
            with sessions.begin() as session:
                user = session.get_one(User, ann.id)
                if number == 7:
                    annotations.withdraw(session, first, user)
                else:
                    annotations.revise(session, first, user, factories.prefer_first(lease, strength=number % 3 + 1))
            outcomes.append("done")
        except Conflict:
            outcomes.append("conflict")

    threads = [threading.Thread(target=revise, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(outcomes) == ["conflict"] * 7 + ["done"]
    with sessions() as session:
        live = session.scalar(
            select(func.count())
            .select_from(Annotation)
            .where(Annotation.superseded_at.is_(None), Annotation.withdrawn_at.is_(None))
        )
        assert session.get_one(Item, lease.item_id).judged == live


def test_the_list_pages_through_everything_once_also_at_equal_times(
    session: Session, project: Project, ann: User
) -> None:
    moment = utc_now()
    said = []
    for number in range(7):
        lease = _lease(session, project, ann)
        now = moment if number < 4 else moment + timedelta(seconds=number)
        said.append(annotations.submit(session, lease.assignment_id, ann, factories.prefer_first(lease), now=now).id)
    _other_person(session, project)
    pages, after = [], None
    while True:
        page = history.list_mine(session, ann, Filter(), after, limit=3)
        pages.append([line.annotation.id for line in page.lines])
        after = page.following
        if after is None:
            break
    assert pages == [said[6:3:-1], said[3:0:-1], said[:1]]


def _other_person(session: Session, project: Project) -> None:
    other = factories.make_user(session)
    lease = _lease(session, project, other)
    annotations.submit(session, lease.assignment_id, other, factories.prefer_first(lease))


def test_filters_by_state_project_and_date(session: Session, project: Project, ann: User) -> None:
    noon = utc_now() - timedelta(days=3)
    ids = {}
    for hours, name in enumerate(("old", "revised", "gone")):
        lease = _lease(session, project, ann)
        now = noon + timedelta(hours=hours)
        ids[name] = annotations.submit(session, lease.assignment_id, ann, factories.prefer_first(lease), now=now).id
        if name == "revised":
            again = annotations.revise(session, ids[name], ann, factories.prefer_first(lease, 3))
    annotations.withdraw(session, ids["gone"], ann)
    drafted = _lease(session, project, ann)
    annotations.save_draft(session, drafted.assignment_id, ann, {"critiques": ["half"]})
    other = factories.make_project(session)
    lease = _lease(session, other, ann)
    elsewhere = annotations.submit(session, lease.assignment_id, ann, factories.prefer_first(lease)).id

    def found(**wanted: object) -> list[int]:
        page = history.list_mine(session, ann, Filter(**wanted))  # type: ignore[arg-type]  # each as the test says
        return [line.annotation.id for line in page.lines]

    assert found() == [elsewhere, again.id, ids["old"]]
    assert found(project=project) == [again.id, ids["old"]]
    assert found(state=State.REVISED) == [ids["revised"]]
    assert found(state=State.WITHDRAWN) == [ids["gone"]]
    assert found(state=None, project=project) == [again.id, ids["gone"], ids["revised"], ids["old"]]
    assert len(found(state=State.DRAFT)) == 1
    assert found(until=noon + timedelta(minutes=1)) == [ids["old"]]
    assert found(since=noon + timedelta(hours=30)) == [elsewhere, again.id]


@pytest.mark.parametrize(
    "text",
    [
        "wo ist MEIN paket",
        "Müller",
        "订单",
        "100%",
        "a_b",
        "back\\slash",
        "half an hour",
        "fix the day",
        "Thursday then",
    ],
)
def test_text_is_found_where_it_stands_and_nowhere_else(
    session: Session, project: Project, ann: User, text: str
) -> None:
    lease = _lease(session, project, ann, r"Wo ist mein Paket, Herr Müller? 订单 100% a_b back\slash")
    (first, _), (second, _) = lease.completions
    annotations.submit(
        session,
        lease.assignment_id,
        ann,
        Submission(
            critiques=[CritiqueInput(first, "Give me half an hour.", fix="Fix the day.")],
            refinements=[RefinementInput(second, "Thursday, then.\nThursday then it is.")],
        ),
    )
    decoy = _lease(session, project, ann, "Something else: 100 percent axb")
    annotations.submit(session, decoy.assignment_id, ann, factories.prefer_first(decoy))
    page = history.list_mine(session, ann, Filter(text=text))
    assert [line.prompt[:3] for line in page.lines] == ["Wo "]
    assert history.list_mine(session, ann, Filter(text="role")).lines == [], "not the JSON around the text"


def test_what_was_shown_is_found_too(session: Session, project: Project, ann: User) -> None:
    factories.make_item(session, project, texts=["It left on Monday.", "Soon."])
    lease = factories.make_lease(session, project, ann)
    annotations.submit(session, lease.assignment_id, ann, factories.prefer_first(lease))
    assert len(history.list_mine(session, ann, Filter(text="left on monday")).lines) == 1


def test_opened_it_shows_the_order_of_then_and_every_version(session: Session, project: Project, ann: User) -> None:
    lease = _lease(session, project, ann)
    old = annotations.submit(session, lease.assignment_id, ann, factories.full_submission(lease, project))
    new = annotations.revise(session, old.id, ann, factories.prefer_first(lease))
    found = history.open_mine(session, ann, old.id)
    assert found.completions == lease.completions
    assert found.messages == lease.prompt_messages
    assert [one.id for one in found.versions] == [new.id, old.id]
    assert list(found.refined.values()) == ["It arrives on Tuesday."]
    assert [history.state_of(one) for one in found.versions] == [State.COUNTS, State.REVISED]
    with pytest.raises(NotFound):
        history.open_mine(session, factories.make_user(session), old.id)


def test_a_ranking_is_revised_as_a_ranking(session: Session, project: Project, ann: User) -> None:
    factories.make_item(session, project, texts=["a", "b", "c"], kind=ItemKind.RANKING)
    lease = factories.make_lease(session, project, ann)
    ids = [completion_id for completion_id, _ in lease.completions]
    order = [RankInput(one, rank) for rank, one in enumerate(ids, start=1)]
    old = annotations.submit(session, lease.assignment_id, ann, Submission(rankings=order))
    turned = [RankInput(one.completion_id, 4 - one.rank) for one in order]
    new = annotations.revise(session, old.id, ann, Submission(rankings=turned))
    session.expire_all()
    assert [one.rank for one in sorted(new.rankings, key=lambda one: ids.index(one.completion_id))] == [3, 2, 1]
    assert len(old.rankings) == 3


def test_the_last_one_is_of_this_project_of_this_session_of_work_and_counts(
    session: Session, project: Project, ann: User
) -> None:
    now = utc_now()
    assert history.last_mine(session, ann, project) is None
    old = _lease(session, project, ann)
    before = now - history.SESSION_OF_WORK - timedelta(minutes=1)
    annotations.submit(session, old.assignment_id, ann, factories.prefer_first(old), now=before)
    assert history.last_mine(session, ann, project, now=now) is None
    leases = [_lease(session, project, ann) for _ in range(1)]
    fresh = annotations.submit(session, leases[0].assignment_id, ann, factories.prefer_first(leases[0]))
    assert history.last_mine(session, ann, project) == fresh
    assert history.last_mine(session, ann, factories.make_project(session)) is None
    annotations.withdraw(session, fresh.id, ann)
    assert history.last_mine(session, ann, project) is None
