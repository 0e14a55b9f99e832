"""Import formats and file kinds: what is recognised, what is stored, and how bad rows and files are reported."""

from __future__ import annotations

import csv
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import func, select

from storage.annotations import withdraw
from storage.configs import SnapshotSettings
from storage.enums import CompletionOrigin, Outcome
from storage.errors import Invalid, NotFound
from storage.ingest import FORMATS, ingest_file
from storage.ingest.detect import detect
from storage.items import add_item
from storage.models import Annotation, Completion, Criterion, Critique, Item, Preference, Prompt, Rating, User
from storage.preferences import derive_pairs
from storage.projects import create_project, get_project

USER = {"role": "user", "content": "What is two and two?"}
FOUR = {"role": "assistant", "content": "Four."}
FIVE = {"role": "assistant", "content": "Five."}
HUMAN = "\n\nHuman: What is two and two?\n\nAssistant:"
FINE = {
    "question": "Who?",
    "passages": [["Title", "Title\n\nFirst sentence.", "Second sentence."]],
    **{f"prediction {n}": f"It was person {n}." for n in (1, 2, 3, 4)},
    "preference": [1, 2, 0, 1, 1, 2],
    "feedback": {
        "errors": [{"error type": "Irrelevant", "explanation": "", "start": 0, "end": 6}],
        "missing-info": [{"error type": "Missing-Answer", "passage_id": 1, "sentence_id": [2]}],
        "corrected-prediction": "It was person one.",
    },
}
ROWS = {
    "prompts": [{"prompt": "What is two and two?"}, {"prompt": [USER]}],
    "preference": [
        {"prompt": "What is two and two?", "chosen": "Four.", "rejected": "Five."},
        {"prompt": [USER], "chosen": [FOUR], "rejected": [FIVE]},
        {"chosen": [USER, FOUR], "rejected": [USER, FIVE]},
        {"chosen": "What is two and two? Four.", "rejected": "What is two and two? Ten."},
    ],
    "unpaired": [
        {"prompt": "What is two and two?", "completion": "Four.", "label": True},
        {"prompt": [USER], "completion": [FOUR], "label": 1},
    ],
    "prompt-completion": [
        {"prompt": "What is two and two?", "completion": "Four."},
        {"prompt": [USER], "completion": [FOUR]},
    ],
    "hh-rlhf": [{"chosen": f"{HUMAN} Four.", "rejected": f"{HUMAN} Five."}],
    "sharegpt": [
        {
            "conversations": [{"from": "human", "value": "What is two and two?"}],
            "chosen": {"from": "gpt", "value": "Four."},
            "rejected": {"from": "gpt", "value": "Five."},
        }
    ],
    "pandalm": [
        {"instruction": "Add.", "input": "2 2", "response1": "4", "response2": "5", "annotator1": 1, "annotator2": 0}
    ],
    "fgrlhf": [FINE],
    "annotations": [
        {
            "annotation_id": 7,
            "annotator": "ann",
            "state": "live",
            "prompt": [USER],
            "completions": [{"id": 5, "text": "Four."}, {"id": 9, "text": "Five."}],
            "preferences": [{"first_id": 9, "second_id": 5, "outcome": "second", "strength": 3}],
            "ratings": [],
            "critiques": [{"completion_id": 9, "text": "Wrong.", "span_start": 0, "span_end": 4, "fix": "Four"}],
            "refinements": [],
        }
    ],
}


def write_lines(path, rows):
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_recognised_by_its_columns(name):
    assert [detect(row) for row in ROWS[name]] == [name] * len(ROWS[name])


def test_standard_and_conversational_rows_are_the_same_content(sessions, tmp_path):
    for name in ("prompts", "preference", "unpaired", "prompt-completion"):
        standard, conversational = ROWS[name][:2]
        assert ingest_file(sessions, name, write_lines(tmp_path / "a.jsonl", [standard])).skipped == {}
        again = ingest_file(sessions, name, write_lines(tmp_path / "b.jsonl", [conversational]))
        assert again.skipped == {"already there": 1}, name


def test_a_comparison_is_stored_as_an_annotation_of_a_disabled_user_on_an_item_that_is_done(sessions, tmp_path):
    for name in ("preference", "hh-rlhf", "sharegpt"):
        report = ingest_file(sessions, name, write_lines(tmp_path / "a.jsonl", ROWS[name][:1]))
        assert (report.format, report.prompts, report.completions, report.pairs) == (name, 1, 2, 1)
        with sessions() as session:
            user = session.scalars(select(User).where(User.name == f"import:{name}")).one()
            assert user.disabled_at is not None
            assert user.password_hash is None
            (pair,) = derive_pairs(session, get_project(session, name), SnapshotSettings()).pairs
            assert (pair.messages, pair.chosen, pair.rejected) == ([USER], "Four.", "Five.")


