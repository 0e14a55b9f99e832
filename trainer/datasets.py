"""From a snapshot's Parquet file to the token columns that TRL trains on; nothing is dropped silently.

The rule for what does not fit `max_length` tokens (prompt + completion, and never more than the model's context):

1. A pair whose longer completion leaves fewer than `MIN_PROMPT_TOKENS` for its prompt is left out, and counted.
2. Otherwise the prompt is shortened from the left until it fits beside the longer completion: first whole messages,
   oldest first, a system message excepted; then the beginning of the oldest message that is left. The chat structure
   stays whole, both completions of a pair see the same prompt, and no completion is ever cut. Counted as shortened.
3. A prompt that cannot be shortened that far (a huge system message) is left out, and counted.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from storage.enums import Split
from storage.errors import NotEnoughData, NotFound, StoreUnavailable
from storage.models import Message
from trainer.folder import RunFolder
from trainer.kept import keep, key_of, take, tokenizer_key

MIN_PROMPT_TOKENS = 16
_RULES = 1  # of what becomes tokens; another number, and no run takes tokens that were made before
GPU_LENGTH, CPU_LENGTH = 1024, 512


@dataclass(frozen=True)
class Fit:
    """How the pairs, or other rows, of one split fitted into `max_length` tokens."""

    pairs: int
    kept: int
    shortened: int
    left_out: dict[str, int]
    max_length: int

    def sentence(self, noun: str = "pairs") -> str:
        """The report for people."""
        reasons = "".join(f", {count} left out ({reason})" for reason, count in sorted(self.left_out.items()))
        return f"{self.kept} of {self.pairs} {noun} used, {self.shortened} prompts shortened{reasons}"


class TokenisedPair(NamedTuple):
    """Token ids of a pair; the prompt is shared."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    shortened: bool


class TokenRow(NamedTuple):
    """One row of the token columns, and whether its prompt was shortened."""

    values: dict[str, Any]
    shortened: bool


@dataclass(frozen=True)
class Form:
    """How snapshot rows of one form become token columns; weight, length and row come with every form."""

    noun: str
    columns: dict[str, str]  # beside those of every form: "ids", "bool" or "number"
    tokenise: Callable[[Any, list[dict[str, Any]], int], list[TokenRow | str]]  # a text: why the row is left out
    kept: bool = False  # the tokens follow from the rows and the tokenizer alone: later runs may have them too


class Fitted(NamedTuple):
    """A prompt that fits: its messages, its token ids with the generation prompt, and whether it was shortened."""

    messages: list[Message]
    ids: list[int]
    shortened: bool


def training_length(config: Any, asked: int | None, device: str) -> int:
    """Tokens a training sequence may have: `asked`, else what the device bears, and never more than the context."""
    return min(asked or (CPU_LENGTH if device == "cpu" else GPU_LENGTH), context_length(config))


def context_length(config: Any) -> int:
    """The model's context in tokens; unbounded where its config names none."""
    return getattr(config.get_text_config(), "max_position_embeddings", None) or sys.maxsize


def prompt_ids(tokenizer: Any, messages: list[Message]) -> list[int]:
    """Tokens of `messages` with the generation prompt, as the policy sees them."""
    rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    return list(rendered["input_ids"])


def fit_prompt(tokenizer: Any, messages: list[Message], budget: int) -> Fitted | None:
    """`messages` shortened from the left to `budget` tokens (rule 2); None when that is impossible."""
    ids = prompt_ids(tokenizer, messages)
    if len(ids) <= budget:
        return Fitted(messages, ids, shortened=False)
    oldest = 1 if messages[0]["role"] == "system" else 0
    kept = list(messages)
    while len(ids) > budget and len(kept) > oldest + 1:
        del kept[oldest]
        ids = prompt_ids(tokenizer, kept)
    if len(ids) > budget:
        shorter = _shorten_message(tokenizer, kept, oldest, budget, len(ids))
        if shorter is None:
            return None
        kept, ids = shorter
    return Fitted(kept, ids, shortened=True)


def fit_turns(tokenizer: Any, prompt: list[Message], turns: list[Message], budget: int) -> list[Message] | None:
    """`prompt` and the `turns` after it in `budget` tokens: the prompt is shortened (rule 2), the turns never are."""
    whole = [*prompt, *turns]
    length = len(prompt_ids(tokenizer, whole))
    if length <= budget:
        return whole
    room = budget - (length - len(prompt_ids(tokenizer, prompt)))
    fitted = fit_prompt(tokenizer, prompt, room) if room >= MIN_PROMPT_TOKENS else None
    if fitted is None:
        return None
    whole = [*fitted.messages, *turns]
    return whole if len(prompt_ids(tokenizer, whole)) <= budget else None


def cut_text(tokenizer: Any, text: str, tokens: int) -> str:
    """The beginning of `text`, of at most so many tokens and whole characters."""
    if len(text) <= tokens:  # no token is less than a byte, and no character neither
        return text
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return text if len(offsets) <= tokens else text[: offsets[tokens][0]]


