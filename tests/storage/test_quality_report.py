"""The quality figures of a project, from its rows, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from storage import annotations, items
from storage.enums import AnnotationStatus, Outcome, Role
from storage.export import TABLES
from storage.ingest import ingest_file
from storage.models import Assignment, Critique, Ranking, utc_now
from storage.projects import get_project
from storage.quality import COMPARISONS, Metric, Share, quality_report
from tests import factories
from tests.storage.feedback import Desk

FIRST, SECOND, TIE, BOTH_BAD = Outcome.FIRST, Outcome.SECOND, Outcome.TIE, Outcome.BOTH_BAD


@pytest.fixture
def desk(session):
    return Desk(session, criteria=[("quality", 1, 5), ("slider", 0, 100)])


def _pair(desk, short="no", long="a longer one"):
    prompt = desk.prompt(f"prompt {desk.session.query(Critique).count()} {utc_now().isoformat()}")
    return desk.completion(prompt, short), desk.completion(prompt, long)


def _question(report, name):
    return next(one for one in report.questions if one.name == name)


def test_choices_agree_by_completion_and_not_by_side(desk):
    for outcome, mirrored in ((FIRST, SECOND), (SECOND, FIRST), (TIE, BOTH_BAD)) * 5:
        one, other = _pair(desk)
        desk.judge("ann", (one, other), outcome)
        desk.judge("ben", (other, one), mirrored)
    found = _question(quality_report(desk.session, desk.project), COMPARISONS)
    assert (found.metric, found.things, found.judgements) == (Metric.NOMINAL, 15, 30)
    assert found.alpha == (1.0, 1.0, 1.0)
    assert {name: one.majority for name, one in found.beside.items()} == {"ann": Share(15, 15), "ben": Share(15, 15)}
    assert found.beside["ann"].offset is None


def test_people_who_choose_a_side_and_not_a_completion_disagree(desk):
    for _ in range(10):
        one, other = _pair(desk)
        desk.judge("ann", (one, other), FIRST)
        desk.judge("ben", (other, one), FIRST)
    found = _question(quality_report(desk.session, desk.project), COMPARISONS)
    assert found.alpha.value < -0.8
    assert found.beside["ben"].majority == Share(0, 10)


def test_rankings_count_as_the_comparisons_they_imply(desk):
    prompt = desk.prompt("rank")
    three = [desk.completion(prompt, text) for text in ("a", "b", "c")]
    for name, ranks in (("ann", (1, 2, 2)), ("ben", (1, 2, 3))):
        made = desk.judge(name, three)
        for completion, rank in zip(three, ranks, strict=True):
            desk.session.add(Ranking(annotation_id=made.id, completion_id=completion.id, rank=rank))
    desk.session.flush()
    found = _question(quality_report(desk.session, desk.project), COMPARISONS)
    assert (found.things, found.judgements) == (3, 6)
    assert found.beside["ann"].majority == Share(2, 3)  # only one of them sees a difference between b and c


def test_ratings_by_criterion_with_the_metric_of_its_scale(desk):
    for low, high in ((1, 3), (2, 4), (3, 5)):
        one, other = _pair(desk)
        desk.judge("ann", (one, other), ratings=[(one, "quality", low), (other, "slider", low * 10 + 5)])
        desk.judge("ben", (one, other), ratings=[(one, "quality", high), (other, "slider", low * 10 + 6)])
        alone = _pair(desk)
        desk.judge("ann", alone, ratings=[(alone[0], "quality", 5)])
    report = quality_report(desk.session, desk.project)
    quality, slider = report.questions
    assert (quality.name, quality.metric, quality.scale, quality.things) == ("quality", Metric.ORDINAL, (1, 5), 3)
    assert (slider.name, slider.metric, slider.things) == ("slider", Metric.INTERVAL, 3)
    assert quality.beside["ann"].offset == (-2.0, -2.0, -2.0)
    assert quality.beside["ann"].majority == Share(0, 3)
    # Nobody means a difference by one step of a hundred.
    assert slider.beside["ann"].majority == Share(3, 3)
    assert slider.alpha.value > 0.99
    assert report.headline == "quality"


def test_only_what_counts_is_counted(desk):
    gone = {"withdrawn_at": utc_now()}
    for fields in ({"status": AnnotationStatus.DRAFT}, gone, {"superseded_at": utc_now()}):
        one, other = _pair(desk)
        desk.judge("ann", (one, other), FIRST)
        desk.judge("ben", (one, other), FIRST, **fields)
    elsewhere = Desk(desk.session, "elsewhere")
    pair = _pair(elsewhere)
    for name in ("ann", "ben"):
        elsewhere.judge(name, pair, FIRST)
    report = quality_report(desk.session, desk.project)
    assert (report.questions, report.headline, report.annotations, report.used) == ((), None, 3, 3)
    assert [(one.name, one.annotations, one.reliability) for one in report.people] == [("ann", 3, None)]


def test_a_project_without_annotations(desk):
    report = quality_report(desk.session, desk.project, newest=10)
    assert (report.people, report.questions, report.writers, report.used) == ((), (), (), 0)
    assert (report.first, report.longer) == (Share(0, 0), Share(0, 0))


def test_the_newest_bring_along_who_judged_the_same_before_them(desk):
    pairs = [_pair(desk) for _ in range(6)]
    for name in ("ann", "ben"):
        for pair in pairs:
            desk.judge(name, pair, FIRST, seconds_spent=5.0)
    report = quality_report(desk.session, desk.project, newest=4)
    assert (report.annotations, report.used) == (12, 4)
    assert _question(report, COMPARISONS).things == 4
    assert [(one.name, one.annotations) for one in report.people] == [("ben", 4)]


def test_habits_of_people_and_what_they_turned_down(session):
    project = factories.make_project(session, overlap=2)
    ann = factories.make_user(session, "ann")
    factories.make_user(session, "olga", Role.OPERATOR)
    factories.make_items(session, project, 9, texts=["a short one", "a much longer completion"])
    long = []
    for number in range(7):
        moment = datetime(2026, 3, 1, 22, tzinfo=UTC) + timedelta(hours=number)
        lease = factories.make_lease(session, project, ann, now=moment)
        made = annotations.submit(session, lease.assignment_id, ann, factories.prefer_first(lease), now=moment)
        made.seconds_spent = [2.0, 2.0, 4.0, 5.0, 100.0, None, 6.0][number]
        long.append(len(lease.completions[0][1]) > 15)
    items.skip(session, factories.make_lease(session, project, ann).assignment_id, ann)
    items.flag(session, factories.make_lease(session, project, ann).assignment_id, ann, "names a person")
    report = quality_report(session, project)
    (person,) = report.people
    assert (person.name, person.annotations, person.days, person.median_seconds) == ("ann", 7, 2, 4.5)
    assert (person.first, person.longer) == (Share(7, 7), Share(sum(long), 7))
    assert (report.first, report.longer) == (person.first, person.longer)
    assert person.turned == (9, 2, 1)


def test_imported_comparisons_have_no_shown_order(desk):
    for _ in range(4):
        short, long = _pair(desk)
        desk.judge("ann", (long, short), FIRST)
    report = quality_report(desk.session, desk.project)
    assert report.first == Share(0, 0)
    assert report.longer == Share(4, 4)
    made = desk.judge("ann", (pair := _pair(desk)), SECOND)
    lease = Assignment(
        project_id=desk.project.id, item_id=made.item_id, user_id=made.user_id, shown_order=[one.id for one in pair],
        expires_at=utc_now(),
    )  # fmt: skip
    desk.session.add(lease)
    desk.session.flush()
    made.assignment_id = lease.id
    assert quality_report(desk.session, desk.project).first == Share(0, 1)


def test_critiques_by_who_wrote_the_completion(desk):
    version = factories.make_version(desk.session, desk.project)
    for tags in (["tone"], ["tone", "facts", "tone"], []):
        written, other = _pair(desk)
        written.model_version_id = version.id
        made = desk.judge("ann", (written, other), TIE, critique=(written, "no"))
        desk.session.query(Critique).filter_by(annotation_id=made.id).one().tags = tags
    newest, rest = quality_report(desk.session, desk.project).writers
    assert (newest.name, newest.judged, newest.criticised) == (version.name, 3, 3)
    assert newest.tags == {"tone": 2, "facts": 1}
    assert (rest.name, rest.judged, rest.criticised) == ("a model of unknown version", 3, 0)


def test_alpha_of_the_imported_pandalm_pairs(sessions, shared_data):
    """Pairs with an empty response or two equal ones stay out, so it is not the whole file's 0.8642."""
    with sessions.begin() as session:
        factories.make_project(session, "pandalm")
    ingest_file(sessions, "pandalm", shared_data / "pandalm_testset_v1.json", "pandalm")
    with sessions() as session:
        report = quality_report(session, get_project(session, "pandalm"))
    found = _question(report, COMPARISONS)
    assert found.judgements == 3 * found.things
    assert (found.things, round(found.alpha.value, 4)) == (839, 0.8607)
    assert all(0.93 < one.reliability < 0.98 for one in report.people)


def test_the_export_has_a_row_a_question_and_annotator(desk):
    for low in (1, 2, 4):
        one, other = _pair(desk)
        desk.judge("ann", (one, other), FIRST, ratings=[(one, "quality", low)])
        desk.judge("ben", (one, other), FIRST, ratings=[(one, "quality", low + 1)])
    rows = {(row["question"], row["annotator"]): row for row in TABLES["quality"](desk.session, desk.project).named()}
    assert set(rows) == {(question, name) for question in (COMPARISONS, "quality") for name in ("ann", "ben")}
    ann = rows["quality", "ann"]
    assert (ann["metric"], ann["things"], ann["judged_with_a_majority"]) == ("ordinal", 3, 3)
    assert (ann["majority"], ann["offset"], ann["split"]) == (0.0, -1.0, "train")
    assert ann["alpha_low"] <= ann["alpha"] <= ann["alpha_high"]
    # Everybody always preferred the same side: no alpha, but the majority is known.
    assert (rows[COMPARISONS, "ann"]["alpha"], rows[COMPARISONS, "ann"]["majority"]) == (None, 1.0)
    assert rows[COMPARISONS, "ann"]["offset"] is None
