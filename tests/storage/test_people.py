"""One person's events are found by number and by user id, over changes of both and numbers that others got later."""

from collections.abc import Collection, Sequence

import pytest

from service.storage.people import Appearance, find

ANN, BOB, NEW_ANN = "US.1", "US.2", "US.3"
OLD, NEW, BOBS = "16505550001", "16505550002", "16505550003"


def seen(position: int, userid: str | None = None, waid: str | None = None, **before: str) -> Appearance:
    return Appearance(position, userid or waid, userid, waid, **before)


LOG = [
    seen(1, waid=OLD),  # before Meta sent user ids
    seen(2, ANN, OLD),
    seen(3, ANN),
    seen(4, waid=OLD),
    seen(5, BOB, BOBS),
    seen(6, NEW_ANN, NEW, previouswaid=OLD, previoususerid=ANN),
    seen(7, NEW_ANN),
    seen(8, waid=NEW),
    seen(9, waid=OLD),  # nobody is known to have it now
    seen(10, BOB, OLD),
    seen(11, waid=OLD),
    seen(12, BOB),
    seen(13, NEW_ANN, NEW),
]


def look_up(log: Sequence[Appearance]) -> object:
    def lookup(identifiers: Collection[str]) -> list[Appearance]:
        return [row for row in log if not set(identifiers).isdisjoint(row[1:])]

    return lookup


@pytest.mark.parametrize("identifier", [ANN, NEW_ANN, OLD, f"+{OLD}", NEW])
def test_one_person_by_any_identifier(identifier: str) -> None:
    """All events while an identifier was theirs; those of their old number afterwards are separate."""
    found = find(identifier, look_up(LOG))  # type: ignore[arg-type]
    assert found.own == [1, 2, 3, 4, 6, 7, 8, 13]
    assert found.reassigned == [9, 10, 11]
    assert found.person.userids == {ANN, NEW_ANN}
    assert found.person.numbers == {OLD: ((0, 7),), NEW: ((6, 2**63),)}


def test_the_later_owner() -> None:
    """By the user id: what was written with the number before is not theirs."""
    found = find(BOB, look_up(LOG))  # type: ignore[arg-type]
    assert found.own == [5, 10, 11, 12]
    assert found.reassigned == [1, 2, 4, 9]


def test_a_number_without_user_ids() -> None:
    """Every event with it, and over a change that older payloads tell by numbers alone."""
    log = [seen(1, waid=OLD), seen(2, waid=NEW), seen(3, waid=NEW, previouswaid=OLD), seen(4, waid=NEW)]
    found = find(OLD, look_up(log))  # type: ignore[arg-type]
    assert found.own == [1, 3, 4]
    assert found.reassigned == [2]
    assert find(NEW, look_up(log)).own == [1, 3, 4]  # type: ignore[arg-type]


def test_other_identifiers() -> None:
    """A person of Messenger, or one that does not exist."""
    log = [Appearance(1, "7711", None, None), Appearance(2, "7722", None, None)]
    assert find("7711", look_up(log)).own == [1]  # type: ignore[arg-type]
    assert find("9", look_up(log)).own == []  # type: ignore[arg-type]
