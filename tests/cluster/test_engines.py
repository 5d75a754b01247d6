"""An external inbox on a real cluster: rollouts cause no failed request, and acknowledged events are stored once.

`TEST_CLUSTER_POSTGRESQL` is the URL of a PostgreSQL that pods and this process reach; its user may create databases.
`TEST_CLUSTER_RESTARTS` and `TEST_CLUSTER_UPGRADES` set the number of rollouts; the long form has 20 and 5.
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
from tests.cluster.kube import Load, Namespace, until
from tests.cluster.test_deliveries import KEY, received, to
from tests.cluster.test_deliveries import SECRET as RELAY_SECRET

pytestmark = [pytest.mark.needs("cluster", "cluster_postgresql"), pytest.mark.timeout(3600)]
DEPLOYMENT = "deployment/wh-whatsapp-webhook"
RECEIVERS = "app.kubernetes.io/instance=wh,app.kubernetes.io/component=receiver"
RELAYS = "app.kubernetes.io/instance=wh,app.kubernetes.io/component=relay"
INBOX = "wh-inbox"
RATE = 200
# Starting two pods one after the other and draining the last one takes 22 s; longer if the machine is busy.
ROLLOUT_SECONDS = 120.0
AFTER = 2.0  # seconds of load after the end of a disturbance
RESTARTS = int(os.environ.get("TEST_CLUSTER_RESTARTS", "2"))
UPGRADES = int(os.environ.get("TEST_CLUSTER_UPGRADES", "1"))
CONNECTIONS = 32  # the load's concurrent requests
GOOD = {"notification 200", "handshake 200"}
REFUSED = {"notification NewConnectionError", "handshake NewConnectionError"}


@contextmanager
def database() -> Iterator[str]:
    """Create a database, yield its URL, and drop it."""
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
    """Return helm's options for an inbox on PostgreSQL, with egress to its port."""
    port = urlsplit(os.environ["TEST_CLUSTER_POSTGRESQL"]).port or 5432
    egress = json.dumps([{"ports": [{"port": port}]}])
    engine = f"inbox.engine=postgresql,inbox.existingSecret={INBOX}"
    return ["--set", engine, "--set-json", f"networkPolicy.inboxEgress={egress}", *options]


def make_inbox_secret(here: Namespace, url: str) -> None:
    here.kubectl("create", "secret", "generic", INBOX, f"--from-literal=url={url}")


@pytest.fixture(scope="module")
def inbox() -> Iterator[str]:
    """The URL of the release's database."""
    with database() as url:
        yield url


@pytest.fixture(scope="module")
def here(inbox: str) -> Iterator[Namespace]:  # requests the database so that the namespace is deleted first
    assert inbox
    with Namespace() as namespace:
        namespace.target = DEPLOYMENT
        for manifest in pods.sink("app"):
            namespace.kubectl("apply", "-f", "-", text=json.dumps(manifest))
        yield namespace


@pytest.fixture
def ready(here: Namespace) -> Namespace:
    """The release as the first test left it, ready."""
    settle(here)
    return here


def settle(here: Namespace) -> None:
    """Wait until two receivers are ready and none is terminating."""
    here.kubectl("rollout", "status", DEPLOYMENT, "--timeout=180s")
    until(lambda: len(here.objects("pod", RECEIVERS)) == 2, "an old pod stays")


def uids(here: Namespace, labels: str = RECEIVERS) -> set[str]:
    return {str(pod["metadata"]["uid"]) for pod in here.objects("pod", labels)}


def names(here: Namespace, labels: str = RECEIVERS) -> list[str]:
    return sorted(str(pod["metadata"]["name"]) for pod in here.objects("pod", labels))


def stored_counts(here: Namespace) -> Counter[str]:
    """Return how often each of Meta's ids is stored; the data is filtered in the pod, because there is a lot of it."""
    ids = "import json, sys; [print(json.loads(line)['id'].split(':')[1]) for line in sys.stdin]"
    command = f'whatsapp-webhook events list --since 4m --json | python -c "{ids}"'
    return Counter(here.kubectl("exec", DEPLOYMENT, "--", "sh", "-c", command).split())


