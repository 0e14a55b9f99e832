"""Routes of /questions (was it fixed? is the refinement right?) and /critiques, "Your critiques"; plain forms."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any
from urllib.parse import quote

import anyio.to_thread
from fastapi import APIRouter, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from feedback_app.handlers import review
from feedback_app.handlers.context import Context
from feedback_app.handlers.review import QuestionView, word_changes
from feedback_app.i18n import day, said, t
from feedback_app.pages import chance
from feedback_app.pages.plain import page
from feedback_app.security import SignedIn, signed_in
from storage.enums import ItemKind
from storage.errors import FeedbackError
from storage.stories import Story
from storage.submissions import MAX_CHARACTERS

_PROMPT = 200  # characters of a prompt in the list of critiques
Text = Annotated[str, Form(max_length=200)]
Long = Annotated[str, Form(max_length=2 * MAX_CHARACTERS)]  # line breaks arrive doubled; storage says what is too long
Number = Annotated[int, Form(ge=0, le=2**31 - 1)]


class ReviewRoutes:
    """The routes with the context they share."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.router = APIRouter(include_in_schema=False)
        for path, method, route in (
            ("/questions", "GET", self.show),
            ("/questions/answer", "POST", self.answer),
            ("/questions/pass", "POST", self.pass_over),
            ("/critiques", "GET", self.critiques),
        ):
            self.router.add_api_route(path, route, methods=[method], response_model=None)

    async def show(self, request: Request, project: Annotated[str, Query(max_length=200)] = "") -> Response:
        """The next question."""
        user = await signed_in(self.ctx.sessions, request)
        return await self._question(user, project) if user else _to_login("/questions")

    async def answer(
        self,
        request: Request,
        item: Number = 0,
        kind: Text = "",
        verdict: Text = "",
        project: Text = "",
        text: Long = "",
    ) -> Response:
        """Store an answer and show the next question; what cannot be stored is said above the same one."""
        user = await signed_in(self.ctx.sessions, request)
        if user is None:
            return _to_login("/questions")
        store = partial(review.answer, self.ctx, user.name, kind, item, verdict, text)
        return await self._do(user, project, item, store, text)

    async def pass_over(self, request: Request, item: Number = 0, project: Text = "") -> Response:
        """Leave a question unanswered."""
        user = await signed_in(self.ctx.sessions, request)
        if user is None:
            return _to_login("/questions")
        return await self._do(user, project, item, partial(review.pass_over, self.ctx, user.name, item))

    async def critiques(
        self, request: Request, before: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None
    ) -> Response:
        """What became of one's critiques."""
        user = await signed_in(self.ctx.sessions, request)
        if user is None:
            return _to_login("/critiques")
        found = await anyio.to_thread.run_sync(review.my_critiques, self.ctx, user.name, before)
        return page(
            "critiques",
            t("Your critiques"),
            wide=True,
            lead=t("What came of what you wrote: the training it went into, and what the model writes now."),
            stories=[_story(one) for one in found],
            older=found[-1].critique_id if len(found) == review.STORIES else None,
        )

    async def _do(self, user: SignedIn, project: str, item: int, change: Any, typed: str = "") -> Response:
        try:
            await anyio.to_thread.run_sync(change)
        except FeedbackError as error:
            return await self._question(user, project, item, problem=said(error), typed=typed, status=422)
        return RedirectResponse(f"/questions?project={quote(project)}", 303)

    async def _question(
        self, user: SignedIn, project: str, item: int | None = None, *, status: int = 200, typed: str = "", **more: Any
    ) -> Response:
        view = await anyio.to_thread.run_sync(review.open_question, self.ctx, user.name, project, item)
        title, lead = _asked(view)
        same = view.question is not None and view.question.item_id == item
        return page(
            "question",
            title,
            status=status,
            wide=True,
            lead=lead,
            view=view,
            verdicts=_verdicts(view),
            thinks=_thinks(view),
            link=f"?project={quote(view.project)}" if view.project else "",
            typed=typed if same else "",  # never under another question
            **more,
        )


def _to_login(path: str) -> Response:
    return RedirectResponse(f"/login?next={quote(path, safe='')}", 303)


def _asked(view: QuestionView) -> tuple[str, str]:
    found = view.question
    if found is None:
        return t("No questions"), t("Nothing is waiting for your answer.")
    if found.kind is ItemKind.REVIEW:
        return (
            t("Is this right now?"),
            t("A model rewrote an answer because of a critique. Say whether it may be learnt from."),
        )
    return (
        t("Is it fixed?"),
        t("You criticised an answer. This is what {version} writes for the same prompt.", version=found.version),
    )


def _thinks(view: QuestionView) -> list[str]:
    """What a reward model says of the pair, for operators, or why it says nothing."""
    if view.question is None or view.chances is None:
        return []
    known = view.chances.of.get(view.question.pair)
    told = [chance.of_new(known)] if known else []
    return [*told, chance.note(view.chances, [view.question.pair])]


def _verdicts(view: QuestionView) -> dict[str, str]:
    if view.question is None:
        return {}
    if view.question.kind is ItemKind.REVIEW:
        return {"accepted": t("Accept"), "rejected": t("Reject")}
    return {"fixed": t("Fixed"), "partly": t("Partly"), "not": t("Not fixed"), "worse": t("Worse")}


def _story(one: Story) -> dict[str, Any]:
    steps: list[dict[str, Any]] = []
    for made in one.rewritten:
        steps.append(
            {"kind": "refined", "text": _refined(made.status), "detail": word_changes(one.completion, made.text)}
        )
    for trained in one.trained:
        told = t("In snapshot {snapshot} of {day}", snapshot=trained.snapshot, day=day(trained.at))
        if trained.version is not None:
            told = t(
                "Trained {version} ({status}) in run {run}, from snapshot {snapshot}",
                version=trained.version,
                status=t(trained.status.value if trained.status else ""),
                run=trained.run_id,
                snapshot=trained.snapshot,
            )
        steps.append({"kind": "trained", "text": told, "detail": None})
    for answered in one.answered:
        verdict = answered.verdict.value if answered.verdict else "waiting"
        steps.append(
            {
                "kind": f"answered {verdict}",
                "text": _answered(answered.version, verdict),
                "detail": word_changes(one.completion, answered.text),
            }
        )
    if not steps:
        steps.append({"kind": "open", "text": t("Waits for the next training"), "detail": None})
    quoted = "" if one.said.span_start is None else one.completion[one.said.span_start : one.said.span_end]
    return {
        "project": one.project,
        "asked": _shortened(one.prompt[-1]["content"]),
        "at": day(one.at) if one.at else "",
        "said": one.said,
        "quoted": quoted,
        "steps": steps,
    }


def _shortened(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _PROMPT else flat[: _PROMPT - 1] + "…"


def _refined(status: str) -> str:
    return {
        "own": t("You rewrote the answer"),
        "unreviewed": t("A model rewrote the answer"),
        "accepted": t("A model rewrote the answer; a person accepted it"),
        "edited": t("A model rewrote the answer; a person edited it"),
        "rejected": t("A model rewrote the answer; a person rejected it"),
    }[status]


def _answered(version: str, verdict: str) -> str:
    return {
        "fixed": t("{version} writes something else: fixed, you said", version=version),
        "partly": t("{version} writes something else: partly fixed, you said", version=version),
        "not": t("{version}: not fixed", version=version),
        "worse": t("{version} writes something else: worse, you said", version=version),
        "waiting": t("{version} writes something else: you have not been asked yet", version=version),
    }[verdict]
