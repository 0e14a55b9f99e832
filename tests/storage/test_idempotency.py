"""Answers kept under idempotency keys."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from storage import idempotency, tokens
from storage.enums import Role
from storage.errors import Invalid
from storage.ingest.bulk import look_up_pairs
from storage.models import ApiRequest, Completion, utc_now
from tests import factories


def token_of(session, name="t"):
    user = factories.make_user(session, role=Role.OPERATOR)
    return tokens.create_token(session, user, name, ["write"], lifetime=None).row.id


def test_the_same_request_finds_its_answer_and_another_is_refused(session):
    one, two = token_of(session), token_of(session)
    assert idempotency.begin_request(session, one, "k", "hash") is None
    idempotency.keep_answer(session, one, "k", 200, {"stored": 1})
    assert idempotency.begin_request(session, one, "k", "hash") == (200, {"stored": 1})
    assert idempotency.begin_request(session, two, "k", "other") is None
    with pytest.raises(Invalid, match="another request"):
        idempotency.begin_request(session, one, "k", "other")


@pytest.mark.parametrize("key", ["", "x" * 121, "é", "a\nb"])
def test_keys_that_are_none(session, key):
    with pytest.raises(Invalid, match="Idempotency-Key"):
        idempotency.begin_request(session, token_of(session), key, "hash")


def test_a_week_later_the_key_is_free(session):
    token = token_of(session)
    idempotency.begin_request(session, token, "k", "hash")
    idempotency.sweep_requests(session, now=utc_now() + timedelta(days=6))
    assert session.scalar(select(func.count()).select_from(ApiRequest)) == 1
    idempotency.sweep_requests(session, now=utc_now() + timedelta(days=8))
    assert idempotency.begin_request(session, token, "k", "other") is None


def test_of_two_at_once_one_works_and_the_other_gets_its_answer(sessions):
    with sessions.begin() as session:
        token = token_of(session)
    began, go, got = threading.Event(), threading.Event(), []

    def first():
        with sessions.begin() as session:
            got.append(idempotency.begin_request(session, token, "k", "hash"))
            began.set()
            go.wait(30)
            idempotency.keep_answer(session, token, "k", 200, {"by": "first"})

    def second():
        began.wait(30)
        threading.Timer(0.2, go.set).start()
        with sessions.begin() as session:
            got.append(idempotency.begin_request(session, token, "k", "hash"))

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert got == [None, (200, {"by": "first"})]


def test_a_request_that_failed_leaves_the_key_free(sessions):
    with sessions.begin() as session:
        token = token_of(session)
    with sessions() as session:  # closed without a commit, as when the work fails
        idempotency.begin_request(session, token, "k", "hash")
    with sessions.begin() as session:
        assert idempotency.begin_request(session, token, "k", "other") is None


def test_answers_to_several_are_found_by_token_and_key_together(session):
    one, two = token_of(session), token_of(session)
    stored = {idempotency.Keyed(one, "a", "hash"): {"n": 1}, idempotency.Keyed(two, "b", "hash"): {"n": 2}}
    idempotency.keep_answers(session, stored)
    crossed = [idempotency.Keyed(one, "b", "other"), idempotency.Keyed(two, "a", "other")]
    assert idempotency.kept_answers(session, [*stored, *crossed]) == {key: (200, said) for key, said in stored.items()}
    with pytest.raises(Invalid, match="another request"):
        idempotency.kept_answers(session, [idempotency.Keyed(one, "a", "other")])


def test_completions_are_looked_up_by_prompt_and_text_together(session):
    project = factories.make_project(session)
    first, second = (factories.make_completion(session, factories.make_prompt(session, project)) for _ in "ab")
    key = Completion.prompt_id, Completion.content_hash
    crossed = [(first.prompt_id, second.content_hash), (second.prompt_id, first.content_hash)]
    wanted = [(first.prompt_id, first.content_hash), *crossed]
    found = look_up_pairs(session, select(*key, Completion.id), key, wanted)
    assert found == {(first.prompt_id, first.content_hash): first.id}
