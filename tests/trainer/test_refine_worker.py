"""A refine run through store and worker: from critiques to refinements that train."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from storage.annotations import CritiqueInput, Submission
from storage.engine import read_only
from storage.enums import CompletionOrigin, ItemKind, RefinementStatus, RunKind, RunStatus, Split
from storage.errors import Invalid, NotEnoughData, NotFound
from storage.models import Completion, Critique, Project, Refinement, Run
from storage.registry import champion
from storage.runs import get_run, request_cancel
from storage.training import queue_refine
from tests.factories import make_annotation, make_item, make_project, make_prompt, make_user
from tests.trainer.working import queue, queue_writing, run_of, said, work
from trainer.bridge import lay_out
from trainer.folder import RunFolder
from trainer.place import Place
from trainer.refining import Candidate
from trainer.starter import grammar
from trainer.worker import Worker, kinds_of

pytestmark = [pytest.mark.timeout(280), pytest.mark.usefixtures("warm")]
BOTH = kinds_of(["refine", "generate"])


@pytest.fixture
def shop(sessions: sessionmaker[Session]) -> int:
    """A project on the starter in which three completions were criticised."""
    with sessions.begin() as session:
        project = make_project(session, "shop", base_model="starter", queue_target=0, sampling={"max_new_tokens": 120})
        criticise(session, project, 3)
        return project.id


def criticise(session: Session, project: Project, count: int, seed: int = 1) -> None:
    user = make_user(session)
    for request in grammar.sample_prompts(count, seed=seed, held_out=False):
        prompt = make_prompt(session, project, request.text)
        text = f"The {request.product} is on its way. Regards, customer care"
        item = make_item(session, project, prompt=prompt, texts=[text], kind=ItemKind.SINGLE)
        (completion,) = [member.completion_id for member in item.members]
        fix = f"Greet {request.name} by name."
        critique = CritiqueInput(completion, "There is no greeting.", 0, 3, ["greeting"], fix=fix)
        make_annotation(session, project, user, Submission(critiques=[critique], seconds_spent=1.0))


def refine(sessions: sessionmaker[Session], project_id: int, **values: Any) -> int:
    with sessions.begin() as session:
        project = session.get_one(Project, project_id)
        asked = {"threads": 1, "samples": 2, "batch_size": 16} | values
        return queue_refine(session, project, asked, default_base_model="starter").id


def test_critiques_become_refinements_that_train_a_policy(
    sessions: sessionmaker[Session], shop: int, home: Path, make_worker: Callable[..., Worker]
) -> None:
    worker = make_worker(kinds_of(["refine", "train"]))
    run_id = refine(sessions, shop, min_judge=0.0)
    with sessions.begin() as session, pytest.raises(NotFound, match="policy-v7"):
        queue_refine(session, session.get_one(Project, shop), {"refiner": "policy-v7"}, default_base_model="starter")
    with sessions.begin() as session, pytest.raises(Invalid, match="endpoint_model"):
        queue_refine(session, session.get_one(Project, shop), {"endpoint_model": "big"}, default_base_model="starter")
    work(worker, lambda: run_of(sessions, run_id).status.ended)
    run = run_of(sessions, run_id)
    assert run.status is RunStatus.SUCCEEDED, run.error
    assert run.result is not None
    assert run.result["critiques"] == 3
    assert run.result["stored"] == run.result["refinements"] == 3
    with sessions.begin() as session:
        project = session.get_one(Project, shop)
        policy = champion(session, project)
        assert policy is not None
        for refinement in session.scalars(select(Refinement)):
            assert refinement.status is RefinementStatus.UNREVIEWED
            assert refinement.run_id == run_id
            assert 0 <= (refinement.judge_score or -1) <= 1
            assert len(refinement.critiques) == 1
            written = session.get_one(Completion, refinement.refined_id)
            assert (written.origin, written.model_version_id) == (CompletionOrigin.REFINEMENT, policy.id)
            assert written.mean_logprob is not None
        with pytest.raises(NotEnoughData, match="no critique"):
            queue_refine(session, project, {}, default_base_model="starter")
    asked: dict[str, Any] = {"min_train_pairs": 1, "min_test_pairs": 0, "max_steps": 1, "anchor_share": 0.5}
    training = queue(sessions, shop, home, RunKind.SFT, **asked)
    work(worker, lambda: run_of(sessions, training).status.ended)
    trained = run_of(sessions, training)
    assert trained.status is RunStatus.SUCCEEDED, trained.error
    assert trained.result is not None
    assert trained.result["model_version"] == "policy-v1"


def test_refining_does_not_hold_up_the_queue_and_keeps_what_it_had_when_it_is_cancelled(
    sessions: sessionmaker[Session], shop: int, home: Path, make_worker: Callable[..., Worker]
) -> None:
    with sessions.begin() as session:
        criticise(session, session.get_one(Project, shop), 150, seed=2)
        make_prompt(session, session.get_one(Project, shop), "Where is my parcel?", split=Split.TRAIN)
    worker = make_worker(BOTH)
    long = refine(sessions, shop)
    with sessions.begin() as session:
        # An earlier attempt drafted something before it was killed.
        folder = lay_out(session, session.get_one(Run, long), Place(home, "starter", "cpu"))
    asked = json.loads(folder.requests.read_text().splitlines()[0])
    drafted = Candidate("Dear customer, soon.", 5, -0.1, 3, None, judge=0.9)
    draft = {"critique_id": asked["critique_id"], "reasons": {}, "candidates": [asdict(drafted)]}
    (folder.path / "drafts.jsonl").write_text(json.dumps(draft) + '\n{"critique_id": 7, "cand')
    work(worker, lambda: run_of(sessions, long).step is not None)
    quick = queue_writing(sessions, shop, prompts=1)
    work(worker, lambda: run_of(sessions, quick).status.ended)
    assert run_of(sessions, quick).status is RunStatus.SUCCEEDED, run_of(sessions, quick).error
    assert run_of(sessions, long).status is RunStatus.RUNNING
    with sessions.begin() as session:
        request_cancel(session, get_run(session, long), None)
    work(worker, lambda: run_of(sessions, long).status.ended)
    cancelled = run_of(sessions, long)
    assert cancelled.status is RunStatus.CANCELLED
    with read_only(sessions) as session:
        stored = session.scalars(select(Refinement).where(Refinement.run_id == long)).all()
        assert (cancelled.result or {})["stored"] == len(stored) > 0
        assert asked["critique_id"] in {one.id for refinement in stored for one in refinement.critiques}


def test_a_run_that_fails_half_way_keeps_what_it_had_and_goes_on_with_the_rest(
    sessions: sessionmaker[Session],
    shop: int,
    home: Path,
    make_worker: Callable[..., Worker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("FEEDBACK_REFINER_URL", raising=False)
    with sessions.begin() as session:  # a second critique of the first completion
        one = session.scalars(select(Critique).order_by(Critique.id).limit(1)).one()
        session.add(Critique(annotation_id=one.annotation_id, completion_id=one.completion_id, text="Too short."))
    run_id = refine(sessions, shop, refiner="endpoint", endpoint_model="big")
    with sessions.begin() as session:
        # An earlier attempt laid the folder out and got as far as one critique.
        folder = lay_out(session, session.get_one(Run, run_id), Place(home, "starter", "cpu"))
    requests = [json.loads(line) for line in folder.requests.read_text().splitlines()]
    first, second = requests[0], next(one for one in requests if one["critique"] == "Too short.")
    assert first["fix"].startswith("Greet ")
    assert (first["span_start"], first["span_end"], first["tags"]) == (0, 3, ["greeting"])
    kept = {
        "critique_id": first["critique_id"], "completion_id": first["completion_id"], "text": "Dear customer, soon.",
        "rank": 1, "judge": 0.9, "reward": None, "score": 0.9, "token_count": 5, "mean_logprob": None, "seed": 3,
        "version": None, "endpoint_model": "big",
    }  # fmt: skip
    folder.out.mkdir()
    # One text that answers both critiques is one refinement.
    lines = (json.dumps(kept | {"critique_id": one["critique_id"]}) + "\n" for one in (first, second))
    (folder.out / "refinements.jsonl").write_text("".join(lines))
    work(make_worker(BOTH), lambda: run_of(sessions, run_id).status.ended)
    run = run_of(sessions, run_id)
    assert run.status is RunStatus.FAILED
    assert "FEEDBACK_REFINER_URL" in (run.error or "")
    assert run.result == {"stored": 1, "not_stored": {}}
    assert said(sessions, run_id, "1 refinements stored")
    with read_only(sessions) as session:
        refinement = session.scalars(select(Refinement)).one()
        assert {one.id for one in refinement.critiques} == {first["critique_id"], second["critique_id"]}
        written = session.get_one(Completion, refinement.refined_id)
        assert (written.text, written.model_version_id) == ("Dear customer, soon.", None)
        assert (written.sampling or {})["endpoint_model"] == "big"
    again = refine(sessions, shop, refiner="champion")
    with sessions.begin() as session:
        rest = lay_out(session, session.get_one(Run, again), Place(home, "starter", "cpu"))
    waiting = [json.loads(line)["critique_id"] for line in rest.requests.read_text().splitlines()]
    assert len(waiting) == 2
    assert first["critique_id"] not in waiting
    before = rest.requests.read_bytes()
    with sessions.begin() as session:
        criticise(session, session.get_one(Project, shop), 1, seed=9)
        resumed: RunFolder = lay_out(session, session.get_one(Run, again), Place(home, "starter", "cpu"))
    assert resumed.requests.read_bytes() == before, "a run that was begun goes on with its own critiques"
