"""Encode events as CloudEvents 1.0 (https://github.com/cloudevents/spec, "JSON Event Format"), and decode them."""

import base64
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

import msgspec

from service.events import document
from service.events.event import UNRECOGNIZED, Event

# Characters that a header contains unencoded: printable ASCII without space, double quote and percent.
_UNENCODED: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
_IS_UNENCODED: Final = re.compile(f"[{re.escape(_UNENCODED)}]*")
# The attributes that an event has only if they are known.
_OPTIONAL: Final = (
    "subject",
    "traceparent",
    "businessid",
    "userid",
    "waid",
    "parentuserid",
    "previoususerid",
    "previouswaid",
    "previousparentuserid",
    "groupid",
    "direction",
)


def rfc3339(milliseconds: int) -> str:
    """Format milliseconds since the epoch as an RFC 3339 time in UTC."""
    text = datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z").replace(".000Z", "Z")


def is_json(event: Event) -> bool:
    """Return whether the data is JSON. Always true, except for some unrecognized bodies."""
    return event.type != UNRECOGNIZED or document.is_json(event.data)


def attributes_of(event: Event) -> dict[str, str]:
    """Return the attributes that *event* has, without those that are not text (`test`)."""
    values = {
        "specversion": "1.0",
        "id": event.id,
        "type": event.type,
        "source": event.source,
        "time": rfc3339(event.time),
        "partitionkey": event.partitionkey,
    }
    return values | {name: value for name in _OPTIONAL if (value := getattr(event, name)) is not None}


def encode_attributes(event: Event) -> dict[str, str]:
    """Return everything but the data as text: the attributes, and extensions for the rest that `decode_event` needs."""
    extensions = {"field": event.field, "received": rfc3339(event.received_at), "test": "true" if event.test else ""}
    return attributes_of(event) | {name: value for name, value in extensions.items() if value}


def decode_event(attributes: Mapping[str, str], data: bytes) -> Event:
    """Return the event of `encode_attributes`. Missing attributes are empty; `own_time` is not encoded, and is 0."""
    return Event(
        id=attributes.get("id", ""),
        type=attributes.get("type", ""),
        source=attributes.get("source", ""),
        partitionkey=attributes.get("partitionkey", ""),
        time=_milliseconds(attributes.get("time")),
        own_time=0,
        received_at=_milliseconds(attributes.get("received")),
        field=attributes.get("field", ""),
        test=attributes.get("test") == "true",
        data=data,
        **{name: attributes.get(name) for name in _OPTIONAL},
    )


def _milliseconds(text: str | None) -> int:
    try:
        return round(datetime.fromisoformat(text or "").timestamp() * 1000)
    except ValueError:
        return 0


def in_header(value: str) -> str:
    """Percent-encode an attribute for a header ("HTTP Protocol Binding", section 3.1.3.2)."""
    return value if _IS_UNENCODED.fullmatch(value) else quote(value, safe=_UNENCODED)


def structured(event: Event) -> bytes:
    """Encode *event* as one CloudEvents object in structured mode, without a line break.

    JSON data is in `data`, byte for byte except for white space between tokens; other data is in `data_base64`.
    """
    members: dict[str, object] = {**attributes_of(event)}
    if event.test:
        members["test"] = True
    if document.is_json(event.data):
        members["datacontenttype"] = "application/json"
        members["data"] = msgspec.Raw(document.compact(event.data))
    else:
        members["datacontenttype"] = "application/octet-stream"
        members["data_base64"] = base64.b64encode(event.data).decode("ascii")
    return msgspec.json.encode(members)
