"""Dashboard and alerts on a real Prometheus that scraped the running service."""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dashboard import PANELS

from tests.chart.helm import APART, INGRESS, RELAY, SUBSCRIBE, one
from tests.chart.prometheus import STRANGER, Prometheus, scraping
from tests.support.destination import destination
from tests.support.relaying import Relay, write
from tests.support.server import Server, until

RULE = {"prometheusRule": {"enabled": True}}
# The pods of receiver and relay, the same one or two, and the values for that layout.
LAYOUTS: dict[str, tuple[tuple[str, str], dict[str, Any]]] = {
    "one pod": (("wh-whatsapp-webhook-0",) * 2, RELAY | RULE),
    "two pods": (("wh-whatsapp-webhook-7f9c8d6b54-x2k9z", "wh-whatsapp-webhook-relay-5d4f8b9c7-q4w8m"), APART | RULE),
}
QUERIES = [
    (panel.title, legend, query) for row in PANELS.values() for panel in row for legend, query in panel.queries.items()
]


pytestmark = pytest.mark.xdist_group("monitoring")  # otherwise each test process would run its own Prometheus


def target(pod: str, container: str, port: int) -> dict[str, Any]:
    """Return the scrape target of a container."""
    labels = {"namespace": "here", "pod": pod, "container": container}
    return {"targets": [f"127.0.0.1:{port}"], "labels": labels}


@pytest.fixture(scope="module", params=LAYOUTS)
def prometheus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Yield a Prometheus that scraped a receiver with simulated traffic, and a relay that delivered it."""
    pods, values = LAYOUTS[str(request.param)]
    rules = one("PrometheusRule", values)["spec"] if shutil.which("helm") else {"groups": []}
    directory = tmp_path_factory.mktemp("monitoring")
    with destination() as app:
        write(directory, {"url": f"http://127.0.0.1:{app.port}/"})
        yield from scraped(directory, pods, rules)


def scraped(directory: Path, pods: tuple[str, str], rules: dict[str, Any]) -> Iterator[Prometheus]:
    with Server(directory) as server, Relay(directory) as relay:
        job = {
            "job_name": "here/wh",
            "static_configs": [
                target(pods[0], "receiver", server.admin_port),
                target(pods[1], "relay", relay.port),
            ],
        }
        with scraping(directory / "prometheus", [job], rules) as prometheus:
            command = [sys.executable, "-m", "service", "simulate", f"http://127.0.0.1:{server.port}/webhooks"]
            for _ in range(2):
                subprocess.run([*command, "--credentials", str(server.credentials)], check=True, capture_output=True)
                time.sleep(2)
            yield prometheus


@pytest.mark.needs("prometheus")
@pytest.mark.parametrize(
    ("title", "legend", "query"), QUERIES, ids=[f"{title}: {legend}" for title, legend, _ in QUERIES]
)
def test_every_panel_has_data(prometheus: Prometheus, title: str, legend: str, query: str) -> None:
    """The query returns numbers, its legend's labels exist and are unique, and no series is of another pod."""
    until(lambda: prometheus.found(query), title, patience=10)  # a scrape may be late on a busy machine
    label_sets = [series["metric"] for series in prometheus.found(query)]
    names = [re.sub(r"{{(\w+)}}", lambda label, labels=labels: labels[label[1]], legend) for labels in label_sets]
    assert len(set(names)) == len(names)
    assert STRANGER not in str(label_sets)


@pytest.mark.needs("prometheus", "helm")
def test_every_rule_is_evaluated(prometheus: Prometheus) -> None:
    """No rule fails, and no alert fires for a healthy service."""
    prometheus.wait_until_evaluated()
    assert prometheus.firing() == set()


@pytest.mark.needs("prometheus", "helm")
def test_alerts_fire_and_resolve(tmp_path: Path) -> None:
    """Promtool's tests cover every alert and pass."""
    spec = one("PrometheusRule", RELAY | {"prometheusRule": {"enabled": True, "runbook": "https://RUNBOOK"}})["spec"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec))
    rules = ["promtool", "check", "rules", "--lint=all", "--lint-fatal", str(tmp_path / "rules.yaml")]
    checked = subprocess.run(rules, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    test_files = [shutil.copy(file, tmp_path) for file in Path(__file__).parent.glob("alerts*.yaml")]
    content = "".join(Path(file).read_text() for file in test_files)
    alerts = {rule["alert"] for group in spec["groups"] for rule in group["rules"] if "alert" in rule}
    assert {name for name in alerts if name not in content} == set()
    done = subprocess.run(["promtool", "test", "rules", *test_files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.needs("helm")
@pytest.mark.parametrize(
    ("values", "url"),
    [
        ({}, "https://HOST/webhooks"),
        ({"path": "/wa"}, "https://HOST/wa"),
        (INGRESS, "https://wa.example.com/webhooks"),
        (
            SUBSCRIBE | {"subscribe": SUBSCRIBE["subscribe"] | {"callbackUrl": "https://x.example/in"}},
            "https://x.example/in",
        ),
    ],
)
def test_commands_name_the_callback_url(values: dict[str, Any], url: str) -> None:
    """Commands of alerts contain the URL that Meta calls, or HOST if no value names it."""
    groups = one("PrometheusRule", values | RULE)["spec"]["groups"]
    descriptions = [
        rule["annotations"]["description"] for group in groups for rule in group["rules"] if "alert" in rule
    ]
    assert {each.partition("--url ")[2] for each in descriptions if "--url" in each} == {url}
