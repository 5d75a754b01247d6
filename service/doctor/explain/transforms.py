"""Common changes to a body on its way, and how to undo each of them. Pure."""

import base64
import binascii
import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

GZIP_OR_ZLIB: Final = 47  # zlib's wbits for "detect the header: gzip or zlib"
MAX_TEXT_BYTES: Final = 4_194_304  # larger bodies are not parsed; Meta sends less
MAX_DECOMPRESSED_BYTES: Final = 16_777_216
_NON_ASCII: Final = re.compile("[^\x00-\x7f]+")
# A slash, or an escape sequence, which may contain one.
_SLASH: Final = re.compile(r"\\.|/", re.DOTALL)
_ESCAPED: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.", re.DOTALL
)
# Characters that Meta escapes in some payloads, besides slashes and non-ASCII.
_MORE_ESCAPES: Final = ("", "@", "'", "<>&'", "@<>&'%")
# What remains of a body that something else has read before.
_LEFTOVERS: Final = (b"", b"{}", b"null", b"undefined", b"[object Object]", b'""')


class Change(NamedTuple):
    """A change on the way, and the bytes as they were before it."""

    name: str
    body: bytes


def undone(body: bytes) -> Iterator[Change]:
    """Yield the body as it was before each common change, cheap ones first; some may be equal."""
    changes: tuple[tuple[str, Callable[[bytes], bytes | None]], ...] = (
        ("a line end was added at the end", lambda body: body.removesuffix(b"\n")),
        ("a line end was added at the end", lambda body: body.removesuffix(b"\r\n")),
        ("whitespace was added before or after it", bytes.strip),
        ("the line end at the end was removed", lambda body: body + b"\n"),
        ("the line end at the end was removed", lambda body: body + b"\r\n"),
        ("a byte order mark was added before it", lambda body: body.removeprefix(b"\xef\xbb\xbf")),
        ("line ends were changed to CR LF", lambda body: body.replace(b"\r\n", b"\n")),
        ("line ends were changed to LF", lambda body: re.sub(rb"(?<!\r)\n", b"\r\n", body)),
        ("it was compressed", _decompressed),
        ("it was percent-encoded, as forms are", lambda body: unquote_to_bytes(body.replace(b"+", b" "))),
        ("it was put into a form field", _in_form),
        ("it was encoded in base64", _base64),
        ("it was put into a JSON string, or into an API gateway's event", _wrapped),
        ("its text was decoded with the wrong encoding (UTF-8 as Latin-1)", _latin),
    )
    for name, undo in changes:
        before = undo(body)
        if before is not None and before != body:
            yield Change(name, before)
    if len(body) <= MAX_TEXT_BYTES:
        yield from _escapes(body)
        yield from _serialized_again(body)


def _escapes(body: bytes) -> Iterator[Change]:
    """Yield the body with characters escaped that were unescaped, and the other way round."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return
    for before in _escaped(text):
        if before != body:
            yield Change("escape sequences were replaced by their characters (\\u00e4 by \u00e4, \\/ by /)", before)
    unescaped = _ESCAPED.sub(lambda found: _unescaped(found[0]), body)
    if unescaped != body:
        yield Change("characters were replaced by escape sequences (\u00e4 by \\u00e4)", unescaped)


def _unescaped(escape: bytes) -> bytes:
    if len(escape) == 2:  # noqa: PLR2004  not \uXXXX, so \" or the like
        return escape
    character = json.loads(b'"' + escape + b'"')
    must_stay = character < " " or character in '"\\' or "\ud800" <= character < "\ue000"
    return escape if must_stay else str(character).encode()


def _escaped(text: str) -> Iterator[bytes]:
    """Yield *text* escaped in the ways in which Meta does it in its payloads."""
    plain = _NON_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text)
    slashed = _SLASH.sub(lambda found: "\\/" if found[0] == "/" else found[0], plain)
    for escaped, more in itertools.product((slashed, plain), _MORE_ESCAPES):
        for character in more:
            escaped = escaped.replace(character, f"\\u{ord(character):04x}")  # noqa: PLW2901  one character after the other
        yield escaped.encode()


def _serialized_again(body: bytes) -> Iterator[Change]:
    """Yield the parsed JSON as Meta serializes it, and as common libraries do."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return
    name = "its JSON was parsed and serialized again, with other whitespace or escapes"
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
    """Return the only name or value of a form: `payload={...}`, or `{...}=`."""
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


def irreversible(body: bytes) -> str | None:
    """Return a change that can't be undone but leaves traces; None if there are none."""
    if body.strip() in _LEFTOVERS:
        return "nothing of it is left, because something (a body parser, for example) has read it before"
    try:
        value: Any = json.loads(body)
    except RecursionError:
        return None
    except ValueError:
        return "it is no longer complete JSON: a part of it is missing" if body.lstrip().startswith(b"{") else None
    if isinstance(value, dict) and "object" in list(value)[1:]:  # Meta writes this key first
        return "its JSON was parsed and serialized again, with the keys in another order"
    return None


def _decompressed(body: bytes) -> bytes | None:
    try:
        return zlib.decompressobj(GZIP_OR_ZLIB).decompress(body, MAX_DECOMPRESSED_BYTES)
    except zlib.error:
        return None


def _latin(body: bytes) -> bytes | None:
    try:
        return body.decode().encode("latin-1")
    except UnicodeError:
        return None
