"""From the body of a notification to its events."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from service.events import document, split
from service.events.document import NotADocument, text
from service.events.event import UNRECOGNIZED, Event

WHATSAPP: Final = "whatsapp_business_account"
# A body whose events together would pass this is kept whole: what is shared by its updates is out of proportion.
MOST_BYTES: Final = 33_554_432
# Where the other party is named one level down: system messages, handovers, contacts of the app.
_PARTY_HOLDERS: Final = ("system", "sender", "contact")
_SENDERS: Final = ("from", "from_user_id", "wa_id", "phone_number", "user_id", "recipient_id", "recipient_user_id")
_ADDRESSEES: Final = ("to", "to_user_id")
_RECIPIENTS: Final = ("recipient_participant_id", "recipient_participant_user_id", "recipient_id", "recipient_user_id")
# A timestamp of 13 digits or less has a calendar's date; from twelve digits on it is in milliseconds.
MOST_DIGITS: Final = 13
FIRST_MILLISECONDS: Final = 100_000_000_000
# Where an update of this kind is at home; elsewhere its key says the field, as the same message id occurs in several.
_HOME: Final = {
    "message": "messages",
    "status": "messages",
    "action": "messages",
    "echo": "smb_message_echoes",
    "call": "calls",
    "history": "history",
    "standby": "standby",
}
LONGEST_WORD: Final = 256
_NOT_IN_A_WORD: Final = re.compile(r"[^!-~]")
_TYPE: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Stands where a change is to stand; JSON has no such byte.
_HERE: Final = msgspec.Raw(b"\x00")
_encode = msgspec.json.Encoder().encode


class _Receipt(NamedTuple):
    """What is known of the notification besides its body."""

    received_at: int
    nonce: str
    traceparent: str | None


class _Origin(NamedTuple):
    """Where an update stands: what all updates of one change share, as words that are fit for ids."""

    account: str
    phone: str
    field: str
    whole_type: str  # of what is not a message, a status, an echo or a call
    time: str


class _Update(NamedTuple):
    """One update before it is an event; `kind` is a word of `_HOME`, else empty; `data` holds it alone."""

    origin: _Origin
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
        for update in _updates(body):
            size += len(update.data)
            if size > MOST_BYTES:
                return (_unrecognized(body, receipt),)
            events.append(_event(update, receipt))
    except (NotADocument, msgspec.DecodeError, RecursionError):
        events = []
    return tuple(events) or (_unrecognized(body, receipt),)


def _updates(body: bytes) -> Iterator[_Update]:
    top = document.values(body)
    if not isinstance(top, dict) or not isinstance(top.get("entry"), list):
        raise NotADocument
    name = top.get("object", WHATSAPP)  # some of Meta's own samples leave it out
    if not isinstance(name, str):
        raise NotADocument
    for entry, raw_entry in zip(top["entry"], document.entries(body), strict=True):
        changes = entry.get("changes") if isinstance(entry, dict) else None
        if not isinstance(changes, list) or not changes:
            yield _Update(_origin(name, entry, None), "", entry, _encode({**top, "entry": [raw_entry]}))
            continue
        for change, raw_change in zip(changes, document.changes(raw_entry), strict=True):
            origin = _origin(name, entry, change)
            before, after = _around({**top, "entry": [{**entry, "changes": [_HERE]}]})
            for kind, item, alone in _of_change(name, change, raw_change):
                yield _Update(origin, kind, item, b"".join((before, _encode(alone), after)))


def _around(notification: dict[str, Any]) -> tuple[bytes, bytes]:
    """Write what stands before and behind the one change of a notification: the same for all its updates."""
    before, _, after = _encode(notification).partition(bytes(_HERE))
    return before, after


def _of_change(name: str, change: Any, raw_change: msgspec.Raw) -> Iterator[tuple[str, Any, Any]]:
    value = change.get("value") if isinstance(change, dict) else None
    parts = split.split(value, document.value_of(raw_change)) if name == WHATSAPP and isinstance(value, dict) else ()
    field = text(change.get("field")) if parts else ""
    for path, item, alone in parts:
        yield _kind(field, path) if isinstance(item, dict) else "", item, {**change, "value": alone}
    if not parts:
        yield "", change if value is None else value, raw_change


@lru_cache(maxsize=1024)
def _kind(field: str, path: tuple[str, ...]) -> str:
    for chat in ("history", "standby"):
        if chat in (field, path[0]):
            return chat
    if path[-1] == "statuses":
        return "call" if field == "calls" else "status"
    return {"messages": "message", "message_echoes": "echo", "calls": "call", "user_actions": "action"}.get(
        path[-1], ""
    )


def _origin(name: str, entry: Any, change: Any) -> _Origin:
    entry = entry if isinstance(entry, dict) else {}
    change = change if isinstance(change, dict) else {}
    value = change.get("value")
    value = value if isinstance(value, dict) else {}
    field = text(change.get("field"))
    return _Origin(
        account=_word(text(entry.get("id"))) or "unknown",
        phone=_word(_phone_number_id(value)),
        field=_word(field),
        whole_type=_whole_type(name, _type_word(field), _type_word(value.get("event"))),
        time=_word(text(entry.get("time"))),
    )


def _phone_number_id(value: Mapping[str, Any]) -> str:
    for name in ("metadata", "recipient"):
        holder = value.get(name)
        if isinstance(holder, dict) and holder.get("phone_number_id"):
            return text(holder["phone_number_id"])
    return ""


def _whole_type(name: str, field: str, event: str) -> str:
    if not field:
        return UNRECOGNIZED
    if name != WHATSAPP:
        return f"com.meta.{_type_word(name) or 'unknown'}.{field}"
    return f"com.whatsapp.{field}.{event}" if event else f"com.whatsapp.{field}"


def _event(update: _Update, receipt: _Receipt) -> Event:
    origin, kind, item, data = update
    account, phone = origin.account, origin.phone
    subject = _subject(kind, item) if isinstance(item, dict) else None
    source = f"/{account}/{phone}" if phone else f"/{account}"
    test = account == "0"
    digest = hashlib.sha256(document.canonical(_lasting(item) if b'"url"' in data else item))
    if test:
        digest.update(receipt.nonce.encode())
    return Event(
        id=f"{phone or account}:{_natural_key(origin, kind, item)}:{digest.hexdigest()[:16]}",
        type=_type(origin, kind, item),
        source=source,
        subject=subject,
        partitionkey=f"{phone}:{subject}" if phone and subject else source,
        time=_time(item, origin.time) or receipt.received_at,
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
        received_at=receipt.received_at,
        field="",
        test=False,
        traceparent=receipt.traceparent,
        data=body,
    )


def _type(origin: _Origin, kind: str, item: Any) -> str:
    if kind in ("message", "echo"):
        said = item.get("type")
    elif kind == "status":
        said = item.get("status")
    elif kind == "call":
        said = item.get("event") or item.get("status")
    else:
        return origin.whole_type
    return f"com.whatsapp.{kind}.{_type_word(said) or 'unknown'}"


def _natural_key(origin: _Origin, kind: str, item: Any) -> str:
    key = _word(_own_key(kind, item)) if kind else ""
    if not key:
        return f"{origin.field}:{origin.account}:{origin.time}" if origin.field else "raw"
    if kind in ("echo", "history", "standby"):
        key = f"{kind}:{key}"
    return key if origin.field == _HOME[kind] else f"{origin.field}:{key}"


def _own_key(kind: str, item: Mapping[str, Any]) -> str:
    own = text(item.get("id"))
    if kind == "message":
        return own
    if kind == "action":
        link = item.get("marketing_messages_link_click_data")
        own = text(item.get("click_id") or (link.get("click_id") if isinstance(link, dict) else None))
        words = [own, text(item.get("action_type"))]
    elif kind == "call":
        words = [own, text(item.get("event") or item.get("status"))]
    else:
        participant = item.get("recipient_participant_user_id") or item.get("recipient_participant_id")
        words = [own, text(item.get("status")), text(participant)]
    return ":".join(filter(None, words)) if own else ""


def _subject(kind: str, item: Mapping[str, Any]) -> str | None:
    names: tuple[str, ...]
    if kind == "call" and item.get("direction") == "BUSINESS_INITIATED":
        names = _ADDRESSEES
    elif "status" in item and kind != "call":
        names = _RECIPIENTS
    else:
        names = _ADDRESSEES if kind == "echo" else _SENDERS
    for name in names:
        if name in item and (word := _word(text(item[name]))):
            return word
    for name in _PARTY_HOLDERS:
        if name in item and isinstance(item[name], dict) and (found := _subject("", item[name])):
            return found
    return None


def _time(item: Any, entry_time: str) -> int:
    """Milliseconds; Meta writes seconds, as a number or as text. What no calendar has counts as none."""
    own = text(item.get("timestamp")) if isinstance(item, dict) else ""
    for stamp in (own, entry_time):
        if stamp.isascii() and stamp.isdigit() and len(stamp) <= MOST_DIGITS:
            number = int(stamp)
            return number if number >= FIRST_MILLISECONDS else number * 1000
    return 0


def _lasting(item: Any) -> Any:
    """Leave out the links to media, which are new at each of Meta's tries."""
    if isinstance(item, list):
        return [_lasting(each) for each in item]
    if not isinstance(item, dict):
        return item
    is_media = "mime_type" in item
    return {name: _lasting(value) for name, value in item.items() if not (is_media and name == "url")}


def _word(value: str) -> str:
    """Make *value* fit for an id or a header: printable ASCII without blanks, at most 256 characters."""
    if value.isascii() and value.isprintable() and " " not in value and len(value) <= LONGEST_WORD:
        return value
    return _NOT_IN_A_WORD.sub("_", value[:LONGEST_WORD])


def _type_word(value: object) -> str:
    return _type_word_of(value) if isinstance(value, str) and value else ""


@lru_cache(maxsize=1024)
def _type_word_of(value: str) -> str:
    return value.lower() if _TYPE.fullmatch(value) else "other"
