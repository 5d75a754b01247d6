"""A move from SQLite to PostgreSQL on a real cluster."""

import json

import pytest

from tests.cluster import pods
from tests.cluster.kube import POD, Namespace, until
from tests.cluster.test_deliveries import KEY, to
from tests.cluster.test_deliveries import SECRET as RELAY_SECRET
from tests.cluster.test_engines import (
    AFTER,
    DEPLOYMENT,
    GOOD,
    ROLLOUT_SECONDS,
    database,
    delivered,
    make_inbox_secret,
    on_postgresql,
)

pytestmark = [pytest.mark.needs("cluster", "cluster_postgresql"), pytest.mark.timeout(3600)]


def test_moving_from_sqlite_loses_nothing() -> None:
    """By the steps in docs/kubernetes.md, under load: every answer is 200, and all acknowledged events arrive."""
    with database() as url, Namespace() as here:
        for manifest in pods.sink("app"):
            here.kubectl("apply", "-f", "-", text=json.dumps(manifest))
        here.make_secret()
        make_inbox_secret(here, url)
        here.kubectl("create", "secret", "generic", RELAY_SECRET, f"--from-literal=app={KEY}")
        here.install(*to("/events", **{"from": "beginning"}))
        here.wait_ready()
        with here.load(5 * ROLLOUT_SECONDS, rate=20, after=AFTER) as results:
            old = move(here)
        (load,) = results
        assert set(load.answers) == GOOD, load.answers
        here.target = DEPLOYMENT
        new = here.kept()
        assert set(load.acknowledged) <= old | new
        assert set(load.acknowledged) & old
        assert set(load.acknowledged) & new
        until(lambda: set(load.acknowledged) <= delivered(here), "not all were delivered", 300)
        assert f"inbox-{POD}" in here.kubectl("get", "pvc")
        assert "WARNING" not in here.install(*on_postgresql(*to("/events", **{"from": "beginning"})))


def move(here: Namespace) -> set[str]:
    """Follow the steps; return what the old inbox stores at the end."""
    egress = ["--set-json", 'networkPolicy.extraEgress=[{"ports": [{"port": 8080}]}]']
    here.kubectl("annotate", "statefulset", "wh-whatsapp-webhook", "helm.sh/resource-policy=keep")
    destinations = to("/events", **{"from": "beginning"})
    notes = here.install(*on_postgresql(*destinations, *egress))
    assert "WARNING: inbox.engine was sqlite and is postgresql" in notes
    assert f"exec {POD} -c receiver -- whatsapp-webhook drain --seconds 80" in notes
    here.kubectl("rollout", "status", DEPLOYMENT, "--timeout=180s")
    here.kubectl("exec", POD, "-c", "receiver", "--", "whatsapp-webhook", "drain", "--seconds", "80")
    listing = ["exec", POD, "-c", "relay", "--", "whatsapp-webhook", "destinations", "list", "--json"]
    until(lambda: json.loads(here.kubectl(*listing))["backlog"] == 0, "the old relay does not finish")
    old = here.kept()
    here.kubectl("delete", "statefulset", "wh-whatsapp-webhook")
    return old
