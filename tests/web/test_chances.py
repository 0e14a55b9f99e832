"""The calibrated probability that a completion is better: on every page where operators read pairs, on no other."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from sqlalchemy import select
from starlette.testclient import TestClient

from feedback_app.handlers import models
from feedback_app.i18n import Reader, reading
from feedback_app.pages import models_tab
from storage import projects, registry
from storage.enums import ModelKind, Role
from storage.models import Completion
from storage.scores import Score, add_scores
from tests import factories
from tests.storage.test_chances import measure
from tests.web.conftest import House
from tests.web.test_lineage import told, traced
from tests.web.test_questions import Told

__all__ = ["told", "traced"]


def test_operators_read_how_probably_a_completion_is_better_and_annotators_do_not(
    house: House, traced: Told, as_user: Callable[[str], TestClient]
) -> None:
    name = house.person(Role.OPERATOR)
    operator, where = as_user(name), quote(traced.project)
    with house.sessions.begin() as session:
        project = projects.get_project(session, traced.project)
        prompt = factories.make_prompt(session, project)
        other = registry.get_version(session, project, traced.version)
        for version in (registry.base_version(session, project, "starter"), other):
            factories.make_completion(session, prompt, model_version_id=version.id)
        item = factories.make_item(session, project)
        annotation = factories.make_annotation(session, project, factories.make_user(session))
        assert annotation.item_id != item.id or annotation.preferences
        number = annotation.id
    pages = {
        f"/lineage/{where}/{traced.version}#rows": "The chosen one is better with a probability of 7",
        f"/lineage/annotation/{number}": "A is better with a probability of",
        f"/compare/{where}?v=policy-v0&v={traced.version}": "Better than that of policy-v0 with a probability of",
        f"/questions?project={where}": "The new text is better than the old one with a probability of",
    }
    for page in pages:
        assert "No probabilities: No reward model is there to say" in operator.get(page).text
    with house.sessions.begin() as session:
        project = projects.get_project(session, traced.project)
        reward = factories.make_version(session, project, ModelKind.REWARD)
        measure(session, reward, 1.0)
        ids = session.scalars(select(Completion.id).order_by(Completion.id)).all()
        add_scores(session, [Score(one, reward.id, place * 0.1, 0.1) for place, one in enumerate(ids)])
    for page, said in pages.items():
        shown = operator.get(page).text
        assert said.rstrip("7") in shown
        assert "says reward-v1" in shown
    cards = models_tab.cards(models.see_models(house.ctx, name, traced.project, traced.version).selected)
    assert "with a probability of 52% (49% to 56%), says reward-v1" in cards
    with reading(Reader("zh-CN")):
        cards = models_tab.cards(models.see_models(house.ctx, name, traced.project, traced.version).selected)
    assert "回答的概率：52%（49% 至 56%，reward-v1 的判断）" in cards
    annotator = as_user(traced.name)
    for page in ("/questions", "/critiques", "/annotate/", "/mine/"):
        assert "probability" not in annotator.get(page).text
    assert 'action="/questions/answer"' in annotator.get("/questions").text, "a question was there to be shown"
    for page in list(pages)[:3]:
        assert annotator.get(page).status_code == 403