def check_stored_once(here: Namespace, load: Load) -> None:
    counts = stored_counts(here)
    wrong = {each: counts[each] for each in load.acknowledged if counts[each] != 1}
    assert not wrong, f"{len(wrong)} of {len(load.acknowledged)} are not stored exactly once: {list(wrong.items())[:5]}"
    assert load.answers["notification 200"] > 1000


def roll_out(here: Namespace, start: Callable[[], object]) -> int:
    """Start a rollout and wait until all pods are replaced; return the minimum of available pods meanwhile."""
    before, min_available = uids(here), 2
    start()

    def is_complete() -> bool:
        nonlocal min_available
        deployment = here.object("deployment")
        status = deployment["status"]
        min_available = min(min_available, status.get("availableReplicas", 0))
        is_observed = status["observedGeneration"] == deployment["metadata"]["generation"]
        return bool(
            is_observed and status.get("updatedReplicas") == status["replicas"] == status.get("availableReplicas") == 2
        )

    until(is_complete, "the rollout does not end")
    until(lambda: len(uids(here)) == 2, "an old pod stays")
    assert not before & uids(here), "a pod was not replaced"
    return min_available


def check_rollout_under_load(here: Namespace, label: str, start: Callable[[], object]) -> None:
    """Roll out under load: every answer is 200, no connection is reset, and no replica is missing."""
    with here.load(ROLLOUT_SECONDS, rate=RATE, after=AFTER) as results:
        started = time.monotonic()
        min_available = roll_out(here, start)
        seconds = time.monotonic() - started
    (load,) = results
    assert seconds < ROLLOUT_SECONDS - 5, f"the rollout took {seconds:.0f} s, longer than the load"
    assert set(load.answers) == GOOD, load.answers
    assert min_available == 2, f"{min_available} available"
    check_stored_once(here, load)
    print(f"{label}: {seconds:.0f} s, {load.gap:.2f} s without an answer at most; {load.answers}")


def test_it_waits_for_its_secrets(here: Namespace, inbox: str) -> None:
    """Without them no pod starts, and the notes, the kubelet and the log say what is missing."""
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
    containers: list[dict[str, object]] = status.get("containerStatuses", [])
    return containers


def test_rolling_restarts_under_load(ready: Namespace) -> None:
    """No request fails during a restart."""
    for number in range(RESTARTS):
        restart = partial(ready.kubectl, "rollout", "restart", DEPLOYMENT)
        check_rollout_under_load(ready, f"restart {number + 1}", restart)


def test_upgrades_under_load(ready: Namespace) -> None:
    """No request fails during a Helm upgrade to another configuration and back."""
    for number in range(UPGRADES):
        upgrade = partial(ready.install, *on_postgresql("--set", f"log.level={('debug', 'info')[number % 2]}"))
        check_rollout_under_load(ready, f"upgrade {number + 1}", upgrade)
    ready.install(*on_postgresql())


def test_a_worker_that_is_killed_under_load(ready: Namespace) -> None:
    """With SIGKILL: only the requests that it was answering fail, and the other replica is not affected."""
    victim, other = names(ready)
    kill = "import os; os.kill(int(open('/proc/1/task/1/children').read().split()[0]), 9)"
    restarts = ready.object("pod", other)["status"]["containerStatuses"][0]["restartCount"]
    with ready.load(ROLLOUT_SECONDS, rate=RATE, after=8) as results:
        ready.kubectl("exec", victim, "--", "python", "-c", kill)
    (load,) = results
    failed = {answer: number for answer, number in load.answers.items() if answer not in GOOD}
    assert sum(failed.values()) <= CONNECTIONS, load.answers
    assert not failed.keys() & REFUSED, load.answers
    assert load.gap < 2
    assert ready.object("pod", other)["status"]["containerStatuses"][0]["restartCount"] == restarts
    check_stored_once(ready, load)
    print(f"the worker of one of two replicas killed with SIGKILL: {load.answers}")


@pytest.mark.long
def test_a_container_that_is_killed_under_load(ready: Namespace) -> None:
    """Its first process, with SIGKILL: its requests fail, and connections are refused until the Service is updated."""
    victim, _ = names(ready)
    before = uids(ready)
    with Namespace("privileged") as node, ready.load(ROLLOUT_SECONDS, rate=RATE, after=AFTER) as results:
        node.kill_first_process(ready.object("pod", victim))
        until(lambda: statuses(ready.object("pod", victim))[0]["restartCount"] != 0, "the container was not restarted")
        settle(ready)
    (load,) = results
    failed = {answer: number for answer, number in load.answers.items() if answer not in GOOD | REFUSED}
    assert sum(failed.values()) <= CONNECTIONS, load.answers
    assert load.gap < 2
    assert uids(ready) == before
    check_stored_once(ready, load)
    print(f"one of two replicas killed with SIGKILL: {load.answers}")


