"""Projects and their criteria."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.orm import Session

from storage import annotations, projects
from storage.enums import ItemStatus
from storage.errors import Conflict, Invalid, NotFound
from storage.projects import CriterionSpec
from tests import factories


def test_a_project_begins_with_sensible_criteria(session: Session) -> None:
    project = projects.create_project(session, "care")
    assert [c.name for c in project.criteria] == ["quality", "correctness", "helpfulness", "tone"]
    assert {(c.low, c.high) for c in project.criteria} == {(1, 5)}
    assert project.sampling["temperature"] == 0.8
    assert project.training_policy["mode"] == "off"


def test_names_are_unique_and_unknown_ones_name_the_known(session: Session) -> None:
    factories.make_project(session, "care")
    with pytest.raises(Conflict, match="'care' already"):
        factories.make_project(session, " care ")
    with pytest.raises(NotFound, match="projects: care"):
        projects.get_project(session, "cure")


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"overlap": 0}, "overlap"),
        ({"overlap": True}, "overlap"),
        ({"queue_target": -1}, "queue_target"),
        ({"lease_seconds": 1}, "lease_seconds"),
        ({"sampling": {"temperature": -1}}, "temperature"),
        ({"sampling": {"heat": 1}}, "heat"),
        ({"training_policy": {"mode": "cron", "cron": "61 * * * *"}}, "cron"),
        ({"training_policy": {"mode": "cron", "cron": "often"}}, "cron"),
        ({"training_policy": {"kinds": ["generate"]}}, "generate"),
        ({"training_policy": {"kinds": []}}, "kinds"),
        ({"annotation_settings": {"random_share": 0.6, "repeat_share": 0.5}}, "repeat_share"),
        ({"annotation_settings": {"random_share": 1.5}}, "random_share"),
        ({"annotation_settings": {"dice": 6}}, "dice"),
        ({"tags": "rude"}, "tags"),
        ({"tags": ["x" * 41]}, "tags"),
        ({"tags": [f"tag {n}" for n in range(51)]}, "tags"),
        ({"members_only": "yes"}, "members_only"),
        ({"colour": "red"}, "colour"),
        ({"criteria": [CriterionSpec("a"), CriterionSpec("a ")]}, "same name"),
        ({"criteria": [CriterionSpec("a", low=5, high=5)]}, "'a'"),
    ],
)
def test_bad_settings_are_named_and_change_nothing(session: Session, fields: dict[str, Any], word: str) -> None:
    project = factories.make_project(session, guidelines="Be kind.")
    with pytest.raises(Invalid, match=word):
        projects.update_project(session, project, guidelines="changed", **fields)
    session.expire_all()
    assert project.guidelines == "Be kind."
    assert len(project.criteria) == 4


def test_criteria_may_change_until_ratings_rest_on_them(session: Session) -> None:
    project = factories.make_project(session, criteria=[CriterionSpec("quality"), CriterionSpec("tone")])
    user = factories.make_user(session)
    factories.make_item(session, project)
    lease = factories.make_lease(session, project, user)
    rating = annotations.RatingInput(lease.completions[0][0], project.criteria[0].id, 3)
    annotations.submit(session, lease.assignment_id, user, annotations.Submission(ratings=[rating]))
    projects.update_project(session, project, criteria=[CriterionSpec("facts"), CriterionSpec("quality", "All in all")])
    assert [(c.name, c.description) for c in project.criteria] == [("facts", ""), ("quality", "All in all")]
    for change in ([CriterionSpec("facts")], [CriterionSpec("facts"), CriterionSpec("quality", high=7)]):
        with pytest.raises(Conflict, match="'quality' has ratings"):
            projects.update_project(session, project, criteria=change)


def test_a_lower_overlap_closes_what_has_enough(session: Session) -> None:
    project = factories.make_project(session, overlap=2)
    factories.make_items(session, project, 2)
    annotation = factories.make_annotation(session, project, factories.make_user(session))
    assert annotation.item.status is ItemStatus.OPEN
    projects.update_project(session, project, overlap=1)
    session.expire_all()
    assert annotation.item.status is ItemStatus.DONE


def test_annotation_settings_change_by_key_and_tags_are_tidied(session: Session) -> None:
    project = factories.make_project(session)
    assert project.annotation_settings["random_share"] == 0.3
    projects.update_project(session, project, annotation_settings={"random_share": 0.5})
    projects.update_project(session, project, annotation_settings={"repeat_share": 0.2}, members_only=True)
    assert (project.annotation_settings["random_share"], project.annotation_settings["repeat_share"]) == (0.5, 0.2)
    assert project.members_only
    projects.update_project(session, project, tags=["made up", " Rude ", "rude", "", "made  up"])
    assert project.tags == ["made up", "Rude"]
