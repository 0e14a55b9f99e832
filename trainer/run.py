"""`python -m trainer.run RUN_DIR`: one run in one process, no SQL; the folder is the whole contract (trainer.folder).

Exit codes: 0 finished, 1 failed with a reason in events.jsonl, 3 stopped because of CANCEL, 4 the disk was too full
even to say so.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
from pathlib import Path

from storage.configs import GenerateConfig
from storage.enums import RunKind
from storage.errors import FeedbackError
from trainer.folder import Cancelled, Job, RunFolder

OK, FAILED, CANCELLED, DISK_FULL = 0, 1, 3, 4
FULL = "the disk is full; free some space, then queue the run again"
AT_ONCE = frozenset({RunKind.GENERATE, RunKind.PLAYGROUND})  # people wait for these; other kinds yield to them


def quiet_environment() -> None:
    """Offline and silent, before anything heavy is imported: TRL and the hub report at construction otherwise."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Idle threads sleep: the web and the generator share the cores with a training run.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Asking for a GPU in the forkserver must not initialise CUDA there.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")


def execute(folder: RunFolder) -> int:
    """Run what run.json asks for; every outcome becomes an event. Returns the exit code."""
    try:
        job = folder.job()
        _prepare(folder, job)
        recipe = importlib.import_module(f"trainer.recipes.{job.recipe.value}")
        result = recipe.run(folder, job)
        folder.emit("result", values=result)
    except Cancelled:
        folder.say("stopped: the run was cancelled")
        return CANCELLED
    except Exception as error:
        message, mendable = explain(error)
        if _disk_is_full(error):
            from trainer.checkpoints import make_room

            make_room(folder)  # also for the lines that follow
        try:
            traceback.print_exc()
            folder.emit("error", message=message, mendable=mendable)
        except OSError:
            return DISK_FULL
        return FAILED
    return OK


def _prepare(folder: RunFolder, job: Job) -> None:
    import torch

    from trainer.checkpoints import record_environment
    from trainer.policy import pick_device

    threads = job.config.get("threads") or default_threads(job.recipe)
    torch.set_num_threads(threads)
    device = pick_device(job.config.get("device") or GenerateConfig().device)
    record_environment(folder, device, threads)
    folder.check_cancel()


def default_threads(kind: RunKind) -> int:
    """All cores for generation; half of them for what trains or refines, and for the playground: a token at a time.

    Threads of one run wait for each other: beside other busy processes two are several times slower than one, and web
    and generator are to stay quick while a model trains.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if kind is RunKind.GENERATE else max(1, cores // 2)


_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc")


def explain(error: BaseException) -> tuple[str, bool]:
    """One line for people, and whether they can mend it; everything else keeps its traceback in log.txt."""
    text = " ".join(str(error).split())
    if isinstance(error, FeedbackError):
        return text, True
    if isinstance(error, MemoryError) or any(sign in text.lower() for sign in _NO_MEMORY):
        return "out of memory; lower batch_size or max_length, or choose a smaller base model", True
    if _disk_is_full(error):
        return FULL, True
    return f"{type(error).__name__}: {text[:300]}; the run's log.txt has the traceback", False


# "unexpected pos": what torch.save says when the end of its file did not fit.
_NO_ROOM = ("no space left", "quota exceeded", "pytorchstreamwriter failed writing", "unexpected pos")


def _disk_is_full(error: BaseException) -> bool:
    """Also where a library that writes files by itself says so in words of its own, or in an error it caused."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    text = " ".join(str(error).split()).lower()
    if any(sign in text for sign in _NO_ROOM):
        return True
    cause = error.__cause__ or error.__context__
    return cause is not None and _disk_is_full(cause)


def main() -> int:
    """The command."""
    if len(sys.argv) != 2:
        print("usage: python -m trainer.run RUN_DIR", file=sys.stderr)
        return 2
    quiet_environment()
    folder = RunFolder(Path(sys.argv[1]).absolute())
    if not folder.path.is_dir():
        print(f"error: no run folder at {folder.path}", file=sys.stderr)
        return FAILED
    return execute(folder)


if __name__ == "__main__":
    raise SystemExit(main())
