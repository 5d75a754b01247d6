"""Events as CloudEvents 1.0 (https://github.com/cloudevents/spec, "JSON Event Format")."""

import base64
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

import msgspec

from service.events.event import UNRECOGNIZED, Event

# What stands in a header as it is: printable ASCII without blank, quote and percent.
_PLAIN: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
_IS_PLAIN: Final = re.compile(f"[{re.escape(_PLAIN)}]*")


def rfc3339(milliseconds: int) -> str:
    """Write milliseconds since the epoch as an RFC 3339 time in UTC."""
    text = datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z").replace(".000Z", "Z")


def is_json(event: Event) -> bool:
    """Say whether the data is JSON: all is, but for some bodies that were not recognized."""
    if event.type != UNRECOGNIZED:
        return True
    try:
        msgspec.json.decode(event.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def attributes_of(event: Event) -> dict[str, str]:
    """Give the attributes whose values are text, those that *event* has."""
    values = {
        "specversion": "1.0",
        "id": event.id,
        "type": event.type,
        "source": event.source,
        "subject": event.subject,
        "time": rfc3339(event.time),
        "partitionkey": event.partitionkey,
        "traceparent": event.traceparent,
    }
    return {name: value for name, value in values.items() if value is not None}


def told(event: Event) -> dict[str, str]:
    """Give everything but the data as text: the attributes, and as extensions what `heard` needs besides."""
    more = {"field": event.field, "received": rfc3339(event.received_at), "test": "true" if event.test else ""}
    return attributes_of(event) | {name: value for name, value in more.items() if value}


def heard(told: Mapping[str, str], data: bytes) -> Event:
    """Read back what `told` gave; what it does not say is empty, and `own_time`, which only tells repeats, is 0."""
    return Event(
        id=told.get("id", ""),
        type=told.get("type", ""),
        source=told.get("source", ""),
        subject=told.get("subject"),
        partitionkey=told.get("partitionkey", ""),
        time=_milliseconds(told.get("time")),
        own_time=0,
        received_at=_milliseconds(told.get("received")),
        field=told.get("field", ""),
        test=told.get("test") == "true",
        traceparent=told.get("traceparent"),
        data=data,
    )


def _milliseconds(text: str | None) -> int:
    try:
        return round(datetime.fromisoformat(text or "").timestamp() * 1000)
    except ValueError:
        return 0


def in_header(value: str) -> str:
    """Write an attribute as it may stand in a header ("HTTP Protocol Binding", section 3.1.3.2)."""
    return value if _IS_PLAIN.fullmatch(value) else quote(value, safe=_PLAIN)


def structured(event: Event) -> bytes:
    """Write *event* as one structured CloudEvents object, without a line break.

    Data that is JSON stands in `data` byte for byte but for white space between tokens; any other stands in
    `data_base64`.
    """
    told: dict[str, object] = {**attributes_of(event)}
    if event.test:
        told["test"] = True
    try:
        compact = msgspec.json.format(event.data, indent=-1)
        msgspec.json.decode(compact)  # format alone lets through what is not UTF-8
        told["datacontenttype"] = "application/json"
        told["data"] = msgspec.Raw(compact)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        told["datacontenttype"] = "application/octet-stream"
        told["data_base64"] = base64.b64encode(event.data).decode("ascii")
    return msgspec.json.encode(told)
