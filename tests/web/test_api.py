"""The API for programs: what they send is stored as imports are, what they read is what is stored."""

from __future__ import annotations

import hashlib
import json
import threading

import pytest
from sqlalchemy import func, select

from storage import projects
from storage.enums import Outcome
from storage.models import Annotation, Completion, Critique, Item, Preference, Prompt, Rating, Refinement, Run, User
from tests.web.api_door import far_program, program


@pytest.fixture
def named(house):
    return house.project()


@pytest.fixture
def api(house, named):
    """A program whose token is for one project."""
    return program(house, project=named)


def rows_of(house, project, kind):
    with house.sessions() as session:
        found = projects.get_project(session, project)
        query = select(kind)
        if kind is Prompt:
            query = query.where(Prompt.project_id == found.id)
        elif kind is Annotation:
            query = query.join(Item).where(Item.project_id == found.id)
        elif kind in (Rating, Critique, Refinement, Preference):
            query = query.join(Annotation).join(Item).where(Item.project_id == found.id)
        return session.scalars(query.order_by(kind.id)).all()


def test_prompts_are_added_once_and_read_page_by_page(api):
    sent = ["One?", [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Two?"}], "One?"]
    first = api.post("/prompts", json={"prompts": sent}).json()["prompts"]
    assert [one["created"] for one in first] == [True, True, False]
    assert first[0]["id"] == first[2]["id"]
    again = api.post("/prompts", json={"prompts": ["One?", "Three?"]}).json()["prompts"]
    assert [one["created"] for one in again] == [False, True]
    page = api.get("/prompts", params={"limit": 2}).json()
    assert [one["messages"][-1]["content"] for one in page["prompts"]] == ["One?", "Two?"]
    rest = api.get("/prompts", params={"limit": 2, "after": page["next"]}).json()
    assert [one["messages"][-1]["content"] for one in rest["prompts"]] == ["Three?"]
    assert rest["next"] is None


def test_completions_become_items_to_judge(api):
    sets = [
        {"prompt": "Where is it?", "completions": ["Here.", "There."]},
        {"prompt": "Alone?", "completions": ["Yes."]},
        {"prompt": "Many?", "completions": ["a", "b", "c"]},
        {"prompt": "Stored only?", "completions": ["x", "y"], "judge": False},
    ]
    answer = api.post("/completions", json={"sets": sets})
    stored = answer.json()["sets"]
    assert [one["item_id"] is None for one in stored] == [False, False, False, True]
    items = api.get("/items", params={"status": "open"}).json()["items"]
    assert [item["kind"] for item in items] == ["pair", "single", "ranking"]
    assert [one["text"] for one in items[0]["completions"]] == ["Here.", "There."]
    assert api.post("/completions", json={"sets": sets}).json()["sets"] == stored


def everything(annotator="kim"):
    return {
        "annotator": annotator,
        "prompt": "Where is my parcel?",
        "completions": ["It left.", "It is on its way to you."],
        "thumb": "down",
        "ratings": [{"criterion": "quality", "value": 2}, {"criterion": "tone", "value": 5, "completion": 1}],
        "preference": {"outcome": "second", "strength": 3},
        "critiques": [{"text": "No date.", "tags": ["vague"], "fix": "It left on Monday.", "span": [0, 7]}],
        "refinements": [{"text": "It left on Monday.", "completion": 0}],
    }


def test_feedback_of_every_kind_is_stored_under_a_disabled_user(house, named, api):
    answer = api.post("/feedback", json={"feedback": [everything()]})
    assert answer.json() == {"stored": 1, "results": ["stored"]}
    (annotation,) = rows_of(house, named, Annotation)
    with house.sessions() as session:
        user = session.get_one(User, annotation.user_id)
        assert user.name == "import:api:kim"
        assert user.disabled_at is not None
        written = {row.id: row.text for row in session.scalars(select(Completion))}
    assert sorted(row.value for row in rows_of(house, named, Rating)) == [0, 2, 5]
    (preference,) = rows_of(house, named, Preference)
    assert (preference.outcome, preference.strength) == (Outcome.SECOND, 3)
    (critique,) = rows_of(house, named, Critique)
    assert (critique.text, critique.tags, critique.fix) == ("No date.", ["vague"], "It left on Monday.")
    assert written[critique.completion_id][critique.span_start : critique.span_end] == "It left"
    (refinement,) = rows_of(house, named, Refinement)
    assert (written[refinement.completion_id], written[refinement.refined_id]) == ("It left.", "It left on Monday.")


def test_feedback_that_is_there_or_clashes_is_said_so_entry_by_entry(house, named, api):
    other = everything() | {"preference": {"outcome": "first"}}
    sent = [everything(), everything(), other, everything("lee")]
    answer = api.post("/feedback", json={"feedback": sent}).json()
    # Told by record: the second equal one is known by its source, the third is another opinion of the same person.
    assert answer == {"stored": 2, "results": ["stored", "already there", "judged before", "stored"]}
    assert api.post("/feedback", json={"feedback": sent}).json()["stored"] == 0
    assert len(rows_of(house, named, Annotation)) == 2


def test_feedback_on_stored_completions_by_id(house, named, api):
    sets = [{"prompt": "Where?", "completions": ["Here.", "There."]}]
    stored = api.post("/completions", json={"sets": sets}).json()["sets"][0]
    entry = {"completion_ids": stored["completion_ids"], "preference": {"outcome": "first"}, "annotator": "kim"}
    assert api.post("/feedback", json={"feedback": [entry]}).json()["stored"] == 1
    by_prompt = {"prompt_id": stored["prompt_id"], "completions": ["Here."], "thumb": "up", "annotator": "kim"}
    assert api.post("/feedback", json={"feedback": [by_prompt]}).json()["stored"] == 1
    shown = api.get("/annotations").json()["annotations"]
    assert [one["annotator"] for one in shown] == ["import:api:kim"] * 2
    assert shown[0]["preferences"][0]["outcome"] == "first"
    assert shown[1]["ratings"][0]["criterion"] == "thumb"
    # The item of the queue has its judgement and is not served any more.
    items = api.get("/items").json()["items"]
    assert items[0]["judged"] == 1


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"ratings": [{"criterion": "beauty", "value": 3}]}, "no criterion 'beauty'"),
        ({"ratings": [{"criterion": "quality", "value": 9}]}, "from 1 to 5"),
        ({"critiques": [{"text": "x", "span": [0, 900]}]}, "span"),
        ({"critiques": [{"text": "x", "completion": 2}]}, "2 completions"),
        ({"completions": ["same", "same"]}, "the same"),
        ({"completions": None, "completion_ids": [1]}, "leave prompt"),
        ({"completion_ids": [1]}, "either completions"),
        ({"prompt": None}, "either prompt"),
        ({"prompt": [{"role": "assistant", "content": "Hello"}]}, "end with a message of the user"),
        ({"prompt": "x" * 200_001}, "200000"),
        ({"thumb": "sideways"}, "'up' or 'down'"),
        ({"annotator": "a\nb"}, "control characters"),
        ({"comment": "nice"}, "comment"),
        ({"completions": ["\ud800", "b"]}, "unicode"),
    ],
)
def test_what_is_wrong_with_feedback_is_said_in_one_line_and_nothing_is_stored(house, named, api, change, word):
    body = {"feedback": [everything("ok"), everything() | change]}
    answer = api.post("/feedback", content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.status_code == 422
    said = answer.json()
    assert word in said["error"] + said.get("mend", "")
    assert "\n" not in said["error"]
    assert len(said["error"]) < 1000
    assert rows_of(house, named, Prompt) == []


def test_ids_of_another_project_are_not_there(house, api):
    elsewhere = program(house, project=house.project(items=1))
    item = elsewhere.get("/items").json()["items"][0]
    ids = [one["id"] for one in item["completions"]]
    for entry in (
        {"completion_ids": ids, "preference": {"outcome": "tie"}},
        {"prompt_id": item["prompt_id"], "completions": ["x"], "thumb": "up"},
    ):
        assert api.post("/feedback", json={"feedback": [entry]}).status_code == 404
    sets = [{"prompt_id": item["prompt_id"], "completions": ["x"]}]
    assert api.post("/completions", json={"sets": sets}).status_code == 404


def test_one_bad_request_among_many_at_once_fails_alone(house, address, named):
    good = [{"feedback": [everything(f"p{n}")]} for n in range(12)]
    bad = {"feedback": [everything() | {"ratings": [{"criterion": "beauty", "value": 1}]}]}
    answers = {}
    barrier = threading.Barrier(13)

    def send(number, body):
        barrier.wait()
        answers[number] = api.post("/feedback", json=body).status_code

    with far_program(house, address, project=named) as api:
        threads = [threading.Thread(target=send, args=pair) for pair in enumerate([*good, bad])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert [answers[n] for n in range(13)] == [200] * 12 + [422]
    assert len(rows_of(house, named, Annotation)) == 12


def test_runs_are_queued_and_listed(house, api, named, idle_queue):
    api.post("/prompts", json={"prompts": ["One?"]})
    queued = api.post("/runs", json={"kind": "generate", "settings": {"seed": 3}})
    assert (queued.status_code, queued.json()["status"]) == (200, "queued")
    assert api.get("/runs").json()["runs"][0]["id"] == queued.json()["id"]
    with house.sessions() as session:
        assert session.get_one(Run, queued.json()["id"]).asked == {"seed": 3}
    assert [model["name"] for model in api.get("/models").json()["models"]] == ["policy-v0"]
    nothing_yet = api.post("/runs", json={"kind": "auto"})
    assert nothing_yet.status_code == 409, "it says what is missing, as `train auto` does"
    assert "too few for DPO" in nothing_yet.text
    too_little = api.post("/runs", json={"kind": "dpo"})
    assert too_little.status_code == 409
    assert "pairs" in too_little.json()["error"]
    assert api.post("/runs", json={"kind": "generate", "settings": {"colour": "red"}}).status_code == 422


@pytest.mark.usefixtures("no_download_left")
def test_exports_are_the_files_that_operators_download(api, named):
    api.post("/feedback", json={"feedback": [everything()]})
    answer = api.get("/export", params={"table": "annotations", "format": "jsonl"})
    assert answer.status_code == 200
    assert hashlib.sha256(answer.content).hexdigest() == answer.headers["x-sha256"]
    assert len(answer.text.splitlines()) == int(answer.headers["x-rows"]) == 1
    assert api.get("/export", params={"table": "users"}).status_code == 404


# --- once, whatever happens on the way ---


@pytest.mark.parametrize(
    ("path", "body", "other"),
    [
        ("/prompts", {"prompts": ["Once?"]}, {"prompts": ["Twice?"]}),
        ("/feedback", {"feedback": [everything()]}, {"feedback": [everything("lee")]}),
        ("/completions", {"sets": [{"prompt": "p", "completions": ["a"]}]}, {"sets": []}),
    ],
)
def test_a_key_gives_the_same_answer_again_and_is_for_one_request(api, path, body, other):
    key = {"idempotency-key": f"key-{path}"}
    first = api.post(path, json=body, headers=key)
    again = api.post(path, content=json.dumps(body, indent=2), headers={**key, "content-type": "application/json"})
    assert first.status_code == again.status_code == 200
    assert again.json() == first.json()
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    refused = api.post(path, json=other, headers=key)
    assert refused.status_code == 422
    if other.get("sets") != []:
        assert "another request" in refused.json()["error"]


def test_the_same_request_many_times_at_once_is_done_once(house, address, named):
    answers, barrier = [], threading.Barrier(8)

    def send(path, body, key):
        barrier.wait()
        answers.append(api.post(path, json=body, headers=key))

    with far_program(house, address, project=named) as api:
        for path, body in (("/feedback", {"feedback": [everything()]}), ("/prompts", {"prompts": ["a", "b"]})):
            answers.clear()
            key = {"idempotency-key": f"at-once-{path}"}
            threads = [threading.Thread(target=send, args=(path, body, key)) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            assert {answer.status_code for answer in answers} == {200}
            assert len({answer.text for answer in answers}) == 1
            assert sum("idempotency-replayed" in answer.headers for answer in answers) == 7
    assert len(rows_of(house, named, Annotation)) == 1


def test_a_request_that_failed_may_come_again_with_its_key(api):
    key = {"idempotency-key": "retry"}
    bad = {"feedback": [everything() | {"ratings": [{"criterion": "beauty", "value": 1}]}]}
    assert api.post("/feedback", json=bad, headers=key).status_code == 422
    assert api.post("/feedback", json={"feedback": [everything()]}, headers=key).json()["stored"] == 1


def test_a_thousand_prompts_at_once_and_no_more(house, named, api):
    assert api.post("/prompts", json={"prompts": [f"n {n}" for n in range(1000)]}).status_code == 200
    with house.sessions() as session:
        found = projects.get_project(session, named)
        assert session.scalar(select(func.count()).select_from(Prompt).where(Prompt.project_id == found.id)) == 1000
    assert api.post("/prompts", json={"prompts": ["x"] * 1001}).status_code == 422
