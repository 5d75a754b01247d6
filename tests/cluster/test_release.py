"""The chart on a real cluster, in a namespace that enforces Pod Security `restricted`; the tests run in order."""

import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.chart.helm import EVERYTHING, helm
from tests.chart.prometheus import scraping
from tests.cluster import scrape
from tests.cluster.kube import CHART, POD, SECRET, Load, Namespace, image_values, run, until

pytestmark = [pytest.mark.needs("cluster"), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def here() -> Iterator[Namespace]:
    with Namespace() as namespace:
        yield namespace


@pytest.fixture
def ready(here: Namespace) -> Namespace:
    """The release as the first test left it, ready."""
    here.wait_ready()
    return here


def test_from_nothing_to_the_first_event(here: Namespace) -> None:
    """Installed without values, it reports the missing Secret, and continues without a restart once it exists."""
    started = time.monotonic()
    notes = here.install()
    line = f"kubectl --namespace {here.name} create secret generic {SECRET} --from-literal=verify-token="
    assert line in notes
    until(lambda: "Running" in here.kubectl("get", "pod", POD, check=False), "it does not run")
    until(lambda: "inbox ready" in here.kubectl("logs", POD), "it does not start")
    answer = here.kubectl("exec", POD, "--", "whatsapp-webhook", "ready", check=False)
    assert '"ready": false' in answer
    assert line in answer
    assert line in here.kubectl("logs", POD)
    here.make_secret()
    here.touch()
    here.wait_ready()
    assert here.restarts() == 0
    assert "Phase:          Succeeded" in here.helm("test", "wh", "--logs")
    assert len(here.kept()) == 1
    print(f"from helm install to the first stored event: {time.monotonic() - started:.0f} s")


@pytest.mark.needs("crds")
def test_the_api_server_accepts_every_optional_object(here: Namespace) -> None:
    """Including the resources of the Prometheus Operator and the Gateway API."""
    for more in ({}, {"metrics": {"podMonitor": {"enabled": False}, "serviceMonitor": {"enabled": True}}}):
        done = helm("template", "other", str(CHART), "-n", here.name, values=EVERYTHING | more)
        # Without the test pod, which needs the ServiceAccount, which a dry run does not create; it ran above.
        objects = [each for each in yaml.safe_load_all(done.stdout) if each and each["kind"] != "Pod"]
        assert len(objects) >= 10
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        here.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", text=text)


def test_a_rotation_under_load(ready: Namespace) -> None:
    """Old and new values overlap: every answer is 200, nothing restarts, and the metric counts both values."""
    _rotate(ready, rotations=1)


@pytest.mark.long
def test_ten_rotations_under_load(ready: Namespace) -> None:
    """One rotation after the other."""
    _rotate(ready, rotations=10)


@pytest.mark.long
def test_a_rotation_at_the_kubelets_own_pace(ready: Namespace) -> None:
    """Without `kubectl annotate` it takes effect within the 90 seconds that NOTES.txt promises."""
    (delay,) = _rotate(ready, rotations=1, seconds=100, touch=False)
    assert delay < 90


def _rotate(here: Namespace, *, rotations: int, seconds: float = 8, touch: bool = True) -> list[float]:
    pod, restarts, delays = here.uid(), here.restarts(), []
    with here.load(rotations * seconds + 10) as results:
        for _ in range(rotations):
            token, secret = f"token-{secrets.token_hex(8)}", f"secret-{secrets.token_hex(8)}"
            here.rotate(verify_token=f"{token}\n{here.token}\n", app_secret=f"{secret}\n{here.secret}\n")
            if touch:
                here.touch()
            delays.append(until(lambda token=token: here.handshake(token), "the new token is not accepted"))
    (load,) = results
    assert set(load.answers) == {"notification 200", "handshake 200"}, load.answers
    assert (here.uid(), here.restarts()) == (pod, restarts)
    assert here.metric('whatsapp_webhook_credentials_accepted{credential="verify-token"}') == 2
    assert here.metric('whatsapp_webhook_credential_matches_total{credential="app-secret",position="2"}') > 0
    assert set(load.acknowledged) <= here.kept()
    print(f"{rotations} rotations under {load.answers}: accepted after {[round(each, 1) for each in delays]} s")
    return delays


@pytest.mark.needs("crds", "prometheus")
def test_prometheus_with_the_pod_monitor(ready: Namespace, tmp_path: Path) -> None:
    """It scrapes the one pod; each query of the dashboard has data, each rule is evaluated, and no alert fires."""
    unreachable = (
        f"name=app,url=http://wh-whatsapp-webhook.{ready.name}/nowhere,internal=true,format=meta,secretFile=app"
    )
    relay = ",".join(f"relay.destinations[0].{setting}" for setting in unreachable.split(","))
    ready.kubectl("create", "secret", "generic", "wh-whatsapp-webhook-relay", "--from-literal=app=x")
    monitored = "metrics.podMonitor.enabled=true,prometheusRule.enabled=true,dashboard.enabled=true"
    ready.install("--set", f"{monitored},{relay},relay.destinations[0].from=beginning")
    ready.kubectl("rollout", "status", "statefulset/wh-whatsapp-webhook", "--timeout=120s")
    rules = ready.object("prometheusrule")["spec"]
    (dashboard,) = ready.object("configmap", "wh-whatsapp-webhook-dashboard")["data"].values()
    queries = {query["expr"] for panel in json.loads(dashboard)["panels"] for query in panel.get("targets", [])}
    with scrape.api() as host, scraping(tmp_path / "prometheus", scrape.jobs(ready, host), rules) as prometheus:
        for _ in range(2):
            ready.simulate()
            time.sleep(2)
        assert {query for query in queries if not prometheus.found(query)} == set()
        prometheus.wait_until_evaluated()
        assert prometheus.firing() == set()
        (scraped,) = prometheus.found("whatsapp_webhook_build_info")
        assert scraped["metric"]["pod"] == POD
    print(f"{len(queries)} queries of the dashboard have data under {scraped['metric']}")


def test_a_change_of_the_volume_is_rejected(ready: Namespace) -> None:
    """With a link to the procedure, before the API rejects it without one."""
    command = ["upgrade", "wh", str(CHART), *image_values(), "--set", "persistence.size=20Gi"]
    done = run("helm", "-n", ready.name, *command, check=False)
    assert done.returncode != 0
    assert "docs/kubernetes.md has the steps" in done.stderr


def test_a_second_pod_gets_no_traffic(ready: Namespace) -> None:
    """If the StatefulSet is scaled manually, the second pod would store events that no relay reads."""
    ready.kubectl("scale", "statefulset", "wh-whatsapp-webhook", "--replicas=2")
    until(lambda: "Running" in ready.kubectl("get", "pod", f"{POD[:-1]}1", check=False), "no second pod")
    addresses = ready.kubectl("get", "endpoints", "wh-whatsapp-webhook", "-o", "jsonpath={.subsets[*].addresses[*].ip}")
    assert addresses == ready.kubectl("get", "pod", POD, "-o", "jsonpath={.status.podIP}")
    ready.kubectl("scale", "statefulset", "wh-whatsapp-webhook", "--replicas=1")
    ready.kubectl("wait", "--for=delete", f"pod/{POD[:-1]}1", "--timeout=120s")


def test_an_upgrade_keeps_rotated_credentials(ready: Namespace) -> None:
    """The Secret does not belong to the chart."""
    before = ready.kubectl("get", "secret", SECRET, "-o", "jsonpath={.data}")
    ready.install("--set", "log.level=debug")
    ready.kubectl("rollout", "status", "statefulset/wh-whatsapp-webhook", "--timeout=120s")
    assert ready.kubectl("get", "secret", SECRET, "-o", "jsonpath={.data}") == before
    until(lambda: ready.handshake(ready.token), "the token is not accepted")


def test_a_secret_that_the_chart_created_keeps_rotated_credentials(here: Namespace) -> None:
    """`credentials.create` only sets the initial values; an upgrade or uninstall does not change the Secret."""
    create = (
        "credentials.create=true,credentials.verifyToken=first,credentials.appSecret=0123456789abcdef0123456789abcdef"
    )
    # Another access mode than the other tests use: small clusters have few volumes of each.
    own = "fullnameOverride=own,replicas=1,persistence.accessMode=ReadWriteOnce"
    options = ["--set", create, "--set", own, *image_values()]
    here.helm("install", "own", str(CHART), *options)
    rotated = {"stringData": {"verify-token": "second\nfirst"}}
    here.kubectl("patch", "secret", "own-credentials", "-p", json.dumps(rotated))
    here.helm("upgrade", "own", str(CHART), *options, "--set", "log.level=debug")
    value = "jsonpath={.data.verify-token}"
    rotated_value = here.kubectl("get", "secret", "own-credentials", "-o", value)
    assert rotated_value == "c2Vjb25kCmZpcnN0"
    here.helm("uninstall", "own")
    assert here.kubectl("get", "secret", "own-credentials", "-o", value) == rotated_value
    assert "inbox-own-0" in here.kubectl("get", "pvc")


# Errors while nothing listens: the connection was not accepted, and Meta retries.
NOT_ACCEPTED = {
    f"{request} {error}"
    for request in ("notification", "handshake")
    for error in ("NewConnectionError", "ConnectTimeoutError")
}


def _disturb(here: Namespace, label: str, *command: str) -> None:
    before = here.uid(), here.restarts()
    with here.load(40, handshakes=1) as results:
        here.kubectl(*command, check=False)
        until(lambda: (here.uid(), _restarts(here)) != before, "the pod was not restarted")
        here.wait_ready()
    _check_nothing_lost(label, here, *results)
    (load,) = results
    # A request on an idle connection that was closed just then was not accepted either: its event is not stored.
    closed = {"notification ProtocolError", "handshake ProtocolError"}
    assert load.answers.keys() <= NOT_ACCEPTED | closed | {"notification 200", "handshake 200"}, load.answers
    assert sum(load.answers.get(each, 0) for each in closed) <= sum(load.answers.values()) / 100, load.answers
    stored = here.kept().intersection(load.unanswered)
    assert not stored, f"{len(stored)} were accepted and not answered"


def _check_nothing_lost(label: str, here: Namespace, load: Load) -> None:
    assert load.answers["notification 200"] > 1000
    lost = set(load.acknowledged) - here.kept()
    assert not lost, f"{len(lost)} of {len(load.acknowledged)} lost"
    print(f"{label}: {load.gap:.1f} s without an answer, {len(load.acknowledged)} stored, none lost; {load.answers}")


def _restarts(here: Namespace) -> int:
    try:
        return here.restarts()
    except (AssertionError, ValueError):
        return -1


def test_a_restart_under_load(ready: Namespace) -> None:
    """Every accepted request is answered, every acknowledged event is stored; the time without answers is printed."""
    _disturb(ready, "rollout restart", "rollout", "restart", "statefulset/wh-whatsapp-webhook")


def test_a_pod_that_is_deleted_under_load(ready: Namespace) -> None:
    """As with a restart, nothing is lost."""
    _disturb(ready, "pod deleted", "delete", "pod", POD, "--wait=false")


@pytest.mark.long
def test_a_container_that_is_killed_under_load(ready: Namespace) -> None:
    """Its first process is killed with SIGKILL from the node; nothing is lost."""
    before = ready.restarts()
    with Namespace("privileged") as node, ready.load(30, handshakes=1) as results:
        node.kill_first_process(ready.object("pod", POD))
        until(lambda: _restarts(ready) == before + 1, "the container was not restarted")
        ready.wait_ready()
    _check_nothing_lost("container killed with SIGKILL", ready, *results)


@pytest.mark.long
def test_a_worker_that_is_killed_under_load(ready: Namespace) -> None:
    """With SIGKILL; the first process starts another one, and nothing is lost."""
    restarts = ready.restarts()
    kill = "import os; os.kill(int(open('/proc/1/task/1/children').read().split()[0]), 9)"
    with ready.load(30, handshakes=1) as results:
        ready.kubectl("exec", POD, "--", "python", "-c", kill)
    _check_nothing_lost("worker killed with SIGKILL", ready, *results)
    assert ready.restarts() == restarts


@pytest.mark.long
def test_a_node_that_is_drained(ready: Namespace) -> None:
    """After it is uncordoned, the pod starts again, and nothing is lost."""
    node = ready.kubectl("get", "pod", POD, "-o", "jsonpath={.spec.nodeName}")
    before, stored = ready.uid(), ready.kept()
    try:
        run("kubectl", "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=120s")
    finally:
        run("kubectl", "uncordon", node)
    until(lambda: ready.uid() not in ("", before), "no new pod starts")
    ready.wait_ready()
    assert stored <= ready.kept()


@pytest.mark.parametrize("bad", ["image.tag=is-not-there", "extraEnvFrom[0].configMapRef.name=wrong"])
def test_a_rollback_after_a_failed_upgrade(ready: Namespace, bad: str) -> None:
    """After a wrong image or an invalid configuration, a rollback restores the service with its data."""
    stored, before = ready.kept(), ready.uid()
    wrong = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "wrong"}, "data": {"WEBHOOK_DAYS": "8"}}
    ready.kubectl("apply", "-f", "-", text=json.dumps(wrong))
    ready.install("--set", bad)
    until(lambda: ready.uid() not in ("", before), "the pod was not replaced")
    time.sleep(3)
    assert "1/1" not in ready.kubectl("get", "pod", POD)
    ready.helm("rollback", "wh")
    until(lambda: "1/1" in ready.kubectl("get", "pod", POD, check=False), "the pod does not start after the rollback")
    assert stored <= ready.kept()


