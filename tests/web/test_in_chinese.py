"""Every page and every tab for somebody who reads Chinese, looked at in Chromium: no English word is left."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select

from feedback_app.handlers import account, webhooks
from feedback_app.handlers import project as project_handlers
from feedback_app.i18n import Reader, reading
from storage import accounts, playground, projects, prompts, turns
from storage.enums import ItemKind, Role, RunKind, RunStatus
from storage.models import Annotation, Critique, Item, Project
from storage.registry import base_version
from storage.runs import MetricPoint, add_log, add_metrics, claim_run, finish_run, heartbeat
from tests import factories
from tests.storage import golden
from tests.web.alone import address, house
from tests.web.conftest import PASSWORD
from tests.web.looking import ITEM, next_item, url_of
from tests.web.test_quality import fill
from tests.web.test_questions import told

__all__ = ["address", "house", "told"]

pytestmark = pytest.mark.usefixtures("idle_queue")
_numbers = itertools.count(1)

# What is read: everything that is shown, what style sheets add, and what those are told who listen.
SEEN = """data => {
  const found = [];
  const add = (node, text) => {
    if (text?.trim() && !node.closest(data)) found.push(text.trim());
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const around = node.parentElement;
    const choice = around.closest("select")?.checkVisibility();
    if (choice || around.checkVisibility({ visibilityProperty: true })) add(around, node.data);
  }
  for (const node of document.querySelectorAll("body *")) {
    if (!node.checkVisibility({ visibilityProperty: true })) continue;
    for (const name of ["aria-label", "aria-description", "placeholder", "title", "alt"]) {
      add(node, node.getAttribute(name));
    }
    for (const place of ["::before", "::after"]) {
      const added = getComputedStyle(node, place).content;
      if (added.startsWith('"')) add(node, added);
    }
  }
  return [document.documentElement.lang, document.title, ...found];
}"""
# Where data stand, and why each of them stays as it is.
DATA = {
    "bdi, .op-people b, #op-users b, #op-gold-people b": "names of people",
    "code, pre, kbd": "names of settings, the log, keys on a keyboard",
    "textarea": "what is being typed",
    "script, style, svg:not(.marks), .katex, [role=img] *": "nobody reads them",
    ".fb-text, #fb-prompt .message-content, q, .fb-diff, .mi-line": "what people and models wrote",
    ".text, .asked, .quoted, .tag, .op-compare p": "... on the page of questions and before and after",
    ".fb-brand, .brand": "the name of the program",
    ".wrap.hide .progress-text": "Gradio's own progress, which is never shown",
    "#op-exports td:first-child": "names of tables, as the command line takes them",
}
# Words that are the same in Chinese, and names.
SAME = {
    "Feedback|Markdown|Webhook|Parquet|Krippendorff|Dawid.Skene|[Aa]lpha|English|Beta|Chrome|Linux|Python|Git": "names",
    "JSON Lines|JSONL?|CSV|TSV|jsonl|csv|parquet|json|gz": "formats",
    "\u2068[^\u2069]*\u2069|(?:annotator|admin|project)[- ]\\d+|Question \\d+": "names and prompts of tests",
    r"(?:policy|reward)-v\d+|starter|(?:sha256 )?\b[0-9a-f]{12}\b": "names of model versions, and checksums",
    "Shift|Ctrl|Alt|Esc|Enter|Del": "keys on a keyboard",
    "read|write|export": "what a token may do, as the API calls it",
    "contains|lacks|matches": "kinds of format checks, as one types them",
    "KTO|DPO|SFT|SDFT|API|HTTP|POST|cron|UTC|ID|MB|[Tt]op-p": "abbreviations",
    r"https?://\S*|FEEDBACK_\w+|feedback-app [\w -]+|\w+=\S*|[a-z]+_[a-z_]+": "what one types as it stands",
}
# The form of a pair is there, and it is not that of the item before.
FRESH = "() => feedback.kind?.() === 'pair' && !document.querySelector('.fb-verdict [aria-pressed=true]')"
# What a tab of the operate page has shown once it is there; another tab: a card.
TABS = {
    "运行": "#op-preview :is(p, .op-stats)",
    "模型": "#op-trend h3",  # comes after the versions
    "数据": "#op-exports table",
    "质量": "#op-quality section",
    "标准条目": "#op-gold-items :is(table, p)",
    "用户": "#op-users table",
}


class Walk:
    """Reads pages and keeps what is not Chinese."""

    def __init__(self, picture: Any) -> None:
        self.picture = picture
        self.left: dict[str, str] = {}
        self.states = 0

    def __call__(self, page: Any, state: str, *data: str) -> None:
        """`data`: where this page shows what people wrote, beside `DATA`."""
        self.states += 1
        language, *texts = page.evaluate(SEEN, ", ".join([*DATA, *data]))
        assert language == "zh-CN"
        for text in texts:
            if re.search("[A-Za-z]{2,}", re.sub("|".join(SAME), "", text)):
                self.left.setdefault(text, state)
        self.picture(page, f"zh-{self.states}-{state}")


@pytest.fixture
def read(house: Any, picture: Any) -> Iterator[Walk]:
    reader = Walk(picture)
    yield reader
    assert reader.states
    with house.sessions() as session:
        names = set(session.scalars(select(Project.name)))  # of every test that shares the store
    left = [f"{state}: {text}" for text, state in reader.left.items() if text not in names]
    assert not left, "\n".join(left)


@pytest.fixture
def reader_of_chinese(house):
    """Makes people whose account says Chinese."""

    def make(role: Role = Role.ANNOTATOR) -> str:
        name = house.person(role)
        account.choose_language(house.ctx, name, "zh-CN")
        return name

    return make


def _add_item(session, project, kind, *texts, turns=1):
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": f"第{n}句，{len(texts)}"} for n in range(turns)]
    prompt = prompts.add_prompt(session, project, messages, "test").row
    return factories.make_item(session, project, prompt=prompt, texts=texts, kind=kind)


def _project(house, **settings):
    """A project as somebody makes it who reads Chinese."""
    with reading(Reader("zh-CN")):
        name = project_handlers.create(house.ctx, house.person(Role.ADMIN), f"项目{next(_numbers)}")
    with house.sessions.begin() as session:
        project = projects.get_project(session, name)
        said = {"guidelines": "# 友善", "tags": ["事实错误"], "annotation_settings": settings}
        projects.update_project(session, project, **said)
    return name


def test_signing_in_and_one_s_account(house, visit_again, address, read):
    name = house.person(password=True)
    with house.sessions.begin() as session:
        link = factories.make_link(session, accounts.get_user(session, name))
    with visit_again("", "/login?next=/account") as page:
        page.click("button[lang=zh-CN]")
        read(page, "login")
        page.fill("#name", name)
        page.fill("#password", "wrong")
        page.click("form[action='/login'] button")
        read(page, "refused")
        for path in (f"/login/link/{link}", "/login/link/none"):
            page.goto(address + path)
            read(page, "link")
        page.click("button")
        read(page, "used link")
        page.goto(address + "/login?next=/account")
        page.fill("#name", name)
        page.fill("#password", PASSWORD)
        page.click("form[action='/login'] button")
        page.click("summary")
        read(page, "account")
        page.fill("#token-name", "123")
        page.click("details button")
        page.wait_for_selector(".problem")
        read(page, "a problem")
        page.fill("#token-name", "123")
        page.check("[name=scope] >> nth=0")
        page.click("details button")
        page.wait_for_selector("#made")
        read(page, "a token")
        for path in ("set-password", "operate", "logout"):
            page.goto(f"{address}/{path}")
            read(page, path)


def test_annotating_every_kind_of_item(house, visit_again, read, reader_of_chinese):
    title = _project(house, daily_target=5, order="judge_first")
    with house.sessions.begin() as session:
        project = projects.get_project(session, title)
        _add_item(session, project, ItemKind.PAIR, "甲", "乙", turns=3)
        _add_item(session, project, ItemKind.SINGLE, "甲")
        _add_item(session, project, ItemKind.RANKING, "甲", "乙", "丙")
    with visit_again(reader_of_chinese(), url_of(title)) as page:
        for number in range(3):
            page.wait_for_selector(ITEM)
            kind = page.get_attribute("#fb-stage", "data-kind")
            page.wait_for_selector("#fb-side-a .fb-critique", state="attached")
            read(page, kind)
            page.click("#fb-submit")
            page.wait_for_selector(".fb-notice")
            for key in "123":
                page.keyboard.press(key)
            page.click("#fb-side-a .fb-rating label >> nth=0")
            page.fill("#fb-side-a .fb-critique textarea", "太短")
            if number == 0:  # it stays open
                page.click("#fb-side-a .fb-rewrite summary")
            page.fill("#fb-side-a .fb-rewrite textarea", "甲乙")
            page.click("#fb-side-a [data-plain]")
            read(page, f"{kind}, judged")
            if number == 0:
                page.click(".fb-menu summary")
                read(page, "menu")
                for panel in ("fb-guidelines", "fb-keys", "fb-flag-panel"):
                    page.evaluate("id => window.feedback.openPanel(id)", panel)
                    read(page, panel)
                page.evaluate("feedback.openPanel('fb-flag-panel'); document.getElementById('fb-flag').click()")
                page.wait_for_selector(".toast-body")
                read(page, "toast")
                page.keyboard.press("Escape")
            arrived = next_item(page)
            page.click("#fb-submit")
            arrived()
        page.wait_for_selector("#fb-stage[data-state=empty]")
        read(page, "nothing left")
        page.goto(page.url.split("/annotate")[0] + "/mine/")
        page.wait_for_selector(".mi-lines a")
        read(page, "mine")
        page.click(".mi-lines a >> nth=0")
        page.wait_for_selector(".mi-change")
        read(page, "one")
        page.click(".mi-change")
        page.wait_for_selector("#fb-submit")
        read(page, "revising")


def test_practice_and_nothing_at_all(house, visit_again, read, reader_of_chinese):
    title, empty = _project(house), _project(house)
    name = reader_of_chinese()
    with house.sessions.begin() as session:
        project = projects.get_project(session, title)
        golden.make_gold(session, project, 2, explanation="因为。")
        golden.ask(session, project, practice_items=2)
    with visit_again(name, url_of(title)) as page:
        for state in ("an answer", "how it went"):
            page.wait_for_selector("#fb-lesson h2")
            read(page, "before")
            page.click("#fb-go")
            page.wait_for_selector(ITEM + '[data-lesson="item"]')
            page.wait_for_function(FRESH)
            read(page, "a practice item")
            page.keyboard.press("1")
            for side in "ab":
                page.click(f"#fb-side-{side} .fb-rating label >> nth=0")
            page.click("#fb-submit")
            page.wait_for_selector('#fb-stage[data-lesson="shown"]', state="attached")
            page.wait_for_selector("#fb-lesson h2")
            read(page, state)
        page.goto(page.url.split("/annotate")[0] + url_of(empty))
        page.wait_for_selector("#fb-stage[data-state=empty]")
        read(page, "being written")
        page.goto(page.url.split("/annotate")[0] + "/mine/")
        page.wait_for_selector(".mi-empty")
        read(page, "nothing said")


@pytest.mark.usefixtures("idle_queue")  # it claims the oldest run
def test_the_playground(house, visit_again, read, reader_of_chinese):
    name, title = reader_of_chinese(), _project(house)
    with visit_again(name, url_of(title, "play")) as page:
        page.wait_for_selector("#pl-box textarea:focus")
        read(page, "talk")
        page.fill("#pl-box textarea", "你好")
        page.keyboard.press("Enter")
        page.wait_for_selector("#fb-stage[data-state=writing]", state="attached")
        read(page, "writing")
        with house.sessions.begin() as session:  # what a worker does
            project = projects.get_project(session, title)
            run = claim_run(session, "w", [RunKind.PLAYGROUND])
            turn = turns.turns_waiting(session, project.id)[0]
            assert turns.hand_over(session, turn, run.id)
            version = base_version(session, project, "starter")
            written = [turns.WrittenTurn(text, version.id, {}, 7, 3, -0.5, 20.0) for text in ("甲", "乙")]
            turns.enter_written(session, run.id, turn.key, written)
        page.wait_for_selector(ITEM, state="attached")
        read(page, "written")
        page.keyboard.press("1")
        page.click("#fb-submit")
        page.wait_for_selector("#fb-stage[data-state=judged]", state="attached")
        read(page, "judged")
        page.keyboard.press("1")
        page.wait_for_selector("#fb-stage[data-state=typing]", state="attached")
        with house.sessions.begin() as session:
            finish_run(session, run.id, "w", RunStatus.FAILED, error="it ended without a result")
            project, user = projects.get_project(session, title), accounts.get_user(session, name)
            talk = playground.my_conversation(session, project, user)
            talk.error = "the message is too long for this model; shorten it"
        page.reload()
        page.wait_for_selector("#pl-status[data-kind=bad]")
        read(page, "failed")


def test_questions_and_critiques(told, house, visit_again, read, reader_of_chinese):
    account.choose_language(house.ctx, told.name, "zh-CN")
    path = f"/questions?project={told.project.replace(' ', '%20')}"
    with visit_again(told.name, path) as page:
        read(page, "is it fixed")
        page.goto(page.url.split("/questions")[0] + "/critiques")
        read(page, "critiques")
    with visit_again(reader_of_chinese(), path) as page:
        read(page, "a review")
        page.goto(page.url.split("/questions")[0] + "/critiques")
        read(page, "no critiques")


def _operated(house):
    """A project with everything that the operate page can show."""
    with house.sessions.begin() as session:
        project = fill(session, "客服", people=("安", "本", "陈")).project
        for criterion in project.criteria:
            criterion.name = {"quality": "质量", "tone": "语气"}[criterion.name]
        written = select(Critique).join(Annotation).join(Item).where(Item.project_id == project.id)
        for critique in session.scalars(written):
            critique.tags = ["太短"]
        golden.make_gold(session, project, 1)
        golden.ask(session, project, practice_items=1, check_every=5)
        factories.make_version(session, project)
        version = factories.make_version(session, project)
        version.metrics = {"test_accuracy": 0.7, "test_loss": 0.6, "test_pairs": 40}
        run = factories.make_run(session, project, worker="w1")
        run.config = {"epochs": 2.0, "learning_rate": 1e-3, "early_stopping": True}
        run.asked = {"epochs": 2.0}
        run.environment = {"packages": {"trl": "1.16.0"}, "cores": 2}
        heartbeat(session, run.id, "w1", 25, 100)
        add_metrics(session, run.id, [MetricPoint(step, "loss", 1 / step) for step in range(1, 26)])
        add_metrics(session, run.id, [MetricPoint(step, "eval_accuracy", step / 40) for step in range(5, 26, 5)])
        add_log(session, run.id, ["step 25"])
        return project.name


@pytest.mark.parametrize("full", [True, False], ids=["full", "empty"])
def test_operating(house, visit_again, read, reader_of_chinese, full):
    name, title = reader_of_chinese(Role.ADMIN), _operated(house) if full else _project(house)
    if full:
        webhooks.add_webhook(house.ctx, name, title, "https://shop.example/hook", ["run"])
    with visit_again(name, url_of(title, "operate")) as page:
        page.wait_for_selector(TABS["运行"])
        if full:
            page.wait_for_selector("#op-plots svg")
        for tab in dict.fromkeys(page.locator("#op-tabs [role=tab]").all_inner_texts()):
            page.get_by_role("tab", name=tab, exact=True).first.click()
            page.locator(TABS.get(tab, ".op-card")).locator("visible=true").first.wait_for()
            read(page, tab)
        if full:
            _decide_invite_and_choose(page, read)


def _decide_invite_and_choose(page, read):
    page.get_by_role("tab", name="模型", exact=True).click()
    page.click("[data-panel=op-decide-panel]")
    read(page, "deciding")
    page.keyboard.press("Escape")
    page.get_by_role("tab", name="用户", exact=True).click()
    page.fill("#op-invite-name input, #op-invite-name textarea", "新人")
    page.click("#op-invite")
    page.wait_for_selector(".op-link input")
    read(page, "an invitation")
