"""Model versions: numbers, the champion, its history, and what everything rests on."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from storage import audit, registry, runs
from storage.enums import ItemStatus, ModelKind, RunKind, RunStatus, VersionStatus
from storage.errors import Conflict, Invalid, NotFound
from storage.models import Item, ModelVersion, Project, Promotion, User
from tests import factories


@pytest.fixture
def project(session: Session) -> Project:
    return factories.make_project(session)


@pytest.fixture
def olga(session: Session) -> User:
    return factories.make_user(session, "olga")


def statuses(session: Session, project: Project) -> dict[str, VersionStatus]:
    session.expire_all()
    return {version.name: version.status for version in registry.list_versions(session, project)}


def test_the_base_model_is_the_first_champion(session: Session, project: Project) -> None:
    assert registry.champion(session, project) is None
    base = registry.base_version(session, project, "starter")
    assert (base.name, base.base_model, base.folder) == ("policy-v0", "starter", None)
    assert registry.champion(session, project) is base
    assert registry.base_version(session, project, "starter") is base
    own = factories.make_project(session, base_model="some/model")
    assert registry.base_version(session, own, "starter").base_model == "some/model"


def test_another_base_model_takes_over_only_while_nothing_trained_serves(
    session: Session, project: Project, olga: User
) -> None:
    registry.base_version(session, project, "starter")
    second = registry.base_version(session, project, "other")
    assert statuses(session, project) == {"policy-v0": VersionStatus.RETIRED, "policy-v1": VersionStatus.CHAMPION}
    assert second.base_model == "other"
    trained = factories.make_version(session, project)
    registry.promote(session, trained, olga, "better")
    third = registry.base_version(session, project, "third")
    assert third.status is VersionStatus.CANDIDATE
    assert registry.champion(session, project) is trained


def test_versions_are_numbered_per_kind_and_a_run_has_one(session: Session, project: Project) -> None:
    names = [factories.make_version(session, project, kind).name for kind in (*ModelKind, *ModelKind)]
    assert names == ["policy-v1", "reward-v1", "policy-v2", "reward-v2"]
    version = registry.get_version(session, project, "policy-v2")
    run = runs.get_run(session, version.run_id or 0)
    again = registry.register_version(session, run, ModelKind.POLICY, "elsewhere", "1" * 64, {}, "starter")
    assert again is version
    assert registry.newest_candidate(session, project) is version
    assert registry.newest_candidate(session, project, ModelKind.REWARD) == registry.get_version(
        session, project, "reward-v2"
    )


@pytest.mark.parametrize("name", ["policy-v9", "policy", "3", "judge-v1", "policy-v", "policy-vx", ""])
def test_an_unknown_version_names_the_known(session: Session, project: Project, name: str) -> None:
    registry.base_version(session, project, "starter")
    with pytest.raises(NotFound, match="versions: policy-v0"):
        registry.get_version(session, project, name)


def test_promotion_and_roll_back_walk_one_history(session: Session, project: Project, olga: User) -> None:
    first, second = factories.make_version(session, project), factories.make_version(session, project)
    registry.promote(session, first, olga, "better tone")
    registry.promote(session, second, olga, "better still")
    with pytest.raises(Conflict, match="champion already"):
        registry.promote(session, second, olga)
    assert registry.roll_back(session, project, olga, reason="worse on refunds") is first
    assert registry.roll_back(session, project, olga).name == "policy-v0"
    with pytest.raises(Conflict, match="nothing to roll back"):
        registry.roll_back(session, project, olga)
    assert statuses(session, project) == {
        "policy-v2": VersionStatus.RETIRED, "policy-v1": VersionStatus.RETIRED, "policy-v0": VersionStatus.CHAMPION,
    }  # fmt: skip
    registry.promote(session, second, olga, "after all")
    assert registry.roll_back(session, project, olga).name == "policy-v0"
    history = session.scalars(select(Promotion)).all()
    assert all(promotion.rolled_back_at is not None for promotion in history)
    actions = [event.action for event in reversed(audit.list_events(session, project)) if "model" in event.action]
    assert actions[2:] == [
        "model.promote", "model.promote", "model.rollback", "model.rollback", "model.promote", "model.rollback",
    ]  # fmt: skip


def test_reward_models_have_a_champion_of_their_own(session: Session, project: Project, olga: User) -> None:
    policy, reward = (factories.make_version(session, project, kind) for kind in ModelKind)
    registry.promote(session, policy, olga, "the first")
    registry.promote(session, reward, olga, "the first")
    assert registry.champion(session, project) is policy
    assert registry.champion(session, project, ModelKind.REWARD) is reward
    with pytest.raises(Conflict, match="no reward model"):
        registry.roll_back(session, project, olga, ModelKind.REWARD)


def test_promotion_sets_unjudged_items_of_the_old_policy_aside(session: Session, project: Project, olga: User) -> None:
    base = registry.base_version(session, project, "starter")
    item = factories.make_item(session, project, version=base)
    reward = factories.make_version(session, project, ModelKind.REWARD)
    registry.promote(session, reward, olga, "the first")
    assert session.get_one(Item, item.id, populate_existing=True).status is ItemStatus.OPEN
    registry.promote(session, factories.make_version(session, project), olga, "better")
    assert session.get_one(Item, item.id, populate_existing=True).status is ItemStatus.STALE


def test_what_is_in_service_or_rejected_is_protected(session: Session, project: Project, olga: User) -> None:
    version = factories.make_version(session, project)
    registry.promote(session, version, olga, "better")
    for close in (registry.retire, registry.reject):
        with pytest.raises(Conflict, match="in service"):
            close(session, version, olga)
    base = registry.get_version(session, project, "policy-v0")
    with pytest.raises(Invalid, match="base model"):
        registry.reject(session, base, olga)
    bad = factories.make_version(session, project)
    registry.reject(session, bad, olga, "rude")
    with pytest.raises(Conflict, match="rejected"):
        registry.promote(session, bad, olga)
    assert registry.newest_candidate(session, project) is None


def test_before_and_after_on_the_same_prompts(session: Session, project: Project) -> None:
    old, new = (factories.make_version(session, project) for _ in range(2))
    prompts = [factories.make_prompt(session, project) for _ in range(3)]
    for version, where in ((old, prompts), (old, prompts), (new, prompts[1:])):
        for prompt in where:
            factories.make_completion(session, prompt, model_version_id=version.id)
    found = registry.before_after(session, project, old, new, limit=10)
    assert [pair.prompt_messages for pair in found] == [p.messages for p in reversed(prompts[1:])]
    texts = {c.text: c.model_version_id for p in prompts for c in p.completions}
    assert all((texts[pair.old_text], texts[pair.new_text]) == (old.id, new.id) for pair in found)
    assert len(registry.before_after(session, project, old, new, limit=1)) == 1
    assert registry.before_after(session, project, new, new, limit=0) == []


def test_many_registrations_at_once_get_different_numbers(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        project = factories.make_project(session)
        made = []
        for _ in range(4):
            made.append(factories.make_run(session, project, RunKind.DPO, worker="w"))
            runs.finish_run(session, made[-1].id, "w", RunStatus.SUCCEEDED)
    failures: list[BaseException] = []

    def register(number: int) -> None:
        try:
            with sessions.begin() as session:
                registry.base_version(session, project, "starter")
                version = registry.register_version(
                    session, made[number], ModelKind.POLICY, f"folder {number}", "0" * 64, {}, "starter"
                )
                registry.promote(session, version, None, "the newest")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=register, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with sessions() as session:
        versions = session.scalars(select(ModelVersion)).all()
        assert sorted(version.number for version in versions) == [0, 1, 2, 3, 4]
        assert sum(version.status is VersionStatus.CHAMPION for version in versions) == 1
