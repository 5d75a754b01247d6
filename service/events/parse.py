"""From the body of a notification to its events."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
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
_WORD: Final = re.compile(r"[!-~]{1,256}")
_NOT_IN_A_WORD: Final = re.compile(r"[^!-~]")
_TYPE: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_encode = msgspec.json.Encoder().encode


class _Receipt(NamedTuple):
    """What is known of the notification besides its body."""

    received_at: int
    nonce: str
    traceparent: str | None


class _Origin(NamedTuple):
    """Where an update stands: the object, its entry, the change's field and value."""

    object: str
    entry: Mapping[str, Any]
    field: str
    value: Any


class _Update(NamedTuple):
    """One update before it is an event; `kind` is a word of `_HOME`, else empty."""

    origin: _Origin
    kind: str
    path: tuple[str, ...]
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
    try:
        events: list[Event] = []
        size = 0
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
    raws: dict[str, Any] = document.members(body)
    for entry, raw_entry in zip(top["entry"], document.items(raws["entry"]), strict=True):

        def whole(part: object) -> bytes:
            return _encode({**raws, "entry": [part]})

        changes = entry.get("changes") if isinstance(entry, dict) else None
        if not isinstance(changes, list) or not changes:
            origin = _Origin(name, entry if isinstance(entry, dict) else {}, "", entry)
            yield _Update(origin, "", (), entry, whole(raw_entry))
            continue
        raw: dict[str, Any] = document.members(raw_entry)
        for change, raw_change in zip(changes, document.items(raw["changes"]), strict=True):

            def around(part: object, raw: dict[str, Any] = raw) -> bytes:
                return whole({**raw, "changes": [part]})

            yield from _of_change(name, entry, change, raw_change, around)


def _of_change(
    name: str, entry: Mapping[str, Any], change: object, raw_change: msgspec.Raw, around: Callable[[object], bytes]
) -> Iterator[_Update]:
    if not isinstance(change, dict):
        yield _Update(_Origin(name, entry, "", change), "", (), change, around(raw_change))
        return
    origin = _Origin(name, entry, text(change.get("field")), change.get("value"))
    parts = []
    if name == WHATSAPP and isinstance(origin.value, dict):
        raws: dict[str, Any] = document.members(raw_change)
        parts = split.split(origin.value, document.members(raws["value"]))
    for part in parts:
        data = around({**raws, "value": part.wrapped})
        yield _Update(origin, _kind(origin.field, part), part.path, part.item, data)
    if not parts:
        item = change if origin.value is None else origin.value
        yield _Update(origin, "", (), item, around(raw_change))


def _kind(field: str, part: split.Part) -> str:
    name = part.path[-1]
    if not isinstance(part.item, dict):
        return ""
    if field == "history" or part.path[0] == "history":
        return "history"
    if field == "standby" or part.path[0] == "standby":
        return "standby"
    if name == "statuses":
        return "call" if field == "calls" or part.item.get("type") == "call" else "status"
    return {"messages": "message", "message_echoes": "echo", "calls": "call", "user_actions": "action"}.get(name, "")


