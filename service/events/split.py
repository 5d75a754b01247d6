"""Split the value of a change into its updates, each in a value of its own."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from service.events import document
from service.events.attributes import ERRORS
from service.events.document import NotADocument

Tree: TypeAlias = Mapping[str, "Tree"]

_ITEMS: Final[Tree] = {}
_ARRAYS: Final[Tree] = {
    "messages": _ITEMS,
    "statuses": _ITEMS,
    "message_echoes": _ITEMS,
    "calls": _ITEMS,
    "user_actions": _ITEMS,
    "groups": _ITEMS,
    "user_preferences": _ITEMS,
    "state_sync": _ITEMS,
    "automatic_events": _ITEMS,
    "user_id_update": _ITEMS,
}
# The arrays whose items are updates. If a name has names below it, its updates are in the arrays of these.
UPDATES: Final[Tree] = {**_ARRAYS, "standby": _ARRAYS, "history": {"threads": {"messages": _ITEMS}}}
CONTACTS: Final = "contacts"
MAX_CONTACTS: Final = 100_000  # of all updates of an object together
# Keys whose values identify people: phone numbers (`wa_id`) and business-scoped user ids.
_CONTACT_KEYS: Final = frozenset({"wa_id", "user_id"})
_PARTY_KEYS: Final = _CONTACT_KEYS | {
    "from",
    "to",
    "recipient_id",
    "recipient_participant_id",
    "from_user_id",
    "to_user_id",
    "recipient_user_id",
    "recipient_participant_user_id",
}


class Part(NamedTuple):
    """One update: the path of names to it, the parsed update, and a value that contains only this update.

    In that value, the update itself is raw, and the rest is equal to the original.
    """

    path: tuple[str, ...]
    item: Any
    value: Any


def only(value: Mapping[str, Any]) -> tuple[str, Any] | None:
    """Return the array's name and the update of an object with one update; None if there may be more."""
    names = UPDATES.keys() & value.keys()
    if len(names) != 1 or value.get(ERRORS):
        return None
    (name,) = names
    items = value[name]
    if UPDATES[name] or not isinstance(items, list) or len(items) != 1:
        return None
    return name, items[0]


def split(value: Mapping[str, Any], raw: msgspec.Raw, tree: Tree = UPDATES) -> list[Part]:
    """Return the updates of an object, in order; empty if it has none, and so is one update itself.

    Each update keeps the other members of the object, except for contacts: an update keeps those that it names, and the
    first update also keeps those that no update names. `errors` beside updates are one more update.
    """
    names = [name for name in value if name in tree and value[name] and isinstance(value[name], list | dict)]
    if not names:
        return []
    raws = document.members(raw)
    if value.get(ERRORS):
        names = [name for name in value if name in names or name == ERRORS]
    parts = [part for name in names for part in _parts_of(name, value[name], raws[name], tree)]
    update_names = {part.path[0] for part in parts}
    if update_names <= {ERRORS}:
        return []
    # For each name, the object without the updates of other names. The order of the keys is kept.
    frames = {
        name: {key: member for key, member in value.items() if key == name or key not in update_names}
        for name in update_names
    }
    contacts = value.get(CONTACTS)
    if len(parts) == 1 or not isinstance(contacts, list) or CONTACTS in update_names:
        return [_framed(part, frames[part.path[0]]) for part in parts]
    contacts_by_part = _contacts_by_part(contacts, parts)
    return [_framed(part, frames[part.path[0]], own) for part, own in zip(parts, contacts_by_part, strict=True)]


def _framed(part: Part, frame: dict[str, Any], contacts: list[Any] | None = None) -> Part:
    """Return *part* in an object of its own; *contacts*, if given, replace the object's."""
    name = part.path[0]
    value = frame.copy()
    value[name] = part.value
    if contacts:
        value[CONTACTS] = contacts
    elif contacts is not None:
        del value[CONTACTS]
    # Errors are meaningful only together with the members beside them.
    item = {**value, ERRORS: part.item} if name == ERRORS else part.item
    return Part(part.path, item, value)


def _parts_of(name: str, value: Any, raw: msgspec.Raw, tree: Tree) -> Iterator[Part]:
    if name == ERRORS:
        yield Part((name,), value, raw)
    elif isinstance(value, dict):
        for part in split(value, raw, tree[name]):
            yield Part((name, *part.path), part.item, part.value)
    else:
        for item, raw_item in zip(value, document.items(raw), strict=True):
            parts = split(item, raw_item, tree[name]) if tree[name] and isinstance(item, dict) else ()
            for part in parts:
                yield Part((name, *part.path), part.item, [part.value])
            if not parts:
                yield Part((name,), item, [raw_item])


def _contacts_by_part(contacts: Sequence[Any], parts: Sequence[Part]) -> list[list[Any]]:
    """Return the contacts that each part names; the first part also gets those that no part names.

    If the n-th part names the n-th contact, as Meta sends them, each part gets only that one. Raises NotADocument if
    the parts name more than `MAX_CONTACTS` in total: then the body becomes one event.
    """
    if len(contacts) == len(parts) and all(map(_is_named, contacts, parts)):
        return [[contact] for contact in contacts]
    remaining = MAX_CONTACTS
    indexes_by_party: dict[str, list[int]] = {}
    for index, contact in enumerate(contacts):
        for party in _parties(contact, _CONTACT_KEYS):
            indexes_by_party.setdefault(party, []).append(index)
    by_part: list[list[int]] = []
    for part in parts:
        parties = _parties(part.item, _PARTY_KEYS)
        by_part.append(sorted({index for party in parties for index in indexes_by_party.get(party, ())}))
        remaining -= len(by_part[-1])
        if remaining < 0:
            raise NotADocument
    named = set(chain.from_iterable(by_part))
    by_part[0] = sorted({*by_part[0], *(index for index in range(len(contacts)) if index not in named)})
    return [[contacts[index] for index in indexes] for indexes in by_part]


def _is_named(contact: Any, part: Part) -> bool:
    return not set(_parties(contact, _CONTACT_KEYS)).isdisjoint(_parties(part.item, _PARTY_KEYS))


def _parties(item: object, keys: frozenset[str]) -> list[str]:
    if not isinstance(item, dict):
        return []
    return [party for key in item.keys() & keys if (party := document.text(item[key]))]
