"""After a promotion: figures by version, alerts when they fall below the predecessor's, and the way back by itself."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from storage import annotations, monitoring, registry, sequential, webhooks
from storage.annotations import CritiqueInput, PreferenceInput, RatingInput, Submission
from storage.enums import ItemKind, Outcome, ResolutionVerdict, VersionStatus
from storage.gate_configs import GateSettings
from storage.live_figures import Live, trends
from storage.models import Alert, Completion, ModelVersion, Resolution, utc_now
from storage.monitoring import as_shown, open_alerts, recent_alerts, watch
from storage.projects import update_project
from tests import factories
from trainer.schedule import watch_champions

LEAST = 8


class Service:
    """A project whose base model was judged, and a version that was promoted over it."""

    def __init__(self, session: Session, **gate: object) -> None:
        self.session = session
        self.project = factories.make_project(session)
        update_project(session, self.project, gate_settings={"watch_least": LEAST, **gate})
        self.base = registry.base_version(session, self.project, "starter")
        self.ann = factories.make_user(session)
        self.rate(self.base, 4, 4, 4, 4, 5, 4, 4, 4, 3)
        self.version = factories.make_version(session, self.project)
        registry.promote(session, self.version, None, "better")

    def rate(self, version: ModelVersion, *values: int) -> None:
        """One judgement for each value."""
        criteria = self.project.criteria
        for value in values:
            factories.make_item(self.session, self.project, kind=ItemKind.SINGLE, version=version)
            lease = factories.make_lease(self.session, self.project, self.ann)
            said = [RatingInput(lease.completions[0][0], one.id, value) for one in criteria]
            annotations.submit(self.session, lease.assignment_id, self.ann, Submission(ratings=said))

    def compare(self, better: ModelVersion, worse: ModelVersion, times: int) -> None:
        """Comparisons of the two, all won by one."""
        for _ in range(times):
            item = factories.make_item(self.session, self.project)
            for place, by in enumerate((better, worse)):
                self.session.get_one(Completion, item.members[place].completion_id).model_version_id = by.id
            self.session.flush()
            lease = factories.make_lease(self.session, self.project, self.ann)
            first, second = (one[0] for one in lease.completions)
            by_better = self.session.get_one(Completion, first).model_version_id == better.id
            outcome = Outcome.FIRST if by_better else Outcome.SECOND
            said = Submission(preference=PreferenceInput(first, second, outcome))
            annotations.submit(self.session, lease.assignment_id, self.ann, said)

    def resolve(self, verdict: ResolutionVerdict) -> None:
        """An old critique, and what its author says of the version's new answer."""
        factories.make_item(self.session, self.project, kind=ItemKind.SINGLE, version=self.base)
        lease = factories.make_lease(self.session, self.project, self.ann)
        said = Submission(critiques=[CritiqueInput(lease.completions[0][0], "No date.")])
        row = annotations.submit(self.session, lease.assignment_id, self.ann, said)
        written = factories.make_completion(self.session, row.item.prompt, model_version_id=self.version.id)
        self.session.add(
            Resolution(
                critique_id=row.critiques[0].id, completion_id=written.id, version_id=self.version.id, held_out=False,
                verdict=verdict, user_id=self.ann.id, judged_at=utc_now(),
            )
        )  # fmt: skip
        self.session.flush()


def test_a_champion_that_falls_below_raises_one_alert_that_ends_when_it_is_back(session: Session) -> None:
    service = Service(session)
    webhooks.add_webhook(session, service.project, "https://shop.example/hook", ["alert"])
    service.rate(service.version, *[2] * (LEAST - 1))
    assert watch(session, service.project) == []  # too few
    service.rate(service.version, 3)
    assert monitoring.needs_watching(session, service.project)
    (alert,) = watch(session, service.project)
    assert alert.text == "rating of policy-v1 is 2.12 on 8 judgements; policy-v0 had 4.00 when it was replaced"
    assert watch(session, service.project) == []
    assert not monitoring.needs_watching(session, service.project)
    assert len(webhooks.last_deliveries(session, webhooks.list_webhooks(session, service.project)[0])) == 1
    assert registry.champion(session, service.project) is service.version  # nothing rolls back unless it is told to
    service.rate(service.version, *[5] * 20)
    assert watch(session, service.project) == []
    assert open_alerts(session, service.project) == []
    assert [one.id for one in recent_alerts(session, service.project)] == [alert.id]


