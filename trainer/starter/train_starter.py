"""The script that made the starter: tokenizer, chat template, model, three tasks, saved as one folder.

    python -m trainer.starter.train_starter --out DIR [--minutes 55] [--seed 0] [--start-from DIR] [--compile]
    OMP_NUM_THREADS=1 torchrun --nproc_per_node 2 -m trainer.starter.train_starter --out DIR …

Seeded; how far it gets depends on the time it is given, for the learning rate follows the clock. A usable model is
written to DIR every few minutes. Runs on CUDA when there is some, else on the CPU (two cores are enough). Under
torchrun the processes share each step; on cores with other work that is much faster than one process of two threads,
which wait for each other at every operation.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import distributed
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from trainer.starter import phrases
from trainer.starter.card import CARD
from trainer.starter.copying import start_with_copying
from trainer.starter.lessons import write_lesson
from trainer.starter.muon import Muon
from trainer.starter.tokens import END, PAD, encode_lesson, make_tokenizer

TOKENS_PER_STEP = 6144
"""Of all processes together."""
POOL = 768
"""Lessons sorted by length together, so that a batch wastes little on padding."""
SHARES = (0.3, 0.35, 0.2, 0.15)
"""Odds of replies, refinements, judgements and descriptions."""
RATE = 2e-3
"""Of AdamW, for embeddings and norms."""
MATRIX_RATE = 1e-2
"""Of Muon, for all else."""
WARM_UP, COOL_DOWN = 0.02, 0.7
"""Fractions of the time in which the learning rate rises at the start and falls to nothing at the end."""
EXPORT_EVERY = 240.0

Batch = tuple[torch.Tensor, torch.Tensor]
"""Token ids and the weight of each as a target, both [lessons, length]; padding has weight 0."""


def make_model(vocabulary: int, seed: int) -> LlamaForCausalLM:
    """A fresh Llama of about 3.6M parameters."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        # Slow enough that half of a head's rotary pairs hardly turn within a conversation: see copying.py.
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        bos_token_id=None,
        eos_token_id=END,
        pad_token_id=PAD,
    )
    model = LlamaForCausalLM(config)
    start_with_copying(model)
    return model


def lesson_batches(
    tokenizer: PreTrainedTokenizerFast, rng: random.Random, shares: tuple[float, float, float, float] = SHARES
) -> Iterator[Batch]:
    """Batches of lessons without end, each of about this process's part of TOKENS_PER_STEP with its padding."""
    budget = TOKENS_PER_STEP // world()[1]
    while True:
        pool = [encode_lesson(tokenizer, write_lesson(rng, shares)) for _ in range(POOL)]
        pool.sort(key=lambda lesson: len(lesson[0]))
        batches: list[list[tuple[list[int], list[float]]]] = [[]]
        for lesson in pool:
            if len(lesson[0]) * (len(batches[-1]) + 1) > budget:
                batches.append([])
            batches[-1].append(lesson)
        rng.shuffle(batches)
        for batch in batches:
            yield _pad(batch)


def _pad(lessons: list[tuple[list[int], list[float]]]) -> Batch:
    length = max(len(ids) for ids, _ in lessons)
    ids = torch.full((len(lessons), length), PAD)
    weights = torch.zeros(len(lessons), length)
    for row, (tokens, weight) in enumerate(lessons):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        weights[row, : len(weight)] = torch.tensor(weight)
    return ids, weights


