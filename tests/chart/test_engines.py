"""The chart with an inbox that is a server: many pods that keep nothing themselves."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import dashboard
import kubernetes_validate
import pytest
import yaml

from tests.chart.helm import (
    APART,
    AUTOSCALED,
    BOT,
    CHART,
    EVERYTHING,
    KAFKA,
    KEDA,
    NATS,
    POD_MONITOR,
    POSTGRESQL,
    RELAY,
    RULE,
    SERVICE_MONITOR,
    container,
    helm,
    notes,
    objects,
    one,
    refusal,
    rendered,
)

pytestmark = pytest.mark.needs("helm")
NAME = "wh-whatsapp-webhook"
ENGINES = {"postgresql": POSTGRESQL, "kafka": KAFKA, "nats": NATS}
# All that the chart can make with PostgreSQL.
ALL = {**EVERYTHING, **APART, **AUTOSCALED, **APART}


@pytest.fixture(params=ENGINES)
def values(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Those of each engine that is a server."""
    return ENGINES[str(request.param)]


def named(kind: str, name: str, values: Any) -> dict[str, Any]:
    """Give the object of that kind and name."""
    (found,) = [it for it in rendered(values) if (it["kind"], it["metadata"]["name"]) == (kind, name)]
    return found


def pod(values: Any, name: str = NAME) -> dict[str, Any]:
    """Give the template of a Deployment's pods."""
    template = named("Deployment", name, values)["spec"]["template"]
    assert isinstance(template, dict)
    return template


