"""The chart: what it renders, and what it refuses."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dashboard
import kubernetes_validate
import pytest
import yaml
from chart.helm import CHART, EVERYTHING, container, helm, notes, objects, one, refusal, rendered

from service import __version__
from service.config import SETTINGS
from service.fields import FIELDS

pytestmark = pytest.mark.needs("helm")
GOLDEN = Path(__file__).parent / "golden.yaml"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
# For each value, another one that must change what is rendered; beside it what else must be set for it to count.
INGRESS = {"ingress": EVERYTHING["ingress"]}
ROUTE = {"httpRoute": EVERYTHING["httpRoute"]}
POD_MONITOR = {"metrics": {"podMonitor": {"enabled": True}}}
SERVICE_MONITOR = {"metrics": {"serviceMonitor": {"enabled": True}}}
RULE = {"prometheusRule": {"enabled": True}}
DASHBOARD = {"dashboard": {"enabled": True}}
CREATE = {"credentials": EVERYTHING["credentials"]}
TRACING = {"tracing": {"endpoint": "http://collector:4318"}}
RELABEL = [{"action": "labeldrop", "regex": "x"}]
PEER = [{"ports": [{"port": 5432}]}]
OTHERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "nameOverride": ("other", {}),
    "fullnameOverride": ("other", {}),
    "commonLabels": ({"team": "x"}, {}),
    "image.repository": ("registry.example.com/wh", {}),
    "image.tag": ("2", {}),
    "image.digest": ("sha256:" + "0" * 64, {}),
    "image.pullPolicy": ("Always", {}),
    "image.pullSecrets": ([{"name": "regcred"}], {}),
    "credentials.existingSecret": ("mine", {}),
    "credentials.create": (True, {}),
    "credentials.verifyToken": ("other", CREATE),
    "credentials.appSecret": ("other", CREATE),
    "path": ("/hook", {}),
    "fields": (["messages", "calls"], {}),
    "replicas": (2, {}),
    "workers": (2, {}),
    "limits.maxBodyBytes": (1000, {}),
    "limits.readTimeout": ("20s", {}),
    "limits.acceptTimeout": ("500ms", {}),
    "limits.connections": (100, {}),
    "limits.bodiesBytes": (67108864, {}),
    "inbox.engine": ("postgresql", {}),
    "inbox.retention": ("9d", {}),
    "inbox.bodyRetention": ("1d", {}),
    "persistence.size": ("20Gi", {}),
    "persistence.storageClass": ("fast", {}),
    "persistence.accessMode": ("ReadWriteOnce", {}),
    "persistence.annotations": ({"a": "b"}, {}),
    "log.level": ("debug", {}),
    "log.format": ("console", {}),
    "tracing.endpoint": ("http://collector:4318", {}),
    "tracing.samplingRatio": (0.5, TRACING),
    "tracing.resourceAttributes": ({"deployment.environment.name": "x"}, TRACING),
    "service.type": ("LoadBalancer", {}),
    "service.port": (8000, {}),
    "service.nodePort": (30080, {"service": {"type": "NodePort"}}),
    "service.annotations": ({"a": "b"}, {}),
    "ingress.enabled": (True, {"ingress": {"host": "a.example.com"}}),
    "ingress.className": ("nginx", INGRESS),
    "ingress.host": ("b.example.com", INGRESS),
    "ingress.tlsSecret": ("tls", INGRESS),
    "ingress.annotations": ({"a": "b"}, INGRESS),
    "httpRoute.enabled": (True, {"httpRoute": {"parentRefs": [{"name": "public"}]}}),
    "httpRoute.parentRefs": ([{"name": "other"}], ROUTE),
    "httpRoute.hostnames": (["a.example.com"], ROUTE),
    "httpRoute.annotations": ({"a": "b"}, ROUTE),
    "networkPolicy.enabled": (False, {}),
    "networkPolicy.from": ([{"namespaceSelector": {}}], {}),
    "networkPolicy.metricsNamespace": ("prometheus", {}),
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
    "prometheusRule.quietFor": ("30m", RULE),
    "dashboard.enabled": (True, {}),
    "dashboard.labels.grafana_dashboard": ("yes", DASHBOARD),
    "dashboard.annotations": ({"grafana_folder": "x"}, DASHBOARD),
    "drainSeconds": (20, {}),
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
    "runtimeClassName": ("gvisor", {}),
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
# What the chart itself refuses, with the reason.
REFUSED = {
    "credentials.create": "set credentials.verifyToken",
    "replicas": "SQLite serves one pod",
    "workers": "SQLite has one writer",
    "inbox.engine": "must be",
}


def leaves(values: Any, path: str = "") -> Iterator[str]:
    for name, value in values.items():
        here = f"{path}.{name}" if path else name
        if isinstance(value, dict) and value:
            yield from leaves(value, here)
        else:
            yield here


def blocks(values: Any, path: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            here = f"{path}.{name}" if path else name
            yield here
            yield from blocks(value, here)


def merged(base: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    name, _, rest = path.partition(".")
    return {**base, name: merged(base.get(name, {}), rest, value) if rest else value}


def test_lint() -> None:
    """As Helm judges it, with nothing and with everything."""
    for values in ({}, EVERYTHING):
        done = helm("lint", str(CHART), "--strict", values=values)
        assert done.returncode == 0, done.stdout


def test_versions_are_one() -> None:
    """The chart's appVersion is the package's version, so that the image's tag is; the image says it too."""
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == __version__
    assert f'image.version="{__version__}"' in (CHART.parents[1] / "Dockerfile").read_text()


