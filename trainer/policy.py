"""Base models and adapters: find and load them, and write completions in batches.

Whatever cannot be loaded becomes one `ModelUnusable` line that names the model and the mend. Only safetensors are
loaded (a pickle runs code), and no model code from elsewhere is trusted.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from storage.configs import SamplingSettings
from storage.errors import ModelUnusable
from storage.models import Message
from trainer.chat_template import with_system
from trainer.conditions import Condition, read_condition
from trainer.datasets import context_length, fit_prompt

STARTER = "starter"


# --- finding and loading ---


def resolve_base_model(name: str) -> str:
    """What to give to `from_pretrained`: `starter` is the model that ships with the app, a folder becomes absolute.

    Anything else is taken for a hub id, which is loaded from the local cache (or from the hub with HF_HUB_OFFLINE=0).
    """
    if name == STARTER:
        folder = Path(__file__).parent / "starter" / "model"
        if not (folder / "config.json").exists():
            raise ModelUnusable(
                f"the starter model is missing from {folder}; "
                f"make it: python -m trainer.starter.train_starter --out {folder}"
            )
        return str(folder)
    path = Path(name).expanduser()
    if path.exists():
        if not (path / "config.json").exists():
            raise ModelUnusable(f"base model {name}: no config.json there; give the folder that save_pretrained wrote")
        return str(path.absolute())
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ModelUnusable(
            f"base model {name}: no such folder; give a local folder, a hub id like org/name, or 'starter'"
        )
    return name


def pick_device(device: str) -> str:
    """`auto` becomes cuda, mps or cpu, whichever is there first."""
    import torch

    if device != "auto":
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ModelUnusable(f"device {device}: no CUDA GPU is usable here; set device to auto or cpu")
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def pick_dtype(dtype: str, device: str) -> Any:
    """`auto` becomes float32 on a CPU (its small models are quickest and exact there), bfloat16 elsewhere."""
    import torch

    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[dtype]


def load_tokenizer(base: str) -> Any:
    """The tokenizer of a resolved base model, with a padding token, for system messages too; refuses one without a
    chat template."""
    from transformers import AutoTokenizer

    tokenizer = _loading(base, lambda: AutoTokenizer.from_pretrained(base))
    if not tokenizer.chat_template:
        raise ModelUnusable(
            f"base model {base} has no chat template; take an instruct or chat model, or add chat_template.jinja to it"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return with_system(tokenizer)


def load_model(base: str, dtype: Any, device: str, *, heads: int = 0) -> Any:
    """The bare base model on `device`: a causal LM, or with `heads` a sequence classifier with so many outputs."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True}
    if heads:
        from trl.trainer.reward_trainer import suppress_seqcls_warning

        with suppress_seqcls_warning():
            model = _loading(
                base, lambda: AutoModelForSequenceClassification.from_pretrained(base, num_labels=heads, **options)
            )
    else:
        model = _loading(base, lambda: AutoModelForCausalLM.from_pretrained(base, **options))
    return model.to(device)


def _loading(base: str, load: Callable[[], Any]) -> Any:
    from safetensors import SafetensorError

    try:
        return load()
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        where = (
            "" if Path(base).exists() else "; it is not in the local cache: download it once, or give a local folder"
        )
        raise ModelUnusable(f"base model {base} cannot be loaded{where} ({reason})") from error


def check_adapter(folder: Path) -> None:
    """Refuse an adapter that is missing, incomplete, corrupt or pickled, before anything is built around it."""
    from safetensors import SafetensorError, safe_open

    mend = "restore the folder from a backup, or promote another version"
    weights = folder / "adapter_model.safetensors"
    if not weights.exists():
        if (folder / "adapter_model.bin").exists():
            raise ModelUnusable(
                f"adapter {folder} holds pickled weights only, which are never loaded; convert it to safetensors"
            )
        raise ModelUnusable(f"adapter {folder} has no adapter_model.safetensors; {mend}")
    try:
        json.loads((folder / "adapter_config.json").read_text())
        with safe_open(weights, "pt") as file:
            file.keys()
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelUnusable(f"adapter {folder} is corrupt ({' '.join(str(error).split())[:120]}); {mend}") from error


def add_adapters(model: Any, adapters: Mapping[str, Path]) -> Any:
    """`model` with every adapter loaded under its version's name; the bare model when there are none."""
    from peft import PeftModel

    for name, folder in adapters.items():
        check_adapter(folder)
        try:
            if isinstance(model, PeftModel):
                model.load_adapter(str(folder), adapter_name=adapter_key(name))
            else:
                model = PeftModel.from_pretrained(model, str(folder), adapter_name=adapter_key(name))
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise ModelUnusable(f"adapter {name} in {folder} does not fit the base model ({reason})") from error
    return model


def adapter_key(version: str) -> str:
    """What the model calls the adapter of a version."""
    return version.replace(".", "_")  # PEFT makes module names of it


# --- writing completions ---


class Request(NamedTuple):
    """One completion wanted: chat messages, and the version that shall write it.

    A conditional version is asked for its best, unless the request is `plain`: an instruction, not a prompt.
    """

    messages: list[Message]
    version: str
    plain: bool = False


class Written(NamedTuple):
    """A completion, aligned with its request. Log-probabilities are the model's own (temperature 1)."""

    text: str
    token_count: int
    mean_logprob: float
    latency_ms: float  # of its batch
    seed: int  # of its batch