def kinds(values: Any) -> set[tuple[str, str]]:
    """Give what is made, without what every release has."""
    return {(it["kind"], it["metadata"]["name"].removeprefix(NAME)) for it in rendered(values)} - {
        ("ServiceAccount", ""),
        ("Service", ""),
        ("Service", "-admin"),
        ("NetworkPolicy", ""),
        ("NetworkPolicy", "-test"),
        ("Pod", "-test"),
    }


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Say whether a selector, of labels or with expressions, means a pod with these labels."""
    wanted = selector.get("matchLabels", {} if "matchExpressions" in selector else selector)
    expressions = selector.get("matchExpressions", [])
    assert all(it["operator"] == "In" for it in expressions)
    return wanted.items() <= labels.items() and all(labels.get(it["key"]) in it["values"] for it in expressions)


def test_a_deployment_of_two_and_no_volume(values: Any) -> None:
    """The server keeps the events; with SQLite it is as it was."""
    assert kinds(values) == {("Deployment", ""), ("PodDisruptionBudget", "")}
    spec = named("Deployment", NAME, values)["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    assert "persistentVolumeClaim" not in json.dumps(spec)
    assert kinds({}) == {("StatefulSet", "")}


def test_the_pod_is_what_it_is_with_sqlite() -> None:
    """But for where events go, how it leaves, and where it stands: one text makes both."""
    ours, sqlite = pod(POSTGRESQL), one("StatefulSet")["spec"]["template"]
    assert ours["metadata"] == sqlite["metadata"]
    differ = {"containers", "volumes", "topologySpreadConstraints", "terminationGracePeriodSeconds"}
    assert {key for key in ours["spec"] if ours["spec"][key] != sqlite["spec"].get(key)} == differ
    receiver, other = ours["spec"]["containers"][0], sqlite["spec"]["containers"][0]
    assert {key for key in receiver if receiver[key] != other[key]} == {"env", "lifecycle", "volumeMounts"}
    assert receiver["lifecycle"]["preStop"]["exec"]["command"][-1] == "15"
    assert ours["spec"]["terminationGracePeriodSeconds"] == 37


def test_the_url_is_in_a_file_that_changes_live(values: Any) -> None:
    """The Secret is mounted whole, so without subPath; what lies beside the URL can be named in it."""
    spec = pod(values | {"inbox": values["inbox"] | {"secretKey": "dsn"}})["spec"]
    (volume,) = [it for it in spec["volumes"] if it["name"] == "inbox"]
    assert volume == {"name": "inbox", "secret": {"secretName": "inbox", "defaultMode": 0o440}}
    (mount,) = [it for it in spec["containers"][0]["volumeMounts"] if it["name"] == "inbox"]
    assert mount == {"name": "inbox", "mountPath": "/etc/whatsapp-webhook/inbox", "readOnly": True}
    env = {it["name"]: it.get("value") for it in spec["containers"][0]["env"]}
    assert env["WEBHOOK_INBOX_FILE"] == "/etc/whatsapp-webhook/inbox/dsn"
    assert "WEBHOOK_INBOX" not in env
    assert "checksum" not in json.dumps(spec)


def test_several_workers_of_a_pod(values: Any) -> None:
    """A server takes from many."""
    env = {it["name"]: it.get("value") for it in pod(values | {"workers": 4})["spec"]["containers"][0]["env"]}
    assert env["WEBHOOK_WORKERS"] == "4"


@pytest.mark.parametrize(
    ("more", "replicas", "budget"),
    [({}, 2, True), ({"replicas": 1}, 1, False), ({"replicas": 5}, 5, True), ({"replicas": None}, 2, True)],
)
def test_a_budget_where_there_is_more_than_one(more: Any, replicas: int, budget: bool) -> None:  # noqa: FBT001 -- of a table
    """One of several may be missing; of one, a budget would only keep nodes from being drained."""
    assert named("Deployment", NAME, POSTGRESQL | more)["spec"]["replicas"] == replicas
    budgets = [it["spec"] for it in rendered(POSTGRESQL | more) if it["kind"] == "PodDisruptionBudget"]
    assert len(budgets) == budget
    for each in budgets:
        assert (each["maxUnavailable"], each["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
        assert selects(each["selector"], pod(POSTGRESQL)["metadata"]["labels"])


def test_the_pods_are_spread() -> None:
    """Over nodes and zones where that is possible, each rollout by itself; or as the reader says."""
    for name in (NAME, f"{NAME}-relay"):
        template = pod(APART, name)
        spread = template["spec"]["topologySpreadConstraints"]
        assert [it["topologyKey"] for it in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
        for each in spread:
            assert each["whenUnsatisfiable"] == "ScheduleAnyway"
            assert each["matchLabelKeys"] == ["pod-template-hash"]
            assert selects(each["labelSelector"], template["metadata"]["labels"])
    mine = {"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}
    (given,) = pod(APART | {"topologySpreadConstraints": [mine]})["spec"]["topologySpreadConstraints"]
    assert given == mine | {"labelSelector": given["labelSelector"]}
    assert selects(given["labelSelector"], pod(APART)["metadata"]["labels"])
    chosen = mine | {"labelSelector": {"matchLabels": {"a": "b"}}}
    assert pod(APART | {"topologySpreadConstraints": [chosen]})["spec"]["topologySpreadConstraints"] == [chosen]
    assert "topologySpreadConstraints" not in one("StatefulSet")["spec"]["template"]["spec"]


def test_who_is_not_ready_gets_nothing(values: Any) -> None:
    """Another pod does; and no selector asks for the one pod of a StatefulSet. A pod of before is meant as well."""
    spec = named("Service", NAME, values)["spec"]
    assert "publishNotReadyAddresses" not in spec
    for template in (pod(values), one("StatefulSet")["spec"]["template"]):
        assert selects(spec["selector"], template["metadata"]["labels"])
    assert named("Service", NAME, {})["spec"]["publishNotReadyAddresses"] is True


def test_the_relay_has_pods_of_its_own() -> None:
    """Two of them, that nobody needs a volume for; the receiver's pods have none."""
    made = {
        ("Deployment", "-relay"),
        ("PodDisruptionBudget", "-relay"),
        ("Service", "-relay"),
        ("NetworkPolicy", "-relay"),
    }
    assert kinds(APART) - kinds(POSTGRESQL) == made | {("ConfigMap", "-destinations")}
    assert [it["name"] for it in pod(APART)["spec"]["containers"]] == ["receiver"]
    assert named("Deployment", f"{NAME}-relay", APART)["spec"]["replicas"] == 2
    spec = pod(APART, f"{NAME}-relay")["spec"]
    (relay,) = spec["containers"]
    beside = container(RELAY, "relay")
    assert relay.pop("readinessProbe")["httpGet"] == {"path": "/readyz", "port": "relay"}
    assert {key for key in relay if relay[key] != beside[key]} == {"env", "volumeMounts"}
    assert {it["name"] for it in relay["volumeMounts"]} == {"destinations", "inbox"}
    assert [it["name"] for it in spec["volumes"]] == ["inbox", "destinations"]
    ports = {name: named("Service", f"{NAME}{name}", APART)["spec"]["ports"] for name in ("-admin", "-relay")}
    assert {name: [port["name"] for port in ports[name]] for name in ports} == {
        "-admin": ["admin"],
        "-relay": ["relay"],
    }
    single = APART | {"relay": RELAY["relay"] | {"replicas": 1}}
    assert ("PodDisruptionBudget", "-relay") not in kinds(single)


