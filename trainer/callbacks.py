"""What watches a training loop: events, cancellation, NaN, an order of batches that survives a restart."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import get_length_grouped_indices

from storage.errors import TrainingFailed
from trainer.checkpoints import SEAL, seal
from trainer.folder import Cancelled, RunFolder

PROGRESS_SECONDS = 0.5


class EventCallback(TrainerCallback):
    """Carries the loop's figures into events.jsonl and stops it within one optimiser step once CANCEL appears."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.quiet = False
        self._told = 0.0
        self._tokens = 0.0  # counted by TRL at the last report
        self._since = time.perf_counter()
        self._total_tokens = 0.0
        self._total_seconds = 0.0

    @property
    def tokens_per_second(self) -> float | None:
        """Training speed of the whole run, evaluations not counted."""
        return self._total_tokens / self._total_seconds if self._total_seconds else None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The first sign of progress: how many steps there will be."""
        self.folder.progress(state.global_step, state.max_steps)
        self._since = time.perf_counter()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Progress; a cancelled run saves its state, so that nothing learnt is lost, and stops."""
        now = time.monotonic()
        if now - self._told >= PROGRESS_SECONDS or state.global_step >= state.max_steps or state.global_step == 1:
            self._told = now
            self.folder.progress(state.global_step, state.max_steps)
        if self.folder.cancelled:
            control.should_training_stop = True
            control.should_save = True
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The checkpoint is whole."""
        seal(self.folder.checkpoints / f"checkpoint-{state.global_step}")

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """An evaluation of many batches is left at once as well, once there is a saved state to go on from.

        The state of its own step is saved after it, so that a resumed run does not miss an evaluation.
        """
        if self.folder.cancelled and any(self.folder.checkpoints.glob(f"checkpoint-*/{SEAL}")):
            raise Cancelled

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Report figures at their step, with tokens a second since the last report."""
        if self.quiet:
            return
        values = {short_name(name): value for name, value in (logs or {}).items() if name not in _UNTOLD}
        tokens = (logs or {}).get("num_tokens")
        if tokens is not None and "loss" in values:
            now = time.perf_counter()
            values["tokens_per_second"] = (tokens - self._tokens) / (now - self._since)
            self._total_tokens += tokens - self._tokens
            self._total_seconds += now - self._since
            self._tokens, self._since = tokens, now
        if values:
            self.folder.metrics(state.global_step, values)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Time spent on evaluation is not training speed."""
        self._since = time.perf_counter()


# Run times and totals of `transformers`: the store has better ones.
_UNTOLD = {
    "total_flos", "train_loss", "train_runtime", "train_samples_per_second", "train_steps_per_second", "epoch",
    *(f"eval_{name}" for name in ("runtime", "samples_per_second", "steps_per_second", "num_tokens")),
}  # fmt: skip


def short_name(name: str) -> str:
    """TRL's names, one vocabulary for all recipes: accuracy, margin, eval_accuracy, token_accuracy, …"""
    for long, short in _SHORT.items():
        name = name.replace(long, short)
    return name


_SHORT = {
    "rewards/accuracies": "accuracy",
    "rewards/margins": "margin",
    "mean_token_accuracy": "token_accuracy",
    "self_distillation/distillation_loss": "distillation_loss",
}


class EpochSampler(Sampler[int]):
    """Batches of like length in an order that depends on seed and epoch only.

    `transformers` draws its order from the global generator, so that a run resumed in its second epoch would see
    another order than the uninterrupted one.
    """

    def __init__(self, lengths: list[int], batch_size: int, seed: int) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.lengths)

    def __iter__(self) -> Any:
        """Indices of this epoch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return iter(get_length_grouped_indices(self.lengths, self.batch_size, generator=generator))


class Watched:
    """Mixed into a TRL trainer: it keeps quiet, and stops on a loss that is not finite."""

    def __init__(self, *args: Any, folder: RunFolder, **kwargs: Any) -> None:
        self.folder = folder
        super().__init__(*args, **kwargs)
        self.remove_callback(PrinterCallback)  # type: ignore[attr-defined]  # the trainer's
        # PEFT's card too: it takes longer to write than the adapter of a small model.
        model = self.model  # type: ignore[attr-defined]  # the trainer's
        if hasattr(model, "create_or_update_model_card"):
            model.create_or_update_model_card = lambda output_dir: None

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """No card: lineage lives in the store."""

    def floating_point_ops(self, inputs: Any) -> int:
        """Counted by nobody: an estimate that `transformers` makes anew from all parameters at every step."""
        return 0

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Stop on a loss that is not finite: the weights are about to be lost."""
        loss = super().training_step(*args, **kwargs)  # type: ignore[misc]  # the trainer's
        value = float(loss.detach())
        if not math.isfinite(value):
            state = self.state  # type: ignore[attr-defined]  # the trainer's
            self.folder.metrics(state.global_step + 1, {"loss": value})
            raise TrainingFailed(
                f"the loss was {value} at step {state.global_step + 1}; lower learning_rate (now "
                f"{self.args.learning_rate:g}) or set dtype=float32"  # type: ignore[attr-defined]  # the trainer's
            )
        return loss


class WatchedTrainer(Watched):
    """Mixed into a TRL trainer whose data is tokenised already (`trainer.datasets`)."""

    sequences_per_row = 2  # in a batch: chosen and rejected; trainers of single completions say 1

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._eval_sizes: list[int] = []
        super().__init__(*args, **kwargs)

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        data = self.train_dataset if train_dataset is None else train_dataset  # type: ignore[attr-defined]  # the trainer's
        args = self.args  # type: ignore[attr-defined]  # the trainer's
        batch = args.train_batch_size * args.gradient_accumulation_steps
        return EpochSampler(list(data["length"]), batch, args.data_seed if args.data_seed is not None else args.seed)

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        lengths = eval_dataset["length"]
        return sorted(range(len(lengths)), key=lambda place: -lengths[place])  # figures are means: no order counts

    def prediction_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Note the size of each evaluation batch, see `log`."""
        self._eval_sizes.append(len(inputs["input_ids"]) // self.sequences_per_row)
        return super().prediction_step(model, inputs, *args, **kwargs)  # type: ignore[misc]  # the trainer's

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Average evaluation figures over rows: TRL averages over batches, which favours a small last batch."""
        sizes, self._eval_sizes = self._eval_sizes, []
        if sizes:
            figures = self._metrics["eval"]  # type: ignore[attr-defined]  # the trainer's
            for name, values in figures.items():
                if len(values) == len(sizes):
                    mean = sum(value * size for value, size in zip(values, sizes, strict=True)) / sum(sizes)
                    figures[name] = [mean]
        super().log(logs, *args, **kwargs)  # type: ignore[misc]  # the trainer's
