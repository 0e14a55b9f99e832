"""`feedback-app webhooks`: other programs that are told what happens."""

from sqlalchemy.orm import Session, sessionmaker

from storage import webhooks
from tests import factories
from tests.cli.conftest import Cli


def test_a_webhook_is_added_listed_looked_into_and_removed(cli: Cli, store: sessionmaker[Session]) -> None:
    with store.begin() as session:
        project = factories.make_project(session, "shop")
    added = cli("webhooks", "add", "https://shop.example/hook", "--event", "run", "--json").json
    assert added["events"] == ["run"]
    assert added["secret"].startswith("whsec_")
    with store.begin() as session:
        webhooks.announce(session, project.id, webhooks.WebhookEvent.RUN, {"run": 1})
        claimed = webhooks.claim_delivery(session, added["webhook"], lease=webhooks.DOWN_PAUSE)
        webhooks.note_failed(session, claimed, "HTTP 500", status=500)
    (listed,) = cli("webhooks", "list", "--json").json["webhooks"]
    assert (listed["url"], listed["last_error"]) == ("https://shop.example/hook", "HTTP 500")
    assert "secret" not in listed
    (row,) = cli("webhooks", "deliveries", added["webhook"], "--json").json["deliveries"]
    assert (row["attempts"], row["last_status"], row["delivered_at"]) == (1, 500, None)
    assert cli("webhooks", "remove", added["webhook"]).code == 0
    assert cli("webhooks", "list", "--json").json["webhooks"] == []
    assert "no webhook" in cli("webhooks", "deliveries", added["webhook"]).error


def test_addresses_inside_need_the_setting(cli: Cli, store: sessionmaker[Session], monkeypatch) -> None:
    with store.begin() as session:
        factories.make_project(session, "shop")
    refused = cli("webhooks", "add", "http://127.0.0.1:9/")
    assert (refused.code, "FEEDBACK_WEBHOOK_PRIVATE" in refused.error) == (1, True)
    monkeypatch.setenv("FEEDBACK_WEBHOOK_PRIVATE", "1")
    assert cli("webhooks", "add", "http://127.0.0.1:9/").code == 0
    assert "unknown event" in cli("webhooks", "add", "https://shop.example/", "--event", "sunrise").error
