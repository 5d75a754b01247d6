"""Explains the Graph API's errors: what went wrong, whose side it is on, what to do.

Source of the codes: "Graph API > Handling errors" and "Error codes" of the WhatsApp Business Platform. Meta's own
message is added if the code alone does not say enough; secrets were removed from it before.
"""

import json
import shlex
import ssl
from collections.abc import Iterable, Mapping
from typing import Any, Final

import urllib3

from service.errors import GraphRefused
from service.meta.graph import error_catalog, handshake_errors
from service.meta.graph.error_catalog import CALLBACK, METAS_SIDE, YOURS, ErrorCase

MAX_CODE_DIGITS: Final = 10
MAX_MESSAGE_CHARACTERS: Final = 300  # of Meta's message, in ours
_USAGE: Final = "x-business-use-case-usage"

TEMPORARY: Final = (1, 2)
RATE_LIMIT_CODES: Final = (4, 17, 32, 341, 613, 80007, 80008, 130429)
TOKEN: Final = (102, 190)
PARAMETER: Final = 100
UNKNOWN_ALIAS: Final = 803


def of_error(error: Mapping[str, Any], headers: Mapping[str, str], callback_url: str = "") -> GraphRefused:
    """Explain *error*, the error object of a response; *callback_url* is the URL to be registered, if any."""
    code, subcode = _number(error.get("code")), _number(error.get("error_subcode"))
    message = str(error.get("error_user_msg") or error.get("message") or "")[:MAX_MESSAGE_CHARACTERS]
    if code == handshake_errors.HANDSHAKE_ERROR_CODE:
        cause = handshake_errors.failure(str(error.get("message", "")))
        found = ErrorCase(f"Meta's handshake with the callback URL failed: {cause.what}", cause.remedy, CALLBACK)
    elif code in RATE_LIMIT_CODES:
        found = ErrorCase(f"the rate limit is reached: {message}", f"Try again in {_minutes(headers)}.")
    elif code in TOKEN:
        found = _of_token(subcode, message)
    elif code in (PARAMETER, UNKNOWN_ALIAS):
        found = _of_parameter(message if code == PARAMETER else "does not exist")
    elif code in (3, 10) or 200 <= code < 300:  # noqa: PLR2004  Meta's numbers
        found = ErrorCase(f"the access token lacks a permission: {message}", error_catalog.PERMISSION)
    elif code in error_catalog.OTHERS:
        found = error_catalog.OTHERS[code]
    elif code in TEMPORARY or error.get("is_transient") is True:
        found = error_catalog.TRY_AGAIN
    else:
        found = ErrorCase(f"Meta refused the request: {message} (code {code})", error_catalog.CODES, METAS_SIDE)
    remedy = found.remedy.replace(handshake_errors.URL, shlex.quote(callback_url) if callback_url else "URL")
    return GraphRefused(found.what, side=found.side, remedy=remedy, code=code, again=found is error_catalog.TRY_AGAIN)


def _of_token(subcode: int, message: str) -> ErrorCase:
    if subcode in error_catalog.SUBCODES:
        return ErrorCase(error_catalog.SUBCODES[subcode], error_catalog.GENERATE_NEW)
    return _case(message, error_catalog.OF_TOKEN) or ErrorCase(
        f"the access token was rejected: {message}", error_catalog.GENERATE_NEW
    )


def _of_parameter(message: str) -> ErrorCase:
    found = _case(message, error_catalog.OF_PARAMETER)
    if found is None:
        return ErrorCase(f"Meta rejected a parameter: {message}", "Check the ids, the URL and the fields.")
    return found._replace(what=f"{found.what}: {message}") if found.part == "fields[" else found


def _case(message: str, table: Iterable[ErrorCase]) -> ErrorCase | None:
    lower = message.lower()
    return next((case for case in table if case.part in lower), None)


def of_other_response(status: int, base: str) -> GraphRefused:
    """Explain a response that is not the Graph API's."""
    return GraphRefused(
        f"{base} answered {status}, but not with a response of the Graph API",
        side=METAS_SIDE if status >= 500 else YOURS,  # noqa: PLR2004  a server's fault
        remedy="Check WEBHOOK_GRAPH_URL, and whether a proxy on the way out answers instead.",
        again=status >= 500,  # noqa: PLR2004
    )


def of_transport(ex: urllib3.exceptions.HTTPError | TimeoutError, base: str) -> GraphRefused:
    """Explain why there was no response."""
    reason: BaseException = getattr(ex, "reason", None) or ex
    if isinstance(ex, urllib3.exceptions.SSLError) or isinstance(reason, ssl.SSLError):
        return GraphRefused(
            f"the certificate of {base} is not trusted here: {reason}",
            side=YOURS,
            remedy="If a proxy on the way out intercepts TLS, name its authority in SSL_CERT_FILE.",
        )
    if isinstance(ex, urllib3.exceptions.NameResolutionError):
        return GraphRefused(
            f"the host name in {base} could not be resolved", side=YOURS, remedy="Check this machine's DNS.", again=True
        )
    if isinstance(ex, urllib3.exceptions.ProxyError):
        return GraphRefused(
            f"{base} could not be reached through the proxy of HTTPS_PROXY",
            side=YOURS,
            remedy=(
                "Check that the proxy is running, whether it requires a user, and that it may connect there. "
                "NO_PROXY lists the hosts to reach without it."
            ),
            again=True,
        )
    is_refused = isinstance(ex, urllib3.exceptions.NewConnectionError)
    is_timeout = isinstance(ex, urllib3.exceptions.TimeoutError | TimeoutError) and not is_refused
    what = "did not respond in time" if is_timeout else "could not be reached"
    return GraphRefused(
        f"{base} {what}",
        side=YOURS,
        remedy="Check that this machine may connect to port 443 there; in a cluster, a network policy may forbid it.",
        again=True,
    )


def _minutes(headers: Mapping[str, str]) -> str:
    """Return when Meta accepts calls again: one of its headers has the number of minutes."""
    try:
        usage = json.loads(headers.get(_USAGE, ""))
        uses = [use for each in usage.values() for use in each]
        waits = [use.get("estimated_time_to_regain_access") for use in uses]
    except (ValueError, TypeError, AttributeError, RecursionError):
        waits = []
    minutes = max((wait for wait in waits if isinstance(wait, int)), default=0)
    return f"{minutes} minutes" if minutes > 0 else "an hour"


def _number(value: object) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < MAX_CODE_DIGITS:
        return int(value)
    return value if isinstance(value, int) else 0