def test_the_receiver_knows_that_there_is_a_relay() -> None:
    """It purges nothing that is still owed."""
    env = {it["name"] for it in pod(APART)["spec"]["containers"][0]["env"]}
    assert "WEBHOOK_DESTINATIONS" in env - {it["name"] for it in pod(POSTGRESQL)["spec"]["containers"][0]["env"]}


def test_a_change_of_the_destinations_restarts_no_pod() -> None:
    """Of neither Deployment."""
    other = POSTGRESQL | {"relay": {"destinations": [BOT | {"url": "https://other.example.com/"}]}}
    for name in (NAME, f"{NAME}-relay"):
        assert named("Deployment", name, APART) == named("Deployment", name, other)


def test_no_selector_means_the_pods_of_another() -> None:
    """Services, budgets, policies, Deployments: the relay's never the receiver, its own never the relay or the test."""
    labels = {
        "receiver": pod(APART)["metadata"]["labels"],
        "relay": pod(APART, f"{NAME}-relay")["metadata"]["labels"],
        "test": named("Pod", f"{NAME}-test", APART)["metadata"]["labels"],
    }
    seen = 0
    for found in rendered(APART):
        selector = found.get("spec", {}).get("selector", found.get("spec", {}).get("podSelector"))
        if selector:
            seen += 1
            meant = {component for component in labels if selects(selector, labels[component])}
            end = found["metadata"]["name"].rpartition("-")[2]
            assert meant == {end if end in labels else "receiver"}, found["metadata"]
    assert seen == 10
    # A StatefulSet's selector can't change, and needs not: it never meant a relay.
    assert not selects(one("StatefulSet")["spec"]["selector"], labels["relay"])


@pytest.mark.parametrize("monitor", [POD_MONITOR, SERVICE_MONITOR])
def test_both_are_scraped(monitor: Any) -> None:
    """Each by the port that it has, whichever monitor it is; without a relay nobody looks for one."""
    apart, alone = (
        next(it["spec"] for it in rendered(given | monitor) if it["kind"].endswith("Monitor"))
        for given in (APART, POSTGRESQL)
    )
    assert [it["port"] for it in apart.get("podMetricsEndpoints", apart.get("endpoints"))] == ["admin", "relay"]
    if monitor is POD_MONITOR:
        places = {name: pod(APART, name)["metadata"]["labels"] for name in (NAME, f"{NAME}-relay")}
    else:
        names = (f"{NAME}-admin", f"{NAME}-relay", NAME)
        places = {name: named("Service", name, APART)["metadata"]["labels"] for name in names}
    assert {name for name in places if selects(apart["selector"], places[name])} == {*places} - (
        {NAME} if monitor is SERVICE_MONITOR else set()
    )
    assert not selects(apart["selector"], named("Pod", f"{NAME}-test", APART)["metadata"]["labels"])
    assert "relay" not in json.dumps(alone)


