"""The chart's values: each one has an effect; misspelt names and values that can't work are rejected."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from release.prepare import ROOT, current

from service.config import SETTINGS
from service.meta.webhook_fields import FIELDS
from tests.chart.helm import (
    APART,
    AUTOSCALED,
    BOT,
    CHART,
    CREATE,
    DASHBOARD,
    EVERYTHING,
    INGRESS,
    KAFKA,
    KEDA,
    POD_MONITOR,
    POSTGRESQL,
    RELAY,
    ROUTE,
    RULE,
    SERVICE_MONITOR,
    SUBSCRIBE,
    TRACING,
    container,
    rendered,
    validation_error,
)
from tests.support import chart_docs

pytestmark = pytest.mark.needs("helm")
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
RELABEL = [{"action": "labeldrop", "regex": "x"}]
LOAD_BALANCER = {"service": {"type": "LoadBalancer"}}
PEER = [{"ports": [{"port": 5432}]}]
# For each value: another value that must change the rendered objects, and other values that it depends on.
OTHERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "nameOverride": ("other", {}),
    "fullnameOverride": ("other", {}),
    "commonLabels": ({"team": "x"}, {}),
    "commonAnnotations": ({"team": "x"}, {}),
    "global.imageRegistry": ("registry.example.com", {}),
    "image.registry": ("registry.example.com", {}),
    "image.repository": ("registry.example.com/wh", {}),
    "image.tag": ("2", {}),
    "image.digest": ("sha256:" + "0" * 64, {}),
    "image.pullPolicy": ("Always", {}),
    "image.pullSecrets": ([{"name": "regcred"}], {}),
    "credentials.existingSecret": ("mine", {}),
    "credentials.create": (True, {}),
    "credentials.verifyToken": ("other", CREATE),
    "credentials.appSecret": ("fedcba9876543210", CREATE),
    "path": ("/hook", {}),
    "healthPath": ("/healthz", {}),
    "bindAddress": ("0.0.0.0", {}),
    "fields": (["messages", "calls"], {}),
    "replicas": (2, {}),
    "workers": (2, {}),
    "limits.maxBodyBytes": (1000, {}),
    "limits.readTimeout": ("20s", {}),
    "limits.acceptTimeout": ("500ms", {}),
    "limits.keepaliveTimeout": ("620s", {}),
    "limits.maxHeaderBytes": (16384, {}),
    "limits.connections": (100, {}),
    "limits.inflightBytes": (67108864, {}),
    "inbox.engine": ("postgresql", KAFKA),
    "inbox.existingSecret": ("other", POSTGRESQL),
    "inbox.secretKey": ("dsn", POSTGRESQL),
    "inbox.retention": ("9d", {}),
    "inbox.bodyRetention": ("1d", {}),
    "relay.destinations": ([BOT], {}),
    "relay.replicas": (3, APART),
    "relay.existingSecret": ("other", RELAY),
    "relay.resources.requests.cpu": ("1", RELAY),
    "relay.resources.requests.memory": ("1Gi", RELAY),
    "relay.resources.limits.memory": ("1Gi", RELAY),
    "autoscaling.enabled": (True, POSTGRESQL),
    "autoscaling.minReplicas": (3, AUTOSCALED),
    "autoscaling.maxReplicas": (9, AUTOSCALED),
    "autoscaling.targetCPU": (50, AUTOSCALED),
    "autoscaling.behavior.scaleUp.stabilizationWindowSeconds": (10, AUTOSCALED),
    "autoscaling.behavior.scaleUp.policies": ([], AUTOSCALED),
    "autoscaling.behavior.scaleDown.stabilizationWindowSeconds": (10, AUTOSCALED),
    "autoscaling.behavior.scaleDown.policies": ([], AUTOSCALED),
    "autoscaling.keda.enabled": (True, AUTOSCALED),
    "autoscaling.keda.triggers": ([{"type": "cron"}], KEDA),
    "persistence.size": ("20Gi", {}),
    "persistence.storageClass": ("fast", {}),
    "persistence.accessMode": ("ReadWriteOnce", {}),
    "persistence.annotations": ({"a": "b"}, {}),
    "persistence.labels": ({"a": "b"}, {}),
    "persistence.existingClaim": ("mine", {}),
    "persistence.dataSource": ({"kind": "PersistentVolumeClaim", "name": "old"}, {}),
    "log.level": ("debug", {}),
    "log.format": ("console", {}),
    "tracing.endpoint": ("http://collector:4318", {}),
    "tracing.samplingRatio": (0.5, TRACING),
    "tracing.resourceAttributes": ({"deployment.environment.name": "x"}, TRACING),
    "service.type": ("LoadBalancer", {}),
    "service.port": (8000, {}),
    "service.nodePort": (30080, {"service": {"type": "NodePort"}}),
    "service.loadBalancerClass": ("example.com/lb", LOAD_BALANCER),
    "service.loadBalancerIP": ("203.0.113.9", LOAD_BALANCER),
    "service.loadBalancerSourceRanges": (["203.0.113.0/24"], LOAD_BALANCER),
    "service.externalTrafficPolicy": ("Local", LOAD_BALANCER),
    "service.annotations": ({"a": "b"}, {}),
    "service.labels": ({"a": "b"}, {}),
    "service.ipFamilyPolicy": ("PreferDualStack", {}),
    "service.ipFamilies": (["IPv6", "IPv4"], {}),
    "ingress.enabled": (True, {"ingress": {"host": "a.example.com"}}),
    "ingress.className": ("nginx", INGRESS),
    "ingress.host": ("b.example.com", INGRESS),
    "ingress.tlsSecret": ("tls", INGRESS),
    "ingress.annotations": ({"a": "b"}, INGRESS),
    "httpRoute.enabled": (True, {"httpRoute": {"parentRefs": [{"name": "public"}]}}),
    "httpRoute.parentRefs": ([{"name": "other"}], ROUTE),
    "httpRoute.hostnames": (["a.example.com"], ROUTE),
    "httpRoute.annotations": ({"a": "b"}, ROUTE),
    "subscribe.enabled": (True, {"subscribe": SUBSCRIBE["subscribe"] | {"enabled": False}}),
    "subscribe.callbackUrl": ("https://b.example.com/webhooks", SUBSCRIBE),
    "subscribe.appId": ("1", SUBSCRIBE),
    "subscribe.accounts": (["1", "2"], SUBSCRIBE),
    "subscribe.fields": (["messages"], SUBSCRIBE),
    "subscribe.replace": (True, SUBSCRIBE),
    "subscribe.dropOverrides": (True, SUBSCRIBE),
    "subscribe.existingSecret": ("other", SUBSCRIBE),
    "subscribe.graphUrl": ("https://graph.example.com", SUBSCRIBE),
    "subscribe.graphVersion": ("v25.0", SUBSCRIBE),
    "subscribe.backoffLimit": (0, SUBSCRIBE),
    "subscribe.activeDeadlineSeconds": (600, SUBSCRIBE),
    "subscribe.podAnnotations": ({"a": "b"}, SUBSCRIBE),
    "subscribe.podLabels": ({"a": "b"}, SUBSCRIBE),
    "subscribe.resources.requests.cpu": ("1", SUBSCRIBE),
    "subscribe.resources.requests.memory": ("1Gi", SUBSCRIBE),
    "subscribe.resources.limits.memory": ("1Gi", SUBSCRIBE),
    "tests.enabled": (False, {}),
    "networkPolicy.enabled": (False, {}),
    "networkPolicy.from": ([{"namespaceSelector": {}}], {}),
    "networkPolicy.metricsNamespace": ("prometheus", {}),
    "networkPolicy.egress": ([{"ipBlock": {"cidr": "10.0.0.0/8"}}], RELAY),
    "networkPolicy.inboxEgress": (PEER, KAFKA),
    "networkPolicy.extraIngress": (PEER, {}),
    "networkPolicy.extraEgress": (PEER, {}),
    "metrics.podMonitor.enabled": (True, {}),
    "metrics.podMonitor.labels": ({"release": "x"}, POD_MONITOR),
    "metrics.podMonitor.interval": ("60s", POD_MONITOR),
    "metrics.podMonitor.scrapeTimeout": ("5s", POD_MONITOR),
    "metrics.podMonitor.relabelings": (RELABEL, POD_MONITOR),
    "metrics.podMonitor.metricRelabelings": (RELABEL, POD_MONITOR),
    "metrics.serviceMonitor.enabled": (True, {}),
    "metrics.serviceMonitor.labels": ({"release": "x"}, SERVICE_MONITOR),
    "metrics.serviceMonitor.interval": ("60s", SERVICE_MONITOR),
    "metrics.serviceMonitor.scrapeTimeout": ("5s", SERVICE_MONITOR),
    "metrics.serviceMonitor.relabelings": (RELABEL, SERVICE_MONITOR),
    "metrics.serviceMonitor.metricRelabelings": (RELABEL, SERVICE_MONITOR),
    "prometheusRule.enabled": (True, {}),
    "prometheusRule.labels": ({"release": "x"}, RULE),
    "prometheusRule.runbook": ("https://wiki.example.com/runbook", RULE),
    "prometheusRule.noTrafficFor": ("30m", RULE),
    "prometheusRule.alertLabels": ({"team": "x"}, RULE),
    "prometheusRule.disabledAlerts": (["WebhookNoTraffic"], RULE),
    "prometheusRule.severities": ({"WebhookNoTraffic": "critical"}, RULE),
    "prometheusRule.additionalRules": ([{"record": "x", "expr": "1"}], RULE),
    "dashboard.enabled": (True, {}),
    "dashboard.labels.grafana_dashboard": ("yes", DASHBOARD),
    "dashboard.annotations": ({"grafana_folder": "x"}, DASHBOARD),
    "drainSeconds": (20, {}),
    "terminationGracePeriodSeconds": (120, {}),
    "probes.startup.periodSeconds": (9, {}),
    "probes.startup.timeoutSeconds": (9, {}),
    "probes.startup.failureThreshold": (9, {}),
    "probes.liveness.periodSeconds": (9, {}),
    "probes.liveness.timeoutSeconds": (9, {}),
    "probes.liveness.failureThreshold": (9, {}),
    "probes.readiness.periodSeconds": (9, {}),
    "probes.readiness.timeoutSeconds": (9, {}),
    "probes.readiness.failureThreshold": (9, {}),
    "updateStrategy": ({"type": "OnDelete"}, {}),
    "revisionHistoryLimit": (9, {}),
    "podDisruptionBudget.enabled": (False, POSTGRESQL),
    "podDisruptionBudget.maxUnavailable": ("50%", POSTGRESQL),
    "podDisruptionBudget.minAvailable": (2, POSTGRESQL),
    "resources.requests.cpu": ("1", {}),
    "resources.requests.memory": ("1Gi", {}),
    "resources.limits.memory": ("1Gi", {}),
    "serviceAccount.create": (False, {}),
    "serviceAccount.name": ("other", {}),
    "serviceAccount.annotations": ({"a": "b"}, {}),
    "annotations": ({"a": "b"}, {}),
    "podAnnotations": ({"a": "b"}, {}),
    "podLabels": ({"a": "b"}, {}),
    "podSecurityContext.runAsNonRoot": (False, {}),
    "podSecurityContext.runAsUser": (1000, {}),
    "podSecurityContext.runAsGroup": (1000, {}),
    "podSecurityContext.fsGroup": (1000, {}),
    "podSecurityContext.fsGroupChangePolicy": ("Always", {}),
    "podSecurityContext.seccompProfile.type": ("Unconfined", {}),
    "securityContext.allowPrivilegeEscalation": (True, {}),
    "securityContext.readOnlyRootFilesystem": (False, {}),
    "securityContext.capabilities.drop": ([], {}),
    "nodeSelector": ({"a": "b"}, {}),
    "tolerations": ([{"operator": "Exists"}], {}),
    "affinity": ({"nodeAffinity": {}}, {}),
    "topologySpreadConstraints": ([{"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "ScheduleAnyway"}], {}),
    "priorityClassName": ("high", {}),
    "schedulerName": ("mine", {}),
    "runtimeClassName": ("gvisor", {}),
    "dnsPolicy": ("Default", {}),
    "dnsConfig": ({"searches": ["x"]}, {}),
    "hostAliases": ([{"ip": "10.0.0.1", "hostnames": ["x"]}], {}),
    "extraEnv": ([{"name": "OTEL_BSP_SCHEDULE_DELAY", "value": "1000"}], {}),
    "extraEnvFrom": ([{"secretRef": {"name": "x"}}], {}),
    "extraVolumes": ([{"name": "x", "emptyDir": {}}], {}),
    "extraVolumeMounts": ([{"name": "x", "mountPath": "/x"}], {}),
    "initContainers": ([{"name": "x", "image": "x"}], {}),
    "extraContainers": ([{"name": "x", "image": "x"}], {}),
    "extraObjects": (EVERYTHING["extraObjects"], {}),
}
# Values of OTHERS that the chart rejects, with a part of the message.
REJECTED = {
    "credentials.create": "set credentials.verifyToken",
    "replicas": "with SQLite there is one pod",
    "workers": "SQLite allows one writer",
}


def leaves(values: Any) -> Iterator[str]:
    return (path for path, _ in pairs(values))


def pairs(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        here = f"{path}.{name}" if path else name
        if isinstance(value, dict) and value:
            yield from pairs(value, here)
        else:
            yield here, value


def blocks(values: Any, path: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            here = f"{path}.{name}" if path else name
            yield here
            yield from blocks(value, here)


def merged(base: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    name, _, rest = path.partition(".")
    return {**base, name: merged(base.get(name, {}), rest, value) if rest else value}


def test_every_value_is_tested() -> None:
    """OTHERS has every value of values.yaml."""
    assert list(leaves(VALUES)) == list(OTHERS)


@pytest.mark.parametrize("path", OTHERS)
def test_every_value_has_an_effect(path: str) -> None:
    """Another value changes the rendered objects, or is rejected with a message."""
    value, beside = OTHERS[path]
    if path in REJECTED:
        assert REJECTED[path] in validation_error(merged(beside, path, value))
    else:
        assert rendered(beside) != rendered(merged(beside, path, value))


def test_every_value_is_documented() -> None:
    """Each has a comment above it, or is in a block that has one."""
    lines = (CHART / "values.yaml").read_text().splitlines()
    for number, line in enumerate(lines):
        if re.match(r" {0,4}[a-zA-Z]+:( .*)?$", line) and not line.endswith(":") and "# --" not in lines[number - 1]:
            block = "\n".join(lines[max(0, number - 8) : number])
            assert "# --" in block, line


EMPTY = [path for path, value in pairs(VALUES) if value in ({}, [], "", None)]


@pytest.mark.parametrize("path", EMPTY)
def test_an_empty_key_means_the_default(path: str) -> None:
    """`nodeSelector:` without a value, as it is left when the lines below it are commented out."""
    assert rendered(merged({}, path, None)) == rendered()


def test_the_schema_describes_every_property() -> None:
    """With the comments of values.yaml, and the tables about destinations; `make docs` writes them."""
    schema = json.loads(chart_docs.SCHEMA.read_text())
    assert [path for path, inner in chart_docs.properties(schema) if not inner.get("description")] == []
    assert chart_docs.SCHEMA.read_text() == chart_docs.schema_with_descriptions(), "run `make docs`"


def test_images_of_a_registry() -> None:
    """The chart's own value comes before the one that a parent chart shares; all pods use it."""
    both = {"global": {"imageRegistry": "a.example"}, "image": {"registry": "b.example/x"}, **SUBSCRIBE, **APART}
    images = re.findall(r'"image": "(.*?)"', json.dumps(rendered(both)))
    assert len(images) == 4
    assert set(images) == {f"b.example/x/whatsapp-webhook:{current(ROOT)}"}
    del both["image"]
    assert f"a.example/whatsapp-webhook:{current(ROOT)}" in json.dumps(rendered(both))


