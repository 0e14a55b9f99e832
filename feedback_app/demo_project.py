"""The project to try things on: customer care, with prompts that the starter model understands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.models import Project
from storage.projects import CriterionSpec, create_project, find_project
from storage.prompts import add_prompt

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.orm import Session

    from trainer.starter.facets import Request

DEMO_PROJECT = "customer-care"
DEMO_PROMPTS = 400
SOURCE = "demo"
GUIDELINES = """\
**You judge replies to customers of a web shop.** Two replies to the same message stand side by side.

1. **Which one would you rather send?** Say how clear it is; *tie* when they are equally good, *both bad* when
   neither may leave the house.
2. **Rate** each one by its criteria, if you like.
3. **Say what is wrong** in your own words: *"You called her by the wrong name."*, *"Give a date."* One thing at a time
   helps most.
4. **Rewrite** a reply when you know how it should read; what you write is used for training.

A good reply greets by the right name, gets order and product right, says what happens and by when, and is kind without
rambling. Keys: **1** left, **2** right, **3** tie, **4** both bad, **ctrl + enter** submits.
"""
CRITERIA = (
    CriterionSpec("quality", "Overall: would you send this as it stands?"),
    CriterionSpec("correctness", "Name, order number, product and days are right."),
    CriterionSpec("tone", "Kind and fitting, neither curt nor gushing."),
)


def ensure_demo_project(session: Session) -> Project:
    """The demo project, made with its prompts when it is not there yet."""
    from trainer.starter.grammar import sample_prompts

    found = find_project(session, DEMO_PROJECT)
    return found or make_demo_project(session, sample_prompts(DEMO_PROMPTS, seed=0, held_out=False))


def make_demo_project(
    session: Session, requests: Iterable[Request], *, overlap: int = 1, queue_target: int = 20
) -> Project:
    """Create the demo project with these customer messages as prompts."""
    project = create_project(
        session,
        DEMO_PROJECT,
        guidelines=GUIDELINES,
        criteria=CRITERIA,
        overlap=overlap,
        queue_target=queue_target,
    )
    add_requests(session, project, requests)
    return project


def add_requests(session: Session, project: Project, requests: Iterable[Request], source: str = SOURCE) -> None:
    """Add customer messages as prompts; those that are there already are left alone."""
    for request in requests:
        messages = [{"role": message["role"], "content": message["content"]} for message in request.messages]
        add_prompt(session, project, messages, source)