def test_a_prompt_inside_both_sides_is_split_off_as_trl_does_it(sessions, tmp_path):
    ingest_file(sessions, "p", write_lines(tmp_path / "a.jsonl", ROWS["preference"][3:]))
    with sessions() as session:
        (pair,) = derive_pairs(session, get_project(session, "p"), SnapshotSettings()).pairs
        assert (pair.messages[0]["content"], pair.chosen, pair.rejected) == ("What is two and two?", " Four.", " Ten.")


def test_labels_become_ratings_on_the_criterion_thumb(sessions, tmp_path):
    rows = [
        {"prompt": "p", "completion": "good", "label": True},
        {"prompt": "p", "completion": "bad", "label": "false"},
        {"prompt": "p", "completion": "odd", "label": "maybe"},
    ]
    report = ingest_file(sessions, "kto", write_lines(tmp_path / "a.jsonl", rows))
    assert (report.ratings, report.skipped) == (2, {"'label' is neither true nor false": 1})
    with sessions() as session:
        thumb = session.scalars(select(Criterion).where(Criterion.name == "thumb")).one()
        assert (thumb.low, thumb.high) == (0, 1)
        values = session.execute(select(Completion.text, Rating.value).join(Completion)).all()
        assert sorted(map(tuple, values)) == [("bad", 0), ("good", 1)]
        (pair,) = derive_pairs(session, get_project(session, "kto"), SnapshotSettings()).pairs
        assert (pair.chosen, pair.rejected) == ("good", "bad")


def test_demonstrations_are_completions_that_nobody_is_asked_to_judge(sessions, tmp_path):
    report = ingest_file(sessions, "sft", write_lines(tmp_path / "a.jsonl", ROWS["prompt-completion"][:1]))
    assert (report.prompts, report.completions, report.annotations) == (1, 1, 0)
    with sessions() as session:
        assert session.scalars(select(Completion.origin)).one() is CompletionOrigin.IMPORTED
        assert session.scalar(select(func.count()).select_from(Item)) == 0


def test_fine_grained_critiques_quote_the_passage_and_the_spans_hit(sessions, tmp_path):
    report = ingest_file(sessions, "qa", write_lines(tmp_path / "a.jsonl", [FINE]))
    assert (report.pairs, report.critiques, report.refinements) == (6, 2, 1)
    with sessions() as session:
        error, missing = session.scalars(select(Critique).order_by(Critique.id))
        assert (error.span_start, error.span_end, error.tags) == (0, 6, ["Irrelevant"])
        assert missing.text == 'Missing: the answer itself. "Second sentence."'
        assert missing.span_start is None
        outcomes = session.scalars(select(Preference.outcome).order_by(Preference.id)).all()
        assert outcomes == [Outcome[n] for n in ("FIRST", "SECOND", "TIE", "FIRST", "FIRST", "SECOND")]


