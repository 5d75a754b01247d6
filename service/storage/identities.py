"""Which delivery queues are one person's: pairs of phone number and user id, learned from the log in order.

Meta sends a person's events with a number, with a user id or with both, so a person has up to two queues at a time, and
more over the years. A pair holds from the position at which it was seen. Rows are never renamed, so what a position
means does not depend on when it is read.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from service.events import Event
from service.storage.protocols import Record

USE_RESOLUTION_MS: Final = 3_600_000  # how exactly the last use of a pair is stored
NONE: Final = ""


class Pair(NamedTuple):
    """A number and a user id (one may be empty) of one person, for one of the business's phone number ids.

    It holds for positions from *since* up to *until*, which is None if it still holds. Pairs with the same *person* are
    of one person.
    """

    phone: str
    waid: str
    userid: str
    since: int
    until: int | None
    person: int
    used_at: int


class Sibling(NamedTuple):
    """Another queue of an event's person; its deliveries from position *since*, before *below*, come first."""

    queue: str
    since: int
    below: int


Identifier = tuple[str, str]  # phone number id, and number or user id


def identifiers_of(event: Event) -> list[Identifier]:
    """Return what an event's pairs can be found by; empty if it is not about one person at a phone number."""
    phone = _phone_of(event)
    found = (event.userid, event.waid, event.previoususerid, event.previouswaid)
    return [(phone, each) for each in found if each] if phone else []


def _phone_of(event: Event) -> str:
    return event.source[1:].partition("/")[2]


class Identities:
    """The pairs of some people: learns more from events, in the order of positions, and answers for any position."""

    def __init__(self, pairs: Iterable[Pair]) -> None:
        """*pairs* must be all pairs of the people whose identifiers are in the events to come."""
        self._pairs: dict[tuple[str, str, str, int], Pair] = {}
        self._by_identifier: dict[Identifier, list[tuple[str, str, str, int]]] = {}
        self._by_person: dict[int, list[tuple[str, str, str, int]]] = {}
        self._changed: dict[tuple[str, str, str, int], None] = {}
        for pair in sorted(pairs, key=lambda each: each.since):
            self._put(pair)

    @property
    def changed(self) -> Sequence[Pair]:
        """Return the pairs that were learned, ended or used."""
        return [self._pairs[key] for key in self._changed]

    def learn(self, record: Record, *, now: int) -> None:
        """Learn the pair that an event shows, if any."""
        position, event = record
        phone = _phone_of(event)
        if not phone or not (event.userid or event.waid):
            return
        if event.previoususerid or event.previouswaid:
            self._learn_change(phone, position, event, now)
        elif event.userid and event.waid:
            self._learn_pair(phone, position, event.waid, event.userid, now)
        else:
            self._use(self._current(phone, event.userid, event.waid, position), now)

    def siblings(self, record: Record) -> Sequence[Sibling]:
        """Return the other queues of an event's person, as known at its position."""
        position, event = record
        phone, subject = _phone_of(event), event.subject
        if not phone or not subject or event.groupid:
            return ()
        own = self._current(phone, event.userid, event.waid, position)
        if own is None:
            return ()
        before, _, after = event.partitionkey.partition(subject)
        spans: dict[str, tuple[int, int]] = {}
        for pair in self._of_person(own.person):
            if pair.since > position:
                continue
            if pair.userid:
                spans[pair.userid] = 0, position
            if pair.waid:
                since, below = self._span(pair, position)
                first, last = spans.get(pair.waid, (since, below))
                spans[pair.waid] = min(since, first), max(below, last)
        return [Sibling(f"{before}{name}{after}", *span) for name, span in spans.items() if name != subject]

    def _span(self, pair: Pair, position: int) -> tuple[int, int]:
        """Return the positions before *position* at which a number was this person's: all, if nobody had it before."""
        earlier = self._newest_first(pair.phone, pair.waid, pair.since)
        is_first = all(each.person == pair.person for each in earlier)
        return 0 if is_first else pair.since, position if pair.until is None else min(position, pair.until)

    def _learn_pair(self, phone: str, position: int, waid: str, userid: str, now: int) -> None:
        current = self._owner(phone, waid, position)
        if current and current.userid == userid:
            self._use(current, now)
            return
        person = self._person_of(phone, userid, position)
        if current and current.userid:  # the number has another owner now
            self._put(current._replace(until=position), changed=True)
        elif current:
            person = person or current.person
        self._put(Pair(phone, waid, userid, position, None, person or position, now), changed=True)

    def _learn_change(self, phone: str, position: int, event: Event, now: int) -> None:
        old_userid, old_waid = event.previoususerid or NONE, event.previouswaid or NONE
        old = self._current(phone, old_userid, old_waid, position)
        if old is None:  # so that its queues are known, up to here
            old = Pair(phone, old_waid, old_userid, position, position, position, now)
            self._put(old, changed=True)
        if old_waid and old_waid != event.waid:
            for pair in self._of_person(old.person):
                if pair.waid == old_waid and pair.until is None:
                    self._put(pair._replace(until=position), changed=True)
        waid, userid = event.waid or NONE, event.userid or NONE
        if owner := self._owner(phone, waid, position):
            self._put(owner._replace(until=position), changed=True)
        self._put(Pair(phone, waid, userid, position, None, old.person, now), changed=True)

    def _current(self, phone: str, userid: str | None, waid: str | None, position: int) -> Pair | None:
        """Return the pair that an event with these identifiers belongs to, as known at its position."""
        if userid:
            return next(self._newest_first(phone, userid, position), None)
        return self._owner(phone, waid, position)

    def _owner(self, phone: str, waid: str | None, position: int) -> Pair | None:
        """Return the pair that a number belongs to at a position."""
        pairs = self._newest_first(phone, waid or NONE, position)
        return next((pair for pair in pairs if pair.until is None or pair.until > position), None)

    def _person_of(self, phone: str, userid: str, position: int) -> int | None:
        pair = next(self._newest_first(phone, userid, position), None)
        return pair.person if pair else None

    def _newest_first(self, phone: str, identifier: str, position: int) -> Iterator[Pair]:
        keys = self._by_identifier.get((phone, identifier), ()) if identifier else ()
        pairs = sorted((self._pairs[key] for key in keys), key=lambda each: each.since, reverse=True)
        return (pair for pair in pairs if pair.since <= position)

    def _of_person(self, person: int) -> list[Pair]:
        return [self._pairs[key] for key in self._by_person.get(person, ())]

    def _use(self, pair: Pair | None, now: int) -> None:
        if pair and now - pair.used_at > USE_RESOLUTION_MS:
            self._put(pair._replace(used_at=now), changed=True)

    def _put(self, pair: Pair, *, changed: bool = False) -> None:
        key = pair[:4]
        if key not in self._pairs:
            self._by_person.setdefault(pair.person, []).append(key)
            for identifier in filter(None, (pair.waid, pair.userid)):
                self._by_identifier.setdefault((pair.phone, identifier), []).append(key)
        self._pairs[key] = pair
        if changed:
            self._changed[key] = None


def by_identifiers(records: Iterable[Record]) -> Mapping[Identifier, None]:
    """Return the identifiers of all these events, without duplicates."""
    return dict.fromkeys(identifier for record in records for identifier in identifiers_of(record.event))