def _event(update: _Update, receipt: _Receipt) -> Event:
    origin = update.origin
    account = _word(text(origin.entry.get("id"))) or "unknown"
    phone = _word(_phone_number_id(origin.value))
    subject = _subject(update)
    source = f"/{account}/{phone}" if phone else f"/{account}"
    test = account == "0"
    lasting = _lasting(update.item) if b'"url"' in update.data else update.item
    digest = hashlib.sha256(document.canonical(lasting))
    if test:
        digest.update(receipt.nonce.encode())
    return Event(
        id=f"{phone or account}:{_natural_key(update, account)}:{digest.hexdigest()[:16]}",
        type=_type(update),
        source=source,
        subject=subject,
        partitionkey=f"{phone}:{subject}" if phone and subject else source,
        time=_time(update) or receipt.received_at,
        received_at=receipt.received_at,
        field=_word(origin.field),
        test=test,
        traceparent=receipt.traceparent,
        data=update.data,
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


def _type(update: _Update) -> str:
    origin, item = update.origin, update.item
    if update.kind in ("message", "echo"):
        return f"com.whatsapp.{update.kind}.{_type_word(item.get('type')) or 'unknown'}"
    if update.kind == "status":
        return f"com.whatsapp.status.{_type_word(item.get('status')) or 'unknown'}"
    if update.kind == "call":
        return f"com.whatsapp.call.{_type_word(item.get('event') or item.get('status')) or 'unknown'}"
    field = _type_word(origin.field)
    if not field:
        return UNRECOGNIZED
    if origin.object != WHATSAPP:
        return f"com.meta.{_type_word(origin.object) or 'unknown'}.{field}"
    event = _type_word(origin.value.get("event")) if isinstance(origin.value, dict) else ""
    return f"com.whatsapp.{field}.{event}" if event else f"com.whatsapp.{field}"


def _natural_key(update: _Update, account: str) -> str:
    origin, item, field = update.origin, update.item, _word(update.origin.field)
    words = _key_words(update.kind, item) if update.kind else []
    if not words or not words[0]:
        if not field:
            return "raw"
        return f"{field}:{account}:{_word(text(origin.entry.get('time')))}"
    if update.kind in ("echo", "history", "standby"):
        words.insert(0, update.kind)
    if field != _HOME[update.kind]:
        words.insert(0, field)
    return ":".join(filter(None, map(_word, words)))


def _key_words(kind: str, item: Mapping[str, Any]) -> list[str]:
    if kind == "action":
        link = item.get("marketing_messages_link_click_data")
        click = item.get("click_id") or (link.get("click_id") if isinstance(link, dict) else None)
        return [text(click), text(item.get("action_type"))]
    words = [text(item.get("id"))]
    if kind == "call":
        words.append(text(item.get("event") or item.get("status")))
    elif "status" in item:
        participant = item.get("recipient_participant_user_id") or item.get("recipient_participant_id")
        words += [text(item.get("status")), text(participant)]
    return words


def _subject(update: _Update) -> str | None:
    item = update.item
    if not isinstance(item, dict):
        return None
    if update.kind == "call":
        outward = item.get("direction") == "BUSINESS_INITIATED"
        names = ("to", "to_user_id") if outward else ("from", "from_user_id", "recipient_id", "recipient_user_id")
    elif "message_echoes" in update.path or update.kind == "echo":
        names = ("to", "to_user_id")
    elif "status" in item:
        names = ("recipient_participant_id", "recipient_participant_user_id", "recipient_id", "recipient_user_id")
    else:
        names = ("from", "from_user_id", "wa_id", "user_id")
    return _first_word(item, names) or next(filter(None, (_party_in(item.get(name)) for name in _PARTY_HOLDERS)), None)


def _party_in(holder: object) -> str | None:
    return _first_word(holder, ("wa_id", "phone_number", "user_id")) if isinstance(holder, dict) else None


def _first_word(item: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    for name in names:
        word = _word(text(item.get(name)))
        if word:
            return word
    return None


def _phone_number_id(value: object) -> str:
    if not isinstance(value, dict):
        return ""
    for holder in (value.get("metadata"), value.get("recipient")):
        if isinstance(holder, dict) and holder.get("phone_number_id"):
            return text(holder["phone_number_id"])
    return ""


def _time(update: _Update) -> int:
    """Milliseconds; Meta writes seconds, as a number or as text. What no calendar has counts as none."""
    own = update.item.get("timestamp") if isinstance(update.item, dict) else None
    for stamp in (text(own), text(update.origin.entry.get("time"))):
        if stamp.isascii() and stamp.isdigit() and len(stamp) <= 13:  # noqa: PLR2004  digits of milliseconds
            number = int(stamp)
            return number if number >= 100_000_000_000 else number * 1000  # noqa: PLR2004  above: milliseconds
    return 0


def _lasting(item: Any) -> Any:  # noqa: ANN401  JSON is any of its types
    """Leave out the links to media, which are new at each of Meta's tries."""
    if isinstance(item, list):
        return [_lasting(each) for each in item]
    if not isinstance(item, dict):
        return item
    is_media = "mime_type" in item
    return {name: _lasting(value) for name, value in item.items() if not (is_media and name == "url")}


def _word(value: str) -> str:
    """Make *value* fit for an id or a header: printable ASCII without blanks, at most 256 characters."""
    return value if _WORD.fullmatch(value) else _NOT_IN_A_WORD.sub("_", value[:256])


def _type_word(value: object) -> str:
    if not isinstance(value, str) or not value:
        return ""
    return value.lower() if _TYPE.fullmatch(value) else "other"
