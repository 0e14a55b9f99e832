"""The API against its own description: made-up requests, good and bad, get no 5xx and only what was promised."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    ignored_auth,
    missing_required_header,
    negative_data_rejection,
    positive_data_acceptance,
)
from sqlalchemy import update

from feedback_app.api import PATH
from storage.enums import RunStatus
from storage.models import Run
from tests.web.api_door import make_token
from tests.web.test_api_access import CALLS

EXAMPLES = 12
# Left out: that all good requests succeed (a made-up project is not there), that unknown query parameters are refused
# (they are ignored, as everywhere), and authentication, which `test_api_access` holds route by route.
LEFT_OUT = [positive_data_acceptance, negative_data_rejection, missing_required_header, ignored_auth]


@pytest.fixture(scope="module")
def described(house, address) -> Any:
    """The description and the header of a token for a project of its own.

    Over a real port: inside the process the lifespan would run, and end, once more, and with it the pages' queues.
    """
    headers = {"Authorization": f"Bearer {make_token(house, project=house.project(items=2))}"}
    yield schemathesis.openapi.from_url(f"{address}{PATH}/openapi.json", headers=headers), headers
    with house.sessions.begin() as session:  # made-up runs must not be another test's
        unfinished = update(Run).where(Run.status.in_((RunStatus.QUEUED, RunStatus.RUNNING)))
        session.execute(unfinished.values(status=RunStatus.CANCELLED))


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.name.lower())
@pytest.mark.parametrize(("method", "path"), CALLS)
def test_what_is_made_up_is_answered_as_described(described, method, path, mode):
    schema, headers = described
    operation = schema[path][method]

    @seed(7)  # the same requests every time
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case):
        case.call_and_validate(headers=headers, excluded_checks=LEFT_OUT)

    ask()
