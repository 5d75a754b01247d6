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
    """The release as the first test left it."""
    here.wait_ready()
    return here


def test_from_nothing_to_the_first_event(here: Namespace) -> None:
    """Installed without values it waits for its Secret, says so, and goes on without a restart once that is there."""
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
    print(f"from helm install to the first event kept: {time.monotonic() - started:.0f} s")


@pytest.mark.needs("crds")
def test_every_optional_object_is_taken(here: Namespace) -> None:
    """By the API server, with the operator's and the gateway's resources."""
    for more in ({}, {"metrics": {"podMonitor": {"enabled": False}, "serviceMonitor": {"enabled": True}}}):
        done = helm("template", "other", str(CHART), "-n", here.name, values=EVERYTHING | more)
        # The test's pod is left out: it asks for the ServiceAccount, which a dry run does not make. It ran above.
        objects = [found for found in yaml.safe_load_all(done.stdout) if found and found["kind"] != "Pod"]
        assert len(objects) >= 10
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        here.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", text=text)


def test_a_rotation_under_load(ready: Namespace) -> None:
    """Old and new in overlap: no answer but 200, no restart, and the metric shows the new one."""
    _rotate(ready, rotations=1)


@pytest.mark.long
def test_ten_rotations_under_load(ready: Namespace) -> None:
    """Again and again."""
    _rotate(ready, rotations=10)


@pytest.mark.long
def test_a_rotation_that_nobody_hurries(ready: Namespace) -> None:
    """Without the `annotate`: at the kubelet's own pace, within the 90 seconds that NOTES.txt promises."""
    (took,) = _rotate(ready, rotations=1, seconds=100, hurried=False)
    assert took < 90


def _rotate(here: Namespace, *, rotations: int, seconds: float = 8, hurried: bool = True) -> list[float]:
    pod, restarts, took = here.uid(), here.restarts(), []
    with here.load(rotations * seconds + 10) as found:
        for _ in range(rotations):
            token, secret = f"token-{secrets.token_hex(8)}", f"secret-{secrets.token_hex(8)}"
            here.rotate(verify_token=f"{token}\n{here.token}\n", app_secret=f"{secret}\n{here.secret}\n")
            if hurried:
                here.touch()
            took.append(until(lambda token=token: here.handshake(token), "the new token is not taken"))
    (load,) = found
    assert set(load.answers) == {"notification 200", "handshake 200"}, load.answers
    assert (here.uid(), here.restarts()) == (pod, restarts)
    assert here.metric('whatsapp_webhook_credentials_accepted{credential="verify-token"}') == 2
    assert here.metric('whatsapp_webhook_credential_matches_total{credential="app-secret",position="2"}') > 0
    assert set(load.acknowledged) <= here.kept()
    print(f"{rotations} rotations under {load.answers}: seconds until in force: {[round(each, 1) for each in took]}")
    return took


@pytest.mark.needs("crds", "prometheus")
def test_a_prometheus_that_follows_the_pod_monitor(ready: Namespace, tmp_path: Path) -> None:
    """It finds the one pod; each query of the dashboard has data there, and each rule is evaluated."""
    nowhere = f"name=app,url=http://wh-whatsapp-webhook.{ready.name}/nowhere,internal=true,format=meta,secretFile=app"
    relay = ",".join(f"relay.destinations[0].{setting}" for setting in nowhere.split(","))
    ready.kubectl("create", "secret", "generic", "wh-whatsapp-webhook-relay", "--from-literal=app=x")
    monitored = "metrics.podMonitor.enabled=true,prometheusRule.enabled=true,dashboard.enabled=true"
    ready.install("--set", f"{monitored},{relay},relay.destinations[0].from=beginning")
    ready.kubectl("rollout", "status", "statefulset/wh-whatsapp-webhook", "--timeout=120s")
    rules = ready.object("prometheusrule")["spec"]
    (shown,) = ready.object("configmap", "wh-whatsapp-webhook-dashboard")["data"].values()
    queries = {query["expr"] for panel in json.loads(shown)["panels"] for query in panel.get("targets", [])}
    with scrape.api() as host, scraping(tmp_path / "prometheus", scrape.jobs(ready, host), rules) as prometheus:
        for _ in range(2):
            ready.play()
            time.sleep(2)
        assert {query for query in queries if not prometheus.found(query)} == set()
        prometheus.wait_until_evaluated()
        assert prometheus.firing() == set()
        (scraped,) = prometheus.found("whatsapp_webhook_build_info")
        assert scraped["metric"]["pod"] == POD
    print(f"{len(queries)} queries of the dashboard have data under {scraped['metric']}")