def _shorten_message(
    tokenizer: Any, messages: list[Message], index: int, budget: int, length: int
) -> tuple[list[Message], list[int]] | None:
    """Cut the beginning of message `index`, at a character that begins a token, until everything fits."""
    if index >= len(messages):
        return None
    content = messages[index]["content"]
    offsets = tokenizer(content, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    excess = length - budget
    while excess < len(offsets):
        start = offsets[excess][0]
        shorter = [*messages[:index], {**messages[index], "content": content[start:]}, *messages[index + 1 :]]
        ids = prompt_ids(tokenizer, shorter)
        if len(ids) <= budget:
            return shorter, ids
        excess += max(1, len(ids) - budget)  # the cut joined tokens differently; cut a little more
    return None


def tokenise_pairs(tokenizer: Any, rows: list[dict[str, Any]], max_length: int) -> list[TokenisedPair | str]:
    """Token ids of snapshot rows, or the reason why one is left out; rendered together, which is twice as quick.

    A row without a rejected completion (an anchor, see `storage.rule_rows`) is one whose two sides are the same: of
    DPO's loss only the term of supervised learning is left, whatever the preference term weighs.
    """
    rows = [row if len(row["rejected"]) else {**row, "rejected": row["chosen"]} for row in rows]
    prompts = [messages_of(row["prompt"]) for row in rows]
    alone = render(tokenizer, prompts, add_generation_prompt=True)
    chosen = render(
        tokenizer, [[*prompt, *messages_of(row["chosen"])] for prompt, row in zip(prompts, rows, strict=True)]
    )
    rejected = render(
        tokenizer, [[*prompt, *messages_of(row["rejected"])] for prompt, row in zip(prompts, rows, strict=True)]
    )
    pairs: list[TokenisedPair | str] = []
    for index, row in enumerate(rows):
        pair = _divide(alone[index], chosen[index], rejected[index])
        if len(pair.prompt) + max(len(pair.chosen), len(pair.rejected)) <= max_length:
            pairs.append(pair)
        else:
            pairs.append(_shorten_pair(tokenizer, row, pair, max_length))
    return pairs


def _shorten_pair(tokenizer: Any, row: dict[str, Any], pair: TokenisedPair, max_length: int) -> TokenisedPair | str:
    budget = max_length - max(len(pair.chosen), len(pair.rejected))
    if budget < min(MIN_PROMPT_TOKENS, len(pair.prompt)):
        return "completion too long"
    fitted = fit_prompt(tokenizer, messages_of(row["prompt"]), budget)
    if fitted is None:
        return "prompt too long"
    chosen, rejected = render(
        tokenizer, [[*fitted.messages, *messages_of(row[side])] for side in ("chosen", "rejected")]
    )
    return _divide(fitted.ids, chosen, rejected)._replace(shortened=True)


def render(tokenizer: Any, conversations: list[list[Message]], **options: Any) -> list[list[int]]:
    """Token ids of each conversation; together is twice as quick as one by one."""
    rendered = tokenizer.apply_chat_template(conversations, return_dict=True, **options)
    return [list(ids) for ids in rendered["input_ids"]]


def _divide(prompt: list[int], chosen: list[int], rejected: list[int]) -> TokenisedPair:
    """Prompt and completions: each completion begins where its rendering leaves that of the prompt, as in TRL.

    Some templates render a prompt differently alone than before a completion; both sides keep one common prompt.
    """
    shared = min(_common(prompt, chosen), _common(prompt, rejected))
    return TokenisedPair(prompt[:shared], chosen[shared:], rejected[shared:], shortened=False)


def _common(a: list[int], b: list[int]) -> int:
    if b[: len(a)] == a:
        return len(a)
    return next((index for index, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def messages_of(value: Any) -> list[Message]:
    """Messages as a snapshot holds them, with TRL's two keys."""
    return [{"role": message["role"], "content": message["content"]} for message in value]


def read_rows(path: Path) -> Iterator[list[dict[str, Any]]]:
    """Rows of a snapshot's Parquet file, some at a time; raises `NotFound`/`StoreUnavailable` with the mend."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=128):
                yield batch.to_pylist()
    except FileNotFoundError:
        raise NotFound(f"{path} is missing: the snapshot's file was deleted; queue the training again") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise StoreUnavailable(f"{path} cannot be read ({error}); queue the training again") from error


def _pair_rows(tokenizer: Any, rows: list[dict[str, Any]], max_length: int) -> list[TokenRow | str]:
    found: list[TokenRow | str] = []
    for row, pair in zip(rows, tokenise_pairs(tokenizer, rows, max_length), strict=True):
        if isinstance(pair, str):
            found.append(pair)
            continue
        values = {
            "prompt_ids": pair.prompt,
            "chosen_ids": pair.chosen,
            "rejected_ids": pair.rejected,
            "length": len(pair.prompt) + max(len(pair.chosen), len(pair.rejected)),
            "first_wins": row["rejected_id"] is not None and row["chosen_id"] < row["rejected_id"],
            "prompt_number": int(row["prompt_hash"][:15], 16),
        }
        found.append(TokenRow(values, pair.shortened))
    return found


PAIRS = Form(
    "pairs",
    {"prompt_ids": "ids", "chosen_ids": "ids", "rejected_ids": "ids", "first_wins": "bool", "prompt_number": "number"},
    _pair_rows,
    kept=True,
)
"""Preference pairs; first_wins: the chosen completion was stored before the rejected one; prompt_number: from its
prompt's content."""


def tokenised(
    folder: RunFolder, split: Split, tokenizer: Any, max_length: int, form: Form = PAIRS, kept: Path | None = None
) -> tuple[Any, Fit]:
    """The `datasets.Dataset` of one split: the form's columns, weight, length, and row: one number for each row kept.

    Tokenised once into a file of the run folder: a resumed run, and TRL's cache of reference log-probabilities which is
    keyed by that file, find it again. `kept`: where another run may have left it, and where it is left for others.
    Memory does not grow with the data.
    """
    from datasets import Dataset

    arrow = tokens_file(folder, split)
    report = arrow.with_suffix(".json")
    if not report.exists():  # written last
        arrow.parent.mkdir(exist_ok=True)
        found = take(kept, arrow) if kept is not None else None
        if found is not None:
            folder.say(f"{split.value}: tokens of an earlier run are taken")
        else:
            found = asdict(_write_tokens(folder, split, tokenizer, max_length, arrow, form))
            if kept is not None:
                keep(kept, arrow, found, folder.say)
        report.write_text(json.dumps(found))
    return Dataset.from_file(str(arrow)), Fit(**json.loads(report.read_text()))


def tokens_file(folder: RunFolder, split: Split) -> Path:
    """The tokens of a split, in the run folder."""
    return folder.path / "tokens" / f"{split.value}.arrow"


def _kept_tokens(folder: RunFolder, tokenizer: Any, max_length: int, form: Form) -> str | None:
    """The beginning of the paths under which runs share tokens; None: they do not."""
    cache, rendering = folder.job().cache, tokenizer_key(tokenizer)
    if cache is None or rendering is None or not form.kept:
        return None
    versions = [version(name) for name in ("transformers", "tokenizers", "datasets")]
    return f"{cache}/tokens-{key_of(_RULES, rendering, max_length, form.noun, form.columns, *versions)}"


def features_of(form: Form) -> Any:
    """The column types of a form's token rows."""
    from datasets import Features, List, Value

    kinds = {"ids": List(Value("int32")), "bool": Value("bool"), "number": Value("int64")}
    own = {name: kinds[kind] for name, kind in form.columns.items()}
    return Features({**own, "weight": Value("float32"), "length": Value("int32"), "row": Value("int64")})


def _write_tokens(folder: RunFolder, split: Split, tokenizer: Any, max_length: int, arrow: Path, form: Form) -> Fit:
    from datasets.arrow_writer import ArrowWriter

    seen = kept = shortened = 0
    left_out: Counter[str] = Counter()
    partial = arrow.with_suffix(".partial")
    with ArrowWriter(path=str(partial), features=features_of(form)) as writer:
        for rows in read_rows(folder.split(split)):
            folder.check_cancel()
            for row, tokens in zip(rows, form.tokenise(tokenizer, rows, max_length), strict=True):
                seen += 1
                if isinstance(tokens, str):
                    left_out[tokens] += 1
                    continue
                writer.write({**tokens.values, "weight": row["weight"], "row": row_number(split, kept)})
                kept += 1
                shortened += tokens.shortened
        writer.finalize()
    os.replace(partial, arrow)
    return Fit(seen, kept, shortened, dict(left_out), max_length)


def row_number(split: Split, place: int) -> int:
    """One number for a row of the data, whatever split it stands in."""
    return (list(Split).index(split) << 40) + place


def load_splits(
    folder: RunFolder, tokenizer: Any, max_length: int, form: Form = PAIRS
) -> tuple[dict[Split, Any], dict[str, Any]]:
    """The tokenised splits that hold at least one row, and the fit report; refuses an empty training split."""
    data: dict[Split, Any] = {}
    fits: dict[str, Any] = {}
    shared = _kept_tokens(folder, tokenizer, max_length, form)
    for split in Split:
        kept = None if shared is None else Path(f"{shared}-{split.value}.arrow")
        dataset, fit = tokenised(folder, split, tokenizer, max_length, form, kept)
        fits[split.value] = asdict(fit)
        folder.say(f"{split.value}: {fit.sentence(form.noun)}")
        if fit.kept:
            data[split] = dataset
    if Split.TRAIN not in data:
        raise NotEnoughData(
            f"no training {form.noun.removesuffix('s')} fits {max_length} tokens: "
            f"{fits['train']['left_out'] or 'there are none'}; raise max_length or collect more feedback"
        )
    return data, fits


def mean_weight(dataset: Any) -> float:
    """The mean weight of a split's rows: weights count relative to it, so that the learning rate keeps its meaning."""
    weights = dataset["weight"]
    return float(sum(weights) / len(weights))