@pytest.mark.parametrize(
    ("engine", "ports"), [("postgresql", [5432, 6432]), ("kafka", [9092, 9093, 9094]), ("nats", [4222])]
)
def test_the_network_policy_lets_the_receiver_to_its_server(engine: str, ports: list[int]) -> None:
    """By its usual ports, or as the reader says; names are found all the same."""
    names, way = named("NetworkPolicy", NAME, ENGINES[engine])["spec"]["egress"]
    assert {port["port"] for port in names["ports"]} == {53}
    assert way == {"ports": [{"port": port} for port in ports]}
    mine = [{"ports": [{"port": 5433}], "to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}, {"ports": [{"port": 1}]}]
    given = ENGINES[engine] | {"networkPolicy": {"inboxEgress": mine}}
    assert named("NetworkPolicy", NAME, given)["spec"]["egress"] == [names, *mine]
    (alone,) = named("NetworkPolicy", NAME, {"networkPolicy": {"inboxEgress": mine}})["spec"]["egress"]
    assert alone == names


def test_the_network_policies_of_receiver_and_relay() -> None:
    """The receiver does not reach the destinations, the relay's metrics are for Prometheus, nobody else gets in."""
    receiver, relay = (named("NetworkPolicy", name, APART)["spec"] for name in (NAME, f"{NAME}-relay"))
    assert [port["port"] for rule in receiver["ingress"] for port in rule["ports"]] == [
        "http",
        "admin",
        "http",
        "admin",
    ]
    (let_in,) = relay["ingress"]
    monitoring = {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}
    assert let_in == {"ports": [{"port": "relay"}], "from": [{"namespaceSelector": monitoring}]}
    assert [[port["port"] for port in rule["ports"]] for rule in receiver["egress"]] == [[53, 53], [5432, 6432]]
    out = [[port["port"] for port in rule["ports"]] for rule in relay["egress"]]
    assert out == [[53, 53], [5432, 6432], [8443]]
    more = {"networkPolicy": {"extraEgress": [{"ports": [{"port": 5353}]}], "extraIngress": [{"ports": [{"port": 1}]}]}}
    for name in (NAME, f"{NAME}-relay"):
        spec = named("NetworkPolicy", name, APART | more)["spec"]
        assert spec["egress"][-1] == {"ports": [{"port": 5353}]}
        assert spec["ingress"][-1] == {"ports": [{"port": 1}]}


def test_the_autoscaler_decides_how_many() -> None:
    """By the CPU of the receiver's own container; the Deployment then says no number, and has its budget."""
    spec = named("HorizontalPodAutoscaler", NAME, AUTOSCALED)["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME}
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 6)
    (metric,) = spec["metrics"]
    target = {"type": "Utilization", "averageUtilization": 70}
    assert metric["containerResource"] == {"name": "cpu", "container": "receiver", "target": target}
    assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 300
    assert "replicas" not in named("Deployment", NAME, AUTOSCALED)["spec"]
    assert ("PodDisruptionBudget", "") in kinds(AUTOSCALED)


def test_keda_instead() -> None:
    """Its object and not both; triggers of the reader's stand beside the one on CPU."""
    assert ("HorizontalPodAutoscaler", "") not in kinds(KEDA)
    found = named("ScaledObject", NAME, KEDA)
    assert found["apiVersion"] == "keda.sh/v1alpha1"
    spec = found["spec"]
    assert (spec["scaleTargetRef"], spec["minReplicaCount"], spec["maxReplicaCount"]) == ({"name": NAME}, 2, 6)
    assert set(spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]) == {"scaleUp", "scaleDown"}
    (cpu,) = spec["triggers"]
    expected = {"type": "cpu", "metricType": "Utilization", "metadata": {"value": "70", "containerName": "receiver"}}
    assert cpu == expected
    mine = {
        "type": "prometheus",
        "metadata": {"serverAddress": "http://prometheus:9090", "query": "x", "threshold": "1"},
    }
    given = POSTGRESQL | {"autoscaling": {"enabled": True, "keda": {"enabled": True, "triggers": [mine]}}}
    assert named("ScaledObject", NAME, given)["spec"]["triggers"] == [cpu, mine]
    assert "replicas" not in named("Deployment", NAME, KEDA)["spec"]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (
            {"inbox": {"engine": "postgresql"}},
            "say which Secret holds the URL of the postgresql server, under the key url",
        ),
        ({"inbox": {"existingSecret": "x"}}, "set inbox.engine to postgresql, kafka or nats"),
        ({"inbox": {"engine": "mysql"}}, "must be one of"),
        ({"inbox": POSTGRESQL["inbox"] | {"secretKey": "a/b"}}, "pattern"),
        ({"replicas": 2}, "More want an engine with a server: inbox.engine"),
        (POSTGRESQL | {"replicas": 0}, "minimum"),
        (POSTGRESQL | {"replicas": "2"}, "got string, want"),
        (KAFKA | RELAY, "from kafka your own consumers read"),
        (NATS | RELAY, "from nats your own consumers read"),
        ({"autoscaling": {"enabled": True}}, "autoscaling: SQLite serves one pod"),
        ({"autoscaling": {"enabled": True, "keda": {"enabled": True}}}, "autoscaling: SQLite serves one pod"),
        (POSTGRESQL | {"autoscaling": {"keda": {"enabled": True}}}, "counts with autoscaling.enabled only"),
        (AUTOSCALED | {"replicas": 3}, "Leave replicas out"),
        (POSTGRESQL | {"autoscaling": {"enabled": True, "maxReplicas": 1}}, "minReplicas is above"),
        (APART | {"relay": {"replicas": 0}}, "minimum"),
        (POSTGRESQL | {"extraEnv": [{"name": "WEBHOOK_INBOX", "value": "x"}]}, "WEBHOOK_INBOX is the chart's"),
        (
            POSTGRESQL | {"extraEnv": [{"name": "WEBHOOK_INBOX_FILE", "value": "x"}]},
            "WEBHOOK_INBOX_FILE is the chart's",
        ),
    ],
)
def test_what_cannot_work_is_refused(values: Any, why: str) -> None:
    """With the way out."""
    assert why in refusal(values)


