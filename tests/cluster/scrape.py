"""What the Prometheus Operator makes of a PodMonitor, for a Prometheus outside the cluster: it asks through the API."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cluster.kube import Namespace


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


def job(here: Namespace, host: str) -> dict[str, Any]:
    """Make the release's PodMonitor a job of `scrape_configs`, which asks the pod through the API at *host*.

    The pod is whichever has the labels that the PodMonitor selects by, and a port of the name that it says; the
    target's labels are those that the Operator gives (`pkg/prometheus/promcfg.go`).
    """
    monitor = here.object("podmonitor")
    name, (endpoint,) = monitor["metadata"]["name"], monitor["spec"]["podMetricsEndpoints"]
    labels = ",".join(f"{key}={value}" for key, value in monitor["spec"]["selector"]["matchLabels"].items())
    (pod,) = here.objects("pod", labels)
    ((container, port),) = [
        (container["name"], port["containerPort"])
        for container in pod["spec"]["containers"]
        for port in container["ports"]
        if port["name"] == endpoint["port"]
    ]
    target = {
        "namespace": here.name,
        "pod": pod["metadata"]["name"],
        "container": container,
        "job": f"{here.name}/{name}",
        "endpoint": endpoint["port"],
    }
    return {
        "job_name": f"podMonitor/{here.name}/{name}/0",
        "metrics_path": f"/api/v1/namespaces/{here.name}/pods/{target['pod']}:{port}/proxy{endpoint['path']}",
        "static_configs": [{"targets": [host], "labels": target}],
    }
