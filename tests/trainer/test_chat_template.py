"""Templates that take no system message: what it says stands in front of the first user message."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tests.trainer.conftest import TEMPLATE
from trainer.datasets import tokenise_pairs
from trainer.policy import load_tokenizer

REFUSES = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + TEMPLATE
)
LEAVES_OUT = TEMPLATE.replace("in messages %}", "in messages if message.role != 'system' %}")


@pytest.mark.parametrize("template", [REFUSES, LEAVES_OUT])
def test_rules_reach_a_model_without_a_system_role(tiny_base: Path, tmp_path: Path, template: str) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    plain = AutoTokenizer.from_pretrained(base)
    plain.chat_template = template
    plain.save_pretrained(base)
    tokenizer = load_tokenizer(str(base))

    def said(messages: list[dict[str, str]]) -> str:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return text

    system, user = {"role": "system", "content": "No thanks."}, {"role": "user", "content": "late"}
    assert said([system, user]) == "<|user|>No thanks.\n\nlate<|end|><|assistant|>"
    assert said([system, {"role": "assistant", "content": "sorry"}]).startswith(
        "<|user|>No thanks.<|end|><|assistant|>"
    )
    assert said([user]) == plain.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
    # Training reads what writing reads.
    sides = {side: [{"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    pair = tokenise_pairs(tokenizer, [{"prompt": [system, user], **sides}], 256)[0]
    assert not isinstance(pair, str)
    assert tokenizer.decode(pair.prompt) == said([system, user])


def test_a_template_that_takes_it_stays_as_it_is(tiny_base: Path) -> None:
    assert load_tokenizer(str(tiny_base)).chat_template == TEMPLATE
