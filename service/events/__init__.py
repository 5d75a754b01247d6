"""Events: the updates of a notification, one event for each.

`parse` is pure and total. This package knows the format of Meta's payloads and of our events; it does no I/O.
"""

from service.events.cloudevents import (
    attributes_of,
    decode_event,
    encode_attributes,
    in_header,
    is_json,
    rfc3339,
    structured,
)
from service.events.event import UNRECOGNIZED, Event
from service.events.event_types import matches
from service.events.parse import parse

__all__ = [
    "UNRECOGNIZED",
    "Event",
    "attributes_of",
    "decode_event",
    "encode_attributes",
    "in_header",
    "is_json",
    "matches",
    "parse",
    "rfc3339",
    "structured",
]
