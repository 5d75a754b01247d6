"""Helm, and what it renders."""

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "deploy" / "helm"
# What makes each optional object.
EVERYTHING: dict[str, Any] = {
    "credentials": {"create": True, "verifyToken": "t", "appSecret": "s"},
    "ingress": {"enabled": True, "host": "wa.example.com"},
    "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]},
    "metrics": {"podMonitor": {"enabled": True}},
    "prometheusRule": {"enabled": True},
    "dashboard": {"enabled": True},
    "tracing": {"endpoint": "http://collector:4318"},
    "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-more"}}],
}


def helm(*arguments: str, values: Any = None) -> subprocess.CompletedProcess[str]:
    """Run helm, with *values* as one more file."""
    given = ["--values", "-"] if values is not None else []
    text = None if values is None else json.dumps(values)
    return subprocess.run(["helm", *arguments, *given], input=text, capture_output=True, text=True, check=False)


def rendered(values: Any = None) -> list[dict[str, Any]]:
    """Render the chart; fails with what helm says."""
    done = helm("template", "wh", str(CHART), "--namespace", "here", values=values or {})
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


def refusal(values: Any) -> str:
    """Say why the chart refuses *values*."""
    done = helm("template", "wh", str(CHART), values=values)
    assert done.returncode != 0
    return done.stderr


def one(kind: str, values: Any = None, *, end: str = "") -> dict[str, Any]:
    """Give the one object of a *kind* whose name ends so."""
    (found,) = [it for it in rendered(values) if it["kind"] == kind and it["metadata"]["name"].endswith(end)]
    return found


def container(values: Any = None) -> dict[str, Any]:
    """Give the receiver's container."""
    (found,) = one("StatefulSet", values)["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found
