"""The public application: its routes, and the table of what each error is answered.

`create_app` is pure; `lifecycle` starts the parts.
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

_EXPLAINED: Final = "`whatsapp-webhook doctor --signature FILE` says why, of a request that was caught in FILE"
_SENT_AGAIN: Final = "it was answered 503, so Meta sends it again; /readyz says why the inbox can't be written"
STARTED: Final = "whatsapp_webhook.started"


def create_app(
    webhook: Webhook,
    *,
    path: str,
    health_path: str,
    checks: Mapping[str, Check],
    instruments: Instruments[Metrics],
    floods: logs.Floods,
) -> Wsgi:
    """Return the public application; starts nothing. With *health_path*, *checks* are asked there."""
    metrics = instruments.metrics

    def build() -> falcon.App[Any, Any]:
        app = strict_app([_Observer(metrics.http)])
        app.add_route(path, webhook)
        if health_path:
            app.add_route(health_path, Health(checks))
        for error, answer in ANSWERS.items():
            app.add_error_handler(error, _refusal(answer, floods))
        app.add_error_handler(falcon.HTTPBadRequest, _no_method)
        app.add_error_handler(Exception, _failure(metrics))
        return app

    return instruments.tracing.wrap(build)


def _refusal(answer: ErrorResponse, floods: logs.Floods) -> Callable[..., None]:
    def handle(req: falcon.Request, resp: falcon.Response, ex: errors.WebhookError, _params: object) -> None:
        reason = ex.reason if isinstance(ex, errors.HandshakeRefused | errors.InboxUnavailable) else ex.outcome
        if isinstance(ex, errors.InboxUnavailable):
            floods.add("notification not stored", reason, level="error", hint=_SENT_AGAIN)
        else:
            event = "handshake refused" if req.method == "GET" else "notification refused"
            floods.add(event, reason, **({"hint": _EXPLAINED} if isinstance(ex, errors.BadSignature) else {}))
        _give(resp, answer)

    return handle


def _no_method(req: falcon.Request, _resp: falcon.Response, ex: falcon.HTTPBadRequest, _params: object) -> None:
    """Falcon keeps some names of methods for itself, and answers them before anything else is asked."""
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
        _give(resp, FAILED)

    return handle


def _give(resp: falcon.Response, answer: ErrorResponse) -> None:
    resp.status = answer.status
    resp.content_type = TEXT
    resp.text = answer.text
    if answer.again:
        resp.set_header("Retry-After", RETRY_AFTER)


class _Observer:
    """Times every request, whatever it is answered."""

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
        if STARTED not in req.env:  # refused before it could be observed
            self.process_request(req, resp)
        self._metrics.active -= 1
        method = req.method if req.method in METHODS else "_OTHER"
        route = str(req.uri_template) if resource is not None else UNMATCHED
        self._metrics.answered(method, route, str(resp.status)[:3], perf_counter() - req.env[STARTED])
