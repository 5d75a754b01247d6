"""Derive an update's attributes: origin, type, natural key, time (DESIGN section 5's tables)."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from service.events import messaging
from service.events.document import text
from service.events.event import UNRECOGNIZED
from service.events.event_types import (
    ERRORS_WORD,
    INTERACTIVE,
    MAX_TYPE_CHARACTERS,
    SYSTEM,
    USER_ACTIONS,
    action_of,
    known,
    type_word,
)
from service.events.words import MAX_WORD_CHARACTERS, word

ERRORS: Final = "errors"
WHATSAPP: Final = "whatsapp_business_account"
# A timestamp of up to 13 digits is a date of the calendar; from twelve digits on it is in milliseconds.
MAX_TIME_DIGITS: Final = 13
MIN_MILLISECONDS: Final = 100_000_000_000
# The usual field of each kind of update. In another field, the key includes the field, as the same message id occurs in
# several fields.
USUAL_FIELDS: Final = {
    "message": "messages",
    "status": "messages",
    "action": "messages",
    "echo": "smb_message_echoes",
    "call": "calls",
    "history": "history",
    "standby": "standby",
    "messaging": "messaging",
}
_PARTNER_EVENTS: Final = "com.whatsapp.account_update.partner_"
# Messages that have a type of their own in the member named like their type.
_NESTED_TYPES: Final = {"interactive": INTERACTIVE, "system": SYSTEM}
# The members of an update that holds errors only, and of the value around it.
_BESIDE_ERRORS: Final = frozenset(("messaging_product", "metadata", "contacts", ERRORS))


class Origin(NamedTuple):
    """The account, phone number and field of a change, common to all its updates, as words that ids may contain."""

    account: str
    phone: str
    field: str
    change_type: str  # the type of an update that is not a message, a status, an echo or a call
    time: str
    source: str
    owner: str  # of its conversations: the phone number, or the page; empty if there is none
    is_partner_event: bool = False


def origin_of(name: str, entry: Any, change: Any) -> Origin:
    """Return the origin of the updates of a change; *entry* and *change* may be any JSON."""
    entry = entry if isinstance(entry, dict) else {}
    change = change if isinstance(change, dict) else {}
    value = change.get("value")
    value = value if isinstance(value, dict) else {}
    # Cached, as the next notification usually has the same. Cut to a limit, as the cache stores untrusted text.
    return _origin(
        name[: MAX_TYPE_CHARACTERS + 1],
        text(entry.get("id"))[: MAX_WORD_CHARACTERS + 1],
        text(entry.get("time"))[: MAX_WORD_CHARACTERS + 1],
        text(change.get("field"))[: MAX_WORD_CHARACTERS + 1],
        phone_number_id(value)[: MAX_WORD_CHARACTERS + 1],
        type_word(value.get("event")),
    )


@lru_cache(maxsize=1024)
def _origin(name: str, account: str, time: str, field: str, phone: str, event: str) -> Origin:
    account, phone = word(account) or "unknown", word(phone)
    kind = change_type(name, type_word(field), event)
    return Origin(
        account=account,
        phone=phone,
        field=word(field),
        change_type=kind,
        time=word(time),
        source=f"/{account}/{phone}" if phone else f"/{account}",
        owner=phone,
        is_partner_event=kind.startswith(_PARTNER_EVENTS),
    )


def messaging_origin(entry: Mapping[str, Any], array: str) -> Origin:
    """Return the origin of the items in *array* of an entry of Messenger or Instagram."""
    page, time = (word(text(entry.get(name))[: MAX_WORD_CHARACTERS + 1]) for name in ("id", "time"))
    page = page or "unknown"
    return Origin(account=page, phone="", field=array, change_type="", time=time, source=f"/{page}", owner=page)


@lru_cache(maxsize=1024)
def kind_of(field: str, path: tuple[str, ...]) -> str:
    """Return the kind of an update (a key of `USUAL_FIELDS`, or empty) by its field and the path of names to it."""
    for chat in ("history", "standby"):
        if chat in (field, path[0]):
            return chat
    if path[-1] == "statuses":
        return "call" if field == "calls" else "status"
    return {"messages": "message", "message_echoes": "echo", "calls": "call", "user_actions": "action"}.get(
        path[-1], ""
    )


def phone_number_id(value: Mapping[str, Any]) -> str:
    """Return the business's phone number id that a value names; empty if there is none."""
    for name in ("metadata", "recipient"):
        member = value.get(name)
        if isinstance(member, dict) and member.get("phone_number_id"):
            return text(member["phone_number_id"])
    return ""


