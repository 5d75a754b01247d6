"""Traces: enabled if an OTLP endpoint is set in `OTEL_*`; they cost nothing if it is not.

Sampling is decided first: a request that is not sampled enters the plain application, without any overhead. A caller's
`traceparent` is removed, so that a caller can't force sampling. Spans are exported with the allowed attributes only:
the query string, and so the verify token, is not among them.

The only module that imports opentelemetry. Start it after the fork: its threads do not survive one.
"""

import os
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import falcon
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.falcon import FalconInstrumentor
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, TraceFlags

TRACED: Final = "whatsapp_webhook.traced"
ALLOWED_ATTRIBUTES: Final = frozenset(
    {
        "http.request.method",
        "http.response.status_code",
        "http.route",
        "error.type",
        "network.protocol.version",
        "url.scheme",
        "messaging.batch.message_count",
        "messaging.destination.name",
    }
)
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_TRACEPARENT: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_CALLER_CONTEXT: Final = ("HTTP_TRACEPARENT", "HTTP_TRACESTATE", "HTTP_BAGGAGE")
_ALWAYS: Final = ("", "always_on", "parentbased_always_on")
_RATIO: Final = ("traceidratio", "parentbased_traceidratio")
_NEVER: Final = ("always_off", "parentbased_always_off")

Context: TypeAlias = SpanContext
Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Any]


