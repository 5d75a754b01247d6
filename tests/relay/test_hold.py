"""What the receiver must not purge, as the relay's state says it."""

from pathlib import Path

import pytest
from contract.engines import Servers

from service.config import InboxUrl, inbox_url
from service.errors import InboxUnavailable
from service.relay import stores
from service.relay.hold import Hold
from service.relay.postgresql.records import UNSEEN_LONG

NOW = 1_795_000_000_000


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs("postgresql"))])
def url(request: pytest.FixtureRequest, tmp_path: Path, servers: Servers) -> InboxUrl:
    if request.param == "sqlite":
        return inbox_url(f"sqlite://{tmp_path}/inbox.db")
    return inbox_url(servers.postgresql().new_database())


def test_the_receiver_asks_the_relays_state(url: InboxUrl) -> None:
    """No state, nothing needed; else what the slowest destination still has to get."""
    hold = stores.hold(url)
    assert hold(NOW) is None
    state = stores.opened(url)
    state.work.join({"bot": 7}, now=NOW)
    state.work.expire(0, now=NOW, patience=1, keep=1)
    assert hold(NOW) == 8
    state.close()


def test_a_file_that_is_none(tmp_path: Path) -> None:
    """One that can't be read needs everything."""
    (tmp_path / "relay.db").write_bytes(b"no database " * 1000)
    assert stores.hold(inbox_url(f"sqlite://{tmp_path}/inbox.db"))(NOW) == 0


def test_a_file_that_is_just_being_made(tmp_path: Path) -> None:
    """Or that could not be made, on a full disk: it needs nothing, and must not hold back for ever."""
    (tmp_path / "relay.db").touch()
    assert stores.hold(inbox_url(f"sqlite://{tmp_path}/inbox.db"))(NOW) is None


@pytest.mark.needs("postgresql")
def test_relays_that_are_gone_for_good(servers: Servers) -> None:
    """Nobody took the destinations out of a file: what no relay asks for in eight days, none will deliver."""
    url = inbox_url(servers.postgresql().new_database())
    state = stores.opened(url)
    state.work.join({"bot": 7}, now=NOW)
    state.work.expire(0, now=NOW, patience=1, keep=1)
    assert stores.hold(url)(NOW + UNSEEN_LONG - 1) == 8
    assert stores.hold(url)(NOW + UNSEEN_LONG) is None
    state.close()


def test_what_can_not_be_asked_is_not_asked_again_at_once() -> None:
    """The receiver's writer asks, and notifications wait for it."""
    asked = []

    def needed(now: int) -> int:
        asked.append(now)
        raise InboxUnavailable("slow", "no answer")

    hold = Hold(needed)
    assert [hold(NOW), hold(NOW + 1), hold(NOW + 2)] == [0, 0, 0]
    assert asked == [NOW]
