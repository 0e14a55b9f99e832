"""The probability that a completion is better, as operators read it: whose it is, its range, why it is missing."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session

from storage import registry
from storage.chances import Chance, chances
from storage.enums import ModelKind
from storage.models import Evaluation, ModelVersion, Project
from storage.scores import Score, add_scores
from tests import factories


@pytest.fixture
def project(session: Session) -> Project:
    return factories.make_project(session)


def measure(session: Session, version: ModelVersion, temperature: float) -> Evaluation:
    found = factories.make_judgeable(session, version, None)
    found.metrics = {**found.metrics, "temperature": temperature}
    session.flush()
    return found


def test_a_probability_is_the_measured_champion_s_with_its_temperature_and_the_range_of_its_heads(
    session: Session, project: Project
) -> None:
    item = factories.make_item(session, project)
    a, b = (member.completion_id for member in item.members)
    assert "no reward model" in chances(session, project, [(a, b)]).why

    older, newer = (factories.make_version(session, project, ModelKind.REWARD) for _ in range(2))
    add_scores(session, [Score(a, older.id, 3.0, 0.6), Score(b, older.id, 1.0, 0.8), Score(a, newer.id, 9.0)])
    assert chances(session, project, [(a, b)]) == (
        {},
        "reward-v2 was not evaluated yet, so that its rewards make no probabilities",
    )
    measure(session, newer, 1.0)
    found = chances(session, project, [(a, b)])
    assert (found.of, found.why.split(":")[0]) == ({}, "not scored by reward-v2"), "it scored one of the two"

    measure(session, older, 2.0)
    found = chances(session, project, [(a, b), (b, a)])
    # (3 - 1) / 2 = 1, with hypot(0.6, 0.8) / 2 = 0.5 to both sides.
    assert found.of[a, b] == (pytest.approx(0.731059), pytest.approx(0.622459), pytest.approx(0.817574), "reward-v1")
    assert found.of[b, a].value == pytest.approx(1 - found.of[a, b].value)

    add_scores(session, [Score(b, newer.id, 9.0)])
    assert chances(session, project, [(a, b)]).of[a, b] == Chance(0.5, None, None, "reward-v2"), (
        "the newest comes first"
    )
    registry.promote(session, older, None, "it is in service")
    assert chances(session, project, [(a, b)]).of[a, b].judge == "reward-v1", "the champion comes before it"
