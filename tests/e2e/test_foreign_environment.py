"""Environment variables of other programs: none prevents the start; each is used or ignored as documented."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from service import foreign_environment
from service.meta import catalogue
from tests.support.relaying import Relay, write
from tests.support.server import Server, until

ROOT = Path(__file__).parents[2]
HOSTILE = {
    "WEB_CONCURRENCY": "auto",
    "GUNICORN_CMD_ARGS": "--workers 7 --bind 0.0.0.0:1 --nonsense",
    "FORWARDED_ALLOW_IPS": "*",
    "PROMETHEUS_MULTIPROC_DIR": "/nowhere/at/all",
    "prometheus_multiproc_dir": "/nowhere/either",
    "GUNICORN_PID": "none",
    "GUNICORN_FD": "x,y",
    "LISTEN_FDS": "many",
    "LISTEN_PID": "0x",
    "SENDFILE": "maybe",
    "SCRIPT_NAME": "/elsewhere",
    "PORT": "http",
    "FALCON_CUSTOM_HTTP_METHODS": "A B, ,",
    "GEVENT_RESOLVER": "nonsense",
    "GEVENT_THREADPOOL_IDLE_TASK_TIMEOUT": "soon",
    "GEVENT_BACKEND": "nonsense",
    "OTEL_PROPAGATORS": "nonsense",
    "OTEL_PYTHON_CONTEXT": "nonsense",
    "OTEL_PYTHON_EXCLUDED_URLS": "(",
    "OTEL_PYTHON_FALCON_EXCLUDED_URLS": "*",
    "OTEL_PYTHON_FALCON_TRACED_REQUEST_ATTRS": ",,",
    "OTEL_SPAN_EVENT_COUNT_LIMIT": "none",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318",
    "OTEL_EXPORTER_OTLP_TIMEOUT": "soon",
    "OTEL_BSP_SCHEDULE_DELAY": "often",
    "OTEL_ATTRIBUTE_COUNT_LIMIT": "-1",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "x",
    "OTEL_RESOURCE_ATTRIBUTES": ",,=,a",
    "COLUMNS": "wide",
    "LINES": "-1",
    "NO_COLOR": "",
    "FORCE_COLOR": "?",
    "TERM": "nonsense",
    "TZ": "Nowhere/Nothing",
    "LC_ALL": "xx_YY.UTF-99",
    "PGPORT": "many",
    "PGSSLMODE": "sometimes",
    "HTTP_PROXY": "::::",
    "SSL_CERT_DIR": "/nowhere",
    "PYDANTIC_DISABLE_PLUGINS": "?",
}


def test_a_server_and_a_relay_start(tmp_path: Path) -> None:
    """One warning names the ignored variables. Metrics, addresses and answers are as without them."""
    write(tmp_path)
    with Server(tmp_path, **HOSTILE) as server, Relay(tmp_path, **HOSTILE) as relay:
        assert server.notify(catalogue.notification("message text")).status == 200
        assert server.handshake().status == 200
        assert server.metric("whatsapp_webhook_build_info") == 1
        until(lambda: relay.admin("/livez").status == 200, "no relay")
        for log in (server.log_lines(), relay.log_lines()):
            (warning,) = [line for line in log if line["event"] == "environment variables ignored"]
            for name in foreign_environment.OVERRIDDEN:
                assert any(name in each for each in warning["problems"]) is bool(HOSTILE.get(name))
            tracing = [line for line in log if line["event"] == "tracing is off"]
            assert {line["level"] for line in tracing} == {"error"}
            for said in (
                "OTEL_EXPORTER_OTLP_ENDPOINT must be a URL",
                "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT must be a whole",
            ):
                assert said in str(tracing)


@pytest.mark.parametrize("name", HOSTILE)
def test_each_alone(name: str) -> None:
    """Each of them alone: `--help` works without a traceback."""
    command = [sys.executable, "-m", "service", "--help"]
    done = subprocess.run(command, env=os.environ | {name: HOSTILE[name]}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("value", ["", '"2"', "auto", "0x2", "two"])
def test_web_concurrency(value: str) -> None:
    """With any value that platforms set, no command prints a traceback; if it is set, there is a warning."""
    command = [sys.executable, "-m", "service", "check"]
    environ = os.environ | {"WEB_CONCURRENCY": value}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ("WEB_CONCURRENCY (use WEBHOOK_WORKERS)" in done.stderr) is bool(value)


@pytest.mark.parametrize(
    "endpoint", ["collector:4318", "localhost", "//collector:4318", "ftp://collector", "http://", "http://c:port"]
)
@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
def test_an_endpoint_without_its_scheme(name: str, endpoint: str, server: Server) -> None:
    """`check` rejects it, as the chart's schema does."""
    said = server.run("check", ok=True)
    assert "is valid" in said
    server.environ[name] = endpoint
    assert f"{name} must be a URL such as http://collector:4318" in server.run("check", ok=False)


def test_the_table_of_the_documentation() -> None:
    """It names every variable that is overridden, and every one that is used."""
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    section = page.split("## Variables that libraries read")[1].split("\n## ")[0]
    for name in (
        *foreign_environment.OVERRIDDEN,
        *(f"{prefix}*" for prefix in foreign_environment.OVERRIDDEN_PREFIXES),
    ):
        assert f"`{name}`" in section, name
    used = re.findall(r"^\| used \| (.*?) \|", section, re.MULTILINE)
    for name in ("OTEL_*", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "PG*", "NO_COLOR", "COLUMNS", "TZ"):
        assert any(f"`{name}`" in line for line in used), name
