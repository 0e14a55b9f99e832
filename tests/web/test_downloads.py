"""Exports over HTTP."""

from __future__ import annotations

import hashlib
import json

import pytest

from storage.enums import Role
from tests import factories


@pytest.fixture
def named(house):
    """A project with one annotation."""
    name = house.project()
    annotator = house.person()
    with house.sessions.begin() as session:
        found = factories.projects.get_project(session, name)
        factories.make_items(session, found, 1)
        factories.make_annotation(session, found, factories.accounts.get_user(session, annotator))
    return name


@pytest.mark.usefixtures("no_download_left")
@pytest.mark.parametrize("form", ["jsonl", "parquet", "csv"])
@pytest.mark.parametrize(
    "what", ["preference", "unpaired", "prompt-completion", "ratings", "critiques", "refinements", "annotations"]
)
def test_an_operator_downloads_every_table(house, as_user, named, what, form):
    answer = as_user(house.person(Role.OPERATOR)).get(f"/exports/{named}/{what}.{form}")
    assert answer.status_code == 200
    assert f"{what}.{form}" in answer.headers["content-disposition"]
    assert hashlib.sha256(answer.content).hexdigest() == answer.headers["x-sha256"]
    if (what, form) == ("preference", "jsonl"):
        rows = [json.loads(line) for line in answer.text.splitlines()]
        assert len(rows) == int(answer.headers["x-rows"]) == 1
        assert {"prompt", "chosen", "rejected"} <= rows[0].keys()


@pytest.mark.usefixtures("no_download_left")
@pytest.mark.parametrize("asked", ["bytes=x", "bytes=9999999-", "bytes=0-3"])
def test_a_file_that_is_refused_or_sent_in_part_is_not_kept_either(house, as_user, named, asked):
    address = f"/exports/{named}/annotations.jsonl"
    answer = as_user(house.person(Role.OPERATOR)).get(address, headers={"range": asked})
    assert answer.status_code == {"bytes=x": 400, "bytes=9999999-": 416, "bytes=0-3": 206}[asked]


def test_nobody_else_downloads_anything(house, client, as_user, named):
    path = f"/exports/{named}/preference.jsonl"
    assert client.get(path).status_code == 401
    browser = client.get(path, headers={"accept": "text/html"})
    assert browser.headers["location"].startswith("/login?next=/exports/")
    refused = as_user(house.person()).get(path)
    assert refused.status_code == 403
    assert "chosen" not in refused.text


@pytest.mark.parametrize("path", ["none/preference.jsonl", "{}/users.jsonl", "{}/preference.exe", "{}/preference.hf"])
def test_what_is_not_there_is_said_in_one_line(house, as_user, named, path):
    answer = as_user(house.person(Role.OPERATOR)).get("/exports/" + path.format(named))
    assert answer.status_code == 404
    assert "\n" not in answer.json()["error"]
