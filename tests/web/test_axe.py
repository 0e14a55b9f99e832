"""Every page in every state through axe-core: no serious or critical violation, light and dark, at 1280 and 390 px.

Each page is loaded once; the sizes and colours change under it. axe-core runs through the driver, so the pages' content
security policy stays as it is.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT

from feedback_app.handlers import webhooks
from storage import annotations
from storage.enums import ItemKind, Role
from storage.models import Critique
from storage.runs import MetricPoint, add_log, add_metrics, heartbeat
from tests import factories
from tests.browser import Picture, picture
from tests.web.alone import address, house
from tests.web.by_keys import Keyboard
from tests.web.looking import ITEM, url_of
from tests.web.test_compare import rivals
from tests.web.test_lineage import traced
from tests.web.test_quality import fill
from tests.web.test_questions import told

__all__ = ["address", "house", "picture", "rivals", "told", "traced"]

pytestmark = pytest.mark.usefixtures("idle_queue")

# Every state is seen in both sizes and both colours; the pairs take turns, so that all four of them occur on each page.
VIEWS = [[(1280, "light"), (390, "dark")], [(390, "light"), (1280, "dark")]]
GRAVE = ("serious", "critical")
# Rules whose violations are never grave are left out: each of them walks through the whole page.
RUN = """async ([grave, within]) => {
  const slight = axe._audit.rules.filter(({ impact }) => impact && !grave.includes(impact));
  const rules = Object.fromEntries(slight.map(({ id }) => [id, { enabled: false }]));
  return (await axe.run(within, { resultTypes: ["violations"], preload: false, rules })).violations;
}"""
# Gives the page of Gradio its colours, at once, and says whether axe-core is missing on the page.
COLOUR = """async dark => {
  if (!document.adoptedStyleSheets.length) document.adoptedStyleSheets = [new CSSStyleSheet()];
  document.adoptedStyleSheets[0].replaceSync("* { transition: none !important }");
  if (document.querySelector(".gradio-container")) document.body.classList.toggle("dark", dark);
  // What Gradio lets appear is there.
  const short = document.getAnimations().filter(({ effect }) => effect.getComputedTiming().endTime < 2000);
  await Promise.allSettled(short.map(({ finished }) => finished));
  return typeof axe === "undefined";
}"""


class Checker:
    """Runs axe-core on a page as it stands and collects what is wrong."""

    def __init__(self, picture: Picture) -> None:
        self.picture = picture
        self.states = 0
        self.found: dict[str, list[str]] = {}

    def __call__(self, page: Any, state: str, within: str = "html") -> None:
        """`within`: what is looked at, where all else is as it was before."""
        self.states += 1
        for width, scheme in VIEWS[self.states % 2]:
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            if page.evaluate(COLOUR, scheme == "dark"):
                page.evaluate(AXE_SCRIPT)
            self.picture(page, "-".join([*re.findall(r"\w+", state), str(width), scheme]))
            for one in page.evaluate(RUN, [GRAVE, within]):
                for node in one["nodes"] if one["impact"] in GRAVE else []:
                    line = f"{one['id']}: {' '.join(map(str, node['target']))}: {node['failureSummary']}"
                    self.found.setdefault(line, []).append(f"{state} {width} {scheme}")
        page.set_viewport_size({"width": 1280, "height": 900})

    def reach(self, page: Any) -> list[str]:
        """Every control with Tab alone: each shows that it has the focus, and the page can be left again."""
        more = page.locator('#op-tabs [aria-label="More tabs"]')
        if more.count():
            more.wait_for(state="hidden")  # Gradio measures its tabs a moment after the window has its size again
        # Of the many people of this test run some are enough to walk through.
        page.evaluate("() => [...document.querySelectorAll('#op-users tbody tr')].slice(3).forEach((r) => r.remove())")
        keys = Keyboard(page)
        stops = keys.round_trip()
        for one in keys.unseen:
            self.found.setdefault(one, []).append("by keys")
        return stops


@pytest.fixture
def check(picture):
    checker = Checker(picture)
    yield checker
    assert not checker.found, "\n".join(f"{line} ({', '.join(where)})" for line, where in checker.found.items())


def test_sign_in_and_account(house, visit_again, address, check):
    name = house.person()
    with house.sessions.begin() as session:
        link = factories.make_link(session, factories.accounts.get_user(session, name))
    with visit_again("", "/login") as page:
        for path in ("/login", f"/login/link/{link}", "/login/link/none"):
            page.goto(address + path)
            check(page, path[:12])
            if path == "/login/link/none":
                page.click("button")
                check(page, "used link")
        page.goto(address + "/login")
        page.fill("#name", "nobody")
        page.fill("#password", "wrong")
        page.click("button[type=submit]")
        check(page, "refused")
    with visit_again(name, "/set-password") as page:
        check(page, "set-password")
        for path in ("/operate/", "/logout"):
            page.goto(address + path)
            check(page, path)
        page.goto(address + "/account")
        page.click("summary")
        check(page, "account")
        check.reach(page)
        page.fill("#token-name", "shop")
        page.click("text=Make token")
        page.wait_for_selector(".problem")
        check(page, "account, a problem")
        page.fill("#token-name", "shop")
        page.check("[name=scope] >> nth=0")
        page.click("text=Make token")
        page.wait_for_selector("#made")
        check(page, "account, a token")


@pytest.fixture
def desk(house):
    """A person, and a function that makes a project with items for them to judge."""
    name = house.person()

    def project(kind=ItemKind.PAIR, count=2, items=1, turns=1, **settings):
        title = house.project(guidelines="# Be kind\n\nSay [why](https://example.com/).")
        with house.sessions.begin() as session:
            found = factories.projects.get_project(session, title)
            factories.projects.update_project(session, found, tags=["wrong fact", "no date"], **settings)
            for number in range(items):
                messages = [
                    {"role": ("user", "assistant")[n % 2], "content": f"Turn {n} of {number}: `code`."}
                    for n in range(turns)
                ]
                prompt = factories.prompts.add_prompt(session, found, messages, "test").row
                texts = [f"Reply **{n}** to all. See https://example.com/{n}." for n in range(count)]
                factories.make_item(session, found, prompt=prompt, texts=texts, kind=kind)
        return title

    return name, project


def test_a_pair(desk, visit_again, check):
    name, project = desk
    with visit_again(name, url_of(project(turns=5))) as page:
        page.wait_for_selector(ITEM)
        check(page, "pair")
        page.click(".fb-menu summary")
        check(page, "menu", ".fb-menu")
        page.keyboard.press("Escape")
        page.keyboard.press("1")
        page.fill("#fb-side-a .fb-critique textarea", "Too short")
        page.click("#fb-side-a .fb-tag >> nth=0")
        page.click("text=Rewrite B")
        page.fill("#fb-side-b .fb-rewrite textarea", "Something else altogether.")
        page.focus("#fb-side-b [data-plain]")
        page.keyboard.press("Enter")
        page.keyboard.press("Control+Home")
        page.keyboard.press("Shift+Control+ArrowRight")
        page.wait_for_selector("#fb-criticise")
        check(page, "a passage is chosen")
        page.keyboard.press("c")
        page.keyboard.type("Why?")
        check(page, "pair, criticised")
        page.keyboard.press("Escape")
        for panel in ("fb-guidelines", "fb-keys", "fb-flag-panel"):
            page.evaluate("id => window.feedback.openPanel(id)", panel)
            check(page, panel, f"#{panel}")
            page.keyboard.press("Escape")


@pytest.mark.parametrize(("kind", "count"), [(ItemKind.SINGLE, 1), (ItemKind.RANKING, 5)], ids=["single", "ranking"])
def test_other_items(desk, visit_again, check, kind, count):
    name, project = desk
    with visit_again(name, url_of(project(kind, count))) as page:
        page.wait_for_selector(ITEM)
        page.keyboard.press("2")
        page.keyboard.press("1")
        check(page, kind.value)


def test_judge_first_and_nothing_left(desk, visit_again, check):
    name, project = desk
    first, nothing = project(annotation_settings={"order": "judge_first", "daily_target": 5}), project(items=0)
    with visit_again(name, url_of(first)) as page:
        page.wait_for_selector(ITEM)
        check(page, "judge first")
        page.click("#fb-submit")
        page.wait_for_selector(".fb-notice")
        check(page, "a notice")
        page.keyboard.press("1")
        page.keyboard.press("Control+Enter")
        page.wait_for_selector("#fb-stage[data-state=empty]")
        check(page, "all judged")
        page.click("#fb-project input")
        page.wait_for_selector("[role=option]")
        check(page, "projects")
        page.fill("#fb-project input", nothing)  # the list shows the first hundred; all tests' projects are in it
        page.keyboard.press("Enter")
        page.wait_for_url(lambda url: url.endswith(nothing.replace(" ", "+")))
        page.wait_for_selector("#fb-stage[data-state=empty]")
        page.wait_for_selector(".fb-progress")
        check(page, "being written")


def test_my_annotations(desk, house, visit_again, check):
    name, project = desk
    title = project(items=3)
    with visit_again(name, "/mine/") as page:
        page.wait_for_selector(".mi-empty")
        check(page, "nothing said yet")
        with house.sessions.begin() as session:
            found, user = factories.projects.get_project(session, title), factories.accounts.get_user(session, name)
            factories.make_annotation(session, found, user)
            lease = factories.make_lease(session, found, user)
            said = factories.full_submission(lease, found)
            factories.annotations.submit(session, lease.assignment_id, user, said)
        page.reload()
        page.wait_for_selector(".mi-lines a")
        check(page, "mine")
        check.reach(page)
        page.click(".mi-lines a >> nth=0")
        page.wait_for_selector(".mi-change")
        check(page, "one")
        check.reach(page)
        page.click(".mi-change")
        page.wait_for_selector("#fb-submit")
        check(page, "revising")


def test_questions_and_what_became_of_critiques(told, house, visit_again, check):
    path = f"/questions?project={told.project.replace(' ', '%20')}"
    with visit_again(told.name, path) as page:
        page.wait_for_selector("text=It comes on Tuesday.")
        check(page, "is it fixed")
        check.reach(page)
        page.goto(page.url.split("/questions")[0] + "/critiques")
        check(page, "critiques")
    with visit_again(house.person(), path) as page:
        check(page, "a review")


def test_the_playground(desk, visit_again, check):
    name, project = desk
    with visit_again(name, url_of(project(), "play")) as page:
        page.wait_for_selector("#fb-stage[data-state=typing]")
        check(page, "playground")
        check.reach(page)
        pass_by(page)
        page.fill("#pl-box textarea", "Where is my order?")
        page.keyboard.press("Enter")
        page.wait_for_selector("#fb-stage[data-state=writing]", state="attached")
        check(page, "playground, writing")


def pass_by(page):
    """Come past the list of projects with the Tab key: Gradio calls that an input, the page knows better."""
    page.evaluate(
        "window.told = []; const { otherProject } = feedback;"
        " feedback.otherProject = (project) => { const other = otherProject(project); told.push(other); return other; }"
    )
    page.focus("#fb-project input")
    page.keyboard.press("Tab")
    page.wait_for_function("told.length")
    assert set(page.evaluate("told")) == {None}


def operated(house):
    """A project with everything that the operate page can show."""
    with house.sessions.begin() as session:
        project = fill(session, "letters to the shop", people=("Ann", "Ben", "Cleo")).project
        version = factories.make_version(session, project)
        base = factories.registry.base_version(session, project, "starter")
        prompt = factories.make_prompt(session, project)
        for text, writer in (("Old.", base), ("New.", version)):
            factories.make_completion(session, prompt, text, model_version_id=writer.id)
        run = factories.make_run(session, project, worker="w1")
        heartbeat(session, run.id, "w1", 25, 100)
        add_metrics(session, run.id, [MetricPoint(step, "loss", 1 / step) for step in range(1, 26)])
        add_metrics(session, run.id, [MetricPoint(step, "eval_accuracy", step / 40) for step in range(5, 26, 5)])
        add_log(session, run.id, ["step 25"])
        return project.name


def open_tab(page, name):
    page.set_viewport_size({"width": 1280, "height": 900})
    page.get_by_role("tab", name=name).click()


@pytest.mark.parametrize("full", [True, False], ids=["full", "empty"])
def test_operate(house, visit_again, check, full):
    name = house.person(Role.ADMIN)
    title, kind = (operated(house), "operate") if full else (house.project(), "empty")
    if full:
        webhooks.add_webhook(house.ctx, name, title, "https://shop.example/hook", ["run"])
    with visit_again(name, url_of(title, "operate")) as page:
        page.wait_for_selector("#op-preview p, #op-preview div.op-stats")
        if full:
            page.wait_for_selector("#op-plots canvas, #op-plots svg")
        check(page, f"{kind} Runs")
        if full:
            check.reach(page)
        for tab, seen in (
            ("Models", "#op-trend h3"),
            ("Data", "#op-webhook-shown p, #op-webhook-shown dl"),
            ("Quality", "#op-quality section"),
            ("Rules", "#op-rule-list :is(table, p)"),
            ("Gold", "#op-gold-items :is(table, p)"),
            ("Users", "#op-users table"),
            ("Project", "#op-members"),
        ):
            open_tab(page, tab)
            page.wait_for_selector(seen)
            check(page, f"{kind} {tab}")
            if full:  # which has all that the empty one has, and more
                check.reach(page)
            if tab == "Rules" and full:
                page.click("#op-rule-suggest")
                page.wait_for_selector("#op-rule-behind table")
                check(page, "a suggested rule")
            if tab == "Models" and full:
                page.click("text=Decide…")
                check(page, "deciding", "#op-decide-panel")
                page.keyboard.press("Escape")
            if tab == "Users" and full:
                page.fill("#op-invite-name input, #op-invite-name textarea", f"new {title}")
                page.click("#op-invite")
                page.wait_for_selector(".op-link input")
                check(page, "an invitation")
        pass_by(page)


def test_lineage(house, traced, visit_again, check):
    with house.sessions.begin() as session:
        said = session.get_one(Critique, traced.critique_id).annotation
        annotations.withdraw(session, said.id, said.user)
        number = said.id
    here = f"/lineage/{traced.project.replace(' ', '%20')}/{traced.version}"
    with visit_again(house.person(Role.OPERATOR), here) as page:
        check(page, "lineage")
        check.reach(page)
        page.click("#rebuild")
        page.wait_for_selector("#rebuild", state="detached")
        check(page, "lineage rebuilt")
        page.click("#rows a >> nth=1")
        check(page, "lineage only withdrawn")
        page.click(f"a[href$='annotation/{number}']")
        check(page, "lineage of annotation")


def test_compare(house, rivals, visit_again, check):
    here = f"/compare/{rivals.replace(' ', '%20')}"
    with visit_again(house.person(Role.OPERATOR), here) as page:
        check(page, "compare")
        page.locator("svg").first.scroll_into_view_if_needed()
        check(page, "compare curves")
        check.reach(page)
        page.click("summary")
        page.check("[value=policy-v0]")
        page.click("button")
        page.wait_for_selector("text=policy-v0 was not evaluated yet")
        page.locator("#texts").scroll_into_view_if_needed()
        check(page, "compare three")
        page.goto(page.url.split("?")[0] + "?v=policy-v1")
        check(page, "compare one")
