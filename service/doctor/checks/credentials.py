"""The credentials' values: what can be seen on them alone to be wrong."""

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from typing import Final

from service.credentials import APP_SECRET, VERIFY_TOKEN, Credentials, is_placeholder, weak_verify_tokens
from service.doctor.finding import Finding
from service.outcomes import CheckId

_SECRET: Final = re.compile(rb"[0-9a-f]{32}")
_PLAIN: Final = re.compile(rb"[A-Za-z0-9_-]+")
_NAMED: Final = re.compile(
    rb"(export\s+)?(verify[-_ ]?token|app[-_ ]?secret|[A-Z_]*(TOKEN|SECRET))\s*[=:]\s*\S", re.IGNORECASE
)
_WHERE: Final = {
    VERIFY_TOKEN: "Make one of your own, `openssl rand -hex 16`, and enter the same at Meta (`subscribe` does).",
    APP_SECRET: "Copy it from App dashboard > App settings > Basic > App secret > Show: 32 digits from 0-9 and a-f.",
}


def look(credentials: Credentials, problems: Sequence[str], remedy: str) -> Iterator[Finding]:
    """Say what is wrong with the values, the first of each file; *problems* are the files' own, with their *remedy*."""
    found = [Finding.wrong(CheckId.CREDENTIALS, f"{problem}.", remedy) for problem in problems]
    for name, values in ((VERIFY_TOKEN, credentials.verify_tokens), (APP_SECRET, credentials.app_secrets)):
        for position, value in enumerate(values, start=1):
            if told := _oddity(name, value):
                what = f"{name}, line {position}, {told}."
                found.append(Finding.wrong(CheckId.CREDENTIALS, what, _WHERE[name]))
                break
    if set(credentials.verify_tokens) & set(credentials.app_secrets):
        found.append(
            Finding.wrong(
                CheckId.CREDENTIALS, f"{VERIFY_TOKEN} and {APP_SECRET} hold the same value.", _WHERE[APP_SECRET]
            )
        )
    if found:
        yield from found
        return
    yield from _doubts(credentials)


def _doubts(credentials: Credentials) -> Iterator[Finding]:
    """Yield that the values are accepted, and what may still be wrong with them."""
    tokens, secrets = len(credentials.verify_tokens), len(credentials.app_secrets)
    yield Finding.ok(CheckId.CREDENTIALS, f"{_counted(tokens, 'verify token')} and {_counted(secrets, 'app secret')}.")
    for position, value in enumerate(credentials.app_secrets, start=1):
        if not _SECRET.fullmatch(value):
            what = f"{APP_SECRET}, line {position}, is not of the form that Meta's app secrets have."
            yield Finding.unknown(CheckId.CREDENTIALS, what, _WHERE[APP_SECRET])
    for weakness in weak_verify_tokens(credentials.verify_tokens):
        yield Finding.unknown(CheckId.CREDENTIALS, f"{weakness} A stranger may guess it.", _WHERE[VERIFY_TOKEN])
    for position, value in enumerate(credentials.verify_tokens, start=1):
        if not _PLAIN.fullmatch(value):
            what = f"{VERIFY_TOKEN}, line {position}, has characters that Meta may write otherwise than it was told."
            yield Finding.unknown(CheckId.CREDENTIALS, what, "Use letters, digits, - and _ only.")


def _oddity(name: str, value: bytes) -> str | None:
    of_any: list[tuple[object, str]] = [
        (is_placeholder(value), "is an example's, and not a value of yours"),
        (value[:1] in b"'\"" or value[-1:] in b"'\"", "is in quotes, which count as part of it"),
        (_NAMED.match(value), "begins with a name: the file is to hold the value alone"),
    ]
    of_secret: list[tuple[object, str]] = [
        (b" " in value or b"\t" in value, "has a blank inside"),
        (not value.isascii(), "has characters that no app secret has; some of them may not be seen"),
        (_is_encoded(value), "is base64 of an app secret: in a Secret's `data` it was encoded twice"),
    ]
    told = of_any + (of_secret if name == APP_SECRET else [])
    return next((what for is_so, what in told if is_so), None)


def _is_encoded(value: bytes) -> bool:
    try:
        return bool(_SECRET.fullmatch(base64.b64decode(value, validate=True).strip()))
    except (binascii.Error, ValueError):
        return False


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
