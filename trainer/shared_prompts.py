"""Both completions of a pair in one row of the batch, so that the model reads what they share only once.

A row is the chosen sequence, and behind it the rejected one without their common beginning:

    tokens      p p p p c c c | r r          p: shared, but for its last token, which both completions have for
    positions   0 1 2 3 4 5 6   4 5             themselves, since what follows it differs
    sees        causal        | the p, and its own

Rewards and log-probabilities are those of two separate sequences, up to rounding: the attention mask and the positions
are those that each token would have there. Minimal edits, whose completions begin alike, save most.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from transformers.modeling_outputs import SequenceClassifierOutput

EXACT, ROUNDED = 1e-3, 0.1  # how far the two ways may be apart, in float32 and below


class Rows(NamedTuple):
    """A batch of pairs, [pairs, width]."""

    source: torch.Tensor  # the place of each token in the flattened batch of sequences
    positions: torch.Tensor  # in its own sequence
    mask: torch.Tensor  # [pairs, 1, width, width]: what each token sees
    begins: torch.Tensor  # where the rejected sequence goes on, or nothing stands: no successor of the token before it
    places: torch.Tensor  # [2 pairs, length]: where each token of the sequences stands in its row
    ends: torch.Tensor  # [2 pairs]: the last token of each sequence


def rows_of(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Rows:
    """From sequences padded on the right, [2 pairs, length], the chosen ones first."""
    pairs, length = len(input_ids) // 2, input_ids.shape[1]
    chosen, rejected = input_ids.chunk(2)
    there = attention_mask.bool()
    alike = (chosen == rejected) & there[:pairs] & there[pairs:]
    shared = (alike.long().cumprod(1).sum(1, keepdim=True) - 1).clamp(min=0)
    first, second = attention_mask.sum(1, keepdim=True).chunk(2)
    whole = first + second - shared
    place = torch.arange(int(whole.max()), device=input_ids.device).expand(pairs, -1)
    behind, nothing = place >= first, place >= whole
    positions = (place - behind * (first - shared)).masked_fill(nothing, 0)
    number = torch.arange(pairs, device=input_ids.device)[:, None]
    part = (place >= shared).long() + behind + nothing
    sees = (part[:, None, :] == 0) | (part[:, :, None] == part[:, None, :])
    at = torch.arange(length, device=input_ids.device).expand(pairs, -1)
    return Rows(
        source=(number + behind * pairs) * length + positions,
        positions=positions,
        mask=(sees & (place[:, :, None] >= place[:, None, :]))[:, None],
        begins=(place == first) | nothing,
        places=torch.cat([at, at + (at >= shared) * (first - shared)]).clamp(max=place.shape[1] - 1),
        ends=torch.cat([first, whole])[:, 0] - 1,
    )


def rewards_of(model: Any, inputs: dict[str, Any], rows: Rows) -> Any:
    """What a sequence classifier (a PEFT model around one) gives the sequences: logits [2 pairs, heads]."""
    classifier = model.get_base_model()
    backbone = getattr(classifier, classifier.base_model_prefix)
    hidden = backbone(**_asked(inputs, rows)).last_hidden_state
    number = torch.arange(len(hidden), device=hidden.device).repeat(2)
    return SequenceClassifierOutput(logits=classifier.score(hidden[number, rows.ends]).float())


def log_probs_of(model: Any, inputs: dict[str, Any], rows: Rows) -> Any:
    """What a policy with TRL's fused head gives the tokens of the sequences: fields of [2 pairs, length - 1]."""
    labels = inputs["labels"].flatten()[rows.source].masked_fill(rows.begins, -100)
    output = model(**_asked(inputs, rows), labels=labels, fused_lm_head=True)
    places, labelled = rows.places[:, :-1], inputs["labels"][:, 1:] != -100
    # The last token of a row that is full has no successor, hence no place among the log-probabilities.
    places = places.clamp(max=rows.source.shape[1] - 2)

    def back(values: Any) -> Any:
        if not torch.is_tensor(values) or values.dim() < 2:
            return values
        return values.repeat(2, 1).gather(1, places).masked_fill(~labelled, 0)

    return type(output)(**{name: back(values) for name, values in output.items()})


def _asked(inputs: dict[str, Any], rows: Rows) -> dict[str, Any]:
    return {
        "input_ids": inputs["input_ids"].flatten()[rows.source],
        "attention_mask": rows.mask,
        "position_ids": rows.positions,
        "use_cache": False,
    }


class SharedPrompts:
    """Asks a model about pairs in the quicker of the two ways.

    `read` is `rewards_of` or `log_probs_of`, and `figure` the field of its output that the two ways are compared by
    once, on the first pair: a model that keeps its own count of positions, or of what a token sees, is asked about
    separate sequences, which `say` tells.
    """

    def __init__(
        self, read: Callable[..., Any], figure: str, model: Any, args: Any, say: Callable[[str], None]
    ) -> None:
        self._read, self._figure, self._say = read, figure, say
        rounded = args.bf16 or args.fp16 or model.dtype != torch.float32
        self._tolerance = ROUNDED if rounded else EXACT
        text = model.config.get_text_config()
        self._width: int = text.hidden_size
        self._usable: bool | None = None if _masks_are_ours(text) else False  # None: not compared yet

    def ask(self, model: Any, inputs: dict[str, Any]) -> Any:
        """As `model(**inputs)`; `inputs` holds the chosen sequences and then the rejected ones, padded on the right."""
        if self._usable is False or not hasattr(model, "get_base_model"):  # spread over processes: one forward a step
            return model(**inputs)
        rows = rows_of(inputs["input_ids"], inputs["attention_mask"])
        if self._cost(rows.source) >= self._cost(inputs["input_ids"]):
            return model(**inputs)
        if self._usable is None:
            self._usable = self._compare(model, inputs)
            if not self._usable:
                self._say("the model does not take two completions in one row: they are read one by one")
                return model(**inputs)
        return self._read(model, inputs, rows)

    def _cost(self, ids: torch.Tensor) -> int:
        """Multiplications, up to a factor: of the layers by token, and of the attention by pair of tokens."""
        rows, length = ids.shape
        return int(rows * length * (6 * self._width + length))

    @torch.no_grad()
    def _compare(self, model: Any, inputs: dict[str, Any]) -> bool:
        pairs = len(inputs["input_ids"]) // 2
        one = {name: value[::pairs] if torch.is_tensor(value) else value for name, value in inputs.items()}
        apart = getattr(model(**one), self._figure)
        try:
            together = getattr(self._read(model, one, rows_of(one["input_ids"], one["attention_mask"])), self._figure)
        except Exception:  # whatever a model has against such a mask: the other way has just worked
            traceback.print_exc()  # into the run's log.txt
            return False
        return bool(torch.allclose(apart.float(), together.float(), rtol=self._tolerance, atol=self._tolerance))


def _masks_are_ours(config: Any) -> bool:
    """Whether every layer sees what the attention mask says, and nothing else counts what stands before a token."""
    kinds = set(getattr(config, "layer_types", None) or ())
    windowed = getattr(config, "sliding_window", None) is not None
    return config._attn_implementation == "sdpa" and not windowed and kinds <= {"full_attention"}
