"""The starter's tokenizer and chat template, and a lesson as token ids.

Byte-level BPE, so that any UTF-8 text can be read; every digit is a token of its own, so that numbers are copied
digit by digit.
"""

from __future__ import annotations

import random

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from trainer.starter.lessons import Lesson, write_lesson

SPECIAL = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
PAD, END = 0, 1
VOCABULARY = 1536
NEWLINE = "Ċ"
"""How byte-level tokens write a line feed; a reply's greeting ends with one."""
COPIED = 3.0
"""How much more a reply's digits and greetings weigh than its other tokens: they are few, and must be right.

Not a greeting's first token: its weight would bias the choice to greet at all."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('unknown role: ' + message.role) }}{% endif %}"
    "{{ '<|' + message.role + '|>' }}"
    "{% if message.role == 'assistant' %}"
    "{% generation %}{{ message.content + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ message.content + '<|end|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""A role token, the content, an end token; no white space, so that every prefix of turns is a prefix of the text."""


def make_tokenizer(seed: int, lessons: int = 6000) -> PreTrainedTokenizerFast:
    """A tokenizer trained on lessons of all three tasks."""
    rng = random.Random(seed)
    corpus = [turn.content for _ in range(lessons) for turn in write_lesson(rng, (0.5, 0.25, 0.25, 0.0))]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL[PAD],
        eos_token=SPECIAL[END],
        chat_template=CHAT_TEMPLATE,
        model_max_length=2048,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def encode_lesson(tokenizer: PreTrainedTokenizerFast, lesson: Lesson) -> tuple[list[int], list[float]]:
    """Token ids as the chat template writes them, and each token's weight as a target (its content and end token)."""
    digits = set(tokenizer.convert_tokens_to_ids(list("0123456789")))
    newline = tokenizer.convert_tokens_to_ids(NEWLINE)
    ids: list[int] = []
    weights: list[float] = []
    for turn, content in zip(lesson, _content_ids(tokenizer, lesson), strict=True):
        ids += [tokenizer.convert_tokens_to_ids(f"<|{turn.role}|>"), *content, END]
        line = content.index(newline) if newline in content else 0
        copied = COPIED if turn.role == "assistant" else 1.0
        dear = [copied if 0 < at < line or token in digits else 1.0 for at, token in enumerate(content)]
        weights += [0.0, *(turn.weight * factor for factor in dear), turn.weight]
    return ids, weights


def _content_ids(tokenizer: PreTrainedTokenizerFast, lesson: Lesson) -> list[list[int]]:
    encodings = tokenizer.backend_tokenizer.encode_batch([turn.content for turn in lesson])
    return [encoding.ids for encoding in encodings]
