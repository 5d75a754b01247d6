"""Run Helm, and read what it renders; sets of values that several tests use."""

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "deploy" / "helm"
# A destination.
BOT: dict[str, Any] = {"name": "bot", "url": "https://bot.example.com:8443/x", "format": "meta", "secretFile": "bot"}
# Values that register the release at Meta.
SUBSCRIBE: dict[str, Any] = {
    "subscribe": {
        "enabled": True,
        "callbackUrl": "https://wa.example.com/webhooks",
        "appId": "188559381496048",
        "accounts": ["102290129340398"],
    }
}
# Values that create every optional object.
EVERYTHING: dict[str, Any] = {
    "credentials": {"create": True, "verifyToken": "t", "appSecret": "0123456789abcdef"},
    "ingress": {"enabled": True, "host": "wa.example.com"},
    "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]},
    "metrics": {"podMonitor": {"enabled": True}},
    "prometheusRule": {"enabled": True},
    "dashboard": {"enabled": True},
    "tracing": {"endpoint": "http://collector:4318"},
    "relay": {"destinations": [BOT]},
    **SUBSCRIBE,
    "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-more"}}],
}
# Values that create one of them.
INGRESS = {"ingress": EVERYTHING["ingress"]}
ROUTE = {"httpRoute": EVERYTHING["httpRoute"]}
POD_MONITOR = {"metrics": {"podMonitor": {"enabled": True}}}
SERVICE_MONITOR = {"metrics": {"serviceMonitor": {"enabled": True}}}
RULE = {"prometheusRule": {"enabled": True}}
DASHBOARD = {"dashboard": {"enabled": True}}
CREATE = {"credentials": EVERYTHING["credentials"]}
RELAY = {"relay": EVERYTHING["relay"]}
POSTGRESQL: dict[str, Any] = {"inbox": {"engine": "postgresql", "existingSecret": "inbox"}}
KAFKA: dict[str, Any] = {"inbox": {"engine": "kafka", "existingSecret": "inbox"}}
NATS: dict[str, Any] = {"inbox": {"engine": "nats", "existingSecret": "inbox"}}
# The relay in its own pods.
APART = POSTGRESQL | RELAY
AUTOSCALED = POSTGRESQL | {"autoscaling": {"enabled": True}}
KEDA = POSTGRESQL | {"autoscaling": {"enabled": True, "keda": {"enabled": True}}}
TRACING = {"tracing": {"endpoint": "http://collector:4318"}}


class _Strict(yaml.CSafeLoader):
    """YAML without duplicate keys, as kustomize and Flux require."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 -- PyYAML's signature
        """Fail for a key that would silently be overwritten."""
        keys = [key.value for key, _ in node.value]
        assert len(set(keys)) == len(keys), f"duplicate keys: {sorted(keys)}"
        return super().construct_mapping(node, deep)


def helm(*arguments: str, values: Any = None) -> subprocess.CompletedProcess[str]:
    """Run helm, with *values* as an additional file."""
    options = ["--values", "-"] if values is not None else []
    text = None if values is None else json.dumps(values)
    return subprocess.run(["helm", *arguments, *options], input=text, capture_output=True, text=True, check=False)


def rendered(values: Any = None) -> list[dict[str, Any]]:
    """Return the objects of the chart; fails with Helm's message."""
    return _read(_rendered(json.dumps(values or {})))


@cache
def _rendered(values: str) -> str:
    return _template(CHART, json.loads(values))


def objects(chart: Path, values: Any) -> list[dict[str, Any]]:
    """Return the objects of *chart*, which may be a copy."""
    return _read(_template(chart, values))


def _template(chart: Path, values: Any) -> str:
    done = helm("template", "wh", str(chart), "--namespace", "here", values=values)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _read(text: str) -> list[dict[str, Any]]:
    return [each for each in yaml.load_all(text, _Strict) if each]


def notes(values: Any) -> str:
    """Return the notes that Helm prints after an installation."""
    done = helm("install", "wh", str(CHART), "--dry-run=client", values=values)
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("NOTES:")[2]


def validation_error(values: Any, *, release: str = "wh") -> str:
    """Return the message with which the chart rejects *values*."""
    done = helm("template", release, str(CHART), values=values)
    assert done.returncode != 0
    return done.stderr


def one(kind: str, values: Any = None, *, end: str = "") -> dict[str, Any]:
    """Return the only object of a *kind* whose name ends with *end*."""
    (match,) = [it for it in rendered(values) if it["kind"] == kind and it["metadata"]["name"].endswith(end)]
    return match


def container(values: Any = None, name: str = "receiver", kind: str = "StatefulSet") -> dict[str, Any]:
    """Return the container of that name in the pods of a *kind*."""
    pods = [it["spec"]["template"]["spec"] for it in rendered(values) if it["kind"] == kind]
    containers = [it for pod in pods for it in pod["containers"]]
    (match,) = [it for it in containers if it["name"] == name]
    assert isinstance(match, dict)
    return match
