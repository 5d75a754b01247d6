"""The people and groups of an update: who it is about, by which identifiers, and who wrote to whom.

An identifier is known by its shape, not by the name of its member: Meta writes phone numbers and business-scoped user
ids (BSUID) into the same members. Source: Meta, "Business-scoped user IDs", and the references of each webhook field.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from service.events import messaging
from service.events.document import text
from service.events.words import word

INBOUND: Final = "inbound"
OUTBOUND: Final = "outbound"
# A number; a parent's BSUID, which several businesses share; a BSUID.
_SHAPE: Final = re.compile(
    r"(?P<waid>[0-9]{1,32})|(?P<parentuserid>[A-Z]{2}\.ENT\.[0-9A-Za-z]{1,128})|(?P<userid>[A-Z]{2}\.[0-9A-Za-z]{1,128})"
)
_MAX_CHARACTERS: Final = 140
_WAID, _USERID, _PARENT, _OTHER = "waid", "userid", "parentuserid", ""
# The members that name a person, by role.
_ADDRESSEE: Final = ("to", "to_user_id", "to_parent_user_id")
_PARTICIPANT: Final = (
    "recipient_participant_id",
    "recipient_participant_user_id",
    "recipient_participant_parent_user_id",
)
_PARTICIPANT_SET: Final = frozenset(_PARTICIPANT)
_RECIPIENT: Final = ("recipient_id", "recipient_user_id", "recipient_parent_user_id", "parent_recipient_user_id")
_SENDER: Final = (
    "from",
    "from_user_id",
    "from_parent_user_id",
    "wa_id",
    "phone_number",
    "user_id",
    "parent_user_id",
    *_RECIPIENT,
)
# Members that name the person one level down: handovers, contacts of the app.
_PARTY_OBJECTS: Final = ("sender", "contact")
# The new and the old identifiers of a system message; `new_wa_id` and `customer` in older ones.
_NEW: Final = ("wa_id", "new_wa_id", "user_id", "parent_user_id")
_OLD: Final = ("previous_wa_id", "customer", "previous_user_id", "previous_parent_user_id")
_CONTACT: Final = ("wa_id", "user_id", "parent_user_id")
_CHANGED: Final = ("current", "previous")  # within a member that changed, in `user_id_update`
_CALL_DIRECTIONS: Final = {"USER_INITIATED": INBOUND, "BUSINESS_INITIATED": OUTBOUND}
_MESSENGER_INBOUND: Final = frozenset(("message", "message_edit", "postback", "reaction"))
_CHATS: Final = ("history", "standby")

Identifiers = dict[str, str]  # by shape


class Person(NamedTuple):
    """The other party of an update. *subject* is the BSUID, else the number, else an identifier of another shape."""

    subject: str | None = None
    userid: str | None = None
    waid: str | None = None
    parentuserid: str | None = None
    previoususerid: str | None = None
    previouswaid: str | None = None
    previousparentuserid: str | None = None


NO_PERSON: Final = Person()


def person_of(kind: str, item: Mapping[str, Any], value: Mapping[str, Any]) -> Person:
    """Return the other party of the update *item* of a *kind*, in a *value* that has no other update."""
    if kind == "messaging":
        return Person(word(messaging.person_of(item)) or None)
    now = _chat_partner(item, value) if kind in _CHATS else _identifiers(item, _members_of(kind, item))
    if not now:
        now = _of_objects(item)
    before = _change(now, item)
    if not now:
        return NO_PERSON
    contacts = value.get("contacts")
    if contacts and isinstance(contacts, list):
        _complete(now, contacts)
        if before:
            _complete(before, contacts)
    userid, waid, parent = now.get(_USERID), now.get(_WAID), now.get(_PARENT)
    subject = userid or waid or now.get(_OTHER) or parent
    if not before:
        return Person(subject, userid, waid, parent)
    old = [before.get(shape) if before.get(shape) != now.get(shape) else None for shape in (_USERID, _WAID, _PARENT)]
    return Person(subject, userid, waid, parent, *old)


def group_of(item: Mapping[str, Any]) -> str | None:
    """Return the id of the group that a message, a status or a change is about; None if there is none."""
    if "group_id" in item:
        return word(text(item["group_id"])) or None
    return word(text(item.get("recipient_id"))) or None if item.get("recipient_type") == "group" else None


def direction_of(kind: str, field: str, item: Mapping[str, Any], value: Mapping[str, Any]) -> str | None:
    """Return who wrote or called: the person (`inbound`) or the business (`outbound`); None if nobody did."""
    if kind in ("message", "action") or field == "user_preferences":
        return INBOUND
    if kind in ("status", "echo"):
        return OUTBOUND
    if kind == "call":
        return _CALL_DIRECTIONS.get(text(item.get("direction")))
    if kind in _CHATS and ("from" in item or "status" in item):
        return OUTBOUND if _is_of_business(item, value) else INBOUND
    if kind == "messaging":
        what = messaging.kind_of(item)
        return OUTBOUND if what == messaging.ECHO else INBOUND if what in _MESSENGER_INBOUND else None
    return None


def partition_key(owner: str, kind: str, subject: str | None, group: str | None, source: str) -> str:
    """Return the key whose events keep their order: of a group, or of a person at the number or page *owner*.

    Old messages and calls have keys of their own, so that a live message never waits for them.
    """
    if owner and group:
        return f"{owner}:{group}"
    if not owner or not subject:
        return source
    if kind == "history":
        return f"{owner}:history:{subject}"
    return f"{owner}:{subject}:call" if kind == "call" else f"{owner}:{subject}"


@lru_cache(maxsize=4096)
def shape_of(identifier: str) -> str:
    """Return what an identifier is: `waid`, `userid` or `parentuserid`; empty if it has another shape."""
    match = _SHAPE.fullmatch(identifier)
    return (match.lastgroup or _OTHER) if match else _OTHER


def _identifiers(item: Mapping[str, Any], names: Iterable[str]) -> Identifiers:
    """Return the identifiers that *names* have in *item*; the first one of each shape."""
    found: Identifiers = {}
    for name in names:
        if name in item and (value := text(item[name])):
            shape = shape_of(value) if len(value) <= _MAX_CHARACTERS else _OTHER
            found.setdefault(shape, value if shape else word(value))
    return found


def _members_of(kind: str, item: Mapping[str, Any]) -> tuple[str, ...]:
    if kind == "echo" or (kind == "call" and item.get("direction") == "BUSINESS_INITIATED"):
        return _ADDRESSEE
    if "status" in item and kind != "call":
        return _PARTICIPANT if not _PARTICIPANT_SET.isdisjoint(item) else _RECIPIENT
    return _SENDER


def _of_objects(item: Mapping[str, Any]) -> Identifiers:
    for name in _PARTY_OBJECTS:
        if name in item and isinstance(item[name], dict) and (found := _identifiers(item[name], _SENDER)):
            return found
    return {}


def _chat_partner(item: Mapping[str, Any], value: Mapping[str, Any]) -> Identifiers:
    """Return the customer of a message in `history` or `standby`, also if the business wrote it."""
    thread = _thread_of(value)
    if "status" in item:
        return _identifiers(item, _RECIPIENT)
    if not _is_of_business(item, value):
        return _identifiers({**item, "": thread}, ("", *_SENDER))
    found = _identifiers({**item, "": thread}, ("", *_ADDRESSEE))
    context = item.get("context")
    if not found and isinstance(context, dict) and not _is_of_business(context, value):
        return _identifiers(context, _SENDER)
    return found


def _thread_of(value: Mapping[str, Any]) -> Any:
    """Return the id of the thread of `history`, which is the customer's; None if there is none."""
    try:
        return value["history"][0]["threads"][0]["id"]
    except (KeyError, IndexError, TypeError):
        return None


