"""How a critique is put to a model."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict

import pytest

from storage.configs import TemplateSettings, parse
from storage.errors import Invalid
from storage.wordings import JUDGE, REFINE, divided, own_wordings, templates_of
from trainer.templates import condition_messages, judge_messages, refine_messages, told

PROMPT = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Where is {it}?"}]


def test_refine_shows_prompt_draft_and_critique_in_order() -> None:
    messages = refine_messages(PROMPT, "Soon.", " Give a date, {please}.\n")
    assert messages[:2] == PROMPT
    assert messages[2] == {"role": "assistant", "content": "Soon."}
    assert messages[3]["role"] == "user"
    assert "Feedback: Give a date, {please}.\n" in messages[3]["content"]
    assert len(messages) == 4


def test_judge_has_five_wordings_that_all_quote_the_critique_and_ask_for_yes_or_no() -> None:
    asked = {judge_messages(PROMPT, "Soon.", "Give a date.", wording)[-1]["content"] for wording in range(5)}
    assert len(asked) == len(JUDGE) == 5
    assert all("Give a date." in text and "yes or no" in text for text in asked)
    with pytest.raises(IndexError):
        judge_messages(PROMPT, "Soon.", "Give a date.", 5)


def test_the_prompt_given_is_not_changed() -> None:
    before = [dict(message) for message in PROMPT]
    refine_messages(PROMPT, "Soon.", "No.")[0]["content"] = "changed"
    assert before == PROMPT


def test_templates_and_grammar_need_no_torch() -> None:
    code = (
        "import sys, trainer.templates, trainer.starter.checker, trainer.starter.lessons\n"
        "heavy = {'torch', 'transformers', 'tokenizers', 'trl', 'datasets'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_project_words_what_it_likes_and_leaves_the_rest() -> None:
    own = parse(TemplateSettings, {"refine": '{"x": 1} {critique}\nAbout: {span}\nTags: {tags}\nAgain, please.'})
    templates = templates_of(own)
    assert (templates.judge, templates.refine) == (JUDGE, own.refine)
    assert templates_of(TemplateSettings()).refine == REFINE
    assert templates_of(TemplateSettings(), starter=False).refine != REFINE, "the starter never saw marked parts"
    marked = told("Vague {span}.", " Give a date. ", ["tone", ""], " soon ")
    asked = refine_messages(PROMPT, "It comes soon.", marked, templates.refine)[-1]["content"]
    assert asked == '{"x": 1} Vague {span}. Give a date.\nAbout: soon\nTags: tone\nAgain, please.'
    bare = refine_messages(PROMPT, "It comes soon.", told("Vague."), templates.refine)[-1]["content"]
    assert bare == '{"x": 1} Vague.\nAgain, please.'
    assert told(" ", None, ["tone", "vague"]).text == "tone, vague"
    assert not told("", "", []).text
    assert condition_messages(PROMPT, "Good.")[-1]["content"].startswith(PROMPT[-1]["content"])


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"refine": "Again."}, "write {critique} where it belongs"),
        ({"refine": "{critique} {spam}"}, "nothing is put in for {spam}; choose from: {critique}, {span}, {tags}"),
        ({"refine": " "}, "it is empty"),
        ({"refine": "{critique}" + "x" * 8000}, "at most 8000 characters"),
        ({"judge": []}, "give 1 to 20 wordings"),
        ({"judge": ["{critique}?"] * 21}, "give 1 to 20 wordings"),
        ({"judge": ["{critique}?", "Done?"]}, "write {critique}"),
        ({"condition": "{prompt}"}, "write {feedback}"),
        ({"yes": ""}, "it is empty"),
        ({"yes": "Nein", "no": "nein "}, "yes and no must differ"),
        ({"rifine": "{critique}"}, "unknown setting 'rifine'"),
    ],
)
def test_a_wording_that_cannot_be_filled_in_is_refused_in_one_line(wrong, line) -> None:
    with pytest.raises(Invalid) as caught:
        parse(TemplateSettings, wrong)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_what_is_worded_as_ours_is_none_of_a_project_s_own() -> None:
    for starter in (True, False):
        ours = asdict(templates_of(TemplateSettings(), starter=starter))
        assert own_wordings(ours, starter=starter) == {}
        assert own_wordings({**ours, "yes": "ja"}, starter=starter) == {"yes": "ja"}
        assert parse(TemplateSettings, ours), "our own wordings pass"
    assert divided("Eins {critique}\n\nZwei\n ---\nDrei") == ("Eins {critique}\n\nZwei", "Drei")
