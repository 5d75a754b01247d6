"""Why a signature was refused: which of the usual mistakes makes this body and this header agree. Pure.

Meta signs the bytes that it sends, under the app secret. So one of three is wrong: the secret, the bytes that arrived,
or who sent it. Each usual mistake is undone in turn, until the signature is right.
"""

import base64
import binascii
import hmac
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from service import signature
from service.doctor.explain import transforms
from service.errors import BadSignature


class Key(NamedTuple):
    """What may have been signed with: what it is called, and its value, which is never told."""

    name: str
    value: bytes

    def __repr__(self) -> str:
        return f"Key(name={self.name!r})"


class Kind(NamedTuple):
    """The keys that are tried, in this order: those in force, then those that are mistakes."""

    in_force: Sequence[Key]
    tokens: Sequence[Key] = ()
    candidates: Sequence[Key] = ()


class Explanation(NamedTuple):
    """What it was, and what to do; *is_good* where the signature is right as it is."""

    what: str
    remedy: str
    is_good: bool = False
    is_found: bool = True


def explain(body: bytes, header: str | None, keys: Kind) -> Explanation:
    """Say why *header* (of X-Hub-Signature-256) is not that of *body* under the keys in force, or that it is."""
    try:
        claimed = signature.digest_in(header)
    except BadSignature:
        return _of_header(body, header, keys)
    if _matches(body, claimed, keys.in_force):
        return Explanation(
            "The signature is right: this body is signed with a secret that is in force here.",
            "If the service refused it, its secrets are others, or it got other bytes: `whatsapp-webhook doctor`.",
            is_good=True,
        )
    if found := _of_key(body, claimed, keys):
        return found
    everything = [*keys.in_force, *keys.tokens, *keys.candidates, *(key for key, _ in _odd_keys(keys.in_force))]
    for change in transforms.undone(body):
        if key := _matches(change.body, claimed, everything):
            also = "" if key in keys.in_force else f" Signed with {key.name}, though: that is a second mistake."
            return Explanation(
                f"The body was changed on the way, or by what saved it: {change.name}.{also}",
                "Have whatever stands before the service pass the bytes on as they came; check the signature before "
                "anything reads the body.",
            )
    if left := transforms.what_is_left(body):
        return Explanation(
            f"The body was changed on the way, or by what saved it: {left}.",
            "Take the bytes as they come, before anything reads them, and catch the request there.",
        )
    return Explanation(
        "None of the usual mistakes explains it: another app's secret, most likely, or somebody who is not Meta.",
        "Copy the secret again: App dashboard > App settings > Basic. Name other apps' secrets, each in a file, with "
        "--candidate; one of them may be it.",
        is_found=False,
    )


def _of_header(body: bytes, header: str | None, keys: Kind) -> Explanation:
    again = f"Have whatever stands before the service pass the header {signature.HEADER} on as it is."
    if header is None:
        return Explanation(
            f"There is no header {signature.HEADER}: what stands before drops it, or it is not Meta's.", again
        )
    text = header.strip()
    if "," in text:
        return Explanation("The header came twice: something before the service adds one of its own.", again)
    if text.lower().startswith("sha1=") or re.fullmatch(r"[0-9a-fA-F]{40}", text):
        return Explanation(
            "This is the older SHA-1 signature, of the header X-Hub-Signature, which is never looked at.",
            f"Meta sends {signature.HEADER} beside it. {again}",
        )
    for form, name in ((f"sha256={text}", "without `sha256=` before it"), (_hex_of_base64(text), "in base64")):
        try:
            if form and _matches(body, signature.digest_in(form), keys.in_force):
                what = f"The signature is right, but written {name}: the sender is not Meta."
                return Explanation(what, "Write it as sha256=<hex>.")
        except BadSignature:
            continue
    return Explanation("The header is not of the form sha256= and 64 hexadecimal digits.", again)


def _of_key(body: bytes, claimed: bytes, keys: Kind) -> Explanation | None:
    if key := _matches(body, claimed, keys.candidates):
        return Explanation(
            f"It is signed with {key.name}: that app's secret, and not one in force here.",
            "If that app is to be received, put its secret into app-secret, first if it is the only one; else see "
            "which app the callback URL is registered with.",
        )
    if key := _matches(body, claimed, keys.tokens):
        return Explanation(
            f"It is signed with {key.name}, which is no key: the sender is not Meta.",
            "Whoever sends this must sign with the app secret.",
        )
    for key, name in _odd_keys(keys.in_force):
        if _matches(body, claimed, [key]):
            return Explanation(
                f"The secret of {key.name} is the right one, but {name}.", "Write it as Meta shows it, and alone."
            )
    return None


def _matches(body: bytes, claimed: bytes, keys: Iterable[Key]) -> Key | None:
    return next((key for key in keys if hmac.compare_digest(hmac.digest(key.value, body, "sha256"), claimed)), None)


def _odd_keys(keys: Sequence[Key]) -> Iterator[tuple[Key, str]]:
    """Give what each key may have been meant as, and what is wrong with it as it is."""
    for key in keys:
        value = key.value
        meant: list[tuple[bytes, str]] = [
            (value.strip(b"'\""), "in quotes"),
            (value.lower(), "in capitals"),
            (re.sub(rb"\s", b"", value), "with blanks in it"),
            (value.rpartition(b"=")[2], "with a name before it"),
            (value.rpartition(b":")[2].strip(), "with a name before it"),
            ((_decoded(value) or b"").strip(), "in base64"),
            (value + b"\n", "without the line's end that it was signed with: the sender is not Meta"),
        ]
        for other, name in meant:
            if other and other != value:
                yield Key(key.name, other), name


def _decoded(value: bytes) -> bytes | None:
    try:
        return base64.b64decode(value, validate=True) or None
    except (binascii.Error, ValueError):
        return None


def _hex_of_base64(text: str) -> str:
    found = _decoded(text.removeprefix("sha256=").encode("ascii", "replace"))
    return f"sha256={found.hex()}" if found else ""