def test_common_annotations_and_namespace() -> None:
    """Every object has them, but not pods and volume claims: those can't change, or would restart."""
    values = merged(EVERYTHING, "commonAnnotations", {"owner": "messaging"})
    for manifest in rendered(values):
        if not manifest["metadata"]["name"].endswith("-more"):
            assert manifest["metadata"]["namespace"] == "here", manifest["kind"]
            assert manifest["metadata"]["annotations"]["owner"] == "messaging", manifest["kind"]
    (before,), (after,) = (
        [each["spec"] for each in rendered(each) if each["kind"] == "StatefulSet"] for each in (EVERYTHING, values)
    )
    assert before == after


def test_volume_claim_templates_have_what_kubernetes_adds() -> None:
    """Argo CD would show a difference forever; and labels that may change stay out, because it could not be applied."""
    values = {"commonLabels": {"team": "x"}, "commonAnnotations": {"a": "b"}}
    claims = [each["spec"]["volumeClaimTemplates"] for each in rendered(values) if each["kind"] == "StatefulSet"]
    ((claim,),) = claims
    assert (claim["apiVersion"], claim["kind"], claim["spec"]["volumeMode"]) == (
        "v1",
        "PersistentVolumeClaim",
        "Filesystem",
    )
    assert set(claim["metadata"]) == {"name", "labels"}
    assert set(claim["metadata"]["labels"]) == {"app.kubernetes.io/name", "app.kubernetes.io/instance"}


