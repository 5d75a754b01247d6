"""Parse a JSON document twice: into values, and into the raw bytes of each value.

The values determine the event's attributes. The raw bytes are stored, so that no value is changed by re-encoding it.

msgspec does both, unless a document has what only some parsers accept: half of a surrogate pair as an escape (legal by
RFC 8259 section 8.2), NaN, or a key twice in one object. Then the standard library does it, more slowly.
"""

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

import msgspec

Raws = dict[str, msgspec.Raw]


class NotADocument(ValueError):
    """The bytes are not one JSON document whose values are all unambiguous."""


def _raw_number(number: str) -> msgspec.Raw:
    return msgspec.Raw(number.encode())


_ESCAPES: Final = re.compile(rb"\\(u[0-9a-fA-F]{4}|.)")
_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_STRING_OR_BLANKS: Final = re.compile(rb"(" + _STRING.pattern + rb")|[ \t\n\r]+", re.DOTALL)
_BLANKS: Final = re.compile(r"[ \t\n\r]*")
_decode = msgspec.json.Decoder(float_hook=_raw_number).decode
_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode
_decode_object = msgspec.json.Decoder(Raws).decode
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Ambiguous(dict[str, Any]):
    """An object with a key that occurs twice: parsers disagree on which value counts."""


def values(document: bytes) -> tuple[Any, int]:
    """Parse *document* into plain values, and count its `Ambiguous` objects.

    A number stays raw if two spellings of it could have the same value. Raises NotADocument if it is not JSON in UTF-8,
    or is nested too deeply.
    """
    try:
        try:
            parsed = _decode(document)
        except msgspec.DecodeError:
            return _values_of_odd(document)
        # Re-encoding only removes bytes: of escapes, white space, the first value of a duplicate key, -0. If escapes
        # alone explain the difference, there are no duplicate keys. That is the common case, as Meta sends it.
        removed = len(document) - len(_encode_sorted(parsed))
        is_plain = not removed or removed == _removed_by_escapes(document)
        return (parsed, 0) if is_plain else _values_of_odd(document)
    except (ValueError, RecursionError) as ex:
        raise NotADocument from ex


def _values_of_odd(document: bytes) -> tuple[Any, int]:
    ambiguous = 0

    def members_of(pairs: list[tuple[str, object]]) -> dict[str, object]:
        nonlocal ambiguous
        members = dict(pairs)
        if len(members) == len(pairs):
            return members
        ambiguous += 1
        return Ambiguous(members)

    parsed = json.loads(
        document.decode(),
        object_pairs_hook=members_of,
        parse_int=_raw_number,
        parse_float=_raw_number,
        parse_constant=_raw_number,
    )
    return parsed, ambiguous


def is_json(data: bytes) -> bool:
    """Return whether *data* is one JSON document in UTF-8, by its grammar (RFC 8259)."""
    try:
        try:
            _decode(data)
        except msgspec.DecodeError:
            json.loads(data.decode(), parse_constant=_reject)
    except (ValueError, RecursionError):
        return False
    return True


def compact(data: bytes) -> bytes:
    """Return JSON without white space between its tokens."""
    try:
        return msgspec.json.format(data, indent=-1)
    except msgspec.DecodeError:
        return _STRING_OR_BLANKS.sub(lambda found: found[1] or b"", data)


def _reject(constant: str) -> None:
    raise ValueError(constant)


def count_ambiguous(value: Any) -> int:
    """Return how many objects in *value* are `Ambiguous`."""
    if isinstance(value, dict):
        return isinstance(value, Ambiguous) + sum(map(count_ambiguous, value.values()))
    return sum(map(count_ambiguous, value)) if isinstance(value, list) else 0


def has_more_values(document: bytes, limit: int) -> bool:
    """Return whether *document* has more than about *limit* values and keys. Each of them takes two bytes at least."""
    return (
        len(document) > limit
        and _count_separators(document) > limit
        and _count_separators(_STRING.sub(b"", document)) > limit
    )


def _count_separators(document: bytes) -> int:
    return sum(map(document.count, (b",", b":", b"[", b"{")))


