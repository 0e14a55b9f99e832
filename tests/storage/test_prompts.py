"""Prompts and completions: stored once, and a split that never changes."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.engine import make_engine, make_sessions
from storage.enums import CompletionOrigin, Split
from storage.errors import Invalid
from storage.models import Completion, Message, Prompt
from storage.prompts import add_completion, add_prompt, content_hash, split_of, storable
from tests import factories

ASK: list[Message] = [{"role": "user", "content": "Where is my parcel?"}]


def test_the_hash_and_split_of_a_prompt_are_fixed_for_ever() -> None:
    # Values, not formulas: a change of the canonical form would move test prompts into the training data.
    assert content_hash(ASK) == "455af672cc14375ea695441bedbde2bf60605c40073ceb617dca7938192ab93d"
    assert split_of("00000000ff") is Split.TRAIN
    assert split_of(f"{79:08x}") is Split.TRAIN
    assert split_of(f"{80:08x}") is Split.VALIDATION
    assert split_of(f"{89:08x}") is Split.VALIDATION
    assert split_of(f"{90:08x}") is Split.TEST
    assert split_of(f"{199:08x}") is Split.TEST


def test_splits_have_their_shares() -> None:
    found = Counter(split_of(content_hash([{"role": "user", "content": str(n)}])) for n in range(5000))
    assert found[Split.TRAIN] == pytest.approx(4000, rel=0.03)
    assert found[Split.VALIDATION] == pytest.approx(500, rel=0.15)
    assert found[Split.TEST] == pytest.approx(500, rel=0.15)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["system", "user"]), st.text()), min_size=1, max_size=3))
def test_only_roles_and_contents_count(turns: list[tuple[str, str]]) -> None:
    messages = [{"role": role, "content": content} for role, content in turns]
    shuffled = [{"content": m["content"], "role": m["role"]} for m in messages]
    assert content_hash(messages) == content_hash(shuffled)
    assert content_hash([*messages, {"role": "user", "content": ""}]) != content_hash(messages)


def test_the_same_prompt_is_stored_once_per_project(session: Session) -> None:
    one, other = factories.make_project(session), factories.make_project(session)
    first = add_prompt(session, one, ASK, "import")
    again = add_prompt(session, one, [{"content": "Where is my parcel?", "role": "user", "name": "x"}], "by hand")
    elsewhere = add_prompt(session, other, ASK, "import")
    assert (first.created, again.created, elsewhere.created) == (True, False, True)
    assert again.row is first.row
    assert first.row.source == "import"
    assert first.row.messages == ASK
    assert first.row.split is elsewhere.row.split is split_of(first.row.content_hash)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "user", "content": "  "}],
        [{"role": "assistant", "content": "Hello"}],
        [{"role": "robot", "content": "Hello"}],
        [{"role": "user"}],
        [{"role": "user", "content": 3}],
        [*ASK, {"role": "assistant", "content": "There."}],
    ],
)
def test_what_asks_for_nothing_is_refused(session: Session, messages: list[Message]) -> None:
    with pytest.raises(Invalid):
        add_prompt(session, factories.make_project(session), messages, "test")


def test_the_same_text_is_one_completion_of_its_prompt(session: Session) -> None:
    project = factories.make_project(session)
    prompt, other = factories.make_prompt(session, project), factories.make_prompt(session, project)
    first = add_completion(session, prompt, "Soon.", CompletionOrigin.MODEL, seed=7, token_count=2, mean_logprob=-0.5)
    again = add_completion(session, prompt, "Soon.", CompletionOrigin.HUMAN)
    assert (first.created, again.created) == (True, False)
    assert (again.row.origin, again.row.seed) == (CompletionOrigin.MODEL, 7)
    assert add_completion(session, other, "Soon.", CompletionOrigin.MODEL).created
    assert add_completion(session, prompt, "Soon. ", CompletionOrigin.MODEL).created, "a space is a difference"
    with pytest.raises(Invalid, match="empty"):
        add_completion(session, prompt, " \n", CompletionOrigin.MODEL)


def test_any_text_comes_back_from_both_databases(session: Session) -> None:
    project = factories.make_project(session)
    for wild in ("nul \x00 inside", "lone \ud83d surrogate", "emoji 😀 عربي 中文", "\r\n\t keep", "a\u2028b\x7f\x1b"):
        prompt = add_prompt(session, project, [{"role": "user", "content": wild}], "test").row
        completion = add_completion(session, prompt, wild, CompletionOrigin.MODEL).row
        session.flush()
        session.expire_all()
        assert session.get_one(Prompt, prompt.id).messages[0]["content"] == storable(wild)
        assert session.get_one(Completion, completion.id).text == storable(wild)
    assert storable("nul \x00, \ud83d") == "nul \ufffd, \ufffd"
    assert storable("emoji 😀") == "emoji 😀"


def test_a_prompt_that_another_writer_adds_first_is_found(postgres_url: str) -> None:
    # On SQLite writers take turns: nobody can be first in between.
    engine = make_engine(postgres_url)
    sessions = make_sessions(engine)
    with sessions.begin() as session:
        project = factories.make_project(session)
    added: list[bool] = []

    def add() -> None:
        with sessions.begin() as second:
            added.append(add_prompt(second, project, ASK, "second").created)

    with sessions() as first:
        mine = add_prompt(first, project, ASK, "first")
        thread = threading.Thread(target=add)
        thread.start()
        thread.join(timeout=0.2)
        assert thread.is_alive(), "the second writer waits for the first"
        first.commit()
        thread.join(timeout=10)
    assert mine.created
    assert added == [False]
    with sessions() as session:
        assert len(session.scalars(select(Prompt)).all()) == 1
    engine.dispose()