def test_an_existing_claim_replaces_the_charts() -> None:
    """The pod mounts it."""
    (spec,) = [
        each["spec"] for each in rendered({"persistence": {"existingClaim": "mine"}}) if each["kind"] == "StatefulSet"
    ]
    assert "volumeClaimTemplates" not in spec
    volumes = {each["name"]: each for each in spec["template"]["spec"]["volumes"]}
    assert volumes["inbox"]["persistentVolumeClaim"] == {"claimName": "mine"}


def test_alerts_can_be_changed_one_by_one() -> None:
    """Off, of another severity, with labels; an alert that does not exist is refused."""
    rule = {"enabled": True, "disabledAlerts": ["WebhookNoTraffic"], "severities": {"WebhookHighLatency": "page"}}
    values = {"prometheusRule": {**rule, "alertLabels": {"team": "x", "severity": "never"}}, **RELAY}
    (spec,) = [each["spec"] for each in rendered(values) if each["kind"] == "PrometheusRule"]
    alerts = [each for group in spec["groups"] for each in group["rules"] if "alert" in each]
    names = {each["alert"] for each in alerts}
    assert "WebhookNoTraffic" not in names
    assert len(names) > 15
    for each in alerts:
        assert each["labels"]["team"] == "x"
        assert (each["labels"]["severity"] == "page") is (each["alert"] == "WebhookHighLatency")
        assert each["labels"]["severity"] in ("page", "critical", "warning")
    for wrong in ({"disabledAlerts": ["WebhookNothing"]}, {"severities": {"WebhookNothing": "x"}}):
        assert "there is no alert WebhookNothing" in validation_error({"prometheusRule": {"enabled": True, **wrong}})


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (
            {"image": {"tag": "1.0", "digest": "sha256:" + "0" * 64}},
            "image.tag: 1.0 would have no effect beside image.digest",
        ),
        ({"terminationGracePeriodSeconds": 21}, "terminationGracePeriodSeconds is below 22"),
        ({"persistence": {"existingClaim": "x"}, **POSTGRESQL}, "persistence.existingClaim has no effect"),
        ({"service": {"loadBalancerIP": "203.0.113.9"}}, "have no effect without service.type LoadBalancer"),
        ({"updateStrategy": {"type": "Recreate"}}, "with SQLite it is RollingUpdate or OnDelete"),
        ({"updateStrategy": {"type": "OnDelete"}, **POSTGRESQL}, "with an external inbox it is RollingUpdate or"),
    ],
)
def test_values_that_contradict_each_other(values: dict[str, Any], problem: str) -> None:
    """Each is rejected with what to do."""
    assert problem in " ".join(validation_error(values).split())


