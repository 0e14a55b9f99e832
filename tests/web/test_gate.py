"""The gate on the Models tab: judged, held to other bars, promoted with and without a reason."""

from __future__ import annotations

import pytest

from feedback_app.handlers import models, service
from feedback_app.i18n import Reader, reading
from feedback_app.pages import models_tab, service_part
from storage import gate, projects, registry
from storage.enums import Role, Split
from storage.models import Alert, Completion
from tests import factories
from tests.web.looking import DRAWN, url_of, wait_for

pytestmark = pytest.mark.usefixtures("idle_queue")


@pytest.fixture
def candidate(house):
    """A project with a candidate that was evaluated against the champion; the project's name."""
    with house.sessions.begin() as session:
        project = factories.make_project(session)
        version = factories.make_version(session, project)
        champion = registry.champion(session, project)
        factories.make_judgeable(session, version, champion)
        item = factories.make_item(session, project)
        for place, by in enumerate((champion, version)):
            session.get_one(Completion, item.members[place].completion_id).model_version_id = by.id
        return project.name


# What the queue says comes late while `late` (milliseconds) is set; the function named `held` is answered at `letGo()`.
SLOW = """
const soon = window.fetch.bind(window);
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
window.fetch = async (...args) => {
  const response = await soon(...args);
  const address = String(args[0].url ?? args[0]);
  if (address.includes("/run/")) {
    const { fn_index: id } = JSON.parse(args[1].body);
    const { api_name: name } = gradio_config.dependencies.find((one) => one.id === id);
    if (name === window.held) await new Promise((done) => (window.letGo = done));
  }
  if (!address.includes("/queue/data")) return response;
  const late = new TransformStream({
    async transform(chunk, controller) {
      await wait(window.late || 0);
      controller.enqueue(chunk);
    },
  });
  const made = new Response(response.body.pipeThrough(late), { headers: response.headers });
  return Object.defineProperty(made, "url", { value: response.url });
};
"""


def test_a_candidate_is_judged_and_promoted_on_the_page(house, visit, picture, candidate):
    def state():
        with house.sessions() as session:
            project = projects.get_project(session, candidate)
            version = registry.get_version(session, project, "policy-v1")
            result = gate.latest_result(session, version)
            return version.status.value, result.verdict.value if result else None, gate.gate_settings(project).win_rate

    with visit(house.person(Role.OPERATOR), url_of(candidate, "operate"), script=SLOW) as page:
        page.wait_for_selector("#op-run-head h3, #op-run-head p")
        page.evaluate("window.held = 'models'")
        page.get_by_role("tab", name="Models").click()
        page.get_by_text("There is an evaluation that was not judged yet: press Judge.").first.wait_for()
        page.click("#op-bars button")
        page.get_by_label("Win rate above").wait_for()
        page.evaluate(DRAWN)  # a field that is not drawn yet takes its old value once more
        page.get_by_label("Win rate above").fill("0.6")
        page.evaluate("window.late = 1000")
        page.click("#op-save-bars")
        wait_for(lambda: state()[2] == 0.6)
        page.click("#op-judge")  # before the page hears that the bars are saved
        page.evaluate("window.late = 0")
        page.locator("#op-gate .op-badge[data-status=inconclusive]").first.wait_for()
        page.evaluate("letGo(); new Promise((done) => setTimeout(done, 300))")  # a look that is older than the verdict
        assert page.locator("#op-gate .op-badge[data-status=inconclusive]").first.is_visible()
        assert state() == ("candidate", "inconclusive", 0.6)
        page.locator("[data-panel=op-decide-panel]").dispatch_event("click")  # a toast may lie over it
        page.locator("#op-decide-panel").get_by_text("takes a reason").wait_for()
        page.click("#op-confirm")
        page.get_by_text("or give a reason (--reason) to promote it all the same").wait_for()
        page.locator("#op-decide-panel [data-close]").dispatch_event("click")
        page.get_by_label("Win rate above").fill("0.5")
        for other in ("policy-v0", "policy-v1"):  # a look at another version leaves what was typed
            page.locator(f"tr[data-version={other}]").click()
            page.locator(f"tr[data-version={other}][aria-selected=true]").wait_for()
        assert page.get_by_label("Win rate above").input_value() == "0.5"
        page.click("#op-save-bars")
        wait_for(lambda: state()[2] == 0.5)
        page.click("#op-judge")
        page.locator("#op-gate h3 .op-badge[data-status=pass]").wait_for()
        plots = page.locator("#op-gate svg.op-interval")
        assert plots.count() == 6
        assert "difference from the champion" in plots.nth(1).get_attribute("aria-label")
        picture(page, "gate")
        page.click("#op-blind-start")
        page.locator("#op-blind").get_by_text("about 230 more decided comparisons").wait_for()
        page.click("#op-blind-stop")
        page.locator("#op-blind [data-status=stopped]").wait_for()
        page.locator("[data-panel=op-decide-panel]").dispatch_event("click")  # a toast may lie over it
        page.click("#op-confirm")
        page.locator("tr[data-version=policy-v1] [data-status=champion]").wait_for()
    assert state() == ("champion", "pass", 0.5)


def test_an_alert_stands_above_everything_else_in_the_reader_s_language(house, candidate):
    told = "rating of policy-v0 is 2.12 on 8 judgements; policy-v1 had 4.00 when it was replaced"
    with house.sessions.begin() as session:
        project = projects.get_project(session, candidate)
        champion = registry.champion(session, project)
        figures = {"rolled_back_to": "policy-v1"}
        session.add(Alert(project_id=project.id, version_id=champion.id, name="rating", text=told, figures=figures))
    view = models.see_models(house.ctx, house.person(Role.OPERATOR), candidate, None)
    shown = models_tab.values(view)
    assert len(shown) == models_tab.OUTPUTS
    assert "policy-v1 was put back into service by itself" in shown[5]
    with reading(Reader("zh-CN")):
        assert "版本 policy-v0 的评分为 2.12（8 次判断）" in service_part.alerts(view.alerts)


def test_what_cannot_be_done_cannot_be_pressed_and_says_why(house, candidate):
    olga = house.person(Role.OPERATOR)

    def shown(project, version):
        view = models.see_models(house.ctx, olga, project, version)
        _, evaluate, judge, lacks = models_tab.values(view)[6:10]
        served = service.see_service(house.ctx, olga, project, version)
        test, start, stop, _ = service_part.values(served)
        buttons = [(one.visible, one.interactive) for one in (evaluate, judge, start)]
        return buttons, stop.visible, lacks + test

    on, off = (True, True), (True, False)
    empty = house.project()
    buttons, stop, said = shown(empty, None)
    assert [visible for visible, _ in buttons] == [False, False, False]
    assert "no version to evaluate, judge or test yet" in said
    buttons, stop, said = shown(candidate, "policy-v1")
    assert (buttons, stop) == ([off, on, on], False)
    assert "has no test prompts; one prompt in ten becomes one: add more" in said
    with house.sessions.begin() as session:
        factories.make_prompt(session, projects.get_project(session, candidate), split=Split.TEST)
    assert shown(candidate, "policy-v1")[0] == [on, on, on]
    buttons, stop, said = shown(candidate, "policy-v0")
    assert buttons == [off, off, off]
    for reason in ("nothing to compare it with", "is the champion already", "a blind test takes a candidate"):
        assert reason in said
