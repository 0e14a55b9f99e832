"""A worker, the web process and the database's connections are killed during a training; nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks._kills import Campaign
from storage.enums import RunKind
from trainer.checkpoints import SEAL


@pytest.mark.timeout(180)
def test_a_training_resumes_exactly_and_nothing_that_was_acknowledged_is_lost(
    postgres_url: str, home: Path, tiny_base: Path
) -> None:
    campaign = Campaign(home, postgres_url, str(tiny_base), max_steps=100, save_steps=20, eval_steps=20)
    with campaign:
        reference = campaign.queue(RunKind.DPO)
        campaign.finish()
        resumed = campaign.queue(RunKind.DPO)
        checkpoints = home / "runs" / str(resumed) / "checkpoints"
        campaign.wait(lambda: any(checkpoints.glob(f"checkpoint-*/{SEAL}")))
        for victim in ("worker", "connection", "web"):
            assert campaign.strike(victim), victim
            campaign.pause(0.3)
        campaign.finish()
    found = campaign.look({RunKind.DPO: reference})
    assert found.unexplained == []
    assert found.ended == {"succeeded": 2}
    assert found.compared == 1
    assert found.difference < 1e-6
    assert (found.orphans, found.half, found.lost, found.twice) == ([], [], 0, 0)
    assert found.acknowledged > 10
