"""`feedback-app import` and `export`."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, write_pairs


def test_import_reports_what_came_in_and_a_second_time_adds_nothing(cli: Cli, pairs: Path) -> None:
    first = cli("import", pairs, "--project", "care", "--json")
    assert first.code == 0
    assert {key: first.json[key] for key in ("prompts", "completions", "pairs", "project_created")} == {
        "prompts": 60,
        "completions": 120,
        "pairs": 60,
        "project_created": True,
    }
    second = cli("import", pairs, "--project", "care", "--json").json
    assert not any(second[key] for key in ("prompts", "completions", "pairs", "ratings", "critiques", "refinements"))
    assert second["skipped"] == {"already there": 60}


def test_a_bad_line_is_skipped_and_named(cli: Cli, tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "pairs.jsonl", 3)
    path.write_text(path.read_text() + "{broken\n")
    report = cli("import", path, "--project", "care", "--json")
    assert report.code == 0
    assert report.json["pairs"] == 3
    assert [bad["line"] for bad in report.json["skipped_lines"]] == [4]
    assert "line 4" in cli("import", path, "--project", "other").out


def test_a_file_that_is_missing_or_of_no_known_format_is_said_so(cli: Cli, tmp_path: Path) -> None:
    missing = cli("import", tmp_path / "no.jsonl", "--project", "care")
    assert (missing.code, "no file" in missing.error) == (1, True)
    odd = tmp_path / "odd.jsonl"
    odd.write_text('{"colour": "red"}\n')
    unknown = cli("import", odd, "--project", "care")
    assert unknown.code == 1
    assert "columns" in unknown.error or "format" in unknown.error


@pytest.mark.parametrize("format_", ["jsonl", "parquet", "csv", "hf"])
def test_export_writes_rows_and_their_hash(cli: Cli, pairs: Path, tmp_path: Path, format_: str) -> None:
    cli("import", pairs, "--project", "care")
    out = tmp_path / f"out.{format_}"
    report = cli("export", "--project", "care", "--what", "preference", "--format", format_, "--out", out, "--json")
    assert (report.code, report.json["rows"]) == (0, 60)
    assert len(report.json["sha256"]) == 64
    assert out.exists()
    if format_ == "jsonl":
        row = json.loads(out.read_text().splitlines()[0])
        assert row["chosen"][0]["role"] == "assistant"


def test_export_of_nothing_known_is_said_so_and_leaves_no_file(cli: Cli, pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    unknown = cli("export", "--project", "nope", "--what", "ratings", "--out", out)
    assert (unknown.code, "no project 'nope'" in unknown.error) == (1, True)
    cli("import", pairs, "--project", "care")
    nowhere = cli("export", "--project", "care", "--what", "ratings", "--out", tmp_path / "no" / "out.jsonl")
    assert nowhere.code == 1
    assert "no" in nowhere.error
    assert not out.exists()
    assert not (tmp_path / "no").exists()
