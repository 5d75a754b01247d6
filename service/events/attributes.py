"""What is said of an update: type, key, subject, time (DESIGN section 5's tables)."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from service.events.document import text
from service.events.event import UNRECOGNIZED

WHATSAPP: Final = "whatsapp_business_account"
# Where the other party is named one level down: system messages, handovers, contacts of the app.
_PARTY_HOLDERS: Final = ("system", "sender", "contact")
_SENDERS: Final = ("from", "from_user_id", "wa_id", "phone_number", "user_id", "recipient_id", "recipient_user_id")
_ADDRESSEES: Final = ("to", "to_user_id")
_RECIPIENTS: Final = ("recipient_participant_id", "recipient_participant_user_id", "recipient_id", "recipient_user_id")
# A timestamp of 13 digits or less has a calendar's date; from twelve digits on it is in milliseconds.
MAX_TIME_DIGITS: Final = 13
FIRST_MILLISECONDS: Final = 100_000_000_000
# Where an update of this kind is at home; elsewhere its key says the field, as the same message id occurs in several.
HOME: Final = {
    "message": "messages",
    "status": "messages",
    "action": "messages",
    "echo": "smb_message_echoes",
    "call": "calls",
    "history": "history",
    "standby": "standby",
}
MAX_WORD_CHARACTERS: Final = 256
_NOT_IN_A_WORD: Final = re.compile(r"[^!-~]")
MAX_TYPE_CHARACTERS: Final = 64
_TYPE: Final = re.compile(r"[A-Za-z0-9_-]+")


class Origin(NamedTuple):
    """Where an update stands: what all updates of one change share, as words that are fit for ids."""

    account: str
    phone: str
    field: str
    whole_type: str  # of what is not a message, a status, an echo or a call
    time: str


def origin_of(name: str, entry: Any, change: Any) -> Origin:
    """Say where the updates of a change stand, whatever the two are."""
    entry = entry if isinstance(entry, dict) else {}
    change = change if isinstance(change, dict) else {}
    value = change.get("value")
    value = value if isinstance(value, dict) else {}
    # The next notification's is the same, mostly. What is remembered is cut: it is a stranger's.
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
    return Origin(
        account=word(account) or "unknown",
        phone=word(phone),
        field=word(field),
        whole_type=whole_type(name, type_word(field), event),
        time=word(time),
    )


@lru_cache(maxsize=1024)
def kind_of(field: str, path: tuple[str, ...]) -> str:
    """Say what an update is, a word of `HOME` or empty, by its field and the names on the way to it."""
    for chat in ("history", "standby"):
        if chat in (field, path[0]):
            return chat
    if path[-1] == "statuses":
        return "call" if field == "calls" else "status"
    return {"messages": "message", "message_echoes": "echo", "calls": "call", "user_actions": "action"}.get(
        path[-1], ""
    )


def phone_number_id(value: Mapping[str, Any]) -> str:
    """Give the business's phone number id that a value names; empty where there is none."""
    for name in ("metadata", "recipient"):
        holder = value.get(name)
        if isinstance(holder, dict) and holder.get("phone_number_id"):
            return text(holder["phone_number_id"])
    return ""


def whole_type(name: str, field: str, event: str) -> str:
    """Give the type of what is not a message, a status, an echo or a call."""
    if not field:
        return UNRECOGNIZED
    if name != WHATSAPP:
        return f"com.meta.{type_word(name) or 'unknown'}.{field}"
    return f"com.whatsapp.{field}.{event}" if event else f"com.whatsapp.{field}"


def type_of(origin: Origin, kind: str, item: Any) -> str:
    """Give an event's type (DESIGN section 5)."""
    if kind in ("message", "echo"):
        said = item.get("type")
    elif kind == "status":
        said = item.get("status")
    elif kind == "call":
        said = item.get("event") or item.get("status")
    else:
        return origin.whole_type
    return f"com.whatsapp.{kind}.{type_word(said) or 'unknown'}"


def natural_key(origin: Origin, kind: str, item: Any) -> str:
    """Give the part of an id that is Meta's own, or says where and when (DESIGN section 5)."""
    key = word(_own_key(kind, item)) if kind else ""
    if not key:
        return f"{origin.field}:{origin.account}:{origin.time}" if origin.field else "raw"
    if kind in ("echo", "history", "standby"):
        key = f"{kind}:{key}"
    return key if origin.field == HOME[kind] else f"{origin.field}:{key}"


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


def subject_of(kind: str, item: Mapping[str, Any]) -> str | None:
    """Give the other party: a number, else a business-scoped user id, else None."""
    names: tuple[str, ...]
    if kind == "call" and item.get("direction") == "BUSINESS_INITIATED":
        names = _ADDRESSEES
    elif "status" in item and kind != "call":
        names = _RECIPIENTS
    else:
        names = _ADDRESSEES if kind == "echo" else _SENDERS
    for name in names:
        if name in item and (party := word(text(item[name]))):
            return party
    for name in _PARTY_HOLDERS:
        if name in item and isinstance(item[name], dict) and (found := subject_of("", item[name])):
            return found
    return None


def own_time_of(item: Any) -> int:
    """Give an update's own timestamp in milliseconds, 0 where it has none."""
    return milliseconds(text(item.get("timestamp"))) if isinstance(item, dict) else 0


def milliseconds(stamp: str) -> int:
    """Read what Meta writes, in seconds, as a number or as text. What no calendar has counts as none."""
    if not stamp.isascii() or not stamp.isdigit() or len(stamp) > MAX_TIME_DIGITS:
        return 0
    number = int(stamp)
    return number if number >= FIRST_MILLISECONDS else number * 1000


def word(value: str) -> str:
    """Make *value* fit for an id or a header: printable ASCII without blanks, at most 256 characters."""
    if value.isascii() and value.isprintable() and " " not in value and len(value) <= MAX_WORD_CHARACTERS:
        return value
    return _NOT_IN_A_WORD.sub("_", value[:MAX_WORD_CHARACTERS])


def type_word(value: object) -> str:
    """Make what Meta says fit for a type: lower case, `other` where it is no word, empty where there is none."""
    if not isinstance(value, str) or not value:
        return ""
    return _type_word_of(value) if len(value) <= MAX_TYPE_CHARACTERS else "other"


@lru_cache(maxsize=1024)
def _type_word_of(value: str) -> str:
    return value.lower() if _TYPE.fullmatch(value) else "other"
