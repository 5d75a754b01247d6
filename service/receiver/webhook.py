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
IDENTITY: Final = "identity"  # of Content-Encoding: no coding was applied
IGNORED: Final = "ignored"
LOGGED_IDS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a notification may take: bytes, and seconds."""

    body_bytes: int
    read_timeout: float
    accept_timeout: float


class Webhook:
    """Translates between HTTP and the house."""

    def __init__(
        self,
        *,
        credentials: Callable[[], Credentials],
        submit: Callable[[Sequence[Event], float, Context | None], Sequence[Outcome]],
        chosen: Collection[str],
        limits: Limits,
        instruments: Instruments[Metrics],
        pseudonyms: logs.Pseudonyms,
        nonce: Callable[[], str],
    ) -> None:
        """*chosen* are the fields to keep, empty for all."""
        self._credentials = credentials
        self._submit = submit
        self._chosen = chosen
        self._limits = limits
        self._metrics = instruments.metrics.webhook
        self._matched = instruments.metrics.credentials.matched
        self._tracing = instruments.tracing
        self._now_ms = instruments.now_ms
        self._pseudonyms = pseudonyms
        self._nonce = nonce
        self._log = logs.get("webhook")
        self._is_debug = self._log.isEnabledFor(logging.DEBUG)  # asking costs more than what is asked for

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer the challenge of whoever knows a verify token."""
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
        """Keep every event of the notification, then say so."""
        try:
            trace = self._tracing.request(req.env)
            kept, outcomes = self._keep(self._parse(req, trace), trace)
        except (NotificationRefused, InboxUnavailable) as ex:
            self._metrics.notification(ex.outcome)
            raise
        self._metrics.notification(NotificationOutcome.ACCEPTED)
        self._count(kept, outcomes)
        resp.status = falcon.HTTP_200

    def _receive(self, req: falcon.Request) -> bytes:
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
        received = request_body.read_body(
            req.env["wsgi.input"],
            length=length,
            limit=self._limits.body_bytes,
            deadline=req.env.get(request_body.READ_DEADLINE) or time.monotonic() + self._limits.read_timeout,
            update=check.update,
        )
        self._matched(APP_SECRET, check.match())
        return received

    def _parse(self, req: falcon.Request, trace: Context | None) -> Sequence[Event]:
        # The body is let go of on return: while its events wait for their commit, they alone take memory.
        return events.parse(
            self._receive(req),
            received_at=self._now_ms(),
            nonce=self._nonce(),
            traceparent=tracing.traceparent(trace),
        )

    def _keep(self, parsed: Sequence[Event], trace: Context | None) -> tuple[Sequence[Event], Sequence[Outcome]]:
        kept = [event for event in parsed if self._is_chosen(event)] if self._chosen else parsed
        if len(kept) < len(parsed):
            self._count(
                [event for event in parsed if not self._is_chosen(event)], [IGNORED] * (len(parsed) - len(kept))
            )
        if not kept:
            return (), ()
        outcomes = self._submit(kept, time.monotonic() + self._limits.accept_timeout, trace)
        if self._is_debug:
            self._log.debug(
                "accepted",
                events=len(kept),
                types=sorted({webhook_fields.label_pair(event.field, event.type)[1] for event in kept}),
                ids=[self._pseudonyms(event.id) for event in kept[:LOGGED_IDS]],
                duplicates=sum(outcome is Outcome.DUPLICATE for outcome in outcomes),
                trace_id=tracing.trace_id(trace),
            )
        return kept, outcomes

    def _is_chosen(self, event: Event) -> bool:
        return event.field in self._chosen or event.type == events.UNRECOGNIZED

    def _count(self, counted: Sequence[Event], outcomes: Sequence[str]) -> None:
        counts: dict[tuple[str, str, str], int] = {}
        for event, outcome in zip(counted, outcomes, strict=True):
            alike = (*webhook_fields.label_pair(event.field, event.type), outcome)
            counts[alike] = counts.get(alike, 0) + 1
            if outcome == Outcome.NEW and event.time != event.received_at:
                self._metrics.delayed(max(event.received_at - event.time, 0) / 1000)
        for (field, kind, outcome), number in counts.items():
            self._metrics.event(field, kind, outcome, number)
