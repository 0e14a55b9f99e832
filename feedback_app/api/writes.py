"""What programs send: prompts, completions to be judged, feedback, runs to queue."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.responses import JSONResponse, Response

from feedback_app import policies
from feedback_app.api import schemas as s
from feedback_app.api.auth import Access
from feedback_app.api.door import REPLAYED, IdempotencyKey, access_of, digest, pick, writing
from feedback_app.api.feedback import FORMAT, Asked, Given, fits, prompt_of, store_together
from feedback_app.api.reads import run_shown
from feedback_app.handlers.context import Context
from feedback_app.together import Together
from storage import audit, auto, cycle, evaluations, training
from storage.enums import CompletionOrigin, ItemKind, RunKind, TokenScope
from storage.idempotency import Keyed
from storage.ingest.bulk import look_up
from storage.ingest.records import Record
from storage.ingest.store import write_batch
from storage.items import add_item
from storage.models import Project, Prompt
from storage.prompts import add_completion, add_prompt, content_hash, split_of


def router(ctx: Context) -> APIRouter:
    """The routes that change something; all take an idempotency key."""
    routes = APIRouter()
    feedback = Together[Asked, Given](lambda requests: store_together(ctx, requests), fits)

    @routes.post("/prompts", summary="Add prompts", response_model=s.StoredPrompts)
    def add_prompts(request: Request, body: s.NewPrompts, idempotency_key: IdempotencyKey = None) -> Response:
        def work(session: Session, access: Access) -> s.StoredPrompts:
            return _add_prompts(session, pick(session, access, body.project), body)

        return writing(ctx, request, idempotency_key, body, policies.import_data, work)

    @routes.post("/completions", summary="Add completions to be judged", response_model=s.StoredCompletionSets)
    def add_completions(
        request: Request, body: s.NewCompletionSets, idempotency_key: IdempotencyKey = None
    ) -> Response:
        def work(session: Session, access: Access) -> s.StoredCompletionSets:
            project = pick(session, access, body.project)
            return s.StoredCompletionSets(sets=[_add_set(session, project, one) for one in body.sets])

        return writing(ctx, request, idempotency_key, body, policies.import_data, work)

    @routes.post("/feedback", summary="Send feedback of your application's people", response_model=s.FeedbackStored)
    async def send_feedback(
        request: Request, body: s.FeedbackBatch, idempotency_key: IdempotencyKey = None
    ) -> Response:
        access = access_of(request)
        access.require(TokenScope.WRITE, policies.import_data)
        known = None
        if idempotency_key is not None:
            known = Keyed(access.token_id, idempotency_key, digest(request, body))
        given = await feedback.ask(Asked(access, body, known))
        return JSONResponse(given.answer, headers={REPLAYED: "true"} if given.replayed else None)

    @routes.post("/runs", summary="Queue a run", response_model=s.RunShown)
    def queue_run(request: Request, body: s.NewRun, idempotency_key: IdempotencyKey = None) -> Response:
        def work(session: Session, access: Access) -> s.RunShown:
            return _queue_run(ctx, session, access, body)

        return writing(ctx, request, idempotency_key, body, policies.train, work)

    return routes


def _add_prompts(session: Session, project: Project, body: s.NewPrompts) -> s.StoredPrompts:
    records = [Record(prompt_of(session, project, prompt, None)) for prompt in body.prompts]
    hashes = [content_hash(record.messages) for record in records]
    find = select(Prompt.content_hash, Prompt.id).where(Prompt.project_id == project.id)
    before = set(look_up(session, find, Prompt.content_hash, set(hashes)))
    write_batch(session, project, records, FORMAT)
    ids = look_up(session, find, Prompt.content_hash, set(hashes))
    stored = []
    for one in hashes:
        stored.append(s.StoredPrompt(id=ids[one], created=one not in before, split=split_of(one)))
        before.add(one)  # the second of two equal ones made nothing
    return s.StoredPrompts(prompts=stored)


def _add_set(session: Session, project: Project, one: s.NewCompletions) -> s.StoredCompletions:
    messages = prompt_of(session, project, one.prompt, one.prompt_id)
    prompt = add_prompt(session, project, messages, f"import:{FORMAT}").row
    written = [add_completion(session, prompt, text, CompletionOrigin.IMPORTED).row for text in one.completions]
    kind = {1: ItemKind.SINGLE, 2: ItemKind.PAIR}.get(len(written), ItemKind.RANKING)
    item = add_item(session, prompt, written, kind).row if one.judge else None
    return s.StoredCompletions(
        prompt_id=prompt.id, completion_ids=[row.id for row in written], item_id=item.id if item else None
    )


def _queue_run(ctx: Context, session: Session, access: Access, body: s.NewRun) -> s.RunShown:
    project = pick(session, access, body.project)
    base: dict[str, Any] = {"default_base_model": ctx.settings.base_model, "user": access.user}
    because = None
    if body.kind == "auto":
        run, choice = auto.queue_auto(session, project, body.settings, home=ctx.settings.home, **base)
        because = choice.because
    elif body.kind is RunKind.CYCLE:
        run = cycle.queue_cycle(session, project, body.settings, user=access.user)
    elif body.kind is RunKind.GENERATE:
        run = training.queue_generate(session, project, body.settings, **base)
    elif body.kind is RunKind.REFINE:
        run = training.queue_refine(session, project, body.settings, **base)
    elif body.kind is RunKind.EVALUATE:
        run = evaluations.queue_evaluation_of(session, project, body.settings, **base)
    else:
        run = training.queue_training(session, project, body.kind, body.settings, home=ctx.settings.home, **base)
    audit.record(session, access.user, "run.start", f"run {run.id}", project, kind=run.kind.value, by="api")
    return run_shown(run).model_copy(update={"because": because})