def loss_of(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Weighted cross-entropy of the tokens that count; logits are made for those only, as they are dear."""
    ids, weights = (tensor.to(model.device) for tensor in batch)
    # No attention mask: padding stands on the right, where causal attention never looks.
    hidden = model.model(ids[:, :-1], use_cache=False).last_hidden_state
    counts = weights[:, 1:] > 0
    losses = functional.cross_entropy(model.lm_head(hidden[counts]), ids[:, 1:][counts], reduction="none")
    chosen = weights[:, 1:][counts]
    return (losses * chosen).sum() / chosen.sum()


def world() -> tuple[int, int]:
    """This process's number and how many there are."""
    return (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)


def share_gradients(model: LlamaForCausalLM, seconds: float) -> float:
    """Average gradients over all processes, and the clock with them, so that all agree on the rate and on the end."""
    if world()[1] == 1:
        return seconds
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([*(g.flatten() for g in gradients), gradients[0].new_tensor([seconds])])
    distributed.all_reduce(flat)
    flat /= world()[1]
    for gradient, mean in zip(gradients, flat[:-1].split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
    return float(flat[-1])


def make_optimizers(model: LlamaForCausalLM) -> dict[torch.optim.Optimizer, float]:
    """Muon for the matrices of the layers, AdamW for embeddings and norms, each with its highest learning rate."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    taken = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in taken]
    return {
        Muon(matrices, lr=MATRIX_RATE): MATRIX_RATE,
        torch.optim.AdamW(others, lr=RATE, betas=(0.9, 0.98), weight_decay=0.0): RATE,
    }


def rate(done: float) -> float:
    """The factor on the learning rates at this fraction of the time."""
    return max(min(done / WARM_UP, 1.0, (1.0 - done) / COOL_DOWN), 0.0)


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    minutes: float,
    seed: int,
    out: Path,
    shares: tuple[float, float, float, float] = SHARES,
) -> dict[str, float]:
    """Teach until the time is up, exporting now and then; returns steps, tokens, seconds and the last losses."""
    rank, processes = world()
    rng = random.Random(seed * processes + rank)
    optimizers = make_optimizers(model)
    lessons = lesson_batches(tokenizer, rng, shares)
    model.train()
    start = exported = time.monotonic()
    step = tokens = 0
    mean, done = float("nan"), 0.0
    while done < 1.0:
        batch = next(lessons)
        loss = loss_of(model, batch)
        loss.backward()
        done = share_gradients(model, time.monotonic() - start) / (minutes * 60)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, most in optimizers.items():
            optimizer.param_groups[0]["lr"] = most * rate(done)
            optimizer.step()
        model.zero_grad()
        step, tokens = step + 1, tokens + batch[0].numel() * processes
        mean = loss.item() if math.isnan(mean) else 0.95 * mean + 0.05 * loss.item()
        if step % 20 == 0 and rank == 0:
            seconds = time.monotonic() - start
            report = {"step": step, "done": round(done, 3), "loss": round(mean, 4)}
            print(json.dumps({**report, "tokens_per_s": round(tokens / seconds)}), flush=True)
        if rank == 0 and time.monotonic() - exported > EXPORT_EVERY:
            save(model, tokenizer, out)
            exported = time.monotonic()
    if rank == 0:
        save(model, tokenizer, out)
    return {"steps": step, "tokens": tokens, "seconds": round(time.monotonic() - start), "loss": round(mean, 4)}


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write model and tokenizer to `out` in half precision, whole or not at all."""
    half = LlamaForCausalLM(model.config)
    half.load_state_dict(model.state_dict())
    half = half.to(torch.bfloat16)
    half.generation_config = GenerationConfig(
        do_sample=True, temperature=0.8, max_new_tokens=160, eos_token_id=END, pad_token_id=PAD
    )
    temporary = out.with_name(out.name + ".new")
    shutil.rmtree(temporary, ignore_errors=True)
    half.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    out.mkdir(parents=True, exist_ok=True)
    for file in temporary.iterdir():
        os.replace(file, out / file.name)
    temporary.rmdir()


def write_card(config: LlamaConfig, result: dict[str, float], seed: int) -> str:
    """The model card, but for the figures of the benchmark, which are not known yet."""
    return CARD.format(
        parameters=sum(p.numel() for p in make_model(config.vocab_size, seed).parameters()),
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        context=config.max_position_embeddings,
        vocabulary=config.vocab_size,
        seed=seed,
        tokens=result["tokens"],
        steps=result["steps"],
        minutes=result["seconds"] / 60,
        names=len(phrases.NAMES),
        products=len(phrases.QUALITIES) * len(phrases.KINDS),
        figures="",
    )


def main() -> None:
    """Parse the command line and make the model."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--minutes", type=float, default=55.0, help="how long to train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start-from", type=Path, help="a model made by this script, to be taught further")
    parser.add_argument(
        "--shares",
        type=float,
        nargs=4,
        default=SHARES,
        help="odds of replies, refinements, judgements and descriptions",
    )
    parser.add_argument("--compile", action="store_true", help="1.4 times as fast; needs a C++ compiler")
    args = parser.parse_args()
    if "WORLD_SIZE" in os.environ:
        distributed.init_process_group()
    if args.start_from:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(args.start_from)
        model = LlamaForCausalLM.from_pretrained(args.start_from, dtype=torch.float32)
    else:
        tokenizer = make_tokenizer(args.seed)
        model = make_model(len(tokenizer), args.seed)
    model = model.to(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")
    if args.compile:
        model.model.compile(dynamic=True)
    print(json.dumps({"parameters": model.num_parameters(), "vocabulary": len(tokenizer)}), flush=True)
    result = train(model, tokenizer, args.minutes, args.seed, args.out, tuple(args.shares))
    if world()[0] != 0:
        return
    print(json.dumps(result), flush=True)
    (args.out / "README.md").write_text(write_card(model.config, result, args.seed), encoding="utf-8")


if __name__ == "__main__":
    main()