ANY = (
    "global",
    "autoscaling.behavior.",
    "dashboard.labels",
    "resources.requests",
    "resources.limits",
    "relay.resources.requests",
    "relay.resources.limits",
    "subscribe.resources.requests",
    "subscribe.resources.limits",
)  # may have any keys


@pytest.mark.parametrize("path", [path for path in leaves(VALUES) if not path.startswith(ANY)])
def test_a_misspelt_value_is_rejected(path: str) -> None:
    """The schema allows no other names, at every level."""
    assert "additional properties" in validation_error(merged({}, f"{path}x", "x"))


@pytest.mark.parametrize("path", [path for path in blocks(VALUES) if not path.startswith(ANY)])
def test_an_empty_block_is_rejected(path: str) -> None:
    """This happens if all lines of a block are commented out. Parts of a security context may be removed."""
    if "Context." in path:
        rendered(merged({}, path, None))
    else:
        assert "missing property" in validation_error(merged({}, path, None))


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"metrics": {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}}, "twice"),
        ({"credentials": {"create": True}}, "set credentials.verifyToken"),
        ({"ingress": {"enabled": True}}, "ingress.host is empty"),
        ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs is empty"),
        ({"extraEnv": [{"name": "WEBHOOK_PATH", "value": "/x"}]}, "WEBHOOK_PATH is set by the chart"),
        ({"healthPath": "/webhooks"}, "healthPath is the same as path"),
        ({"extraEnv": [{"name": "WEBHOOK_BIND", "value": "x"}]}, "WEBHOOK_BIND can't be changed"),
        ({"extraEnv": [{"name": "WEBHOOK_RUN_DIR", "value": "x"}]}, "depend on it. Remove it.\n"),
        ({"extraEnv": [{"name": "WEBHOOK_GRAPH_VERSON", "value": "x"}]}, "WEBHOOK_GRAPH_VERSON is not a setting"),
        ({"extraEnv": [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "x"}]}, "set tracing.endpoint"),
        ({"extraEnv": [{"name": "OTEL_X", "valu": "x"}]}, "additional properties"),
        ({"inbox": {"retention": "7d"}}, "lower inbox.bodyRetention, or raise inbox.retention"),
        ({"limits": {"inflightBytes": 1000}}, "limits.inflightBytes is below"),
        ({"limits": {"maxBodyBytes": 2**30 + 1}}, "maximum"),
        ({"fields": ["mesages"]}, "value must be one of"),
        ({"persistence": {"size": "10K"}}, "pattern"),
        ({"image": {"tag": "registry/name"}}, "pattern"),
        ({"ingress": {"enabled": True, "host": "https://wa.example.com/webhooks"}}, "pattern"),
        ({"credentials": {"verifyToken": "x"}}, "no effect without credentials.create"),
        ({"podLabels": {"app.kubernetes.io/name": "x"}}, "selects its pods by"),
        ({"commonLabels": {"app.kubernetes.io/instance": "x"}}, "selects its pods by"),
        ({"httpRoute": {"enabled": True, "parentRefs": [{"nme": "x"}]}}, "additional properties"),
        ({"fullnameOverride": "a.b"}, "Set fullnameOverride"),
        ({"path": "//x"}, "pattern"),
        ({"limits": {"readTimeout": "10"}}, "pattern"),
        ({"drainSeconds": -1}, "minimum"),
        ({"relay": {"destinations": [BOT, BOT]}}, "two destinations are named bot"),
        (
            {"relay": {"destinations": [BOT | {"url": "http://app/"}]}},
            "the url of bot is http. Set https, or internal: true",
        ),
        ({"relay": {"destinations": [BOT | {"urll": "x"}]}}, "additional properties"),
        ({"relay": {"destinations": [BOT | {"url": "https://a@b/"}]}}, "pattern"),
        ({"relay": {"destinations": [BOT | {"timeout": "1"}]}}, "pattern"),
        ({"extraEnv": [{"name": "WEBHOOK_DESTINATIONS", "value": "x"}]}, "WEBHOOK_DESTINATIONS can't be changed"),
    ],
)
def test_values_that_cannot_work_are_rejected(values: Any, why: str) -> None:
    """The message says what to set."""
    assert why in validation_error(values)


