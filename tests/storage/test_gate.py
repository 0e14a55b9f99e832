"""The gate: what the figures of an evaluation come to, and what it takes to promote a version."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from storage import audit, gate, projects, registry
from storage.enums import GateVerdict, ModelKind, Split
from storage.errors import Conflict, Invalid, NotEnoughData
from storage.evaluations import figures_of
from storage.gate import GateSettings
from storage.models import Evaluation, ModelVersion, Project, Promotion
from storage.verdicts import Human, Interval, Verdict, needed, verdict
from tests import factories

PASS, FAIL, OPEN = GateVerdict.PASS, GateVerdict.FAIL, GateVerdict.INCONCLUSIVE


def figure(value: float | None, low: float | None = None, high: float | None = None, **more: Any) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": 200, "champion": None, "difference": None} | more


def against(champion: float, low: float, high: float, n: int = 200) -> dict[str, Any]:
    """A figure that is held by its difference from the champion's."""
    middle = (low + high) / 2
    told = {"value": middle, "low": low, "high": high}
    return figure(champion + middle, champion + low, champion + high, n=n, champion=champion, difference=told)


GOOD = {
    "win_rate": figure(0.62, 0.55, 0.69),
    "implicit_accuracy": against(0.6, -0.03, 0.09),
    "chosen_logprob": against(-2.0, -0.05, 0.2),
    "perplexity": against(20.0, -1.0, 1.5),
    "kl": figure(12.0, 10.0, 14.0),
    "length_ratio": figure(1.1, 1.0, 1.2),
    "format_ok": figure(None, n=0),
    "diversity": figure(0.4, 0.3, 0.5),
}


def judged(kind: ModelKind = ModelKind.POLICY, human: Human | None = None, **changed: Any) -> Verdict:
    settings = GateSettings(
        **{
            key: changed.pop(key)
            for key in list(changed)
            if key in GateSettings.model_fields and not isinstance(changed[key], dict)
        }
    )
    return verdict(kind, figures_of(GOOD | changed), settings, human)


def test_one_required_figure_decides() -> None:
    good = judged()
    assert (good.verdict, good.why) == (PASS, "every required figure reaches its bar")
    rows = {row.name: row for row in good.rows}
    # What nobody asked the project for is nothing amiss, and what has no bar is shown all the same.
    assert (rows["format_ok"].verdict, rows["diversity"].verdict, rows["diversity"].bar) == (None, None, None)
    assert (rows["perplexity"].most, rows["implicit_accuracy"].least) == (2.0, -0.05)
    for name, bad in {
        "win_rate": figure(0.4, 0.35, 0.45),
        "implicit_accuracy": against(0.6, -0.2, -0.1),
        "chosen_logprob": against(-2.0, -0.5, -0.3),
        "perplexity": against(20.0, 3.0, 5.0),
        "kl": figure(90.0, 80.0, 99.0),
        "length_ratio": figure(2.2, 2.0, 2.4),
        "format_ok": against(0.9, -0.3, -0.2),
    }.items():
        assert judged(**{name: bad}).verdict is FAIL, name
        assert judged(**{name: bad}).why == f"below the bar: {name}"
        others = tuple(one for one in GateSettings().required if one != name)
        assert judged(required=others, **{name: bad}).verdict is PASS, name


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"win_rate": figure(0.53, 0.47, 0.59)}, "rests on 200; to show 53% takes about 2178"),
        ({"win_rate": figure(0.9, 0.8, 1.0, n=12)}, "rests on 12; at least 30 are needed"),
        ({"win_rate": figure(None, n=0)}, "not measured"),
        ({"win_rate": figure(0.9)}, "measured without an interval"),
        ({"perplexity": figure(None, n=0)}, "not measured"),
        ({"length_ratio": figure(1.5, 1.4, 1.6)}, "the bar lies within the interval"),
        ({"perplexity": figure(20.0, 19.0, 21.0, champion=20.0)}, "not measured"),
    ],
)
def test_too_little_is_no_pass(changed: dict[str, Any], why: str) -> None:
    found = judged(**changed)
    name = next(iter(changed))
    assert (found.verdict, found.why) == (OPEN, f"not decided: {name}")
    assert next(row.why for row in found.rows if row.name == name) == why


def test_power_is_the_usual_formula() -> None:
    assert [needed(share) for share in (0.55, 0.6, 0.65)] == [783, 194, 85]
    assert needed(0.5) is needed(0.4) is None


