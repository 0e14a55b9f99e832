"""Under which feedback a conditional policy writes: a small file beside its adapter tells whoever loads it."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from storage.errors import ModelUnusable
from storage.models import Message
from trainer.templates import condition_messages

FILE = "conditional.json"


class Condition(BaseModel):
    """The template that puts feedback into a prompt, and the feedback to write under."""

    model_config = ConfigDict(frozen=True)

    template: str
    feedback: str

    def put_into(self, messages: list[Message]) -> list[Message]:
        """The prompt as this policy is asked."""
        worded = condition_messages(messages, self.feedback, self.template)
        return [{"role": message["role"], "content": message["content"]} for message in worded]


def write_condition(folder: Path, condition: Condition) -> None:
    """Put the condition beside the adapter in `folder`."""
    (folder / FILE).write_text(condition.model_dump_json(indent=1), "utf-8")


def read_condition(folder: Path) -> Condition | None:
    """The condition of the adapter in `folder`; None for one that is not conditional."""
    try:
        return Condition.model_validate(json.loads((folder / FILE).read_text("utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, ValidationError) as error:
        mend = "restore the folder from a backup, or promote another version"
        raise ModelUnusable(f"{folder / FILE} cannot be read; {mend}") from error
