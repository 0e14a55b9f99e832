"""Blind tests: the error rate they state, what counts in them, and how they end and enter the gate."""

from __future__ import annotations

import random

import pytest
from sqlalchemy.orm import Session

from storage import annotations, blind_tests, gate, registry
from storage.annotations import PreferenceInput, Submission
from storage.enums import BlindTestState, GateVerdict, Outcome
from storage.errors import Conflict, Invalid, NotEnoughData
from storage.models import Completion, Item, ModelVersion, Run, User
from storage.projects import update_project
from storage.sequential import follow, interval, log_evidence, still_needed
from tests import factories


def test_the_error_rate_holds_however_often_one_looks() -> None:
    """3,000 tests among equals, each looked at after every comparison; then some where one is better."""
    rng = random.Random(5)

    def named(share: float, tests: int) -> list[int]:
        ends = [follow((rng.random() < share for _ in range(400)), 0.05, 400) for _ in range(tests)]
        return [end.winner for end in ends]

    among_equals = named(0.5, 3000)
    # At most 5 in 100, with room for chance: 0.05 + 3 standard errors.
    assert sum(map(bool, among_equals)) / 3000 < 0.062
    assert abs(among_equals.count(1) - among_equals.count(-1)) < 45
    better = named(0.65, 200)
    assert better.count(1) > 190
    assert better.count(-1) == 0


def test_the_interval_leaves_a_half_out_exactly_where_the_test_ends() -> None:
    for wins, losses in ((30, 12), (31, 12), (14, 3), (15, 3), (200, 160), (0, 9), (9, 0)):
        low, high = interval(wins, losses, 0.05)
        ended = log_evidence(wins, losses) >= 2.9957
        assert ended == (low > 0.5 or high < 0.5)
        assert low <= wins / (wins + losses) <= high
    assert interval(0, 0, 0.05) == (0.0, 1.0)


def test_what_is_still_needed_is_about_what_it_takes() -> None:
    more = still_needed(12, 6, 0.05)
    assert more is not None
    share = 22 / 38
    assert log_evidence(12 + share * more, 6 + (1 - share) * more) >= 2.9957 > log_evidence(12, 6)
    assert still_needed(60, 5, 0.05) == 0
    assert still_needed(50, 50, 0.05) is None
    assert still_needed(0, 0, 0.05, share=0.6) == 230


class Bench:
    """A project with a candidate and a champion that both wrote for many prompts, and people who judge."""

    def __init__(self, session: Session, pairs: int) -> None:
        self.session = session
        self.project = factories.make_project(session)
        self.candidate = factories.make_version(session, self.project)
        champion = registry.champion(session, self.project)
        assert champion is not None
        self.champion: ModelVersion = champion
        self.ann = factories.make_user(session)
        self.items = [self.pair() for _ in range(pairs)]

    def pair(self) -> Item:
        item = factories.make_item(self.session, self.project)
        for place, by in enumerate((self.champion, self.candidate)):
            self.session.get_one(Completion, item.members[place].completion_id).model_version_id = by.id
        self.session.flush()
        return item

    def judge(self, better: ModelVersion | None, user: User | None = None) -> None:
        """The next item of the queue: `better` wrote the better one; None: a tie."""
        judge = user or self.ann
        lease = factories.make_lease(self.session, self.project, judge)
        ids = [one[0] for one in lease.completions]
        by = [self.session.get_one(Completion, one).model_version_id for one in ids]
        outcome = Outcome.TIE
        if better is not None:
            outcome = Outcome.FIRST if by[0] == better.id else Outcome.SECOND
        said = Submission(preference=PreferenceInput(ids[0], ids[1], outcome))
        annotations.submit(self.session, lease.assignment_id, judge, said)

    def start(self) -> blind_tests.BlindTest:
        return blind_tests.start(self.session, self.project, self.candidate, default_base_model="starter")


def test_a_test_takes_pairs_that_nobody_judged_and_ends_by_itself(session: Session) -> None:
    bench = Bench(session, 24)
    bench.judge(bench.candidate)  # before it began: does not count
    factories.make_item(session, bench.project, version=bench.champion)
    factories.make_prompt(session, bench.project)
    test = bench.start()
    run = session.query(Run).order_by(Run.id.desc()).first()
    assert run is not None
    assert (run.config["candidate_share"], run.config["prompts"]) == (1.0, 2)  # the judged one's prompt is free again
    found = blind_tests.standing(session, test)
    assert (found.waiting, found.decided, found.needed) == (23, 0, 230)
    with pytest.raises(Conflict, match=f"blind test {test.id} is going on"):
        bench.start()
    bench.judge(None)
    while blind_tests.advance(session, bench.project) is not None:
        bench.judge(bench.candidate)
    found = blind_tests.standing(session, test)
    assert (test.state, found.wins, found.losses, found.ties) == (BlindTestState.CANDIDATE, 15, 0, 1)
    assert found.share.low is not None
    assert found.share.low > 0.5
    assert found.needed is None
    # It enters the gate, and decides where people are asked for.
    assert gate.judge(session, bench.project, bench.candidate).verdict is GateVerdict.INCONCLUSIVE
    update_project(session, bench.project, gate_settings={"required": ["human_win_rate"]})
    result = gate.judge(session, bench.project, bench.candidate)
    assert (result.verdict, result.blind_test_id, result.evaluation_id) == (GateVerdict.PASS, test.id, None)
    assert registry.promote(session, bench.candidate, None).gate_result_id == result.id


def test_only_the_first_word_on_an_item_counts_and_the_champion_may_win(session: Session) -> None:
    bench = Bench(session, 30)
    update_project(session, bench.project, overlap=2, gate_settings={"test_error": 0.2, "test_most": 12})
    test = bench.start()
    second = factories.make_user(session)
    for _ in range(3):
        bench.judge(bench.champion)
    for _ in range(3):
        bench.judge(bench.candidate, second)
    found = blind_tests.standing(session, test)
    assert found.wins + found.losses < 6
    while blind_tests.advance(session, bench.project) is not None:
        bench.judge(bench.champion)
    assert test.state is BlindTestState.CHAMPION
    update_project(session, bench.project, gate_settings={"required": []})
    assert gate.judge(session, bench.project, bench.candidate).verdict is GateVerdict.FAIL
    with pytest.raises(Conflict, match="has ended: champion"):
        blind_tests.stop(session, test, None)


def test_a_test_gives_up_stops_and_refuses(session: Session) -> None:
    bench = Bench(session, 8)
    update_project(session, bench.project, gate_settings={"test_most": 4})
    test = bench.start()
    for better in (bench.champion, bench.candidate) * 2:
        bench.judge(better)
    blind_tests.advance(session, bench.project)
    assert test.state is BlindTestState.UNDECIDED
    again = bench.start()
    registry.reject(session, bench.candidate, None, "rude")
    blind_tests.advance(session, bench.project)
    assert again.state is BlindTestState.STOPPED
    with pytest.raises(Invalid, match="rejected; a blind test takes a candidate"):
        bench.start()
    older, newest = (factories.make_version(session, bench.project) for _ in range(2))
    with pytest.raises(Invalid, match=f"test {newest.name}"):
        blind_tests.start(session, bench.project, older, default_base_model="starter")
    empty = factories.make_project(session)
    with pytest.raises(NotEnoughData, match="add prompts first"):
        blind_tests.start(session, empty, factories.make_version(session, empty), default_base_model="starter")
