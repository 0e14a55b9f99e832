"""From recurring critiques to suggested rules: what is said again and again becomes a rule that an operator edits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from math import sqrt
from typing import NamedTuple

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from storage import clusters
from storage.configs import Settings
from storage.criticised import chunks
from storage.enums import RuleState
from storage.judged import live_annotation
from storage.models import Annotation, Completion, Critique, Message, Project, Prompt, Rule, RuleCritique
from storage.rule_scope import RuleScope
from storage.rules import add_suggestion, list_rules, tie_critiques

_MOST_READ = 10_000  # of the newest critiques
_MOST = 5_000  # newest prompts that a scope is sought among
_LONGEST = 300  # characters of a critique that an instruction quotes
_SHARED = 0.5  # of a cluster's critiques in a rule's: the cluster is that rule
_SEEN = 0.2  # of a cluster's prompts in which a word of its scope stands at least
_COVERED = 0.9  # of them that the words of a scope cover at least ...
_OUTSIDE = 0.5  # ... and of all other prompts at most
_WORDS = 6  # of a scope, at most
# The instruction of a suggestion, by whether it quotes a fix and whether its critiques are Chinese.
_SAYS = {
    (True, False): "Annotators often ask for this: “{}” Write so that nobody has to.",
    (False, False): "Annotators often say: “{}” Write so that nobody has to.",
    (True, True): "标注者经常要求：“{}”请在写作时做到这一点。",
    (False, True): "标注者经常批评：“{}”请避免这个问题。",
}


class SuggestSettings(Settings):
    """What becomes a suggestion."""

    at_least: int = Field(5, ge=2, le=1000)  # critiques, on as many different prompts
    alike: float = Field(clusters.ALIKE, ge=0.1, le=0.95)  # how like one another they are (cosine)
    most: int = Field(20, ge=1, le=200)  # suggestions at a time, the most frequent first


class Proposal(NamedTuple):
    """What critiques say again and again, worded as a rule."""

    name: str
    instruction: str
    scope: RuleScope
    quoted: int  # the critique whose words the instruction quotes
    critique_ids: tuple[int, ...]


class Proposals(NamedTuple):
    """What was found among so many critiques, the most frequent first."""

    found: list[Proposal]
    critiques: int


class Suggested(NamedTuple):
    """What came of looking for rules."""

    new: list[Rule]
    grown: list[Rule]  # rules, in any state but dismissed, that more critiques say now


class _Heard(NamedTuple):
    """A live critique as it is compared."""

    id: int
    text: str
    tags: list[str]
    fix: str | None
    prompt_id: int

    @property
    def whole(self) -> str:
        return f"{self.text} {self.fix}" if self.fix else self.text


def propose(session: Session, project: Project, settings: SuggestSettings) -> Proposals:
    """Look for what live critiques say again and again; takes seconds for thousands of them, and changes nothing.

    The same critiques give the same proposals.
    """
    heard = _heard(session, project)
    made = clusters.vectors([one.whole for one in heard], [one.tags for one in heard])
    groups = [
        [heard[at] for at in cluster.members] for cluster in clusters.clusters(made, settings.at_least, settings.alike)
    ]
    groups = [group for group in groups if len({one.prompt_id for one in group}) >= settings.at_least]
    if not groups:
        return Proposals([], len(heard))
    everywhere = Counter(word for one in heard for word in set(clusters.words(one.whole)))
    asked = _asked(session, project, {one.prompt_id for group in groups for one in group})
    return Proposals([_proposal(group, everywhere, asked) for group in groups], len(heard))


def enter(session: Session, project: Project, proposals: Proposals, settings: SuggestSettings) -> Suggested:
    """Store proposals as suggested rules; a rule that there is already gets the critiques that are new to it.

    What was dismissed is not suggested again, and critiques that went meanwhile do not count.
    """
    known = _known(session, project)
    new: list[Rule] = []
    grown: list[Rule] = []
    for one in proposals.found:
        ids = set(_still(session, one.critique_ids))
        if len(ids) < settings.at_least or one.quoted not in ids:
            continue
        same = next((rule for rule, its in known if len(ids & its) >= _SHARED * min(len(ids), len(its))), None)
        if same is not None:
            if same.state is not RuleState.DISMISSED and tie_critiques(session, same, ids):
                grown.append(same)
        elif len(new) < settings.most:
            rule = add_suggestion(session, project, one.name, one.instruction, one.scope, one.quoted)
            tie_critiques(session, rule, ids)
            new.append(rule)
    return Suggested(new, grown)


def suggest(session: Session, project: Project, settings: SuggestSettings | None = None) -> Suggested:
    """Both in one transaction: for few critiques, as it keeps others from writing while it looks."""
    wanted = settings or SuggestSettings()
    return enter(session, project, propose(session, project, wanted), wanted)


def _still(session: Session, critique_ids: Sequence[int]) -> Iterator[int]:
    for chunk in chunks(critique_ids):
        yield from session.scalars(select(Critique.id).where(Critique.id.in_(chunk)))


def _heard(session: Session, project: Project) -> list[_Heard]:
    rows = session.execute(
        select(Critique.id, Critique.text, Critique.tags, Critique.fix, Completion.prompt_id)
        .join(Annotation, Annotation.id == Critique.annotation_id)
        .join(Completion, Completion.id == Critique.completion_id)
        .join(Prompt, Prompt.id == Completion.prompt_id)
        .where(Prompt.project_id == project.id, live_annotation())
        .order_by(Critique.id.desc())
        .limit(_MOST_READ)
    ).all()
    return [_Heard(row[0], row[1], row[2] or [], row[3], row[4]) for row in reversed(rows)]


def _known(session: Session, project: Project) -> list[tuple[Rule, set[int]]]:
    found = []
    for rule in list_rules(session, project):
        ids = set(session.scalars(select(RuleCritique.critique_id).where(RuleCritique.rule_id == rule.id)))
        if ids:
            found.append((rule, ids))
    return found


def _proposal(group: Sequence[_Heard], everywhere: Counter[str], asked: dict[int, frozenset[str]]) -> Proposal:
    quoted = next((one for one in group if one.fix), group[0])
    chinese = sum(any(map(clusters.is_cjk, one.text)) for one in group) * 2 > len(group)
    return Proposal(
        _name(group, everywhere),
        _SAYS[bool(quoted.fix), chinese].format(_short(quoted.fix or quoted.text)),
        _scope(asked, {one.prompt_id for one in group}),
        quoted.id,
        tuple(one.id for one in group),
    )


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST].rsplit(' ', 1)[0]}…"


def _name(group: Sequence[_Heard], everywhere: Counter[str]) -> str:
    """The tag of most of the critiques, and the words that are more frequent in them than elsewhere."""
    tag, times = (Counter(tag for one in group for tag in one.tags).most_common(1) or [("", 0)])[0]
    inside = Counter(word for one in group for word in set(clusters.words(one.whole)))

    def marks(word: str) -> float:
        return inside[word] / len(group) * sqrt(inside[word] / everywhere[word])

    # At the same measure the earlier word of the most typical critique, so that the order is never by chance.
    order = {word: at for at, word in enumerate(dict.fromkeys(w for one in group for w in clusters.words(one.whole)))}
    best = sorted(inside, key=lambda word: (-round(marks(word), 6), order[word]))
    own = [word for word in best if word != tag.casefold()][:3]
    words = _joined(sorted(own, key=order.__getitem__))
    if 2 * times < len(group):
        return words[:100] or _short(group[0].text)[:100]
    return (f"{tag}: {words}" if words else tag)[:100]


def _joined(words: Sequence[str]) -> str:
    """Words side by side; pairs of Chinese characters that overlap become one word again."""
    told = ""
    for word in words:
        overlaps = told and clusters.is_cjk(word[0]) and told[-1] == word[0]
        told += word[1:] if overlaps else f" {word}"
    return told.strip()


def _asked(session: Session, project: Project, prompt_ids: set[int]) -> dict[int, frozenset[str]]:
    """The words of what is asked in these prompts, and in the newest others."""
    texts = select(Prompt.id, Prompt.messages)
    rows = list(session.execute(texts.where(Prompt.project_id == project.id).order_by(Prompt.id.desc()).limit(_MOST)))
    missing = sorted(prompt_ids - {row[0] for row in rows})
    rows += [row for chunk in chunks(missing) for row in session.execute(texts.where(Prompt.id.in_(chunk)))]
    return {prompt_id: _words_asked(messages) for prompt_id, messages in rows}


def _scope(asked: dict[int, frozenset[str]], prompt_ids: set[int]) -> RuleScope:
    """A few words that stand in nearly all of the criticised prompts and in few others; else every prompt."""
    inside = [words for prompt_id, words in asked.items() if prompt_id in prompt_ids]
    outside = [words for prompt_id, words in asked.items() if prompt_id not in prompt_ids]
    if not inside or not outside:
        return RuleScope()
    chosen: list[str] = []
    left = list(inside)
    often = Counter(word for words in outside for word in words)
    while left and len(chosen) < _WORDS:
        seen = Counter(word for words in left for word in words)
        good = {
            word: n for word, n in seen.items()
            if n >= _SEEN * len(inside) and 2 * often[word] / len(outside) <= n / len(inside)
        }  # fmt: skip
        if not good:
            break
        chosen.append(min(good, key=lambda word: (-good[word], often[word], -len(word), word)))
        left = [words for words in left if chosen[-1] not in words]
    covered = 1 - len(left) / len(inside)
    beyond = sum(any(word in words for word in chosen) for words in outside) / len(outside)
    return RuleScope(phrases=tuple(chosen)) if covered >= _COVERED and beyond <= _OUTSIDE else RuleScope()


def _words_asked(messages: Sequence[Message]) -> frozenset[str]:
    return frozenset(word for one in messages if one["role"] == "user" for word in clusters.words(one["content"]))
