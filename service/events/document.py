"""Parse a JSON document twice: into values, and into the raw bytes of each value.

The values determine the event's attributes. The raw bytes are stored, so that no value is changed by re-encoding it.
"""

import json
import re
from functools import lru_cache
from typing import Any, Final

import msgspec

Raws = dict[str, msgspec.Raw]


class NotADocument(ValueError):
    """The bytes are not one JSON document whose values are all unambiguous."""


def _raw_number(number: str) -> msgspec.Raw:
    return msgspec.Raw(number.encode())


_ESCAPES: Final = re.compile(rb"\\(u[0-9a-fA-F]{4}|.)")
_decode = msgspec.json.Decoder(float_hook=_raw_number).decode
canonical = msgspec.json.Encoder(order="sorted").encode
_decode_object = msgspec.json.Decoder(Raws).decode
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


def values(document: bytes) -> Any:
    """Parse *document* into plain values; a number stays raw if two spellings of it could have the same value.

    Raises NotADocument if it is not JSON in UTF-8, is nested too deeply, or has a duplicate key in an object (JSON
    parsers disagree on which value counts).
    """
    try:
        parsed = _decode(document)
        # Re-encoding only removes bytes: of escapes, white space, the first value of a duplicate key, -0. If escapes
        # alone explain the difference, there are no duplicate keys. That is the common case, as Meta sends it.
        removed = len(document) - len(canonical(parsed))
        if not removed or removed == _removed_by_escapes(document):
            return parsed
        return json.loads(
            document,
            object_pairs_hook=_require_unique_keys,
            parse_int=_raw_number,
            parse_float=_raw_number,
        )
    except (ValueError, RecursionError) as ex:
        raise NotADocument from ex


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
    return 6 - len(canonical(chr(code))) + 2


def _require_unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise NotADocument
    return members


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
    return _decode_envelope(notification).entry


def changes(entry: msgspec.Raw) -> list[msgspec.Raw]:
    """Return the raw changes of an entry."""
    return _decode_entry(entry).changes


def value_of(change: msgspec.Raw) -> msgspec.Raw:
    """Return the raw value of a change."""
    return _decode_change(change).value


def members(raw: bytes | msgspec.Raw) -> Raws:
    """Return the raw members of an object."""
    return _decode_object(raw)


def items(raw: msgspec.Raw) -> list[msgspec.Raw]:
    """Return the raw items of an array."""
    return _decode_array(raw)


def text(value: object) -> str:
    """Return a scalar as text: a string unchanged, a number as it was written, anything else empty."""
    if isinstance(value, str):
        return value
    if isinstance(value, msgspec.Raw):
        return bytes(value).decode()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""
