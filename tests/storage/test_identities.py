"""Which queues are one person's: for any sequence of events, and any order in which relays claim the queues."""

import random
from collections.abc import Sequence
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from service.events import Event
from service.storage.deliveries import Delivery, planned
from service.storage.identities import Identities, by_identifiers
from service.storage.protocols import Record
from tests.support.events import NOW, event


class Written(NamedTuple):
    """A message of a person: with the number, the user id or both, or after a change of both."""

    person: int
    shows: int  # 0 the number, 1 the user id, 2 both
    changes: bool


class People:
    """People whose numbers and user ids are all different."""

    def __init__(self) -> None:
        self.versions: dict[int, int] = {}
        self.known: set[tuple[int, int]] = set()  # people whose current pair was shown

    def identifiers(self, person: int) -> tuple[str, str]:
        version = self.versions.setdefault(person, 0)
        return f"1{person}{version}", f"US.{person}{version}"

    def event(self, number: int, written: Written) -> tuple[Event, bool]:
        """Return the event, and whether the pair is known from here on."""
        waid, userid = self.identifiers(written.person)
        values: dict[str, str | None] = {"waid": waid, "userid": userid}
        if written.changes:
            self.versions[written.person] += 1
            new_waid, new_userid = self.identifiers(written.person)
            values = {"waid": new_waid, "userid": new_userid, "previouswaid": waid, "previoususerid": userid}
        elif written.shows < 2:
            values["userid" if written.shows == 0 else "waid"] = None
        if written.changes or written.shows == 2:
            self.known.add((written.person, self.versions[written.person]))
        subject = values["userid"] or values["waid"]
        base = {name: getattr(event(number), name) for name in Event.__struct_fields__}
        made = Event(**{**base, **values, "subject": subject, "partitionkey": f"106:{subject}"})
        return made, (written.person, self.versions[written.person]) in self.known


def deliver(deliveries: Sequence[Delivery], chance: random.Random) -> list[int]:
    """Return the positions in an order in which relays may deliver: each time from a random queue that may be claimed.

    A queue's first delivery may be claimed if those that came first in the other queues are delivered.
    """
    pending = {each.position: each for each in deliveries}
    before: dict[int, list[int]] = {}
    for each in deliveries:
        for sibling in each.siblings:
            earlier = [
                other.position
                for other in deliveries
                if other.queue == sibling.queue and sibling.since <= other.position < sibling.below
            ]
            before.setdefault(each.position, []).extend(earlier[-1:])
    order: list[int] = []
    while pending:
        heads: dict[str, int] = {}
        for position in sorted(pending):
            heads.setdefault(pending[position].queue, position)
        free = [
            position for position in heads.values() if not any(each in pending for each in before.get(position, ()))
        ]
        assert free, "deliveries wait for each other"
        order.append(chance.choice(free))
        del pending[order[-1]]
    return order


@given(
    written=st.lists(st.builds(Written, st.integers(0, 2), st.integers(0, 2), st.booleans()), max_size=40),
    page=st.integers(1, 7),
    seed=st.integers(),
)
def test_one_order_per_person_from_where_the_pair_is_known(written: list[Written], page: int, seed: int) -> None:
    """However the log is divided into pages, and whatever is claimed first."""
    people, stored = People(), Identities([])
    records, known = [], []
    for number, each in enumerate(written, start=1):
        made, is_known = people.event(number, each)
        records.append(Record(number, made))
        known.append(is_known)
    pairs: dict[tuple[object, ...], object] = {}
    deliveries = []
    for start in range(0, len(records), page):
        part = records[start : start + page]
        assert by_identifiers(part) or not part
        stored = Identities(pairs.values())  # type: ignore[arg-type]
        for record in part:
            stored.learn(record, now=NOW)
        pairs |= {pair[:4]: pair for pair in stored.changed}
        deliveries += [planned(record, stored) for record in part]
    order = deliver(deliveries, random.Random(seed))
    for person in range(3):
        theirs = [
            at
            for at, (each, is_known) in enumerate(zip(written, known, strict=True), 1)
            if is_known and each.person == person
        ]
        assert [at for at in order if at in theirs] == theirs


@given(written=st.lists(st.builds(Written, st.integers(0, 2), st.integers(0, 2), st.booleans()), max_size=40))
def test_what_a_position_means_does_not_change(written: list[Written]) -> None:
    """Pairs that are learned after it change nothing: a destination that reads it later gets the same order."""
    people, identities = People(), Identities([])
    records = [Record(number, people.event(number, each)[0]) for number, each in enumerate(written, start=1)]
    at_first = []
    for record in records:
        identities.learn(record, now=NOW)
        at_first.append(identities.siblings(record))
    assert [identities.siblings(record) for record in records] == at_first
