"""The SQLite inbox beyond the contract: which files it rejects, what a reader sees, and the retention."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from service.errors import InboxUnavailable
from service.storage.migration import Migration
from service.storage.protocols import Terms
from service.storage.sqlite import SqliteInbox, SqliteLog
from service.storage.sqlite.database import migrate
from service.storage.sqlite.schema import APPLICATION_ID, MIGRATIONS, require_library
from tests.support.events import HOUR, NOW, event


def opened(path: Path, *, body_retention: int = HOUR) -> SqliteInbox:
    return SqliteInbox(path, Terms(HOUR, body_retention))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "inbox.db"


def rejection(path: Path) -> InboxUnavailable:
    with pytest.raises(InboxUnavailable) as raised:
        opened(path)
    return raised.value


@pytest.mark.parametrize("version", ["3.51.2", "3.40.1", "3.46.1", "2.99.9"])
def test_a_library_that_can_corrupt_a_wal_is_rejected(version: str) -> None:
    """All versions below 3.51.3, such as those of Debian and Python."""
    with pytest.raises(InboxUnavailable, match=r"older than 3\.51\.3"):
        require_library(version)


@pytest.mark.parametrize("version", ["3.51.3", "3.54.1", "4.0.0", apsw.sqlite_lib_version()])
def test_a_fixed_library_is_accepted(version: str) -> None:
    """The installed version is one of them."""
    require_library(version)


def test_the_database_is_durable(path: Path) -> None:
    """It has a WAL that is synced at every commit, and no memory map."""
    with closing(opened(path)) as inbox:
        assert inbox._db.pragma("journal_mode") == "wal"
        assert inbox._db.pragma("synchronous") == 2
        assert inbox._db.pragma("mmap_size") in (0, None)


def test_a_journal_that_is_not_a_wal_is_rejected(path: Path) -> None:
    """SQLite falls back to one on a file system without shared memory."""
    apsw.set_default_vfs("unix-none")
    try:
        raised = rejection(path)
    finally:
        apsw.set_default_vfs("unix")
    assert raised.reason == "unsafe"
    assert "not a WAL" in raised.detail


def test_a_second_writer_is_rejected_until_the_first_has_closed(path: Path) -> None:
    """As with two pods on one volume. A reader is accepted."""
    first = opened(path)
    assert rejection(path).reason == "locked"
    first.put([event(1)])
    with closing(SqliteLog(path)) as log:
        assert len(log.read(0, 10)) == 1
    first.close()
    opened(path).close()


def test_a_missing_directory_is_reported(tmp_path: Path) -> None:
    """The error contains the path."""
    raised = rejection(tmp_path / "nowhere" / "inbox.db")
    assert raised.reason == "cannot_open"
    assert "nowhere" in raised.detail


def test_a_directory_that_is_not_writable_is_reported(tmp_path: Path) -> None:
    """The test runs as another user, as root may write everywhere."""
    for directory in (tmp_path, *tmp_path.parents[:3]):
        directory.chmod(0o755)
    program = (
        "import os, sys\n"
        "from pathlib import Path\nfrom service.storage.protocols import Terms\n"
        "from service.storage.sqlite import SqliteInbox\n"
        "from service.errors import InboxUnavailable\n"
        "os.setuid(65534)\n"
        "try: SqliteInbox(Path(sys.argv[1]), Terms(1, 1))\n"
        "except InboxUnavailable as ex: print(ex.reason, ex.detail)\n"
    )
    if os.geteuid() != 0:
        tmp_path.chmod(0o555)
        program = program.replace("os.setuid(65534)", "")
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "inbox.db")], capture_output=True, text=True, check=False
    )
    assert "cannot_open" in done.stdout, done.stderr
    assert "Permission denied" in done.stdout


def test_only_the_owner_can_read_the_files(path: Path) -> None:
    """They contain phone numbers, names and messages."""
    with closing(opened(path)) as inbox:
        inbox.probe()
        modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert set(modes.values()) == {0o600}, modes
    assert len(modes) == 5


def test_a_file_that_is_not_a_database_is_rejected(path: Path) -> None:
    """It is not changed."""
    path.write_bytes(b"something else entirely, and long enough to be looked at" * 100)
    assert rejection(path).reason == "corrupt"
    assert path.read_bytes().startswith(b"something else")


def test_another_programs_database_is_rejected(path: Path) -> None:
    """It is not changed."""
    with closing(apsw.Connection(str(path))) as other:
        other.pragma("user_version", 7)
    before = path.read_bytes()
    assert rejection(path).reason == "foreign"
    assert path.read_bytes() == before


def test_a_later_versions_database_is_rejected(path: Path) -> None:
    """After a rollback of the program, neither writer nor reader opens a schema that it does not know."""
    opened(path).close()
    with closing(apsw.Connection(str(path))) as other:
        other.pragma("user_version", len(MIGRATIONS) + 1)
    assert rejection(path).reason == "newer"
    with pytest.raises(InboxUnavailable):
        SqliteLog(path)


def test_a_rollback_works_if_a_later_version_only_added_to_the_tables(path: Path) -> None:
    """Its migration names the earliest version that still works; one that names a later version is rejected."""
    opened(path).close()
    for works_with, works in ((len(MIGRATIONS), True), (len(MIGRATIONS) + 1, False)):
        later = (*MIGRATIONS, Migration("CREATE TABLE added (number)", works_with))
        with closing(apsw.Connection(str(path))) as other:
            other.execute("DROP TABLE IF EXISTS added").fetchall()
            other.pragma("user_version", len(MIGRATIONS))
            migrate(other, later, application_id=APPLICATION_ID)
        if works:
            with closing(opened(path)) as inbox, closing(SqliteLog(path)) as log:
                inbox.put([event(works_with)])
                assert len(log.read(0, 10)) == 1
            with closing(apsw.Connection(str(path))) as other:
                migrate(other, later, application_id=APPLICATION_ID)  # the later version has nothing to migrate
        else:
            assert rejection(path).reason == "newer"


def test_a_database_of_the_first_version_is_migrated(path: Path) -> None:
    """The events stay, and the log gets an identity that no other log has."""
    db = apsw.Connection(str(path))
    db.execute(MIGRATIONS[0].statements).fetchall()
    db.pragma("application_id", APPLICATION_ID)
    db.pragma("user_version", 1)
    db.close()
    with closing(opened(path)) as inbox, closing(SqliteLog(path)) as log:
        assert inbox._db.pragma("user_version") == len(MIGRATIONS)
        inbox.put([event(1)])
        identity = log.timelines()[0]
    with closing(opened(path.with_name("other.db"))), closing(SqliteLog(path.with_name("other.db"))) as other:
        assert other.timelines()[0] != identity
    with closing(opened(path)), closing(SqliteLog(path)) as log:
        assert log.timelines()[0] == identity


def test_a_log_that_was_replaced_is_noticed(path: Path) -> None:
    """Otherwise its reader would read the old file forever."""
    with closing(opened(path)) as inbox, closing(SqliteLog(path)) as log:
        inbox.put([event(1)])
        assert len(log.read(0, 9)) == 1
        path.rename(path.with_name("old.db"))
        with pytest.raises(InboxUnavailable) as raised:
            log.read(0, 9)
        assert (raised.value.reason, raised.value.reopen) == ("vanished", True)


def test_a_file_that_is_moved_is_noticed(path: Path) -> None:
    """A put raises, and requires that the inbox is opened again."""
    with closing(opened(path)) as inbox:
        path.rename(path.with_name("elsewhere.db"))
        with pytest.raises(InboxUnavailable) as lost:
            inbox.put([event(1)])
        assert (lost.value.reason, lost.value.reopen) == ("vanished", True)
        with pytest.raises(InboxUnavailable):
            inbox.probe()


def test_a_wal_that_is_deleted_is_noticed(path: Path) -> None:
    """Events written to it would be lost when the process exits."""
    with closing(opened(path)) as inbox:
        inbox.put([event(1)])
        path.with_name("inbox.db-wal").unlink()
        with pytest.raises(InboxUnavailable) as raised:
            inbox.put([event(2)])
        assert raised.value.reason == "vanished"


def test_bodies_are_dropped_before_ids(path: Path) -> None:
    """Duplicates are recognized for the whole retention, also after the data was dropped."""
    with closing(opened(path, body_retention=HOUR // 2)) as inbox, closing(SqliteLog(path)) as log:
        inbox.put([event(number, at=NOW - HOUR * 3 // 4) for number in range(600)])
        inbox.put([event(number) for number in range(600, 610)])
        assert inbox.purge(NOW)
        while inbox.purge(NOW):
            pass
        assert [record.event for record in log.read(0, 1000)] == [event(number) for number in range(600, 610)]
        assert log.find(event(5).id) is None
        assert log.find(event(605).id) is not None
        assert set(inbox.put([event(5), event(605)])) == {"duplicate"}
        assert inbox.size().events == 610
        while inbox.purge(NOW + HOUR // 2):
            pass
        assert inbox.size().events == 10
        assert not inbox.purge(NOW + HOUR // 2)


def test_events_from_the_low_watermark_on_are_not_purged(path: Path) -> None:
    """Neither events nor bodies, however old they are; earlier ones are, and the rest once they are not needed."""
    needed: list[int | None] = [400]
    inbox = SqliteInbox(path, Terms(HOUR, HOUR // 2, low_watermark=lambda _: needed[0]))
    with closing(inbox), closing(SqliteLog(path)) as log:
        inbox.put([event(number) for number in range(1, 601)])
        for later in (HOUR * 3 // 4, 2 * HOUR):
            while inbox.purge(NOW + later):
                pass
            assert [record.position for record in log.read(0, 1000)] == list(range(400, 601))
            assert not inbox.purge(NOW + later)
        needed[0] = None
        while inbox.purge(NOW + 2 * HOUR):
            pass
        assert inbox.size().events == 0


def test_a_reader_creates_no_inbox(path: Path) -> None:
    """A missing inbox is an error."""
    with pytest.raises(InboxUnavailable):
        SqliteLog(path)
    assert not path.exists()


def test_a_reader_needs_no_writer(path: Path) -> None:
    """The events can be read while the server is down."""
    inbox = opened(path)
    inbox.put([event(1)])
    inbox.close()
    with closing(SqliteLog(path)) as log:
        assert len(log.read(0, 10)) == 1


def test_the_wal_of_a_killed_process_is_checkpointed_first(path: Path) -> None:
    """Its events may not be synced: they must be on disk before a retry of them is answered as a duplicate."""
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom service.storage.protocols import Terms\n"
        "from service.storage.sqlite import SqliteInbox\n"
        "from tests.support.events import event\n"
        "inbox = SqliteInbox(Path(sys.argv[1]), Terms(10**12, 10**12))\n"
        "inbox._db.pragma('synchronous', 'OFF')\ninbox.put([event(1)])\nos.kill(os.getpid(), 9)\n"
    )
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", program, str(path)], env=environ, check=False)
    wal = path.with_name("inbox.db-wal")
    assert wal.stat().st_size > 0
    with closing(opened(path)) as inbox:
        assert wal.stat().st_size == 0
        assert inbox.put([event(1)]) == ["duplicate"]
