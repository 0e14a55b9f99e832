"""Simulated annotators: one hidden taste, honest looks at what they are shown, everything said through a submission."""

import random
from collections.abc import Sequence

import pytest

from feedback_app.demo_people import COMMON_SENSE, Annotator, Habits, Taste, request_in
from storage.enums import Outcome
from storage.models import Message
from storage.submissions import Submission
from trainer.starter.facets import FACETS, Action, Apology, Facets, Facts, Greeting, Length, Request, Tone
from trainer.starter.grammar import sample_facets, sample_prompts, write_reply

GOOD = Facets(Greeting.RIGHT, Apology.YES, Facts.RIGHT, Action.CONCRETE, Tone.WARM, Length.MEDIUM)
BAD = Facets(Greeting.WRONG, Apology.NO, Facts.WRONG, Action.VAGUE, Tone.RUDE, Length.RAMBLING)
REQUESTS = sample_prompts(30, seed=5, held_out=False)


def _messages(request: Request) -> list[Message]:
    return [{"role": "user", "content": request.text}]


def _judged(person: Annotator, request: Request, replies: Sequence[Facets | str], rng: random.Random) -> Submission:
    texts = [reply if isinstance(reply, str) else write_reply(rng, request, reply) for reply in replies]
    return person.judge(_messages(request), list(enumerate(texts, start=1)), 9)


def test_the_taste_covers_every_facet_and_value() -> None:
    assert {name: {value.value for value in values} for name, values in FACETS.items()} == {
        name: set(points) for name, points in COMMON_SENSE.items()
    }


def test_a_seed_is_a_taste_and_another_seed_another() -> None:
    assert Taste(1).of(REQUESTS[0], GOOD) == Taste(1).of(REQUESTS[0], GOOD)
    assert Taste(1).of(REQUESTS[0], GOOD) != Taste(2).of(REQUESTS[0], GOOD)
    assert Taste(1).of(REQUESTS[0], GOOD) > 0 > Taste(1).of(REQUESTS[0], BAD) == pytest.approx(Taste(1).worst)


def test_a_reply_is_worth_what_its_facets_are() -> None:
    taste = Taste(3)
    for request in REQUESTS:
        text = write_reply(random.Random(0), request, GOOD)
        assert taste.of_text(_messages(request), text) == taste.of(request, GOOD)
        assert taste.of_text(_messages(request), "Blah.") == taste.worst


@pytest.mark.parametrize("good_first", [True, False])
def test_the_clearly_better_reply_is_preferred_on_whichever_side_it_stands(good_first: bool) -> None:
    rng = random.Random(1)
    person = Annotator(Taste(1), rng)
    for request in REQUESTS:
        said = _judged(person, request, (GOOD, BAD) if good_first else (BAD, GOOD), rng)
        assert said.preference is not None
        assert said.preference.outcome is (Outcome.FIRST if good_first else Outcome.SECOND)
        assert said.preference.strength == 3
        stars = {rating.completion_id: rating.value for rating in said.ratings}
        assert stars[1 if good_first else 2] > stars[2 if good_first else 1]


def test_two_poor_replies_are_both_bad_and_equals_are_often_a_tie() -> None:
    rng = random.Random(2)
    person = Annotator(Taste(1), rng)
    outcomes = [_judged(person, request, (BAD, BAD), rng).preference for request in REQUESTS]
    assert {said.outcome for said in outcomes if said} == {Outcome.BOTH_BAD}
    outcomes = [_judged(person, request, (GOOD, GOOD), rng).preference for request in REQUESTS]
    assert Outcome.TIE in {said.outcome for said in outcomes if said}


def test_the_worse_reply_is_criticised_and_a_rewrite_mends_it() -> None:
    rng = random.Random(3)
    taste = Taste(1)
    person = Annotator(taste, rng)
    rude = GOOD.but(Tone.RUDE)
    critiques = refinements = 0
    for request in REQUESTS:
        said = _judged(person, request, (GOOD, rude), rng)
        critiques += len(said.critiques)
        assert all(critique.completion_id == 2 for critique in said.critiques)
        for rewrite in said.refinements:
            refinements += 1
            assert taste.of_text(_messages(request), rewrite.text) > taste.of(request, rude)
    assert critiques > refinements > 0


def test_who_is_mistaken_asks_for_what_brings_nothing() -> None:
    taste = Taste(1)
    for mistaken, right in ((0.0, True), (1.0, False)):
        person = Annotator(taste, random.Random(5), Habits(critiques=1.0, refinements=1.0, mistaken=mistaken))
        for request in REQUESTS:
            rude = GOOD.but(Tone.RUDE)
            said = _judged(person, request, (GOOD, rude), random.Random(6))
            for rewrite in said.refinements:
                assert (taste.of_text(_messages(request), rewrite.text) > taste.of(request, rude)) is right


def test_people_who_look_less_closely_agree_less() -> None:
    shares = []
    for noise in (0.5, 1.5):
        agreed = decided = 0
        for number, request in enumerate(sample_prompts(300, seed=6, held_out=False)):
            replies = [sample_facets(random.Random(2 * number + side)) for side in (0, 1)]
            outcomes = set()
            for who in ("ann", "ben"):
                person = Annotator(Taste(1), random.Random(f"{who} {number}"), Habits(noise=noise))
                said = _judged(person, request, replies, random.Random(number)).preference
                assert said is not None
                outcomes.add(said.outcome)
            if outcomes <= {Outcome.FIRST, Outcome.SECOND}:
                decided += 1
                agreed += len(outcomes) == 1
        shares.append(agreed / decided)
    assert shares[0] > 0.85
    assert 0.55 < shares[1] < shares[0] - 0.1


def test_context_rules_change_what_is_liked_in_some_matters_only() -> None:
    plain, ruled = Taste(4), Taste(4, rules=2)
    differ = {request.intent: plain.of(request, GOOD) != ruled.of(request, GOOD) for request in REQUESTS}
    assert set(differ.values()) == {True, False}
    assert (plain.worst, plain.best) == (ruled.worst, ruled.best)


def test_an_unreadable_reply_gets_no_critique_but_loses() -> None:
    rng = random.Random(4)
    said = _judged(Annotator(Taste(1), rng), REQUESTS[0], (GOOD, "Lorem ipsum."), rng)
    assert said.preference is not None
    assert said.preference.outcome is Outcome.FIRST
    assert said.critiques == []


def test_a_prompt_of_another_kind_is_a_fault_not_a_guess() -> None:
    with pytest.raises(ValueError, match="not a prompt of the demo"):
        request_in([{"role": "user", "content": "What is the capital of France?"}])
