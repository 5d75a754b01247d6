"""A JSON document read twice: as values, and as the bytes in which each value was written.

The values say what an update is; the bytes are what is kept, so that nothing is re-written on the way.
"""

import json
import re
from functools import lru_cache
from typing import Any, Final

import msgspec

Raws = dict[str, msgspec.Raw]


class NotADocument(ValueError):
    """The bytes are not one JSON document of which every value is unambiguous."""


def _as_written(number: str) -> msgspec.Raw:
    return msgspec.Raw(number.encode())


_ESCAPES: Final = re.compile(rb"\\(u[0-9a-fA-F]{4}|.)")
_decode = msgspec.json.Decoder(float_hook=_as_written).decode
canonical = msgspec.json.Encoder(order="sorted").encode
_decode_object = msgspec.json.Decoder(Raws).decode
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


def values(document: bytes) -> Any:
    """Read *document* into plain values, but for numbers, which stay as written where that could differ.

    Raises NotADocument where it is not JSON in UTF-8, is nested beyond reason, or repeats a key in one object
    (the readers of the world disagree on which of the two counts).
    """
    try:
        found = _decode(document)
        # Reading and writing again only ever shortens: escapes, white space, a repeated key's first value, -0. Where
        # escapes alone explain the length, nothing was hidden; that is the common case, as Meta writes.
        shorter = len(document) - len(canonical(found))
        if not shorter or shorter == _shortened(document):
            return found
        return json.loads(
            document,
            object_pairs_hook=_without_repeats,
            parse_int=_as_written,
            parse_float=_as_written,
        )
    except (ValueError, RecursionError) as ex:
        raise NotADocument from ex


def _shortened(document: bytes) -> int:
    """Say how many bytes shorter *document* gets when only its escapes are written anew."""
    return sum(map(_saved, _ESCAPES.findall(document)))


@lru_cache(maxsize=4096)
def _saved(escape: bytes) -> int:
    """Say how many bytes shorter what follows a backslash gets, the backslash included."""
    if escape == b"/":
        return 1
    if len(escape) == 1:
        return 0
    code = int(escape[1:], 16)
    if 0xD800 <= code <= 0xDFFF:  # one half of a pair, which is four bytes of UTF-8  # noqa: PLR2004
        return 4
    return 6 - len(canonical(chr(code))) + 2


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotADocument
    return found


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
    """Give the entries of a notification, each as it was written."""
    return _decode_envelope(notification).entry


def changes(entry: msgspec.Raw) -> list[msgspec.Raw]:
    """Give the changes of an entry, each as it was written."""
    return _decode_entry(entry).changes


def value_of(change: msgspec.Raw) -> msgspec.Raw:
    """Give the value of a change as it was written."""
    return _decode_change(change).value


def members(raw: bytes | msgspec.Raw) -> Raws:
    """Split an object into its members, each as it was written."""
    return _decode_object(raw)


def items(raw: msgspec.Raw) -> list[msgspec.Raw]:
    """Split an array into its items, each as it was written."""
    return _decode_array(raw)


def text(value: object) -> str:
    """Write a scalar as text: a string as it is, a number as written, anything else empty."""
    if isinstance(value, str):
        return value
    if isinstance(value, msgspec.Raw):
        return bytes(value).decode()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""
