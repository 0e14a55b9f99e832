"""The verdicts that gates gave, as the registry needs them; `storage.gate` gives them."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.enums import GateVerdict
from storage.models import GateResult, ModelVersion


def latest_result(session: Session, version: ModelVersion) -> GateResult | None:
    """The newest verdict on a version, or None before the first."""
    return session.scalar(
        select(GateResult).where(GateResult.version_id == version.id).order_by(GateResult.id.desc()).limit(1)
    )


def passed(result: GateResult | None, champion: ModelVersion | None) -> bool:
    """Whether a verdict is a pass against `champion`, who is in service now."""
    against = champion.id if champion is not None else None
    return result is not None and result.verdict is GateVerdict.PASS and result.champion_id == against
