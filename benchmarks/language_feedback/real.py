"""Real critiques by real people, on a model that was never meant for their texts: `--real`.

The starter writes customer care, 3.2 million parameters of it. On news summaries and long answers it can show whether
the way of the data works and which way the signal points; how far it would carry a model that reads English it cannot.
Nothing here was tuned on the test rows, which enter nothing but the figures. The way is an operator's: import ->
snapshot -> recipe, with the recipes' defaults.

DeFacto (Liu et al., 2212.09968; summaries with people's critiques and rewrites): n critiques with their rewrites
(recipe dpo) against n has_error labels as thumbs (recipe kto). Score: log p(summary | article) under the policy minus
that under the base model. Fine-Grained RLHF (Wu et al., 2306.01693): reward models on the comparisons of some
questions, with and without the corrections that answer error spans; pair accuracy on other questions.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from benchmarks.language_feedback.likelihood import reply_logprobs
from benchmarks.language_feedback.stages import Store, finish, open_store
from storage.artifacts import atomic_write
from storage.enums import RunKind
from storage.ingest import ingest_file
from storage.models import Message, ModelVersion
from storage.projects import create_project, find_project
from storage.training import queue_training
from trainer.policy import load_policies, resolve_base_model, speaking
from trainer.scoring import score_completions

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SIZES = (50, 100, 200)
LEAD = 250  # characters of an article: its news, in about a hundred of the starter's tokens of customer care
STRATA = 10  # of equal size by length, within which the length-matched control compares
QUESTIONS, TESTED = 80, 200  # that reward models train on, and others that test them
DRAWS, SEED = 500, 0
Floats = NDArray[np.float64]
Say = Callable[[str], None]


def measure(home: Path, say: Say, data: Path = DATA) -> dict[str, Any]:
    """Both, as far as their files are there; figures by name, and lines for people through `say`."""
    found: dict[str, Any] = {}
    for name, file, run in (
        ("defacto", "defacto_test.jsonl", _defacto),
        ("fine_grained", "fgrlhf_dev_feedback.json", _fine_grained),
    ):
        if not (data / file).exists():
            say(f"{name}: skipped, there is no {data / file}")
            continue
        place = home / f"real-{name}"
        place.mkdir(parents=True, exist_ok=True)
        with open_store(place) as store:
            found[name] = run(store, place, data, say)
    return found


def _train(store: Store, project: str, kind: RunKind, values: dict[str, Any]) -> Path:
    """The folder of a version trained on all the project's feedback; one that an earlier benchmark left is taken."""
    home = store.settings.home
    with store.sessions.begin() as session:
        found = find_project(session, project)
        assert found is not None  # imported a moment ago
        asked = json.dumps([project, kind, values], sort_keys=True)
        ledger = home / "trained.json"
        trained: dict[str, int] = json.loads(ledger.read_text()) if ledger.exists() else {}
        run_id = (
            trained.get(asked)
            or queue_training(session, found, kind, values, home=home, default_base_model="starter").id
        )
    finish(store, run_id)
    atomic_write(ledger, json.dumps(trained | {asked: run_id}).encode())
    with store.sessions() as session:
        version = session.scalars(select(ModelVersion).where(ModelVersion.run_id == run_id)).one()
        return home / str(version.folder)


def _import(store: Store, project: str, path: Path, rows: Iterable[dict[str, Any]], format: str) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    with store.sessions.begin() as session:
        if find_project(session, project) is None:
            create_project(session, project, queue_target=0)  # nobody waits for completions here
    ingest_file(store.sessions, project, path, format)


# --- DeFacto ---


def _defacto(store: Store, home: Path, data: Path, say: Say) -> dict[str, str]:
    train, test = (_lines(data / f"defacto_{name}.jsonl") for name in ("train", "test"))
    random.Random(SEED).shuffle(train)
    wrong = np.array([row["has_error"] for row in test])
    words = np.array([len(row["candidate"].split()) for row in test], dtype=float)
    asked = [(_asked(row), row["candidate"]) for row in test]
    base = _logprobs(None, asked)
    scores = {"length alone (shorter is better)": -words, "untrained: log-likelihood a token": base / words}
    for size in SIZES:
        for arm, format, rows, kind in (
            ("critiques", "annotations", [_criticised(row) for row in train if _rewritten(row)], RunKind.DPO),
            ("labels", "unpaired", [_labelled(row) for row in train], RunKind.KTO),
        ):
            name = f"{arm} {size}"
            _import(store, name, home / f"{name}.jsonl", rows[:size], format)
            scores[name] = _logprobs(_train(store, name, kind, {"seed": SEED}), asked) - base
    found = {}
    say(f"DeFacto: AUC of has_error on {len(test)} test summaries, {int(wrong.sum())} with an error; 95 % interval")
    for name, values in scores.items():
        plain = interval(len(test), partial(_auc_of, values, wrong, np.zeros(len(test), dtype=int)))
        matched = interval(len(test), partial(_auc_of, values, wrong, strata(words)))
        found[name] = f"{plain}; among summaries of like length {matched}"
        say(f"  {name}: {found[name]}")
    return found


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _asked(row: dict[str, Any]) -> list[Message]:
    return [{"role": "user", "content": f"Summarise in one sentence: {row['article'][:LEAD]}"}]


def _labelled(row: dict[str, Any]) -> dict[str, Any]:
    said = [{"role": "assistant", "content": row["candidate"]}]
    return {"prompt": _asked(row), "completion": said, "label": not row["has_error"]}


