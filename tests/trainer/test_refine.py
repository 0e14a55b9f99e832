"""Refining critiques: on the tiny model whatever people write, on the starter how well, and through an endpoint."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from storage.critique_configs import RefineConfig
from storage.enums import RunKind
from storage.errors import Invalid
from storage.wordings import Templates
from tests.trainer.conftest import Executor, Outcome
from tests.trainer.test_scoring import rewards  # noqa: F401  a fixture
from trainer.conditions import Condition, write_condition
from trainer.folder import Job, RunFolder
from trainer.judge import Question, answer_tokens, judge
from trainer.policy import STARTER, load_policies, resolve_base_model
from trainer.starter import checker, grammar
from trainer.starter.critiques import wanted_values
from trainer.starter.facets import FACETS, Request

FolderMaker = Callable[..., RunFolder]


def row(number: int, critique: str = "Too short.", completion: str = "It comes.", **fields: Any) -> dict[str, Any]:
    return {
        "critique_id": number, "completion_id": 100 + number, "prompt_id": number,
        "messages": [{"role": "user", "content": f"Where is order {number}?"}], "completion": completion,
        "critique": critique, "span_start": None, "span_end": None, "tags": [], "fix": None,
    } | fields  # fmt: skip


@pytest.fixture
def refine_folder(tmp_path: Path, tiny_base: Path) -> FolderMaker:
    def make(
        name: str,
        rows: list[dict[str, Any]],
        *,
        base: str | None = None,
        adapters: dict[str, str | None] | None = None,
        scored_by: dict[str, str] | None = None,
        max_new_tokens: int = 12,
        **asked: Any,
    ) -> RunFolder:
        folder = RunFolder(tmp_path / name)
        folder.path.mkdir()
        folder.requests.write_text("".join(json.dumps(one) + "\n" for one in rows), "utf-8")
        config = RefineConfig(**({"threads": 1, "device": "cpu", "min_judge": 0.0} | asked))
        folder.write_job(
            Job(
                recipe=RunKind.REFINE, run_id=1, project="tiny", config=config.model_dump(mode="json"),
                base_model=base or str(tiny_base), seed=3, adapters=adapters or {"policy-v0": None},
                rewards=scored_by or {}, sampling={"max_new_tokens": max_new_tokens, "temperature": 0.2},
            )
        )  # fmt: skip
        return folder

    return make


def selected(outcome: Outcome) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (outcome.folder.out / "refinements.jsonl").read_text("utf-8").splitlines()]


def test_whatever_people_write_is_refined_or_counted_with_a_reason(
    refine_folder: FolderMaker,
    run: Executor,
    tiny_base: Path,
    tmp_path: Path,
    rewards: dict[str, Path],  # noqa: F811
) -> None:
    adapter = tmp_path / "adapter"
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_base),
        LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False),
    )
    model.save_pretrained(str(adapter))
    write_condition(adapter, Condition(template="{prompt} {feedback}", feedback="never in a refinement " * 100))
    rows = [
        row(1, "!"),
        row(2, "It says nothing. " * 1176 + "No date."),  # 20,000 characters
        row(3, "太短了，请写明日期。", "您的灯晚了。", fix="写明五月七日"),
        row(4, " \n"),
        row(5, "", tags=["vague", ""]),
        row(6, "Shorter!", "parcel late", completion_id=1),
        row(7, "Longer!", "parcel late", completion_id=1),
        row(8, "Be brief.", "word " * 900),
        row(9, "Wrong name.", "Dear Bob, it comes.", span_start=5, span_end=8),
        row(10, "Braces: {critique} {span} {x}", "{prompt}"),
        row(11, "Late.", messages=[{"role": "user", "content": "parcel " * 300}]),
    ]
    assert len(rows[1]["critique"]) == 20_000
    outcome = run(
        refine_folder(
            "run", rows, samples=3, keep=2, batch_size=4, adapters={"policy-v4": str(adapter)},
            scored_by={name: str(path) for name, path in rewards.items()},
        )
    )  # fmt: skip
    assert outcome.code == 0, outcome.events[-1]
    result, kept = outcome.result, selected(outcome)
    assert result["critiques"] == 11
    assert result["nothing_said"] == 1
    refined = {one["critique_id"] for one in kept}
    assert refined <= {1, 2, 3, 5, 6, 7, 9, 10, 11}
    drafts = (outcome.folder.path / "drafts.jsonl").read_text("utf-8").split("\n")
    sampled = {
        one["critique_id"]: len(one["candidates"]) + sum(one["reasons"].values())
        for one in map(json.loads, filter(None, drafts))
    }
    assert sampled[6] == sampled[7] == 3, "critiques that contradict each other are refined each by itself"
    assert result["rejected"]["too long for the context"] == 1
    counted = sum(n for reason, n in result["rejected"].items() if reason != "too long for the context")
    assert counted + len(kept) == 9 * 3, "every sample is selected or counted"
    assert result["refinements"] == len(kept)
    for one in kept:
        assert set(one) >= {"completion_id", "text", "judge", "reward", "score", "token_count", "mean_logprob", "seed"}
        assert one["version"] == "policy-v4"
        assert 0 <= one["judge"] <= 1
        assert one["reward"] is not None
        assert 0 < one["preference"] < 1
        sure = math.exp(one["mean_logprob"])
        assert one["score"] == pytest.approx(one["judge"] * one["preference"] * sure - 0.3 * one["changed"])
    by_critique = [[one["score"] for one in kept if one["critique_id"] == n] for n in refined]
    assert all(scores == sorted(scores, reverse=True) and len(scores) <= 2 for scores in by_critique)


def test_a_killed_run_ends_as_one_that_was_not(refine_folder: FolderMaker, run: Executor) -> None:
    rows = [row(n, completion=f"It comes on day {n}.") for n in range(12)]
    whole = run(refine_folder("whole", rows, batch_size=2, samples=3))
    again = refine_folder("again", rows, batch_size=2, samples=3)
    drafts = (whole.folder.path / "drafts.jsonl").read_bytes()
    (again.path / "drafts.jsonl").write_bytes(drafts[: len(drafts) * 6 // 10])  # cut somewhere in a line
    (again.path / "out").mkdir()
    resumed = run(again)
    assert (resumed.folder.out / "refinements.jsonl").read_bytes() == (
        whole.folder.out / "refinements.jsonl"
    ).read_bytes()
    assert resumed.result["rejected"] == whole.result["rejected"]
    assert len(resumed.folder.path.joinpath("drafts.jsonl").read_bytes()) < 2 * len(drafts)
    shutil.rmtree(whole.folder.out)
    other = run(refine_folder("other", rows, batch_size=2, samples=3, seed=9))
    assert other.code == 0


def test_a_cancelled_run_stops_before_the_next_batch(refine_folder: FolderMaker, run: Executor) -> None:
    folder = refine_folder("cancelled", [row(n) for n in range(50)])
    folder.cancel_file.touch()
    assert run(folder).code == 3


# --- the judge, and the starter ---


def test_the_judge_is_the_base_model_and_averages_over_the_wordings(tiny_base: Path) -> None:
    policies = load_policies(str(tiny_base), {"policy-v0": None}, device="cpu")
    questions = [
        Question([{"role": "user", "content": "Where is it?"}], "parcel late", "Shorter."),
        Question([{"role": "user", "content": "blue lamp " * 400}], "It comes.", "Longer."),
        Question([{"role": "user", "content": "Hm?"}], "blue " * 400, "Longer."),
    ]
    both = Templates(judge=("Is {critique} done?", "{critique}: yes or no?"))
    found = judge(policies, questions, both, batch_size=2)
    single = [judge(policies, questions, Templates(judge=(one,)), batch_size=1) for one in both.judge]
    assert found[2] is None, "what does not fit is not judged"
    # A long prompt is shortened once for all wordings, by themselves they would leave it a little longer.
    for place, off in ((0, 1e-5), (1, 0.02)):
        assert found[place] == pytest.approx(sum(one[place] or 0 for one in single) / 2, abs=off)
    assert single[0][0] != pytest.approx(single[1][0], abs=1e-4)
    swapped = judge(policies, questions[:1], Templates(judge=both.judge, yes="no", no="yes"))
    assert swapped[0] == pytest.approx(1 - (found[0] or 0), abs=1e-5)
    with pytest.raises(Invalid, match="begin alike"):
        answer_tokens(policies.tokenizer, "yes", "yes please")


def _criticised(count: int) -> list[tuple[Request, dict[str, Any], str, Any]]:
    rng = random.Random(4)
    found = []
    for number, request in enumerate(grammar.sample_prompts(count, seed=8, held_out=True)):
        before = grammar.sample_facets(rng)
        facet = rng.choice(tuple(FACETS))
        wanted = rng.choice(wanted_values(facet, before.value(facet)))
        critique = grammar.write_critique(rng, facet, before.value(facet), wanted, request)
        asked = row(
            number, critique.text, grammar.write_reply(rng, request, before), messages=request.messages,
            fix=critique.fix, tags=[facet],
        )  # fmt: skip
        found.append((request, asked, facet, before.but(wanted)))
    return found


def test_the_starter_mends_what_is_criticised_and_keeps_the_rest(refine_folder: FolderMaker, run: Executor) -> None:
    criticised = _criticised(9)
    rows = [asked for _, asked, _, _ in criticised]
    outcome = run(refine_folder("run", rows, base=STARTER, samples=2, max_new_tokens=120, min_judge=0.5, batch_size=18))
    assert outcome.code == 0, outcome.events[-1]
    texts = {one["critique_id"]: one["text"] for one in selected(outcome)}
    right = [
        checker.read_reply(request, texts[asked["critique_id"]]) == wanted
        for request, asked, _, wanted in criticised
        if asked["critique_id"] in texts
    ]
    assert len(right) >= 7
    assert sum(right) / len(right) >= 0.8
    policies = load_policies(resolve_base_model(STARTER), {"policy-v0": None}, device="cpu")
    said = [f"{asked['critique']} {asked['fix'] or ''}".strip() for asked in rows]
    before = judge(
        policies, [Question(o["messages"], o["completion"], s) for o, s in zip(rows, said, strict=True)], Templates()
    )
    after = [one["judge"] for one in selected(outcome)]
    assert sum(after) / len(after) - sum(value or 0 for value in before) / len(before) > 0.5