def test_an_uninstall_keeps_the_volume_and_the_secret(ready: Namespace) -> None:
    """An installation with the same name uses them again."""
    stored = ready.kept()
    ready.helm("uninstall", "wh", "--wait")
    assert f"inbox-{POD}" in ready.kubectl("get", "pvc")
    assert SECRET in ready.kubectl("get", "secret")
    until(lambda: ready.uid() == "", "the pod stays")
    ready.install()
    until(lambda: "1/1" in ready.kubectl("get", "pod", POD, check=False), "the pod does not start again")
    assert stored <= ready.kept()


@pytest.mark.long
def test_a_claim_that_exists() -> None:
    """The release stores its events in it, an uninstall leaves it, and the next installation finds them."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "mine"}, "spec": spec}
    with Namespace() as here:
        here.kubectl("apply", "-f", "-", text=json.dumps(claim))
        here.make_secret()
        for _ in range(2):
            here.install("--set", "persistence.existingClaim=mine")
            here.wait_ready()
            here.simulate()
            stored = here.kept()
            here.helm("uninstall", "wh", "--wait")
            here.kubectl("wait", "--for=delete", f"pod/{POD}", "--timeout=60s")
            assert here.kubectl("get", "pvc", "-o", "name").split() == ["persistentvolumeclaim/mine"]
        here.install("--set", "persistence.existingClaim=mine")
        here.wait_ready()
        assert here.kept() == stored
        assert len(stored) > 20