def _is_of_business(item: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    """Return whether the business wrote a message: the sender is its own number, or not the thread's customer."""
    if "status" in item:
        return True
    sender, thread = text(item.get("from")), text(_thread_of(value))
    metadata = value.get("metadata")
    own = text(metadata.get("display_phone_number")) if isinstance(metadata, dict) else ""
    if sender and sender == re.sub("[^0-9]", "", own):
        return True
    is_other = bool(thread and sender) and sender != thread and text(item.get("from_user_id")) != thread
    return is_other and shape_of(sender) == shape_of(thread)


def _change(now: Identifiers, item: Mapping[str, Any]) -> Identifiers:
    """Put the new identifiers of a person whose identity changed into *now*, and return the old ones."""
    system = item.get("system")
    if isinstance(system, dict):
        new, old = _identifiers(system, _NEW), {**now, **_identifiers(system, _OLD)}
    elif isinstance(item.get("user_id"), dict):  # a field that Meta withdrew in 2026
        pairs = [each for each in (item.get(name) for name in _CONTACT) if isinstance(each, dict)]
        new, old = ({shape_of(text(pair.get(name))): text(pair.get(name)) for pair in pairs} for name in _CHANGED)
    else:
        return {}
    before = {shape: old[shape] for shape in new if shape and shape in old and old[shape] != new[shape]}
    for shape, identifier in old.items():
        now.setdefault(shape, identifier)
    now.update((shape, identifier) for shape, identifier in new.items() if shape)
    return before


def _complete(now: Identifiers, contacts: Iterable[Any]) -> None:
    """Add what the one contact that names the same person says beside it."""
    userid, waid = now.get(_USERID), now.get(_WAID)
    same = [
        found
        for contact in contacts
        if isinstance(contact, dict)
        and (found := _identifiers(contact, _CONTACT))
        and ((waid and found.get(_WAID) == waid) or (userid and found.get(_USERID) == userid))
    ]
    if len(same) == 1:
        for shape in (_WAID, _USERID, _PARENT):
            if shape in same[0]:
                now.setdefault(shape, same[0][shape])
