"""The objects that the chart renders."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import dashboard
import kubernetes_validate
import pytest
import yaml
from packaging.version import Version
from release.prepare import current

from service import __version__
from service.relay import destinations
from service.relay.destinations import Destination
from service.relay.forbidden_addresses import FORBIDDEN
from tests.chart.helm import (
    BOT,
    CHART,
    DASHBOARD,
    EVERYTHING,
    INGRESS,
    POD_MONITOR,
    RELAY,
    ROUTE,
    RULE,
    container,
    helm,
    notes,
    objects,
    one,
    rendered,
)
from tests.support import command_lines

pytestmark = pytest.mark.needs("helm")
GOLDEN = Path(__file__).parent / "golden.yaml"


def test_lint() -> None:
    """`helm lint --strict` passes, with default values and with everything."""
    for values in ({}, EVERYTHING):
        done = helm("lint", str(CHART), "--strict", values=values)
        assert done.returncode == 0, done.stdout


def test_versions_are_equal() -> None:
    """appVersion, from which the image's tag follows, and the image's label are the package's version."""
    version = current(CHART.parents[1])
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == version
    assert f'image.version="{version}"' in (CHART.parents[1] / "Dockerfile").read_text()
    assert Version(version) == Version(__version__)


def test_labels_of_the_values_replace_the_charts() -> None:
    """Without duplicate keys, which the loader rejects."""
    version = {"app.kubernetes.io/version": "theirs"}
    labels = {"app.kubernetes.io/instance": "kps"}
    values = {
        "commonLabels": version,
        "podLabels": {"app.kubernetes.io/managed-by": "them"},
        "podAnnotations": {"reloader.stakater.com/auto": "true"},
        "metrics": {"podMonitor": {"enabled": True, "labels": labels}},
    }
    for manifest in rendered(values):
        assert version.items() <= manifest["metadata"]["labels"].items()
    assert labels.items() <= one("PodMonitor", values)["metadata"]["labels"].items()
    pod = one("StatefulSet", values)["spec"]["template"]["metadata"]
    assert pod["labels"]["app.kubernetes.io/managed-by"] == "them"
    assert pod["annotations"]["reloader.stakater.com/auto"] == "true"


def test_a_new_version_of_the_chart_alone_restarts_nothing(tmp_path: Path) -> None:
    """A fixed dashboard is no reason for an outage."""
    copy = Path(shutil.copytree(CHART, tmp_path / "chart"))
    text = (copy / "Chart.yaml").read_text()
    (copy / "Chart.yaml").write_text(re.sub(r"(?m)^version: .*", "version: 99.0.0", text))
    (newer,) = [manifest for manifest in objects(copy, {}) if manifest["kind"] == "StatefulSet"]
    assert newer["metadata"] != one("StatefulSet")["metadata"]
    assert newer["spec"] == one("StatefulSet")["spec"]


def test_a_parent_chart_can_enable_it(tmp_path: Path) -> None:
    """By a dependency's condition; the names of its helpers have the chart's prefix."""
    (tmp_path / "Chart.yaml").write_text(
        "apiVersion: v2\nname: above\nversion: 1.0.0\ndependencies:\n"
        "  - {name: whatsapp-webhook, version: '>=0-0', alias: wa, condition: wa.enabled}\n"
    )
    shutil.copytree(CHART, tmp_path / "charts" / "whatsapp-webhook")
    assert objects(tmp_path, {"wa": {"enabled": False}}) == []
    assert "StatefulSet" in {manifest["kind"] for manifest in objects(tmp_path, {"wa": {"enabled": True}})}
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
def test_the_network_policy_allows_the_otlp_port(endpoint: str, port: int) -> None:
    """The port of the endpoint, or the default of its scheme."""
    (_, spans) = one("NetworkPolicy", {"tracing": {"endpoint": endpoint}}, end="-webhook")["spec"]["egress"]
    assert spans == {"ports": [{"port": port}]}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "This URL can't be reached from outside yet"),
        ({"service": {"type": "LoadBalancer"}}, "terminate TLS in front of it"),
        (INGRESS, "https://wa.example.com/webhooks"),
        ({"ingress": {"host": "left.over"}, "httpRoute": {**ROUTE["httpRoute"], "hostnames": ["a.b"]}}, "//a.b/"),
        ({"httpRoute": {**ROUTE["httpRoute"], "hostnames": ["*.a.b"]}}, "//YOUR-HOST.a.b/"),
        (ROUTE, "//YOUR-HOST/"),
        (RELAY, 'generic wh-whatsapp-webhook-relay --from-literal=bot="$APP_SECRET"'),
        (ROUTE, "httpRoute.hostnames is empty"),
        (POD_MONITOR, "Only the namespace monitoring may scrape metrics"),
    ],
)
def test_the_notes_match_the_values(values: Any, expected: str) -> None:
    """URL, commands and hints."""
    assert expected in notes(values)


