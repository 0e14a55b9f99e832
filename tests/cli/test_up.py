"""The processes behind `up`: watched, ended together, never orphaned."""

import signal
import socket
from pathlib import Path

import httpx
import psutil
import pytest

from feedback_app import supervisor
from feedback_app.supervisor import Supervisor, free_port, last_line
from storage.errors import FeedbackError
from tests.app import running_app, until
from tests.cli.conftest import Cli


def _gone(processes: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


def test_up_answers_and_one_ctrl_c_stops_all(home: Path) -> None:
    with running_app(home) as app:
        assert httpx.get(f"{app.url}/login", trust_env=False).status_code == 200
        assert set(app.links) == {"operator", "annotator"}
        assert httpx.get(app.links["operator"], trust_env=False).status_code == 200
        children = until(
            lambda: (found := psutil.Process(app.process.pid).children(recursive=True)) and len(found) >= 3 and found,
            "web and two workers",
        )
        app.process.send_signal(signal.SIGINT)
        assert app.process.wait(supervisor.GRACE_SECONDS + 10) == 0
        until(lambda: _gone(children), "the end of every child")


def test_nothing_survives_a_killed_parent(home: Path) -> None:
    with running_app(home) as app:
        children = psutil.Process(app.process.pid).children(recursive=True)
        app.process.kill()
        app.process.wait()
        until(lambda: _gone(children), "the end of every child")


def _say_nothing(_line: str) -> None:
    """Nobody listens."""


def test_a_dead_worker_is_started_again_and_said_so(home: Path) -> None:
    said: list[str] = []
    environment = {"FEEDBACK_HOME": str(home), "FEEDBACK_DEVICE": "abacus"}  # which ends it at once
    with Supervisor(environment, home / "logs", said.append) as processes:
        child = processes.start("worker", ["worker"], restart=True)
        first = child.process
        until(lambda: processes.check() or child.process is not first, "a second start")
    assert "FEEDBACK_DEVICE" in said[0]
    assert "starting it again in 1 s" in said[0]
    assert not child.running


def test_the_death_of_the_web_process_ends_everything_with_its_reason(home: Path) -> None:
    with Supervisor({"FEEDBACK_DEVICE": "abacus"}, home / "logs", _say_nothing) as processes:
        processes.start("web", ["web"], restart=False)
        with pytest.raises(FeedbackError, match="FEEDBACK_DEVICE"):
            until(lambda: processes.check(), "the death")


def test_a_taken_port_is_one_line(cli: Cli) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for command in (["up"], ["web"]):
            ended = cli(*command, "--port", port)
            assert ended.code == 1
            assert str(port) in ended.error
            assert "--port" in ended.error or "FEEDBACK_PORT" in ended.error
    assert free_port("127.0.0.1", port) == port


def test_an_address_of_another_machine_is_one_line(cli: Cli) -> None:
    ended = cli("up", "--host", "192.0.2.1")
    assert ended.code == 1
    assert "192.0.2.1" in ended.error


def test_the_last_line_of_a_log_skips_empty_ones(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_line(log) == "it said nothing"
    log.write_text("first\nerror: that is why\n\n  \n")
    assert last_line(log) == "error: that is why"
