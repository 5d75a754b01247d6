"""Why a signature was refused: which of the usual mistakes makes this body and this header agree. Pure.

Meta signs the bytes that it sends, under the app secret. So one of three is wrong: the secret, the bytes that arrived,
or who sent it. Each usual mistake is undone in turn, until the signature is right.
"""

import base64
import binascii
import hmac
import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from service import signature
from service.errors import BadSignature

GZIP: Final = 47  # zlib's word for "gzip or zlib, whichever it is"
MOST: Final = 16_777_216  # bytes of what is decompressed
_NON_ASCII: Final = re.compile("[^\x00-\x7f]")
_ESCAPED: Final = re.compile(rb"\\u([0-9a-fA-F]{4})")
# What Meta escapes besides non-ASCII: slashes always; in some payloads these too.
_MORE_ESCAPES: Final = ("", "@", "<>&'", "@<>&'%")


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


class Verdict(NamedTuple):
    """What it was, and what to do; *is_good* where the signature is right as it is."""

    what: str
    remedy: str
    is_good: bool = False
    is_found: bool = True


class _Change(NamedTuple):
    """A mistake, undone: what was done to the bytes on the way, and the bytes as they were."""

    name: str
    body: bytes


def explain(body: bytes, header: str | None, keys: Kind) -> Verdict:
    """Say why *header* (of X-Hub-Signature-256) is not that of *body* under the keys in force, or that it is."""
    try:
        claimed = signature.digest_in(header)
    except BadSignature:
        return _of_header(body, header, keys)
    if _matches(body, claimed, keys.in_force):
        return Verdict(
            "The signature is right: this body is signed with a secret that is in force here.",
            "If the service refused it, its secrets are others, or it got other bytes: `whatsapp-webhook doctor`.",
            is_good=True,
        )
    if found := _of_key(body, claimed, keys):
        return found
    everything = [*keys.in_force, *keys.tokens, *keys.candidates, *(key for key, _ in _odd_keys(keys.in_force))]
    for change in _changes(body):
        if key := _matches(change.body, claimed, everything):
            also = "" if key in keys.in_force else f" Signed with {key.name}, though: that is a second mistake."
            return Verdict(
                f"The body was changed on the way: {change.name}.{also}",
                "Have whatever stands before the service pass the bytes on as they came; check the signature before "
                "anything reads the body.",
            )
    return Verdict(
        "None of the usual mistakes explains it: another app's secret, most likely, or somebody who is not Meta.",
        "Copy the secret again: App dashboard > App settings > Basic. Name other apps' secrets, each in a file, with "
        "--candidate; one of them may be it.",
        is_found=False,
    )


def _of_header(body: bytes, header: str | None, keys: Kind) -> Verdict:
    again = f"Have whatever stands before the service pass the header {signature.HEADER} on as it is."
    if header is None:
        return Verdict(
            f"There is no header {signature.HEADER}: what stands before drops it, or it is not Meta's.", again
        )
    text = header.strip()
    if "," in text:
        return Verdict("The header came twice: something before the service adds one of its own.", again)
    if text.lower().startswith("sha1=") or re.fullmatch(r"[0-9a-fA-F]{40}", text):
        return Verdict(
            "This is the older SHA-1 signature, of the header X-Hub-Signature, which is never looked at.",
            f"Meta sends {signature.HEADER} beside it. {again}",
        )
    for form, name in ((f"sha256={text}", "without `sha256=` before it"), (_hex_of_base64(text), "in base64")):
        try:
            if form and _matches(body, signature.digest_in(form), keys.in_force):
                what = f"The signature is right, but written {name}: the sender is not Meta."
                return Verdict(what, "Write it as sha256=<hex>.")
        except BadSignature:
            continue
    return Verdict("The header is not of the form sha256= and 64 hexadecimal digits.", again)


