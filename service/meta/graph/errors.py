"""The Graph API's errors in words: what went wrong, whose side it is on, what to do.

Source of the codes: "Graph API > Handling errors" and "Error codes" of the WhatsApp Business Platform. What Meta's own
message adds is told where the code alone says too little; it never holds a secret.
"""

import json
import shlex
import ssl
from collections.abc import Iterable, Mapping
from typing import Any, Final

import urllib3

from service.errors import GraphRefused
from service.meta.graph import error_catalog, handshake_errors
from service.meta.graph.error_catalog import CALLBACK, METAS_SIDE, YOURS, Case

MAX_CODE_DIGITS: Final = 10  # digits
MAX_MESSAGE_CHARACTERS: Final = 300  # characters of Meta's message that are said again
_USAGE: Final = "x-business-use-case-usage"

TEMPORARY: Final = (1, 2)
RATE_LIMIT_CODES: Final = (4, 17, 32, 341, 613, 80007, 80008, 130429)
TOKEN: Final = (102, 190)
PARAMETER: Final = 100
ALIAS: Final = 803  # that does not exist


def of_answer(error: Mapping[str, Any], headers: Mapping[str, str], callback_url: str = "") -> GraphRefused:
    """Say what an error of Meta's means: *error* is what its answer holds under that name.

    *callback_url* is what was to be registered, if anything.
    """
    code, subcode = _number(error.get("code")), _number(error.get("error_subcode"))
    told = str(error.get("error_user_msg") or error.get("message") or "")[:MAX_MESSAGE_CHARACTERS]
    if code == handshake_errors.HANDSHAKE_ERROR_CODE:
        why = handshake_errors.why(str(error.get("message", "")))
        found = Case(f"Meta's handshake with the callback URL failed: {why.what}", why.remedy, CALLBACK)
    elif code in RATE_LIMIT_CODES:
        found = Case(f"too many calls for now: {told}", f"Try again in {_minutes(headers)}.")
    elif code in TOKEN:
        found = _of_token(subcode, told)
    elif code in (PARAMETER, ALIAS):
        found = _of_parameter(told if code == PARAMETER else "does not exist")
    elif code in (3, 10) or 200 <= code < 300:  # noqa: PLR2004  Meta's numbers
        found = Case(f"the access token may not do this: {told}", error_catalog.PERMISSION)
    elif code in error_catalog.OTHERS:
        found = error_catalog.OTHERS[code]
    elif code in TEMPORARY or error.get("is_transient") is True:
        found = error_catalog.TRY_AGAIN
    else:
        found = Case(f"Meta refused it: {told} (code {code})", error_catalog.CODES, METAS_SIDE)
    remedy = found.remedy.replace(handshake_errors.URL, shlex.quote(callback_url) if callback_url else "URL")
    return GraphRefused(found.what, side=found.side, remedy=remedy, code=code, again=found is error_catalog.TRY_AGAIN)


def _of_token(subcode: int, told: str) -> Case:
    if subcode in error_catalog.SUBCODES:
        return Case(error_catalog.SUBCODES[subcode], error_catalog.MAKE_ANOTHER)
    return _case(told, error_catalog.OF_TOKEN) or Case(
        f"the access token is not taken: {told}", error_catalog.MAKE_ANOTHER
    )


def _of_parameter(told: str) -> Case:
    found = _case(told, error_catalog.OF_PARAMETER)
    if found is None:
        return Case(f"Meta does not take what it was asked: {told}", "Look at ids, URL and fields.")
    return found._replace(what=f"{found.what}: {told}") if found.part == "fields[" else found


def _case(told: str, table: Iterable[Case]) -> Case | None:
    lower = told.lower()
    return next((case for case in table if case.part in lower), None)


def of_stranger(status: int, base: str) -> GraphRefused:
    """Say what an answer means that is none of the Graph API's."""
    return GraphRefused(
        f"{base} answered {status}, and not as the Graph API does",
        side=METAS_SIDE if status >= 500 else YOURS,  # noqa: PLR2004  a server's fault
        remedy="Look at WEBHOOK_GRAPH_URL, and whether a proxy on the way out answers instead.",
        again=status >= 500,  # noqa: PLR2004
    )


def of_transport(ex: urllib3.exceptions.HTTPError | TimeoutError, base: str) -> GraphRefused:
    """Say what it means that no answer came."""
    reason: BaseException = getattr(ex, "reason", None) or ex
    if isinstance(ex, urllib3.exceptions.SSLError) or isinstance(reason, ssl.SSLError):
        return GraphRefused(
            f"{base} has a certificate that is not trusted here: {reason}",
            side=YOURS,
            remedy="Does a proxy on the way out open TLS? Name its authority in SSL_CERT_FILE.",
        )
    if isinstance(ex, urllib3.exceptions.NameResolutionError):
        return GraphRefused(
            f"the name in {base} is not found", side=YOURS, remedy="Look at this machine's DNS.", again=True
        )
    if isinstance(ex, urllib3.exceptions.ProxyError):
        return GraphRefused(
            f"{base} could not be reached by the proxy of HTTPS_PROXY",
            side=YOURS,
            remedy="Does it run, does it want a user, and may it connect there? NO_PROXY names what goes without.",
            again=True,
        )
    is_refused = isinstance(ex, urllib3.exceptions.NewConnectionError)
    is_late = isinstance(ex, urllib3.exceptions.TimeoutError | TimeoutError) and not is_refused
    what = "did not answer in time" if is_late else "could not be reached"
    return GraphRefused(
        f"{base} {what}",
        side=YOURS,
        remedy="May this machine connect to port 443 there? In a cluster, a network policy may say no.",
        again=True,
    )


def _minutes(headers: Mapping[str, str]) -> str:
    """Read when Meta takes calls again: a number of minutes in one of its headers."""
    try:
        usage = json.loads(headers.get(_USAGE, ""))
        uses = [use for each in usage.values() for use in each]
        waits = [use.get("estimated_time_to_regain_access") for use in uses]
    except (ValueError, TypeError, AttributeError, RecursionError):
        waits = []
    found = max((wait for wait in waits if isinstance(wait, int)), default=0)
    return f"{found} minutes" if found > 0 else "an hour"


def _number(value: object) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < MAX_CODE_DIGITS:
        return int(value)
    return value if isinstance(value, int) else 0
