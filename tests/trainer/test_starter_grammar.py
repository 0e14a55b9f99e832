"""The starter's language: what is written is read back as exactly what was meant."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest

from trainer.starter import checker, grammar, phrases
from trainer.starter.critiques import WORDINGS, wanted_values
from trainer.starter.facets import FACETS, Apology, Facts, Greeting, Length, Tone, facet_of
from trainer.starter.lessons import critique_to_judge


def test_replies_are_read_back_as_exactly_their_facets() -> None:
    rng = random.Random(1)
    seen = defaultdict(set)
    for number in range(4000):
        request = grammar.sample_request(rng, held_out=number % 2 == 0, invented_names=0.2)
        facets = grammar.sample_facets(rng, uniform=True)
        text = grammar.write_reply(rng, request, facets)
        assert checker.read_reply(request, text) == facets, text
        for facet in FACETS:
            seen[facet].add(facets.value(facet))
    assert {facet: len(values) for facet, values in seen.items()} == {f: len(kind) for f, kind in FACETS.items()}


def test_prompts_are_read_back_as_their_request() -> None:
    for held_out in (True, False):
        for request in grammar.sample_prompts(1500, seed=3, held_out=held_out):
            assert checker.request_of(request.text) == request
            assert request.messages == [{"role": "user", "content": request.text}]


def test_a_prompt_of_another_language_has_no_request() -> None:
    request = grammar.sample_prompts(1, seed=0, held_out=True)[0]
    assert checker.request_of("Who wrote Faust?") is None
    assert checker.request_of(request.text + " And another thing.") is None
    assert checker.request_of("") is None


def test_held_out_prompts_are_never_among_the_others() -> None:
    held_out = {(r.intent, r.name, r.product) for r in grammar.sample_prompts(2000, seed=1, held_out=True)}
    others = {(r.intent, r.name, r.product) for r in grammar.sample_prompts(2000, seed=1, held_out=False)}
    assert not held_out & others
    assert {intent for intent, _, _ in held_out} == set(phrases.INTENTS)


def test_the_held_out_share_is_one_in_ten_and_fixed() -> None:
    combinations = [(i, n, f"red {k}") for i in phrases.INTENTS for n in phrases.NAMES for k in phrases.KINDS]
    share = sum(grammar.is_held_out(*row) for row in combinations) / len(combinations)
    assert 0.09 < share < 0.115
    # The shipped model was trained under this split: another hash would leak what was held out.
    held_out = [name for name in phrases.NAMES[:40] if grammar.is_held_out("late", name, "red lamp")]
    assert held_out == ["Boris", "Samir", "Umar", "Xenia", "Chloe"]


def test_the_same_seed_gives_the_same_texts() -> None:
    assert grammar.sample_prompts(50, seed=9, held_out=True) == grammar.sample_prompts(50, seed=9, held_out=True)
    assert grammar.sample_prompts(50, seed=9, held_out=True) != grammar.sample_prompts(50, seed=10, held_out=True)


def test_one_prompt_has_hundreds_of_replies() -> None:
    rng = random.Random(5)
    request = grammar.sample_request(rng, held_out=True)
    assert len({grammar.write_reply(rng, request, grammar.sample_facets(rng)) for _ in range(500)}) >= 450


def test_a_revision_changes_one_facet_and_keeps_every_other_sentence() -> None:
    rng = random.Random(2)
    for _ in range(3000):
        request = grammar.sample_request(rng, held_out=False)
        facets = grammar.sample_facets(rng, uniform=True)
        draft = grammar.compose(rng, request, facets)
        facet = rng.choice(tuple(FACETS))
        wanted = rng.choice(wanted_values(facet, facets.value(facet)))
        revised = grammar.revise(rng, request, draft, wanted)
        assert checker.read_reply(request, grammar.as_text(revised)) == facets.but(wanted)
        touched = {"tone": ("opener", "closing"), "length": ("remark",)}.get(facet, (facet,))
        untouched = [part for part in draft if part.slot not in touched]
        assert [part for part in revised if part.slot not in touched] == untouched


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text + " Purple monkeys.",
        lambda text: text.replace(".", "", 1),
        lambda text: text + " " + text,
        lambda text: text[: len(text) // 2],
        lambda text: "Esteemed one,\n" + text.rpartition("\n")[2],
        lambda _: "",
        lambda _: "We will look into it.",
    ],
)
def test_what_is_not_of_the_grammar_does_not_parse(spoil) -> None:  # a parametrised lambda
    rng = random.Random(7)
    for _ in range(50):
        request = grammar.sample_request(rng, held_out=True)
        text = grammar.write_reply(rng, request, grammar.sample_facets(rng, uniform=True))
        assert checker.read_reply(request, spoil(text)) is None


def test_a_slip_in_name_or_number_is_wrong_not_unreadable() -> None:
    rng = random.Random(8)
    request = grammar.sample_request(rng, held_out=True)
    facets = grammar.sample_facets(rng).but(Greeting.RIGHT).but(Facts.RIGHT)
    text = grammar.write_reply(rng, request, facets)
    assert checker.read_reply(request, text.replace(request.name, "Annalot")) == facets.but(Greeting.WRONG)
    assert checker.read_reply(request, text.replace(request.order, "#1")) == facets.but(Facts.WRONG)
    assert checker.mentions(text) == ((request.name,), (request.order,))
    assert checker.mentions("No greeting, no number.") == ((), ())


def test_an_action_of_another_intent_does_not_parse() -> None:
    requests = {request.intent: request for request in grammar.sample_prompts(200, seed=4, held_out=True)}
    text = f"{phrases.ACTIONS['invoice'][0].format(when='by Friday')} {phrases.CLOSINGS['warm'][0]}"
    assert checker.read_reply(requests["invoice"], text) is not None
    assert checker.read_reply(requests["broken"], text) is None


def test_no_wording_of_a_critique_asks_for_two_things() -> None:
    owners = defaultdict(set)
    for wanted, wording in WORDINGS.items():
        for text in [text for texts in wording.texts.values() for text in texts] + list(wording.fixes):
            owners[text].add(wanted)
    assert {text: values for text, values in owners.items() if len(values) > 1} == {}


def test_every_facet_however_it_is_can_be_criticised() -> None:
    rng = random.Random(0)
    request = grammar.sample_request(rng, held_out=True)
    for facet, kind in FACETS.items():
        for current in kind:
            assert wanted_values(facet, current)
            for wanted in wanted_values(facet, current):
                for fix in (True, False):
                    critique = grammar.write_critique(rng, facet, current, wanted, request, fix)
                    assert (critique.facet, critique.wanted) == (facet, wanted)
                    assert (critique.fix is not None) is fix
                    assert "{" not in critique.full
                    assert critique.full.startswith(critique.text)


def test_half_of_the_critiques_bring_a_fix_and_the_wording_varies() -> None:
    rng = random.Random(6)
    request = grammar.sample_request(rng, held_out=True)
    critiques = [grammar.write_critique(rng, "tone", Tone.RUDE, Tone.WARM, request) for _ in range(400)]
    assert 0.4 < sum(critique.fix is not None for critique in critiques) / 400 < 0.6
    assert len({critique.full for critique in critiques}) >= 20


def test_a_critique_of_what_is_already_so_is_refused() -> None:
    rng = random.Random(0)
    request = grammar.sample_request(rng, held_out=True)
    with pytest.raises(ValueError, match="cannot want"):
        grammar.write_critique(rng, "apology", Apology.YES, Apology.YES, request)
    with pytest.raises(ValueError, match="cannot want"):
        grammar.write_critique(rng, "apology", Apology.NO, Length.SHORT, request)


def test_the_judge_is_taught_as_many_yes_as_no_and_true_ones() -> None:
    rng = random.Random(11)
    verdicts = []
    for _ in range(1000):
        request = grammar.sample_request(rng, held_out=False)
        facets = grammar.sample_facets(rng, uniform=True)
        critique, met = critique_to_judge(rng, request, facets)
        assert (facets.value(critique.facet) is critique.wanted) is met
        assert facet_of(critique.wanted) == critique.facet
        verdicts.append(met)
    assert 0.4 < sum(verdicts) / 1000 < 0.6
