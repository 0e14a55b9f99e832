"""Import of real public files: exact counts, spans that hit their text, and nothing added the second time."""

from __future__ import annotations

from collections import Counter

import pytest
from sqlalchemy import func, select

from storage.configs import SnapshotSettings
from storage.enums import CompletionOrigin, ItemStatus, Outcome, Split
from storage.ingest import ingest_file
from storage.models import Annotation, Completion, Critique, Item, Preference, Project, Prompt, Refinement, User
from storage.preferences import derive_pairs
from storage.projects import get_project

NOTHING = {"prompts": 0, "completions": 0, "pairs": 0, "ratings": 0, "critiques": 0, "refinements": 0, "annotations": 0}


def counts(report):
    return {name: getattr(report, name) for name in NOTHING}


def test_fine_grained_rlhf(sessions, shared_data):
    path = shared_data / "fgrlhf_dev_feedback.json"
    report = ingest_file(sessions, "qa", path)
    assert (report.format, report.project_created, report.skipped) == ("fgrlhf", True, {})
    assert counts(report) == {
        "prompts": 500,
        "completions": 2000,
        "pairs": 3000,
        "ratings": 0,
        "critiques": 1373 + 842,
        "refinements": 481,
        "annotations": 3494,
    }
    with sessions() as session:
        outcomes = Counter(session.scalars(select(Preference.outcome)))
        assert outcomes[Outcome.TIE] == 384
        assert outcomes[Outcome.FIRST] + outcomes[Outcome.SECOND] == 2616
        spans = session.execute(
            select(Completion.text, Critique.span_start, Critique.span_end, Critique.tags)
            .join(Completion, Completion.id == Critique.completion_id)
            .where(Critique.span_start.is_not(None))
        ).all()
        assert len(spans) == 1373
        assert all(text[start:end].strip() for text, start, end, _ in spans)
        # Annotators marked whole phrases: an offset that is off by one would begin or end inside a word.
        whole = [not (start and text[start - 1].isalnum() and text[start].isalnum()) for text, start, _, _ in spans]
        assert sum(whole) / len(whole) > 0.99
        assert {tag for *_, tags in spans for tag in tags} == {
            "Irrelevant",
            "Wrong-Grounding",
            "Unverifiable",
            "Redundant",
            "Incoherent",
        }
        origins = Counter(session.scalars(select(Completion.origin)))
        assert origins == {CompletionOrigin.IMPORTED: 2000, CompletionOrigin.REFINEMENT: 481}
        assert set(session.scalars(select(Item.status))) == {ItemStatus.DONE}
        assert session.scalar(select(func.sum(Item.judged))) == 3494
        (user,) = session.scalars(select(User))
        assert user.name == "import:fgrlhf"
        assert user.disabled_at is not None
        question = session.scalars(select(Prompt).order_by(Prompt.id).limit(1)).one().messages[0]["content"]
        assert question.endswith("Question: When does bloom by troye sivan come out?")
        found = derive_pairs(session, get_project(session, "qa"), SnapshotSettings())
        assert found.used == {"comparison": 2616, "refinement": 481}
        assert found.left_out == {"tie": 384}
        by_prompt: dict[int, set[Split]] = {}
        for pair in found.pairs:
            by_prompt.setdefault(pair.prompt_id, set()).add(pair.split)
        assert all(len(splits) == 1 for splits in by_prompt.values())

    again = ingest_file(sessions, "qa", path)
    assert counts(again) == NOTHING
    assert (again.project_created, again.skipped) == (False, {"already there": 500})


def test_pandalm_has_three_annotators(sessions, shared_data):
    path = shared_data / "pandalm_testset_v1.json"
    report = ingest_file(sessions, "judges", path)
    empty = report.skipped["'response1' is empty"] + report.skipped["'response2' is empty"]
    repeated = report.skipped["already there"] + report.skipped["judged differently before by the same annotator"]
    # 54 records hold an empty response; of the others some compare the same two texts again.
    assert (report.format, empty, report.pairs + empty + repeated) == ("pandalm", 54, 999)
    assert report.annotations == 3 * report.pairs
    with sessions() as session:
        users = {user.name for user in session.scalars(select(User))}
        assert users == {f"import:pandalm:annotator{n}" for n in (1, 2, 3)}
        per_item = session.execute(select(func.count()).select_from(Annotation).group_by(Annotation.item_id)).scalars()
        assert set(per_item) == {3}
        # Two of three annotators who agree against the third weigh a third: majority over total.
        weights = {pair.weight for pair in _pairs(session, "judges")}
        assert weights == {1.0, 0.333333, 0.666667}
    assert counts(ingest_file(sessions, "judges", path)) == NOTHING


def _pairs(session, project):
    return derive_pairs(session, get_project(session, project), SnapshotSettings()).pairs


@pytest.mark.parametrize(("language", "distinct"), [("en", 295), ("zh", 289)])
def test_llama_factory_ranking(sessions, shared_data, language, distinct):
    path = shared_data / f"llamafactory_dpo_{language}_demo.json"
    report = ingest_file(sessions, "ranking", path)
    assert (report.format, report.prompts, report.pairs) == ("sharegpt", distinct, distinct)
    assert report.skipped == {"already there": 300 - distinct}  # the file holds some records twice
    with sessions() as session:
        assert len(_pairs(session, "ranking")) == distinct
        roles = {message["role"] for messages in session.scalars(select(Prompt.messages)) for message in messages}
        assert roles <= {"system", "user", "assistant"}
    assert counts(ingest_file(sessions, "ranking", path)) == NOTHING


def test_an_unknown_format_names_the_columns_and_makes_no_project(sessions, shared_data):
    with pytest.raises(Exception, match=r"no known format has these columns: 'article', 'abstract'.*fgrlhf, pandalm"):
        ingest_file(sessions, "facts", shared_data / "defacto_val.jsonl")
    with sessions() as session:
        assert session.scalar(select(func.count()).select_from(Project)) == 0
        assert session.scalar(select(func.count()).select_from(Refinement)) == 0
