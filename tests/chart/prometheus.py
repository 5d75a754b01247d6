"""A real Prometheus on loopback, and what is asked of it."""

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

EVERY = "500ms"
STRANGER = "stranger-0"


class Prometheus:
    """What it has scraped, and what it makes of its rules."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"

    def get(self, path: str, **query: str) -> Any:
        """Ask its API."""
        with urllib.request.urlopen(f"{self._url}/{path}?{urllib.parse.urlencode(query)}") as answer:
            return json.load(answer)["data"]

    def found(self, query: str) -> list[dict[str, Any]]:
        """Give what a panel's *query* finds now, each with its labels as `metric`; numbers only."""
        result = self.get("query", query=self.as_grafana_asks(query))["result"]
        return [found for found in result if not math.isnan(float(found["value"][1]))]

    def as_grafana_asks(self, query: str, window: str = "10m") -> str:
        """Put in what Grafana does when "All" is chosen: whatever the dashboard's variables find."""
        for name in ("namespace", "pod"):
            known = self.get(f"label/{name}/values", **{"match[]": f'{{__name__=~"{OURS_ALONE}"}}'})
            query = query.replace(f"${name}", "|".join(known))
        return query.replace("$__rate_interval", window).replace("$__range", window)

    def wait_until_scraped(self) -> None:
        """Wait until every target answers."""
        until(self._is_up, lambda: f"nothing was scraped: {self.get('targets')}")

    def wait_until_evaluated(self) -> None:
        """Wait until each of the chart's rules was evaluated without an error."""
        until(self._is_evaluated, lambda: str(self.get("rules")))

    def firing(self) -> set[str]:
        """Give the names of the alerts that fire."""
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
    """Run one in *directory*, with these jobs of its `scrape_configs`, and rules as a PrometheusRule's `spec` has them.

    It scrapes a stranger beside: itself, as another pod.
    """
    directory.mkdir()
    port = free_port()
    stranger = {"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": "elsewhere", "pod": STRANGER}}
    (directory / "rules.yaml").write_text(yaml.safe_dump(rules))
    config = {
        "global": {"scrape_interval": EVERY, "scrape_timeout": EVERY, "evaluation_interval": EVERY},
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
            found = Prometheus(port)
            found.wait_until_scraped()
            yield found
        finally:
            process.terminate()
