"""What browser tests of the annotate page share."""

from __future__ import annotations

import time
from contextlib import contextmanager

from sqlalchemy import select

from storage.enums import AnnotationStatus
from storage.models import Annotation
from tests import factories

ITEM = '#fb-stage[data-state="item"]'


def annotation_of(house, name, status=AnnotationStatus.SUBMITTED):
    """The person's newest annotation, or None."""
    with house.sessions() as session:
        user = factories.accounts.get_user(session, name)
        query = select(Annotation).where(Annotation.user_id == user.id, Annotation.status == status)
        row = session.scalars(query.order_by(Annotation.id.desc())).first()
        if row is not None:
            _ = (row.ratings, row.preferences, row.critiques, row.refinements, row.rankings)
        return row


def wait_for(condition, seconds=60):
    """Wait until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


DRAWN = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
# Counts what Gradio's queue was asked and has answered; must run before the page's own scripts.
COUNT_ANSWERS = """(() => {
  const plain = window.fetch;
  window.queue = { asked: 0, answered: 0 };
  const count = async (body) => {
    for await (const text of body.pipeThrough(new TextDecoderStream())) {
      window.queue.answered += text.split('"process_completed"').length - 1;
    }
  };
  window.fetch = async (...args) => {
    const url = String(args[0].url ?? args[0]);
    if (url.includes("/queue/join")) window.queue.asked += 1;
    const response = await plain(...args);
    if (url.includes("/queue/data")) count(response.clone().body);
    return response;
  };
})();"""


@contextmanager
def until_answered(page):
    """Until the queue has answered all, also what is pressed within: a button that is pressed again before does
    nothing, and the answer may fill fields again. The page was opened with `COUNT_ANSWERS`."""
    before = page.evaluate("window.queue.asked")
    yield
    page.wait_for_function("before => queue.asked > before && queue.answered >= queue.asked", arg=before)
    page.evaluate(DRAWN)


def url_of(project, page="annotate"):
    """The address of a page for a project."""
    return f"/{page}/?project={project.replace(' ', '%20')}"


def next_item(page):
    """Wait until another item than the present one is shown."""
    shown = page.get_attribute("#fb-stage", "data-assignment")
    return lambda: page.wait_for_function(
        "was => document.getElementById('fb-stage').dataset.assignment !== was", arg=shown
    )
