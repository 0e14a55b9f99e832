"""The most memory that training takes, in a process of its own: `python -m benchmarks._memory SIDE KIND BASE FOLDER`.

Prints resident memory at its highest, in MB. FOLDER/rows.json holds the pairs.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from storage.enums import RunKind


def peak_mb(side: str, kind: RunKind, base: str, rows: list[dict[str, Any]], scratch: Path) -> float:
    """Of `side` ("ours" or "by hand") training on `rows`."""
    scratch.mkdir()
    (scratch / "rows.json").write_text(json.dumps(rows))
    command = [sys.executable, "-m", "benchmarks._memory", side, kind.value, base, str(scratch)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return float(done.stdout.splitlines()[-1])


def _main(side: str, kind: str, base: str, folder: str) -> None:
    from trainer.run import default_threads, quiet_environment

    quiet_environment()
    import torch

    from benchmarks.train import BY_HAND, run_ours, run_trl

    torch.set_num_threads(default_threads(RunKind(kind)))
    rows = json.loads((Path(folder) / "rows.json").read_text())
    if side == "ours":
        run_ours(Path(folder) / "run", base, rows, RunKind(kind))
    else:
        run_trl(Path(folder) / "run", base, rows, RunKind(kind), **BY_HAND)
    # Not getrusage: what a process was before it was told to run this program counts there.
    highest = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    print(int(highest[1]) / 1024 if highest else float("nan"))


if __name__ == "__main__":
    _main(*sys.argv[1:])
