"""Pods next to the release; each runs a program of these tests."""

import os
from pathlib import Path
from typing import Any

# Python as the first process of a pod does not exit on SIGTERM.
_BRIEF = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1}


def load(name: str, **settings: str) -> dict[str, Any]:
    """Return a pod that sends load through the Service like Meta: `load.py`."""
    return _restricted(name, _program("load.py", settings))


def sink(name: str) -> list[dict[str, Any]]:
    """Return a pod that receives deliveries, `sink.py`, and its Service, both on port 8080."""
    pod = _restricted(name, _program("sink.py", {}))
    pod["metadata"]["labels"] = {"sink": name}
    service = {"selector": {"sink": name}, "ports": [{"port": 8080}]}
    return [pod, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": service}]


def graph(name: str, secret: str) -> list[dict[str, Any]]:
    """Return a pod that simulates Meta's Graph API, `graph.py`, and its Service, both on port 443.

    *secret* is the Secret with its `state.json`, and its key and certificate as `tls.pem`.
    """
    program = _program("../support/graph.py", {}, "/meta/state.json", "443", "/meta/tls.pem")
    program["volumeMounts"] = [{"name": "meta", "mountPath": "/meta"}]
    program["readinessProbe"] = {"tcpSocket": {"port": 443}, "periodSeconds": 1}
    pod = _restricted(name, program)
    pod["metadata"]["labels"] = {"graph": name}
    pod["spec"]["volumes"] = [{"name": "meta", "secret": {"secretName": secret}}]
    # Port 443 is what the release's network policy allows, and the pod does not run as root.
    pod["spec"]["securityContext"]["sysctls"] = [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]
    service = {"selector": {"graph": name}, "ports": [{"port": 443}]}
    return [pod, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": service}]


def killer(name: str, of: dict[str, Any]) -> dict[str, Any]:
    """Return a privileged pod on the node of another pod, which kills that pod's first process: `kill.py`."""
    program = _program("kill.py", {"POD_UID": of["metadata"]["uid"]})
    program["securityContext"] = {"privileged": True, "runAsUser": 0}
    return _pod(name, {"hostPID": True, "nodeName": of["spec"]["nodeName"], "containers": [program]})


def _restricted(name: str, program: dict[str, Any]) -> dict[str, Any]:
    """Return a pod that Pod Security `restricted` accepts."""
    program["securityContext"] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    user = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    return _pod(name, {"securityContext": user, "containers": [program]})


def _program(file: str, settings: dict[str, str], *arguments: str) -> dict[str, Any]:
    return {
        "name": "python",
        "image": os.environ["TEST_IMAGE"],
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", (Path(__file__).parent / file).read_text(), *arguments],
        "env": [{"name": key, "value": value} for key, value in settings.items()],
    }


def _pod(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": _BRIEF | spec}
