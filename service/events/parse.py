"""From the body of a notification to its events."""

import hashlib
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

from service.events import attributes, document, split
from service.events.attributes import WHATSAPP, Origin
from service.events.document import NotADocument
from service.events.event import UNRECOGNIZED, Event

# A body whose events together would pass this is kept whole: what is shared by its updates is out of proportion.
MAX_PARSED_BYTES: Final = 33_554_432
# Stands where a change is to stand; JSON has no such byte.
_HERE: Final = msgspec.Raw(b"\x00")
_encode = msgspec.json.Encoder().encode


class _Receipt(NamedTuple):
    """What is known of the notification besides its body."""

    received_at: int
    nonce: str
    traceparent: str | None


class _Update(NamedTuple):
    """One update before it is an event; `kind` is a word of `_HOME`, else empty; `data` holds it alone."""

    origin: Origin
    kind: str
    item: Any
    data: bytes


def parse(body: bytes, *, received_at: int, nonce: str, traceparent: str | None = None) -> tuple[Event, ...]:
    """Take a notification apart into its events, in order.

    *body* is the raw body, *received_at* milliseconds since the epoch, *nonce* goes into the ids of events that
    Meta's "Test" button makes (they all look the same), *traceparent* is kept with each event.

    Pure and total: no body makes it raise, no update is dropped, the same arguments give the same events. A body
    that is no notification is one event of type `com.whatsapp.unrecognized` with the body as its data.
    """
    receipt = _Receipt(received_at, nonce, traceparent)
    events: list[Event] = []
    size = 0
    try:
        name, top = _notification(body)
        if only := _only_update(name, top["entry"], body):
            return (_event(only, receipt),)
        for update in _updates(name, top, body):
            size += len(update.data)
            if size > MAX_PARSED_BYTES:
                return (_unrecognized(body, receipt),)
            events.append(_event(update, receipt))
    except (NotADocument, msgspec.DecodeError, RecursionError):
        events = []
    return tuple(events) or (_unrecognized(body, receipt),)


def _notification(body: bytes) -> tuple[str, dict[str, Any]]:
    """Read a notification and the name of its object; raises NotADocument where it is none."""
    top = document.values(body)
    if not isinstance(top, dict) or not isinstance(top.get("entry"), list):
        raise NotADocument
    name = top.get("object", WHATSAPP)  # some of Meta's own samples leave it out
    if not isinstance(name, str):
        raise NotADocument
    return name, top


def _updates(name: str, top: dict[str, Any], body: bytes) -> Iterator[_Update]:
    for entry, raw_entry in zip(top["entry"], document.entries(body), strict=True):
        changes = entry.get("changes") if isinstance(entry, dict) else None
        if not isinstance(changes, list) or not changes:
            yield _Update(attributes.origin_of(name, entry, None), "", entry, _encode({**top, "entry": [raw_entry]}))
            continue
        for change, raw_change in zip(changes, document.changes(raw_entry), strict=True):
            origin = attributes.origin_of(name, entry, change)
            before, after = _around({**top, "entry": [{**entry, "changes": [_HERE]}]})
            for kind, item, alone in _of_change(name, origin, change, raw_change):
                yield _Update(origin, kind, item, b"".join((before, _encode(alone), after)))


def _only_update(name: str, entries: list[Any], body: bytes) -> _Update | None:
    """Take a notification of one update, as nearly all are, for what it is: the event's data already."""
    entry = entries[0] if len(entries) == 1 else None
    changes = entry.get("changes") if isinstance(entry, dict) else None
    change = changes[0] if isinstance(changes, list) and len(changes) == 1 else None
    value = change.get("value") if isinstance(change, dict) else None
    found = split.only(value) if name == WHATSAPP and isinstance(value, dict) else None
    if found is None:
        return None
    array, item = found
    origin = attributes.origin_of(name, entry, change)
    kind = attributes.kind_of(origin.field, (array,)) if isinstance(item, dict) else ""
    return _Update(origin, kind, item, body)


def _around(notification: dict[str, Any]) -> tuple[bytes, bytes]:
    """Write what stands before and behind the one change of a notification: the same for all its updates."""
    before, _, after = _encode(notification).partition(bytes(_HERE))
    return before, after


def _of_change(name: str, origin: Origin, change: Any, raw_change: msgspec.Raw) -> Iterator[tuple[str, Any, Any]]:
    value = change.get("value") if isinstance(change, dict) else None
    parts = split.split(value, document.value_of(raw_change)) if name == WHATSAPP and isinstance(value, dict) else ()
    for path, item, alone in parts:
        yield attributes.kind_of(origin.field, path) if isinstance(item, dict) else "", item, {**change, "value": alone}
    if not parts:
        yield "", change if value is None else value, raw_change


def _event(update: _Update, receipt: _Receipt) -> Event:
    origin, kind, item, data = update
    account, phone = origin.account, origin.phone
    subject = attributes.subject_of(kind, item) if isinstance(item, dict) else None
    source = f"/{account}/{phone}" if phone else f"/{account}"
    test = account == "0"
    own_time = attributes.own_time_of(item)
    digest = hashlib.sha256(document.canonical(_lasting(item) if b'"url"' in data else item))
    if test:
        digest.update(receipt.nonce.encode())
    return Event(
        id=f"{phone or account}:{attributes.natural_key(origin, kind, item)}:{digest.hexdigest()[:16]}",
        type=attributes.type_of(origin, kind, item),
        source=source,
        subject=subject,
        partitionkey=f"{phone}:{subject}" if phone and subject else source,
        time=own_time or attributes.milliseconds(origin.time) or receipt.received_at,
        own_time=own_time,
        received_at=receipt.received_at,
        field=origin.field,
        test=test,
        traceparent=receipt.traceparent,
        data=data,
    )


def _unrecognized(body: bytes, receipt: _Receipt) -> Event:
    return Event(
        id=f"unknown:raw:{hashlib.sha256(body).hexdigest()[:16]}",
        type=UNRECOGNIZED,
        source="/unknown",
        subject=None,
        partitionkey="/unknown",
        time=receipt.received_at,
        own_time=0,
        received_at=receipt.received_at,
        field="",
        test=False,
        traceparent=receipt.traceparent,
        data=body,
    )


def _lasting(item: Any) -> Any:
    """Leave out the links to media, which are new at each of Meta's tries."""
    if isinstance(item, list):
        return [_lasting(each) for each in item]
    if not isinstance(item, dict):
        return item
    is_media = "mime_type" in item
    return {name: _lasting(value) for name, value in item.items() if not (is_media and name == "url")}
