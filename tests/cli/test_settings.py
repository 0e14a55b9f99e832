"""Settings: read once, wrong ones explained in one line, handed to child processes unchanged."""

from pathlib import Path

import pytest
from sqlalchemy import make_url

from feedback_app.settings import PREFIX, Settings, load_settings, unknown_variables
from storage.errors import Invalid


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("PORT", "99999", "FEEDBACK_PORT: input should be less than or equal to 65535 (got '99999')"),
        ("PORT", "web", "FEEDBACK_PORT"),
        ("SESSION_DAYS", "0", "FEEDBACK_SESSION_DAYS"),
        ("DEVICE", "tpu", "FEEDBACK_DEVICE"),
        ("LOG_LEVEL", "loud", "FEEDBACK_LOG_LEVEL"),
        ("PUBLIC_URL", "feedback.example", "FEEDBACK_PUBLIC_URL"),
        (
            "DATABASE_URL",
            "mysql://host/db",
            "'mysql' is not supported; use SQLite or PostgreSQL",
        ),
        ("DATABASE_URL", "nonsense", "FEEDBACK_DATABASE_URL: not a database address"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(Invalid) as caught:
        load_settings()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_password_in_the_database_address_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEEDBACK_DATABASE_URL", "oracle://anna:geheim@host/db")
    with pytest.raises(Invalid) as caught:
        load_settings()
    assert "geheim" not in str(caught.value)


def test_a_child_process_gets_the_very_same_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path / "a folder", port=1234, public_url="https://feedback.example", device="cpu")
    for name, value in settings.as_environment().items():
        monkeypatch.setenv(name, value)
    assert load_settings() == settings


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEEDBACK_PORT", "")
    assert load_settings().port == Settings.model_fields["port"].default


def test_the_home_folder_is_absolute_and_a_tilde_is_understood(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FEEDBACK_HOME", "~/feedback")
    assert load_settings().home == tmp_path / "feedback"


@pytest.mark.parametrize("folder", ["plain", "with space", "with?question#hash%25"])
def test_the_sqlite_file_lies_in_the_home_folder_whatever_it_is_called(tmp_path: Path, folder: str) -> None:
    settings = load_settings(home=tmp_path / folder)
    assert make_url(settings.store_url).database == str(tmp_path / folder / "feedback.db")


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({"host": "0.0.0.0", "port": 80}, "http://127.0.0.1:80"),
        ({"host": "::1", "port": 80}, "http://[::1]:80"),
        ({"public_url": "https://feedback.example/"}, "https://feedback.example"),
    ],
)
def test_links_use_an_address_that_can_be_typed(given: dict[str, object], url: str) -> None:
    assert load_settings(**given).url == url


def test_a_misspelt_variable_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert unknown_variables() == []
    monkeypatch.setenv("FEEDBACK_PROT", "8000")
    assert unknown_variables() == ["FEEDBACK_PROT"]
