"""A start that can copy: heads of the first two layers are set up as an induction circuit before any training.

A small model finds out how to repeat a name or a number from its context only after millions of tokens, suddenly.
Here it need not: two heads of layer 0 look at the token before and write it into the upper half of the residual
stream; two heads of layer 1 look for the place whose token before is the present token, and predict what stood there
(Olsson et al., "In-context Learning and Induction Heads", arXiv 2209.11895). All weights stay free to change.
"""

from __future__ import annotations

import torch
from transformers import LlamaForCausalLM

HEADS = 2
"""Heads of each of the two layers that are set up; each carries half of the token's 128 dimensions."""
EMBEDDING_STD = 0.05
CONSTANT = 0.24
"""Component 0 of every embedding, so that a head can look at a fixed distance whatever the tokens are."""
LOOK_BACK = 1.3
"""Sharpness of the look at the token before."""
FAST_PAIRS = 8
"""How many of the fastest rotary pairs that look uses: they tell one step from another."""
MATCH = 3.0
"""Sharpness of the match between present and earlier tokens."""
GAIN = 8.0
"""How loudly the copied token is written, beside the present one."""


@torch.no_grad()
def start_with_copying(model: LlamaForCausalLM) -> None:
    """Set the circuit up in a fresh model with head size `hidden/4`: 4 heads, 2 of them taken in layers 0 and 1."""
    half = model.config.hidden_size // 2
    size = model.config.hidden_size // model.config.num_attention_heads
    embeddings = model.model.embed_tokens.weight
    embeddings.normal_(std=EMBEDDING_STD)
    embeddings[:, half:] = 0
    embeddings[:, 0] = CONSTANT
    _look_back(model, size, half)
    _match(model, size, half)


def _look_back(model: LlamaForCausalLM, size: int, half: int) -> None:
    """Layer 0: query and key are constant but for a turn of one step, so that the score peaks one token back."""
    attention = model.model.layers[0].self_attn
    pairs = size // 2
    angles = model.config.rope_parameters["rope_theta"] ** (-torch.arange(pairs) / pairs)
    for head in range(HEADS):
        rows = slice(head * size, (head + 1) * size)
        query, key = torch.zeros(size, 2 * half), torch.zeros(size, 2 * half)
        query[:FAST_PAIRS, 0] = LOOK_BACK
        key[:FAST_PAIRS, 0] = LOOK_BACK * torch.cos(angles[:FAST_PAIRS])
        key[pairs : pairs + FAST_PAIRS, 0] = LOOK_BACK * torch.sin(angles[:FAST_PAIRS])
        attention.q_proj.weight[rows], attention.k_proj.weight[rows] = query, key
        _carry(attention, rows, read=slice(head * size, (head + 1) * size), write_from=half, gain=1.0)


def _match(model: LlamaForCausalLM, size: int, half: int) -> None:
    """Layer 1: the query shows the present token, the key the token before; both through one random projection.

    Only the slower half of the rotary pairs is used: they hardly turn within a few hundred tokens.
    """
    attention = model.model.layers[1].self_attn
    slow = [index for index in range(size) if index % (size // 2) >= size // 4]
    for head in range(HEADS):
        rows = slice(head * size, (head + 1) * size)
        projection = torch.linalg.qr(torch.randn(half - 1, len(slow))).Q.T * MATCH
        query, key = torch.zeros(size, 2 * half), torch.zeros(size, 2 * half)
        query[slow, 1:half] = projection
        key[slow, half + 1 :] = projection
        attention.q_proj.weight[rows], attention.k_proj.weight[rows] = query, key
        _carry(attention, rows, read=slice(head * size, (head + 1) * size), write_from=0, gain=GAIN)


def _carry(attention: torch.nn.Module, rows: slice, read: slice, write_from: int, gain: float) -> None:
    """Let a head carry the dimensions `read` of what it sees to as many from `write_from + read.start` on."""
    width = read.stop - read.start
    value = torch.zeros(width, attention.v_proj.weight.shape[1])
    value[:, read] = torch.eye(width)
    output = torch.zeros(attention.o_proj.weight.shape[0], width)
    output[write_from + read.start : write_from + read.stop] = torch.eye(width) * gain * EMBEDDING_STD
    attention.v_proj.weight[rows], attention.o_proj.weight[:, rows] = value, output