def test_rows_that_cannot_be_imported_are_named_with_line_and_reason(sessions, tmp_path):
    good = ROWS["preference"][0]
    path = tmp_path / "mixed.jsonl"
    lines = [
        json.dumps(good).encode(),
        b'{"prompt": "p", "chosen": "c"',
        b"",
        b"[1, 2]",
        b'{"prompt": "p", "chosen": "c\xff", "rejected": "r"}',
        json.dumps({**good, "chosen": 3}).encode(),
        json.dumps({**good, "chosen": "  "}).encode(),
        json.dumps({**good, "chosen": "Five."}).encode(),
        json.dumps({"prompt": "p", "chosen": "c"}).encode(),
        json.dumps({**good, "prompt": []}).encode(),
        json.dumps({**good, "prompt": [{"role": "user"}]}).encode(),
        json.dumps({**good, "prompt": "another", "chosen": "Nul \x00 and half \ud800 a sign"}).encode(),
    ]
    path.write_bytes(b"\n".join(lines))
    report = ingest_file(sessions, "p", path)
    assert report.skipped_lines == [
        (2, "broken JSON"),
        (4, "not a JSON object"),
        (5, "not UTF-8"),
        (6, "'chosen' is not a text"),
        (7, "'chosen' is empty"),
        (8, "the two completions are the same text"),
        (9, "no value for 'rejected'"),
        (10, "a prompt must end with a message of the user"),
        (11, "'prompt' holds a message without role and content"),
    ]
    assert sum(report.skipped.values()) == 9
    assert report.pairs == 2  # the first line and the last, whose unstorable signs are replaced
    with sessions() as session:
        assert "Nul � and half � a sign" in session.scalars(select(Completion.text)).all()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": f"{HUMAN} Four.", "rejected": "\n\nHuman: Else?\n\nAssistant: Five."}, "differ before the last"),
        ({"chosen": f"{HUMAN} Four.\n\nHuman: Thanks", "rejected": f"{HUMAN} Five."}, "does not end with a turn"),
        ({"chosen": f"{HUMAN}", "rejected": f"{HUMAN} Five."}, "'chosen' is empty"),
        ({**ROWS["sharegpt"][0], "conversations": [{"from": "observation", "value": "x"}]}, "neither human, gpt"),
        ({**ROWS["sharegpt"][0], "conversations": [{"from": "gpt", "value": "x"}]}, "must end with a message of the u"),
        ({**ROWS["pandalm"][0], "annotator1": 3}, "'annotator1' is not 0, 1 or 2"),
        ({**ROWS["annotations"][0], "state": "withdrawn"}, "the annotation is withdrawn"),
        ({**ROWS["annotations"][0], "completions": []}, "'completions' is empty or holds one twice"),
        ({**ROWS["annotations"][0], "rankings": "[{"}, "'rankings' is not JSON"),
        (
            {**ROWS["annotations"][0], "critiques": [{"completion_id": 6, "text": "x"}]},
            "'completion_id' is of a completion that the item does not have",
        ),
        (
            {**ROWS["annotations"][0], "critiques": [{"completion_id": 5, "span_start": 0, "span_end": 6}]},
            "a critique's span 0 to 6 is outside the text",
        ),
        ({**FINE, "preference": [1, 2]}, "does not hold six outcomes"),
        (
            {**FINE, "feedback": {"errors": [{"error type": "Irrelevant", "start": 5, "end": 99}]}},
            "span 5 to 99 is outside the text",
        ),
        ({**FINE, "feedback": {"corrected-prediction": "x" * 20_001}}, "more than 20,000 characters"),
    ],
)
def test_what_a_format_does_not_allow_is_skipped(sqlite_sessions, tmp_path, row, reason):
    report = ingest_file(sqlite_sessions, "p", write_lines(tmp_path / "a.jsonl", [row]))
    ((line, said),) = report.skipped_lines
    assert line == 1
    assert reason in said
    assert report.annotations == 0


@pytest.fixture
def sqlite_sessions(sqlite_url):
    """How a file is read does not depend on the database."""
    from storage.engine import make_engine, make_sessions

    engine = make_engine(sqlite_url)
    yield make_sessions(engine)
    engine.dispose()


@pytest.mark.parametrize("kind", ["a.jsonl", "a.jsonl.gz", "a.json", "a.csv", "a.csv.gz", "a.parquet", "no-suffix"])
def test_every_kind_of_file_gives_the_same_rows(sqlite_sessions, tmp_path, kind):
    rows = [{"prompt": f"line\n{n}", "chosen": f"= {n}", "rejected": f'\'- "{n}", ü'} for n in range(7)]
    path = tmp_path / kind
    if ".csv" in kind:
        with gzip.open(path, "wt", newline="") if kind.endswith("gz") else path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            # What a spreadsheet's guard added is taken off: one apostrophe before a formula.
            writer.writerows({**row, "rejected": "'" + row["rejected"]} for row in rows)
    elif kind == "a.parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "a.json":
        path.write_text(json.dumps(rows, indent=2))
    else:
        write_lines(path, rows)
    report = ingest_file(sqlite_sessions, "p", path)
    assert (report.pairs, report.skipped) == (7, {})
    with sqlite_sessions() as session:
        pairs = derive_pairs(session, get_project(session, "p"), SnapshotSettings()).pairs
        assert [(p.messages[0]["content"], p.chosen, p.rejected) for p in pairs] == [
            (row["prompt"], row["chosen"], row["rejected"]) for row in rows
        ]


