"""Parse the body of a notification into events."""

import hashlib
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

from service.events import attributes, document, links, messaging, people, split
from service.events.attributes import ERRORS, WHATSAPP, Origin
from service.events.document import NotADocument
from service.events.event import UNRECOGNIZED, Event

# A body beyond one of these limits becomes one event, so that a few bytes never cost much CPU or memory. Meta's largest
# notifications have 3 MB, 1,000 updates, or thousands of `history` lines.
MAX_PARSED_BYTES: Final = 33_554_432  # of all events: each copies what its updates share
MAX_UPDATES: Final = 30_000
MAX_BODY_VALUES: Final = 400_000  # values and keys
MAX_UPDATE_VALUES: Final = 20_000
DIGEST_DIGITS: Final = 32  # hexadecimal: 128 bits, so that nobody finds two updates with one digest
TEST_ACCOUNT: Final = "0"  # of what Meta's "Test" button sends
# Placeholder for a change; JSON can't contain this byte.
_PLACEHOLDER: Final = msgspec.Raw(b"\x00")


class _Receipt(NamedTuple):
    """Data about the notification that is not in its body."""

    received_at: int
    nonce: str
    traceparent: str | None


class _Update(NamedTuple):
    """One update; `kind` is a key of `USUAL_FIELDS` or empty; `data` is a notification with only this update.

    `value` is the value of its change, with the contacts that the update names; empty if there is none.
    """

    origin: Origin
    kind: str
    item: Any
    value: Any
    data: bytes


def parse(body: bytes, *, received_at: int, nonce: str, traceparent: str | None = None) -> tuple[Event, ...]:
    """Parse a notification into its events, in order.

    *body* is the raw body, *received_at* is in milliseconds since the epoch, *nonce* becomes part of the ids of events
    from Meta's "Test" button (which are all equal), *traceparent* is stored with each event.

    Pure and total: no body makes it raise, no update is dropped, and equal arguments return equal events. A body that
    is not a notification is one event of type `com.whatsapp.unrecognized` with the body as its data.
    """
    receipt = _Receipt(received_at, nonce, traceparent)
    try:
        events = _events(body, receipt)
    except (NotADocument, msgspec.DecodeError, RecursionError):
        events = ()
    return events or (_unrecognized(body, receipt),)


def _events(body: bytes, receipt: _Receipt) -> tuple[Event, ...]:
    """Return the events of a notification; raises NotADocument if the body must be kept whole."""
    is_long = len(body) > MAX_UPDATE_VALUES  # a shorter body has fewer values than any limit
    if is_long:
        _require_at_most(MAX_BODY_VALUES, body)
    name, top, ambiguous = _notification(body)
    if not ambiguous and (only := _only_update(name, top["entry"], body)):
        if is_long:
            _require_at_most(MAX_UPDATE_VALUES, body)
        return (_event(only, receipt),)
    events: list[Event] = []
    size = 0
    for update in _updates(name, top, body):
        size += len(update.data)
        if size > MAX_PARSED_BYTES or len(events) == MAX_UPDATES:
            raise NotADocument
        _require_at_most(MAX_UPDATE_VALUES, update.data)
        inside = document.count_ambiguous(_without_surroundings(update.item)) if ambiguous else 0
        if inside and not update.origin.field:
            raise NotADocument
        ambiguous -= inside
        events.append(_ambiguous_event(update, receipt) if inside else _event(update, receipt))
    if ambiguous:  # outside the updates, so that it may change what all of them say
        raise NotADocument
    return tuple(events)


def _require_at_most(limit: int, json: bytes) -> None:
    if document.has_more_values(json, limit):
        raise NotADocument


def _without_surroundings(item: Any) -> Any:
    """Return the errors of an update that has the value around them, any other update unchanged."""
    return item[ERRORS] if isinstance(item, dict) and item.get(ERRORS) and "messaging_product" in item else item


def _notification(body: bytes) -> tuple[str, dict[str, Any], int]:
    """Return the name of a notification's object, its values, and how many of its objects are ambiguous.

    Raises NotADocument if it is not a notification.
    """
    top, ambiguous = document.values(body)
    if not isinstance(top, dict) or not isinstance(top.get("entry"), list):
        raise NotADocument
    name = top.get("object", WHATSAPP)  # missing in some of Meta's own samples
    if not isinstance(name, str):
        raise NotADocument
    return name, top, ambiguous


def _updates(name: str, top: dict[str, Any], body: bytes) -> Iterator[_Update]:
    for entry, raw_entry in zip(top["entry"], document.entries(body), strict=True):
        if name in messaging.OBJECTS and isinstance(entry, dict) and any(map(entry.get, messaging.ARRAYS)):
            yield from _messaging_updates(name, top, entry, raw_entry)
            continue
        changes = entry.get("changes") if isinstance(entry, dict) else None
        if not isinstance(changes, list) or not changes:
            yield _Update(
                attributes.origin_of(name, entry, None), "", entry, {}, document.encode({**top, "entry": [raw_entry]})
            )
            continue
        for change, raw_change in zip(changes, document.changes(raw_entry), strict=True):
            origin = attributes.origin_of(name, entry, change)
            prefix, suffix = _split_at_placeholder({**top, "entry": [{**entry, "changes": [_PLACEHOLDER]}]})
            for kind, item, single_value, single_change in _updates_of_change(name, origin, change, raw_change):
                data = b"".join((prefix, document.encode(single_change), suffix))
                yield _Update(origin, kind, item, single_value, data)