def test_every_value_has_its_test() -> None:
    """A value that is added is tried below."""
    assert list(leaves(VALUES)) == list(OTHERS)


@pytest.mark.parametrize("path", OTHERS)
def test_every_value_counts(path: str) -> None:
    """Another value renders something else; or it is refused, and the reason said."""
    value, beside = OTHERS[path]
    if path in REFUSED:
        assert REFUSED[path] in refusal(merged(beside, path, value))
    else:
        assert rendered(beside) != rendered(merged(beside, path, value))


def test_every_value_is_documented() -> None:
    """Each has a comment above it, or stands in a block that has."""
    lines = (CHART / "values.yaml").read_text().splitlines()
    for number, line in enumerate(lines):
        if re.match(r" {0,4}[a-zA-Z]+:( .*)?$", line) and not line.endswith(":") and "# --" not in lines[number - 1]:
            block = "\n".join(lines[max(0, number - 8) : number])
            assert "# --" in block, line


ANY = ("dashboard.labels", "resources.requests", "resources.limits")  # whose keys are the reader's


@pytest.mark.parametrize("path", [path for path in leaves(VALUES) if not path.startswith(ANY)])
def test_a_misspelt_value_is_refused(path: str) -> None:
    """At every level."""
    assert "additional properties" in refusal(merged({}, f"{path}x", "x"))


@pytest.mark.parametrize("path", [path for path in blocks(VALUES) if not path.startswith(ANY)])
def test_a_block_without_its_values_is_refused(path: str) -> None:
    """As it is where all lines of a block were commented out. A part of a security context may be taken away."""
    if "Context." in path:
        rendered(merged({}, path, None))
    else:
        assert "missing property" in refusal(merged({}, path, None))


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"metrics": {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}}, "twice"),
        ({"credentials": {"create": True}}, "set credentials.verifyToken"),
        ({"ingress": {"enabled": True}}, "which name Meta calls"),
        ({"httpRoute": {"enabled": True}}, "which Gateway"),
        ({"extraEnv": [{"name": "WEBHOOK_PATH", "value": "/x"}]}, "WEBHOOK_PATH is set by the chart"),
        ({"extraEnv": [{"name": "WEBHOOK_BIND", "value": "x"}]}, "WEBHOOK_BIND is the chart's"),
        ({"extraEnv": [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "x"}]}, "set tracing.endpoint"),
        ({"extraEnv": [{"name": "OTEL_X", "valu": "x"}]}, "additional properties"),
        ({"inbox": {"retention": "7d"}}, "inbox.bodyRetention is longer"),
        ({"limits": {"bodiesBytes": 1000}}, "limits.bodiesBytes is below"),
        ({"limits": {"maxBodyBytes": 2**30 + 1}}, "maximum"),
        ({"fields": ["mesages"]}, "value must be one of"),
        ({"persistence": {"size": "10K"}}, "pattern"),
        ({"credentials": {"verifyToken": "x"}}, "credentials.create only"),
        ({"podLabels": {"app.kubernetes.io/name": "x"}}, "finds its pod by"),
        ({"commonLabels": {"app.kubernetes.io/instance": "x"}}, "finds its pod by"),
        ({"httpRoute": {"enabled": True, "parentRefs": [{"nme": "x"}]}}, "additional properties"),
        ({"fullnameOverride": "a.b"}, "set fullnameOverride"),
        ({"path": "//x"}, "pattern"),
        ({"limits": {"readTimeout": "10"}}, "pattern"),
        ({"drainSeconds": -1}, "minimum"),
    ],
)
def test_what_cannot_work_is_refused(values: Any, why: str) -> None:
    """With the way out."""
    assert why in refusal(values)


