"""Starting, stopping, and what is left behind."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from feedback_app.server import create_app, listen
from feedback_app.settings import load_settings
from feedback_app.supervisor import Supervisor
from storage.errors import Conflict, FeedbackError, Invalid, StoreUnavailable
from tests.web.conftest import serving

SERVE = """
from feedback_app.server import serve
from feedback_app.settings import load_settings
from feedback_app.supervisor import Supervisor
serve(load_settings(), lambda address: print(address, flush=True))
"""


@pytest.fixture
def home(sqlite_template, tmp_path):
    shutil.copy(sqlite_template, tmp_path / "feedback.db")
    return tmp_path


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
def test_opening_and_closing_the_application_leaks_no_descriptor(home):
    settings = load_settings(home=home, port=0)

    def once():
        with serving(create_app(settings), settings) as address:
            assert httpx.get(f"{address}/healthz").json() == {"status": "ok"}
        gc.collect()

    # Building the pages takes seconds beside other tests: three rounds show a leak of one descriptor a round
    # (`python -m benchmarks.app` does it fifty times).
    once()
    before = _descriptors()
    for _ in range(3):
        once()
    assert _descriptors() <= before + 2


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_within_seconds_though_a_stream_is_open(home, sent):
    environment = os.environ | {"FEEDBACK_HOME": str(home), "FEEDBACK_PORT": "0"}
    server = subprocess.Popen([sys.executable, "-c", SERVE], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        address = server.stdout.readline().strip()
        deadline = time.monotonic() + 60
        while True:
            try:
                assert httpx.get(f"{address}/healthz").status_code == 200
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        status = Path(f"/proc/{server.pid}/status")
        if status.exists():
            resident = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
            assert int(resident.split()[1]) < 300 * 1024
            assert "libtorch" not in Path(f"/proc/{server.pid}/maps").read_text()
        with httpx.Client(base_url=address) as browser, browser.stream("GET", "/login"):
            server.send_signal(sent)
            server.communicate(timeout=30)  # the stream would hold it for ever
    finally:
        server.kill()
        server.wait()


def test_a_taken_port_is_said_in_one_line(home):
    first = listen(load_settings(home=home, port=0))
    port = first.getsockname()[1]
    first.listen()
    with first, pytest.raises(Conflict, match=f"port {port} is taken"):
        listen(load_settings(home=home, port=port))


def test_an_address_of_another_machine_is_said_in_one_line(home):
    with pytest.raises((Invalid, FeedbackError), match="cannot listen"):
        listen(load_settings(home=home, host="203.0.113.7", port=0))


def test_a_database_without_tables_is_said_in_one_line(tmp_path):
    with pytest.raises(StoreUnavailable, match="db upgrade"):
        create_app(load_settings(home=tmp_path))


def test_a_database_that_goes_away_gives_503_and_no_traceback(home):
    settings = load_settings(home=home, port=0)
    with serving(create_app(settings), settings) as address:
        for path in home.glob("feedback.db*"):
            path.unlink()
        (home / "feedback.db").write_bytes(b"not a database" * 100)
        answer = httpx.get(f"{address}/healthz")
        # A pooled connection may still see the old file: then it is healthy, never a crash.
        assert answer.status_code in (200, 503)
        page = httpx.post(f"{address}/login", data={"name": "x", "password": "y"}, headers={"accept": "text/html"})
        assert page.status_code in (401, 503)
        assert "Traceback" not in page.text


def test_workers_yield_to_the_pages(tmp_path):
    with Supervisor({}, tmp_path, print) as family:
        worker = family.start("worker", ["worker", "--help"], restart=True).process
        pages = family.start("web", ["web", "--help"], restart=False).process
        niceness = [os.getpriority(os.PRIO_PROCESS, one.pid) for one in (worker, pages)]
        group = Path(f"/proc/{worker.pid}/autogroup")
        assert niceness[0] >= niceness[1] + 10
        assert not group.exists() or group.read_text().split()[-1] == "10"