def test_the_storage_class_may_be_empty() -> None:
    """For a volume that was created by hand."""
    claim = {"persistence": {"storageClass": "-"}}
    (template,) = one("StatefulSet", claim)["spec"]["volumeClaimTemplates"]
    assert template["spec"]["storageClassName"] == ""


def test_the_test_pod_is_scheduled_like_the_receiver() -> None:
    """With the same node selector, tolerations, priority and labels."""
    where = {"nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}], "priorityClassName": "high"}
    values = where | {"podLabels": {"mesh": "off"}}
    pod, receiver = one("Pod", values), one("StatefulSet", values)["spec"]["template"]
    for spec in (pod["spec"], receiver["spec"]):
        assert where.items() <= spec.items()
    assert pod["metadata"]["labels"]["mesh"] == receiver["metadata"]["labels"]["mesh"] == "off"


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["nothing", "everything"])
@pytest.mark.parametrize("version", ["1.29", "1.36"])
def test_the_api_accepts_every_field(values: Any, version: str) -> None:
    """Checked against the schemas of Kubernetes; tests/cluster tries the other resources."""
    validated = 0
    for manifest in rendered(values):
        if manifest["apiVersion"].split("/")[0].endswith(("coreos.com", "gateway.networking.k8s.io")):
            continue
        kubernetes_validate.validate(manifest, version, strict=True)
        validated += 1
    assert validated >= 5


def test_golden() -> None:
    """The objects without values, so that a diff shows every change. `make golden` writes the file."""
    assert [*yaml.safe_load_all(GOLDEN.read_text())] == rendered()


def test_the_credentials_are_optional_and_without_the_access_token() -> None:
    """Only the keys that the receiver reads are mounted, without subPath, which would prevent rotations."""
    spec = one("StatefulSet")["spec"]["template"]["spec"]
    (secret,) = [it["secret"] for it in spec["volumes"] if "secret" in it]
    keys = [{"key": name, "path": name} for name in ("verify-token", "app-secret", "log-key")]
    assert secret == {
        "secretName": "wh-whatsapp-webhook-credentials",
        "optional": True,
        "defaultMode": 0o440,
        "items": keys,
    }
    assert not any("subPath" in mount for mount in container()["volumeMounts"])
    assert "Secret" not in [manifest["kind"] for manifest in rendered()]


def test_a_changed_setting_restarts_the_pod_and_a_rotation_does_not() -> None:
    """There is no checksum of a Secret; settings are part of the pod."""
    text = json.dumps(one("StatefulSet"))
    assert "checksum" not in text
    assert one("StatefulSet", {"fields": ["calls"]})["spec"]["template"] != one("StatefulSet")["spec"]["template"]


def test_probes() -> None:
    """All use the admin port; those that can restart the container check neither credentials nor the inbox."""
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
    """The drain, the timeouts of the last request, and the shutdown."""
    spec = one("StatefulSet", values)["spec"]["template"]["spec"]
    command = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert command == ["whatsapp-webhook", "drain", "--seconds", drain]
    assert spec["terminationGracePeriodSeconds"] == grace


