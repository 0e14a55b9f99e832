"""The gate on the Models tab: judged, held to other bars, promoted with and without a reason."""

from __future__ import annotations

import pytest

from storage import gate, projects, registry
from storage.enums import Role
from tests import factories
from tests.web.looking import url_of, wait_for

pytestmark = pytest.mark.usefixtures("idle_queue")


@pytest.fixture
def candidate(house):
    """A project with a candidate that was evaluated against the champion; the project's name."""
    with house.sessions.begin() as session:
        project = factories.make_project(session)
        version = factories.make_version(session, project)
        factories.make_judgeable(session, version, registry.champion(session, project))
        return project.name


def test_a_candidate_is_judged_and_promoted_on_the_page(house, visit, picture, candidate):
    def state():
        with house.sessions() as session:
            project = projects.get_project(session, candidate)
            version = registry.get_version(session, project, "policy-v1")
            result = gate.latest_result(session, version)
            return version.status.value, result.verdict.value if result else None, gate.gate_settings(project).win_rate

    with visit(house.person(Role.OPERATOR), url_of(candidate, "operate")) as page:
        page.get_by_role("tab", name="Models").click()
        page.get_by_text("There is an evaluation that was not judged yet: press Judge.").first.wait_for()
        page.click("#op-bars button")
        page.get_by_label("Win rate above").fill("0.6")
        page.click("#op-save-bars")
        page.get_by_text("The bars are saved").wait_for()
        page.click("#op-judge")
        page.locator("#op-gate .op-badge[data-status=inconclusive]").first.wait_for()
        assert state() == ("candidate", "inconclusive", 0.6)
        page.click("[data-panel=op-decide-panel]")
        page.locator("#op-decide-panel").get_by_text("takes a reason").wait_for()
        page.click("#op-confirm")
        page.get_by_text("or give a reason (--reason) to promote it all the same").wait_for()
        page.click("#op-decide-panel [data-close]")
        page.get_by_label("Win rate above").fill("0.5")
        page.click("#op-save-bars")
        wait_for(lambda: state()[2] == 0.5)
        page.click("#op-judge")
        page.locator("#op-gate h3 .op-badge[data-status=pass]").wait_for()
        plots = page.locator("#op-gate svg.op-interval")
        assert plots.count() == 6
        assert "difference from the champion" in plots.nth(1).get_attribute("aria-label")
        picture(page, "gate")
        page.click("[data-panel=op-decide-panel]")
        page.click("#op-confirm")
        page.locator("tr[data-version=policy-v1] [data-status=champion]").wait_for()
    assert state() == ("champion", "pass", 0.5)