def test_people_count_where_they_decided() -> None:
    def people(found: GateVerdict) -> Human:
        return Human(Interval(0.6, 0.4, 0.8), 40, found)

    everything = (*GateSettings().required, "human_win_rate")
    assert [judged(human=people(found)).verdict for found in GateVerdict] == [PASS, FAIL, PASS]
    assert [judged(human=people(found), required=everything).verdict for found in GateVerdict] == [PASS, FAIL, OPEN]
    assert judged(required=everything).verdict is OPEN


def test_a_reward_model_is_held_to_chance_or_to_the_champion_and_to_its_calibration() -> None:
    def reward(ece_required: bool, **figures: Any) -> GateVerdict:
        settings = GateSettings(required=("accuracy", "ece") if ece_required else ("accuracy",))
        return verdict(ModelKind.REWARD, figures_of(figures), settings).verdict

    first, worse = figure(0.6, 0.52, 0.68), against(0.7, -0.2, -0.1)
    assert reward(False, accuracy=first) is PASS
    assert reward(False, accuracy=figure(0.55, 0.48, 0.62)) is OPEN
    assert reward(False, accuracy=worse) is FAIL
    assert reward(True, accuracy=first) is OPEN
    assert reward(True, accuracy=first, ece=figure(0.04, 0.02, 0.08)) is PASS
    assert reward(True, accuracy=first, ece=figure(0.2, 0.12, 0.3)) is FAIL


def evaluate(session: Session, version: ModelVersion, champion: ModelVersion | None, **changed: Any) -> Evaluation:
    row = Evaluation(
        version_id=version.id,
        champion_id=champion.id if champion else None,
        split=Split.TEST,
        metrics={"kind": version.kind.value, "figures": GOOD | changed},
    )
    session.add(row)
    session.flush()
    return row


def test_who_has_not_passed_needs_a_reason(session: Session) -> None:
    project, olga = factories.make_project(session), factories.make_user(session, "olga")
    first, second = factories.make_version(session, project), factories.make_version(session, project)
    base = registry.champion(session, project)
    with pytest.raises(NotEnoughData, match="policy-v1 against policy-v0: not evaluated yet"):
        gate.judge(session, project, first)
    with pytest.raises(Conflict, match="policy-v1 against policy-v0 is not given yet; judge it"):
        registry.promote(session, first, olga, "  ")
    evaluate(session, first, base, win_rate=figure(0.4, 0.3, 0.45))
    failed = gate.judge(session, project, first, olga)
    assert (failed.verdict, failed.settings["win_rate"]) == (FAIL, 0.5)
    with pytest.raises(Conflict, match="fail \\(below the bar: win_rate\\)"):
        registry.promote(session, first, olga)
    passing = evaluate(session, first, base)
    result = gate.judge(session, project, first)
    assert gate.latest_result(session, first) is result
    assert (result.evaluation_id, result.figures["rows"][0]["name"]) == (passing.id, "win_rate")
    assert registry.promote(session, first, olga).gate_result_id == result.id
    # A pass against who is no longer in service is none.
    evaluate(session, second, base)
    with pytest.raises(NotEnoughData, match="against policy-v1: not evaluated"):
        gate.judge(session, project, second)
    with pytest.raises(Conflict, match="champion already; the gate"):
        gate.judge(session, project, first)
    evaluate(session, second, first, kl=figure(49.0, 40.0, 58.0))
    overruled = gate.judge(session, project, second)
    assert registry.promote(session, second, olga, "the people want it").gate_result_id == overruled.id
    told = [one.detail for one in audit.list_events(session, project) if one.action == "model.promote"]
    assert [one["gate"] for one in told] == ["inconclusive", "pass"]
    # The way back asks for nothing.
    assert registry.roll_back(session, project, olga) is first
    assert session.scalars(select(Promotion.reason)).all() == ["", "the people want it"]


def test_bars_are_settings_of_the_project(session: Session) -> None:
    project: Project = factories.make_project(session)
    version = factories.make_version(session, project)
    evaluate(session, version, registry.champion(session, project))
    projects.update_project(session, project, gate_settings={"win_rate": 0.6})
    projects.update_project(session, project, gate_settings={"kl_cap": 5})
    assert gate.gate_settings(project).win_rate == 0.6
    result = gate.judge(session, project, version)
    verdicts = {row["name"]: row["verdict"] for row in result.figures["rows"]}
    assert (result.verdict, verdicts["win_rate"], verdicts["kl"]) == (FAIL, "inconclusive", "fail")
    with pytest.raises(Invalid, match="there is no bar for 'charm'"):
        projects.update_project(session, project, gate_settings={"required": ["charm"]})
