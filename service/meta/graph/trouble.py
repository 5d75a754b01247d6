"""The Graph API's errors in words: what went wrong, whose side it is on, what to do.

Source of the codes: "Graph API > Handling errors" and "Error codes" of the WhatsApp Business Platform. What Meta's own
message adds is told where the code alone says too little; it never holds a secret.
"""

import json
import ssl
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import urllib3

from service.errors import GraphRefused
from service.meta.graph import callback

YOURS: Final = "yours"
META: Final = "Meta's"
CALLBACK: Final = "the callback URL's"
LONGEST: Final = 300  # characters of Meta's message that are said again
_USAGE: Final = "x-business-use-case-usage"

TEMPORARY: Final = (1, 2)
TOO_MANY: Final = (4, 17, 32, 341, 613, 80007, 80008, 130429)
TOKEN: Final = (102, 190)
PARAMETER: Final = 100
ALIAS: Final = 803  # that does not exist
_SUBCODES: Final = {
    458: "the person whose access token it is has removed the app",
    459: "Meta asks the person whose access token it is to log in and confirm something",
    460: "the password of the person whose access token it is has changed",
    463: "the access token has expired",
    464: "the person whose access token it is has not confirmed their account",
    467: "the access token is not valid any more",
}
_MAKE_ANOTHER: Final = (
    "Make a new one: business.facebook.com > Settings > System users > Generate token, with the permissions "
    "whatsapp_business_management and whatsapp_business_messaging, and put it into the file access-token."
)
_COPY_AGAIN: Final = (
    "Copy the app secret again, of this very app: App dashboard > App settings > Basic > App secret > Show. "
    "It is line 1 of the file app-secret that counts here."
)


class _Case(NamedTuple):
    """A part of Meta's message, in lower case, which tells what a code alone does not."""

    part: str
    what: str
    remedy: str
    side: str = YOURS


_OF_TOKEN: Final = (
    _Case("signature", "the app secret is not this app's", _COPY_AGAIN),
    _Case("client secret", "the app secret is not this app's", _COPY_AGAIN),
    _Case(
        "cannot get application info", "there is no app with this id", "Look at the id: App dashboard > App settings."
    ),
    _Case("application has been deleted", "the app was deleted", "Name another app in WEBHOOK_APP_ID."),
    _Case("malformed", "this is no access token", f"Something is missing of it, or too much. {_MAKE_ANOTHER}"),
    _Case("cannot parse", "this is no access token", f"Something is missing of it, or too much. {_MAKE_ANOTHER}"),
)
_OF_PARAMETER: Final = (
    _Case(
        "appsecret_proof",
        "the app secret is not that of the access token's app",
        f"{_COPY_AGAIN} The access token must be one that was made for this app.",
    ),
    _Case(
        "before override",
        "Meta overrides the callback URL only of an account that the app is subscribed to",
        "Subscribe the account first: name it in WEBHOOK_ACCOUNTS or with --account.",
    ),
    _Case("app access token", "Meta wants the app's own token for this", _COPY_AGAIN),
    _Case(
        "does not exist",
        "there is nothing with this id, or the access token may not see it",
        "Look at the id. In Meta's business settings, give the system user full control of the account: "
        "Accounts > WhatsApp accounts > Add people.",
    ),
    _Case(
        "not reachable",
        "Meta could not reach the callback URL",
        "`whatsapp-webhook doctor --url URL` says why.",
        CALLBACK,
    ),
    _Case(
        "callback uri", "Meta does not take this as a callback URL", "It wants https, a public name and no fragment."
    ),
    _Case(
        "field",
        "Meta does not know one of the fields, or does not offer it to this app",
        "Leave it out with --fields: App dashboard > WhatsApp > Configuration lists those that this app can have.",
    ),
)
_PERMISSION: Final = (
    "Its permissions want whatsapp_business_management, and its system user full control of this account: "
    "business.facebook.com > Settings > System users > Assign assets."
)