def test_a_release_whose_name_no_service_can_have_is_refused() -> None:
    """Before the API refuses half of it."""
    assert "set fullnameOverride" in refusal({}, release="a.b")


def test_a_label_that_the_reader_sets_stands_once() -> None:
    """Theirs, where the chart has it too; the loader refuses a key that stands twice."""
    theirs = {"app.kubernetes.io/version": "theirs"}
    labels = {"app.kubernetes.io/instance": "kps"}
    values = {
        "commonLabels": theirs,
        "podLabels": {"app.kubernetes.io/managed-by": "them"},
        "podAnnotations": {"reloader.stakater.com/auto": "true"},
        "metrics": {"podMonitor": {"enabled": True, "labels": labels}},
    }
    for found in rendered(values):
        assert theirs.items() <= found["metadata"]["labels"].items()
    assert labels.items() <= one("PodMonitor", values)["metadata"]["labels"].items()
    pod = one("StatefulSet", values)["spec"]["template"]["metadata"]
    assert pod["labels"]["app.kubernetes.io/managed-by"] == "them"
    assert pod["annotations"]["reloader.stakater.com/auto"] == "true"


def test_a_new_version_of_the_chart_alone_restarts_nothing(tmp_path: Path) -> None:
    """A mended dashboard is no reason for an outage."""
    copy = Path(shutil.copytree(CHART, tmp_path / "chart"))
    text = (copy / "Chart.yaml").read_text()
    (copy / "Chart.yaml").write_text(re.sub(r"(?m)^version: .*", "version: 99.0.0", text))
    (newer,) = [found for found in objects(copy, {}) if found["kind"] == "StatefulSet"]
    assert newer["metadata"] != one("StatefulSet")["metadata"]
    assert newer["spec"] == one("StatefulSet")["spec"]


def test_a_chart_above_can_switch_it_on_and_off(tmp_path: Path) -> None:
    """By a dependency's condition, and its helpers are its own."""
    (tmp_path / "Chart.yaml").write_text(
        "apiVersion: v2\nname: above\nversion: 1.0.0\ndependencies:\n"
        "  - {name: whatsapp-webhook, version: '>=0', alias: wa, condition: wa.enabled}\n"
    )
    shutil.copytree(CHART, tmp_path / "charts" / "whatsapp-webhook")
    assert objects(tmp_path, {"wa": {"enabled": False}}) == []
    assert "StatefulSet" in {found["kind"] for found in objects(tmp_path, {"wa": {"enabled": True}})}
    helpers = (CHART / "templates" / "_helpers.tpl").read_text()
    assert all(name.startswith("whatsapp-webhook.") for name in re.findall(r'define "(.*?)"', helpers))


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [
        ("http://collector:4318", 4318),
        ("https://user@collector/v1", 443),
        ("http://collector", 80),
        ("http://[fd00::1]:4318", 4318),
        ("http://[fd00::10]", 80),
    ],
)
def test_the_network_policy_lets_spans_out(endpoint: str, port: int) -> None:
    """By the port of the endpoint, however it is written."""
    (_, spans) = one("NetworkPolicy", {"tracing": {"endpoint": endpoint}})["spec"]["egress"]
    assert spans == {"ports": [{"port": port}]}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "Nothing leads there from outside yet"),
        ({"service": {"type": "LoadBalancer"}}, "end TLS before it"),
        (INGRESS, "https://wa.example.com/webhooks"),
        ({"ingress": {"host": "left.over"}, "httpRoute": {**ROUTE["httpRoute"], "hostnames": ["a.b"]}}, "//a.b/"),
        ({"httpRoute": {**ROUTE["httpRoute"], "hostnames": ["*.a.b"]}}, "//YOUR-HOST.a.b/"),
        (ROUTE, "//YOUR-HOST/"),
        (POD_MONITOR, "from the namespace monitoring only"),
    ],
)
def test_the_notes_are_true(values: Any, said: str) -> None:
    """Whatever is chosen."""
    assert said in notes(values)


