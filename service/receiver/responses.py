"""The table that maps exceptions to HTTP responses.

The texts are fixed, so that they reveal nothing about the reason, and `doctor` can recognize the service by them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import falcon

from service import errors

RETRY_AFTER: Final = "5"  # seconds


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """The response to a rejected request; *again* adds Retry-After."""

    status: str
    text: str
    again: bool = False


_UNAVAILABLE: Final = ErrorResponse(falcon.HTTP_503, "unavailable, try again\n", again=True)
ANSWERS: Final[Mapping[type[errors.WebhookError], ErrorResponse]] = {
    errors.HandshakeRefused: ErrorResponse(falcon.HTTP_404, "verification refused\n"),
    errors.TooLarge: ErrorResponse(falcon.HTTP_413, "body too large\n"),
    errors.Encoded: ErrorResponse(falcon.HTTP_415, "content encoding not supported\n"),
    errors.NotConfigured: _UNAVAILABLE,
    errors.BadSignature: ErrorResponse(falcon.HTTP_401, "signature refused\n"),
    errors.Overloaded: _UNAVAILABLE,
    errors.ReadTimeout: ErrorResponse(falcon.HTTP_408, "request not complete in time\n"),
    errors.Aborted: ErrorResponse(falcon.HTTP_400, "request not complete\n"),
    errors.InboxUnavailable: _UNAVAILABLE,
}
FAILED: Final = ErrorResponse(falcon.HTTP_500, "internal error\n", again=True)