def test_what_of_the_volume_cannot_change(ready: Namespace) -> None:
    """Is refused with the way out, before the API refuses it without one."""
    command = ["upgrade", "wh", str(CHART), *image_values(), "--set", "persistence.size=20Gi"]
    done = run("helm", "-n", ready.name, *command, check=False)
    assert done.returncode != 0
    assert "docs/kubernetes.md has the steps" in done.stderr


def test_a_second_pod_gets_nothing(ready: Namespace) -> None:
    """Where somebody scales by hand: it would keep events that nobody looks for."""
    ready.kubectl("scale", "statefulset", "wh-whatsapp-webhook", "--replicas=2")
    until(lambda: "Running" in ready.kubectl("get", "pod", f"{POD[:-1]}1", check=False), "no second pod")
    addresses = ready.kubectl("get", "endpoints", "wh-whatsapp-webhook", "-o", "jsonpath={.subsets[*].addresses[*].ip}")
    assert addresses == ready.kubectl("get", "pod", POD, "-o", "jsonpath={.status.podIP}")
    ready.kubectl("scale", "statefulset", "wh-whatsapp-webhook", "--replicas=1")
    ready.kubectl("wait", "--for=delete", f"pod/{POD[:-1]}1", "--timeout=120s")


def test_an_upgrade_keeps_what_was_rotated(ready: Namespace) -> None:
    """With another change; the Secret is not the chart's."""
    before = ready.kubectl("get", "secret", SECRET, "-o", "jsonpath={.data}")
    ready.install("--set", "log.level=debug")
    ready.kubectl("rollout", "status", "statefulset/wh-whatsapp-webhook", "--timeout=120s")
    assert ready.kubectl("get", "secret", SECRET, "-o", "jsonpath={.data}") == before
    until(lambda: ready.handshake(ready.token), "the token is not taken")


def test_a_secret_of_the_charts_own_keeps_what_was_rotated(here: Namespace) -> None:
    """`credentials.create` counts for the first time only, across upgrade and uninstall."""
    create = (
        "credentials.create=true,credentials.verifyToken=first,credentials.appSecret=0123456789abcdef0123456789abcdef"
    )
    # Of another access mode than the others': small clusters have few volumes of each.
    own = "fullnameOverride=own,replicas=1,persistence.accessMode=ReadWriteOnce"
    made = ["--set", create, "--set", own, *image_values()]
    here.helm("install", "own", str(CHART), *made)
    rotated = {"stringData": {"verify-token": "second\nfirst"}}
    here.kubectl("patch", "secret", "own-credentials", "-p", json.dumps(rotated))
    here.helm("upgrade", "own", str(CHART), *made, "--set", "log.level=debug")
    value = "jsonpath={.data.verify-token}"
    kept = here.kubectl("get", "secret", "own-credentials", "-o", value)
    assert kept == "c2Vjb25kCmZpcnN0"
    here.helm("uninstall", "own")
    assert here.kubectl("get", "secret", "own-credentials", "-o", value) == kept
    assert "inbox-own-0" in here.kubectl("get", "pvc")


# What a request may meet while nothing listens: it was not accepted, and Meta sends it again.
NOT_ACCEPTED = {
    f"{what} {why}" for what in ("notification", "handshake") for why in ("NewConnectionError", "ConnectTimeoutError")
}


def _disturb(here: Namespace, what: str, *command: str) -> None:
    before = here.uid(), here.restarts()
    with here.load(40, handshakes=1) as found:
        here.kubectl(*command, check=False)
        until(lambda: (here.uid(), _restarts(here)) != before, "nothing happened")
        here.wait_ready()
    _tell(what, here, *found)
    (load,) = found
    others = {answer: number for answer, number in load.answers.items() if answer not in NOT_ACCEPTED}
    # One that meets the closing of its idle connection was not accepted either, and can't be told from one that was.
    assert sum(others.values()) - others["notification 200"] - others["handshake 200"] <= 2, load.answers


