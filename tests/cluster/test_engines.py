"""An inbox that is a server, on a real cluster: nobody notices a rollout, and what was answered is kept once.

`TEST_CLUSTER_POSTGRESQL` is the URL by which pods, and this process, reach a PostgreSQL; its user may make databases.
`TEST_CLUSTER_RESTARTS` and `TEST_CLUSTER_UPGRADES` say how many of them are tried; 20 and 5 are the long form.
"""

import json
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from urllib.parse import urlsplit

import pytest

from tests.cluster import pods
from tests.cluster.kube import POD, Load, Namespace, until
from tests.cluster.test_deliveries import KEY, taken, to
from tests.cluster.test_deliveries import SECRET as RELAY_SECRET

pytestmark = [pytest.mark.needs("cluster", "cluster_postgresql"), pytest.mark.timeout(3600)]
DEPLOYMENT = "deployment/wh-whatsapp-webhook"
RECEIVERS = "app.kubernetes.io/instance=wh,app.kubernetes.io/component=receiver"
RELAYS = "app.kubernetes.io/instance=wh,app.kubernetes.io/component=relay"
INBOX = "wh-inbox"
RATE = 200
# Two pods to start, one after the other, and the last one to drain, take 22 s; more where the machine is busy.
ROLLOUT = 120.0
AFTER = 2.0  # seconds of load once something is over
RESTARTS = int(os.environ.get("TEST_CLUSTER_RESTARTS", "2"))
UPGRADES = int(os.environ.get("TEST_CLUSTER_UPGRADES", "1"))
# As many requests as the load has under way at once.
CONNECTIONS = 32
GOOD = {"notification 200", "handshake 200"}
REFUSED = {"notification NewConnectionError", "handshake NewConnectionError"}