def test_only_the_webhooks_path_is_public() -> None:
    """Probes and metrics can't be reached from outside."""
    (rule,) = one("Ingress", EVERYTHING)["spec"]["rules"]
    assert [(it["path"], it["pathType"]) for it in rule["http"]["paths"]] == [("/webhooks", "Exact")]
    (rule,) = one("HTTPRoute", EVERYTHING)["spec"]["rules"]
    exact = {"type": "Exact", "value": "/webhooks"}
    assert rule["matches"] == [{"path": exact, "method": method} for method in ("GET", "POST")]
    assert [port["name"] for port in one("Service", end="webhook")["spec"]["ports"]] == ["http"]


def destinations_of(values: Any) -> bytes:
    return str(one("ConfigMap", values, end="-destinations")["data"]["destinations.yaml"]).encode()


def test_the_relay_reads_every_key_of_a_destination() -> None:
    """Every key that it knows is allowed in the values, and reaches it unchanged."""
    entry = {
        **BOT,
        "types": ["com.whatsapp.message.*"],
        "fields": ["messages"],
        "notTypes": ["com.whatsapp.history"],
        "phoneNumberIds": ["106540352242922"],
        "accounts": ["102290129340398"],
        "groups": "none",
        "direction": "inbound",
        "headers": {"Authorization": {"file": "bot-authorization"}, "X-Tenant": "a: b"},
        "concurrency": 8,
        "delivery": {
            "maxAge": "12h",
            "maxAttempts": 20,
            "backoff": {"first": "1s", "max": "10m"},
            "permanentStatuses": [400],
            "permanentAttempts": 3,
            "permanentAfter": "10m",
            "onFailure": "skip",
            "skipAfter": 5,
            "rateLimit": "50/s",
        },
        "keepResponses": False,
        "timeout": "20s",
        "tests": True,
        "internal": True,
        "from": "beginning",
    }
    assert set(entry) == {field.alias for field in Destination.model_fields.values()}
    (read,) = destinations.parse(destinations_of({"relay": {"destinations": [entry]}}), "destinations.yaml")
    assert read == Destination.model_validate(entry)
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(schema["properties"]["relay"]["properties"]["destinations"]["items"]["properties"]) == set(entry)


def test_the_relay_cannot_take_the_receiver_down() -> None:
    """It is a separate container without a readiness probe, which can write only the volume."""
    relay = container(RELAY, "relay")
    assert relay["args"] == ["relay"]
    assert relay["ports"] == [{"name": "relay", "containerPort": 9091}]
    assert "readinessProbe" not in relay
    assert {relay[probe]["httpGet"]["port"] for probe in ("startupProbe", "livenessProbe")} == {"relay"}
    assert relay["securityContext"] == container(RELAY)["securityContext"]
    assert {mount["name"] for mount in relay["volumeMounts"]} == {"destinations", "inbox"}
    receiver = container(RELAY)
    assert {**receiver, "env": None} == {**container(), "env": None}
    # The receiver reads the relay's state before it purges, only if there is a relay.
    assert [it["name"] for it in receiver["env"] if it not in container()["env"]] == ["WEBHOOK_DESTINATIONS"]


def test_a_change_of_the_destinations_restarts_nothing() -> None:
    """Only the ConfigMap changes; the Secret beside it is optional."""
    other = {"relay": {"destinations": [BOT | {"url": "https://other.example.com/"}, BOT | {"name": "crm"}]}}
    assert one("StatefulSet", RELAY) == one("StatefulSet", other)
    volumes = {it["name"]: it for it in one("StatefulSet", RELAY)["spec"]["template"]["spec"]["volumes"]}
    config, secret = volumes["destinations"]["projected"]["sources"]
    assert config == {"configMap": {"name": "wh-whatsapp-webhook-destinations"}}
    assert secret == {"secret": {"name": "wh-whatsapp-webhook-relay", "optional": True}}