def test_it_rolls_back_by_itself_where_the_project_says_so(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        service = Service(session, roll_back=True)
        service.compare(service.base, service.version, LEAST + 4)
        project_id = service.project.id
    (alert_id,) = watch_champions(sessions)
    assert watch_champions(sessions) == []
    with sessions() as session:
        alert = session.get_one(Alert, alert_id)
        assert alert.text == "policy-v1 wins 0% of 12 comparisons with policy-v0"
        assert (alert.name, alert.figures["rolled_back_to"]) == ("win_rate", "policy-v0")
        assert alert.ended_at is not None
        states = {row.name: row.status for row in session.scalars(select(ModelVersion))}
        assert states == {"policy-v0": VersionStatus.CHAMPION, "policy-v1": VersionStatus.RETIRED}
        assert project_id == alert.project_id


def test_the_trend_has_every_figure_of_every_version_that_somebody_judged(session: Session) -> None:
    service = Service(session)
    factories.make_version(session, service.project)
    service.compare(service.version, service.base, 3)
    service.compare(service.base, service.version, 1)
    for verdict in (ResolutionVerdict.FIXED, ResolutionVerdict.NOT):
        service.resolve(verdict)
    base, version = trends(session, service.project)
    assert (base.version.name, version.version.name) == ("policy-v0", "policy-v1")
    assert [base.figures[name].value for name in ("win_rate", "rating")] == [0.25, 4.0]
    assert [(one.value, one.n) for one in version.figures.values()] == [(0.75, 4), (None, 0), (0.5, 2)]
    low, high = version.figures["win_rate"].bounds()
    assert low is not None
    assert high is not None
    assert low < 0.75 < high
    told = as_shown(session, service.project)
    assert told["champion"]["instead_of"] == "policy-v0"
    assert [(one["name"], one["live"]["n"]) for one in told["champion"]["figures"]] == [
        ("win_rate", 4), ("rating", 0), ("resolution", 2),
    ]  # fmt: skip
    assert told["alerts"] == []


def test_looking_all_the_time_raises_no_more_alarms_for_nothing_than_the_error_says() -> None:
    """600 champions that are as good as what they replaced, looked at after each of 1,200 judgements."""
    champions, judgements, error, least = 600, 1200, GateSettings().watch_error, GateSettings().watch_least
    chance = np.random.default_rng(7)
    n = np.arange(1, judgements + 1)
    seen = n >= least
    alarms, naive = 0.0, 0.0
    for name, draw in {
        "rating": lambda *shape: chance.choice([1.0, 2, 3, 4, 5], shape, p=[0.05, 0.1, 0.2, 0.4, 0.25]),
        "resolution": lambda *shape: (chance.random(shape) < 0.85).astype(float),
        "win_rate": lambda *shape: (chance.random(shape) < 0.5).astype(float),
    }.items():
        live, fixed = draw(champions, judgements), name == "win_rate"
        means = live.cumsum(1) / n
        variances = (live**2).cumsum(1) / n - means**2
        before = draw(champions, 300)
        hold = np.full(champions, 0.5) if fixed else before.mean(1)
        # What `_compare` allows depends on n and the two variances alone: asked for two variances, it says it for all.
        share = error / 3 / (1 if fixed else 2)
        far = np.array([sequential.reach(int(one), share, 4 * least) for one in n])
        if name == "rating":
            variances = (4 + n * variances) / (n + 1)
        else:
            drawn = (means * n + 2) / (n + 4)
            variances = drawn * (1 - drawn)
        apart = np.zeros(champions) if fixed else before.std(1) / np.sqrt(300)
        room = np.sqrt(variances) * far + (apart * NormalDist().inv_cdf(1 - share / 2))[:, None]
        alarms += ((means - hold[:, None] + room < 0) & seen).any(1).mean()
        ordinary = 2.575829 * np.sqrt(variances / n + (apart**2)[:, None])
        naive += ((means - hold[:, None] + ordinary < 0) & seen).any(1).mean()
        told = monitoring._compare(
            name,
            Live(float(means[0, 99]), 100, float(live[0, :100].var(ddof=1) if name == "rating" else variances[0, 99])),
            Live(0.5, 0, 0.0) if fixed else Live(float(hold[0]), 300, float(before[0].var())),
            GateSettings(),
        )
        assert told.high is not None
        assert told.high == pytest.approx(means[0, 99] - hold[0] + room[0, 99], rel=0.03), name
    assert alarms < error
    assert naive > error, "ordinary 99 % intervals at each look are wrong more often than that"


def test_a_rating_that_is_half_a_star_worse_is_found_within_some_hundred_judgements() -> None:
    """The price of looking always: how many judgements it takes to see a fall."""
    settings = GateSettings()
    before = Live(4.0, 300, 1.0)
    falls = [n for n in range(10, 1000) if monitoring._compare("rating", Live(3.5, n, 1.0), before, settings).fallen]
    assert 100 < falls[0] < 200
    assert falls == list(range(falls[0], 1000))
