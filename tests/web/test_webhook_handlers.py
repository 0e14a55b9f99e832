"""The webhooks of a project on the operate page."""

from __future__ import annotations

import pytest

from feedback_app.handlers import webhooks as handlers
from feedback_app.pages import webhooks_part
from storage import projects, webhooks
from storage.enums import Role
from storage.errors import Invalid, NotAllowed, NotFound


def test_an_operator_adds_switches_looks_and_removes(house):
    name, project = house.person(Role.OPERATOR), house.project()
    view = handlers.add_webhook(house.ctx, name, project, "https://shop.example/?a=<b>", ["run"])
    number = view.selected.id
    with house.sessions.begin() as session:
        found = projects.get_project(session, project)
        webhooks.announce(session, found.id, webhooks.WebhookEvent.RUN, {"run": 1})
        claimed = webhooks.claim_delivery(session, number, lease=webhooks.DOWN_PAUSE)
        webhooks.note_failed(session, claimed, "<script>alert(1)</script>", status=500)
    view = handlers.see_webhooks(house.ctx, name, project, str(number))
    _, shown = webhooks_part._values(view)
    assert view.selected.secret in shown
    assert "&lt;script&gt;" in shown
    assert "<script>" not in shown
    assert handlers.switch_webhook(house.ctx, name, project, str(number)).selected.disabled_at is not None
    assert handlers.switch_webhook(house.ctx, name, project, str(number)).selected.disabled_at is None
    assert handlers.remove_webhook(house.ctx, name, project, str(number)).webhooks == []


def test_annotators_and_other_projects_are_kept_out(house):
    operator, project, other = house.person(Role.OPERATOR), house.project(), house.project()
    view = handlers.add_webhook(house.ctx, operator, project, "https://shop.example/", ["run"])
    with pytest.raises(NotAllowed):
        handlers.see_webhooks(house.ctx, house.person(), project)
    with pytest.raises(NotFound):
        handlers.remove_webhook(house.ctx, operator, other, view.selected.id)
    assert handlers.see_webhooks(house.ctx, operator, other, view.selected.id).selected is None


@pytest.mark.parametrize(("url", "events"), [("http://10.0.0.1/", ["run"]), ("https://a.example", []), (7, ["run"])])
def test_what_cannot_be_added_is_said(house, url, events):
    with pytest.raises(Invalid):
        handlers.add_webhook(house.ctx, house.person(Role.OPERATOR), house.project(), url, events)
    with pytest.raises(Invalid, match="choose a webhook"):
        handlers.switch_webhook(house.ctx, house.person(Role.OPERATOR), house.project(), None)
