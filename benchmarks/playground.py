"""How long people wait for the playground: `python -m benchmarks.playground [--quick] [--json]`.

Starts `feedback-app up --demo` on an empty data folder and sends messages on /play/ in a real Chromium. The wait counts
from the click on Send to the first letter of a completion in the page. Cold: the page was opened this moment and the
model's process is not there yet. Warm: it is. Then the same while a DPO run is going on in a worker beside it.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks._report import Bar, Outcome, run_benchmark
from benchmarks.app import PATIENCE, _app, _start_training, _status
from tests.browser import ARGUMENTS, CHROMIUM

FULL, QUICK = 30, 8
MESSAGE = "Hello, my order {number} has not come yet. Can you tell me where it is?"

# Clicks Send and gives milliseconds until the first letter and until both completions can be judged.
SEND_AND_TIME = """() => new Promise((done) => {
  const shown = () => [...'ab'].some((x) => document.querySelector(`#fb-side-${x} .fb-text`)?.innerText.trim());
  const stage = () => document.querySelector('#fb-stage')?.dataset.state;
  const started = performance.now();
  let first = null;
  const watcher = new MutationObserver(() => {
    if (first === null && stage() === 'writing' && shown()) first = performance.now() - started;
    if (stage() !== 'item') return;
    watcher.disconnect();
    const all = performance.now() - started;
    done([first ?? all, all]);
  });
  watcher.observe(document.body, {subtree: true, childList: true, characterData: true, attributes: true});
  document.querySelector('#pl-send').click();
})"""


class Waits(NamedTuple):
    """Milliseconds of each message: to the first letter, and to the form."""

    first: list[float]
    whole: list[float]


def measure(args: argparse.Namespace) -> Outcome:
    """Talk cold, warm and beside a training run."""
    count = QUICK if args.quick else FULL
    with tempfile.TemporaryDirectory(prefix="feedback-benchmark-") as folder, _app(Path(folder)) as app:
        home, link = Path(folder), app[2]["links"]["annotator"]
        with _page(link) as page:
            _settle(home)
            cold = _talk(page, 1, opened=time.monotonic())
            warm = _talk(page, count)
            run = _start_training(home)
            beside = _talk(page, count)
            trained = _status(home, run) == "running"
        rate = _rate(home)
    bars = [
        Bar("first letter, warm, p50 ms", statistics.median(warm.first), 1500, "<="),
        Bar("first letter, warm, p95 ms", _p95(warm.first), 1500, "<="),
        Bar("first letter, cold, ms", cold.first[0], 10_000, "<="),
        Bar("first letter, beside training, p95 ms", _p95(beside.first), 1500, "<="),
        Bar("training was still running at the end", float(trained), 1, ">="),
    ]
    extra = {
        "messages": count,
        "beside_training_p50_ms": round(statistics.median(beside.first)),
        "both_written_warm_p50_ms": round(statistics.median(warm.whole)),
        "both_written_beside_training_p50_ms": round(statistics.median(beside.whole)),
        "tokens_per_second": rate,
    }
    return Outcome(bars, extra)


class _page:
    """A signed-in page on /play/ in Chromium."""

    def __init__(self, link: str) -> None:
        from playwright.sync_api import sync_playwright

        self._driver = sync_playwright().start()
        self._browser = self._driver.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        self.page = self._browser.new_page()
        self.page.set_default_timeout(PATIENCE * 1000)
        self.page.goto(link)
        self.page.click("form button[type=submit]")

    def __enter__(self) -> Any:
        return self.page

    def __exit__(self, *_: object) -> None:
        self._browser.close()
        self._driver.stop()


def _talk(page: Any, count: int, opened: float | None = None) -> Waits:
    """Send messages, each in a conversation of its own; with `opened`, on a page that is loaded for it."""
    waits = Waits([], [])
    if opened is not None:
        page.goto(page.url.split("/annotate")[0].rstrip("/") + "/play/")
    for number in range(count):
        page.wait_for_selector('#fb-stage[data-state="typing"]', state="attached")
        page.fill("#pl-box textarea", MESSAGE.format(number=4000 + number + int(time.time()) % 1000))
        if opened is None:
            page.wait_for_timeout(300)  # a person reads what they wrote
        first, whole = page.evaluate(SEND_AND_TIME)
        waits.first.append(first)
        waits.whole.append(whole)
        page.click("#pl-leave")
    return waits


def _settle(home: Path) -> None:
    """Wait until the first items are written: they are not what is measured."""
    deadline = time.monotonic() + PATIENCE
    query = "SELECT count(*) FROM runs WHERE status IN ('queued', 'running')"
    quiet = 0
    while quiet < 10 and time.monotonic() < deadline:
        with sqlite3.connect(f"file:{home / 'feedback.db'}?mode=ro", uri=True) as connection:
            quiet = 0 if connection.execute(query).fetchone()[0] else quiet + 1
        time.sleep(0.3)


def _rate(home: Path) -> float:
    """Tokens a second of both completions together, while they were written; the median over all messages."""
    query = """SELECT sum(token_count), max(latency_ms) FROM completions JOIN prompts ON prompts.id = prompt_id
               WHERE source = 'playground' GROUP BY prompt_id"""
    with sqlite3.connect(f"file:{home / 'feedback.db'}?mode=ro", uri=True) as connection:
        return round(statistics.median(tokens / ms * 1000 for tokens, ms in connection.execute(query)))


def _p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


if __name__ == "__main__":
    raise SystemExit(run_benchmark("playground", measure))
