"""The event itself."""

import msgspec

UNRECOGNIZED = "com.whatsapp.unrecognized"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One update of a notification.

    `time` and `received_at` are milliseconds since the epoch; `time` is Meta's timestamp, or `received_at` where
    there is none. `own_time` is the timestamp within the update, 0 where it has none: unlike `time`, it is the same
    whenever the id is. `data` is a valid notification with exactly this update, its own JSON byte for byte as received;
    of an unrecognized body it is the body as it came, whatever that is. `field` is Meta's name of the webhook
    field, empty where there is none.
    """

    id: str
    type: str
    source: str
    subject: str | None
    partitionkey: str
    time: int
    own_time: int
    received_at: int
    field: str
    test: bool
    traceparent: str | None
    data: bytes
