"""How fast deliveries are planned while a destination has room, and how long that delays other deliveries."""

import time
from contextlib import closing
from pathlib import Path

import pytest

from service.config import inbox_url
from service.instruments import Instruments
from service.relay.destinations import Destination
from service.relay.planner import Planner
from service.storage import engines
from service.storage.delivery_policy import DELIVERY_POLICY
from service.telemetry import metrics
from service.telemetry.tracing import Tracing
from tests.support.engines import Servers
from tests.support.relaying import WEEK, keep, messages, opened

EVENTS = 20_000
MAX_DELAY_SECONDS = 0.05


@pytest.mark.alone
@pytest.mark.parametrize(
    ("engine", "goal"), [("sqlite", 10_000), pytest.param("postgresql", 5_000, marks=pytest.mark.needs("postgresql"))]
)
def test_planning(tmp_path: Path, servers: Servers, engine: str, goal: int) -> None:
    """Events per second; each step, between which attempts are started and settled, is short."""
    text = f"sqlite://{tmp_path}/inbox.db" if engine == "sqlite" else servers.postgresql().new_database()
    url = inbox_url(text)
    with closing(opened(tmp_path, text)) as inbox:
        for start in range(0, EVENTS, 2000):
            keep(inbox, *messages(start + 2000, 5000)[start:])
    store = engines.deliveries(url).open(url)
    entry = {"name": "app", "url": "https://a.example", "format": "meta", "secretFile": "app", "from": "beginning"}
    destinations = {"app": Destination.model_validate(entry)}
    instruments = Instruments(metrics=metrics.for_relay()[0], tracing=Tracing())
    with closing(store), closing(engines.open_log(url)) as log:
        planner = Planner(store.work, lambda: log, instruments=instruments, policy=DELIVERY_POLICY, retention_ms=WEEK)
        planner.join(destinations)
        steps = []
        while store.work.positions()["app"] < EVENTS:
            started = time.perf_counter()
            planner.plan(destinations)
            steps.append(time.perf_counter() - started)
        (status,) = store.records.statuses()
    rate = EVENTS / sum(steps)
    print(f"{engine}: {rate:.0f} events/s, longest step {max(steps) * 1000:.0f} ms of {len(steps)}")
    assert status.backlog == EVENTS
    assert rate >= goal
    assert sorted(steps)[-2] <= MAX_DELAY_SECONDS, "the machine may have interrupted one of them"
