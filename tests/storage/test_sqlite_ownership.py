"""Another program's SQLite file is not changed by a byte; our own opens after a kill during its first start."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from service.errors import InboxUnavailable
from service.storage.delivery_policy import DELIVERY_POLICY
from service.storage.protocols import Terms
from service.storage.sqlite import SqliteErasure, SqliteInbox, SqliteLog
from service.storage.sqlite.delivery_admin import low_watermark
from service.storage.sqlite.delivery_database import SqliteDeliveryDatabase
from service.storage.sqlite.ownership import MAX_UNMARKED_BYTES
from tests.support.events import HOUR, event

# A process that is killed, so that its changes are in the WAL or in the journal.
_KILLED = """
import os, sys, apsw
db = apsw.Connection(sys.argv[1])
for statement in sys.argv[2:]:
    db.execute(statement).fetchall()
os.kill(os.getpid(), 9)
"""
TABLE = "CREATE TABLE theirs (a); INSERT INTO theirs VALUES (randomblob(5000))"


def killed(path: Path, *statements: str) -> None:
    subprocess.run([sys.executable, "-c", _KILLED, str(path), *statements], check=False)


def plain(path: Path) -> None:
    with closing(apsw.Connection(str(path))) as db:
        db.execute(TABLE).fetchall()


def version_alone(path: Path) -> None:
    with closing(apsw.Connection(str(path))) as db:
        db.pragma("user_version", 7)


def other_id(path: Path) -> None:
    with closing(apsw.Connection(str(path))) as db:
        db.pragma("application_id", 0x0F055112)


def wal_mode(path: Path) -> None:
    with closing(apsw.Connection(str(path))) as db:
        db.pragma("journal_mode", "wal")
        db.execute(TABLE).fetchall()


def tables_in_the_wal_alone(path: Path) -> None:
    killed(path, "PRAGMA journal_mode=wal", TABLE)
    assert path.with_name("inbox.db-wal").stat().st_size > 0
    assert path.stat().st_size == 4096, "the file has no table yet"


def hot_journal(path: Path) -> None:
    plain(path)
    killed(path, "PRAGMA cache_size=1", "PRAGMA cache_spill=1", "BEGIN", "UPDATE theirs SET a = randomblob(400000)")
    assert path.with_name("inbox.db-journal").stat().st_size > 0


def dropped_in_a_hot_journal(path: Path) -> None:
    """Drop the table in the file, with a journal that would restore it."""
    with closing(apsw.Connection(str(path))) as db:
        db.execute("CREATE TABLE theirs (a)").fetchall()
        db.execute("BEGIN; DROP TABLE theirs").fetchall()
        db.cache_flush()
        saved = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    for name, content in saved.items():
        (path.parent / name).write_bytes(content)
    assert "inbox.db-journal" in saved


def large(path: Path) -> None:
    with closing(apsw.Connection(str(path))) as db:
        db.execute(
            f"CREATE TABLE theirs (a); INSERT INTO theirs VALUES (zeroblob({MAX_UNMARKED_BYTES + 1}))"
        ).fetchall()


FOREIGN: dict[str, Callable[[Path], None]] = {
    made.__name__: made
    for made in (
        plain,
        version_alone,
        other_id,
        wal_mode,
        tables_in_the_wal_alone,
        hot_journal,
        dropped_in_a_hot_journal,
        large,
    )
}
OPENERS: dict[str, Callable[[Path], object]] = {
    "inbox": lambda path: SqliteInbox(path, Terms(HOUR, HOUR)),
    "log": SqliteLog,
    "erasure": SqliteErasure,
    "relay": SqliteDeliveryDatabase,
    "low-watermark": lambda path: low_watermark(path, now=0, policy=DELIVERY_POLICY),
}


def files(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in directory.iterdir()}


@pytest.mark.parametrize("opener", OPENERS.values(), ids=OPENERS)
@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN)
def test_another_programs_database_is_not_changed(
    make: Callable[[Path], None], opener: Callable[[Path], object], tmp_path: Path
) -> None:
    """No file is written, removed or created: neither the database nor its `-wal`, `-shm` and `-journal`."""
    path = tmp_path / "inbox.db"
    make(path)
    before = files(tmp_path)
    with pytest.raises(InboxUnavailable) as raised:
        opener(path)
    assert raised.value.reason == "foreign"
    assert str(path) in raised.value.detail
    assert files(tmp_path) == before


@pytest.mark.parametrize("opener", ["log", "erasure"])
def test_a_reader_creates_no_inbox_in_an_empty_file(opener: str, tmp_path: Path) -> None:
    """Only the server creates an inbox."""
    path = tmp_path / "inbox.db"
    path.touch()
    with pytest.raises(InboxUnavailable, match="there is no inbox"):
        OPENERS[opener](path)
    assert files(tmp_path).keys() == {"inbox.db"}
    assert path.stat().st_size == 0


def test_an_empty_file_becomes_an_inbox(tmp_path: Path) -> None:
    """Such a file is left by `touch`, or by a volume's template."""
    path = tmp_path / "inbox.db"
    path.touch()
    with closing(SqliteInbox(path, Terms(HOUR, HOUR))) as inbox:
        assert inbox.put([event(1)]) == ["new"]