def of_answer(error: Mapping[str, Any], headers: Mapping[str, str]) -> GraphRefused:
    """Say what an error of Meta's means: *error* is what its answer holds under that name."""
    code, subcode = _number(error.get("code")), _number(error.get("error_subcode"))
    told = str(error.get("error_user_msg") or error.get("message") or "")[:LONGEST]
    if code == callback.CODE:
        what, remedy = callback.why(str(error.get("message", "")))
        found = _Case("", f"Meta's handshake with the callback URL failed: {what}", remedy, CALLBACK)
    elif code in TOO_MANY:
        found = _Case("", f"too many calls for now: {told}", f"Try again in {_minutes(headers)}.")
    elif code in TOKEN:
        found = _of_token(subcode, told)
    elif code in (PARAMETER, ALIAS):
        found = _of_parameter(told if code == PARAMETER else "does not exist")
    elif code in (3, 10) or 200 <= code < 300:  # noqa: PLR2004  Meta's numbers
        found = _Case("", f"the access token may not do this: {told}", _PERMISSION)
    elif code in _OTHERS:
        found = _OTHERS[code]
    elif code in TEMPORARY or error.get("is_transient") is True:
        found = _TEMPORARY
    else:
        found = _Case("", f"Meta refused it: {told} (code {code})", _CODES, META)
    return GraphRefused(found.what, side=found.side, remedy=found.remedy, code=code, again=found is _TEMPORARY)


_CODES: Final = "Meta's documentation has its codes under Graph API > Handling errors."
_TEMPORARY: Final = _Case(
    "",
    "Meta can't do it just now",
    "Try again in some minutes; metastatus.com says whether it is known.",
    META,
)
_OTHERS: Final = {
    101: _Case("", "there is no app with this id", "Look at WEBHOOK_APP_ID: App dashboard > App settings > Basic."),
    104: _Case("", "no access token came with the request", _MAKE_ANOTHER),
    368: _Case(
        "",
        "Meta has blocked this for a breach of its policies",
        "The business's Account Quality page says which.",
        META,
    ),
    2500: _Case(
        "",
        "the Graph API does not know this path",
        "Look at WEBHOOK_GRAPH_VERSION, and at the ids: each is digits alone.",
    ),
    2635: _Case(
        "",
        "this version of the Graph API is over",
        "Set WEBHOOK_GRAPH_VERSION to one that Meta's changelog lists.",
    ),
}


def _of_token(subcode: int, told: str) -> _Case:
    if subcode in _SUBCODES:
        return _Case("", _SUBCODES[subcode], _MAKE_ANOTHER)
    return _case(told, _OF_TOKEN) or _Case("", f"the access token is not taken: {told}", _MAKE_ANOTHER)


def _of_parameter(told: str) -> _Case:
    found = _case(told, _OF_PARAMETER)
    if found is None:
        return _Case("", f"Meta does not take what it was asked: {told}", "Look at ids, URL and fields.")
    return found._replace(what=f"{found.what}: {told}") if found.part == "field" else found


def _case(told: str, cases: Iterable[_Case]) -> _Case | None:
    lower = told.lower()
    return next((case for case in cases if case.part in lower), None)


def of_stranger(status: int, base: str) -> GraphRefused:
    """Say what an answer means that is none of the Graph API's."""
    return GraphRefused(
        f"{base} answered {status}, and not as the Graph API does",
        side=META if status >= 500 else YOURS,  # noqa: PLR2004  a server's fault
        remedy="Look at WEBHOOK_GRAPH_URL, and whether a proxy on the way out answers instead.",
        again=status >= 500,  # noqa: PLR2004
    )


def of_transport(ex: urllib3.exceptions.HTTPError, base: str) -> GraphRefused:
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
    is_late = isinstance(ex, urllib3.exceptions.TimeoutError) and not isinstance(
        ex, urllib3.exceptions.NewConnectionError
    )
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
        found = max(int(each["estimated_time_to_regain_access"]) for uses in usage.values() for each in uses)
    except (ValueError, TypeError, KeyError, AttributeError):
        found = 0
    return f"{found} minutes" if found else "an hour"


def _number(value: object) -> int:
    return value if isinstance(value, int) else int(value) if isinstance(value, str) and value.isdigit() else 0
