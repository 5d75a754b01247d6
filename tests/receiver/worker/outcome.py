"""The result of parsing bytes that arrive in pieces."""

from typing import Any

from service.receiver.worker.http_parser import Parser
from service.receiver.worker.request import Request

Outcome = tuple[list[Any], str | None]


def outcome(pieces: list[bytes]) -> Outcome:
    """Feed a parser as a connection does; return the requests, and the status of the rejection or None."""
    parser = Parser({}, lambda _request: None)
    requests: list[Request] = []
    for piece in pieces:
        parser.feed(piece)
        while parser.requests:
            requests += parser.requests
            parser.requests.clear()
            parser.go_on()
        if parser.refused or any(request.is_last and request.is_complete for request in requests):
            break
    last = next((number for number, request in enumerate(requests) if request.is_last), len(requests))
    refused = parser.refused if last == len(requests) or not requests[last].is_complete else None
    return [_summary(request) for request in requests[: last + 1]], refused and refused.status


def _summary(request: Request) -> tuple[Any, ...]:
    environ = {name: value for name, value in request.environ.items() if name != "wsgi.input"}
    return environ, b"".join(request._pieces), request.is_complete, request.is_last
