"""Whole annotations go out and come back: nothing that was said is lost on the way."""

from __future__ import annotations

import json
import random

import pytest

from storage.annotations import (
    CritiqueInput,
    PreferenceInput,
    RankInput,
    RatingInput,
    RefinementInput,
    Submission,
    submit,
)
from storage.configs import SnapshotSettings
from storage.enums import ItemKind, Outcome
from storage.errors import Invalid
from storage.export import export
from storage.ingest import ingest_file
from storage.items import lease_next
from storage.preferences import derive_pairs
from storage.projects import get_project
from tests import factories

_IDS = ("completion_id", "first_id", "second_id")


def _fill(session, name):
    """A project with a pair and a ranking, of which everything that can be said has been said."""
    project = factories.make_project(session, name)
    user = factories.make_user(session)
    factories.make_item(session, project, texts=["It comes on Monday 😀.", "It comes, sir."])
    factories.make_item(session, project, texts=["one", "two", "three"], kind=ItemKind.RANKING)
    for _ in range(2):
        lease = lease_next(session, project, user, rng=random.Random(1))
        said = _of_a_ranking(lease) if len(lease.completions) == 3 else _of_a_pair(lease, project)
        submit(session, lease.assignment_id, user, said)
    return project


def _of_a_pair(lease, project):
    (first, text), (second, _) = lease.completions
    return Submission(
        ratings=[RatingInput(first, project.criteria[0].id, 4)],
        preference=PreferenceInput(first, second, Outcome.SECOND, 3),
        critiques=[
            CritiqueInput(first, "Which one?", 3, len(text), ["no date", "vague"], "on Tuesday"),
            CritiqueInput(second, "", tags=["rude"]),
        ],
        refinements=[RefinementInput(second, "It comes on Tuesday.")],
    )


def _of_a_ranking(lease):
    return Submission(
        rankings=[RankInput(one, rank) for (one, _), rank in zip(lease.completions, (2, 1, 2), strict=True)]
    )


def _said(session, project, path):
    """Everything in the export, with texts in the place of ids."""
    export(session, project, "annotations", "jsonl", path)
    found = []
    for row in map(json.loads, path.read_text().splitlines()):
        texts = {one["id"]: one["text"] for one in row["completions"]}
        parts = ("preferences", "rankings", "ratings", "critiques", "refinements")
        said = [
            {name: texts[value] if name in _IDS else value for name, value in one.items() if name != "refined_id"}
            for part in parts
            for one in row[part]
        ]
        found.append((row["prompt"], sorted(texts.values()), sorted(said, key=str)))
    return sorted(found, key=str)


@pytest.mark.parametrize("format", ["jsonl", "parquet", "csv"])
def test_annotations_come_back_as_they_went_out(sessions, tmp_path, format):
    with sessions.begin() as session:
        project = _fill(session, "from")
        before = _said(session, project, tmp_path / "said.jsonl")
        weights = {(p.chosen, p.rejected): p.weight for p in derive_pairs(session, project, SnapshotSettings()).pairs}
        path = tmp_path / f"out.{format}"
        export(session, project, "annotations", format, path)
    report = ingest_file(sessions, "to", path)
    assert (report.format, report.skipped) == ("annotations", {})
    assert ingest_file(sessions, "to", path).annotations == 0
    with sessions() as session:
        project = get_project(session, "to")
        assert _said(session, project, tmp_path / "again.jsonl") == before
        again = {(p.chosen, p.rejected): p.weight for p in derive_pairs(session, project, SnapshotSettings()).pairs}
    assert again == weights
    assert len(weights) == 4  # the comparison, the rewrite, and two of the ranking, whose third pair is a tie


def test_a_rating_on_a_scale_that_the_project_does_not_have_stops_the_import(sessions, tmp_path):
    row = {
        "prompt": [{"role": "user", "content": "Hi"}],
        "completions": [{"id": 1, "text": "Hello."}],
        "preferences": [],
        "critiques": [],
        "ratings": [{"completion_id": 1, "criterion": "wit", "value": 3}],
    }
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(Invalid, match="'wit' fits no criterion"):
        ingest_file(sessions, "to", path)
