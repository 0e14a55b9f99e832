"""Nothing is lost, whatever is killed: `python -m benchmarks.survive [--quick] [--json]`.

50 kills (SIGKILL, at random moments, of the worker, of the process of a run, of the web process; of every connection to
the database, on PostgreSQL) of an installation that trains the starter (reward models and DPO in turn) while a program
sends feedback. Then: every run ended succeeded or failed with a reason; the losses of every run that was resumed equal
those of a run of the same data and seed that nobody interrupted; no process outlived its worker; every registered
artifact has the bytes it was registered with; every annotation that was acknowledged is there, once. `--quick` kills
each kind of victim once.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks._kills import VICTIMS, Campaign, Found, moments
from benchmarks._report import Bar, Outcome, run_benchmark
from benchmarks.store import postgres
from storage.enums import RunKind
from storage.schema import upgrade

FULL = 50
KINDS = (RunKind.DPO, RunKind.REWARD)
_CHANCES = {"worker": 5, "process": 2, "web": 2, "connection": 2}
MOST_LOST = 2  # workers of one run: the third time it fails, and could not be compared
ENDED = 4  # one run in so many may have its process killed, which ends it: the others are resumed to their end
_AT_WORK = 0.7  # of these kills: once there is a checkpoint; else most would hit what is only starting


def measure(args: argparse.Namespace) -> Outcome:
    """Kill, look, count."""
    kinds, steps = (KINDS[:1], 60) if args.quick else (KINDS, 150)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="feedback-benchmark-")))
        url = f"sqlite:///{folder / 'feedback.db'}" if args.sqlite else stack.enter_context(postgres(folder))
        upgrade(url)
        campaign = Campaign(
            folder, url, "starter", args.seed, max_steps=steps, save_steps=10, eval_steps=10, max_length=128
        )
        reference: dict[RunKind, int] = {}
        with campaign:
            for kind in kinds:
                reference[kind] = campaign.queue(kind)
                campaign.finish()
            kills = _strike_each(campaign, kinds[0]) if args.quick else _strike(campaign, FULL, kinds)
            campaign.finish()
        found = campaign.look(reference)
    return Outcome(_bars(found, kills), _extra(found))


def _strike_each(campaign: Campaign, kind: RunKind) -> int:
    """Each kind of victim once: a run that loses its worker goes on to its end, another loses its process."""
    rng = random.Random(campaign.rng.random())
    names = [name for name in VICTIMS if name != "process" and (name != "connection" or campaign.on_postgres)]
    campaign.queue(kind)
    for name in names:  # the worker first: the others are hit while the run waits, or has been taken up again
        if name == "worker":
            campaign.wait(campaign.at_work)
        campaign.pause(moments(rng, 0.3))
        campaign.strike(name)
    campaign.finish()
    campaign.queue(kind)
    campaign.wait(campaign.at_work)
    campaign.strike("process")
    return len(names) + 1


def _strike(campaign: Campaign, kills: int, kinds: tuple[RunKind, ...]) -> int:
    """So many, of random victims at random moments."""
    rng, turn = random.Random(campaign.rng.random()), 0
    names = [name for name in VICTIMS if name != "connection" or campaign.on_postgres]
    while sum(campaign.found.kills.values()) < kills:
        run = campaign.open_run()
        if run is None:
            campaign.queue(kinds[turn % len(kinds)])
            turn += 1
        first = not campaign.found.kills
        now = [name for name in names if name != "worker" or run is None or campaign.lost_by[run.id] < MOST_LOST]
        if turn % ENDED != 0:
            now.remove("process")
        victim = "worker" if first else rng.choices(now, [_CHANCES[name] for name in now])[0]
        if victim in ("worker", "process") and (first or rng.random() < _AT_WORK):
            campaign.wait(campaign.at_work)
        campaign.pause(moments(rng, 2.0))
        campaign.strike(victim)
    return kills


def _bars(found: Found, kills: int) -> list[Bar]:
    return [
        Bar("kills", sum(found.kills.values()), kills),
        Bar("runs that ended in no way that was promised", len(found.unexplained), 0, "<="),
        Bar("resumed runs whose losses were compared", found.compared, 1),
        Bar("largest difference of a loss from the uninterrupted run's", found.difference, 1e-6, "<="),
        Bar("processes that outlived their parent", len(found.orphans), 0, "<="),
        Bar("artifacts with other bytes than registered", len(found.half), 0, "<="),
        Bar("annotations acknowledged and lost", found.lost, 0, "<="),
        Bar("annotations stored twice", found.twice, 0, "<="),
    ]


def _extra(found: Found) -> dict[str, object]:
    return {
        "killed": dict(found.kills),
        "runs_ended": dict(found.ended),
        "resumed": found.resumed,
        "acknowledged": found.acknowledged,
        "unexplained": found.unexplained,
    }


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sqlite", action="store_true", help="on SQLite, which has no connections to kill")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims")


if __name__ == "__main__":
    raise SystemExit(run_benchmark("survive", measure, arguments=_arguments))
