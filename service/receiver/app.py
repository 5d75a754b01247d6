"""The public application: its routes and error handlers.

`create_app` starts nothing; `lifecycle` starts the parts.
"""

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, Final

import falcon

from service import errors
from service.admin.probes import Check, Health
from service.instruments import Instruments
from service.outcomes import NotificationOutcome
from service.receiver.responses import ANSWERS, FAILED, RETRY_AFTER, ErrorResponse
from service.receiver.webhook import Webhook
from service.strict_app import METHODS, TEXT, strict_app
from service.telemetry import logs
from service.telemetry.metrics import UNMATCHED, HttpMetrics, Metrics
from service.telemetry.tracing import Wsgi

_SIGNATURE_HINT: Final = "to find the cause, save a request to FILE and run `whatsapp-webhook doctor --signature FILE`"
_RETRY_HINT: Final = "it was answered 503, so Meta will retry; /readyz shows why the inbox is unavailable"
STARTED: Final = "whatsapp_webhook.started"  # in the environ: when the request started


def create_app(
    webhook: Webhook,
    *,
    path: str,
    health_path: str,
    checks: Mapping[str, Check],
    instruments: Instruments[Metrics],
    rate_limited_log: logs.RateLimitedLog,
) -> Wsgi:
    """Return the public application without starting anything; *health_path* reports *checks*, empty for none."""
    metrics = instruments.metrics

    def build() -> falcon.App[Any, Any]:
        app = strict_app([_Observer(metrics.http)])
        app.add_route(path, webhook)
        if health_path:
            app.add_route(health_path, Health(checks))
        for error, response in ANSWERS.items():
            app.add_error_handler(error, _rejection(response, rate_limited_log))
        app.add_error_handler(falcon.HTTPBadRequest, _unknown_method)
        app.add_error_handler(Exception, _failure(metrics))
        return app

    return instruments.tracing.wrap(build)


def _rejection(response: ErrorResponse, rate_limited_log: logs.RateLimitedLog) -> Callable[..., None]:
    def handle(req: falcon.Request, resp: falcon.Response, ex: errors.WebhookError, _params: object) -> None:
        reason = ex.reason if isinstance(ex, errors.HandshakeRefused | errors.InboxUnavailable) else ex.outcome
        if isinstance(ex, errors.InboxUnavailable):
            rate_limited_log.add("notification not stored", reason, level="error", hint=_RETRY_HINT)
        else:
            event = "handshake rejected" if req.method == "GET" else "notification rejected"
            rate_limited_log.add(
                event, reason, **({"hint": _SIGNATURE_HINT} if isinstance(ex, errors.BadSignature) else {})
            )
        _respond(resp, response)

    return handle


def _unknown_method(req: falcon.Request, _resp: falcon.Response, ex: falcon.HTTPBadRequest, _params: object) -> None:
    """Answer 405 to names that Falcon reserves as methods, and would answer 400 before routing."""
    if req.method not in METHODS:
        raise falcon.HTTPMethodNotAllowed(["GET", "POST"])
    raise ex


def _failure(metrics: Metrics) -> Callable[..., None]:
    log = logs.get("app")

    def handle(req: falcon.Request, resp: falcon.Response, ex: Exception, _params: object) -> None:
        if isinstance(ex, falcon.HTTPError):
            raise ex
        if req.method == "POST":
            metrics.webhook.notification(NotificationOutcome.ERROR)
        log.error("request failed", exc_info=ex)
        _respond(resp, FAILED)

    return handle


def _respond(resp: falcon.Response, response: ErrorResponse) -> None:
    resp.status = response.status
    resp.content_type = TEXT
    resp.text = response.text
    if response.again:
        resp.set_header("Retry-After", RETRY_AFTER)


class _Observer:
    """Counts and times every request, whatever its response."""

    def __init__(self, metrics: HttpMetrics) -> None:
        self._metrics = metrics

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        self._metrics.active += 1
        req.env[STARTED] = perf_counter()

    def process_response(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        resource: object,
        _succeeded: bool,  # noqa: FBT001  Falcon's
    ) -> None:
        if STARTED not in req.env:  # rejected before process_request ran
            self.process_request(req, resp)
        self._metrics.active -= 1
        method = req.method if req.method in METHODS else "_OTHER"
        route = str(req.uri_template) if resource is not None else UNMATCHED
        self._metrics.answered(method, route, str(resp.status)[:3], perf_counter() - req.env[STARTED])