def _tell(what: str, here: Namespace, load: Load) -> None:
    assert load.answers["notification 200"] > 1000
    lost = set(load.acknowledged) - here.kept()
    assert not lost, f"{len(lost)} of {len(load.acknowledged)} lost"
    print(f"{what}: {load.gap:.1f} s without an answer, {len(load.acknowledged)} kept, none lost; {load.answers}")


def _restarts(here: Namespace) -> int:
    try:
        return here.restarts()
    except (AssertionError, ValueError):
        return -1


def test_a_restart_under_load(ready: Namespace) -> None:
    """Every request that was accepted is answered, every event that was is there; how long nothing answers is said."""
    _disturb(ready, "rollout restart", "rollout", "restart", "statefulset/wh-whatsapp-webhook")


def test_a_pod_that_is_deleted_under_load(ready: Namespace) -> None:
    """The same."""
    _disturb(ready, "pod deleted", "delete", "pod", POD, "--wait=false")


@pytest.mark.long
def test_a_container_that_is_killed_under_load(ready: Namespace) -> None:
    """With -9, its first process, which only the node can."""
    before = ready.restarts()
    with Namespace("privileged") as node, ready.load(30, handshakes=1) as found:
        node.kill_first_process(ready.object("pod", POD))
        until(lambda: _restarts(ready) == before + 1, "nothing happened")
        ready.wait_ready()
    _tell("container killed with -9", ready, *found)


@pytest.mark.long
def test_a_worker_that_is_killed_under_load(ready: Namespace) -> None:
    """With -9, the process that holds everything; the first one starts it anew."""
    restarts = ready.restarts()
    kill = "import os; os.kill(int(open('/proc/1/task/1/children').read().split()[0]), 9)"
    with ready.load(30, handshakes=1) as found:
        ready.kubectl("exec", POD, "--", "python", "-c", kill)
    _tell("worker killed with -9", ready, *found)
    assert ready.restarts() == restarts


@pytest.mark.long
def test_a_node_that_is_drained(ready: Namespace) -> None:
    """And uncordoned: nothing lost."""
    node = ready.kubectl("get", "pod", POD, "-o", "jsonpath={.spec.nodeName}")
    before, kept = ready.uid(), ready.kept()
    try:
        run("kubectl", "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=120s")
    finally:
        run("kubectl", "uncordon", node)
    until(lambda: ready.uid() not in ("", before), "it does not come back")
    ready.wait_ready()
    assert kept <= ready.kept()


@pytest.mark.parametrize("bad", ["image.tag=is-not-there", "extraEnv[0].name=WEBHOOK_NONSENSE,extraEnv[0].value=x"])
def test_a_bad_upgrade_is_healed_by_a_rollback(ready: Namespace, bad: str) -> None:
    """A wrong image, or a configuration that is refused: the data is as it was."""
    kept, before = ready.kept(), ready.uid()
    ready.install("--set", bad)
    until(lambda: ready.uid() not in ("", before), "nothing happened")
    time.sleep(3)
    assert "1/1" not in ready.kubectl("get", "pod", POD)
    ready.helm("rollback", "wh")
    until(lambda: "1/1" in ready.kubectl("get", "pod", POD, check=False), "the rollback does not heal it")
    assert kept <= ready.kept()


def test_what_an_uninstall_leaves(ready: Namespace) -> None:
    """The claim and the Secret; the same name takes them up again."""
    kept = ready.kept()
    ready.helm("uninstall", "wh", "--wait")
    assert f"inbox-{POD}" in ready.kubectl("get", "pvc")
    assert SECRET in ready.kubectl("get", "secret")
    until(lambda: ready.uid() == "", "it stays")
    ready.install()
    until(lambda: "1/1" in ready.kubectl("get", "pod", POD, check=False), "it does not come back")
    assert kept <= ready.kept()
