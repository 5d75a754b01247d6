"""What the receiver must not purge, as the relay's file says it."""

from pathlib import Path

from service.relay.hold import Hold
from service.relay.sqlite import SqliteWork, Store

NOW = 1_795_000_000_000


def test_the_receiver_asks_the_relays_file(tmp_path: Path) -> None:
    """No file, nothing needed; a file that can't be read: everything."""
    path = tmp_path / "relay.db"
    hold = Hold(path)
    assert hold(NOW) is None
    store = Store(path)
    SqliteWork(store).join({"bot": 7}, now=NOW)
    assert hold(NOW) == 8
    store.close()
    path.write_bytes(b"no database " * 1000)
    assert hold(NOW) == 0


def test_a_file_that_is_just_being_made(tmp_path: Path) -> None:
    """Or that could not be made, on a full disk: it needs nothing, and must not hold back for ever."""
    path = tmp_path / "relay.db"
    path.touch()
    assert Hold(path)(NOW) is None
