"""One process a run, forked from a server that has torch and TRL in memory already.

The heavy imports (seconds, hundreds of megabytes) are paid once a worker; a run's process is ready in milliseconds,
and when the system kills it for memory nothing else is lost. A process never outlives its worker: it watches the pipe
that the worker's end of life closes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing.connection import wait
from pathlib import Path

from trainer.folder import RunFolder
from trainer.run import DISK_FULL, FULL, OK, execute, quiet_environment

NICE = 10  # training yields to the web and to generation


class Child:
    """The process of one run."""

    def __init__(self, folder: RunFolder, *, nice: int) -> None:
        """Start it; returns at once."""
        context = multiprocessing.get_context("forkserver")
        self.folder = folder
        self._process = context.Process(target=_main, args=(str(folder.path), nice), daemon=False)
        self._process.start()

    @property
    def pid(self) -> int | None:
        """The process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.exitcode

    def kill(self) -> None:
        """End it at once, and wait until it has ended."""
        self._process.kill()
        self._process.join()

    def failure(self) -> str | None:
        """Why the process ended without saying so itself; None after a proper end."""
        code = self.exit_code
        if code is None or code == OK:
            return None
        if code == DISK_FULL:
            return FULL
        if code == -signal.SIGKILL:
            return "the run's process was killed, most likely because memory ran out; lower batch_size or max_length"
        if code < 0:
            return f"the run's process was ended by signal {-code} ({_signal_name(-code)}); start the run again"
        return f"the run's process ended with code {code}; the run's log.txt has the reason"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


_cold: threading.Thread | None = None


def warm_up() -> None:
    """Start the fork server and its imports now, in the background, so that the first run does not wait for them."""
    global _cold
    quiet_environment()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["trainer.preload"])
    from multiprocessing import forkserver

    forkserver.ensure_running()
    _cold = threading.Thread(target=_first_process, daemon=True)
    _cold.start()


def is_warm() -> bool:
    """Whether a process starts at once; False while a warm-up is going on."""
    return _cold is None or not _cold.is_alive()


def _first_process() -> None:
    """The server takes its first order when its imports are done."""
    first = multiprocessing.get_context("forkserver").Process(target=_nothing)
    first.start()
    first.join()


def _nothing() -> None:
    pass


def _main(path: str, nice: int) -> None:
    """The run's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's; it decides what becomes of the run
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    folder = RunFolder(Path(path))
    with folder.log.open("ab") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    if nice:
        os.nice(nice)
    quiet_environment()
    sys.exit(execute(folder))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)
