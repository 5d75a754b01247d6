"""The result of one POST: delivered, or the evidence of a failure: the reason in words, and what was answered."""

import http.client
import re
import socket
import ssl
from collections.abc import Sequence
from typing import Final

import urllib3

from service.outcomes import AttemptOutcome
from service.relay.delivery_response import NO_ANSWER, DeliveryResponse
from service.relay.policy import outcome_of
from service.storage.deliveries import AttemptEvidence

# The headers and the text of a failed attempt's response that are stored for `events show`.
EVIDENCE_HEADERS: Final = ("Content-Type", "Content-Length", "Retry-After", "Server", "X-Request-Id")
MAX_EVIDENCE_TEXT_BYTES: Final = 1024
MAX_EVIDENCE_HEADER_CHARACTERS: Final = 200
_TEXT_TYPE: Final = re.compile(r"(?i)text/.*|application/(.*\+)?(json|xml)|application/x-www-form-urlencoded")


class Forbidden(OSError):
    """All addresses of the host require `internal: true`."""


class StaleConnection(OSError):
    """A reused connection was closed before any response: the destination had closed it as idle."""


def answered(answer: urllib3.BaseHTTPResponse, text: bytes) -> DeliveryResponse:
    """Return the result of a POST that was answered; *text* is the start of the body."""
    status, headers = answer.status, answer.headers
    outcome = outcome_of(status)
    if outcome is AttemptOutcome.DELIVERED:
        return DeliveryResponse(status, outcome)
    phrase = http.client.responses.get(status, "")
    kept = {name: headers[name][:MAX_EVIDENCE_HEADER_CHARACTERS] for name in EVIDENCE_HEADERS if name in headers}
    is_text = _TEXT_TYPE.match(headers.get("Content-Type", "")) and "Content-Encoding" not in headers
    evidence = AttemptEvidence(
        f"responded with {status} {phrase}".rstrip(),
        kept,
        text[:MAX_EVIDENCE_TEXT_BYTES].decode(errors="replace") if is_text and text else None,
    )
    return DeliveryResponse(status, outcome, headers.get("Retry-After"), evidence)


def unanswered(ex: BaseException) -> DeliveryResponse:
    """Return the result of a POST that was not answered, with the reason in words."""
    outcome, causes = AttemptOutcome.CONNECTION, _causes(ex)
    for cause in causes:
        if isinstance(cause, StaleConnection):
            reason = "the destination had closed the idle connection; sent again at once"
            return DeliveryResponse(NO_ANSWER, AttemptOutcome.STALE, evidence=AttemptEvidence(reason))
        if isinstance(cause, Forbidden):
            return DeliveryResponse(NO_ANSWER, AttemptOutcome.FORBIDDEN, evidence=AttemptEvidence(str(cause)))
        if isinstance(cause, urllib3.exceptions.SSLError | ssl.SSLError):
            outcome = AttemptOutcome.TLS
    return DeliveryResponse(NO_ANSWER, outcome, evidence=AttemptEvidence(_reason(causes, outcome)))


def _reason(causes: Sequence[BaseException], outcome: AttemptOutcome) -> str:
    """Return in words why there was no response, from the most specific of the exceptions."""
    certificate = next((each for each in causes if isinstance(each, ssl.SSLCertVerificationError)), None)
    if certificate is not None:
        return f"TLS: certificate verify failed: {certificate.verify_message}"
    system = next((each for each in causes if isinstance(each, OSError) and each.strerror), None)
    if isinstance(system, socket.gaierror):
        return f"DNS: {system.strerror}"
    if outcome is AttemptOutcome.TLS:
        return f"TLS: {getattr(system, 'reason', None) or (system.strerror if system else 'handshake failed')}"
    if system is not None:
        return f"connection failed: {system.strerror}"
    if any(isinstance(each, http.client.RemoteDisconnected) for each in causes):
        return "connection closed without a response"
    return f"no valid HTTP response: {causes[-1] if causes else 'unknown'}"[:MAX_EVIDENCE_HEADER_CHARACTERS]


def _causes(ex: BaseException | None) -> list[BaseException]:
    causes: list[BaseException] = []
    while ex is not None and ex not in causes:
        causes.append(ex)
        reason = getattr(ex, "reason", None)
        ex = ex.__cause__ or ex.__context__ or (reason if isinstance(reason, BaseException) else None)
    return causes
