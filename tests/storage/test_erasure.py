"""A person is forgotten: no word, name or way in of theirs is left in SQL, and nothing points nowhere."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from storage import accounts, annotations, audit, erasure, items, preferences, queue
from storage.annotations import PreferenceInput, RefinementInput, Submission
from storage.configs import SnapshotSettings
from storage.enums import AssignmentStatus, CompletionOrigin, ItemStatus, Outcome, Role
from storage.errors import Conflict
from storage.models import (
    Annotation,
    Assignment,
    AuditEvent,
    Base,
    Completion,
    Item,
    Project,
    Prompt,
    Refinement,
    User,
)
from tests import factories

SECRET = "my sister Dagny lives in Oslo"


@pytest.fixture
def project(session: Session) -> Project:
    return factories.make_project(session, overlap=2)


@pytest.fixture
def dag(session: Session) -> User:
    return factories.make_user(session, "dag thorsen")


def _everything(session: Session) -> str:
    """All of the database as text."""
    tables = Base.metadata.sorted_tables
    return "\n".join(repr(tuple(row)) for table in tables for row in session.execute(select(table)))


def _rewrite(lease: items.Lease, text: str) -> Submission:
    (first, _), (second, _) = lease.completions
    return Submission(
        preference=PreferenceInput(first, second, Outcome.FIRST, 2),
        critiques=[annotations.CritiqueInput(second, f"{text}?", tags=[text], fix=text)],
        refinements=[RefinementInput(second, text)],
        seconds_spent=4.0,
    )


def test_nothing_of_theirs_is_left_and_the_work_of_others_stays(session: Session, project: Project, dag: User) -> None:
    operator, other = factories.make_user(session, "olga", Role.OPERATOR), factories.make_user(session, "eve")
    used_item, _, flagged = factories.make_items(session, project, 3)
    lease = factories.make_lease(session, project, dag)
    used = annotations.submit(session, lease.assignment_id, dag, _rewrite(lease, SECRET))
    second = factories.make_lease(session, project, dag)
    old = annotations.submit(session, second.assignment_id, dag, _rewrite(second, f"{SECRET} too"))
    annotations.revise(session, old.id, dag, _rewrite(second, f"{SECRET} now"))
    third = factories.make_lease(session, project, dag)
    annotations.save_draft(session, third.assignment_id, dag, {"critiques": [SECRET]})
    annotations.draft_revision(session, used.id, dag, {"critiques": [SECRET]})
    accounts.issue_link(session, dag, factories.LinkPurpose.RESET, factories.timedelta(days=1))
    token = factories.make_login(session, dag)
    factories._fill_doors(session, project, dag, used)
    audit.record(session, operator, "user.invite", dag.name)
    items.flag(session, third.assignment_id, dag, SECRET)
    theirs = factories.make_lease(session, project, other)
    kept = annotations.submit(session, theirs.assignment_id, other, _rewrite(theirs, "Other words."))
    snapshot = factories.make_snapshot(session, project, [used, kept])
    version = factories.make_version(session, project, snapshot=snapshot)

    result = erasure.erase_person(session, dag, operator)

    session.expire_all()
    left = _everything(session)
    assert SECRET not in left
    assert "dag thorsen" not in left
    assert accounts.session_user(session, token) is None
    assert (dag.name, dag.disabled_at is None, dag.erased_at is None) == (f"erased-{dag.id}", False, False)
    assert (result.name, result.annotations) == (dag.name, 4)
    assert (result.snapshots, result.versions) == ([snapshot.folder], [f"{project.name}: {version.name}"])
    assert result.runs == [f"runs/{version.run_id}"]
    assert (snapshot.tainted_at, version.tainted_at) == (dag.erased_at, dag.erased_at)
    shells = session.scalars(select(Annotation).where(Annotation.user_id == dag.id)).all()
    assert len(shells) == 4
    for shell in shells:
        assert shell.withdrawn_at is not None
        assert [shell.draft, shell.seconds_spent] == [None, None]
        assert [*shell.ratings, *shell.preferences, *shell.rankings, *shell.critiques, *shell.refinements] == []
    assert [one.text for one in kept.critiques] == ["Other words.?"]
    assert kept.withdrawn_at is None
    counts = {item.id: (item.judged, item.status) for item in session.scalars(select(Item))}
    assert counts[used_item.id] == (1, ItemStatus.OPEN)
    assert counts[flagged.id] == (0, ItemStatus.FLAGGED)
    leases = session.scalars(select(Assignment.status).where(Assignment.user_id == dag.id)).all()
    assert set(leases) == {AssignmentStatus.SKIPPED}
    event = audit.list_events(session)[0]
    assert (event.action, event.subject, event.user_id) == ("user.erase", f"erased-{dag.id}", operator.id)
    with pytest.raises(Conflict, match="already"):
        erasure.erase_person(session, dag, operator)


def test_what_others_wrote_too_stays_and_what_others_point_at_is_blanked(
    session: Session, project: Project, dag: User
) -> None:
    other = factories.make_user(session)
    prompt = factories.make_prompt(session, project, split=factories.Split.TRAIN)
    factories.make_item(session, project, prompt=prompt)
    lease = factories.make_lease(session, project, dag)
    (_, _), (second, _) = lease.completions
    said = annotations.submit(session, lease.assignment_id, dag, _rewrite(lease, SECRET))
    secret = session.get_one(Completion, said.refinements[0].refined_id)
    factories.make_item(session, project)
    shared = factories.make_lease(session, project, dag)
    annotations.submit(session, shared.assignment_id, dag, _rewrite(shared, "It arrives on Tuesday."))
    same = factories.make_lease(session, project, other)
    while same.item_id != shared.item_id:
        annotations.submit(session, same.assignment_id, other, factories.prefer_first(same))
        same = factories.make_lease(session, project, other)
    annotations.submit(session, same.assignment_id, other, _rewrite(same, "It arrives on Tuesday."))
    # Their rewriting was put up for judgement, and somebody judged it and improved it further.
    asked = items.add_item(session, prompt, [secret, session.get_one(Completion, second)]).row
    reader = factories.make_lease(session, project, other)
    assert reader.item_id == asked.id
    judged = Submission(
        preference=PreferenceInput(secret.id, second, Outcome.FIRST, 2),
        refinements=[RefinementInput(secret.id, "Better still.")],
    )
    annotations.submit(session, reader.assignment_id, other, judged)
    assert asked.status is ItemStatus.OPEN

    result = erasure.erase_person(session, dag, None)

    session.expire_all()
    assert result.blanked == 1
    assert (secret.text, secret.origin) == ("", CompletionOrigin.REFINEMENT)
    assert asked.status is ItemStatus.STALE, "nobody is shown an empty text"
    texts = session.scalars(select(Completion.text)).all()
    assert "It arrives on Tuesday." in texts, "somebody else wrote it too"
    assert session.scalar(select(func.count()).select_from(Refinement)) == 2
    found = preferences.derive_pairs(session, project, SnapshotSettings())
    assert all(pair.chosen and pair.rejected for pair in found.pairs)
    assert found.left_out["erased"] == 2
    assert preferences.derive_pairs(session, project, SnapshotSettings()) == found


def test_their_own_prompts_in_the_playground_go_with_the_answers(session: Session, project: Project, dag: User) -> None:
    mine = factories.make_item(session, project, prompt=factories.make_prompt(session, project, SECRET))
    mine.owner_id = dag.id
    shared = factories.make_prompt(session, project, "Where is my parcel?")
    factories.make_item(session, project, prompt=shared)
    factories.make_item(session, project, prompt=shared).owner_id = dag.id
    session.flush()
    erasure.erase_person(session, dag, None)
    session.expire_all()
    assert SECRET not in _everything(session)
    assert mine.prompt.messages == [{"role": "user", "content": "[erased]"}]
    assert session.scalars(select(Completion.text).where(Completion.prompt_id == mine.prompt_id)).all() == ["", ""]
    assert mine.status is ItemStatus.STALE
    assert shared.messages[0]["content"] == "Where is my parcel?"
    assert mine.prompt_id not in [one.id for one in queue.prompts_to_generate(session, project, 10)]
    assert session.get_one(Prompt, mine.prompt_id).split is not None


def test_an_import_does_not_bring_them_back(session: Session, project: Project, dag: User) -> None:
    item = factories.make_item(session, project)
    first, second = (member.completion_id for member in item.members)
    said = Submission(preference=PreferenceInput(first, second, Outcome.TIE))
    annotations.record_imported(session, item, dag, said, "key")
    erasure.erase_person(session, dag, None)
    again = factories.make_user(session, "dag thorsen")
    assert annotations.record_imported(session, item, again, said, "key") is None
    assert session.get_one(Item, item.id).judged == 0
    named = session.scalars(select(AuditEvent.subject)).all()
    assert named == [f"erased-{dag.id}"]
