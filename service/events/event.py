"""The type `Event`."""

import msgspec

UNRECOGNIZED = "com.whatsapp.unrecognized"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One update of a notification.

    `time` and `received_at` are milliseconds since the epoch. `time` is Meta's timestamp, or `received_at` if there is
    none. `own_time` is the timestamp within the update, 0 if it has none: unlike `time`, it is equal for equal ids.
    `data` is a valid notification with exactly this update, whose own JSON is byte for byte as received; for an
    unrecognized body it is the whole body. `field` is Meta's name of the webhook field, empty if there is none.
    `businessid` is the business portfolio, if an event is about the account of a partner's client.

    The other party has `userid` (its business-scoped user id) and `waid` (its number), each only if known, and
    `previous…` if its identity changed. `direction` is `inbound` if the other party wrote or called, `outbound` if the
    business did.
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
    businessid: str | None = None
    userid: str | None = None
    waid: str | None = None
    parentuserid: str | None = None
    previoususerid: str | None = None
    previouswaid: str | None = None
    previousparentuserid: str | None = None
    groupid: str | None = None
    direction: str | None = None
    data: bytes
