"""Traces, with a real OTLP receiver that decodes them."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from service.meta import catalogue
from tests.cli.test_commands import run
from tests.support.server import Server, until


class Receiver(http.server.ThreadingHTTPServer):
    """Accepts OTLP over HTTP, and stores the spans and the bytes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[Any] = []
        self.resources: list[Any] = []
        self.raw = b""
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def named(self, name: str) -> list[Any]:
        """Return the spans with this name."""
        return [span for span in self.spans if span.name == name]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Receiver
    protocol_version: ClassVar[str] = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.raw += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.server.resources.append(resource.resource)
            for scope in resource.scope_spans:
                self.server.spans += scope.spans
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.shutdown()
    made.server_close()


def settings(receiver: Receiver, **more: str) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{receiver.server_port}",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "WEBHOOK_LOG_LEVEL": "debug",
        **more,
    }


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def test_a_request_and_its_commit(receiver: Receiver, tmp_path: Path) -> None:
    """A span for the request, and a linked one for the commit; event and log have the trace id."""
    with Server(tmp_path, **settings(receiver)) as server:
        answer = server.notify(catalogue.notification("message text"))
        assert answer.status == 200
        until(lambda: receiver.named("POST /webhooks") and receiver.named("inbox commit"), "no spans")
        (request,) = receiver.named("POST /webhooks")
        (commit,) = receiver.named("inbox commit")
        assert attributes(request)["http.route"] == "/webhooks"
        assert attributes(request)["http.response.status_code"] == 200
        assert [(link.trace_id, link.span_id) for link in commit.links] == [(request.trace_id, request.span_id)]
        assert attributes(commit) == {"messaging.batch.message_count": 1}
        (event,) = server.kept()
        assert event.traceparent == f"00-{request.trace_id.hex()}-{request.span_id.hex()}-01"
        lines = [line for line in server.log_lines() if line["event"] == "notification accepted"]
        assert [line["trace_id"] for line in lines] == [request.trace_id.hex()]
        (name,) = {each.value.string_value for each in receiver.resources[0].attributes if each.key == "service.name"}
        assert name == "whatsapp-webhook"


def test_spans_contain_no_secret(receiver: Receiver, tmp_path: Path) -> None:
    """No query string and so no token; no header, no address, no path of a stranger."""
    with Server(tmp_path, **settings(receiver)) as server:
        server.handshake(challenge="the-challenge")
        server.handshake("a-wrong-token")
        server.request("GET", "/a-strangers-path?x=y", headers={"User-Agent": "a-strangers-agent", "Host": "a-host"})
        server.notify(b"x", secret="wrong")
        until(lambda: len(receiver.spans) >= 4, "no spans")
    for secret in (server.token, "the-challenge", "a-wrong-token", "strangers", "a-host", "hub.", server.secret):
        assert secret.encode() not in receiver.raw
    assert {span.name for span in receiver.spans} <= {"GET /webhooks", "POST /webhooks", "GET"}


def test_a_stranger_cannot_force_sampling(receiver: Receiver, tmp_path: Path) -> None:
    """A caller's traceparent does not decide, and does not become the parent."""
    foreign = "00-11111111111111111111111111111111-2222222222222222-01"
    with Server(tmp_path, **settings(receiver)) as server:
        server.notify(catalogue.notification("message text"), traceparent=foreign, tracestate="a=b", baggage="c=d")
        until(lambda: receiver.named("POST /webhooks"), "no span")
        (span,) = receiver.named("POST /webhooks")
        assert span.trace_id.hex() != "1" * 32
        assert span.parent_span_id == b""
    (tmp_path / "never").mkdir()
    ratio = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.0000001"}
    receiver.spans.clear()
    with Server(tmp_path / "never", **settings(receiver, **ratio)) as server:
        for _ in range(20):
            server.notify(catalogue.notification("message text"), traceparent=foreign)
        assert all(event.traceparent is None for event in server.kept())
    assert receiver.spans == []


def test_a_share_of_requests_is_sampled(receiver: Receiver, tmp_path: Path) -> None:
    """About as many as the ratio; the others are answered and stored in the same way."""
    ratio = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5"}
    with Server(tmp_path, **settings(receiver, **ratio)) as server:
        for _ in range(200):
            assert server.notify(catalogue.notification("status read")).status == 200
        traced = [event for event in server.kept() if event.traceparent]
        assert len(server.kept()) == 200
        assert 60 < len(traced) < 140
    assert len(receiver.named("POST /webhooks")) == len(traced)


def test_an_endpoint_that_is_down(tmp_path: Path) -> None:
    """The exporter fails in its own thread, and does not delay the shutdown for long."""
    down = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_TIMEOUT": "2"}
    with Server(tmp_path, **down) as server:
        assert server.notify(catalogue.notification("message text")).status == 200
        assert server.stop(25) == 0


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
        {"OTEL_TRACES_SAMPLER": "sometimes"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "2"},
    ],
)
def test_check_reports_invalid_tracing_settings(environ: dict[str, str]) -> None:
    """It exits with status 2."""
    done = run("check", **environ)
    assert done.returncode == 2
    assert "OTEL_" in done.stderr
    assert "Traceback" not in done.stderr
