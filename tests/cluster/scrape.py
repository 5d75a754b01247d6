"""The scrape configuration for a PodMonitor, for a Prometheus outside the cluster that scrapes through the API."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.cluster.kube import Namespace


@contextmanager
def api() -> Iterator[str]:
    """Proxy the cluster's API on loopback, with the credentials of KUBECONFIG; yield its host and port."""
    with subprocess.Popen(["kubectl", "proxy", "--port=0"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            address = re.search(r"127\.0\.0\.1:\d+", process.stdout.readline())
            assert address
            yield address[0]
        finally:
            process.terminate()


def jobs(here: Namespace, host: str) -> list[dict[str, Any]]:
    """Return a job of `scrape_configs` for each endpoint of the PodMonitor, scraped through the API at *host*.

    The pod is found by the PodMonitor's label selector, and its port by the endpoint's port name. The target has the
    labels that the Operator would set (`pkg/prometheus/promcfg.go`).
    """
    monitor = here.object("podmonitor")
    labels = ",".join(f"{key}={value}" for key, value in monitor["spec"]["selector"]["matchLabels"].items())
    (pod,) = here.objects("pod", labels)
    ports = {
        port["name"]: (container["name"], port["containerPort"])
        for container in pod["spec"]["containers"]
        for port in container["ports"]
    }
    scrape_configs = []
    for number, endpoint in enumerate(monitor["spec"]["podMetricsEndpoints"]):
        container, port = ports[endpoint["port"]]
        target = {
            "namespace": here.name,
            "pod": pod["metadata"]["name"],
            "container": container,
            "job": f"{here.name}/{monitor['metadata']['name']}",
            "endpoint": endpoint["port"],
        }
        scrape_configs.append(
            {
                "job_name": f"podMonitor/{here.name}/{monitor['metadata']['name']}/{number}",
                "metrics_path": f"/api/v1/namespaces/{here.name}/pods/{target['pod']}:{port}/proxy{endpoint['path']}",
                "static_configs": [{"targets": [host], "labels": target}],
            }
        )
    return scrape_configs
