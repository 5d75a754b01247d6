"""Events: what a notification says, one update each.

`parse` is pure and total. What belongs here: the shape of Meta's payloads and of our events; nothing that does I/O.
"""

from service.events.cloudevents import attributes_of, heard, in_header, is_json, rfc3339, structured, told
from service.events.event import UNRECOGNIZED, Event
from service.events.parse import parse

__all__ = [
    "UNRECOGNIZED",
    "Event",
    "attributes_of",
    "heard",
    "in_header",
    "is_json",
    "parse",
    "rfc3339",
    "structured",
    "told",
]
