"""The processes behind `feedback-app up`: started together, watched, ended together, never orphaned.

Each child holds the read end of a pipe as its stdin and stops when it closes (`--stop-with-stdin`), so that nothing
survives even a parent that was killed. Children stand in sessions of their own: one Ctrl-C reaches the parent only,
which then ends them in order.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from storage.errors import FeedbackError

GRACE_SECONDS = 15.0  # what a worker needs to put a running run back
HEALTHY_SECONDS = 30.0  # a child that lived so long starts again without delay
MAX_DELAY_SECONDS = 30.0
MAX_LOG_BYTES = 5_000_000
WORKER_NICE = 10


@dataclass
class Child:
    """One process: how it is started, and whether it is started again when it ends."""

    name: str
    arguments: list[str]
    log: Path
    restart: bool
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    again_at: float | None = None
    quick_deaths: int = 0

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self.process is not None and self.process.poll() is None


@dataclass
class Supervisor:
    """Starts children, starts workers again when they die, and ends all of them at the end of its `with` block."""

    environment: Mapping[str, str]
    logs: Path
    say: Callable[[str], None]
    children: list[Child] = field(default_factory=list)

    def __enter__(self) -> Supervisor:
        self.logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, name: str, arguments: list[str], *, restart: bool) -> Child:
        """Start `feedback-app ARGUMENTS`, its output in the log folder under `name`."""
        child = Child(name, arguments, self.logs / f"{name}.log", restart)
        self.children.append(child)
        self._launch(child)
        return child

    def _launch(self, child: Child) -> None:
        if child.log.exists() and child.log.stat().st_size > MAX_LOG_BYTES:
            child.log.replace(child.log.with_suffix(".log.1"))
        if child.process:
            _hang_up(child.process)
        child.process = spawn(child.arguments, child.log, self.environment)
        if child.restart:
            let_others_first(child.process.pid)
        child.started, child.again_at = time.monotonic(), None

    def check(self) -> None:
        """Look after the children once; raises `FeedbackError` when one ended that is not started again."""
        for child in self.children:
            if child.running:
                continue
            if child.again_at is None:
                self._note_death(child)
            elif time.monotonic() >= child.again_at:
                self._launch(child)

    def _note_death(self, child: Child) -> None:
        code = child.process.returncode if child.process else None
        why = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
        if not child.restart:
            raise FeedbackError(f"{child.name} ended ({why}): {last_line(child.log)}; more in {child.log}")
        quick = time.monotonic() - child.started < HEALTHY_SECONDS
        child.quick_deaths = child.quick_deaths + 1 if quick else 0
        delay = min(MAX_DELAY_SECONDS, 2.0 ** (child.quick_deaths - 1)) if quick else 0.0
        child.again_at = time.monotonic() + delay
        soon = f"in {delay:.0f} s" if delay else "now"
        self.say(f"{child.name} ended ({why}): {last_line(child.log)}; starting it again {soon}")

    def stop(self) -> None:
        """End every child: ask, wait, then kill what is left."""
        for child in self.children:
            if child.running and child.process:
                child.process.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        for child in self.children:
            if child.process and not end(child.process, max(0.0, deadline - time.monotonic())):
                self.say(f"{child.name} did not end by itself and was killed")


def spawn(arguments: list[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start `feedback-app ARGUMENTS` in a session of its own; it ends at the latest with this process."""
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603  this very program, started without a shell
            [sys.executable, "-m", "feedback_app", *arguments, "--stop-with-stdin"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env={**os.environ, **environment, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )


def let_others_first(pid: int) -> None:
    """Make a worker and all it will start yield to the pages, which people wait for.

    Linux shares processor time between sessions first (autogroup), where the niceness of a process counts within its
    session only: so the session's own is lowered too, where the kernel has one.
    """
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, WORKER_NICE)
    with suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(WORKER_NICE))


def end(process: subprocess.Popen[bytes], grace: float = GRACE_SECONDS) -> bool:
    """Ask a process to end, wait, then kill it; False when it had to be killed. Its own children end with it."""
    process.terminate()
    try:
        process.wait(grace)
        by_itself = True
    except subprocess.TimeoutExpired:
        by_itself = False
    with suppress(ProcessLookupError, PermissionError):  # the usual case: nobody is left
        os.killpg(process.pid, signal.SIGKILL)  # it leads a group of its own, see `spawn`
    process.wait()
    _hang_up(process)
    return by_itself


def _hang_up(process: subprocess.Popen[bytes]) -> None:
    """Close our end of an ended child's stdin."""
    if process.stdin:
        process.stdin.close()


def last_line(log: Path) -> str:
    """The last line that says something, at most 300 characters of it."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4000))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    return lines[-1][:300] if lines else "it said nothing"


def stop_with_stdin() -> None:
    """End this process as if asked to (SIGTERM) once stdin closes: then the parent is gone."""

    def wait_for_the_end() -> None:
        while os.read(0, 1024):  # not sys.stdin: its lock would be held when the interpreter ends
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_SECONDS)
        os._exit(1)

    threading.Thread(target=wait_for_the_end, name="stop-with-stdin", daemon=True).start()


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM and a closed terminal set; a second Ctrl-C interrupts as usual."""
    asked = threading.Event()

    def ask(number: int, _frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, ask) for number in numbers]
    try:
        yield asked
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def free_port(host: str, port: int) -> int:
    """`port` when it can be bound on `host`, or a free one for 0; raises `FeedbackError` with the mend."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise FeedbackError(
                f"cannot listen on {host} port {port} ({(error.strerror or str(error)).lower()}); "
                "stop the program that holds it or choose another with --port (0 picks a free one)"
            ) from error
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    """Whether a web server answers at `url` with success."""
    try:
        # No proxy: the address is this machine's.
        with build_opener(ProxyHandler({})).open(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except (URLError, OSError):
        return False
