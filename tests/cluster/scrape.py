"""What the Prometheus Operator makes of a PodMonitor, for a Prometheus outside the cluster: it asks through the API."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.cluster.kube import Namespace


@contextmanager
def api() -> Iterator[str]:
    """Open the cluster's API on loopback, with whatever credentials KUBECONFIG has; gives its host and port."""
    with subprocess.Popen(["kubectl", "proxy", "--port=0"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            found = re.search(r"127\.0\.0\.1:\d+", process.stdout.readline())
            assert found
            yield found[0]
        finally:
            process.terminate()


def jobs(here: Namespace, host: str) -> list[dict[str, Any]]:
    """Make each endpoint of the PodMonitor a job of `scrape_configs`, asking the pod through the API at *host*.

    The pod is whichever has the labels that the PodMonitor selects by, and a port of the name that it says; the
    target's labels are those that the Operator gives (`pkg/prometheus/promcfg.go`).
    """
    monitor = here.object("podmonitor")
    labels = ",".join(f"{key}={value}" for key, value in monitor["spec"]["selector"]["matchLabels"].items())
    (pod,) = here.objects("pod", labels)
    ports = {
        port["name"]: (container["name"], port["containerPort"])
        for container in pod["spec"]["containers"]
        for port in container["ports"]
    }
    made = []
    for number, endpoint in enumerate(monitor["spec"]["podMetricsEndpoints"]):
        container, port = ports[endpoint["port"]]
        target = {
            "namespace": here.name,
            "pod": pod["metadata"]["name"],
            "container": container,
            "job": f"{here.name}/{monitor['metadata']['name']}",
            "endpoint": endpoint["port"],
        }
        made.append(
            {
                "job_name": f"podMonitor/{here.name}/{monitor['metadata']['name']}/{number}",
                "metrics_path": f"/api/v1/namespaces/{here.name}/pods/{target['pod']}:{port}/proxy{endpoint['path']}",
                "static_configs": [{"targets": [host], "labels": target}],
            }
        )
    return made