@contextmanager
def database() -> Iterator[str]:
    """Make one that nobody else's events are in, and give its URL."""
    psycopg = import_module("psycopg")
    server = urlsplit(os.environ["TEST_CLUSTER_POSTGRESQL"])
    name = f"test_{secrets.token_hex(4)}"
    with psycopg.connect(server.geturl(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            yield server._replace(path=f"/{name}").geturl()
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def on_postgresql(*options: str) -> list[str]:
    """Say, as helm's options, that events are kept there; its port may be any."""
    port = urlsplit(os.environ["TEST_CLUSTER_POSTGRESQL"]).port or 5432
    way = json.dumps([{"ports": [{"port": port}]}])
    engine = f"inbox.engine=postgresql,inbox.existingSecret={INBOX}"
    return ["--set", engine, "--set-json", f"networkPolicy.inboxEgress={way}", *options]


def make_inbox_secret(here: Namespace, url: str) -> None:
    here.kubectl("create", "secret", "generic", INBOX, f"--from-literal=url={url}")


@pytest.fixture(scope="module")
def inbox() -> Iterator[str]:
    """The URL of the release's database."""
    with database() as url:
        yield url


@pytest.fixture(scope="module")
def here(inbox: str) -> Iterator[Namespace]:  # after it, so that it ends before
    assert inbox
    with Namespace() as namespace:
        namespace.asked = DEPLOYMENT
        for made in pods.taker("app"):
            namespace.kubectl("apply", "-f", "-", text=json.dumps(made))
        yield namespace


@pytest.fixture
def ready(here: Namespace) -> Namespace:
    """The release as the first test left it."""
    settle(here)
    return here


def settle(here: Namespace) -> None:
    """Wait until there are two receivers, ready, and none that leaves."""
    here.kubectl("rollout", "status", DEPLOYMENT, "--timeout=180s")
    until(lambda: len(here.objects("pod", RECEIVERS)) == 2, "an old pod stays")


def uids(here: Namespace, labels: str = RECEIVERS) -> set[str]:
    return {str(found["metadata"]["uid"]) for found in here.objects("pod", labels)}


def names(here: Namespace, labels: str = RECEIVERS) -> list[str]:
    return sorted(str(found["metadata"]["name"]) for found in here.objects("pod", labels))


def how_often(here: Namespace) -> Counter[str]:
    """Say how often each of Meta's ids is kept; the data stays in the pod, which has too much of it."""
    ids = "import json, sys; [print(json.loads(line)['id'].split(':')[1]) for line in sys.stdin]"
    command = f'whatsapp-webhook events list --since 4m --json | python -c "{ids}"'
    return Counter(here.kubectl("exec", DEPLOYMENT, "--", "sh", "-c", command).split())


def check_kept_once(here: Namespace, load: Load) -> None:
    kept = how_often(here)
    wrong = {each: kept[each] for each in load.acknowledged if kept[each] != 1}
    assert not wrong, f"{len(wrong)} of {len(load.acknowledged)} are not kept once: {list(wrong.items())[:5]}"
    assert load.answers["notification 200"] > 1000


def roll(here: Namespace, begin: Callable[[], object]) -> int:
    """Have all pods replaced; gives the least number of them that was available meanwhile."""
    before, least = uids(here), 2
    begin()

    def over() -> bool:
        nonlocal least
        found = here.object("deployment")
        status = found["status"]
        least = min(least, status.get("availableReplicas", 0))
        seen = status["observedGeneration"] == found["metadata"]["generation"]
        return bool(
            seen and status.get("updatedReplicas") == status["replicas"] == status.get("availableReplicas") == 2
        )

    until(over, "the rollout does not end")
    until(lambda: len(uids(here)) == 2, "an old pod stays")
    assert not before & uids(here), "a pod was not replaced"
    return least


def rolled_under_load(here: Namespace, what: str, begin: Callable[[], object]) -> None:
    """Roll once while notifications come in: every answer is 200, no connection is reset, no replica is missing."""
    with here.load(ROLLOUT, rate=RATE, after=AFTER) as found:
        started = time.monotonic()
        least = roll(here, begin)
        took = time.monotonic() - started
    (load,) = found
    assert took < ROLLOUT - 5, f"the rollout took {took:.0f} s, longer than the load"
    assert set(load.answers) == GOOD, load.answers
    assert least == 2, f"{least} available"
    check_kept_once(here, load)
    print(f"{what}: {took:.0f} s, {load.gap:.2f} s without an answer at most; {load.answers}")


def test_it_waits_for_its_secrets(here: Namespace, inbox: str) -> None:
    """Installed before them no pod starts, and the notes, the kubelet and the log say what is missing."""
    notes = here.install(*on_postgresql())
    assert f"create the Secret {INBOX} with the key url" in notes
    until(lambda: f'secret "{INBOX}" not found' in here.kubectl("get", "events"), "the kubelet does not say it")
    make_inbox_secret(here, inbox)
    until(lambda: "waiting" not in states(here), "no pod starts", 200)
    here.make_secret()
    settle(here)
    assert "Phase:          Succeeded" in here.helm("test", "wh", "--logs")
    assert {it["restartCount"] for pod in here.objects("pod", RECEIVERS) for it in statuses(pod)} == {0}


def states(here: Namespace) -> set[str]:
    return {state for pod in here.objects("pod", RECEIVERS) for it in statuses(pod) for state in it["state"]}


def statuses(pod: dict[str, object]) -> list[dict[str, object]]:
    status = pod["status"]
    assert isinstance(status, dict)
    found: list[dict[str, object]] = status.get("containerStatuses", [])
    return found


def test_rolling_restarts_under_load(ready: Namespace) -> None:
    """Nobody notices one of them."""
    for number in range(RESTARTS):
        restart = partial(ready.kubectl, "rollout", "restart", DEPLOYMENT)
        rolled_under_load(ready, f"restart {number + 1}", restart)


def test_upgrades_under_load(ready: Namespace) -> None:
    """To another configuration and back, by Helm."""
    for number in range(UPGRADES):
        upgrade = partial(ready.install, *on_postgresql("--set", f"log.level={('debug', 'info')[number % 2]}"))
        rolled_under_load(ready, f"upgrade {number + 1}", upgrade)
    ready.install(*on_postgresql())


def test_a_worker_that_is_killed_under_load(ready: Namespace) -> None:
    """With -9: what it was answering fails, and nothing else; the other replica is not touched."""
    victim, other = names(ready)
    kill = "import os; os.kill(int(open('/proc/1/task/1/children').read().split()[0]), 9)"
    restarts = ready.object("pod", other)["status"]["containerStatuses"][0]["restartCount"]
    with ready.load(ROLLOUT, rate=RATE, after=8) as found:
        ready.kubectl("exec", victim, "--", "python", "-c", kill)
    (load,) = found
    failed = {answer: number for answer, number in load.answers.items() if answer not in GOOD}
    assert sum(failed.values()) <= CONNECTIONS, load.answers
    assert not failed.keys() & REFUSED, load.answers
    assert load.gap < 2
    assert ready.object("pod", other)["status"]["containerStatuses"][0]["restartCount"] == restarts
    check_kept_once(ready, load)
    print(f"a worker of two replicas killed with -9: {load.answers}")


@pytest.mark.long
def test_a_container_that_is_killed_under_load(ready: Namespace) -> None:
    """With -9, its first process: what it was answering fails; connections are refused until the Service knows."""
    victim, _ = names(ready)
    before = uids(ready)
    with Namespace("privileged") as node, ready.load(ROLLOUT, rate=RATE, after=AFTER) as found:
        node.kill_first_process(ready.object("pod", victim))
        until(lambda: statuses(ready.object("pod", victim))[0]["restartCount"] != 0, "nothing happened")
        settle(ready)
    (load,) = found
    failed = {answer: number for answer, number in load.answers.items() if answer not in GOOD | REFUSED}
    assert sum(failed.values()) <= CONNECTIONS, load.answers
    assert load.gap < 2
    assert uids(ready) == before
    check_kept_once(ready, load)
    print(f"a replica of two killed with -9: {load.answers}")


def test_a_budget_lets_one_pod_go_at_a_time(ready: Namespace) -> None:
    """As a drained node asks for it; the one that goes is drained, and nobody notices."""
    first, second = names(ready)
    with ready.load(ROLLOUT, rate=RATE, after=AFTER) as found:
        evict(ready, first)
        said = evict(ready, second)
        until(lambda: first not in names(ready), "the evicted pod stays")
        settle(ready)
    (load,) = found
    assert "disruption budget" in said
    assert set(load.answers) == GOOD, load.answers
    check_kept_once(ready, load)


def evict(here: Namespace, pod: str) -> str:
    """Ask for it as `kubectl drain` does, and give what was answered, where it was refused."""
    meta = {"name": pod, "namespace": here.name}
    asked = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta}
    path = f"/api/v1/namespaces/{here.name}/pods/{pod}/eviction"
    return here.tried("create", "--raw", path, "-f", "-", text=json.dumps(asked))


def test_relays_of_their_own_deliver_it_all(ready: Namespace) -> None:
    """Two of them share the work; one is killed, a rollout replaces both, and the receivers stay as they are."""
    ready.kubectl("create", "secret", "generic", RELAY_SECRET, f"--from-literal=app={KEY}")
    ready.install(*on_postgresql(*to("/events")))
    relays = "deployment/wh-whatsapp-webhook-relay"
    ready.kubectl("rollout", "status", relays, "--timeout=180s")
    settle(ready)
    receivers = uids(ready)
    with ready.load(ROLLOUT, rate=20, after=AFTER) as found:
        ready.kubectl("delete", "pod", names(ready, RELAYS)[0], "--grace-period=0", "--force")
        ready.kubectl("rollout", "status", relays, "--timeout=180s")
        ready.kubectl("rollout", "restart", relays)
        ready.kubectl("rollout", "status", relays, "--timeout=180s")
    (load,) = found
    assert set(load.answers) == GOOD, load.answers
    until(lambda: set(load.acknowledged) <= delivered(ready), "not all were delivered", 300)
    assert uids(ready) == receivers
    listed = ready.kubectl("exec", relays, "--", "whatsapp-webhook", "destinations", "list")
    assert "events" in listed


def delivered(here: Namespace) -> set[str]:
    return {each["headers"]["ce-id"].split(":")[1] for each in taken(here, "/events")}


def test_moving_from_sqlite_loses_nothing() -> None:
    """As docs/kubernetes.md says it, under load: every answer is 200, and what was answered is delivered."""
    with database() as url, Namespace() as here:
        for made in pods.taker("app"):
            here.kubectl("apply", "-f", "-", text=json.dumps(made))
        here.make_secret()
        make_inbox_secret(here, url)
        here.kubectl("create", "secret", "generic", RELAY_SECRET, f"--from-literal=app={KEY}")
        here.install(*to("/events", **{"from": "beginning"}))
        here.wait_ready()
        with here.load(5 * ROLLOUT, rate=20, after=AFTER) as found:
            old = move(here)
        (load,) = found
        assert set(load.answers) == GOOD, load.answers
        here.asked = DEPLOYMENT
        new = here.kept()
        assert set(load.acknowledged) <= old | new
        assert set(load.acknowledged) & old
        assert set(load.acknowledged) & new
        until(lambda: set(load.acknowledged) <= delivered(here), "not all were delivered", 300)
        assert f"inbox-{POD}" in here.kubectl("get", "pvc")
        assert "WARNING" not in here.install(*on_postgresql(*to("/events", **{"from": "beginning"})))


def move(here: Namespace) -> set[str]:
    """Go through the steps; gives what the old inbox holds in the end."""
    way_out = ["--set-json", 'networkPolicy.extraEgress=[{"ports": [{"port": 8080}]}]']
    here.kubectl("annotate", "statefulset", "wh-whatsapp-webhook", "helm.sh/resource-policy=keep")
    destinations = to("/events", **{"from": "beginning"})
    notes = here.install(*on_postgresql(*destinations, *way_out))
    assert "WARNING: inbox.engine was sqlite and is postgresql" in notes
    assert f"exec {POD} -c receiver -- whatsapp-webhook drain --seconds 80" in notes
    here.kubectl("rollout", "status", DEPLOYMENT, "--timeout=180s")
    here.kubectl("exec", POD, "-c", "receiver", "--", "whatsapp-webhook", "drain", "--seconds", "80")
    listing = ["exec", POD, "-c", "relay", "--", "whatsapp-webhook", "destinations", "list", "--json"]
    until(lambda: json.loads(here.kubectl(*listing))["backlog"] == 0, "the old relay does not finish")
    old = here.kept()
    here.kubectl("delete", "statefulset", "wh-whatsapp-webhook")
    return old
