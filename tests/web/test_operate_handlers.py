"""What the operate page does, and what it refuses in one line."""

from __future__ import annotations

import pytest

from feedback_app.handlers import data, models, people, project, refining
from feedback_app.pages import models_tab, users_tab
from storage.configs import RefinerSettings, TemplateSettings
from storage.enums import VersionStatus
from storage.errors import Conflict, FeedbackError, Invalid, NotFound
from storage.wordings import Templates
from tests import factories

pytestmark = pytest.mark.usefixtures("idle_queue")


def test_decisions_need_a_reason_and_change_who_is_champion(house, olga):
    with house.sessions.begin() as session:
        found = factories.make_project(session)
        version = factories.make_version(session, found).name
        name = found.name
    with pytest.raises(Invalid, match="give a reason"):
        models.decide(house.ctx, olga, name, version, "retire", "  ")
    with pytest.raises(Conflict, match=r"not given yet; .* or give a reason"):
        models.decide(house.ctx, olga, name, version, "promote", "  ")
    with pytest.raises(Invalid, match="decision"):
        models.decide(house.ctx, olga, name, version, "delete", "x")
    with pytest.raises(NotFound):
        models.decide(house.ctx, olga, name, "policy-v99", "promote", "x")
    assert models.see_models(house.ctx, olga, name, None).selected.version.name == version
    promoted = models.decide(house.ctx, olga, name, version, "promote", "better on test prompts")
    assert promoted.selected.version.status is VersionStatus.CHAMPION
    assert promoted.selected.against == "policy-v0"
    back = models.decide(house.ctx, olga, name, version, "roll back", "it rambles")
    assert "policy-v0 is the champion again" in back.notice


def test_before_and_after_show_both_texts_escaped(house, olga):
    with house.sessions.begin() as session:
        found = factories.make_project(session)
        version = factories.make_version(session, found)
        base = factories.registry.base_version(session, found, "starter")
        prompt = factories.make_prompt(session, found)
        factories.make_completion(session, prompt, "old <b>text</b>", model_version_id=base.id)
        factories.make_completion(session, prompt, "new text", model_version_id=version.id)
        name = found.name
    shown = models_tab.cards(models.see_models(house.ctx, olga, name, None).selected)
    assert "old &lt;b&gt;text" in shown
    assert "new text" in shown


def test_prompts_by_hand_are_split_at_dashes_and_counted_once(house, olga):
    name = house.project()
    assert data.add_prompts(house.ctx, olga, name, "one\nmore\n---\n\n---\ntwo\n") == 2
    assert data.add_prompts(house.ctx, olga, name, "two") == 0
    assert data.see_data(house.ctx, olga, name).counts["prompts"] == 2
    for bad in ("", " \n---\n ", None, 5, "x" * 20_001):
        with pytest.raises(Invalid):
            data.add_prompts(house.ctx, olga, name, bad)


def _upload(house, name, content):
    path = house.settings.home / "tmp" / "uploads" / name
    path.write_text(content)
    return path


def test_an_import_reports_and_leaves_no_upload_behind(house, olga):
    name = house.project()
    good = _upload(house, "prompts.jsonl", '{"prompt": "one"}\n{"prompt": "two"}\nbroken\n')
    report = data.import_file(house.ctx, olga, name, str(good), "auto")
    assert report.prompts == 2
    assert sum(report.skipped.values()) == 1
    assert not good.exists()
    bad = _upload(house, "bad.jsonl", '{"nonsense": 1}\n')
    with pytest.raises(Invalid) as caught:
        data.import_file(house.ctx, olga, name, str(bad), "auto")
    assert str(house.settings.home) not in str(caught.value)
    assert not bad.exists()


def test_only_uploads_can_be_imported(house, olga, tmp_path):
    name = house.project()
    outside = tmp_path / "x.jsonl"
    outside.write_text('{"prompt": "secret"}\n')
    link = house.settings.home / "tmp" / "uploads" / "link.jsonl"
    link.symlink_to(outside)
    for path in (outside, link, house.settings.home / "feedback.db", "/etc/passwd", "", None, ["x"]):
        with pytest.raises(FeedbackError):
            data.import_file(house.ctx, olga, name, str(path) if path else path, "auto")
    assert outside.exists()
    link.unlink()


def test_an_invitation_shows_its_link_once(house, olga):
    view = people.invite(house.ctx, olga, "new person", "annotator")
    assert "/login/link/" in view.link
    assert view.link in users_tab.values(view)[1]
    assert "/login/link/" not in "".join(users_tab.values(people.see_users(house.ctx, olga)))
    for bad in ("new person", "", " ", None, "x" * 121, 5):
        with pytest.raises(FeedbackError):
            people.invite(house.ctx, olga, bad, "annotator")


def test_names_are_escaped_in_the_list_of_users(house, olga):
    view = people.invite(house.ctx, olga, "<img src=x onerror=alert(1)>", "annotator")
    assert "<img" not in "".join(users_tab.values(view))


