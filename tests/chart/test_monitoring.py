"""Dashboard and alerts on a real Prometheus that scraped the running service."""

import json
import math
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dashboard
import pytest
import yaml
from chart.helm import one
from server import Server, free_port, until

RULE = {"prometheusRule": {"enabled": True}}
QUERIES = [
    (panel.title, legend, query)
    for row in dashboard.PANELS.values()
    for panel in row
    for legend, query in panel.queries.items()
]


class Prometheus:
    """A real one, scraping the admin listener every half second under the labels that a PodMonitor gives."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"

    def get(self, path: str, **query: str) -> Any:
        """Ask its API."""
        with urllib.request.urlopen(f"{self._url}/{path}?{urllib.parse.urlencode(query)}") as answer:
            return json.load(answer)["data"]

    def values(self, query: str) -> list[float]:
        """Give the numbers that *query* finds now."""
        for name, value in {"$namespace": ".*", "$pod": ".*", "$__rate_interval": "10m"}.items():
            query = query.replace(name, value)
        return [float(found["value"][1]) for found in self.get("query", query=query)["result"]]


@contextmanager
def scraping(server: Server, directory: Path, rules: dict[str, Any]) -> Iterator[Prometheus]:
    directory.mkdir()
    (directory / "rules.yaml").write_text(yaml.safe_dump(rules))
    target = {
        "targets": [f"127.0.0.1:{server.admin_port}"],
        "labels": {"namespace": "here", "pod": "wh-whatsapp-webhook-0"},
    }
    every = "500ms"
    config = {
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [{"job_name": "here/wh", "static_configs": [target]}],
    }
    (directory / "prometheus.yaml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={directory}/prometheus.yaml",
        f"--storage.tsdb.path={directory}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (directory / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield Prometheus(port)
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """It has scraped a server to which Meta was played twice."""
    rules = one("PrometheusRule", RULE)["spec"] if shutil.which("helm") else {"groups": []}
    directory = tmp_path_factory.mktemp("monitoring")
    with Server(directory) as server, scraping(server, directory / "prometheus", rules) as found:
        command = [sys.executable, "-m", "service", "simulate", f"http://127.0.0.1:{server.port}/webhooks"]
        until(lambda: _is_up(found), "nothing was scraped")
        for _ in range(2):
            subprocess.run([*command, "--credentials", str(server.credentials)], check=True, capture_output=True)
            time.sleep(2)
        yield found


def _is_up(prometheus: Prometheus) -> bool:
    try:
        return prometheus.values("up") == [1]
    except OSError:
        return False


@pytest.mark.needs("prometheus")
@pytest.mark.parametrize(
    ("title", "legend", "query"), QUERIES, ids=[f"{title}: {legend}" for title, legend, _ in QUERIES]
)
def test_every_panel_has_data(prometheus: Prometheus, title: str, legend: str, query: str) -> None:
    """A number, and not none; what the legend speaks of is a label."""
    found = prometheus.values(query)
    assert found, title
    assert not all(map(math.isnan, found)), title
    for label in re.findall(r"{{(\w+)}}", legend):
        assert label in query or label == "pod"


@pytest.mark.needs("prometheus", "helm")
def test_every_rule_is_evaluated(prometheus: Prometheus) -> None:
    """Without an error; and what is well fires nothing."""
    until(lambda: _evaluated(prometheus), lambda: str(prometheus.get("rules")))
    firing = {
        rule["name"]
        for group in prometheus.get("rules")["groups"]
        for rule in group["rules"]
        if rule.get("state") == "firing"
    }
    assert firing == set()


def _evaluated(prometheus: Prometheus) -> bool:
    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    return len(rules) > 20 and all(rule["health"] == "ok" for rule in rules)


@pytest.mark.needs("prometheus", "helm")
def test_the_alerts(tmp_path: Path) -> None:
    """Each fires when it should and stops when it should, as promtool plays it."""
    spec = one("PrometheusRule", {"prometheusRule": {"enabled": True, "runbook": "https://RUNBOOK"}})["spec"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec))
    tests = Path(__file__).parent / "alerts.yaml"
    shutil.copy(tests, tmp_path)
    played = tests.read_text()
    alerts = {rule["alert"] for group in spec["groups"] for rule in group["rules"] if "alert" in rule}
    assert {name for name in alerts if name not in played} == set()
    done = subprocess.run(
        ["promtool", "test", "rules", "alerts.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
