"""What DPO and KTO share: a reference that is asked once for each row, and rows that weigh."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from safetensors.torch import load_file, save_file

from storage.enums import Split
from trainer.callbacks import WatchedTrainer
from trainer.datasets import tokens_file
from trainer.kept import file_sha256, keep, key_of, model_key, take

FILE = "reference.safetensors"  # in the run folder
OURS = ("weight", "row", "pairs")  # of a batch: no inputs of the model


class Compared(NamedTuple):
    """TRL's loss of a batch, the batch with its reference, and what the model gave."""

    loss: Any
    batch: dict[str, Any]
    output: Any


class KeptReference(WatchedTrainer):
    """Mixed into a TRL trainer that compares with a reference.

    The reference never changes, so its log-probabilities are computed when a row is first seen and kept: as quick as
    computing them all beforehand, without the wait before the first step, and nothing for rows never reached. Later
    runs with the same rows and the same base model find them again (`trainer.kept`).
    """

    reference_columns: ClassVar[tuple[str, str]]  # as TRL calls them in a batch
    precompute_ref_logps: bool
    ahead: Any = None  # rows of which it is known early that they will be asked about, when nobody waits

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._reference: dict[int, tuple[Any, Any]] = {}
        self._taken = 0  # of them from another run
        super().__init__(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As always; after the first time the reference is asked about the rows `ahead`, which wait at the end."""
        figures: dict[str, float] = super().evaluate(*args, **kwargs)  # type: ignore[misc]  # the trainer's
        rows, self.ahead = self.ahead, None
        if rows is not None:
            for batch in self.get_eval_dataloader(rows):  # type: ignore[attr-defined]  # the trainer's
                if self.folder.cancelled:
                    break  # not an error: the state of this step is still to be saved
                inputs = self._prepare_inputs(batch)  # type: ignore[attr-defined]  # the trainer's
                with torch.no_grad(), self.compute_loss_context_manager():  # type: ignore[attr-defined]  # the trainer's
                    self._with_reference(_inputs(inputs), inputs["row"])
        return figures

    def take_reference(self, base: str) -> None:
        """What an earlier run kept of the same rows and the same base model (resolved)."""
        self._kept = self._kept_file(base)
        file = self.folder.path / FILE
        if self._kept is None or take(self._kept, file) is None:
            return
        found = load_file(file)
        device = self.args.device  # type: ignore[attr-defined]  # the trainer's
        values = zip(*(found[name].to(device) for name in self.reference_columns), strict=True)
        self._reference = dict(zip(found["row"].tolist(), values, strict=True))
        self._taken = len(self._reference)
        self.folder.say(f"the reference's log-probabilities of {self._taken} rows are those of an earlier run")

    def keep_reference(self) -> None:
        """For later runs."""
        if self._kept is None or len(self._reference) == self._taken:
            return
        first, second = (torch.stack(list(side)).float().cpu() for side in zip(*self._reference.values(), strict=True))
        tensors = dict(zip(self.reference_columns, (first, second), strict=True))
        file = self.folder.path / FILE
        file.unlink(missing_ok=True)  # what was taken is a link to what was kept
        save_file({"row": torch.tensor(list(self._reference)), **tensors}, file)
        keep(self._kept, file, {}, self.folder.say)

    def _kept_file(self, base: str) -> Path | None:
        """Named by all that decides what the reference gives a row."""
        cache, weights = self.folder.job().cache, model_key(base)
        if cache is None or weights is None:
            return None
        args, model = self.args, self.model  # type: ignore[attr-defined]  # the trainer's
        tokens = [file_sha256(tokens_file(self.folder, split)) for split in Split]
        how = [model.dtype, args.bf16, args.fp16, args.device.type, torch.__version__, version("transformers")]
        return Path(cache) / f"reference-{key_of(self.reference_columns, weights, *tokens, *how)}.safetensors"

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
