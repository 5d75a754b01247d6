"""The composition root: which part gets which, in what order they start and stop, and what an error is answered.

`create_app` and `create_admin` are pure. `get_app` reads the environment's configuration and starts the parts; call
it in the worker, after the fork.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final

import falcon

from service import errors
from service.admin import Check, Health, Livez, MetricsPage, Readyz
from service.credentials import Credentials
from service.events import Event
from service.storage.protocols import Outcome
from service.telemetry import logs
from service.telemetry.metrics import UNMATCHED, HttpMetrics, Metrics
from service.telemetry.tracing import Context, Tracing, Wsgi
from service.webhook import Limits, Webhook

TEXT: Final = "text/plain; charset=utf-8"
RETRY_AFTER: Final = "5"  # seconds


@dataclass(frozen=True, slots=True)
class Answer:
    """What a refused request gets; the text is fixed, so that it says nothing about the reason."""

    status: str
    text: str
    again: bool = False


_UNAVAILABLE: Final = Answer(falcon.HTTP_503, "unavailable, try again\n", again=True)
ANSWERS: Final[Mapping[type[errors.WebhookError], Answer]] = {
    errors.HandshakeRefused: Answer(falcon.HTTP_404, "verification refused\n"),
    errors.TooLarge: Answer(falcon.HTTP_413, "body too large\n"),
    errors.Encoded: Answer(falcon.HTTP_415, "content encoding not supported\n"),
    errors.NotConfigured: _UNAVAILABLE,
    errors.BadSignature: Answer(falcon.HTTP_401, "signature refused\n"),
    errors.Overloaded: _UNAVAILABLE,
    errors.ReadTimeout: Answer(falcon.HTTP_408, "request not complete in time\n"),
    errors.Aborted: Answer(falcon.HTTP_400, "request not complete\n"),
    errors.InboxUnavailable: _UNAVAILABLE,
}
METHODS: Final = {"GET": "on_get", "HEAD": "on_head", "POST": "on_post"}
WRONG_PATH: Final = "not found\n"
_EXPLAINED: Final = "`whatsapp-webhook doctor --signature FILE` says why, of a request that was caught in FILE"
_SENT_AGAIN: Final = "it was answered 503, so Meta sends it again; /readyz says why the inbox can't be written"
STARTED: Final = "whatsapp_webhook.started"
FAILED: Final = Answer(falcon.HTTP_500, "internal error\n", again=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the public application is made of."""

    path: str
    chosen: frozenset[str]
    limits: Limits
    credentials: Callable[[], Credentials]
    submit: Callable[[Sequence[Event], float, Context | None], Sequence[Outcome]]
    metrics: Metrics
    traced: Tracing
    pseudonyms: logs.Pseudonyms
    floods: logs.Floods
    now: Callable[[], float]
    nonce: Callable[[], str]
    health_path: str
    checks: Mapping[str, Check]


def create_app(parts: Parts) -> Wsgi:
    """Make the public application; starts nothing."""
    resource = Webhook(
        credentials=parts.credentials,
        submit=parts.submit,
        chosen=parts.chosen,
        limits=parts.limits,
        metrics=parts.metrics.webhook,
        matched=parts.metrics.credentials.matched,
        traced=parts.traced,
        pseudonyms=parts.pseudonyms,
        now=parts.now,
        nonce=parts.nonce,
    )

    def build() -> falcon.App[Any, Any]:
        app = _bare_app([_Observer(parts.metrics.http)])
        app.add_route(parts.path, resource)
        if parts.health_path:
            app.add_route(parts.health_path, Health(parts.checks))
        for error, answer in ANSWERS.items():
            app.add_error_handler(error, _refusal(answer, parts.floods))
        app.add_error_handler(falcon.HTTPBadRequest, _no_method)
        app.add_error_handler(Exception, _failure(parts.metrics))
        return app

    return parts.traced.wrap(build)


def create_admin(checks: Mapping[str, Check], page: MetricsPage) -> falcon.App[Any, Any]:
    """Make the admin application; starts nothing."""
    app = _bare_app([])
    app.add_route("/livez", Livez())
    app.add_route("/readyz", Readyz(checks))
    app.add_route("/metrics", page)
    return app


def _bare_app(middleware: list[Any]) -> falcon.App[Any, Any]:
    app = falcon.App(media_type=TEXT, middleware=[*middleware, _GetAndPost()])
    app.set_error_serializer(_serialize)
    app.resp_options.xml_error_serialization = False
    return app


def _serialize(_req: falcon.Request, resp: falcon.Response, ex: falcon.HTTPError) -> None:
    """Write Falcon's own errors: a path or a method that is not there."""
    resp.content_type = TEXT
    resp.text = WRONG_PATH if ex.status == falcon.HTTP_404 else f"{str(ex.status)[4:].lower()}\n"


def _refusal(answer: Answer, floods: logs.Floods) -> Callable[..., None]:
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
            metrics.webhook.notification("error")
        log.error("request failed", exc_info=ex)
        _give(resp, FAILED)

    return handle


def _give(resp: falcon.Response, answer: Answer) -> None:
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


class _GetAndPost:
    """Refuses methods that a resource does not have, OPTIONS among them, and what only Falcon takes for its path."""

    def process_resource(self, req: falcon.Request, _resp: falcon.Response, resource: object, _params: object) -> None:
        if req.path != req.uri_template:
            raise falcon.HTTPNotFound
        if req.method not in METHODS or not hasattr(resource, METHODS[req.method]):
            raise falcon.HTTPMethodNotAllowed([name for name, on in METHODS.items() if hasattr(resource, on)])