@pytest.mark.parametrize("version", ["1.29", "1.36"])
@pytest.mark.parametrize("engine", ENGINES)
def test_the_api_knows_every_field(engine: str, version: str) -> None:
    """By Kubernetes' own schemas, strictly; other makers' resources are tried on a cluster, KEDA's nowhere."""
    more = ALL if engine == "postgresql" else {**EVERYTHING, **ENGINES[engine], "relay": {}}
    seen = set()
    for found in rendered(more):
        if not found["apiVersion"].startswith(("monitoring.coreos.com", "gateway.networking.k8s.io")):
            kubernetes_validate.validate(found, version, strict=True)
            seen.add(found["kind"])
    assert {"Deployment", "PodDisruptionBudget", "NetworkPolicy"} <= seen
    assert ("HorizontalPodAutoscaler" in seen) == (engine == "postgresql")


def test_lint() -> None:
    """As Helm judges it."""
    for values in (ALL, KEDA, KAFKA, NATS):
        done = helm("lint", str(CHART), "--strict", values=values)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("values", "said", "unsaid"),
    [
        (POSTGRESQL, "the Secret inbox wants the key url", "volume claim"),
        (POSTGRESQL, "--from-literal=url='postgresql://USER:PASSWORD@HOST:5432/", "-0"),
        (POSTGRESQL, "exec deployment/wh-whatsapp-webhook -- whatsapp-webhook events list", "consumers"),
        (POSTGRESQL, "by the usual ports of postgresql alone", "inboxEgress says"),
        (POSTGRESQL | {"networkPolicy": {"inboxEgress": [{}]}}, "as networkPolicy.inboxEgress says", "usual ports"),
        (APART, "exec deployment/wh-whatsapp-webhook-relay -- whatsapp-webhook destinations list", "-c relay"),
        (KAFKA, "they are in the topic that the URL names", "events list"),
        (NATS, "they are in the stream that the URL names", "events list"),
        ({}, "which outlives `helm uninstall`", "inboxEgress"),
    ],
)
def test_the_notes_fit_the_engine(values: Any, said: str, unsaid: str) -> None:
    """Commands that work there, and nothing of another one."""
    told = notes(values)
    assert said in told
    assert unsaid not in told
    assert "WARNING" not in told


BEGINNING = POSTGRESQL | {"relay": {"destinations": [BOT | {"from": "beginning"}]}}


@pytest.mark.parametrize(
    ("was", "values", "said"),
    [
        ("sqlite", APART, ["Without `from: beginning` bot may miss"]),
        (
            "sqlite",
            BEGINNING,
            ["inbox-wh-whatsapp-webhook-0, which stays", "events list", "helm.sh/resource-policy=keep"],
        ),
        (
            "sqlite, kept",
            APART,
            ["drain --seconds 80", "delete statefulset", "volume claim inbox-wh-whatsapp-webhook-0"],
        ),
        ("postgresql", {}, ["in the database that the former Secret names", "destinations list", "helm rollback"]),
        ("kafka", POSTGRESQL, ["in the topic that the former Secret names", "let your consumers read it to its end"]),
        ("nats", KAFKA, ["in the stream that the former Secret names", "is kafka"]),
        ("sqlite", {}, []),
        ("postgresql", APART, []),
        ("", APART, []),
    ],
)
def test_another_engine_is_warned_of(was: str, values: Any, said: list[str], tmp_path: Path) -> None:
    """What the old inbox holds, and how it is delivered first. What was, only a cluster tells: see tests/cluster."""
    copy = Path(shutil.copytree(CHART, tmp_path / "chart"))
    include = f'{{{{ include "whatsapp-webhook.moved" (list . "{was}") | toJson }}}}'
    made = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: told}\ndata: {told: " + include + "}\n"
    (copy / "templates" / "told.yaml").write_text(made)
    (found,) = [it for it in objects(copy, values) if it["metadata"]["name"] == "told"]
    told = found["data"]["told"]
    assert bool(told) == bool(said)
    for each in said:
        assert each in told
    if said:
        assert ("delivered by nobody now" in told) == (was in ("sqlite", "postgresql"))
        assert "docs/kubernetes.md" in told
        now = values.get("inbox", {"engine": "sqlite"})["engine"]
        assert ("from: beginning" in told) == (values == APART)
        assert f"inbox.engine was {was.removesuffix(', kept')} and is {now}." in told
        assert "## Moving to another engine" in (CHART.parents[1] / "docs" / "kubernetes.md").read_text()


