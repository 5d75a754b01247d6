"""A real Prometheus on loopback, and queries to it."""

import json
import math
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from dashboard.panels import OURS_ALONE

from tests.support.server import free_port, until

INTERVAL = "500ms"
STRANGER = "stranger-0"


class Prometheus:
    """A running Prometheus: its series and its rules."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"

    def get(self, path: str, **query: str) -> Any:
        """Return the data of a request to its API."""
        with urllib.request.urlopen(f"{self._url}/{path}?{urllib.parse.urlencode(query)}") as answer:
            return json.load(answer)["data"]

    def found(self, query: str) -> list[dict[str, Any]]:
        """Return the series of a panel's *query* now, without NaN; each has its labels as `metric`."""
        result = self.get("query", query=self.as_grafana_asks(query))["result"]
        return [series for series in result if not math.isnan(float(series["value"][1]))]

    def as_grafana_asks(self, query: str, window: str = "10m") -> str:
        """Return *query* as Grafana sends it if "All" is chosen for the dashboard's variables."""
        for variable in ("namespace", "pod"):
            names = self.get(f"label/{variable}/values", **{"match[]": f'{{__name__=~"{OURS_ALONE}"}}'})
            query = query.replace(f"${variable}", "|".join(names))
        return query.replace("$__rate_interval", window).replace("$__range", window)

    def wait_until_scraped(self) -> None:
        """Wait until every target was scraped."""
        until(self._is_up, lambda: f"nothing was scraped: {self.get('targets')}")

    def wait_until_evaluated(self) -> None:
        """Wait until each of the chart's rules was evaluated without an error."""
        until(self._is_evaluated, lambda: str(self.get("rules")))

    def firing(self) -> set[str]:
        """Return the names of the firing alerts."""
        return {rule["name"] for rule in self._rules() if rule.get("state") == "firing"}

    def _is_up(self) -> bool:
        try:
            return {target["health"] for target in self.get("targets")["activeTargets"]} == {"up"}
        except OSError:
            return False

    def _is_evaluated(self) -> bool:
        rules = self._rules()
        return len(rules) > 20 and all(rule["health"] == "ok" for rule in rules)

    def _rules(self) -> list[dict[str, Any]]:
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]


@contextmanager
def scraping(directory: Path, jobs: list[dict[str, Any]], rules: dict[str, Any]) -> Iterator[Prometheus]:
    """Run Prometheus in *directory*, with *jobs* for its `scrape_configs` and *rules* as in a PrometheusRule's `spec`.

    It also scrapes itself, as a pod that is not ours.
    """
    directory.mkdir()
    port = free_port()
    stranger = {"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": "elsewhere", "pod": STRANGER}}
    (directory / "rules.yaml").write_text(yaml.safe_dump(rules))
    config = {
        "global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [*jobs, {"job_name": STRANGER, "static_configs": [stranger]}],
    }
    (directory / "prometheus.yaml").write_text(yaml.safe_dump(config))
    command = [
        "prometheus",
        f"--config.file={directory}/prometheus.yaml",
        f"--storage.tsdb.path={directory}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (directory / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            prometheus = Prometheus(port)
            prometheus.wait_until_scraped()
            yield prometheus
        finally:
            process.terminate()
