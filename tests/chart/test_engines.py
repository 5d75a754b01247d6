"""The chart with an external inbox: several pods without volumes."""

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
    rendered,
    validation_error,
)

pytestmark = pytest.mark.needs("helm")
NAME = "wh-whatsapp-webhook"
ENGINES = {"postgresql": POSTGRESQL, "kafka": KAFKA, "nats": NATS}
# Everything that the chart can create with PostgreSQL.
ALL = {**EVERYTHING, **APART, **AUTOSCALED, **APART}


@pytest.fixture(params=ENGINES)
def values(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the values of each external engine."""
    return ENGINES[str(request.param)]


def named(kind: str, name: str, values: Any) -> dict[str, Any]:
    """Return the object of that kind and name."""
    (manifest,) = [it for it in rendered(values) if (it["kind"], it["metadata"]["name"]) == (kind, name)]
    return manifest


def pod(values: Any, name: str = NAME) -> dict[str, Any]:
    """Return the pod template of a Deployment."""
    template = named("Deployment", name, values)["spec"]["template"]
    assert isinstance(template, dict)
    return template


def kinds(values: Any) -> set[tuple[str, str]]:
    """Return kinds and name suffixes of the objects, without those of every release."""
    return {(it["kind"], it["metadata"]["name"].removeprefix(NAME)) for it in rendered(values)} - {
        ("ServiceAccount", ""),
        ("Service", ""),
        ("Service", "-admin"),
        ("NetworkPolicy", ""),
        ("NetworkPolicy", "-test"),
        ("Pod", "-test"),
    }


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Return whether a selector matches a pod with these labels."""
    required = selector.get("matchLabels", {} if "matchExpressions" in selector else selector)
    expressions = selector.get("matchExpressions", [])
    assert all(it["operator"] == "In" for it in expressions)
    return required.items() <= labels.items() and all(labels.get(it["key"]) in it["values"] for it in expressions)


def test_a_deployment_of_two_and_no_volume(values: Any) -> None:
    """An external engine has a Deployment, SQLite a StatefulSet."""
    assert kinds(values) == {("Deployment", ""), ("PodDisruptionBudget", "")}
    spec = named("Deployment", NAME, values)["spec"]
    assert spec["replicas"] == 2
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    assert "persistentVolumeClaim" not in json.dumps(spec)
    assert kinds({}) == {("StatefulSet", "")}


def test_the_pod_is_the_same_as_with_sqlite() -> None:
    """Except for the inbox, the drain and the spread over nodes: one template creates both."""
    ours, sqlite = pod(POSTGRESQL), one("StatefulSet")["spec"]["template"]
    assert ours["metadata"] == sqlite["metadata"]
    differ = {"containers", "volumes", "topologySpreadConstraints", "terminationGracePeriodSeconds"}
    assert {key for key in ours["spec"] if ours["spec"][key] != sqlite["spec"].get(key)} == differ
    receiver, other = ours["spec"]["containers"][0], sqlite["spec"]["containers"][0]
    assert {key for key in receiver if receiver[key] != other[key]} == {"env", "lifecycle", "volumeMounts"}
    assert receiver["lifecycle"]["preStop"]["exec"]["command"][-1] == "15"
    assert ours["spec"]["terminationGracePeriodSeconds"] == 37


def test_the_url_is_in_a_mounted_secret(values: Any) -> None:
    """All keys are mounted, without subPath: the URL can change without a restart, and name a file beside it."""
    spec = pod(values | {"inbox": values["inbox"] | {"secretKey": "dsn"}})["spec"]
    (volume,) = [it for it in spec["volumes"] if it["name"] == "inbox"]
    assert volume == {"name": "inbox", "secret": {"secretName": "inbox", "defaultMode": 0o440}}
    (mount,) = [it for it in spec["containers"][0]["volumeMounts"] if it["name"] == "inbox"]
    assert mount == {"name": "inbox", "mountPath": "/etc/whatsapp-webhook/inbox", "readOnly": True}
    env = {it["name"]: it.get("value") for it in spec["containers"][0]["env"]}
    assert env["WEBHOOK_INBOX_FILE"] == "/etc/whatsapp-webhook/inbox/dsn"
    assert "WEBHOOK_INBOX" not in env
    assert "checksum" not in json.dumps(spec)


def test_a_pod_may_have_several_workers(values: Any) -> None:
    """An external inbox allows several writers."""
    env = {it["name"]: it.get("value") for it in pod(values | {"workers": 4})["spec"]["containers"][0]["env"]}
    assert env["WEBHOOK_WORKERS"] == "4"


@pytest.mark.parametrize(
    ("more", "replicas", "budget"),
    [({}, 2, True), ({"replicas": 1}, 1, False), ({"replicas": 5}, 5, True), ({"replicas": None}, 2, True)],
)
def test_several_pods_have_a_disruption_budget(more: Any, replicas: int, budget: bool) -> None:  # noqa: FBT001 -- a parameter
    """It allows one pod to be missing; with one pod it would only block drains of nodes."""
    assert named("Deployment", NAME, POSTGRESQL | more)["spec"]["replicas"] == replicas
    budgets = [it["spec"] for it in rendered(POSTGRESQL | more) if it["kind"] == "PodDisruptionBudget"]
    assert len(budgets) == budget
    for each in budgets:
        assert (each["maxUnavailable"], each["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
        assert selects(each["selector"], pod(POSTGRESQL)["metadata"]["labels"])


def test_the_pods_are_spread() -> None:
    """Over nodes and zones if possible, per rollout; or as the values say."""
    for name in (NAME, f"{NAME}-relay"):
        template = pod(APART, name)
        spread = template["spec"]["topologySpreadConstraints"]
        assert [it["topologyKey"] for it in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
        for each in spread:
            assert each["whenUnsatisfiable"] == "ScheduleAnyway"
            assert each["matchLabelKeys"] == ["pod-template-hash"]
            assert selects(each["labelSelector"], template["metadata"]["labels"])
    constraint = {"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}
    (spread_by_values,) = pod(APART | {"topologySpreadConstraints": [constraint]})["spec"]["topologySpreadConstraints"]
    assert spread_by_values == constraint | {"labelSelector": spread_by_values["labelSelector"]}
    assert selects(spread_by_values["labelSelector"], pod(APART)["metadata"]["labels"])
    selected = constraint | {"labelSelector": {"matchLabels": {"a": "b"}}}
    assert pod(APART | {"topologySpreadConstraints": [selected]})["spec"]["topologySpreadConstraints"] == [selected]
    assert "topologySpreadConstraints" not in one("StatefulSet")["spec"]["template"]["spec"]


def test_a_pod_that_is_not_ready_gets_no_requests(values: Any) -> None:
    """Another pod does. The Service also selects the pod of a StatefulSet that is kept while the engine changes."""
    spec = named("Service", NAME, values)["spec"]
    assert "publishNotReadyAddresses" not in spec
    for template in (pod(values), one("StatefulSet")["spec"]["template"]):
        assert selects(spec["selector"], template["metadata"]["labels"])
    assert named("Service", NAME, {})["spec"]["publishNotReadyAddresses"] is True


def test_the_relay_has_its_own_pods() -> None:
    """There are two, without a volume; the receiver's pods have no relay."""
    expected = {
        ("Deployment", "-relay"),
        ("PodDisruptionBudget", "-relay"),
        ("Service", "-relay"),
        ("NetworkPolicy", "-relay"),
    }
    assert kinds(APART) - kinds(POSTGRESQL) == expected | {("ConfigMap", "-destinations")}
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


def test_the_receiver_is_told_about_the_relay() -> None:
    """It must not purge undelivered events."""
    env = {it["name"] for it in pod(APART)["spec"]["containers"][0]["env"]}
    assert "WEBHOOK_DESTINATIONS" in env - {it["name"] for it in pod(POSTGRESQL)["spec"]["containers"][0]["env"]}


def test_a_change_of_the_destinations_restarts_no_pod() -> None:
    """Neither Deployment changes."""
    other = POSTGRESQL | {"relay": {"destinations": [BOT | {"url": "https://other.example.com/"}]}}
    for name in (NAME, f"{NAME}-relay"):
        assert named("Deployment", name, APART) == named("Deployment", name, other)


def test_every_selector_matches_only_its_own_pods() -> None:
    """Selectors of the receiver, the relay and the test pod never match each other's pods."""
    labels = {
        "receiver": pod(APART)["metadata"]["labels"],
        "relay": pod(APART, f"{NAME}-relay")["metadata"]["labels"],
        "test": named("Pod", f"{NAME}-test", APART)["metadata"]["labels"],
    }
    count = 0
    for manifest in rendered(APART):
        selector = manifest.get("spec", {}).get("selector", manifest.get("spec", {}).get("podSelector"))
        if selector:
            count += 1
            matched = {component for component in labels if selects(selector, labels[component])}
            end = manifest["metadata"]["name"].rpartition("-")[2]
            assert matched == {end if end in labels else "receiver"}, manifest["metadata"]
    assert count == 10
    # A StatefulSet's selector can't be changed, and need not be: it never matched a relay.
    assert not selects(one("StatefulSet")["spec"]["selector"], labels["relay"])


@pytest.mark.parametrize("monitor", [POD_MONITOR, SERVICE_MONITOR])
def test_receiver_and_relay_are_scraped(monitor: Any) -> None:
    """Each on its own port, by either kind of monitor; without a relay nothing is scraped for it."""
    apart, alone = (
        next(it["spec"] for it in rendered(values | monitor) if it["kind"].endswith("Monitor"))
        for values in (APART, POSTGRESQL)
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
def test_the_receiver_may_reach_the_inboxs_server(engine: str, ports: list[int]) -> None:
    """On its usual ports, or as inboxEgress says; DNS stays allowed."""
    names, server = named("NetworkPolicy", NAME, ENGINES[engine])["spec"]["egress"]
    assert {port["port"] for port in names["ports"]} == {53}
    assert server == {"ports": [{"port": port} for port in ports]}
    rules = [{"ports": [{"port": 5433}], "to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}, {"ports": [{"port": 1}]}]
    values = ENGINES[engine] | {"networkPolicy": {"inboxEgress": rules}}
    assert named("NetworkPolicy", NAME, values)["spec"]["egress"] == [names, *rules]
    (alone,) = named("NetworkPolicy", NAME, {"networkPolicy": {"inboxEgress": rules}})["spec"]["egress"]
    assert alone == names


def test_the_network_policies_of_receiver_and_relay() -> None:
    """The receiver can't reach the destinations, and only Prometheus can reach the relay."""
    receiver, relay = (named("NetworkPolicy", name, APART)["spec"] for name in (NAME, f"{NAME}-relay"))
    assert [port["port"] for rule in receiver["ingress"] for port in rule["ports"]] == [
        "http",
        "admin",
        "http",
        "admin",
    ]
    (ingress_rule,) = relay["ingress"]
    monitoring = {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}
    assert ingress_rule == {"ports": [{"port": "relay"}], "from": [{"namespaceSelector": monitoring}]}
    assert [[port["port"] for port in rule["ports"]] for rule in receiver["egress"]] == [[53, 53], [5432, 6432]]
    out = [[port["port"] for port in rule["ports"]] for rule in relay["egress"]]
    assert out == [[53, 53], [5432, 6432], [8443]]
    more = {"networkPolicy": {"extraEgress": [{"ports": [{"port": 5353}]}], "extraIngress": [{"ports": [{"port": 1}]}]}}
    for name in (NAME, f"{NAME}-relay"):
        spec = named("NetworkPolicy", name, APART | more)["spec"]
        assert spec["egress"][-1] == {"ports": [{"port": 5353}]}
        assert spec["ingress"][-1] == {"ports": [{"port": 1}]}


def test_the_autoscaler_sets_the_number_of_pods() -> None:
    """By the CPU of the receiver's container; the Deployment then has no replicas, and still its budget."""
    spec = named("HorizontalPodAutoscaler", NAME, AUTOSCALED)["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME}
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 6)
    (metric,) = spec["metrics"]
    target = {"type": "Utilization", "averageUtilization": 70}
    assert metric["containerResource"] == {"name": "cpu", "container": "receiver", "target": target}
    assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 300
    assert "replicas" not in named("Deployment", NAME, AUTOSCALED)["spec"]
    assert ("PodDisruptionBudget", "") in kinds(AUTOSCALED)


def test_keda_replaces_the_autoscaler() -> None:
    """There is one object, and additional triggers follow the one on CPU."""
    assert ("HorizontalPodAutoscaler", "") not in kinds(KEDA)
    manifest = named("ScaledObject", NAME, KEDA)
    assert manifest["apiVersion"] == "keda.sh/v1alpha1"
    spec = manifest["spec"]
    assert (spec["scaleTargetRef"], spec["minReplicaCount"], spec["maxReplicaCount"]) == ({"name": NAME}, 2, 6)
    assert set(spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]) == {"scaleUp", "scaleDown"}
    (cpu,) = spec["triggers"]
    expected = {"type": "cpu", "metricType": "Utilization", "metadata": {"value": "70", "containerName": "receiver"}}
    assert cpu == expected
    trigger = {
        "type": "prometheus",
        "metadata": {"serverAddress": "http://prometheus:9090", "query": "x", "threshold": "1"},
    }
    values = POSTGRESQL | {"autoscaling": {"enabled": True, "keda": {"enabled": True, "triggers": [trigger]}}}
    assert named("ScaledObject", NAME, values)["spec"]["triggers"] == [cpu, trigger]
    assert "replicas" not in named("Deployment", NAME, KEDA)["spec"]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (
            {"inbox": {"engine": "postgresql"}},
            "set it to the Secret that has the URL of the postgresql server under the key url",
        ),
        ({"inbox": {"existingSecret": "x"}}, "set inbox.engine to postgresql, kafka or nats"),
        ({"inbox": {"engine": "mysql"}}, "must be one of"),
        ({"inbox": POSTGRESQL["inbox"] | {"secretKey": "a/b"}}, "pattern"),
        ({"replicas": 2}, "or set inbox.engine to postgresql, kafka or nats"),
        (POSTGRESQL | {"replicas": 0}, "minimum"),
        (POSTGRESQL | {"replicas": "2"}, "got string, want"),
        (KAFKA | RELAY, "with kafka there is no relay"),
        (NATS | RELAY, "with nats there is no relay"),
        ({"autoscaling": {"enabled": True}}, "autoscaling.enabled: with SQLite there is one pod"),
        (
            {"autoscaling": {"enabled": True, "keda": {"enabled": True}}},
            "autoscaling.enabled: with SQLite there is one pod",
        ),
        (POSTGRESQL | {"autoscaling": {"keda": {"enabled": True}}}, "no effect without autoscaling.enabled"),
        (AUTOSCALED | {"replicas": 3}, "Remove replicas"),
        (POSTGRESQL | {"autoscaling": {"enabled": True, "maxReplicas": 1}}, "minReplicas is above"),
        (APART | {"relay": {"replicas": 0}}, "minimum"),
        (
            POSTGRESQL | {"extraEnv": [{"name": "WEBHOOK_INBOX", "value": "x"}]},
            "and set inbox.engine and inbox.existingSecret.",
        ),
        (
            POSTGRESQL | {"extraEnv": [{"name": "WEBHOOK_INBOX_FILE", "value": "x"}]},
            "WEBHOOK_INBOX_FILE can't be changed",
        ),
    ],
)
def test_values_that_cannot_work_are_rejected(values: Any, why: str) -> None:
    """The message says what to set."""
    assert why in validation_error(values)


@pytest.mark.parametrize("version", ["1.29", "1.36"])
@pytest.mark.parametrize("engine", ENGINES)
def test_the_api_accepts_every_field(engine: str, version: str) -> None:
    """Checked against the schemas of Kubernetes; tests/cluster tries the other resources, except KEDA's."""
    more = ALL if engine == "postgresql" else {**EVERYTHING, **ENGINES[engine], "relay": {}}
    validated_kinds = set()
    for manifest in rendered(more):
        if not manifest["apiVersion"].startswith(("monitoring.coreos.com", "gateway.networking.k8s.io")):
            kubernetes_validate.validate(manifest, version, strict=True)
            validated_kinds.add(manifest["kind"])
    assert {"Deployment", "PodDisruptionBudget", "NetworkPolicy"} <= validated_kinds
    assert ("HorizontalPodAutoscaler" in validated_kinds) == (engine == "postgresql")


def test_lint() -> None:
    """`helm lint --strict` passes."""
    for values in (ALL, KEDA, KAFKA, NATS):
        done = helm("lint", str(CHART), "--strict", values=values)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("values", "expected", "unexpected"),
    [
        (POSTGRESQL, "create the Secret inbox with the key url", "volume claim"),
        (POSTGRESQL, "--from-literal=url='postgresql://USER:PASSWORD@HOST:5432/", "-0"),
        (POSTGRESQL, "exec deployment/wh-whatsapp-webhook -- whatsapp-webhook events list", "consumers"),
        (POSTGRESQL, "only the usual ports of postgresql", "inboxEgress says"),
        (POSTGRESQL | {"networkPolicy": {"inboxEgress": [{}]}}, "as networkPolicy.inboxEgress says", "usual ports"),
        (APART, "exec deployment/wh-whatsapp-webhook-relay -- whatsapp-webhook destinations list", "-c relay"),
        (KAFKA, "they are in the topic that the URL names", "events list"),
        (NATS, "they are in the stream that the URL names", "events list"),
        ({}, "which `helm uninstall` does not delete", "inboxEgress"),
    ],
)
def test_the_notes_fit_the_engine(values: Any, expected: str, unexpected: str) -> None:
    """They have the commands of this engine, and none of another."""
    text = notes(values)
    assert expected in text
    assert unexpected not in text
    assert "WARNING" not in text


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (
            'relaySecretCommand" (list . (list "bot") false)',
            """create secret generic r --from-literal=bot="$APP_SECRET\"""",
        ),
        (
            'relaySecretCommand" (list . (list "bot" "x") true)',
            r"""patch secret r -p "{\"stringData\":{\"bot\":\"$APP_SECRET\",""",
        ),
        ('relaySecretCommand" (list . (list "x") true)', r"""{\"x\":\"whsec_$(openssl rand -base64 32)\"}}"""),
        ('inboxSecretCommand" (list . true)', """patch secret inbox -p '{"stringData":{"url":"postgresql://USER:"""),
    ],
)
def test_the_notes_add_a_key_to_a_secret_that_exists(command: str, expected: str, tmp_path: Path) -> None:
    """`kubectl create` would fail for it."""
    copy = Path(shutil.copytree(CHART, tmp_path / "chart"))
    template = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: command}\ndata: {text: {{ include "whatsapp-webhook.'
    (copy / "templates" / "command.yaml").write_text(f"{template}{command} | toJson }}}}}}\n")
    relay = {
        "existingSecret": "r",
        "destinations": [BOT, BOT | {"name": "x", "format": "cloudevents", "secretFile": "x"}],
    }
    (manifest,) = [it for it in objects(copy, POSTGRESQL | {"relay": relay}) if it["metadata"]["name"] == "command"]
    assert expected in manifest["data"]["text"]
    assert manifest["data"]["text"].startswith("kubectl --namespace here ")


BEGINNING = POSTGRESQL | {"relay": {"destinations": [BOT | {"from": "beginning"}]}}


@pytest.mark.parametrize(
    ("was", "values", "expected"),
    [
        ("sqlite", APART, ["Set `from: beginning` for bot: without it they may miss"]),
        (
            "sqlite",
            BEGINNING,
            ["inbox-wh-whatsapp-webhook-0, which is kept", "events list", "helm.sh/resource-policy=keep"],
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
def test_the_notes_warn_about_a_change_of_the_engine(
    was: str, values: Any, expected: list[str], tmp_path: Path
) -> None:
    """They say where the old events are and how to deliver them. tests/cluster changes the engine of a release."""
    copy = Path(shutil.copytree(CHART, tmp_path / "chart"))
    include = f'{{{{ include "whatsapp-webhook.engineChange" (list . "{was}") | toJson }}}}'
    template = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: warning}\ndata: {text: " + include + "}\n"
    (copy / "templates" / "warning.yaml").write_text(template)
    (manifest,) = [it for it in objects(copy, values) if it["metadata"]["name"] == "warning"]
    text = manifest["data"]["text"]
    assert bool(text) == bool(expected)
    for each in expected:
        assert each in text
    if expected:
        assert ("Events that were not delivered are not delivered any" in text) == (was in ("sqlite", "postgresql"))
        assert "docs/kubernetes.md" in text
        now = values.get("inbox", {"engine": "sqlite"})["engine"]
        assert ("from: beginning" in text) == (values == APART)
        assert f"inbox.engine was {was.removesuffix(', kept')} and is {now}." in text
        assert "## Moving to another engine" in (CHART.parents[1] / "docs" / "kubernetes.md").read_text()


def test_the_deployment_is_annotated_with_its_engine(values: Any) -> None:
    """The next upgrade compares it; the annotations of the values are kept."""
    annotations = named("Deployment", NAME, values | {"annotations": {"a": "b"}})["metadata"]["annotations"]
    assert annotations == {"whatsapp-webhook/inbox-engine": values["inbox"]["engine"], "a": "b"}


def test_helm_test_does_not_read_metrics_of_several_pods(values: Any) -> None:
    """The pod that accepted the notification and the one that is scraped may differ."""
    assert not any("--metrics" in it for it in named("Pod", f"{NAME}-test", values)["spec"]["containers"][0]["args"])
    assert any("--metrics" in it for it in named("Pod", f"{NAME}-test", {})["spec"]["containers"][0]["args"])


def alerts(values: Any) -> dict[str, str]:
    """Return the alerts' expressions by name."""
    groups = one("PrometheusRule", values | RULE)["spec"]["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"] if "alert" in rule}


def test_without_a_volume_there_are_no_volume_alerts(values: Any) -> None:
    """All other alerts exist, and none fires because of durability=weak."""
    assert {*alerts({})} - {*alerts(values)} == {"WebhookVolumeFilling", "WebhookVolumeNearlyFull"}
    assert "weak" not in json.dumps(alerts(values))
    assert {*alerts(RELAY)} - {*alerts(APART)} == {"WebhookVolumeFilling", "WebhookVolumeNearlyFull"}


def pods_of(values: Any, *, release: str) -> list[str]:
    """Return a pod's name for each Deployment, cut at 58 characters before the suffix, as Kubernetes does."""
    done = helm("template", release, str(CHART), values=values)
    deployments = [it for it in yaml.safe_load_all(done.stdout) if it and it["kind"] == "Deployment"]
    return [f"{it['metadata']['name']}-7f9c8d6b54-"[:58] + "x2k9z" for it in deployments]


@pytest.mark.parametrize("release", ["wh", "w" * 30, "w" * 47, "w" * 52])
def test_the_alerts_select_the_pods_of_this_release_only(release: str) -> None:
    """Whatever the length of its name; also if the name of another release starts with this one's."""
    done = helm("template", release, str(CHART), "--namespace", "here", values=APART | RULE)
    (rule,) = [it for it in yaml.safe_load_all(done.stdout) if it and it["kind"] == "PrometheusRule"]
    (pattern,) = set(re.findall(r'namespace="here",pod=~"(.*?)"', json.dumps(rule).replace('\\"', '"')))
    assert len(pods_of(APART, release=release)) == 2
    for name in pods_of(APART, release=release):
        assert re.fullmatch(pattern, name), name
    own = rule["metadata"]["name"]
    for other in (f"{own}-0", f"{own}-2-0", f"{own}-two-7f9c8d6b54-x2k9z", f"x{own}-7f9c8d6b54-x2k9z"):
        assert not re.fullmatch(pattern, other), other


def test_the_dashboard_does_not_add_up_the_inbox() -> None:
    """All pods report the same inbox, so the largest value counts; relays are found in their own pods."""
    content = dashboard.dashboard()
    queries = [it["expr"] for panel in content["panels"] for it in panel.get("targets", [])]
    inbox_queries = [query for query in queries if re.search(r"inbox_(events|bytes|free_bytes)\b", query)]
    assert len(inbox_queries) == 3
    assert all(re.match(r"(max|min) by \(namespace, job\) ", query) for query in inbox_queries)
    (pods,) = [it["query"]["query"] for it in content["templating"]["list"] if it["name"] == "pod"]
    assert "whatsapp_webhook_build_info|whatsapp_webhook_relay_failing" in pods


@pytest.mark.needs("prometheus")
def test_several_pods_cause_one_alert(tmp_path: Path) -> None:
    """Promtool's tests pass: what all pods report alike is one alert."""
    spec = one("PrometheusRule", APART | {"prometheusRule": {"enabled": True, "runbook": "https://RUNBOOK"}})["spec"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec))
    check = ["promtool", "check", "rules", "--lint=all", "--lint-fatal", str(tmp_path / "rules.yaml")]
    checked = subprocess.run(check, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    play = shutil.copy(Path(__file__).parent / "server-alerts.yaml", tmp_path)
    done = subprocess.run(["promtool", "test", "rules", play], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_service_has_the_ip_families() -> None:
    """Also that of a relay in pods of its own."""
    families = {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"]}
    services = [each for each in rendered(POSTGRESQL | RELAY | {"service": families}) if each["kind"] == "Service"]
    assert len(services) == 3
    assert all(families.items() <= each["spec"].items() for each in services)
