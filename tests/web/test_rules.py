"""The Rules tab: who may see it, and the way from critiques to a rule that is on."""

from __future__ import annotations

import pytest

from feedback_app.handlers import rules as handlers
from storage import rules
from storage.enums import Role, RuleState
from storage.errors import Invalid, NotAllowed, NotFound
from tests import factories
from tests.storage.test_rules import SAID, criticise
from tests.web.looking import url_of, wait_for


def project_of(house, critiques=6):
    with house.sessions.begin() as session:
        project, ann = factories.make_project(session), factories.make_user(session)
        for at in range(critiques):
            criticise(session, project, ann, SAID[at % len(SAID)], prompt=f"When will my parcel {at} be here?")
        for at in range(2 * critiques):
            factories.make_prompt(session, project, f"Please send invoice number {at} of {project.name}.")
        return project.name


def test_only_operators_see_and_change_rules_and_bad_input_is_one_line(house):
    project, ann, olga = project_of(house, 1), house.person(), house.person(Role.OPERATOR)
    for call in (
        lambda: handlers.see_rules(house.ctx, ann, project),
        lambda: handlers.save(house.ctx, ann, project, "new", {}),
        lambda: handlers.switch(house.ctx, ann, project, 1, "on"),
        lambda: handlers.suggest(house.ctx, ann, project, 5),
        lambda: handlers.try_scope(house.ctx, ann, project, "", ""),
        lambda: handlers.write(house.ctx, ann, project),
    ):
        with pytest.raises(NotAllowed):
            call()
    assert handlers.see_rules(house.ctx, olga, "nowhere").project is None
    assert handlers.see_rules(house.ctx, olga, project, "new").chosen is None
    for chosen in ("x", None, [1], True):
        with pytest.raises(Invalid):
            handlers.switch(house.ctx, olga, project, chosen, "on")
    for state in ("suggested", "king", None):
        view = handlers.save(house.ctx, olga, project, "new", {"name": "a", "instruction": "b"})
        with pytest.raises(Invalid):
            handlers.switch(house.ctx, olga, project, view.chosen.id, state)
    other = project_of(house, 1)
    with pytest.raises(NotFound):
        handlers.switch(house.ctx, olga, other, view.chosen.id, "on")
    for values in ({"name": ""}, {"name": "a", "instruction": 7}, {"name": "a", "instruction": "b", "phrases": {}}):
        with pytest.raises(Invalid):
            handlers.save(house.ctx, olga, project, "new", values)


def test_an_operator_takes_a_suggestion_edits_it_tries_its_scope_and_turns_it_on(house, visit, picture):
    project, olga = project_of(house), house.person(Role.OPERATOR)
    with visit(olga, url_of(project, "operate"), height=1100) as page:
        page.wait_for_selector("#op-preview p, #op-preview div.op-stats")
        page.get_by_role("tab", name="Rules").click()
        page.wait_for_selector("#op-rule-list .op-empty")
        picture(page, "rules-empty")
        page.click("#op-rule-suggest")
        page.wait_for_selector("#op-rule-behind table")
        assert page.input_value("#op-rule-phrases textarea") == "parcel"
        page.fill("#op-rule-instruction textarea", "Always say on which day it arrives.")
        page.click("#op-rule-try")
        page.wait_for_selector("#op-rule-fits li")
        assert "6 of 18" in page.inner_text("#op-rule-fits")
        page.click("#op-rule-save")
        page.wait_for_selector("#op-rule-list :text('on which day')")
        page.click("#op-rule-on")
        page.wait_for_selector('#op-rule-list [data-status="succeeded"]')
        picture(page, "rules-light")
        page.evaluate("document.body.classList.add('dark')")
        page.emulate_media(color_scheme="dark")
        picture(page, "rules-dark")
        page.set_viewport_size({"width": 390, "height": 2200})
        picture(page, "rules-390")
    with house.sessions() as session:
        (rule,) = rules.list_rules(session, factories.projects.get_project(session, project))
        assert (rule.state, rule.current.number) == (RuleState.ON, 2)
        assert rule.current.instruction == "Always say on which day it arrives."
    wait_for(lambda: handlers.see_rules(house.ctx, olga, project).to_write == 1)
