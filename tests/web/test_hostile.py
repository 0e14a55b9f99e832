"""Hostile input through every door: it is refused in one line, or stored and shown as the plain text that it is."""

from __future__ import annotations

import csv
import io
import json

import pytest

from feedback_app.handlers import data
from storage import projects
from storage.enums import Role
from storage.errors import NotFound
from storage.spreadsheets import unguarded
from tests.web.api_door import program

SCRIPT = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
REMOTE = "![see](https://evil.example/a.png) <img src='https://evil.example/b.png'><iframe src='https://evil.example/'>"
RIGHT_TO_LEFT = "שלום \u202egnp.exe\u202c مرحبا"
CONTROL = "a\x00b\x07c\x1b[31md\u2028e\ufefff"
FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", '=HYPERLINK("https://evil.example")', "'=1"]


@pytest.fixture
def named(house):
    return house.project()


@pytest.fixture
def api(house, named):
    return program(house, project=named)


def send(api, completions, **more):
    entry = {"annotator": "kim", "prompt": "Why?", "completions": completions, "thumb": "down", **more}
    return api.post("/feedback", json={"feedback": [entry]})


def exported(api, table, form):
    answer = api.get("/export", params={"table": table, "format": form})
    assert answer.status_code == 200
    return answer.text


def test_scripts_and_remote_images_in_completions_stay_words_in_the_browser(house, visit, address):
    texts = [
        f"# Reply one\n\n{SCRIPT}\n\n{REMOTE}",
        f"# Reply two\n\n[x](javascript:document.title='taken')\n\n{REMOTE}",
    ]
    project, annotator = house.project(), house.person()
    sets = [{"prompt": f"Show me {SCRIPT} {REMOTE}", "completions": texts}]
    assert program(house, project=project).post("/completions", json={"sets": sets}).status_code == 200
    with visit(annotator, "/login") as page:
        outside, blocked, dialogs = [], [], []
        page.on("response", lambda response: outside.append(response.url))
        page.on("requestfailed", lambda request: blocked.append((request.url, request.failure)))
        page.on("dialog", lambda dialog: dialogs.append(dialog.message))
        page.goto(f"{address}/annotate/?project={project}")
        page.get_by_text("Reply one").first.wait_for()
        page.get_by_text("Reply two").first.wait_for()
        page.wait_for_timeout(500)
        assert page.title() != "taken"
        assert page.locator("iframe").count() == 0
        assert page.locator("a[href^='javascript:']").count() == 0
        assert page.evaluate("document.querySelectorAll('[onerror]').length") == 0
    assert [url for url in outside if not url.startswith((address, "data:", "blob:"))] == []
    # What the Markdown asks for is stopped inside the browser by the content policy: nobody is even looked up.
    away = [why for url, why in blocked if "evil.example" in url]
    assert away
    assert set(away) == {"csp"}
    assert dialogs == []


def test_formulas_leave_as_text_in_csv(api):
    for number, cell in enumerate(FORMULAS):
        send(api, [f"{cell} {number}"], critiques=[{"text": f"={cell}", "fix": cell}])
    rows = list(csv.DictReader(io.StringIO(exported(api, "critiques", "csv"))))
    assert len(rows) == len(FORMULAS)
    for row in rows:
        for cell in row.values():
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r")), cell
    assert {unguarded(row["critique"]) for row in rows} == {f"={cell}".strip() for cell in FORMULAS}


def test_control_characters_and_right_to_left_text_come_out_as_they_went_in(api):
    said = send(api, [RIGHT_TO_LEFT, CONTROL], critiques=[{"text": RIGHT_TO_LEFT}])
    assert said.json()["stored"] == 1
    kept = [one["text"] for one in api.get("/items").json()["items"][0]["completions"]]
    assert kept == [RIGHT_TO_LEFT, CONTROL.replace("\x00", "\ufffd")]  # a NUL is what PostgreSQL cannot hold
    (row,) = [json.loads(line) for line in exported(api, "critiques", "jsonl").splitlines()]
    assert row["critique"] == RIGHT_TO_LEFT
    # Names are shown in lists and written to logs: no control characters there.
    assert send(api, ["x"], annotator="kim\x1b[31m").status_code == 422
    assert send(api, ["x"], annotator="kim\u202e").status_code == 422