def test_the_disruption_budget_allows_one_eviction_at_a_time(ready: Namespace) -> None:
    """As when a node is drained; the evicted pod drains first, and no request fails."""
    first, second = names(ready)
    with ready.load(ROLLOUT_SECONDS, rate=RATE, after=AFTER) as results:
        evict(ready, first)
        error = evict(ready, second)
        until(lambda: first not in names(ready), "the evicted pod stays")
        settle(ready)
    (load,) = results
    assert "disruption budget" in error
    assert set(load.answers) == GOOD, load.answers
    check_stored_once(ready, load)


def evict(here: Namespace, pod: str) -> str:
    """Request an eviction as `kubectl drain` does, and return the error, if it is rejected."""
    metadata = {"name": pod, "namespace": here.name}
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
    path = f"/api/v1/namespaces/{here.name}/pods/{pod}/eviction"
    return here.kubectl_error("create", "--raw", path, "-f", "-", text=json.dumps(eviction))


@pytest.mark.long
def test_a_database_that_all_replicas_lose(ready: Namespace, inbox: str) -> None:
    """No container restarts; nothing that was answered 200 is lost; the replicas are ready again by themselves."""
    with ready.load(ROLLOUT_SECONDS, rate=RATE, after=5) as results:
        with refusing(inbox):
            until(lambda: not ready_count(ready), "the replicas stay ready")
            handshakes = [ready.handshake(ready.token) for _ in range(3)]
            time.sleep(20)
        seconds = until(lambda: ready_count(ready) == 2, "the replicas do not get ready again")
    (load,) = results
    assert all(handshakes), "a handshake needs no database"
    assert {it["restartCount"] for pod in ready.objects("pod", RECEIVERS) for it in statuses(pod)} == {0}
    failed = {answer for answer in load.answers if answer.startswith("notification")} - {"notification 200"}
    assert failed <= {"notification 503", "notification NewConnectionError"}, load.answers
    check_stored_once(ready, load)
    print(f"database lost: ready {seconds:.1f} s after its return, {load.gap:.0f} s without a 200; {load.answers}")


def ready_count(here: Namespace) -> int:
    return int(here.object("deployment")["status"].get("readyReplicas", 0))


@contextmanager
def refusing(url: str) -> Iterator[None]:
    """Close all connections of a database, and let it refuse new ones."""
    psycopg = import_module("psycopg")
    name = urlsplit(url).path.removeprefix("/")
    with psycopg.connect(os.environ["TEST_CLUSTER_POSTGRESQL"], autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        try:
            yield
        finally:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


def test_separate_relays_deliver_everything(ready: Namespace) -> None:
    """Two relays share the work; one is killed, a rollout replaces both, and the receivers are not replaced."""
    ready.kubectl("create", "secret", "generic", RELAY_SECRET, f"--from-literal=app={KEY}")
    ready.install(*on_postgresql(*to("/events")))
    relays = "deployment/wh-whatsapp-webhook-relay"
    ready.kubectl("rollout", "status", relays, "--timeout=180s")
    settle(ready)
    receivers = uids(ready)
    with ready.load(ROLLOUT_SECONDS, rate=20, after=AFTER) as results:
        ready.kubectl("delete", "pod", names(ready, RELAYS)[0], "--grace-period=0", "--force")
        ready.kubectl("rollout", "status", relays, "--timeout=180s")
        ready.kubectl("rollout", "restart", relays)
        ready.kubectl("rollout", "status", relays, "--timeout=180s")
    (load,) = results
    assert set(load.answers) == GOOD, load.answers
    until(lambda: set(load.acknowledged) <= delivered(ready), "not all were delivered", 300)
    assert uids(ready) == receivers
    listed = ready.kubectl("exec", relays, "--", "whatsapp-webhook", "destinations", "list")
    assert "events" in listed


def delivered(here: Namespace) -> set[str]:
    return {each["headers"]["ce-id"].split(":")[1] for each in received(here, "/events")}
