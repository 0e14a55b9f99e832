"""Chat templates that take no system message: rules, and system prompts of people's own, reach the model all the same.

Such a template refuses a system message (Gemma's, Mistral's first ones) or leaves it out without a word. It is given a
first line that puts the system message in front of the first user message, so that everything that renders with the
tokenizer, to train, to write, to score, reads the same.
"""

from __future__ import annotations

from typing import Any

import jinja2

_MARK = "a3f1c7"
_IN_FRONT = (
    "{%- if messages and messages[0]['role'] == 'system' -%}"
    "{%- set told = messages[0]['content'] -%}{%- set messages = messages[1:] -%}"
    "{%- if messages and messages[0]['role'] == 'user' -%}"
    "{%- set told = told + '\n\n' + messages[0]['content'] -%}{%- set messages = messages[1:] -%}"
    "{%- endif -%}"
    "{%- set messages = [{'role': 'user', 'content': told}] + messages -%}"
    "{%- endif -%}"
)


def takes_system(tokenizer: Any) -> bool:
    """Whether a system message reaches the model."""
    asked = [{"role": "system", "content": _MARK}, {"role": "user", "content": "Hello"}]
    try:
        return _MARK in tokenizer.apply_chat_template(asked, tokenize=False)
    except jinja2.TemplateError:
        return False


def with_system(tokenizer: Any) -> Any:
    """The tokenizer, which takes system messages from now on whatever its template says."""
    if isinstance(tokenizer.chat_template, str) and not takes_system(tokenizer):
        tokenizer.chat_template = _IN_FRONT + tokenizer.chat_template
    return tokenizer