def test_a_prompt_of_a_megabyte_is_refused_by_the_api_in_one_line(api):
    answer = api.post("/prompts", json={"prompts": ["ü" * 2**20]})
    assert answer.status_code == 422
    assert "200000" in answer.json()["error"]
    assert len(answer.content) < 1000  # what was sent is not sent back


def test_a_prompt_of_a_megabyte_from_a_file_is_stored_and_the_pages_open(house, as_user, named):
    name = house.person(Role.OPERATOR)
    upload = house.settings.home / "tmp" / "uploads" / "large.jsonl"
    long = "word " * 200_000
    upload.write_text(json.dumps({"prompt": long, "chosen": "a", "rejected": "b"}) + "\n")
    report = data.import_file(house.ctx, name, named, str(upload), "auto")
    assert (report.prompts, report.pairs) == (1, 1)
    assert data.see_data(house.ctx, name, named).counts
    api = program(house, project=named)
    assert len(api.get("/prompts").json()["prompts"][0]["messages"][0]["content"]) == len(long)
    (row,) = exported(api, "preference", "jsonl").splitlines()
    assert long.strip() in json.loads(row)["prompt"][0]["content"]


def test_ten_thousand_at_once_are_refused_by_the_api_and_taken_from_a_file(house, named, api):
    many = [{"prompt": f"n {n}", "completions": ["a", "b"], "preference": {"outcome": "first"}} for n in range(10_000)]
    refused = api.post("/feedback", json={"feedback": many})
    assert refused.status_code == 422
    assert "1000" in refused.json()["error"]
    upload = house.settings.home / "tmp" / "uploads" / "many.jsonl"
    upload.write_text(
        "\n".join(json.dumps({"prompt": f"n {n}", "chosen": "a", "rejected": "b"}) for n in range(10_000))
    )
    report = data.import_file(house.ctx, house.person(Role.OPERATOR), named, str(upload), "auto")
    assert report.prompts == 10_000


@pytest.mark.parametrize("path", ["/etc/passwd", "../feedback.db", "uploads/../../feedback.db", "\x00", "~/x", "."])
def test_an_upload_cannot_name_another_file(house, named, path):
    uploads = house.settings.home / "tmp" / "uploads"
    for given in (path, f"{uploads}/{path}"):
        with pytest.raises((NotFound, ValueError)):
            data.import_file(house.ctx, house.person(Role.OPERATOR), named, given, "auto")
    assert (house.settings.home / "feedback.db").exists()


@pytest.mark.parametrize(
    "path", ["../../feedback.db", "..%2f..%2ffeedback.db", "%2e%2e/%2e%2e/feedback.db", "a%00.jsonl"]
)
def test_a_download_cannot_name_another_file(house, as_user, api, path):
    operator = as_user(house.person(Role.OPERATOR))
    for address in (f"/exports/{path}", f"/exports/p/{path}.jsonl", f"/static/{path}"):
        answer = operator.get(address)
        assert answer.status_code in (404, 405, 400), address
        assert b"SQLite format" not in answer.content
    assert api.get("/export", params={"table": f"../{path}"}).status_code == 404
    assert api.get("/export", params={"format": f"jsonl/../../{path}"}).status_code == 404


def test_a_project_named_like_a_path_gives_a_harmless_file_name(house):
    name = house.project()
    with house.sessions.begin() as session:
        projects.get_project(session, name).name = odd = f'../../e"tc; filename=x.sh {name}'
    answer = program(house, project=odd).get("/export")
    shown = answer.headers["content-disposition"]
    assert answer.status_code == 200
    assert ".." not in shown
    assert "/" not in shown.split("filename=", 1)[1]


def test_deep_and_odd_json_is_refused_without_a_fault(api):
    kind = {"content-type": "application/json"}
    for body in (
        b"[" * 100_000,
        b'{"prompts":' + b"[" * 50_000,
        b"\xff\xfe",
        b"",
        b"null",
        b'{"prompts":[NaN]}',
        b"{}",
    ):
        answer = api.post("/prompts", content=body, headers=kind)
        assert answer.status_code in (400, 422), body[:20]
        assert answer.json()["error"]