@pytest.mark.parametrize(
    ("name", "content", "error", "says"),
    [
        ("empty.jsonl", b"", Invalid, "is empty"),
        ("blank.jsonl", b"\n \n", Invalid, "is empty"),
        ("wide.jsonl", "{}".encode("utf-16"), Invalid, "is in UTF-16"),
        ("text.txt", b"hello there", Invalid, "neither JSON Lines, a JSON array, CSV"),
        ("broken.jsonl", b"{oh\n", Invalid, "not one record could be read; line 1: broken JSON"),
        ("columns.jsonl", b'{"a": 1, "b": 2}\n', Invalid, "no known format has these columns: 'a', 'b'"),
        ("broken.parquet", b"PAR1 and nothing", Invalid, "is not a readable Parquet file"),
        ("broken.jsonl.gz", b"\x1f\x8b\x08\x00broken", Invalid, "cannot be read"),
        (None, b"", NotFound, "there is no file"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line_and_no_project(sqlite_sessions, tmp_path, name, content, error, says):
    path = tmp_path / (name or "missing.jsonl")
    if name:
        path.write_bytes(content)
    with pytest.raises(error, match=says) as caught:
        ingest_file(sqlite_sessions, "p", path)
    assert "\n" not in str(caught.value)
    with sqlite_sessions() as session, pytest.raises(NotFound):
        get_project(session, "p")


def test_an_unknown_format_name_lists_the_known_ones(sqlite_sessions, tmp_path):
    path = write_lines(tmp_path / "a.jsonl", ROWS["prompts"])
    with pytest.raises(Invalid, match=r"unknown import format 'dpo'; choose from: auto, prompts, preference"):
        ingest_file(sqlite_sessions, "p", path, "dpo")
    with pytest.raises(Invalid, match="is not a file"):
        ingest_file(sqlite_sessions, "p", tmp_path)


@pytest.mark.parametrize(("kind", "reason"), [("array", "broken JSON; the rest"), ("gzip", "the file breaks off")])
def test_a_file_that_breaks_off_keeps_what_came_before(sqlite_sessions, tmp_path, kind, reason):
    rows = [{"prompt": f"prompt {n} {n * 7919}"} for n in range(2000)]
    path = tmp_path / "a.json"
    if kind == "array":
        path.write_text(json.dumps(rows)[:-20])
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        path.write_bytes(gzip.compress(text.encode())[:-400])
    report = ingest_file(sqlite_sessions, "p", path)
    ((_, said),) = report.skipped_lines
    assert reason in said
    assert 500 < report.prompts < 2000


def test_a_line_as_long_as_the_memory_is_skipped(sqlite_sessions, tmp_path, monkeypatch):
    monkeypatch.setattr("storage.ingest.reading.MAX_LINE", 200)
    rows = [{"prompt": "short"}, {"prompt": "x" * 1000}, {"prompt": "short too"}]
    report = ingest_file(sqlite_sessions, "p", write_lines(tmp_path / "a.jsonl", rows))
    assert (report.prompts, [line for line, _ in report.skipped_lines]) == (2, [2])


def test_importing_twice_adds_nothing_and_only_what_is_new_is_added(sessions, tmp_path):
    for name, rows in ROWS.items():
        path = write_lines(tmp_path / "a.jsonl", rows)
        first = ingest_file(sessions, name, path)
        second = ingest_file(sessions, name, path)
        assert second.skipped == {"already there": len(rows)}, name
        assert {second.prompts, second.completions, second.annotations, second.critiques} == {0}, name
        assert first.prompts > 0
    fresh = {"prompt": "What is two and two?", "chosen": "Four.", "rejected": "Nine."}
    third = ingest_file(sessions, "preference", write_lines(tmp_path / "b.jsonl", [*ROWS["preference"], fresh]))
    assert (third.prompts, third.completions, third.pairs) == (0, 1, 1)


def test_a_source_that_contradicts_itself_is_reported_not_stored_twice(sessions, tmp_path):
    row = ROWS["preference"][0]
    path = write_lines(tmp_path / "a.jsonl", [row, {**row, "chosen": row["rejected"], "rejected": row["chosen"]}])
    report = ingest_file(sessions, "p", path)
    assert (report.pairs, report.skipped) == (1, {"judged differently before by the same annotator": 1})


def test_a_withdrawn_import_does_not_come_back(sessions, tmp_path):
    path = write_lines(tmp_path / "a.jsonl", ROWS["preference"][:1])
    ingest_file(sessions, "p", path)
    with sessions.begin() as session:
        annotation = session.scalars(select(Annotation)).one()
        withdraw(session, annotation.id, annotation.user)
    assert ingest_file(sessions, "p", path).annotations == 0


def test_a_generated_pair_with_the_same_texts_is_the_imported_item(sessions, tmp_path):
    ingest_file(sessions, "p", write_lines(tmp_path / "a.jsonl", ROWS["preference"][:1]))
    with sessions.begin() as session:
        prompt = session.scalars(select(Prompt)).one()
        assert not add_item(session, prompt, list(session.scalars(select(Completion)))).created


def test_the_number_of_statements_does_not_grow_with_the_batch(sessions, tmp_path):
    from sqlalchemy import event

    def statements(count: int, project: str) -> int:
        rows = [{"prompt": f"{project} {n}", "chosen": "yes", "rejected": "no"} for n in range(count)]
        path = write_lines(tmp_path / "a.jsonl", rows)
        with sessions.begin() as session:
            create_project(session, project)
            engine = session.get_bind()
        seen: list[str] = []

        def listen(*args):
            seen.append(args[2])

        event.listen(engine, "before_cursor_execute", listen)
        try:
            ingest_file(sessions, project, path)
        finally:
            event.remove(engine, "before_cursor_execute", listen)
        return len(seen)

    statements(1, "warm-up: the importing user is made once")
    assert statements(100, "many") <= statements(3, "few") + 2
