"""What DPO and KTO share: a reference that is asked once for each row, and rows that weigh."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch

from trainer.callbacks import WatchedTrainer

OURS = ("weight", "row", "pairs")  # of a batch: no inputs of the model


class Compared(NamedTuple):
    """TRL's loss of a batch, the batch with its reference, and what the model gave."""

    loss: Any
    batch: dict[str, Any]
    output: Any


class KeptReference(WatchedTrainer):
    """Mixed into a TRL trainer that compares with a reference.

    The reference never changes, so its log-probabilities are computed when a row is first seen and kept: as quick as
    computing them all beforehand, without the wait before the first step, and nothing for rows never reached.
    """

    reference_columns: ClassVar[tuple[str, str]]  # as TRL calls them in a batch
    precompute_ref_logps: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._reference: dict[int, tuple[Any, Any]] = {}
        super().__init__(*args, **kwargs)

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Any]) -> Any:
        """The reference's log-probabilities of a batch."""
        return super().compute_ref_log_probs(partial(self.ask, model), _inputs(inputs))  # type: ignore[misc]  # the trainer's

    def ask(self, model: Any, **inputs: Any) -> Any:
        """What a model gives a batch; some kinds of rows can be asked about in a quicker way."""
        return model(**inputs)

    def compared(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Compared:
        """TRL's loss with the reference as it is kept."""
        batch = self._with_reference(_inputs(inputs), inputs["row"])
        outputs: list[Any] = []

        def recorded(**model_inputs: Any) -> Any:
            outputs.append(self.ask(model, **model_inputs))
            return outputs[-1]

        before = self.precompute_ref_logps
        self.precompute_ref_logps = True  # whoever computed them, they are there
        try:
            loss = super()._compute_loss(recorded, batch, return_outputs)  # type: ignore[misc]  # the trainer's
        finally:
            self.precompute_ref_logps = before
        return Compared(loss, batch, outputs[-1])

    def _with_reference(self, batch: dict[str, Any], rows: list[int]) -> dict[str, Any]:
        if self.reference_columns[0] in batch:
            return batch
        if not all(row in self._reference for row in rows):
            fresh = zip(*self.compute_ref_log_probs(self.model, batch), strict=True)  # type: ignore[attr-defined]  # the trainer's
            self._reference |= dict(zip(rows, fresh, strict=True))
        kept = zip(*(self._reference[row] for row in rows), strict=True)
        return batch | dict(zip(self.reference_columns, map(torch.stack, kept), strict=True))


def _inputs(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in batch.items() if name not in OURS}
