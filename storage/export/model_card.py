"""The README that travels with a model version: what it is, what it rests on, and what was measured of it.

Written as model hubs read them: facts for programs in a YAML header, the rest for people. It counts feedback and names
nobody who gave it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from storage.enums import ModelKind
from storage.errors import Invalid
from storage.evaluations import Figure, figures, latest_evaluation
from storage.gate_results import latest_result
from storage.lineage import Lineage, lineage
from storage.models import Evaluation, GateResult, ModelVersion, Project, Run

STARTER = "starter"  # the model that ships with the app: no name that others could load it by
ADAPTER, MERGED = "adapter", "merged"  # folders of an export
STARTER_LICENCE = "apache-2.0"  # as its card says
OTHER = "other"  # what model hubs call a licence that is none of those they know
_HEADER = re.compile(r"\A---\n(.*?)^---$", re.DOTALL | re.MULTILINE)
_LICENCE = re.compile(r"""^license:[ \t]*["']?([\w.-]+)["']?[ \t]*$""", re.MULTILINE)


class CardFacts(NamedTuple):
    """What a card says."""

    project: str
    version: ModelVersion
    line: Lineage
    evaluation: Evaluation | None
    gate: GateResult | None


def card_facts(session: Session, version: ModelVersion) -> CardFacts:
    """What there is to say of a version; raises `Invalid` for a base model, which is nobody's work here."""
    if version.folder is None:
        raise Invalid(f"{version.name} is the base model {version.base_model} itself: there is nothing to export")
    return CardFacts(
        project=session.get_one(Project, version.project_id).name,
        version=version,
        line=lineage(session, version),
        evaluation=latest_evaluation(session, version),
        gate=latest_result(session, version),
    )


def licence_of(base_model: str) -> str:
    """The licence that the card in a base model's folder names; `OTHER` where there is no card, or none in it."""
    if base_model == STARTER:
        return STARTER_LICENCE
    try:
        card = (Path(base_model).expanduser() / "README.md").read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return OTHER
    header = _HEADER.match(card.replace("\r\n", "\n"))
    found = _LICENCE.search(header[1]) if header else None
    return found[1] if found else OTHER


def model_card(facts: CardFacts, *, merged: bool = False, tokenizer: bool = True, heads: int = 1) -> str:
    """The card as Markdown; `merged`: whole weights, `tokenizer`: a tokenizer is with it; `heads` of a reward model."""
    licence = licence_of(facts.version.base_model)
    parts = [
        _header(facts, licence),
        f"# {facts.project}: {facts.version.name}",
        _what(facts, heads),
        "## Loading it",
        _loading(facts, merged, tokenizer, heads),
        "## What it rests on",
        _table(_origin(facts)),
        _taint(facts),
        "## What was measured",
        _measured(facts),
        "## How it was trained",
        _trained(facts.line.run),
        "## Licence and limits",
        _licence(facts.version, licence),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _header(facts: CardFacts, licence: str) -> str:
    version, run = facts.version, facts.line.run
    policy = version.kind is ModelKind.POLICY
    tags = ["lora", "human-feedback", version.kind.value, *([run.kind.value] if run else [])]
    known: dict[str, Any] = {
        "base_model": version.base_model,
        "library_name": "peft",
        "pipeline_tag": "text-generation" if policy else "text-classification",
        "tags": tags,
        "license": licence,
    }
    # JSON is YAML; a name may hold anything.
    return "\n".join(
        ["---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in known.items()), "---"]
    )


def _what(facts: CardFacts, heads: int) -> str:
    version, run = facts.version, facts.line.run
    how = f"{run.kind.value.upper()} with LoRA" if run else "training with LoRA"
    if version.kind is ModelKind.POLICY:
        return f"A policy, which writes completions: {version.base_model} after {how} on people's feedback."
    several = f" An ensemble of {heads} heads: the reward is their mean above `offsets`." if heads > 1 else ""
    return f"A reward model, which scores completions: {version.base_model} after {how}.{several}"


def _loading(facts: CardFacts, merged: bool, tokenizer: bool, heads: int) -> str:
    policy = facts.version.kind is ModelKind.POLICY
    kind = "AutoModelForCausalLM" if policy else "AutoModelForSequenceClassification"
    labels = "" if policy else f", num_labels={heads}"
    base = "<folder of the starter model>" if facts.version.base_model == STARTER else facts.version.base_model
    tokens = ADAPTER if tokenizer else base
    lines = [
        "```python",
        "from peft import PeftModel",
        f"from transformers import AutoTokenizer, {kind}",
        "",
        f"base = {kind}.from_pretrained({json.dumps(base)}{labels})",
        f'model = PeftModel.from_pretrained(base, "{ADAPTER}")',
        f"tokenizer = AutoTokenizer.from_pretrained({json.dumps(tokens)})",
        "```",
    ]
    if merged:
        lines += [
            "",
            "or, with the adapter merged into the weights, without PEFT and without the base model:",
            "",
            "```python",
            f"from transformers import AutoTokenizer, {kind}",
            "",
            f'model = {kind}.from_pretrained("{MERGED}")',
            f'tokenizer = AutoTokenizer.from_pretrained("{MERGED}")',
            "```",
        ]
    return "\n".join(lines)


def _origin(facts: CardFacts) -> list[tuple[str, Any]]:
    line, basis = facts.line, facts.line.basis
    splits = (line.snapshot.report.get("splits") or {}) if line.snapshot else {}
    rows = ", ".join(f"{name} {of_split.get('pairs')}" for name, of_split in splits.items())
    return [
        ("Base model", facts.version.base_model),
        ("Parents", ", ".join(one.name for one in line.chain[1:])),
        ("Run", f"{line.run.id} ({line.run.kind.value}), seed {line.run.seed}" if line.run else ""),
        ("Made", f"{facts.version.created_at:%Y-%m-%d %H:%M} UTC"),
        ("Snapshot", line.snapshot.content_hash if line.snapshot else ""),
        ("Rows", f"{basis.rows:,}" + (f" ({rows})" if rows else "")),
        ("Annotations", f"{basis.annotations:,}"),
        ("Critiques", f"{basis.critiques:,}"),
        ("Refinements", f"{basis.refinements:,}"),
        ("Rules", f"{basis.rules:,}"),
        ("Adapter (SHA-256)", facts.version.sha256),
    ]


def _taint(facts: CardFacts) -> str:
    if facts.version.tainted_at is None:
        return ""
    own = facts.line.basis.withdrawn
    what = f"{own:,} of these annotations were" if own != 1 else "1 of these annotations was"
    if not own:
        what = "feedback behind one of its parents was"
    return (
        f"**Tainted since {facts.version.tainted_at:%Y-%m-%d}**: {what} withdrawn or erased by those who gave it. "
        "Do not pass it on before it has been trained again without."
    )


def _measured(facts: CardFacts) -> str:
    parts = []
    if facts.evaluation is not None:
        rows = [(name, *_cells(one)) for name, one in figures(facts.evaluation).items()]
        parts += [
            f"On prompts of the {facts.evaluation.split.value} split, which never train; intervals are 95 %.",
            _table(rows, ("Figure", "Value", "From", "To", "Rows")),
            *(f"- {note}" for note in facts.evaluation.metrics.get("notes") or ()),
        ]
    else:
        parts.append("It has not been evaluated against a champion. What training found by itself:")
        parts.append(_table([(name, _short(value)) for name, value in facts.version.metrics.items()]))
    if facts.gate is not None:
        parts.append(f"The gate of its project said **{facts.gate.verdict.value}**.")
    return "\n\n".join(parts)


def _trained(run: Run | None) -> str:
    if run is None:
        return "Not by a run of this installation."
    found = {"settings": run.config, "environment": run.environment}
    told = {name: value for name, value in found.items() if value}
    return f"```json\n{json.dumps(told, indent=1, ensure_ascii=False, default=str)}\n```"


def _licence(version: ModelVersion, licence: str) -> str:
    called = "" if licence == OTHER else f" ({licence})"
    base = (
        f"The base model ships with the application; this is a derivative of it, and its licence{called} applies."
        if version.base_model == STARTER
        else f"This is a derivative of {version.base_model}, whose licence{called} applies: read it before passing"
        " this on."
    )
    return (
        f"{base} The feedback it learned from belongs to those who run the project; whether it may be used elsewhere "
        "is theirs to say. It was measured on the prompts of one project and says nothing of others."
    )


def _cells(one: Figure) -> tuple[str, str, str, str]:
    return _short(one.value), _short(one.low), _short(one.high), f"{one.n:,}"


def _short(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None or isinstance(value, Mapping) else str(value)
    return f"{value:.4g}"


def _table(rows: list[tuple[Any, ...]], head: tuple[str, ...] = ("", "")) -> str:
    kept = [row for row in rows if any(str(cell or "") for cell in row[1:])]
    if not kept:
        return "Nothing."
    lines = [head, ("---",) * len(head), *kept]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return " ".join(str(value if value is not None else "").split()).replace("|", "\\|")