@pytest.mark.parametrize(
    ("urls", "ports"),
    [
        (["https://a.example.com/x"], [443]),
        (["https://a.example.com:8443/x", "https://b.example.com:8443/", "https://c.example.com"], [8443, 443]),
        (["http://crm.sales.svc/events", "http://[fd00::1]:81/"], [80, 81]),
    ],
)
def test_the_network_policy_allows_the_destinations_ports(urls: list[str], ports: list[int]) -> None:
    """Everywhere but link-local and similar addresses; or only the peers of networkPolicy.egress."""
    entries = [BOT | {"name": f"d{number}", "url": url, "internal": True} for number, url in enumerate(urls)]
    values = {"relay": {"destinations": entries}}
    rule = one("NetworkPolicy", values, end="-webhook")["spec"]["egress"][-1]
    assert rule["ports"] == [{"port": port} for port in ports]
    excepted = [address for peer in rule["to"] if "ipBlock" in peer for address in peer["ipBlock"]["except"]]
    assert sorted(excepted) == sorted(map(str, FORBIDDEN))
    peers = [{"ipBlock": {"cidr": "10.0.0.0/8"}}]
    other = one("NetworkPolicy", values | {"networkPolicy": {"egress": peers}}, end="-webhook")
    assert other["spec"]["egress"][-1]["to"] == peers


