"""`feedback-app doctor` finds what is wrong and says the mend."""

import json
import shutil
import socket
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy.orm import Session, sessionmaker

from feedback_app import doctor
from feedback_app.settings import load_settings
from tests.cli.conftest import Cli
from trainer.policy import resolve_base_model


def test_a_healthy_installation(cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEEDBACK_PORT", "0")
    ended = cli("doctor", "--json")
    assert ended.code == 0, ended.json
    assert {check["name"] for check in ended.json["checks"]} >= {"python", "packages", "database", "base model", "disk"}
    assert list(home.iterdir()) == []  # it looked, and left nothing behind


def _only_wrong(cli: Cli) -> dict[str, str]:
    ended = cli("doctor", "--json")
    assert ended.code == 1
    wrong = [check for check in ended.json["checks"] if not check["ok"]]
    assert len(wrong) == 1, wrong
    assert wrong[0]["mend"]
    return wrong[0]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the base model, which takes seconds."""
    monkeypatch.setenv("FEEDBACK_PORT", "0")
    monkeypatch.setattr(doctor, "base_model", lambda _settings: doctor.Check("base model", True, "not looked at"))


@pytest.mark.usefixtures("quick")
def test_a_wrong_setting(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEEDBACK_PORT", "many")
    assert "FEEDBACK_PORT" in _only_wrong(cli)["found"]


@pytest.mark.usefixtures("quick")
def test_a_misspelt_setting(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEEDBACK_HOEM", "/tmp")
    wrong = _only_wrong(cli)
    assert "FEEDBACK_HOEM" in wrong["found"]
    assert "FEEDBACK_HOME" in wrong["mend"]


@pytest.mark.usefixtures("quick")
def test_a_newer_database(cli: Cli, home: Path, store: sessionmaker[Session]) -> None:
    with sqlite3.connect(home / "feedback.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    assert "newer" in _only_wrong(cli)["found"]


@pytest.mark.usefixtures("quick")
def test_a_locked_database(cli: Cli, home: Path, store: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.engine.BUSY_SECONDS", 0.1)
    other = sqlite3.connect(home / "feedback.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    wrong = _only_wrong(cli)
    other.close()
    assert "locked" in wrong["found"]


@pytest.mark.usefixtures("quick")
def test_a_port_that_is_taken(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("FEEDBACK_PORT", str(taken.getsockname()[1]))
        assert "FEEDBACK_PORT" in _only_wrong(cli)["mend"]


@pytest.mark.usefixtures("quick")
def test_a_full_disk(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "NEEDED_FREE_GB", 1e9)
    assert _only_wrong(cli)["name"] == "disk"


def test_base_models_that_cannot_be_used(tmp_path: Path) -> None:
    starter = Path(resolve_base_model("starter"))
    silent = shutil.copytree(starter, tmp_path / "silent")
    (silent / "chat_template.jinja").unlink()
    config = json.loads((silent / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (silent / "tokenizer_config.json").write_text(json.dumps(config))
    broken = shutil.copytree(starter, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"half a file")
    for folder, says in ((silent, "chat template"), (broken, "cannot be loaded"), (tmp_path / "nowhere", "no such")):
        check = doctor.base_model(load_settings(base_model=str(folder)))
        assert not check.ok
        assert says in check.found
        assert "FEEDBACK_BASE_MODEL" in check.mend
