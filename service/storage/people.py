"""Find one person's events by the phone number or the user id, over changes of both.

A person has several identifiers over time, and a phone number several owners: after a while an operator gives it to
somebody else. So an event that has only a number belongs to the owner of that number at its position.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from service.events import Event

END: Final = 2**63  # after every position
Interval = tuple[int, int]


class Appearance(NamedTuple):
    """The identifiers of an event, and its position."""

    position: int
    subject: str | None
    userid: str | None
    waid: str | None
    previoususerid: str | None = None
    previouswaid: str | None = None


COLUMNS: Final = ", ".join(Appearance._fields)
# The columns of an event that say something about a person, as an SQL update that clears them.
_TEXTS: Final = ("subject", "traceparent", "data", "groupid", "userid", "waid", "parentuserid")
_PREVIOUS: Final = ("previoususerid", "previouswaid", "previousparentuserid")
ERASE: Final = ", ".join(("id = ''", "partitionkey = ''", *(f"{name} = NULL" for name in _TEXTS + _PREVIOUS)))


def appearance(record: tuple[int, Event]) -> Appearance:
    """Return the identifiers of an event of the log."""
    position, event = record
    return Appearance(position, event.subject, event.userid, event.waid, event.previoususerid, event.previouswaid)


class PersonIdentifiers(NamedTuple):
    """All identifiers of one person: user ids, and numbers with the intervals of positions in which they were theirs.

    The end of an interval is not part of it.
    """

    identifier: str
    userids: frozenset[str]
    numbers: Mapping[str, Sequence[Interval]]

    @property
    def identifiers(self) -> frozenset[str]:
        """Return user ids and numbers together."""
        return self.userids | self.numbers.keys() | {self.identifier}

    def has(self, event: Event | Appearance, position: int | None = None) -> bool:
        """Return whether *event* is about this person; without a *position*, at any time."""
        if event.userid in self.userids or event.previoususerid in self.userids:
            return True
        if event.userid and self.userids:
            return False
        return (
            self._had(event.waid, position)
            or self._had(event.previouswaid, position)
            or (not event.waid and event.subject == self.identifier)
        )

    def _had(self, number: str | None, position: int | None) -> bool:
        intervals = self.numbers.get(number or "", ())
        return any(position is None or first <= position < end for first, end in intervals)


def pending(position: int, identifier: str) -> Appearance:
    """Return the identifiers of a pending delivery whose queue is named by *identifier*."""
    is_number = identifier.isdigit()
    return Appearance(position, identifier, None if is_number else identifier, identifier if is_number else None)


class PersonEvents(NamedTuple):
    """What was found: the person, their events, and events of their numbers after these belonged to others."""

    person: PersonIdentifiers
    own: Sequence[int]
    reassigned: Sequence[int]


def named(identifier: str) -> PersonIdentifiers:
    """Return the person with this number or user id alone, for streams, whose events can't be looked up."""
    identifier = identifier.removeprefix("+")
    if identifier.isdigit():
        return PersonIdentifiers(identifier, frozenset(), {identifier: ((0, END),)})
    return PersonIdentifiers(identifier, frozenset((identifier,)), {})


def find(identifier: str, look_up: Callable[[Collection[str]], Iterable[Appearance]]) -> PersonEvents:
    """Return a person's events; *look_up* returns all events in which one of some identifiers appears."""
    person = named(identifier)
    found: dict[int, Appearance] = {}
    asked: set[str] = set()
    while to_ask := person.identifiers - asked:
        for each in look_up(to_ask):
            found.setdefault(each.position, each)
        asked |= to_ask
        person = _person(person, sorted(found.values()))
    own = [position for position, each in sorted(found.items()) if person.has(each, position)]
    others = [position for position, each in sorted(found.items()) if each.waid in person.numbers]
    return PersonEvents(person, own, sorted({*others}.difference(own)))


def _person(known: PersonIdentifiers, rows: Sequence[Appearance]) -> PersonIdentifiers:
    """Return the person with the identifiers that *rows*, in the order of positions, add to those *known*."""
    userids = set(known.userids) or _first_owner(known.identifier, rows)  # a number means its first owner
    numbers = set(known.numbers)
    while True:
        person = PersonIdentifiers(
            known.identifier,
            frozenset(userids),
            {number: _intervals(number, userids, numbers, known.identifier, rows) for number in sorted(numbers)},
        )
        ours = [row for row in rows if person.has(row, row.position)]
        more_userids = {each for row in ours for each in (row.userid, row.previoususerid) if each} - userids
        more_numbers = {each for row in ours for each in (row.waid, row.previouswaid) if each} - numbers
        if not more_userids and not more_numbers:
            return person
        userids |= more_userids
        numbers |= more_numbers


def _changes(row: Appearance) -> bool:
    return bool(row.previoususerid or row.previouswaid)


def _first_owner(number: str, rows: Sequence[Appearance]) -> set[str]:
    """Return the first user id that was seen with *number*, as a set; empty if there was none."""
    for row in rows:
        owner = row.userid if row.waid == number and not _changes(row) else row.previoususerid
        if owner and number in (row.waid, row.previouswaid):
            return {owner}
    return set()


def _intervals(
    number: str, userids: set[str], numbers: set[str], identifier: str, rows: Sequence[Appearance]
) -> Sequence[Interval]:
    """Return the intervals in which *number* was of the person with these *userids* and *numbers*."""
    intervals: list[Interval] = []
    since: int | None = None
    is_first = True
    for row in rows:
        is_new = row.waid == number and _changes(row) and row.previouswaid != number
        is_left = row.previouswaid == number and row.waid != number
        if not (is_left or is_new or (row.waid == number and row.userid)):
            continue
        is_ours = row.userid in userids or row.previoususerid in userids or row.previouswaid in numbers
        is_ours = is_ours or (is_first and number == identifier)
        if is_first and is_ours and not is_new:
            since = 0
        is_first = False
        is_theirs_now = is_ours and not is_left
        if is_theirs_now and since is None:
            since = row.position
        elif not is_theirs_now and since is not None:
            end = row.position + 1 if is_left else row.position
            intervals.append((since, end))
            since = None
    if is_first:
        since = 0
    return (*intervals, (since, END)) if since is not None else tuple(intervals)
