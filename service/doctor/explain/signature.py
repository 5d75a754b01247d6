"""Why a signature was refused: which common mistake makes this body and this header match. Pure.

Meta signs the bytes that it sends with the app secret. So one of three things is wrong: the secret, the bytes that
arrived, or the sender. Each common mistake is undone in turn, until the signature matches.
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


class SigningKey(NamedTuple):
    """A value that may have been the key of a signature, and a name for it; the value is never shown."""

    name: str
    value: bytes

    def __repr__(self) -> str:
        return f"SigningKey(name={self.name!r})"


class SigningKeys(NamedTuple):
    """The keys to try, in this order: the accepted app secrets, then those that would be a mistake."""

    accepted: Sequence[SigningKey]
    tokens: Sequence[SigningKey] = ()
    candidates: Sequence[SigningKey] = ()


class Explanation(NamedTuple):
    """The cause and the remedy; *is_good* if the signature is right, *is_found* unless there is no explanation."""

    what: str
    remedy: str
    is_good: bool = False
    is_found: bool = True


def explain(body: bytes, header: str | None, keys: SigningKeys) -> Explanation:
    """Explain why *header* (of X-Hub-Signature-256) does not match *body* under the accepted keys, if it does not."""
    try:
        claimed = signature.digest_in(header)
    except BadSignature:
        return _of_header(body, header, keys)
    if _matching(body, claimed, keys.accepted):
        return Explanation(
            "The signature is right: this body is signed with an app secret that is accepted here.",
            "If the service refused it, the service has other secrets or received other bytes: run `whatsapp-webhook "
            "doctor`.",
            is_good=True,
        )
    if found := _of_key(body, claimed, keys):
        return found
    all_keys = [*keys.accepted, *keys.tokens, *keys.candidates, *(key for key, _ in _corrected(keys.accepted))]
    for change in transforms.undone(body):
        if key := _matching(change.body, claimed, all_keys):
            also = "" if key in keys.accepted else f" There is a second mistake: it is signed with {key.name}."
            return Explanation(
                f"The body was changed on the way, or when it was captured: {change.name}.{also}",
                "Configure whatever is in front of the service to pass the bytes on unchanged; check the signature "
                "before anything parses the body.",
            )
    if remains := transforms.irreversible(body):
        return Explanation(
            f"The body was changed on the way, or when it was captured: {remains}.",
            "Capture the request where its bytes arrive, before anything parses them.",
        )
    return Explanation(
        "None of the common mistakes explains it: most likely another app's secret, or a sender that is not Meta.",
        "Copy the secret again: App dashboard > App settings > Basic. If another app's secret may be the key, put it "
        "into a file and name it with --candidate.",
        is_found=False,
    )


def _of_header(body: bytes, header: str | None, keys: SigningKeys) -> Explanation:
    pass_on = f"Configure whatever is in front of the service to pass the {signature.HEADER} header on unchanged."
    if header is None:
        return Explanation(
            f"There is no {signature.HEADER} header: something in front of the service drops it, or the sender is not "
            "Meta.",
            pass_on,
        )
    text = header.strip()
    if "," in text:
        return Explanation("The header is there twice: something in front of the service adds its own.", pass_on)
    if text.lower().startswith("sha1=") or re.fullmatch(r"[0-9a-fA-F]{40}", text):
        return Explanation(
            "This is the older SHA-1 signature, of the header X-Hub-Signature, which the service does not check.",
            f"Meta sends {signature.HEADER} beside it. {pass_on}",
        )
    for form, name in ((f"sha256={text}", "without `sha256=` before it"), (_hex_of_base64(text), "in base64")):
        try:
            if form and _matching(body, signature.digest_in(form), keys.accepted):
                what = f"The signature is right, but written {name}: the sender is not Meta."
                return Explanation(what, "Write it as sha256=<hex>.")
        except BadSignature:
            continue
    return Explanation("The header is not `sha256=` and 64 hexadecimal digits.", pass_on)


def _of_key(body: bytes, claimed: bytes, keys: SigningKeys) -> Explanation | None:
    if key := _matching(body, claimed, keys.candidates):
        return Explanation(
            f"It is signed with {key.name}: the secret of that app, which is not accepted here.",
            "To receive that app's notifications, add its secret to app-secret, as line 1 if it is the only app. "
            "Otherwise check which app the callback URL is registered with.",
        )
    if key := _matching(body, claimed, keys.tokens):
        return Explanation(
            f"It is signed with {key.name}, which is not a signing key: the sender is not Meta.",
            "The sender must sign with the app secret.",
        )
    for key, mistake in _corrected(keys.accepted):
        if _matching(body, claimed, [key]):
            return Explanation(
                f"The secret in {key.name} is the right one, but {mistake}.",
                "Write it exactly as Meta shows it, without anything else.",
            )
    return None


def _matching(body: bytes, claimed: bytes, keys: Iterable[SigningKey]) -> SigningKey | None:
    return next((key for key in keys if hmac.compare_digest(hmac.digest(key.value, body, "sha256"), claimed)), None)


def _corrected(keys: Sequence[SigningKey]) -> Iterator[tuple[SigningKey, str]]:
    """Yield each key as it may have been meant, and the mistake in how it is written."""
    for key in keys:
        value = key.value
        corrections: list[tuple[bytes, str]] = [
            (value.strip(b"'\""), "in quotes"),
            (value.lower(), "in capital letters"),
            (re.sub(rb"\s", b"", value), "with spaces in it"),
            (value.rpartition(b"=")[2], "with a name before it"),
            (value.rpartition(b":")[2].strip(), "with a name before it"),
            ((_decoded(value) or b"").strip(), "in base64"),
            (value + b"\n", "the sender signed with a line end after it: the sender is not Meta"),
        ]
        for corrected, mistake in corrections:
            if corrected and corrected != value:
                yield SigningKey(key.name, corrected), mistake


def _decoded(value: bytes) -> bytes | None:
    try:
        return base64.b64decode(value, validate=True) or None
    except (binascii.Error, ValueError):
        return None


def _hex_of_base64(text: str) -> str:
    digest = _decoded(text.removeprefix("sha256=").encode("ascii", "replace"))
    return f"sha256={digest.hex()}" if digest else ""