_START = """
import sys
from pathlib import Path
from service.storage.protocols import Terms
from service.storage.sqlite import SqliteInbox
print("begin", flush=True)
SqliteInbox(Path(sys.argv[1]), Terms(10**9, 10**9))
"""


@pytest.mark.needs("strace")
@pytest.mark.parametrize("call", ["pwrite64", "fdatasync,fsync", "ftruncate", "unlink"])
def test_a_first_start_that_is_killed_at_any_step_starts_again(call: str, tmp_path: Path) -> None:
    """The start is killed at its n-th write, sync, truncation or removal, for each n until one start completes."""
    for step in range(1, 200):
        path = tmp_path / str(step) / "inbox.db"
        path.parent.mkdir()
        inject = f"inject={call}:signal=KILL:when={step}"
        command = ["strace", "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject]
        done = subprocess.run([*command, sys.executable, "-c", _START, str(path)], capture_output=True, check=False)
        with closing(SqliteInbox(path, Terms(HOUR, HOUR))) as inbox:
            assert inbox.put([event(1)]) == ["new"]
        with closing(SqliteLog(path)) as log:
            assert len(log.read(0, 10)) == 1
        if done.returncode == 0:
            break
        assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done.stderr
    assert done.returncode == 0
    if call in ("pwrite64", "fdatasync,fsync"):
        assert step > 3, "it was never killed"


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's file is needed")
def test_an_unreadable_file_is_reported(tmp_path: Path) -> None:
    """The error contains its path, owner and mode, and the uid of this process."""
    path = tmp_path / "inbox.db"
    plain(path)
    path.chmod(0o600)
    for directory in (tmp_path, *tmp_path.parents[:3]):
        directory.chmod(0o755)
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom service.errors import InboxUnavailable\n"
        "from service.storage.protocols import Terms\n"
        "from service.storage.sqlite import SqliteInbox\nos.setuid(65534)\n"
        "try: SqliteInbox(Path(sys.argv[1]), Terms(1, 1))\nexcept InboxUnavailable as ex: print(ex.reason, ex.detail)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    for expected in (
        "cannot_open",
        f"{path} can't be used by uid 65534",
        "is owned by 0:0, mode -rw-------",
        "SQLITE_CANTOPEN",
        "chown",
    ):
        assert expected in done.stdout, done.stdout + done.stderr


def locks(path: Path) -> int:
    """Return the number of this process's locks on a file."""
    mine = (f" {os.getpid()} ", f":{path.stat().st_ino} ")
    return sum(all(word in line for word in mine) for line in Path("/proc/locks").read_text().splitlines())


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="/proc/locks is needed")
def test_checking_the_owner_releases_no_lock(tmp_path: Path) -> None:
    """A process that closes a file releases all its locks on it, including those of an open connection."""
    path = tmp_path / "relay.db"
    first = SqliteDeliveryDatabase(path)
    held = locks(path)
    assert held
    second = SqliteDeliveryDatabase(path)  # as the relay has two
    assert locks(path) == held
    second.close()
    assert locks(path) == held
    low_watermark(path, now=0, policy=DELIVERY_POLICY)
    assert locks(path) == held
    first.close()