def test_a_release_name_that_no_service_can_have_is_rejected() -> None:
    """The API would reject some of its objects."""
    assert "Set fullnameOverride" in validation_error({}, release="a.b")


def test_values_match_the_settings() -> None:
    """Every setting has a value with the same default and limit, or is fixed by the chart."""
    env = {it["name"] for it in container()["env"]}
    fixed = {"WEBHOOK_CREDENTIALS_DIR", "WEBHOOK_RUN_DIR", "WEBHOOK_DESTINATIONS"}
    allowed = {f"WEBHOOK_{name}" for name in ("CALLBACK_URL", "APP_ID", "ACCOUNTS", "GRAPH_URL", "GRAPH_VERSION")}
    assert env == {setting.name for setting in SETTINGS} - fixed - allowed
    assert rendered({"extraEnv": [{"name": name, "value": "x"} for name in sorted(allowed)]})
    defaults = {setting.name: setting.default for setting in SETTINGS}
    for it in container()["env"]:
        if it["name"].endswith("_BIND"):
            assert it["value"] == f"[::]:{defaults[it['name']].rpartition(':')[2]}"
        elif it["name"] not in ("WEBHOOK_CREDENTIALS_HINT", "WEBHOOK_LOG_FORMAT"):
            assert it["value"] == defaults[it["name"]], it
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    assert schema["fields"]["items"]["enum"] == list(FIELDS)
    settings = {setting.name: setting for setting in SETTINGS}
    for name in ("MAX_BODY_BYTES", "MAX_HEADER_BYTES", "CONNECTIONS", "INFLIGHT_BYTES"):
        head, *rest = name.lower().split("_")
        most = schema["limits"]["properties"][head + "".join(map(str.capitalize, rest))]["maximum"]
        settings[f"WEBHOOK_{name}"].parse(str(most))
        with pytest.raises(ValueError, match=str(most)):
            settings[f"WEBHOOK_{name}"].parse(str(most + 1))
    mounts = {mount["mountPath"] for mount in container()["volumeMounts"]}
    assert {defaults["WEBHOOK_CREDENTIALS_DIR"], defaults["WEBHOOK_RUN_DIR"]} <= mounts
