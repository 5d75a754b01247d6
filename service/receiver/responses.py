"""What each error is answered: the one table from exceptions to HTTP responses.

The texts are fixed, so that they say nothing about the reason, and `doctor` tells them from everybody else's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import falcon

from service import errors

RETRY_AFTER: Final = "5"  # seconds, as the header says it


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """What a refused request gets; the text is fixed, so that it says nothing about the reason."""

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
