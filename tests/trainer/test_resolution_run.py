"""The run after a promotion: it writes for the criticised prompts alone, and its completions become questions."""

from __future__ import annotations

import json
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage import annotations, registry, resolution
from storage.annotations import CritiqueInput, Submission
from storage.enums import ItemKind, ItemStatus
from storage.models import Item, Resolution
from tests import factories
from trainer.bridge import enter_completions, lay_out
from trainer.place import Place


def test_completions_of_the_run_become_questions_to_the_authors(session: Session, home: Path) -> None:
    project, user = factories.make_project(session), factories.make_user(session)
    base = registry.base_version(session, project, "starter")
    criticised = factories.make_item(session, project, version=base)
    factories.make_item(session, project, version=base)
    lease = factories.make_lease(session, project, user)
    said = CritiqueInput(lease.completions[0][0], "Not like this.")
    annotations.submit(session, lease.assignment_id, user, Submission(critiques=[said]))
    version = factories.make_version(session, project)
    registry.promote(session, version, None, "better")
    version.folder = None  # the base model's own weights will do: no adapter is needed to write requests
    session.flush()
    run = resolution.queue_answers(session, project)
    assert run is not None

    folder = lay_out(session, run, Place(home, "starter", "cpu"))

    rows = [json.loads(line) for line in folder.requests.read_text().splitlines()]
    assert [(row["prompt_id"], row["versions"]) for row in rows] == [(criticised.prompt_id, [version.name])]
    folder.out.mkdir()
    written = {"prompt_id": criticised.prompt_id, "version": version.name, "text": "Kindly.", "token_count": 3,
               "mean_logprob": -0.1, "latency_ms": 1.0, "seed": 0, "scores": {}}  # fmt: skip
    (folder.out / "completions.jsonl").write_text(json.dumps(written) + "\n")
    assert enter_completions(session, run, folder, {})["items"] == 1
    row = session.scalars(select(Resolution)).one()
    item = session.get_one(Item, row.item_id)
    assert (item.kind, item.status, item.owner_id) == (ItemKind.RESOLUTION, ItemStatus.OWN, user.id)
    assert (row.version_id, row.verdict) == (version.id, None)
