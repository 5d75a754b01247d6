"""What is done to bytes on their way, and undoing it: each usual mistake, one at a time. Pure."""

import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

GZIP: Final = 47  # zlib's word for "gzip or zlib, whichever it is"
LARGEST: Final = 4_194_304  # bytes in which text is looked at: more than Meta sends
MOST: Final = 16_777_216  # bytes of what is decompressed
_NON_ASCII: Final = re.compile("[^\x00-\x7f]")
_ESCAPED: Final = re.compile(rb"\\u([0-9a-fA-F]{4})")
# What Meta escapes besides non-ASCII: slashes always; in some payloads these too.
_MORE_ESCAPES: Final = ("", "@", "<>&'", "@<>&'%")


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
        ("its text was read in the wrong encoding (UTF-8 as Latin-1)", _latin),
    )
    for name, undo in ways:
        before = undo(body)
        if before is not None and before != body:
            yield Change(name, before)
    if len(body) <= LARGEST:
        yield from _escapes(body)
        yield from _written_anew(body)


def _escapes(body: bytes) -> Iterator[Change]:
    """Escape text again that was unescaped without touching anything else, and the other way round."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return
    for slashes, more in itertools.product((True, False), _MORE_ESCAPES):
        before = _escape(text, slashes=slashes, more=more)
        if before != body:
            yield Change("escaped characters in it were written out (\\u00e4 as \u00e4, \\/ as /)", before)
    try:
        bare = _ESCAPED.sub(lambda found: _unescaped(found[1]), body)
    except ValueError:
        return
    if bare != body:
        yield Change("characters in it were escaped (\u00e4 as \\u00e4)", bare)


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
            for slashes, more in itertools.product((True, False), _MORE_ESCAPES):
                yield Change(name, _escape(text, slashes=slashes, more=more))
    for indent in (2, 4):
        yield Change(name, json.dumps(value, indent=indent).encode())


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