def _messaging_updates(
    name: str, top: dict[str, Any], entry: dict[str, Any], raw_entry: msgspec.Raw
) -> Iterator[_Update]:
    """Yield the items of an entry of Messenger or Instagram; one that is no object, and `changes`, stay together."""
    raws = document.members(raw_entry)
    arrays = [array for array in messaging.ARRAYS if isinstance(entry.get(array), list)]
    frame = {key: value for key, value in entry.items() if key not in arrays}
    is_split = not frame.get("changes") and all(isinstance(item, dict) for array in arrays for item in entry[array])
    if not is_split:
        yield _Update(
            attributes.origin_of(name, entry, None), "", entry, {}, document.encode({**top, "entry": [raw_entry]})
        )
        return
    for array in arrays:
        origin = attributes.messaging_origin(entry, array)
        for item, raw_item in zip(entry[array], document.items(raws[array]), strict=True):
            single = {**top, "entry": [{**frame, array: [raw_item]}]}
            yield _Update(
                origin._replace(change_type=messaging.type_of(name, array, item)),
                "messaging",
                item,
                {},
                document.encode(single),
            )


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
    return _Update(origin, kind, item, value, body)


def _split_at_placeholder(notification: dict[str, Any]) -> tuple[bytes, bytes]:
    """Encode a notification, and return the bytes before and after its placeholder."""
    prefix, _, suffix = document.encode(notification).partition(bytes(_PLACEHOLDER))
    return prefix, suffix


def _updates_of_change(
    name: str, origin: Origin, change: Any, raw_change: msgspec.Raw
) -> Iterator[tuple[str, Any, Any, Any]]:
    """Yield each update's kind, the update, and a value and a change that contain only this update."""
    value = change.get("value") if isinstance(change, dict) else None
    parts = split.split(value, document.value_of(raw_change)) if name == WHATSAPP and isinstance(value, dict) else ()
    if len(parts) > MAX_UPDATES:  # before the work for each of them
        raise NotADocument
    for path, item, single_value in parts:
        kind = attributes.kind_of(origin.field, path) if isinstance(item, dict) else ""
        yield kind, item, single_value, {**change, "value": single_value}
    if not parts:
        yield "", change if value is None else value, {}, raw_change


def _event(update: _Update, receipt: _Receipt) -> Event:
    origin, kind, item, value, data = update
    account, phone = origin.account, origin.phone
    person, group, direction = people.NO_PERSON, None, None
    if isinstance(item, dict):
        person, group = people.person_of(kind, item, value), people.group_of(item)
        direction = people.direction_of(kind, origin.field, item, value)
    client = attributes.client_account(item) if origin.is_partner_event else ""
    source = f"/{client}" if client else origin.source
    test = account == TEST_ACCOUNT
    own_time = attributes.own_time_of(item)
    digest = hashlib.sha256(document.canonical(links.without_renewed(item) if b'url"' in data else item))
    if test:
        digest.update(receipt.nonce.encode())
    return Event(
        id=f"{phone or account}:{attributes.natural_key(origin, kind, item)}:{digest.hexdigest()[:DIGEST_DIGITS]}",
        type=attributes.type_of(origin, kind, item),
        source=source,
        subject=person.subject,
        partitionkey=people.partition_key(origin.owner, kind, person.subject, group, source),
        time=own_time or attributes.milliseconds(origin.time) or receipt.received_at,
        own_time=own_time,
        received_at=receipt.received_at,
        field=origin.field,
        test=test,
        traceparent=receipt.traceparent,
        businessid=account if client else None,
        userid=person.userid,
        waid=person.waid,
        parentuserid=person.parentuserid,
        previoususerid=person.previoususerid,
        previouswaid=person.previouswaid,
        previousparentuserid=person.previousparentuserid,
        groupid=group,
        direction=direction,
        data=data,
    )


def _ambiguous_event(update: _Update, receipt: _Receipt) -> Event:
    """Return an update that parsers would read differently as an unrecognized event of its account and field."""
    origin = update.origin
    event = _unrecognized(update.data, receipt)
    return msgspec.structs.replace(
        event,
        id=f"{origin.phone or origin.account}:raw:{event.id.rpartition(':')[2]}",
        source=origin.source,
        partitionkey=origin.source,
        field=origin.field,
        test=origin.account == TEST_ACCOUNT,
    )


def _unrecognized(body: bytes, receipt: _Receipt) -> Event:
    return Event(
        id=f"unknown:raw:{hashlib.sha256(body).hexdigest()[:DIGEST_DIGITS]}",
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
