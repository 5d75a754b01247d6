"""Meta's one URL: GET is the handshake, POST is a notification."""

import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

import falcon

from service import events, handshake, signature
from service.credentials import APP_SECRET, VERIFY_TOKEN, Credentials
from service.errors import Encoded, HandshakeRefused, InboxUnavailable, NotConfigured, NotificationRefused, TooLarge
from service.events import Event
from service.instruments import Instruments
from service.meta import webhook_fields
from service.outcomes import HandshakeOutcome, NotificationOutcome
from service.receiver import request_body
from service.storage.protocols import Outcome
from service.telemetry import logs, tracing
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import Context

CHUNKED: Final = "chunked"
IDENTITY: Final = "identity"  # the Content-Encoding that means no encoding
IGNORED: Final = "ignored"
MAX_LOGGED_IDS: Final = 10
_UNRECOGNIZED_HINT: Final = "whatsapp-webhook events list --type com.whatsapp.unrecognized; docs/events.md says why"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a notification; timeouts are in seconds."""

    body_bytes: int
    read_timeout: float
    accept_timeout: float


class Webhook:
    """The resource for both methods: translates between HTTP and the service."""

    def __init__(
        self,
        *,
        credentials: Callable[[], Credentials],
        submit: Callable[[Sequence[Event], float, Context | None], Sequence[Outcome]],
        fields: Collection[str],
        limits: Limits,
        instruments: Instruments[Metrics],
        keyed_hasher: logs.KeyedHasher,
        nonce: Callable[[], str],
        rate_limited_log: logs.RateLimitedLog,
    ) -> None:
        """*fields* are the webhook fields to store; empty stores all."""
        self._credentials = credentials
        self._submit = submit
        self._fields = fields
        self._limits = limits
        self._metrics = instruments.metrics.webhook
        self._metrics.event("", events.UNRECOGNIZED, Outcome.NEW, 0)  # an alert needs to see the first increment
        self._matched = instruments.metrics.credentials.matched
        self._tracing = instruments.tracing
        self._now_ms = instruments.now_ms
        self._keyed_hasher = keyed_hasher
        self._nonce = nonce
        self._rate_limited_log = rate_limited_log
        self._log = logs.get("webhook")
        self._is_debug = self._log.isEnabledFor(logging.DEBUG)  # cached, because the call is slow

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Return the challenge if the caller knows an accepted verify token."""
        try:
            verified = handshake.verify(req.query_string, self._credentials().verify_tokens)
        except HandshakeRefused as ex:
            self._metrics.handshake(ex.reason)
            raise
        self._metrics.handshake(HandshakeOutcome.VERIFIED)
        self._matched(VERIFY_TOKEN, verified.position)
        self._log.info("handshake verified", credential=VERIFY_TOKEN, position=verified.position)
        resp.text = verified.challenge
        resp.content_type = "text/plain"
        resp.set_headers({"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"})

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Store every event of the notification, then answer 200."""
        try:
            trace = self._tracing.request(req.env)
            stored, outcomes = self._store(self._parse(req, trace), trace)
        except (NotificationRefused, InboxUnavailable) as ex:
            self._metrics.notification(ex.outcome)
            raise
        self._metrics.notification(NotificationOutcome.ACCEPTED)
        self._count(stored, outcomes)
        resp.status = falcon.HTTP_200

    def _read_verified_body(self, req: falcon.Request) -> bytes:
        length = req.content_length
        if length is not None and length > self._limits.body_bytes:
            raise TooLarge
        if (
            req.env.get("HTTP_CONTENT_ENCODING", IDENTITY) != IDENTITY
            or req.env.get("HTTP_TRANSFER_ENCODING", CHUNKED).lower() != CHUNKED
        ):
            raise Encoded
        secrets = self._credentials().app_secrets
        if not secrets:
            raise NotConfigured
        check = signature.Check(signature.digest_in(req.env.get("HTTP_X_HUB_SIGNATURE_256")), secrets)
        body = request_body.read_body(
            req.env["wsgi.input"],
            length=length,
            limit=self._limits.body_bytes,
            deadline=req.env.get(request_body.READ_DEADLINE) or time.monotonic() + self._limits.read_timeout,
            update=check.update,
        )
        self._matched(APP_SECRET, check.match())
        return body

    def _parse(self, req: falcon.Request, trace: Context | None) -> Sequence[Event]:
        # The body is freed on return: while its events wait for their commit, only they use memory.
        return events.parse(
            self._read_verified_body(req),
            received_at=self._now_ms(),
            nonce=self._nonce(),
            traceparent=tracing.traceparent(trace),
        )

    def _store(self, parsed: Sequence[Event], trace: Context | None) -> tuple[Sequence[Event], Sequence[Outcome]]:
        selected = [event for event in parsed if self._is_selected(event)] if self._fields else parsed
        if len(selected) < len(parsed):
            ignored = [event for event in parsed if not self._is_selected(event)]
            self._count(ignored, [IGNORED] * len(ignored))
        if not selected:
            return (), ()
        outcomes = self._submit(selected, time.monotonic() + self._limits.accept_timeout, trace)
        if self._is_debug:
            self._log.debug(
                "notification accepted",
                events=len(selected),
                types=sorted({webhook_fields.label_pair(event.field, event.type)[1] for event in selected}),
                ids=[self._keyed_hasher(event.id) for event in selected[:MAX_LOGGED_IDS]],
                duplicates=sum(outcome is Outcome.DUPLICATE for outcome in outcomes),
                trace_id=tracing.trace_id(trace),
            )
        return selected, outcomes

    def _is_selected(self, event: Event) -> bool:
        return event.field in self._fields or event.type == events.UNRECOGNIZED

    def _count(self, events_: Sequence[Event], outcomes: Sequence[str]) -> None:
        counts: dict[tuple[str, str, str], int] = {}
        for event, outcome in zip(events_, outcomes, strict=True):
            labels = (*webhook_fields.label_pair(event.field, event.type), outcome)
            counts[labels] = counts.get(labels, 0) + 1
            if outcome == Outcome.NEW and event.time != event.received_at:
                self._metrics.delayed(max(event.received_at - event.time, 0) / 1000)
            if outcome == Outcome.NEW and event.type == events.UNRECOGNIZED:
                what = "update" if event.field else "body"
                self._rate_limited_log.add("unrecognized event stored", what, hint=_UNRECOGNIZED_HINT)
        for (field, kind, outcome), number in counts.items():
            self._metrics.event(field, kind, outcome, number)
