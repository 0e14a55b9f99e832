"""The application as people meet it: one web process on a filled store, and loads run against it from outside."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks._load import Spec
from storage.accounts import create_user, open_session
from storage.engine import make_engine, make_sessions
from storage.enums import Role, TokenScope
from storage.models import Project
from storage.tokens import create_token


@dataclass(frozen=True)
class People:
    """Who is there: cookies of annotators, and the token of a program."""

    cookies: list[str]
    token: str


@dataclass(frozen=True)
class Web:
    """The web process that is measured."""

    port: int
    process: psutil.Process

    @property
    def rss_mb(self) -> float:
        """Resident memory."""
        return float(self.process.memory_info().rss / 1e6)

    @property
    def cpu_seconds(self) -> float:
        """CPU time so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


@dataclass(frozen=True)
class Measured:
    """A load's outcome: percentiles in ms, submits a second, errors, and CPU seconds of both sides."""

    p50: dict[str, float]
    p95: dict[str, float]
    submits: int
    per_second: float
    errors: int
    first_errors: list[str]
    load_cpu_ms: float  # a submit, with all other requests that belong to it
    web_cpu_ms: float = 0.0  # the same


def make_people(url: str, annotators: int) -> People:
    """Add signed-in annotators and an operator with a token."""
    engine = make_engine(url)
    with make_sessions(engine).begin() as session:
        users = [create_user(session, f"person {n}", Role.ANNOTATOR) for n in range(annotators)]
        cookies = [open_session(session, user, timedelta(days=1)) for user in users]
        operator = create_user(session, "operator", Role.OPERATOR)
        project = session.get_one(Project, 1)
        token = create_token(session, operator, "bench", list(TokenScope), project=project, lifetime=None).plain
    engine.dispose()
    return People(cookies, token)


@contextmanager
def web(home: Path, url: str) -> Iterator[Web]:
    """`feedback-app web` on the store at `url`."""
    home.mkdir(exist_ok=True)
    log = (home / "web.err").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "feedback_app", "web", "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env={**os.environ, "FEEDBACK_HOME": str(home), "FEEDBACK_DATABASE_URL": url},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if '"url"' not in line:
            raise RuntimeError(f"the web process did not start: {line} {(home / 'web.err').read_text()[-2000:]}")
        port = int(json.loads(line)["url"].rsplit(":", 1)[1])
        # The address is told before the first request is taken.
        with httpx.Client(transport=httpx.HTTPTransport(retries=6), timeout=60) as client:
            client.get(f"http://127.0.0.1:{port}/healthz").raise_for_status()
        yield Web(port, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def functions(port: int, cookie: str) -> dict[str, int]:
    """The numbers of the annotate page's functions by name."""
    address = f"http://127.0.0.1:{port}/annotate/config"
    config = httpx.get(address, cookies={"feedback_session": cookie}, trust_env=False, timeout=60).json()
    return {one["api_name"]: one["id"] for one in config["dependencies"] if isinstance(one["api_name"], str)}


def load(web: Web, folder: Path, spec: Spec) -> Measured:
    """Run a load in a process of its own."""
    before = web.cpu_seconds
    got = run_load(folder, spec)
    cpu = (web.cpu_seconds - before) * spec.seconds / (spec.seconds + spec.warm_up)
    return replace(got, web_cpu_ms=round(1000 * cpu / max(got.submits, 1), 2))


def run_load(folder: Path, spec: Spec) -> Measured:
    """Run a load against whatever listens, in a process of its own."""
    path = folder / "load.json"
    path.write_text(json.dumps(asdict(spec)))
    command = [sys.executable, "-m", "benchmarks._load", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the load failed: {done.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(done.stdout)
    times: dict[str, list[float]] = figures["times"]
    submits = len(times.get("submit", []))
    return Measured(
        p50={name: round(statistics.median(values), 1) for name, values in times.items()},
        p95={name: round(statistics.quantiles(values, n=20)[-1], 1) for name, values in times.items() if values[1:]},
        submits=submits,
        per_second=round(submits / figures["seconds"], 1),
        errors=figures["errors"],
        first_errors=figures["first_errors"],
        load_cpu_ms=round(1000 * figures["cpu_seconds"] / max(submits, 1), 2),
    )
