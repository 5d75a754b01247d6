"""A JSON document read twice: as values, and as the bytes in which each value was written.

The values say what an update is; the bytes are what is kept, so that nothing is re-written on the way.
"""

import json
from typing import Any

import msgspec

Raws = dict[str, msgspec.Raw]


class NotADocument(ValueError):
    """The bytes are not one JSON document of which every value is unambiguous."""


def _as_written(number: str) -> msgspec.Raw:
    return msgspec.Raw(number.encode())


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
        # Reading and writing again only ever shortens: white space, escapes, a repeated key's first value, -0.
        # The same length therefore proves that nothing was hidden; that is the common case, as Meta writes.
        if len(canonical(found)) == len(document):
            return found
        return json.loads(
            document,
            object_pairs_hook=_without_repeats,
            parse_int=_as_written,
            parse_float=_as_written,
        )
    except (ValueError, RecursionError) as ex:
        raise NotADocument from ex


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