def test_no_storage_class_is_a_class_too() -> None:
    """For a volume that was made by hand."""
    claim = {"persistence": {"storageClass": "-"}}
    (template,) = one("StatefulSet", claim)["spec"]["volumeClaimTemplates"]
    assert template["spec"]["storageClassName"] == ""


def test_what_helm_test_runs_goes_where_the_receiver_goes() -> None:
    """On tainted nodes too, past the same gate keepers."""
    values = {name: OTHERS[name][0] for name in ("nodeSelector", "tolerations", "priorityClassName", "podLabels")}
    pod, receiver = one("Pod", values), one("StatefulSet", values)["spec"]["template"]
    for name in ("nodeSelector", "tolerations", "priorityClassName"):
        assert pod["spec"][name] == receiver["spec"][name]
    assert values["podLabels"].items() <= pod["metadata"]["labels"].items()


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["nothing", "everything"])
@pytest.mark.parametrize("version", ["1.29", "1.36"])
def test_the_api_knows_every_field(values: Any, version: str) -> None:
    """By Kubernetes' own schemas, strictly; other makers' resources are tried on a cluster."""
    seen = 0
    for found in rendered(values):
        if found["apiVersion"].split("/")[0].endswith(("coreos.com", "gateway.networking.k8s.io")):
            continue
        kubernetes_validate.validate(found, version, strict=True)
        seen += 1
    assert seen >= 5


def test_golden() -> None:
    """What is rendered without values, whole: a change is seen in its diff. `make golden` writes it."""
    assert [*yaml.safe_load_all(GOLDEN.read_text())] == rendered()


def test_values_are_in_step_with_the_settings() -> None:
    """Every setting is set by a value, or fixed where the chart mounts what it speaks of."""
    env = {it["name"] for it in container()["env"]}
    fixed = {"WEBHOOK_BIND", "WEBHOOK_ADMIN_BIND", "WEBHOOK_CREDENTIALS_DIR", "WEBHOOK_RUN_DIR"}
    reserved = {"WEBHOOK_RELAY_BIND", "WEBHOOK_DESTINATIONS"}
    assert env == {setting.name for setting in SETTINGS} - fixed - reserved
    defaults = {setting.name: setting.default for setting in SETTINGS}
    for it in container()["env"]:
        if it["name"] not in ("WEBHOOK_CREDENTIALS_HINT", "WEBHOOK_LOG_FORMAT"):
            assert it["value"] == defaults[it["name"]], it
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    assert schema["fields"]["items"]["enum"] == list(FIELDS)
    settings = {setting.name: setting for setting in SETTINGS}
    for name in ("MAX_BODY_BYTES", "CONNECTIONS", "BODIES_BYTES"):
        head, *rest = name.lower().split("_")
        most = schema["limits"]["properties"][head + "".join(map(str.capitalize, rest))]["maximum"]
        settings[f"WEBHOOK_{name}"].parse(str(most))
        with pytest.raises(ValueError, match=str(most)):
            settings[f"WEBHOOK_{name}"].parse(str(most + 1))
    mounts = {mount["mountPath"] for mount in container()["volumeMounts"]}
    assert {defaults["WEBHOOK_CREDENTIALS_DIR"], defaults["WEBHOOK_RUN_DIR"]} <= mounts


