"""The first minute, and the page while training runs: `python -m benchmarks.app [--quick] [--json]`.

Starts `feedback-app up --demo` on an empty data folder, waits for the login page and for the first item, then judges
items in a real Chromium while a DPO run is going on in a worker beside it. A click counts from the mouse to the next
item standing in the page (which is both figures of the promise at once: submit and next item). In full it also opens
and
closes the application fifty times in one process, and counts the file descriptors left open.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks._report import Bar, Outcome, run_benchmark
from feedback_app.demo_project import DEMO_PROJECT
from feedback_app.supervisor import answers, free_port
from tests.browser import ARGUMENTS, CHROMIUM

PAIRS = 600  # imported, so that there is something to train on
FULL_CLICKS, QUICK_CLICKS = 60, 15
PATIENCE = 120.0

# Clicks the button and gives the milliseconds until another item stands in the page.
SUBMIT_AND_TIME = """() => new Promise((done) => {
  const stage = () => document.querySelector('#fb-stage')?.dataset.assignment;
  const before = stage(), started = performance.now();
  const watcher = new MutationObserver(() => {
    if (stage() && stage() !== before) {
      watcher.disconnect();
      requestAnimationFrame(() => done(performance.now() - started));
    }
  });
  watcher.observe(document.body, {subtree: true, childList: true, attributes: true});
  document.querySelector('#fb-submit').click();
})"""


def measure(args: argparse.Namespace) -> Outcome:
    """Start the app cold, annotate beside a training run, and report the promises of the first minute."""
    clicks = QUICK_CLICKS if args.quick else FULL_CLICKS
    with tempfile.TemporaryDirectory(prefix="feedback-benchmark-") as folder, _app(Path(folder)) as app:
        login, first_item, ready = app
        web = _web_process()
        idle_mb = web.memory_info().rss / 1e6
        run = _start_training(Path(folder))
        times = _annotate(ready["links"]["annotator"], clicks)
        still_running = _status(Path(folder), run) == "running"
        used_mb = web.memory_info().rss / 1e6
        torch = sum("torch" in mapped.path for mapped in web.memory_maps())
    left = None if args.quick else descriptors_left()
    p95 = statistics.quantiles(times, n=20)[-1]
    bars = [
        Bar("seconds to the login page", login, 8, "<="),
        Bar("seconds to the first item", first_item, 30, "<="),
        Bar("submit to next item, p95 ms, beside training", p95, 150, "<="),
        Bar("web process MB after the session", used_mb, 300, "<="),
        Bar("torch files mapped in the web process", torch, 0, "<="),
        Bar("training was still running at the end", float(still_running), 1, ">="),
    ]
    if left is not None:
        bars.append(Bar("descriptors left open by fifty openings", left, 2, "<="))
    extra = {"submits": len(times), "submit_p50_ms": round(statistics.median(times), 1), "web_mb_idle": round(idle_mb)}
    return Outcome(bars, extra)


def descriptors_left(rounds: int = 50) -> int:
    """File descriptors that this process has more after so many openings and closings than after the first."""
    from feedback_app.server import create_app
    from feedback_app.settings import load_settings
    from storage.schema import upgrade
    from tests.web.conftest import serving

    counts = []
    with tempfile.TemporaryDirectory(prefix="feedback-benchmark-") as folder:
        settings = load_settings(home=Path(folder), port=0)
        upgrade(settings.store_url)
        for _ in range(rounds + 1):
            with serving(create_app(settings), settings) as address:
                httpx.get(f"{address}/healthz", trust_env=False).raise_for_status()
            gc.collect()
            counts.append(psutil.Process().num_fds())
    return counts[-1] - counts[0]


@contextmanager
def _app(home: Path) -> Iterator[tuple[float, float, dict[str, Any]]]:
    """The app on an empty folder: seconds to the login page, seconds to the first item, and what `up` printed."""
    port = free_port("127.0.0.1", 0)
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "feedback_app", "up", "--demo", "--port", str(port), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "FEEDBACK_HOME": str(home)},
    )
    try:
        _until(lambda: answers(f"http://127.0.0.1:{port}/login"), "the login page")
        login = time.monotonic() - started
        _until(lambda: _count(home, "SELECT count(*) FROM items"), "the first item")
        first_item = time.monotonic() - started
        assert process.stdout is not None
        yield login, first_item, json.loads(process.stdout.readline())
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def _start_training(home: Path) -> int:
    """Import pairs into the demo project, queue a long DPO run, and wait for its first steps."""
    path = home / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in _pairs()))
    _command(home, "import", str(path), "--project", DEMO_PROJECT)
    settings = ["--set", "epochs=100", "--set", "early_stopping=false"]
    run = int(_command(home, "train", "dpo", "--project", DEMO_PROJECT, *settings)["run"])
    _until(lambda: _count(home, f"SELECT coalesce(max(step), 0) FROM runs WHERE id = {run}"), "the first step")
    return run


def _pairs() -> Iterator[dict[str, str]]:
    from trainer.starter.grammar import sample_facets, sample_prompts, write_reply

    rng = random.Random(0)
    for request in sample_prompts(PAIRS, seed=7, held_out=False):
        chosen, rejected = (write_reply(rng, request, sample_facets(rng)) for _ in range(2))
        yield {"prompt": request.text, "chosen": chosen, "rejected": rejected}


def _annotate(link: str, clicks: int) -> list[float]:
    """Sign in by the link and judge items; milliseconds from each submit to the next item."""
    from playwright.sync_api import sync_playwright

    times = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        page = browser.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.goto(link)
        page.click("form button[type=submit]")
        page.goto(f"{link.split('/login/')[0]}/annotate/")
        page.wait_for_selector("#fb-stage[data-state=item]", state="attached")
        for number in range(clicks + 1):
            page.click(f".fb-pick[data-pick={'ab'[number % 2]}]")
            page.fill(".fb-critique >> nth=0 >> textarea", f"Give a date, please ({number}).")
            page.wait_for_timeout(300)  # a person reads; the draft is saved meanwhile
            times.append(page.evaluate(SUBMIT_AND_TIME))
        browser.close()
    return times[1:]  # the first one warms the page up


def _command(home: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "feedback_app", *arguments, "--json"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "FEEDBACK_HOME": str(home)},
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _web_process() -> psutil.Process:
    for child in psutil.Process().children(recursive=True):
        if child.cmdline()[2:4] == ["feedback_app", "web"]:
            return child
    raise RuntimeError("the web process is not there")


def _status(home: Path, run: int) -> str:
    with sqlite3.connect(home / "feedback.db") as connection:
        return str(connection.execute("SELECT status FROM runs WHERE id = ?", (run,)).fetchone()[0])


def _count(home: Path, query: str) -> int:
    try:
        with sqlite3.connect(f"file:{home / 'feedback.db'}?mode=ro", uri=True) as connection:
            return int(connection.execute(query).fetchone()[0])
    except sqlite3.OperationalError:  # no tables yet
        return 0


def _until(true: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {PATIENCE:.0f} s in vain for {what}")
        time.sleep(0.05)


if __name__ == "__main__":
    raise SystemExit(run_benchmark("app", measure))