class Tracing:
    """The interface to tracing; without a provider it does nothing."""

    def __init__(self, provider: TracerProvider | None = None, *, ratio: float = 1.0) -> None:
        """*provider* gets the spans of a share of requests: *ratio*, from 0 to 1."""
        self._provider = provider
        self._ratio = ratio
        self._tracer = provider.get_tracer("whatsapp_webhook") if provider else None

    def wrap(self, build: Callable[[], falcon.App[Any, Any]]) -> Wsgi:
        """Build the application twice: a traced one for sampled requests, and a plain one for the others."""
        plain = build()
        if self._provider is None:
            return plain
        traced, ratio = _instrumented(build, self._provider), self._ratio

        def choose(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
            if random.random() >= ratio:  # noqa: S311  sampling needs no secure randomness
                return plain(environ, start_response)
            for name in _CALLER_CONTEXT:
                environ.pop(name, None)
            environ[TRACED] = True
            return traced(environ, start_response)

        return choose

    def request(self, environ: Mapping[str, Any]) -> Context | None:
        """Return the context of the request's span; None if the request is not sampled."""
        return trace.get_current_span().get_span_context() if TRACED in environ else None

    @contextmanager
    def commit(self, links: Sequence[Context], events: int) -> Iterator[None]:
        """Trace a group commit of *events*, linked to the requests of *links*."""
        if self._tracer is None or not links:
            yield
            return
        with self._tracer.start_as_current_span(
            "inbox commit",
            links=[Link(context) for context in links],
            attributes={"messaging.batch.message_count": events},
            record_exception=False,
        ):
            yield

    @contextmanager
    def delivery(self, parent: str | None, destination: str) -> Iterator[str | None]:
        """Trace an attempt to deliver an event of the trace *parent*; yield the `traceparent` to send, or None."""
        match = _TRACEPARENT.fullmatch(parent or "")
        if self._tracer is None or not match:
            yield parent
            return
        context = SpanContext(int(match[1], 16), int(match[2], 16), is_remote=True, trace_flags=TraceFlags(1))
        with self._tracer.start_as_current_span(
            "deliver",
            context=trace.set_span_in_context(NonRecordingSpan(context)),
            kind=SpanKind.CLIENT,
            attributes={"messaging.destination.name": destination},
            record_exception=False,
        ) as span:
            yield traceparent(span.get_span_context())

    def close(self) -> None:
        """Export the remaining spans."""
        if self._provider:
            self._provider.shutdown()


def traceparent(context: Context | None) -> str | None:
    """Return a context as a W3C `traceparent`."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-01" if context else None


def trace_id(context: Context | None) -> str | None:
    """Return the trace id of a context in hex."""
    return f"{context.trace_id:032x}" if context else None


def problems(environ: Mapping[str, str]) -> list[str]:
    """Return a sentence for each unsupported or malformed variable of `OTEL_*`."""
    sentences = []
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if _endpoint(environ) and protocol not in (None, "", "http/protobuf"):
        sentences.append(
            f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}: only http/protobuf is supported, usually on port 4318."
        )
    sentences += [
        f"{name} must be a URL such as http://collector:4318, with http:// or https:// and a host."
        for name in ENDPOINTS
        if environ.get(name) and not _is_url(environ[name])
    ]
    try:
        _ratio(environ)
    except ValueError as ex:
        sentences.append(str(ex))
    return sentences


def from_environ(environ: Mapping[str, str], *, version: str, report: Callable[[list[str]], object]) -> Tracing:
    """Start tracing as configured in `OTEL_*`; without an endpoint, or with a ratio of 0, nothing is started.

    If the configuration is invalid, its problems are passed to *report* and tracing is disabled: a mistake in it must
    not stop the receiver.
    """
    invalid = problems(environ)
    if not invalid:
        try:
            return _started(environ, version)
        except Exception as ex:  # noqa: BLE001  the SDK may raise anything for a bad variable
            invalid = [f"OpenTelemetry rejects one of the OTEL_* variables: {type(ex).__name__}."]
    report(invalid)
    return Tracing()


def _started(environ: Mapping[str, str], version: str) -> Tracing:
    disabled = environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    ratio = _ratio(environ)
    if disabled or not ratio or not _endpoint(environ) or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return Tracing()
    resource = Resource.create(
        {SERVICE_NAME: environ.get("OTEL_SERVICE_NAME") or "whatsapp-webhook", SERVICE_VERSION: version}
    )
    # `Tracing.wrap` has already sampled the request: a second sampler would sample twice.
    provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(AllowedOnly(OTLPSpanExporter())))
    return Tracing(provider, ratio=ratio)


class AllowedOnly(SpanExporter):
    """Exports spans with the allowed attributes only, and without span events, which may quote an exception."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export *spans*."""
        return self._exporter.export([_allowed(span) for span in spans])

    def shutdown(self) -> None:
        """Stop the exporter."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Export the spans that are still queued."""
        return self._exporter.force_flush(timeout_millis)


def _allowed(span: ReadableSpan) -> ReadableSpan:
    attributes = {key: value for key, value in (span.attributes or {}).items() if key in ALLOWED_ATTRIBUTES}
    name = span.name
    if "http.request.method" in attributes:
        # Without a route, the instrumentation names a span after the path, which the caller chose.
        name = f"{attributes['http.request.method']} {attributes.get('http.route', '')}".rstrip()
    return ReadableSpan(
        name=name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=attributes,
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _instrumented(build: Callable[[], falcon.App[Any, Any]], provider: TracerProvider) -> falcon.App[Any, Any]:
    # Without the opt-in, the instrumentation uses the semantic conventions of 2022. It replaces falcon.App for every
    # application that is created later; un-instrumenting would also stop the tracing of existing applications.
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
    plain = falcon.App
    FalconInstrumentor().instrument(tracer_provider=provider, meter_provider=NoOpMeterProvider())
    try:
        return build()
    finally:
        falcon.App = plain  # type: ignore[misc]


def _endpoint(environ: Mapping[str, str]) -> str | None:
    return next((environ[name] for name in ENDPOINTS if environ.get(name)), None)


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        return False


def _ratio(environ: Mapping[str, str]) -> float:
    sampler = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower()
    if sampler in _ALWAYS:
        return 1.0
    if sampler in _NEVER:
        return 0.0
    text = environ.get("OTEL_TRACES_SAMPLER_ARG", "").strip() or "1"
    try:
        ratio = float(text)
    except ValueError:
        ratio = -1.0
    if sampler not in _RATIO or not 0 <= ratio <= 1:
        known = ", ".join([*_ALWAYS[1:], *_NEVER, *_RATIO])
        raise ValueError(
            f"OTEL_TRACES_SAMPLER must be one of {known}, and OTEL_TRACES_SAMPLER_ARG a number from 0 to 1."
        )
    return ratio