def test_the_secret_is_mounted_whole_and_may_come_later() -> None:
    """No items and no subPath, which would never be rotated."""
    spec = one("StatefulSet")["spec"]["template"]["spec"]
    (secret,) = [it["secret"] for it in spec["volumes"] if "secret" in it]
    assert secret == {"secretName": "wh-whatsapp-webhook-credentials", "optional": True, "defaultMode": 0o440}
    assert not any("subPath" in mount for mount in container()["volumeMounts"])
    assert "Secret" not in [found["kind"] for found in rendered()]


def test_a_rotation_restarts_nothing_and_a_change_does() -> None:
    """No checksum of a Secret; the configuration is part of the pod."""
    text = json.dumps(one("StatefulSet"))
    assert "checksum" not in text
    assert one("StatefulSet", {"fields": ["calls"]})["spec"]["template"] != one("StatefulSet")["spec"]["template"]


def test_probes() -> None:
    """All on the admin port; what can restart the container asks neither for credentials nor for the inbox."""
    probes = {name: container()[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    live, ready = ({"path": path, "port": "admin"} for path in ("/livez", "/readyz"))
    assert probes == {"startup": live, "liveness": live, "readiness": ready}


@pytest.mark.parametrize(
    ("values", "drain", "grace"),
    [
        ({}, "0", 22),
        ({"drainSeconds": 15}, "15", 37),
        ({"limits": {"readTimeout": "1m", "acceptTimeout": "500ms"}}, "0", 71),
    ],
)
def test_the_grace_period_is_the_sum_of_its_parts(values: Any, drain: str, grace: int) -> None:
    """Draining, the last request's time, the stop."""
    spec = one("StatefulSet", values)["spec"]["template"]["spec"]
    command = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert command == ["whatsapp-webhook", "drain", "--seconds", drain]
    assert spec["terminationGracePeriodSeconds"] == grace


def test_the_public_way_in_leads_to_the_one_path() -> None:
    """Probes and metrics are not reached from outside."""
    (rule,) = one("Ingress", EVERYTHING)["spec"]["rules"]
    assert [(it["path"], it["pathType"]) for it in rule["http"]["paths"]] == [("/webhooks", "Exact")]
    (rule,) = one("HTTPRoute", EVERYTHING)["spec"]["rules"]
    exact = {"type": "Exact", "value": "/webhooks"}
    assert rule["matches"] == [{"path": exact, "method": method} for method in ("GET", "POST")]
    assert [port["name"] for port in one("Service", end="webhook")["spec"]["ports"]] == ["http"]


def test_the_dashboard_is_what_its_generator_writes() -> None:
    """`make dashboard` after a change."""
    assert (CHART / "files" / "dashboard.json").read_text() == dashboard.text()
    found = one("ConfigMap", DASHBOARD | {"prometheusRule": {"runbook": "https://wiki/runbook"}})
    shown = json.loads(found["data"]["whatsapp-webhook.json"])
    (link,) = shown.pop("links")
    assert link["url"] == "https://wiki/runbook"
    assert shown == {key: value for key, value in dashboard.dashboard().items() if key != "links"}
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_what_is_so_now_is_asked_of_now() -> None:
    """A pod that is gone would stand there in green for as long as the time shown reaches back."""
    for panel in dashboard.dashboard()["panels"]:
        for target in panel.get("targets", []):
            assert (target["instant"], target["range"]) == (panel["type"] == "stat", panel["type"] != "stat")


def test_every_alert_has_its_section_in_the_runbook() -> None:
    """And no section is without its alert."""
    runbook = (CHART.parents[1] / "docs" / "runbook.md").read_text()
    sections = re.findall(r"^## (Webhook\w+)$", runbook, re.MULTILINE)
    spec = one("PrometheusRule", RULE)["spec"]
    alerts = [rule for group in spec["groups"] for rule in group["rules"] if "alert" in rule]
    assert list(dict.fromkeys(rule["alert"] for rule in alerts)) == sections
    for rule in alerts:
        assert rule["annotations"]["runbook_url"].endswith(f"/docs/runbook.md#{rule['alert'].lower()}")
