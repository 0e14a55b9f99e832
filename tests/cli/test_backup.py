"""`feedback-app backup` and `restore`, typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Cli


def test_what_was_backed_up_stands_in_another_data_folder(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("user", "add", "ann").code == 0
    kept = tmp_path / "kept.zip"
    made = cli("backup", kept, "--json").json
    assert made["rows"]["users"] == 1
    assert made["bytes"] == kept.stat().st_size
    for arguments, mend in (
        (("backup", kept), "another name"),
        (("restore", kept), "--replace"),
        (("restore", tmp_path / "nothing.zip"), "check the path"),
    ):
        ended = cli(*arguments)
        assert ended.code == 1
        assert mend in ended.error
    monkeypatch.setenv("FEEDBACK_HOME", str(tmp_path / "other"))
    assert cli("restore", kept, "--json").json["rows"] == made["rows"]
    assert [user["name"] for user in cli("user", "list", "--json").json["users"]] == ["ann"]
    again = cli("restore", kept, "--replace")
    assert again.code == 0
    assert "restored" in again.out
