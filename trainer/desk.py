"""Between the playground's rows and the process that answers: hand over what people sent, take back what is written."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from storage import turns
from storage.configs import SamplingSettings, parse
from storage.engine import read_only
from storage.enums import CompletionOrigin
from storage.errors import FeedbackError
from storage.gate import canary_share
from storage.models import Completion, ModelVersion, Prompt, Run
from storage.prompts import PLAYGROUND_SOURCE, content_hash
from storage.registry import base_version, champion, list_versions
from storage.rule_scope import rule_book
from storage.runs import get_run
from storage.turns import Turn, WrittenTurn
from trainer.bridge import challenger
from trainer.folder import RunFolder
from trainer.place import Place, adapter_of


class Desk:
    """What one playground run has in hand; lives in the worker, beside the run's process."""

    def __init__(
        self, sessions: sessionmaker[Session], place: Place, folder: RunFolder, run_id: int, project_id: int
    ) -> None:
        self._sessions, self._place, self._folder = sessions, place, folder
        self._run_id, self._project_id = run_id, project_id
        self._base = folder.job().base_model
        self._given: set[str] = set()
        self._adapters: dict[str, str | None] = {}  # folders whose bytes were checked
        self._ending = False

    def tick(self) -> None:
        """Give what waits to the process, and tell it what nobody waits for any more."""
        with read_only(self._sessions) as session:
            waiting = [] if self._ending else turns.turns_waiting(session, self._project_id)
            wanted = turns.turns_of(session, self._run_id)
        for key in self._given - wanted:
            self._ask({"stop": key})
        self._given &= wanted
        for turn in waiting:
            if not self._ending:
                self._hand_over(turn)

    def end(self) -> None:
        """Let the process finish what it has begun, and nothing more."""
        if not self._ending:
            self._ending = True
            self._ask({"end": True})

    def _hand_over(self, turn: Turn) -> None:
        with self._sessions.begin() as session:
            run = get_run(session, self._run_id)
            first = champion(session, run.project) or base_version(session, run.project, self._place.default_base_model)
            if first.base_model != self._base:
                self.end()  # the next run loads that
                return
            if not turns.hand_over(session, turn, run.id):
                return
            try:
                request = self._request(session, run, turn, first)
            except FeedbackError as error:
                turns.refuse(session, run.id, turn.key, str(error))
                return
        self._given.add(turn.key)
        self._ask(request)

    def _request(self, session: Session, run: Run, turn: Turn, first: ModelVersion) -> dict[str, Any]:
        """The champion of this moment writes, and in a share of the turns a newer candidate beside it."""
        second = challenger(session, run.project, first)
        # The same turn, taken up again after a loss, is answered the same.
        rng = random.Random(f"playground {turn.key}")
        versions = [first, first]
        if second is not None and rng.random() < canary_share(session, run.project):
            versions[rng.randrange(2)] = second
        for version in versions:
            if version.name not in self._adapters:
                self._adapters[version.name] = adapter_of(version, self._place.home)
        asked = rule_book(session, run.project).apply(turn.messages, PLAYGROUND_SOURCE)
        return {
            "key": turn.key,
            "messages": asked.messages,
            "rules": asked.rules,
            "versions": [version.name for version in versions],
            "adapters": {version.name: self._adapters[version.name] for version in versions},
            "sampling": parse(SamplingSettings, run.project.sampling).plain(),
            "seed": rng.randrange(2**30),
            "avoid": _written_before(session, run, turn),
        }

    def _ask(self, line: dict[str, Any]) -> None:
        with self._folder.requests.open("ab", buffering=0) as file:
            file.write((json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8", "replace"))


def _written_before(session: Session, run: Run, turn: Turn) -> Sequence[str]:
    """What models wrote for the same conversation before: seen, and perhaps judged."""
    query = (
        select(Completion.text)
        .join(Prompt, Prompt.id == Completion.prompt_id)
        .where(
            Prompt.project_id == run.project_id,
            Prompt.content_hash == content_hash(turn.messages),
            Completion.origin == CompletionOrigin.MODEL,
        )
    )
    return list(session.scalars(query.order_by(Completion.id.desc()).limit(100)))


def take_in(session: Session, run_id: int, events: Sequence[dict[str, Any]]) -> None:
    """Enter what the process told of its turns, in order."""
    if not events:
        return
    run = get_run(session, run_id)
    for event in events:
        key = event["key"]
        if event["event"] == "piece":
            turns.add_pieces(session, run_id, key, [(at, text) for at, text in event["pieces"]])
        elif event["event"] == "refused":
            turns.refuse(session, run_id, key, event["message"])
        else:
            versions = {version.name: version.id for version in list_versions(session, run.project)}
            written = [
                WrittenTurn(
                    model_version_id=versions[row["version"]],
                    sampling=event["sampling"],
                    rules=event.get("rules", ()),
                    **{name: row[name] for name in ("text", "seed", "token_count", "mean_logprob", "latency_ms")},
                )
                for row in event["completions"]
            ]
            turns.enter_written(session, run_id, key, written)