def _of_key(body: bytes, claimed: bytes, keys: Kind) -> Verdict | None:
    if key := _matches(body, claimed, keys.candidates):
        return Verdict(
            f"It is signed with {key.name}: that app's secret, and not one in force here.",
            "If that app is to be received, put its secret into app-secret, first if it is the only one; else see "
            "which app the callback URL is registered with.",
        )
    if key := _matches(body, claimed, keys.tokens):
        return Verdict(
            f"It is signed with {key.name}, which is no key: the sender is not Meta.",
            "Whoever sends this must sign with the app secret.",
        )
    for key, name in _odd_keys(keys.in_force):
        if _matches(body, claimed, [key]):
            return Verdict(
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


def _changes(body: bytes) -> Iterator[_Change]:
    """Give the bytes as they were before each of the usual mistakes, those that cost least first; some may be alike."""
    ways: tuple[tuple[str, Callable[[bytes], bytes | None]], ...] = (
        ("a line's end was added at the end", lambda it: it.removesuffix(b"\n")),
        ("a line's end was added at the end", lambda it: it.removesuffix(b"\r\n")),
        ("blanks were added at the ends", bytes.strip),
        ("the line's end at the end was cut off", lambda it: it + b"\n"),
        ("the line's end at the end was cut off", lambda it: it + b"\r\n"),
        ("a byte order mark was put before it", lambda it: it.removeprefix(b"\xef\xbb\xbf")),
        ("line ends were made CR LF", lambda it: it.replace(b"\r\n", b"\n")),
        ("line ends were made LF", lambda it: re.sub(rb"(?<!\r)\n", b"\r\n", it)),
        ("it was compressed", _decompressed),
        ("it was percent-encoded, as a form is", lambda it: unquote_to_bytes(it.replace(b"+", b" "))),
        ("its text was read in the wrong encoding (UTF-8 as Latin-1)", _latin),
    )
    for name, undo in ways:
        before = undo(body)
        if before is not None and before != body:
            yield _Change(name, before)
    yield from _escapes(body)
    yield from _written_anew(body)


def _escapes(body: bytes) -> Iterator[_Change]:
    """Escape text again that was unescaped without touching anything else, and the other way round."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return
    for slashes, more in itertools.product((True, False), _MORE_ESCAPES):
        before = _escape(text, slashes=slashes, more=more)
        if before != body:
            yield _Change("escaped characters in it were written out (\\u00e4 as \u00e4, \\/ as /)", before)
    try:
        bare = _ESCAPED.sub(lambda found: _unescaped(found[1]), body)
    except ValueError:
        return
    if bare != body:
        yield _Change("characters in it were escaped (\u00e4 as \\u00e4)", bare)


def _unescaped(digits: bytes) -> bytes:
    number = int(digits, 16)
    if number < 32 or chr(number) in '"\\' or 0xD800 <= number < 0xE000:  # noqa: PLR2004  must stay escaped
        raise ValueError
    return chr(number).encode()


def _escape(text: str, *, slashes: bool, more: str) -> bytes:
    escaped = _NON_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text)
    if slashes:
        escaped = re.sub(r"(?<!\\)/", r"\\/", escaped)
    for character in more:
        escaped = escaped.replace(character, f"\\u{ord(character):04x}")
    return escaped.encode()


def _written_anew(body: bytes) -> Iterator[_Change]:
    """Write JSON that was parsed and written anew as Meta does, and in the ways in which libraries do."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return
    name = "its JSON was read and written anew, with other blanks or escapes"
    for separators, is_ascii in itertools.product(((",", ":"), (", ", ": ")), (True, False)):
        text = json.dumps(value, separators=separators, ensure_ascii=is_ascii)
        yield _Change(name, text.encode("utf-8", "surrogatepass"))
        if is_ascii:
            for slashes, more in itertools.product((True, False), _MORE_ESCAPES):
                yield _Change(name, _escape(text, slashes=slashes, more=more))
    for indent in (2, 4):
        yield _Change(name, json.dumps(value, indent=indent).encode())


def _decompressed(body: bytes) -> bytes | None:
    try:
        return zlib.decompressobj(GZIP).decompress(body, MOST)
    except zlib.error:
        return None


def _latin(body: bytes) -> bytes | None:
    try:
        return body.decode().encode("latin-1")
    except UnicodeError:
        return None


def _decoded(value: bytes) -> bytes | None:
    try:
        return base64.b64decode(value, validate=True) or None
    except (binascii.Error, ValueError):
        return None


def _hex_of_base64(text: str) -> str:
    found = _decoded(text.removeprefix("sha256=").encode("ascii", "replace"))
    return f"sha256={found.hex()}" if found else ""
