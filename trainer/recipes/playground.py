"""Answer people who write to the models: stay in memory, take requests from requests.jsonl, stream what is written.

requests.jsonl grows while the run lives, one object a line:
    {"key", "messages", "versions": [one name per completion], "adapters": {name: folder or null}, "sampling", "seed",
     "avoid": [texts], "rules": [[rule, revision]]}      answer this
    {"stop": key}           nobody waits for it any more
    {"end": true}           finish what is begun, then end: another project waits, or the base model is another now
events.jsonl tells:
    {"event": "piece", "key", "pieces": [[characters before it, text] per completion]}
    {"event": "written", "key", "completions": [{"version", "text", "seed", "token_count", ...}], "sampling",
     "rules"}
    {"event": "refused", "key", "message"}

Conversations take turns, a token each, so that nobody waits for somebody else's long completion.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from storage.configs import PlaygroundConfig, SamplingSettings, parse
from storage.errors import FeedbackError
from trainer.folder import Job, RunFolder
from trainer.policy import Written, pick_device, resolve_base_model
from trainer.streaming import Speaker, Stream

TOGETHER = 8  # conversations that are answered by turns; more wait
LOOK_SECONDS = 0.01  # while there is nothing to write
PIECE_SECONDS = 0.05  # between two pieces of one answer
ROUNDS = 4  # a completion that is there already is written again at most so often


class Inbox:
    """New lines of requests.jsonl, each once."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def new(self) -> list[dict[str, Any]]:
        """Whole lines that were added since the last look."""
        if not self._path.exists() or self._path.stat().st_size <= self._offset:
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        return [json.loads(line) for line in whole.splitlines() if line.strip()]


@dataclass
class Answer:
    """The completions of one request: the stream that writes those which are missing, and the finished ones."""

    speaker: Speaker
    request: dict[str, Any]
    kept: dict[int, Written] = field(default_factory=dict)  # by place
    sent: list[str] = field(default_factory=list)
    sent_at: float = 0.0
    round: int = 0

    def __post_init__(self) -> None:
        self.sampling = parse(SamplingSettings, self.request["sampling"])
        self.versions: list[str] = self.request["versions"]
        self.sent = ["" for _ in self.versions]
        self.stream = self._stream()

    def _stream(self) -> Stream:
        self.places = [place for place in range(len(self.versions)) if place not in self.kept]
        versions = [self.versions[place] for place in self.places]
        seed = self.request["seed"] + 100_003 * self.round
        return Stream(self.speaker, self.request["messages"], versions, self.sampling, seed)

    def step(self) -> bool:
        """One token more; True once everything is written."""
        self.stream.step()
        if not self.stream.done:
            return False
        last = self.round + 1 >= ROUNDS
        for place, written in zip(self.places, self.stream.written(), strict=True):
            seen = {one.text for one in self.kept.values()}
            if written.text and (last or written.text not in seen | set(self.request.get("avoid", []))):
                self.kept[place] = written
        if len(self.kept) == len(self.versions) or last:
            return True
        self.round += 1
        self.stream = self._stream()
        return False

    def texts(self) -> list[str]:
        """Everything as far as it is written."""
        texts = [self.kept[place].text if place in self.kept else "" for place in range(len(self.versions))]
        for place, text in zip(self.places, self.stream.texts(), strict=True):
            texts[place] = self.kept[place].text if place in self.kept else text
        return texts

    def pieces(self) -> list[tuple[int, str]]:
        """What is new since the last time: characters that stay, and the text behind them; nothing: an empty list."""
        texts = self.texts()
        if texts == self.sent:
            return []
        pieces = [_piece(old, new) for old, new in zip(self.sent, texts, strict=True)]
        self.sent = texts
        return pieces


def _piece(old: str, new: str) -> tuple[int, str]:
    if new.startswith(old):
        return len(old), new[len(old) :]
    return 0, new  # written again


class _Desk:
    """Takes requests, writes by turns, tells what is written."""

    def __init__(self, folder: RunFolder, speaker: Speaker) -> None:
        self._folder, self._speaker = folder, speaker
        self._inbox = Inbox(folder.requests)
        self._waiting: list[dict[str, Any]] = []
        self._answers: dict[str, Answer] = {}
        self.ending = False
        self.answered = self.tokens = 0

    def look(self) -> None:
        """Take what is new in the inbox, and begin with what there is room for."""
        for line in self._inbox.new():
            if "stop" in line:
                self._answers.pop(line["stop"], None)
                self._waiting = [one for one in self._waiting if one["key"] != line["stop"]]
            elif "end" in line:
                self.ending = True
            else:
                self._waiting.append(line)
        while self._waiting and len(self._answers) < TOGETHER:
            self._begin(self._waiting.pop(0))

    def _begin(self, request: dict[str, Any]) -> None:
        adapters = {name: folder and Path(folder) for name, folder in request["adapters"].items()}
        try:
            self._speaker.learn(adapters)
            self._answers[request["key"]] = Answer(self._speaker, request)
        except FeedbackError as error:
            self._folder.emit("refused", key=request["key"], message=str(error))

    @property
    def idle(self) -> bool:
        """Whether nothing is being written."""
        return not self._answers

    def turn(self) -> None:
        """One token in every answer."""
        for key, answer in list(self._answers.items()):
            done = answer.step()
            moment = time.monotonic()
            if done or moment - answer.sent_at >= PIECE_SECONDS:
                answer.sent_at = moment
                pieces = answer.pieces()
                if pieces:
                    self._folder.emit("piece", key=key, pieces=pieces)
            if done:
                del self._answers[key]
                self._tell(key, answer)

    def _tell(self, key: str, answer: Answer) -> None:
        rows = [{"version": answer.versions[place], **one._asdict()} for place, one in sorted(answer.kept.items())]
        if not rows:
            self._folder.emit("refused", key=key, message="the model wrote nothing; put it another way")
            return
        self.answered += 1
        self.tokens += sum(one.token_count for one in answer.kept.values())
        asked = {name: answer.request.get(name, []) for name in ("sampling", "rules")}
        self._folder.emit("written", key=key, completions=rows, **asked)
        self._folder.progress(self.answered, self.answered)


def run(folder: RunFolder, job: Job) -> dict[str, Any]:
    """Execute a playground run; returns how much was answered once nobody has asked for a while."""
    config = parse(PlaygroundConfig, job.config)
    started = time.monotonic()
    adapters = {name: None if path is None else Path(path) for name, path in job.adapters.items()}
    device = pick_device(config.device)
    speaker = Speaker(resolve_base_model(job.base_model), adapters, dtype=config.dtype, device=device)
    folder.say(f"ready after {time.monotonic() - started:.1f} s with {', '.join(adapters)}")
    folder.progress(0, 0)
    desk, last = _Desk(folder, speaker), time.monotonic()
    while True:
        folder.check_cancel()
        desk.look()
        if not desk.idle:
            desk.turn()
            last = time.monotonic()
        elif desk.ending or time.monotonic() - last > config.idle_seconds:
            return {"answered": desk.answered, "tokens": desk.tokens}
        else:
            time.sleep(LOOK_SECONDS)