def encode(value: Any) -> bytes:
    """Encode a value, raw parts unchanged; half of a surrogate pair becomes an escape."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return _encode_any(value, ensure_ascii=True)


def canonical(value: Any) -> bytes:
    """Encode a value so that equal values give equal bytes: keys sorted, numbers as written."""
    try:
        return _encode_sorted(value)
    except UnicodeEncodeError:
        return _encode_any(value, ensure_ascii=False)


def _encode_any(value: Any, *, ensure_ascii: bool) -> bytes:
    if isinstance(value, dict):
        pairs = (
            _encode_any(key, ensure_ascii=ensure_ascii) + b":" + _encode_any(each, ensure_ascii=ensure_ascii)
            for key, each in (value.items() if ensure_ascii else sorted(value.items()))
        )
        return b"{" + b",".join(pairs) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(_encode_any(each, ensure_ascii=ensure_ascii) for each in value) + b"]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=ensure_ascii).encode("utf-8", "surrogatepass")
    return _encode(value)


def _removed_by_escapes(document: bytes) -> int:
    """Return by how many bytes re-encoding shortens the escapes of *document*."""
    return sum(map(_removed_by_escape, _ESCAPES.findall(document)))


@lru_cache(maxsize=4096)
def _removed_by_escape(escape: bytes) -> int:
    """Return by how many bytes re-encoding shortens a backslash with *escape* after it."""
    if escape == b"/":
        return 1
    if len(escape) == 1:
        return 0
    code = int(escape[1:], 16)
    if 0xD800 <= code <= 0xDFFF:  # one of a surrogate pair, which together is four bytes of UTF-8  # noqa: PLR2004
        return 4
    return 6 - len(_encode(chr(code))) + 2


class _Entry(msgspec.Struct):
    changes: list[msgspec.Raw] = []


class _Envelope(msgspec.Struct):
    entry: list[msgspec.Raw]


class _Change(msgspec.Struct):
    value: msgspec.Raw


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_entry = msgspec.json.Decoder(_Entry).decode
_decode_change = msgspec.json.Decoder(_Change).decode


def entries(notification: bytes) -> list[msgspec.Raw]:
    """Return the raw entries of a notification."""
    try:
        return _decode_envelope(notification).entry
    except msgspec.DecodeError:
        return items(members(notification)["entry"])


def changes(entry: msgspec.Raw) -> list[msgspec.Raw]:
    """Return the raw changes of an entry."""
    try:
        return _decode_entry(entry).changes
    except msgspec.DecodeError:
        return items(members(entry)["changes"])


def value_of(change: msgspec.Raw) -> msgspec.Raw:
    """Return the raw value of a change."""
    try:
        return _decode_change(change).value
    except msgspec.DecodeError:
        return members(change)["value"]


def members(raw: bytes | msgspec.Raw) -> Raws:
    """Return the raw members of an object."""
    try:
        return _decode_object(raw)
    except msgspec.DecodeError:
        return {key: value for key, value in _scan(bytes(raw).decode()) if key is not None}


def items(raw: msgspec.Raw) -> list[msgspec.Raw]:
    """Return the raw items of an array."""
    try:
        return _decode_array(raw)
    except msgspec.DecodeError:
        return [value for _, value in _scan(bytes(raw).decode())]


def _scan(text: str) -> Iterator[tuple[str | None, msgspec.Raw]]:
    """Yield the keys (None in an array) and raw values of a document that is known to be an object or an array."""
    decode = json.JSONDecoder().raw_decode
    start = _skip_blanks(text, 0)
    is_object, at = text[start] == "{", _skip_blanks(text, start + 1)
    while text[at] not in "}]":
        key = None
        if is_object:
            key, at = decode(text, at)
            at = _skip_blanks(text, _skip_blanks(text, at) + 1)
        _, end = decode(text, at)
        yield key, msgspec.Raw(text[at:end].encode())
        at = _skip_blanks(text, end)
        at = _skip_blanks(text, at + 1) if text[at] == "," else at


def _skip_blanks(text: str, at: int) -> int:
    found = _BLANKS.match(text, at)
    return found.end() if found else at


def text(value: object) -> str:
    """Return a scalar as text: a string unchanged, a number as it was written, anything else empty."""
    if isinstance(value, str):
        return value
    if isinstance(value, msgspec.Raw):
        return bytes(value).decode()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""