def _rewritten(row: dict[str, Any]) -> bool:
    return bool(row["has_error"] and row["feedback"]["summary"].strip() not in ("", row["candidate"].strip()))


def _criticised(row: dict[str, Any]) -> dict[str, Any]:
    feedback = row["feedback"]
    critique = {"completion_id": 1, "text": feedback["explanation"], "fix": feedback["instruction"]}
    return {
        "prompt": _asked(row),
        "completions": [{"id": 1, "text": row["candidate"]}],
        "critiques": [critique],
        "refinements": [{"completion_id": 1, "text": feedback["summary"]}],
    }


def _logprobs(folder: Path | None, asked: Sequence[tuple[list[Message], str]]) -> Floats:
    policies = load_policies(resolve_base_model("starter"), {"asked": folder}, device="cpu")
    with speaking(policies, "asked"):
        return np.array(reply_logprobs(policies.model, policies.tokenizer, asked))


# --- Fine-Grained RLHF ---


def _fine_grained(store: Store, home: Path, data: Path, say: Say) -> dict[str, str]:
    """Questions without their passages: those would fill the context many times."""
    rows = [{**row, "passages": []} for row in json.loads((data / "fgrlhf_dev_feedback.json").read_text("utf-8"))]
    random.Random(SEED).shuffle(rows)
    _import(store, "answers", home / "answers.jsonl", rows[:QUESTIONS], "fgrlhf")
    arms: dict[str, dict[str, Any]] = {
        "comparisons": {"use_refinements": False},
        "comparisons and criticised spans": {},
        "criticised spans": {"use_comparisons": False},
    }
    folders = {
        name: _train(store, "answers", RunKind.REWARD, {"epochs": 1.0, "seed": SEED, **values})
        for name, values in arms.items()
    }
    pairs = [pair for number, row in enumerate(rows[QUESTIONS : QUESTIONS + TESTED]) for pair in _judged(number, row)]
    texts = sorted({(pair.question, text) for pair in pairs for text in (pair.better, pair.worse)})
    asked: list[tuple[list[Message], str]] = [([{"role": "user", "content": q}], text) for q, text in texts]
    opinions = score_completions(resolve_base_model("starter"), folders, asked, device="cpu")
    rewards: dict[str, Sequence[float | None]] = {
        name: [one.value if one else None for one in values] for name, values in opinions.items()
    }
    rewards["the longer one"] = [float(len(text)) for _, text in texts]
    prompts = np.array([pair.number for pair in pairs])
    say(f"Fine-Grained RLHF: pair accuracy on {len(pairs)} pairs of {TESTED} other questions; 95 % interval")
    found = {}
    for name, values in rewards.items():
        by_text = dict(zip(texts, values, strict=True))
        right = np.array([_right(by_text, pair) for pair in pairs])
        found[name] = str(interval(int(prompts.max()) + 1, partial(_mean_over, right, prompts)))
        say(f"  {name}: {found[name]}")
    return found


class Judged(NamedTuple):
    """A pair of answers of which people preferred one."""

    number: int
    question: str
    better: str
    worse: str


def _judged(number: int, row: dict[str, Any]) -> list[Judged]:
    found = []
    for (one, two), verdict in zip(((1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)), row["preference"], strict=True):
        texts = [row[f"prediction {place}"] for place in (one, two)]
        if verdict:
            better, worse = texts if verdict == 1 else reversed(texts)
            found.append(Judged(number, row["question"].strip(), better, worse))
    return found


def _right(rewards: dict[tuple[str, str], float | None], pair: Judged) -> float:
    better, worse = (rewards[pair.question, text] for text in (pair.better, pair.worse))
    if better is None or worse is None or better == worse:
        return 0.5
    return float(better > worse)


def _mean_over(values: Floats, groups: NDArray[np.int_], drawn: NDArray[np.int_]) -> float:
    times = np.bincount(drawn, minlength=int(groups.max()) + 1)[groups]
    return float(np.average(values, weights=times))


# --- figures ---


class Estimate(NamedTuple):
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f}..{self.high:.3f})"


def interval(count: int, figure: Callable[[NDArray[np.int_]], float]) -> Estimate:
    """`figure` of all of `count` rows, and by a seeded bootstrap over them."""
    rng = np.random.default_rng(SEED)
    draws = [figure(rng.integers(count, size=count)) for _ in range(DRAWS)]
    low, high = np.quantile(draws, (0.025, 0.975))
    return Estimate(figure(np.arange(count)), float(low), float(high))


def auc(scores: Floats, wrong: NDArray[np.bool_], groups: NDArray[np.int_]) -> float:
    """How often a right one scores higher than a wrong one of its group, ties half."""
    concordant = pairs = 0.0
    for group in np.unique(groups):
        right, bad = scores[(groups == group) & ~wrong], np.sort(scores[(groups == group) & wrong])
        below = np.searchsorted(bad, right, side="left") + np.searchsorted(bad, right, side="right")
        concordant += float(below.sum()) / 2
        pairs += len(right) * len(bad)
    return concordant / pairs if pairs else 0.5


def _auc_of(scores: Floats, wrong: NDArray[np.bool_], groups: NDArray[np.int_], drawn: NDArray[np.int_]) -> float:
    return auc(scores[drawn], wrong[drawn], groups[drawn])


def strata(values: Floats) -> NDArray[np.int_]:
    """The number of each value's group, of `STRATA` groups of about equal size."""
    edges = np.quantile(values, np.linspace(0, 1, STRATA + 1)[1:-1])
    return np.asarray(np.searchsorted(edges, values, side="right"))