VALUES = {
    "guidelines": "Be kind.",
    "base_model": "",
    "overlap": 2,
    "queue_target": 30,
    "tags": "wrong fact\n\n rude ",
    "daily_target": 40,
    "judge_first": True,
    "playground": False,
    "temperature": 0.7,
    "top_p": 0.9,
    "max_new_tokens": 80,
    "mode": "every_n",
    "every_n": 50,
    "cron": "0 3 * * *",
    "kinds": ["dpo"],
}
REFINING = {"refiner": "endpoint", "endpoint_model": " big ", "samples": 8, "warmth": 0.7}
WORDINGS = refining.as_fields(Templates())
CRITERIA = [["quality", "overall", 1, 5], ["", "", 1, 5], ["tone", "", 0, 10.0]]


def test_a_project_is_saved_and_says_when_it_trains(house, olga):
    name = house.project()
    project.save(house.ctx, olga, name, VALUES, CRITERIA)
    view = project.see_project(house.ctx, olga, name)
    assert (view.guidelines, view.overlap, view.policy.every_n) == ("Be kind.", 2, 50)
    assert view.tags == ("wrong fact", "rude")
    assert (view.annotating.daily_target, view.annotating.order) == (40, "judge_first")
    assert not view.annotating.playground
    ours = refining.default_wordings(house.ctx, olga, name)
    assert ours == refining.as_fields(view.refining.wordings)
    asked = {
        "comparison_weight": 0.5,
        "review_share": 0.2,
        **REFINING,
        **ours,
        "judge": "{critique}?\n---\nNow {critique}?",
    }
    project.save(house.ctx, olga, name, VALUES | asked, CRITERIA)
    project.save(house.ctx, olga, name, VALUES, CRITERIA)  # an older page does not know them: they stay
    kept = project.see_project(house.ctx, olga, name)
    assert (kept.policy.comparison_weight, kept.annotating.review_share) == (0.5, 0.2)
    assert kept.annotating.refining == RefinerSettings(
        refiner="endpoint", endpoint_model="big", samples=8, temperature=0.7
    )
    assert kept.annotating.templates == TemplateSettings(judge=("{critique}?", "Now {critique}?")), "the rest is ours"
    project.save(house.ctx, olga, name, VALUES | REFINING | ours | {"refiner": "champion"}, CRITERIA)
    back = project.see_project(house.ctx, olga, name).annotating
    assert (back.templates, back.refining.endpoint_model) == (TemplateSettings(), None)
    assert [(one.name, one.low, one.high) for one in view.criteria] == [("quality", 1, 5), ("tone", 0, 10)]
    assert "50 more annotations" in view.due.reason


@pytest.mark.parametrize(
    ("change", "criteria"),
    [
        ({"overlap": 0}, CRITERIA),
        ({"overlap": "many"}, CRITERIA),
        ({"tags": "x" * 41}, CRITERIA),
        ({"tags": ["rude"]}, CRITERIA),
        ({"daily_target": -1}, CRITERIA),
        ({"temperature": -1}, CRITERIA),
        ({"mode": "sometimes"}, CRITERIA),
        ({"mode": "cron", "cron": "every day"}, CRITERIA),
        ({"kinds": []}, CRITERIA),
        ({"rating_weight": -1}, CRITERIA),
        ({"review_share": 2}, CRITERIA),
        ({"kinds": "dpo; rm"}, CRITERIA),
        (REFINING | {"samples": 0}, CRITERIA),
        (REFINING | {"refiner": ["champion"]}, CRITERIA),
        (REFINING | {"refiner": None}, CRITERIA),
        (WORDINGS | {"refine": "Again, please."}, CRITERIA),
        (WORDINGS | {"refine": "{critique} {colour}"}, CRITERIA),
        (WORDINGS | {"judge": "{critique}?\n---\n"}, CRITERIA),
        (WORDINGS | {"positive": " "}, CRITERIA),
        (WORDINGS | {"yes": None}, CRITERIA),
        ({}, [["quality", "", 5, 1]]),
        ({}, [["a", "", 1, 5], ["a", "", 1, 5]]),
        ({}, [["a", "", "low", 5]]),
        ({}, "quality"),
        ({}, [["a"]]),
        ({}, [[f"c{n}", "", 1, 5] for n in range(21)]),
    ],
)
def test_bad_project_settings_change_nothing(house, olga, change, criteria):
    name = house.project()
    before = project.see_project(house.ctx, olga, name)
    with pytest.raises(Invalid) as caught:
        project.save(house.ctx, olga, name, VALUES | change, criteria)
    assert "\n" not in str(caught.value)
    after = project.see_project(house.ctx, olga, name)
    assert (after.guidelines, after.overlap) == (before.guidelines, before.overlap)
    assert [one.name for one in after.criteria] == [one.name for one in before.criteria]


def test_a_project_name_is_taken_once(house, olga):
    made = project.create(house.ctx, olga, " fresh ")
    assert made == "fresh"
    with pytest.raises(Conflict):
        project.create(house.ctx, olga, "fresh")
    with pytest.raises(Invalid):
        project.create(house.ctx, olga, "")
