"""The values of the credentials: mistakes that are visible without asking anybody."""

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from typing import Final

from service.credentials import APP_SECRET, VERIFY_TOKEN, Credentials, is_placeholder, weak_verify_tokens
from service.doctor.finding import Finding
from service.outcomes import CheckId

_SECRET: Final = re.compile(rb"[0-9a-f]{32}")
_URL_SAFE: Final = re.compile(rb"[A-Za-z0-9_-]+")
_NAMED: Final = re.compile(
    rb"(export\s+)?(verify[-_ ]?token|app[-_ ]?secret|[A-Z_]*(TOKEN|SECRET))\s*[=:]\s*\S", re.IGNORECASE
)
_REMEDIES: Final = {
    VERIFY_TOKEN: "Generate a token with `openssl rand -hex 16`, and enter the same at Meta (`subscribe` does that).",
    APP_SECRET: (
        "Copy it from App dashboard > App settings > Basic > App secret > Show. It has 32 hexadecimal digits."
    ),
}


def check(credentials: Credentials, problems: Sequence[str], remedy: str) -> Iterator[Finding]:
    """Yield what is wrong with the files (*problems*, with their *remedy*) and with the first wrong value of each."""
    found = [Finding.wrong(CheckId.CREDENTIALS, f"{problem}.", remedy) for problem in problems]
    for name, values in ((VERIFY_TOKEN, credentials.verify_tokens), (APP_SECRET, credentials.app_secrets)):
        for position, value in enumerate(values, start=1):
            if mistake := _mistake(name, value):
                what = f"{name}, line {position}, {mistake}."
                found.append(Finding.wrong(CheckId.CREDENTIALS, what, _REMEDIES[name]))
                break
    if set(credentials.verify_tokens) & set(credentials.app_secrets):
        found.append(
            Finding.wrong(
                CheckId.CREDENTIALS, f"{VERIFY_TOKEN} and {APP_SECRET} contain the same value.", _REMEDIES[APP_SECRET]
            )
        )
    if found:
        yield from found
        return
    yield from _doubts(credentials)


def _doubts(credentials: Credentials) -> Iterator[Finding]:
    """Yield that the values are accepted, and what may still be wrong with them."""
    tokens, secrets = len(credentials.verify_tokens), len(credentials.app_secrets)
    yield Finding.ok(
        CheckId.CREDENTIALS, f"Found {_counted(tokens, 'verify token')} and {_counted(secrets, 'app secret')}."
    )
    for position, value in enumerate(credentials.app_secrets, start=1):
        if not _SECRET.fullmatch(value):
            what = f"{APP_SECRET}, line {position}, does not look like a Meta app secret."
            yield Finding.unknown(CheckId.CREDENTIALS, what, _REMEDIES[APP_SECRET])
    for weakness in weak_verify_tokens(credentials.verify_tokens):
        yield Finding.unknown(CheckId.CREDENTIALS, f"{weakness} It can be guessed.", _REMEDIES[VERIFY_TOKEN])
    for position, value in enumerate(credentials.verify_tokens, start=1):
        if not _URL_SAFE.fullmatch(value):
            what = f"{VERIFY_TOKEN}, line {position}, contains characters that Meta may encode differently in a URL."
            yield Finding.unknown(CheckId.CREDENTIALS, what, "Use letters, digits, - and _ only.")


def _mistake(name: str, value: bytes) -> str | None:
    of_any: list[tuple[object, str]] = [
        (is_placeholder(value), "is a placeholder from an example"),
        (value[:1] in b"'\"" or value[-1:] in b"'\"", "is in quotes, which count as part of the value"),
        (_NAMED.match(value), "starts with a name: the file must contain the value only"),
    ]
    of_secret: list[tuple[object, str]] = [
        (b" " in value or b"\t" in value, "contains a space or a tab"),
        (not value.isascii(), "contains non-ASCII characters, which may be invisible; an app secret has none"),
        (_is_encoded(value), "is a base64-encoded app secret: probably encoded twice in a Secret's `data`"),
    ]
    mistakes = of_any + (of_secret if name == APP_SECRET else [])
    return next((what for is_so, what in mistakes if is_so), None)


def _is_encoded(value: bytes) -> bool:
    try:
        return bool(_SECRET.fullmatch(base64.b64decode(value, validate=True).strip()))
    except (binascii.Error, ValueError):
        return False


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
