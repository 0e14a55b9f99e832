"""Exports: what each table holds, what each file format does with it, and files that are whole or not there."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
from collections import Counter

import pyarrow.parquet as pq
import pytest
from sqlalchemy import select

from storage import refinements
from storage.artifacts import folder_sha256
from storage.enums import CompletionOrigin, Outcome, RefinementStatus, RunKind, Split
from storage.errors import Conflict, Invalid, NotFound, StoreUnavailable
from storage.export import FORMATS, TABLES, export
from storage.ingest import ingest_file
from storage.models import Completion, Critique, Refinement, Run, utc_now
from storage.projects import get_project
from storage.refinements import Selected
from tests.storage.feedback import Desk

FORMULAS = ["=1+1", "+1", "-1", "@x", "\tx", "'=1", "''-"]


@pytest.fixture
def desk(sessions):
    with sessions() as session:
        yield Desk(session, criteria=[("quality", 1, 5), ("thumb", 0, 1)])


@pytest.fixture
def outbox(tmp_path):
    """A folder with nothing else in it."""
    folder = tmp_path / "outbox"
    folder.mkdir()
    return folder


def filled(desk):
    """Three judged prompts; returns the completions by name."""
    made = {}
    for text, split in (("p1", Split.TRAIN), ("p2", Split.TRAIN), ("p3", Split.TEST)):
        prompt = desk.prompt(text, split)
        made |= {f"{text}{letter}": desk.completion(prompt, f"{text}{letter}") for letter in "abc"}
    a, b = made["p1a"], made["p1b"]
    desk.judge("ann", (a, b), Outcome.FIRST, 3, ratings=[(a, "quality", 5), (b, "quality", 3)])
    desk.judge("bob", (made["p2a"], made["p2b"]), Outcome.BOTH_BAD, critique=(made["p2a"], "rude", 0, 2))
    desk.judge("ann", (made["p3a"], made["p3b"]), Outcome.TIE, refinement=(made["p3a"], "p3 mended"))
    desk.judge("old", (a, b), Outcome.SECOND, critique=(b, "withdrawn words"), withdrawn_at=utc_now())
    return made


def rows_of(desk, what, outbox):
    out = outbox / f"{what}.jsonl"
    report = export(desk.session, desk.project, what, "jsonl", out)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert report.rows == len(rows)
    assert report.sha256 == hashlib.sha256(out.read_bytes()).hexdigest()
    assert list(outbox.iterdir()) == [out]
    out.unlink()
    return rows


def user(text):
    return [{"role": "user", "content": text}]


def assistant(text):
    return [{"role": "assistant", "content": text}]


def test_preference_rows_are_trl_columns_and_what_they_come_from(desk, outbox):
    filled(desk)
    first, second = rows_of(desk, "preference", outbox)
    assert (first["prompt"], first["chosen"], first["rejected"]) == (user("p1"), assistant("p1a"), assistant("p1b"))
    assert (first["split"], first["source"], first["weight"]) == ("train", "comparison", 1.5)
    assert (second["chosen"], second["source"], second["split"]) == (assistant("p3 mended"), "refinement", "test")


def test_unpaired_rows_label_what_most_annotators_find(desk, outbox):
    made = filled(desk)
    desk.judge("cat", (made["p2c"],), ratings=[(made["p2c"], "thumb", 1)])
    labels = {row["completion"][0]["content"]: row["label"] for row in rows_of(desk, "unpaired", outbox)}
    # p1b lost, but was rated 3 of 5 by the same person: what is said of a completion alone counts, and 3 is neither.
    assert labels == {"p1a": True, "p2a": False, "p2b": False, "p2c": True, "p3a": False, "p3 mended": True}


def test_unpaired_annotators_who_cancel_out_give_no_label(desk, outbox):
    prompt = desk.prompt("p")
    a, b = desk.completion(prompt, "a"), desk.completion(prompt, "b")
    desk.judge("ann", (a, b), Outcome.FIRST)
    desk.judge("bob", (a, b), Outcome.SECOND)
    assert rows_of(desk, "unpaired", outbox) == []


def test_prompt_completion_rows_are_refinements_demonstrations_and_the_best_rated(desk, outbox):
    made = filled(desk)
    prompt = desk.prompt("shown how")
    demonstration = Completion(
        prompt_id=prompt.id, content_hash="0" * 64, text="like this", origin=CompletionOrigin.IMPORTED
    )
    desk.session.add(demonstration)
    desk.session.flush()
    desk.judge("ann", (made["p2c"],), ratings=[(made["p2c"], "quality", 3)])  # the best of its prompt, yet not good
    found = {(row["completion"][0]["content"], row["source"]) for row in rows_of(desk, "prompt-completion", outbox)}
    assert found == {("p1a", "rating"), ("p3 mended", "refinement"), ("like this", "demonstration")}


def test_ratings_and_critiques_are_those_that_count(desk, outbox):
    filled(desk)
    ratings = rows_of(desk, "ratings", outbox)
    assert [(r["completion"], r["criterion"], r["value"], r["high"], r["annotator"]) for r in ratings] == [
        ("p1a", "quality", 5, 5, "ann"),
        ("p1b", "quality", 3, 5, "ann"),
    ]
    (critique,) = rows_of(desk, "critiques", outbox)
    said = desk.session.scalars(select(Critique).where(Critique.text == "rude")).one()
    assert (critique["critique_id"], critique["annotation_id"]) == (said.id, said.annotation_id)
    assert (critique["critique"], critique["span_text"], critique["tags"]) == ("rude", "p2", ["tone"])
    assert critique["fix"] == "Kindly."
    assert critique["prompt"] == user("p2")
    assert critique["submitted_at"].endswith("+00:00")


def test_refinements_are_those_whose_critiques_stand_with_what_became_of_them(desk, outbox):
    made = filled(desk)
    said = {one.text: one for one in desk.session.scalars(select(Critique))}
    run = Run(project_id=desk.project.id, kind=RunKind.REFINE, config={})
    desk.session.add(run)
    desk.session.flush()
    for critique, text in ((said["rude"], "p2 kindly"), (said["rude"], "p2 gently")):
        big = Selected(
            critique.completion_id, (critique.id,), text, judge_score=0.9, sampling={"endpoint_model": "big"}
        )
        refinements.add_model_refinements(desk.session, run, [big])
    gone = Refinement(completion_id=made["p1b"].id, refined_id=made["p1c"].id, status=RefinementStatus.UNREVIEWED)
    gone.critiques = [said["withdrawn words"]]
    desk.session.add(gone)
    first = desk.session.scalars(select(Refinement).where(Refinement.run_id == run.id).order_by(Refinement.id)).first()
    refinements.review(desk.session, first.id, desk.user("rita"), RefinementStatus.EDITED, "p2 very kindly")
    kind, gentle, own = rows_of(desk, "refinements", outbox)
    assert (kind["completion"], kind["refinement"], kind["status"], kind["by"]) == (
        "p2a", "p2 very kindly", "edited", "big"
    )  # fmt: skip
    assert (kind["critiques"], kind["critique_ids"], kind["run_id"]) == (["rude"], [said["rude"].id], run.id)
    assert (gentle["refinement"], gentle["status"], gentle["judge_score"]) == ("p2 gently", "unreviewed", 0.9)
    assert (own["refinement"], own["by"], own["status"], own["split"]) == ("p3 mended", "a person", None, "test")
    assert own["critique_ids"] == []


def test_annotations_hold_rankings_and_fixes(desk, outbox):
    prompt = desk.prompt("p")
    a, b, c = (desk.completion(prompt, text) for text in "abc")
    desk.judge("ann", (a, b, c), ranks=(2, 1, 2), critique=(a, "rude"))
    (row,) = rows_of(desk, "annotations", outbox)
    ranked = [(one["completion_id"], one["rank"]) for one in row["rankings"]]
    assert ranked == [(b.id, 1), (a.id, 2), (c.id, 2)]
    assert [one["fix"] for one in row["critiques"]] == ["Kindly."]


def test_annotations_hold_everything_that_was_submitted_also_what_was_withdrawn(desk, outbox):
    made = filled(desk)
    rows = rows_of(desk, "annotations", outbox)
    assert [(row["annotator"], row["state"]) for row in rows] == [
        ("ann", "live"),
        ("bob", "live"),
        ("ann", "live"),
        ("old", "withdrawn"),
    ]
    first, _, third, last = rows
    assert first["preferences"] == [
        {"first_id": made["p1a"].id, "second_id": made["p1b"].id, "outcome": "first", "strength": 3}
    ]
    assert [(r["criterion"], r["value"]) for r in first["ratings"]] == [("quality", 5), ("quality", 3)]
    assert [c["text"] for c in first["completions"]] == ["p1a", "p1b"]
    assert third["refinements"][0]["text"] == "p3 mended"
    assert last["critiques"][0]["text"] == "withdrawn words"


@pytest.mark.parametrize("what", TABLES)
def test_every_table_is_the_same_in_every_format(desk, outbox, what):
    made = filled(desk)
    desk.judge("bob", (made["p1a"], made["p1b"]), Outcome.FIRST)  # agreement takes two
    lines = rows_of(desk, what, outbox)
    names = list(lines[0])
    export(desk.session, desk.project, what, "parquet", outbox / "t.parquet")
    table = pq.read_table(outbox / "t.parquet")
    assert table.schema.names == names
    assert json.loads(json.dumps(table.to_pylist(), default=lambda time: time.isoformat())) == lines
    report = export(desk.session, desk.project, what, "csv", outbox / "t.csv")
    with (outbox / "t.csv").open(newline="", encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    assert report.rows == len(cells) == len(lines)
    assert list(cells[0]) == names
    folder = export(desk.session, desk.project, what, "hf", outbox / "folder")
    files = {path.name.split("-")[0]: path for path in (outbox / "folder" / "data").iterdir()}
    assert {split: pq.read_table(path).num_rows for split, path in files.items()} == Counter(r["split"] for r in lines)
    assert (folder.rows, folder.sha256) == (len(lines), folder_sha256(outbox / "folder"))


def test_cells_that_a_spreadsheet_would_run_are_guarded_and_come_back_whole(desk, sessions, outbox):
    for text in FORMULAS:
        prompt = desk.prompt(text)
        desk.judge(
            "ann", (desk.completion(prompt, f"{text} good"), desk.completion(prompt, f"{text} bad")), Outcome.FIRST
        )
    desk.session.commit()
    out = outbox / "pairs.csv"
    export(desk.session, desk.project, "preference", "csv", out)
    with out.open(newline="", encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    assert all(cell[name].startswith("'") for cell in cells for name in ("prompt", "chosen", "rejected"))
    desk.session.commit()
    ingest_file(sessions, "copy", out)
    with sessions() as session:
        copied = outbox / "copy.jsonl"
        export(session, get_project(session, "copy"), "preference", "jsonl", copied)
        rows = [json.loads(line) for line in copied.read_text().splitlines()]
    assert [row["prompt"][0]["content"] for row in rows] == FORMULAS
    assert [row["chosen"][0]["content"] for row in rows] == [f"{text} good" for text in FORMULAS]


@pytest.mark.parametrize("format", ["jsonl", "parquet", "csv"])
@pytest.mark.parametrize("what", ["preference", "unpaired", "prompt-completion"])
def test_an_export_can_be_imported_into_another_project(desk, sessions, outbox, format, what):
    filled(desk)
    desk.session.commit()
    out = outbox / f"rows.{format}"
    rows = export(desk.session, desk.project, what, format, out).rows
    desk.session.commit()
    report = ingest_file(sessions, "copy", out)
    assert (report.format, report.skipped) == (what, {})
    assert report.pairs + report.ratings + (report.completions if what == "prompt-completion" else 0) == rows


@pytest.mark.parametrize("format", FORMATS)
def test_an_empty_project_gives_an_empty_export(desk, outbox, format):
    assert export(desk.session, desk.project, "preference", format, outbox / "out").rows == 0
    assert (outbox / "out").exists()


@pytest.mark.parametrize("format", FORMATS)
def test_an_older_export_is_replaced(desk, outbox, format):
    out = outbox / "out"
    export(desk.session, desk.project, "preference", format, out)
    filled(desk)
    first = export(desk.session, desk.project, "preference", format, out)
    assert first.rows == 2
    assert export(desk.session, desk.project, "preference", format, out) == first
    assert list(outbox.iterdir()) == [out]


def test_what_is_no_export_is_not_replaced(desk, outbox):
    home = outbox / "home"
    home.mkdir()
    (home / "README.md").write_text("my diary")
    with pytest.raises(Conflict, match="holds something else than an export"):
        export(desk.session, desk.project, "preference", "hf", home)
    with pytest.raises(Conflict, match="is a folder; name a file"):
        export(desk.session, desk.project, "preference", "jsonl", home)
    (outbox / "file").write_text("x")
    with pytest.raises(Conflict, match="holds something else"):
        export(desk.session, desk.project, "preference", "hf", outbox / "file")
    assert (home / "README.md").read_text() == "my diary"


def test_wrong_names_and_missing_folders_are_one_line(desk, outbox):
    with pytest.raises(Invalid, match="unknown table 'pairs'; choose from: preference, unpaired"):
        export(desk.session, desk.project, "pairs", "jsonl", outbox / "o")
    with pytest.raises(Invalid, match="unknown export format 'xlsx'; choose from: jsonl"):
        export(desk.session, desk.project, "preference", "xlsx", outbox / "o")
    with pytest.raises(NotFound, match=r"there is no folder .*nowhere; create it first"):
        export(desk.session, desk.project, "preference", "jsonl", outbox / "nowhere" / "o.jsonl")


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_leaves_the_older_export_and_no_half_file(desk, outbox, monkeypatch, format):
    filled(desk)
    out = outbox / "out"
    before = export(desk.session, desk.project, "critiques", format, out)

    table = TABLES["critiques"](desk.session, desk.project)
    rows = list(table.rows)

    def broken(session, project):
        def stream():
            yield from rows
            raise OSError(errno.ENOSPC, "No space left on device", str(out))

        return table._replace(rows=stream())

    monkeypatch.setitem(TABLES, "critiques", broken)
    with pytest.raises(StoreUnavailable, match="the disk is full"):
        export(desk.session, desk.project, "critiques", format, out)
    monkeypatch.undo()
    assert list(outbox.iterdir()) == [out]
    assert export(desk.session, desk.project, "critiques", format, outbox / "again") == before
