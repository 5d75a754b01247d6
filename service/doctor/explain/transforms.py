"""What is done to bytes on their way, and undoing it: each usual mistake, one at a time. Pure."""

import base64
import binascii
import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

GZIP: Final = 47  # zlib's word for "gzip or zlib, whichever it is"
MAX_TEXT_BYTES: Final = 4_194_304  # bytes in which text is looked at: more than Meta sends
MAX_DECOMPRESSED_BYTES: Final = 16_777_216  # bytes of what is decompressed
_NON_ASCII: Final = re.compile("[^\x00-\x7f]+")
# A slash alone, or a pair of which it may be the second half.
_SLASH: Final = re.compile(r"\\.|/", re.DOTALL)
_ESCAPED: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.", re.DOTALL
)
# What Meta escapes besides non-ASCII: slashes always; in some payloads these too.
_MORE_ESCAPES: Final = ("", "@", "'", "<>&'", "@<>&'%")
# What is left of a body that something else has read already.
_LEFTOVERS: Final = (b"", b"{}", b"null", b"undefined", b"[object Object]", b'""')


class Change(NamedTuple):
    """A mistake, undone: what was done to the bytes on the way, and the bytes as they were."""

    name: str
    body: bytes


def undone(body: bytes) -> Iterator[Change]:
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
        ("it was put into a form", _in_form),
        ("it was written in base64", _base64),
        ("it was put into a string of JSON, or into a gateway's event", _wrapped),
        ("its text was read in the wrong encoding (UTF-8 as Latin-1)", _latin),
    )
    for name, undo in ways:
        before = undo(body)
        if before is not None and before != body:
            yield Change(name, before)
    if len(body) <= MAX_TEXT_BYTES:
        yield from _escapes(body)
        yield from _written_anew(body)


def _escapes(body: bytes) -> Iterator[Change]:
    """Escape text again that was unescaped without touching anything else, and the other way round."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return
    for before in _escaped(text):
        if before != body:
            yield Change("escaped characters in it were written out (\\u00e4 as \u00e4, \\/ as /)", before)
    bare = _ESCAPED.sub(lambda found: _unescaped(found[0]), body)
    if bare != body:
        yield Change("characters in it were escaped (\u00e4 as \\u00e4)", bare)


def _unescaped(escape: bytes) -> bytes:
    if len(escape) == 2:  # noqa: PLR2004  another one, or none
        return escape
    character = json.loads(b'"' + escape + b'"')
    must_stay = character < " " or character in '"\\' or "\ud800" <= character < "\ue000"
    return escape if must_stay else str(character).encode()


def _escaped(text: str) -> Iterator[bytes]:
    """Escape non-ASCII, and slashes or not, and in some of Meta's payloads more."""
    plain = _NON_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text)
    slashed = _SLASH.sub(lambda found: "\\/" if found[0] == "/" else found[0], plain)
    for escaped, more in itertools.product((slashed, plain), _MORE_ESCAPES):
        for character in more:
            escaped = escaped.replace(character, f"\\u{ord(character):04x}")  # noqa: PLW2901  one after the other
        yield escaped.encode()


def _written_anew(body: bytes) -> Iterator[Change]:
    """Write JSON that was parsed and written anew as Meta does, and in the ways in which libraries do."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return
    name = "its JSON was read and written anew, with other blanks or escapes"
    for separators, is_ascii in itertools.product(((",", ":"), (", ", ": ")), (True, False)):
        text = json.dumps(value, separators=separators, ensure_ascii=is_ascii)
        yield Change(name, text.encode("utf-8", "surrogatepass"))
        if is_ascii:
            yield from (Change(name, before) for before in _escaped(text))
    for indent in (2, 4):
        yield Change(name, json.dumps(value, indent=indent).encode())


def _base64(body: bytes) -> bytes | None:
    try:
        return base64.b64decode(body.strip(), validate=True)
    except binascii.Error:
        return None


def _in_form(body: bytes) -> bytes | None:
    """Take the only name or value of a form: `payload={...}`, or `{...}=`."""
    name, equals, value = body.partition(b"=")
    if not equals or (b"{" in name and value):
        return None
    return unquote_to_bytes((value or name).replace(b"+", b" "))


def _wrapped(body: bytes) -> bytes | None:
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    inner = value.get("body") if isinstance(value, dict) else value
    if not isinstance(inner, str):
        return None
    encoded = inner.encode("utf-8", "surrogatepass")
    return _base64(encoded) if isinstance(value, dict) and value.get("isBase64Encoded") is True else encoded


def what_is_left(body: bytes) -> str | None:
    """Say what can't be undone, but be seen on what is left; None for nothing."""
    if body.strip() in _LEFTOVERS:
        return "nothing of it is left, since something before read it already (a body parser, say)"
    try:
        value: Any = json.loads(body)
    except RecursionError:
        return None
    except ValueError:
        return "it is not whole JSON any more, so a part of it is missing" if body.lstrip().startswith(b"{") else None
    if isinstance(value, dict) and "object" in list(value)[1:]:  # which Meta writes first
        return "its JSON was read and written anew, with the keys in another order"
    return None


def _decompressed(body: bytes) -> bytes | None:
    try:
        return zlib.decompressobj(GZIP).decompress(body, MAX_DECOMPRESSED_BYTES)
    except zlib.error:
        return None


def _latin(body: bytes) -> bytes | None:
    try:
        return body.decode().encode("latin-1")
    except UnicodeError:
        return None
