"""The pages in the languages people read: nothing untranslated, nothing translated in vain, and who gets which."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from functools import partial

import pytest
from starlette.requests import HTTPConnection

from feedback_app import plots
from feedback_app.i18n import (
    ENGLISH,
    LANGUAGES,
    Reader,
    catalogue,
    clock,
    fill,
    later,
    message,
    moment,
    of_scripts,
    plural,
    reading,
    sentence,
    t,
)
from feedback_app.i18n.edge import asked_for, find_reader
from storage import live_figures
from storage.configs import GenerateConfig, PlaygroundConfig
from storage.critique_configs import RECIPES, RefineConfig
from storage.enums import (
    BlindTestState,
    CycleStep,
    GateVerdict,
    PairSource,
    Role,
    RuleState,
    RunKind,
    RunStatus,
    Split,
    StepState,
    VersionStatus,
)
from storage.gate_configs import POLICY_BARS, REWARD_BARS
from storage.queue import QueueCounts
from storage.webhooks import WebhookEvent
from tests import spoken

OTHERS = [language for language in LANGUAGES if language != ENGLISH]
CHINESE = partial(reading, Reader("zh-CN"))
# Shown by their names in the code: states, kinds and counts.
NAMED = {
    *(one.value for kind in (Role, RuleState, RunStatus, RunKind, VersionStatus, WebhookEvent) for one in kind),
    *(one.value for kind in (CycleStep, StepState) for one in kind),
    *(label for plot in (plots.LOSS, plots.ACCURACY) for label in (plot.title, *(line[1] for line in plot.lines))),
    *(f"{split.value} pairs" for split in Split),
    *QueueCounts._fields,
    *(one.value for kind in (GateVerdict, BlindTestState) for one in kind),
    *live_figures.NAMES[1:],
    *(name.replace("_", " ") for name in (*POLICY_BARS, *REWARD_BARS)),
    *("tainted", "in force", "revoked", "expired", "active", "no password yet", "disabled", "erased"),
    *("items", "preferences", "ratings", "rankings", "annotators", "withdrawn", ", "),
    # What training uses and leaves out.
    *(source.value.replace("_", " ") for source in PairSource),
    *("tie", "both bad", "below margin", "disagreement", "same text", "judged", "criticised"),
}
CONFIGS = (*(recipe.config for recipe in RECIPES.values()), RefineConfig, GenerateConfig, PlaygroundConfig)
# What a run is told has names in code only; so have its figures, which come as they come.
NAMED |= {name.replace("_", " ") for kind in CONFIGS for name in kind.model_fields}
# Raised only where no page is: on the command line, in the API, while the program starts.
ELSEWHERE = {"artifacts.py", "backup.py", "engine.py", "idempotency.py", "schema.py", "snapshot_diff.py", "server.py"}


def _part(language: str, name: str) -> dict[str, str]:
    found: dict[str, str] = json.loads((spoken.APP / "i18n" / language / f"{name}.json").read_text())
    return found


@pytest.mark.parametrize("language", OTHERS)
def test_every_text_is_translated_and_every_translation_is_used(language):
    said = NAMED | {text for path in spoken.pages() for text in spoken.texts(path)}
    in_scripts = {text for path in spoken.SCRIPTS for text in spoken.script_texts(path)}
    assert said - set(catalogue(language)) == set()
    assert in_scripts - set(of_scripts(language)) == set()
    strings = spoken.strings("storage", "trainer", "feedback_app")
    scripts = "".join(path.read_text() for path in spoken.SCRIPTS)
    unused = {text for text in of_scripts(language) if json.dumps(text, ensure_ascii=False) not in scripts}
    unused |= {text for text in _part(language, "messages") if text not in strings}
    named = set(_part(language, "names"))
    assert unused | (set(catalogue(language)) - said - named - set(of_scripts(language)) - strings) == set()


@pytest.mark.parametrize("language", OTHERS)
def test_every_error_that_a_page_can_show_is_translated(language):
    rooms = [path for room in ("storage", "trainer") for path in sorted((spoken.ROOT / room).rglob("*.py"))]
    files = [path for path in rooms if path.parent.name not in ("export", "starter")]
    raised = {
        (path.name, text)
        for path in files + spoken.pages()
        if path.name not in ELSEWHERE
        for text in spoken.errors(path)
    }
    # ... and how the process of a run ended.
    ends = {"launch.py": "failure", "run.py": "explain", "posting.py": "_reason", "lane.py": "_reason"}
    raised |= {
        (name, text) for name, way in ends.items() for text in spoken.returned(spoken.ROOT / "trainer" / name, way)
    }
    known = _part(language, "messages")
    assert {one for one in raised if one[1] not in known} == set()


@pytest.mark.parametrize("language", OTHERS)
def test_a_translation_keeps_the_places_of_values_and_is_the_same_everywhere(language):
    seen: dict[str, str] = {}
    for part in sorted((spoken.APP / "i18n" / language).glob("*.json")):
        pairs: list[tuple[str, str]] = json.loads(part.read_text(), object_pairs_hook=list)
        assert len({key for key, _ in pairs}) == len(pairs), f"{part.name} says something twice"
        for key, value in pairs:
            # Adjoining values are one.
            places = [set(re.findall(r"\{\w+\}", text)) for text in (key, value)]
            assert places[0] == places[1], f"{part.name}: {key}"
            # Fixed texts are put into JSON and HTML as they are.
            assert part.name == "messages.json" or not re.search(r"[<>&\\]", value), f"{part.name}: {key}"
            if part.name != "messages.json":  # there a word stands in a sentence
                assert seen.setdefault(key, value) == value, f"{part.name}: {key}"


def test_nothing_reaches_a_page_without_going_through_the_translations():
    bare = [line for path in spoken.pages() if path.parent.name == "pages" for line in spoken.bare(path)]
    assert bare + [line for path in spoken.SCRIPTS for line in spoken.bare_in_script(path)] == []


def test_texts_are_in_the_reader_s_language_and_in_english_outside_of_pages():
    with CHINESE():
        assert t("Sign in with {provider}", provider="Acme") == "使用 Acme 登录"
        assert plural(1, "{n} annotation", "{n} annotations") == plural(
            1234, "{n} annotation", "{n} annotations"
        ).replace("1,234", "1")
        assert fill(f"<b>{later('Submit')}</b> {later('{letter} is better', letter='A')}") == "<b>提交</b> A 更好"
        assert sentence(message("choose a file first")) == "请先选择文件。"
        assert t("Nobody has translated this") == "Nobody has translated this"
    assert fill(f"<b>{later('Submit')}</b>") == "<b>Submit</b>"
    assert plural(1, "{n} annotation", "{n} annotations") == "1 annotation"
    assert plural(1234, "{n} annotation", "{n} annotations") == "1,234 annotations"
    assert sentence("choose a file first") == "Choose a file first."


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("at most 20 criteria; annotators answer each of them for each completion", "最多 20 条评分标准"),
        ("only operators may manage users; ask one of them", "只有运营人员可以管理用户"),
        ("daily target: give a whole number (got 'x')", "每日目标：请填写整数"),
        # A name that people gave is no word of ours.
        ("the user name 'reason' is taken; choose another", "用户名“reason”已被使用"),
        ("the disk that holds the database is full; free some space, then try again (quota)", "（quota）"),
        ("something that nobody foresaw", "something that nobody foresaw"),
    ],
)  # fmt: skip
def test_an_error_is_told_by_its_pattern(line, told):
    with CHINESE():
        assert told in message(line)
    assert message(line) == line


@pytest.mark.parametrize(
    ("accept", "language"),
    [
        ("", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh-CN"),
        ("zh-Hant-TW, en;q=0.5", "zh-CN"),
        ("de, en;q=0.5, zh;q=0.4", "en"),
        ("en;q=0, zh;q=0.1", "zh-CN"),
        ("tlh;q=x, *", "en"),
        ("en-GB", "en"),
    ],
)
def test_the_browser_asks_for_a_language(accept, language):
    assert asked_for(accept) == language


def _request(cookie: str, accept: str = "en") -> HTTPConnection:
    headers = [(b"cookie", cookie.encode()), (b"accept-language", accept.encode())]
    return HTTPConnection({"type": "http", "headers": headers})


def test_the_account_s_setting_comes_before_this_browser_s_and_that_before_what_it_asks_for():
    assert find_reader(_request("feedback_language=zh-CN")).language == "zh-CN"
    assert find_reader(_request("feedback_language=zh-CN"), "en").language == "en"
    assert find_reader(_request("feedback_language=tlh", "zh")).language == "zh-CN"


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../../etc/passwd", "/etc/passwd", "Europe", "a" * 9999])
def test_a_time_zone_that_is_none_counts_as_utc(zone):
    assert find_reader(_request(f"feedback_zone={zone}")).zone == "UTC"


def test_times_are_the_reader_s():
    at = datetime(2026, 11, 22, 18, 3, tzinfo=UTC)
    with reading(find_reader(_request("feedback_zone=Asia/Shanghai"))):
        assert (moment(at), clock(at)) == ("2026-11-23 02:03", "02:03")
    assert moment(at) == "2026-11-22 18:03 UTC"