def change_type(name: str, field: str, event: str) -> str:
    """Return the type of an update that is not a message, a status, an echo or a call."""
    if not field:
        return UNRECOGNIZED
    if name != WHATSAPP:
        return f"com.meta.{type_word(name) or 'unknown'}.{field}"
    return f"com.whatsapp.{field}.{event}" if event else f"com.whatsapp.{field}"


def type_of(origin: Origin, kind: str, item: Any) -> str:
    """Return an event's type (DESIGN section 5); its last words say what happened."""
    if kind in ("message", "echo"):
        subtype = type_word(item.get("type"))
        if kind == "message" and (words := _NESTED_TYPES.get(subtype)):
            return f"com.whatsapp.message.{subtype}{_nested_type(item.get(subtype), words)}"
    elif kind == "status":
        subtype = type_word(item.get("status"))
    elif kind == "call":
        subtype = type_word(item.get("event") or item.get("status"))
    elif kind == "action":
        kind, subtype = "user_action", known(type_word(item.get("action_type")), USER_ACTIONS)
    else:
        return origin.change_type if kind or not isinstance(item, dict) else _type_of_change(origin, item)
    return f"com.whatsapp.{kind}.{subtype or 'unknown'}"


def _nested_type(member: Any, words: frozenset[str]) -> str:
    """Return the type that a message's member has, with a dot before it; empty if it has none."""
    nested = known(type_word(member.get("type")), words) if isinstance(member, dict) else ""
    return nested and f".{nested}"


def _type_of_change(origin: Origin, item: Mapping[str, Any]) -> str:
    """Return the type of an update that only its field identifies: with its action, or `errors`."""
    if not origin.change_type.startswith("com.whatsapp.") or origin.change_type == UNRECOGNIZED:
        return origin.change_type
    action = action_of(origin.field, item)
    if not action and item.get(ERRORS) and item.keys() <= _BESIDE_ERRORS:
        action = ERRORS_WORD
    return f"{origin.change_type}.{action}" if action else origin.change_type


def natural_key(origin: Origin, kind: str, item: Any) -> str:
    """Return the part of an id that is Meta's own id, or else the field, account and time (DESIGN section 5)."""
    key = word(_own_key(kind, item)) if kind else ""
    if not key:
        return f"{origin.field}:{origin.account}:{origin.time}" if origin.field else "raw"
    if kind in ("echo", "history", "standby"):
        key = f"{kind}:{key}"
    return key if origin.field == USUAL_FIELDS[kind] else f"{origin.field}:{key}"


def _own_key(kind: str, item: Mapping[str, Any]) -> str:
    own = text(item.get("id"))
    if kind == "message":
        return own
    if kind == "messaging":
        return messaging.key_of(item)
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


def client_account(item: Any) -> str:
    """Return the account of a partner's client that a partner event is about; empty if it names none.

    The entry's id is then the client's business portfolio. Source: Meta, "Webhooks > account_update", PARTNER_ events.
    """
    client = item.get("waba_info") if isinstance(item, dict) else None
    return word(text(client.get("waba_id"))) if isinstance(client, dict) else ""


def own_time_of(item: Any) -> int:
    """Return an update's own timestamp in milliseconds, 0 if it has none."""
    return milliseconds(text(item.get("timestamp"))) if isinstance(item, dict) else 0


def milliseconds(stamp: str) -> int:
    """Return Meta's timestamp, usually in seconds, as milliseconds; 0 if it is not a date of the calendar."""
    if not stamp.isascii() or not stamp.isdigit() or len(stamp) > MAX_TIME_DIGITS:
        return 0
    number = int(stamp)
    return number if number >= MIN_MILLISECONDS else number * 1000
