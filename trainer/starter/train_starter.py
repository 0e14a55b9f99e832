"""The script that made the starter: tokenizer, chat template, model, three tasks, saved as one folder.

    python -m trainer.starter.train_starter --out DIR [--minutes 55] [--seed 0] [--start-from DIR]

Seeded; how far it gets depends on the time it is given, for the learning rate follows the clock. A usable model is
written to DIR every few minutes. Runs on CUDA when there is some, else on the CPU (two cores are enough).
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
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from trainer.starter.lessons import write_lesson
from trainer.starter.muon import Muon
from trainer.starter.tokens import END, PAD, encode_lesson, make_tokenizer

TOKENS_PER_STEP = 8192
POOL = 768
"""Lessons sorted by length together, so that a batch wastes little on padding."""
SHARES = (0.25, 0.40, 0.35)
"""Replies, refinements, judgements."""
MUON_RATE, ADAM_RATE = 0.02, 3e-3
WARM_UP, COOL_DOWN = 0.02, 0.5
"""Fractions of the time in which the learning rate rises at the start and falls to nothing at the end."""
COPY_ONLY, COPY_SOMETIMES, COPY_EVERY = 0.08, 0.6, 6
"""Random tokens written twice: every batch at first, then every sixth. This is what makes copying appear."""
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
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=END,
        pad_token_id=PAD,
    )
    return LlamaForCausalLM(config)


def lesson_batches(tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> Iterator[Batch]:
    """Batches of lessons without end, each of about TOKENS_PER_STEP tokens with its padding."""
    while True:
        pool = [encode_lesson(tokenizer, write_lesson(rng, SHARES)) for _ in range(POOL)]
        pool.sort(key=lambda lesson: len(lesson[0]))
        batches: list[list[tuple[list[int], list[float]]]] = [[]]
        for lesson in pool:
            if len(lesson[0]) * (len(batches[-1]) + 1) > TOKENS_PER_STEP:
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


def copy_batch(vocabulary: int, rng: random.Random) -> Batch:
    """Random tokens written twice in a row; only the second time counts."""
    length = rng.randrange(12, 64)
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    once = torch.randint(5, vocabulary, (TOKENS_PER_STEP // (2 * length), length), generator=generator)
    return torch.cat([once, once], 1), torch.cat([torch.zeros(once.shape), torch.ones(once.shape)], 1)


def loss_of(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Weighted cross-entropy of the tokens that count; logits are made for those only, as they are dear."""
    ids, weights = (tensor.to(model.device) for tensor in batch)
    # No attention mask: padding stands on the right, where causal attention never looks.
    hidden = model.model(ids[:, :-1], use_cache=False).last_hidden_state
    counts = weights[:, 1:] > 0
    losses = functional.cross_entropy(model.lm_head(hidden[counts]), ids[:, 1:][counts], reduction="none")
    chosen = weights[:, 1:][counts]
    return (losses * chosen).sum() / chosen.sum()


def make_optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embeddings and norms; half the steps of AdamW alone."""
    inside = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    outside = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        Muon(inside, lr=MUON_RATE),
        torch.optim.AdamW(outside, lr=ADAM_RATE, weight_decay=0.0, betas=(0.9, 0.98)),
    ]


def rate(done: float) -> float:
    """The factor on the learning rates at this fraction of the time."""
    return max(min(done / WARM_UP, 1.0, (1.0 - done) / COOL_DOWN), 0.0)


def train(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, minutes: float, seed: int, out: Path, *, fresh: bool
) -> dict[str, float]:
    """Teach until the time is up, exporting now and then; returns steps, tokens, seconds and the last losses."""
    rng = random.Random(seed)
    optimizers = make_optimizers(model)
    bases = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    lessons = lesson_batches(tokenizer, rng)
    model.train()
    start = exported = time.monotonic()
    step = tokens = 0
    mean = float("nan")
    while (done := (time.monotonic() - start) / (minutes * 60)) < 1.0:
        copying = fresh and (done < COPY_ONLY or (done < COPY_SOMETIMES and step % COPY_EVERY == 0))
        batch = copy_batch(model.config.vocab_size, rng) if copying else next(lessons)
        loss = loss_of(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, base in zip(optimizers, bases, strict=True):
            for group, rate_at_full in zip(optimizer.param_groups, base, strict=True):
                group["lr"] = rate_at_full * rate(done)
            optimizer.step()
            optimizer.zero_grad()
        step, tokens = step + 1, tokens + batch[0].numel()
        if not copying:
            mean = loss.item() if math.isnan(mean) else 0.95 * mean + 0.05 * loss.item()
        if step % 20 == 0:
            seconds = time.monotonic() - start
            report = {"step": step, "done": round(done, 3), "loss": round(mean, 4), "last": round(loss.item(), 4)}
            print(json.dumps({**report, "tokens_per_s": round(tokens / seconds)}), flush=True)
        if time.monotonic() - exported > EXPORT_EVERY:
            save(model, tokenizer, out)
            exported = time.monotonic()
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


def main() -> None:
    """Parse the command line and make the model."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--minutes", type=float, default=55.0, help="how long to train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start-from", type=Path, help="a model made by this script, to be taught further")
    parser.add_argument("--compile", action="store_true", help="1.4 times as fast; needs a C++ compiler")
    args = parser.parse_args()
    if args.start_from:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(args.start_from)
        model = LlamaForCausalLM.from_pretrained(args.start_from, dtype=torch.float32)
    else:
        tokenizer = make_tokenizer(args.seed)
        model = make_model(len(tokenizer), args.seed)
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    fresh = args.start_from is None
    if args.compile:
        model.model.compile(dynamic=True)
    print(json.dumps({"parameters": model.num_parameters(), "vocabulary": len(tokenizer)}), flush=True)
    print(json.dumps(train(model, tokenizer, args.minutes, args.seed, args.out, fresh=fresh)), flush=True)


if __name__ == "__main__":
    main()