def test_the_deployment_says_which_engine_it_has(values: Any) -> None:
    """So that the next upgrade can tell; the reader's annotations stand beside."""
    found = named("Deployment", NAME, values | {"annotations": {"a": "b"}})["metadata"]["annotations"]
    assert found == {"whatsapp-webhook/inbox-engine": values["inbox"]["engine"], "a": "b"}


def test_helm_test_asks_no_single_pod(values: Any) -> None:
    """One of several took the notification, and another one would be asked whether it counted it."""
    assert not any("--metrics" in it for it in named("Pod", f"{NAME}-test", values)["spec"]["containers"][0]["args"])
    assert any("--metrics" in it for it in named("Pod", f"{NAME}-test", {})["spec"]["containers"][0]["args"])


def alerts(values: Any) -> dict[str, str]:
    """Give the causes' expressions by name."""
    groups = one("PrometheusRule", values | RULE)["spec"]["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"] if "alert" in rule}


def test_no_alert_speaks_of_a_volume_that_is_not_there(values: Any) -> None:
    """All others are there, and none fires because somebody chose a weaker inbox."""
    assert {*alerts({})} - {*alerts(values)} == {"WebhookVolumeFilling", "WebhookVolumeNearlyFull"}
    assert "weak" not in json.dumps(alerts(values))
    assert {*alerts(RELAY)} - {*alerts(APART)} == {"WebhookVolumeFilling", "WebhookVolumeNearlyFull"}


def pods_of(values: Any, *, release: str) -> list[str]:
    """Name a pod of each Deployment as Kubernetes does: what is before the five letters is cut at 58."""
    done = helm("template", release, str(CHART), values=values)
    made = [it for it in yaml.safe_load_all(done.stdout) if it and it["kind"] == "Deployment"]
    return [f"{it['metadata']['name']}-7f9c8d6b54-"[:58] + "x2k9z" for it in made]


@pytest.mark.parametrize("release", ["wh", "w" * 30, "w" * 47, "w" * 52])
def test_the_alerts_are_of_every_pod_of_the_release_and_of_no_other(release: str) -> None:
    """However long its name is; a release whose name goes on where this one's ends is another one."""
    done = helm("template", release, str(CHART), "--namespace", "here", values=APART | RULE)
    (rule,) = [it for it in yaml.safe_load_all(done.stdout) if it and it["kind"] == "PrometheusRule"]
    (pattern,) = set(re.findall(r'namespace="here",pod=~"(.*?)"', json.dumps(rule).replace('\\"', '"')))
    assert len(pods_of(APART, release=release)) == 2
    for name in pods_of(APART, release=release):
        assert re.fullmatch(pattern, name), name
    own = rule["metadata"]["name"]
    for other in (f"{own}-0", f"{own}-2-0", f"{own}-two-7f9c8d6b54-x2k9z", f"x{own}-7f9c8d6b54-x2k9z"):
        assert not re.fullmatch(pattern, other), other


def test_the_dashboard_counts_the_inbox_once() -> None:
    """Each pod tells the same of it: the largest of a release; and relays are found in pods of their own."""
    made = dashboard.dashboard()
    queries = [it["expr"] for panel in made["panels"] for it in panel.get("targets", [])]
    whole = [query for query in queries if re.search(r"inbox_(events|bytes|free_bytes)\b", query)]
    assert len(whole) == 3
    assert all(re.match(r"(max|min) by \(namespace, job\) ", query) for query in whole)
    (pods,) = [it["query"]["query"] for it in made["templating"]["list"] if it["name"] == "pod"]
    assert "whatsapp_webhook_build_info|whatsapp_webhook_relay_failing" in pods


@pytest.mark.needs("prometheus")
def test_the_alerts_with_many_pods(tmp_path: Path) -> None:
    """What each of them tells is one alert, as promtool plays it."""
    spec = one("PrometheusRule", APART | {"prometheusRule": {"enabled": True, "runbook": "https://RUNBOOK"}})["spec"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec))
    check = ["promtool", "check", "rules", "--lint=all", "--lint-fatal", str(tmp_path / "rules.yaml")]
    judged = subprocess.run(check, capture_output=True, text=True, check=False)
    assert judged.returncode == 0, judged.stdout + judged.stderr
    play = shutil.copy(Path(__file__).parent / "server-alerts.yaml", tmp_path)
    done = subprocess.run(["promtool", "test", "rules", play], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