# The seam: who writes completions. One text per request, in order; None where the prompt does not fit.
Generator = Callable[[Sequence[Request], int], list[Written | None]]


class Policies(NamedTuple):
    """One base model in memory with the adapters of some versions, in evaluation mode."""

    model: Any
    tokenizer: Any
    versions: Mapping[str, Path | None]  # None: the base model itself
    conditions: Mapping[str, Condition]  # of conditional versions


def load_policies(
    base: str, versions: Mapping[str, Path | None], *, dtype: str = "auto", device: str = "auto"
) -> Policies:
    """Load `base` (resolved) and the adapter folders of `versions`; None stands for the base itself."""
    device = pick_device(device)
    tokenizer = load_tokenizer(base)
    model = load_model(base, pick_dtype(dtype, device), device)
    folders = {name: folder for name, folder in versions.items() if folder is not None}
    model = add_adapters(model, folders)
    model.eval()
    found = {name: condition for name, folder in folders.items() if (condition := read_condition(folder))}
    return Policies(model, tokenizer, versions, found)


def make_generator(
    base: str,
    adapters: Mapping[str, Path | None],
    sampling: SamplingSettings,
    *,
    batch_size: int = 32,
    dtype: str = "auto",
    device: str = "auto",
    before_batch: Callable[[], None] = lambda: None,
) -> Generator:
    """A generator around one base model; `adapters` maps version names to adapter folders, None for the base itself.

    `before_batch` is called before each batch (cancellation, progress). Prompts that do not fit the context are
    shortened by the rule of `trainer.datasets`.
    """
    policies = load_policies(base, adapters, dtype=dtype, device=device)
    return generator_of(policies, sampling, batch_size=batch_size, before_batch=before_batch)


def prompt_budget(policies: Policies, max_new_tokens: int) -> int:
    """Tokens that a prompt may have beside its completion; raises `ModelUnusable` when that is next to nothing."""
    budget = context_length(policies.model.config) - max_new_tokens
    if budget < 16:
        raise ModelUnusable(
            f"max_new_tokens {max_new_tokens} leaves no room for a prompt in the context of "
            f"{policies.tokenizer.name_or_path}; lower it"
        )
    return budget


def generator_of(
    policies: Policies,
    sampling: SamplingSettings,
    *,
    batch_size: int = 32,
    before_batch: Callable[[], None] = lambda: None,
) -> Generator:
    """As `make_generator`, around models that are in memory already."""
    model, tokenizer = policies.model, policies.tokenizer
    budget = prompt_budget(policies, sampling.max_new_tokens)

    def generate(requests: Sequence[Request], seed: int) -> list[Written | None]:
        results: list[Written | None] = [None] * len(requests)
        by_version: dict[str, list[tuple[int, list[int]]]] = defaultdict(list)
        for index, request in enumerate(requests):
            condition = None if request.plain else policies.conditions.get(request.version)
            messages = condition.put_into(request.messages) if condition else request.messages
            fitted = fit_prompt(tokenizer, messages, budget)
            if fitted is not None:
                by_version[request.version].append((index, fitted.ids))
        number = 0
        for version, prompts in by_version.items():
            with speaking(policies, version):
                for batch in _batches(prompts, batch_size):
                    before_batch()
                    written = _write(model, tokenizer, [ids for _, ids in batch], sampling, seed + number)
                    number += 1
                    for (index, _), completion in zip(batch, written, strict=True):
                        results[index] = completion
        return results

    return generate


def _batches(prompts: list[tuple[int, list[int]]], size: int) -> Iterator[list[tuple[int, list[int]]]]:
    """Prompts of like length together: little padding; equal ones side by side."""
    ordered = sorted(prompts, key=lambda prompt: (len(prompt[1]), prompt[1], prompt[0]))
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


def speaking(policies: Policies, version: str | None) -> Any:
    """A context in which the model writes as `version`; None: as the base model."""
    from contextlib import nullcontext

    from peft import PeftModel

    if not isinstance(policies.model, PeftModel):
        return nullcontext()
    if version is None or policies.versions[version] is None:
        return policies.model.disable_adapter()
    policies.model.set_adapter(adapter_key(version))
    return nullcontext()


def _write(
    model: Any, tokenizer: Any, prompts: list[list[int]], sampling: SamplingSettings, seed: int
) -> list[Written]:
    """One batch, sampled with `seed`; a prompt that stands there several times in a row is read once."""
    from trainer.sampling import sample

    started = time.perf_counter()
    each = [(prompt, len(list(same))) for prompt, same in groupby(prompts)]
    completions = sample(
        model,
        [prompt for prompt, _ in each],
        [count for _, count in each],
        sampling,
        ends=end_tokens(model, tokenizer),
        pad=tokenizer.pad_token_id,
        seed=seed,
    )
    latency = (time.perf_counter() - started) * 1000
    texts = tokenizer.batch_decode([one.ids for one in completions], skip_special_tokens=True)
    return [
        Written(text.strip(), len(one.ids), one.mean_logprob, latency, seed)
        for text, one in zip(texts, completions, strict=True)
    ]


def end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """The tokens with which a completion ends."""
    ends = model.generation_config.eos_token_id
    found = set(ends if isinstance(ends, list) else [ends]) | {tokenizer.eos_token_id}
    return {token for token in found if token is not None}