def test_the_pod_of_helm_test_reaches_the_receiver_only() -> None:
    """And DNS; nothing may reach it. It mounts only the two values that it needs."""
    spec = one("NetworkPolicy", end="-test")["spec"]
    pod = one("Pod", end="-test")
    assert spec["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert (spec["policyTypes"], spec.get("ingress")) == (["Ingress", "Egress"], None)
    names, receiver = spec["egress"]
    assert {port["port"] for port in names["ports"]} == {53}
    assert [port["port"] for port in receiver["ports"]] == ["http", "admin"]
    (peer,) = receiver["to"]
    receivers = one("StatefulSet")["spec"]["template"]["metadata"]["labels"]
    assert peer["podSelector"]["matchLabels"].items() <= receivers.items()
    (volume,) = pod["spec"]["volumes"]
    assert [item["key"] for item in volume["secret"]["items"]] == ["verify-token", "app-secret"]


@pytest.mark.parametrize("kind", ["PodMonitor", "ServiceMonitor"])
def test_the_relay_is_scraped_too(kind: str) -> None:
    """On its own port; without a relay there is no such port."""
    name = kind[0].lower() + kind[1:]
    spec = one(kind, RELAY | {"metrics": {name: {"enabled": True}}})["spec"]
    assert [each["port"] for each in spec.get("podMetricsEndpoints", spec.get("endpoints"))] == ["admin", "relay"]
    spec = one(kind, {"metrics": {name: {"enabled": True}}})["spec"]
    assert [each["port"] for each in spec.get("podMetricsEndpoints", spec.get("endpoints"))] == ["admin"]
    assert [port["name"] for port in one("Service", RELAY, end="-admin")["spec"]["ports"]] == ["admin", "relay"]


def test_the_dashboard_is_what_its_generator_writes() -> None:
    """`make dashboard` writes the file; the chart replaces the runbook's URL."""
    assert (CHART / "files" / "dashboard.json").read_text() == dashboard.text()
    manifest = one("ConfigMap", DASHBOARD | {"prometheusRule": {"runbook": "https://wiki/runbook"}})
    content = json.loads(manifest["data"]["whatsapp-webhook.json"])
    (link,) = content.pop("links")
    assert link["url"] == "https://wiki/runbook"
    assert content == {key: value for key, value in dashboard.dashboard().items() if key != "links"}
    assert manifest["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_stats_are_instant_queries() -> None:
    """With a range query, a pod that is gone would be shown for the whole time range."""
    for panel in dashboard.dashboard()["panels"]:
        for target in panel.get("targets", []):
            assert (target["instant"], target["range"]) == (panel["type"] == "stat", panel["type"] != "stat")


def test_every_alert_has_a_section_in_the_runbook() -> None:
    """In the same order, and no section is without an alert. Every description says what to do first."""
    runbook = (CHART.parents[1] / "docs" / "runbook.md").read_text()
    sections = re.findall(r"^## (Webhook\w+)$", runbook, re.MULTILINE)
    spec = one("PrometheusRule", RULE | RELAY)["spec"]
    alerts = [rule for group in spec["groups"] for rule in group["rules"] if "alert" in rule]
    assert list(dict.fromkeys(rule["alert"] for rule in alerts)) == sections
    for rule in alerts:
        assert rule["annotations"]["runbook_url"].endswith(f"/docs/runbook.md#{rule['alert'].lower()}")
        assert "First: " in rule["annotations"]["description"]


RUNBOOK = (CHART.parents[1] / "docs" / "runbook.md").read_text()


@pytest.mark.parametrize(
    "section", re.split(r"^## (?=Webhook)", RUNBOOK, flags=re.MULTILINE)[1:], ids=lambda section: section.split()[0]
)
def test_a_section_of_the_runbook_has_impact_and_first_action(section: str) -> None:
    """The first action is commands for Kubernetes, systemd and compose, in the section itself."""
    _, _, action = section.partition("**Impact.**")[2].partition("**First action.**")
    (commands,) = re.findall(r"^```sh\n(.*?)^```$", action, re.MULTILINE | re.DOTALL)
    for place in ("Kubernetes", "systemd", "compose"):
        assert re.search(rf"^# .*\b{place}\b", commands, re.MULTILINE), place


def test_every_command_in_the_runbook_exists() -> None:
    """With each of its options."""
    text = re.sub(r"^wh\(\) .*", "", RUNBOOK, flags=re.MULTILINE)
    lines = re.findall(r"(?:whatsapp-webhook|^wh|`wh) ((?!whatsapp-webhook)[a-z][^`|\n]*)", text, re.MULTILINE)
    assert len(lines) > 40
    command_lines.require_valid(lines)


def test_without_destinations_nothing_mentions_a_relay() -> None:
    """WebhookRelayDown would fire forever; only WebhookRelayAbsent stays, for a relay that was removed."""
    objects = rendered(RULE | POD_MONITOR)
    for manifest in objects:
        for group in manifest["spec"].get("groups", []) if manifest["kind"] == "PrometheusRule" else []:
            group["rules"] = [rule for rule in group["rules"] if rule.get("alert") != "WebhookRelayAbsent"]
    assert "relay" not in json.dumps(
        [manifest for manifest in objects if manifest["kind"] not in ("StatefulSet", "Pod")]
    )
    assert "WEBHOOK_DESTINATIONS" not in json.dumps(objects)


def test_the_examples_for_load_balancers() -> None:
    """The chart accepts each, and renders its values."""
    page = (CHART.parents[1] / "docs" / "kubernetes.md").read_text()
    section = page.split("## In front of the service")[1].split("\n## ")[0]
    examples = [
        yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    ]
    assert len(examples) == 3
    for values in examples:
        objects = json.dumps(rendered(values))
        assert all(each["kind"] in objects for each in values.get("extraObjects", []))
        if "healthPath" in values:
            env = {each["name"]: each.get("value") for each in container(values)["env"]}
            assert env["WEBHOOK_HEALTH_PATH"] == "/healthz"
            for peer in values["networkPolicy"]["from"]:
                assert peer["ipBlock"]["cidr"] in objects
    for route in (one("Ingress", examples[2]), one("HTTPRoute", ROUTE | {"healthPath": "/healthz"})):
        assert "/healthz" not in json.dumps(route["spec"])
