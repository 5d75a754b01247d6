"""Parse the body of a notification into events."""

import hashlib
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

from service.events import attributes, document, split
from service.events.attributes import WHATSAPP, Origin
from service.events.document import NotADocument
from service.events.event import UNRECOGNIZED, Event

# A body whose events would exceed this in total becomes one event: each update would copy too much shared data.
MAX_PARSED_BYTES: Final = 33_554_432
# Placeholder for a change; JSON can't contain this byte.
_PLACEHOLDER: Final = msgspec.Raw(b"\x00")
_encode = msgspec.json.Encoder().encode


class _Receipt(NamedTuple):
    """Data about the notification that is not in its body."""

    received_at: int
    nonce: str
    traceparent: str | None


class _Update(NamedTuple):
    """One update; `kind` is a key of `USUAL_FIELDS` or empty; `data` is a notification with only this update."""

    origin: Origin
    kind: str
    item: Any
    data: bytes


def parse(body: bytes, *, received_at: int, nonce: str, traceparent: str | None = None) -> tuple[Event, ...]:
    """Parse a notification into its events, in order.

    *body* is the raw body, *received_at* is in milliseconds since the epoch, *nonce* becomes part of the ids of events
    from Meta's "Test" button (which are all equal), *traceparent* is stored with each event.

    Pure and total: no body makes it raise, no update is dropped, and equal arguments return equal events. A body that
    is not a notification is one event of type `com.whatsapp.unrecognized` with the body as its data.
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
    """Return the name of a notification's object, and its values; raises NotADocument if it is not a notification."""
    top = document.values(body)
    if not isinstance(top, dict) or not isinstance(top.get("entry"), list):
        raise NotADocument
    name = top.get("object", WHATSAPP)  # missing in some of Meta's own samples
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
            prefix, suffix = _split_at_placeholder({**top, "entry": [{**entry, "changes": [_PLACEHOLDER]}]})
            for kind, item, single_change in _updates_of_change(name, origin, change, raw_change):
                yield _Update(origin, kind, item, b"".join((prefix, _encode(single_change), suffix)))


def _only_update(name: str, entries: list[Any], body: bytes) -> _Update | None:
    """Return the update of a notification with only one, whose data is then the whole body; None if it may have more.

    Nearly all notifications are like that.
    """
    entry = entries[0] if len(entries) == 1 else None
    changes = entry.get("changes") if isinstance(entry, dict) else None
    change = changes[0] if isinstance(changes, list) and len(changes) == 1 else None
    value = change.get("value") if isinstance(change, dict) else None
    array_and_item = split.only(value) if name == WHATSAPP and isinstance(value, dict) else None
    if array_and_item is None:
        return None
    array, item = array_and_item
    origin = attributes.origin_of(name, entry, change)
    kind = attributes.kind_of(origin.field, (array,)) if isinstance(item, dict) else ""
    return _Update(origin, kind, item, body)


def _split_at_placeholder(notification: dict[str, Any]) -> tuple[bytes, bytes]:
    """Encode a notification, and return the bytes before and after its placeholder."""
    prefix, _, suffix = _encode(notification).partition(bytes(_PLACEHOLDER))
    return prefix, suffix


def _updates_of_change(
    name: str, origin: Origin, change: Any, raw_change: msgspec.Raw
) -> Iterator[tuple[str, Any, Any]]:
    """Yield each update's kind, the update, and a change that contains only this update."""
    value = change.get("value") if isinstance(change, dict) else None
    parts = split.split(value, document.value_of(raw_change)) if name == WHATSAPP and isinstance(value, dict) else ()
    for path, item, single_value in parts:
        kind = attributes.kind_of(origin.field, path) if isinstance(item, dict) else ""
        yield kind, item, {**change, "value": single_value}
    if not parts:
        yield "", change if value is None else value, raw_change


def _event(update: _Update, receipt: _Receipt) -> Event:
    origin, kind, item, data = update
    account, phone = origin.account, origin.phone
    subject = attributes.subject_of(kind, item) if isinstance(item, dict) else None
    source = f"/{account}/{phone}" if phone else f"/{account}"
    test = account == "0"
    own_time = attributes.own_time_of(item)
    digest = hashlib.sha256(document.canonical(_without_media_urls(item) if b'"url"' in data else item))
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


def _without_media_urls(item: Any) -> Any:
    """Return *item* without the URLs of media, which differ in each of Meta's retries."""
    if isinstance(item, list):
        return [_without_media_urls(each) for each in item]
    if not isinstance(item, dict):
        return item
    is_media = "mime_type" in item
    return {name: _without_media_urls(value) for name, value in item.items() if not (is_media and name == "url")}
