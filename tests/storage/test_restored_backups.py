"""Backups of `inbox.db` and `relay.db` of different ages, restored in any combination: no stored event is skipped."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import apsw
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.relay.destinations import Destination
from service.relay.planner import Planner
from service.storage.deliveries import Delivery, Ruling, Settlement, Verdict
from service.storage.delivery_policy import DELIVERY_POLICY
from service.storage.protocols import Terms
from service.storage.sqlite import SqliteInbox, SqliteLog, schema
from service.storage.sqlite.delivery_database import SqliteDeliveryDatabase
from service.storage.timelines import Timeline, common_end
from tests.contract.test_deliveries import BAD, NOW, OK, SqliteState, claim_some
from tests.support.events import DAY, event
from tests.support.instruments import relay_instruments

DESTINATION = """{"name": "app", "url": "https://app.example/", "format": "meta", "secretFile": "secret",
                  "from": "beginning", "tests": true}"""
APP = {"app": Destination.model_validate_json(DESTINATION)}


class Site:
    """An inbox, its relay's state, and backups of both. The application rejects every fourth event."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.files = {"inbox": directory / "inbox.db", "relay": directory / "relay.db"}
        self.backups: dict[str, list[Path]] = {"inbox": [], "relay": []}
        self.delivered: set[str] = set()
        self.rejected: set[str] = set()
        self.numbers = 0
        self.inbox = self.opened_inbox()
        self.log: SqliteLog | None = None
        self.deliver()

    def opened_inbox(self) -> SqliteInbox:
        return SqliteInbox(self.files["inbox"], Terms(DAY, DAY))

    def restart(self) -> None:
        """Restart the receiver."""
        self.inbox.close()
        self.inbox = self.opened_inbox()

    def receive(self, count: int = 1) -> None:
        self.inbox.put([event(self.numbers + each) for each in range(1, count + 1)])
        self.numbers += count

    def stop_relay(self) -> None:
        if self.log is not None:
            self.log.close()
            self.state.close()
            self.log = None

    def start_relay(self) -> SqliteLog:
        if self.log is None:
            self.log = SqliteLog(self.files["inbox"])
            self.state = SqliteState(SqliteDeliveryDatabase(self.files["relay"]))
            self.planner = Planner(
                self.state,
                self.start_relay,
                instruments=relay_instruments(clock=lambda: NOW),
                policy=DELIVERY_POLICY,
                retention_ms=DAY,
            )
            self.planner.adopt(self.log)
            self.planner.join(APP)
        return self.log

    def plan(self) -> None:
        """Read the log, and deliver nothing yet."""
        self.start_relay()
        while self.planner.plan(APP):
            pass

    def deliver(self, most: int = 1_000_000) -> None:
        """Read the log, and make an attempt for each pending delivery."""
        self.plan()
        while most and (claims := claim_some(self.state, now=NOW * 2, name="app")):
            (claim,), most = claims, most - 1
            events = {**self.state.saved([claim.position]), **dict(self.start_relay().at([claim.position]))}
            if claim.position not in events:  # the backup lacks it
                gone = Ruling(Verdict.DEAD_LETTER, reason="retention")
                assert not self.state.settle([Settlement(claim, BAD, gone)])
                continue
            identity = events[claim.position].id
            rejects = int(identity.split(":")[1].removeprefix("wamid.")) % 4 == 0 and not claim.replay
            verdict = Ruling(Verdict.DEAD_LETTER, reason="rejected") if rejects else Ruling(Verdict.DELIVERED)
            assert not self.state.settle([Settlement(claim, BAD if rejects else OK, verdict)])
            (self.rejected if rejects else self.delivered).add(identity)
        self.planner.tidy(APP)

    def back_up(self, name: str) -> None:
        self.backups[name].append(self.directory / f"{name}-{len(self.backups[name])}")
        source = apsw.Connection(str(self.files[name]), flags=apsw.SQLITE_OPEN_READONLY)
        to = apsw.Connection(str(self.backups[name][-1]))
        with closing(to), closing(source), to.backup("main", source, "main") as copying:
            copying.step()

    def restore(self, name: str, which: int) -> None:
        """Stop everything, replace one file by a backup, and start the receiver: the relay may start later."""
        self.stop_relay()
        self.inbox.close()
        for suffix in ("", "-wal", "-shm"):
            self.files[name].with_name(self.files[name].name + suffix).unlink(missing_ok=True)
        shutil.copy(self.backups[name][which % len(self.backups[name])], self.files[name])
        self.inbox = self.opened_inbox()

    def stored(self) -> set[str]:
        return {record.event.id for record in self.start_relay().read(0, 1_000_000)}

    def dead(self) -> dict[int, str]:
        """Return the ids of the events of the dead letters whose event is still stored, by position."""
        positions = [letter.position for letter in self.state.dead_letters(limit=None)]
        events = {**self.state.saved(positions), **dict(self.start_relay().at(positions))}
        return {position: events[position].id for position in positions if position in events}

    def close(self) -> None:
        self.stop_relay()
        self.inbox.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with closing(Site(tmp_path)) as made:
        yield made


def test_an_inbox_that_is_older_than_the_relays_state(site: Site) -> None:
    """The relay is ahead, and starts after the receiver has stored more events than the backup lacks."""
    site.receive(3)
    site.deliver()
    site.back_up("inbox")
    site.receive(3)
    site.deliver()
    site.restore("inbox", 0)
    site.receive(9)
    site.deliver()
    assert site.stored() <= site.delivered | site.rejected


def test_a_state_of_the_relay_that_arrives_after_new_events(site: Site) -> None:
    """First the older backups of both are restored and used; later the newer state of the lost time is put there."""
    site.receive(3)
    site.deliver()
    site.back_up("inbox")
    site.back_up("relay")
    site.receive(5)
    site.deliver()
    site.back_up("relay")
    site.restore("relay", 0)
    site.restore("inbox", 0)
    site.receive(2)
    site.restore("relay", 1)
    site.receive(5)
    site.deliver()
    assert site.stored() <= site.delivered | site.rejected
    assert site.dead() == {10: event(12).id}, "dead letters of the lost time are dropped"


def test_pending_deliveries_of_events_that_the_backup_lacks(site: Site) -> None:
    """They become dead letters, which says what is lost; the new events are planned on their own."""
    site.receive(2)
    site.deliver()
    site.back_up("inbox")
    site.receive(4)
    site.plan()
    site.restore("inbox", 0)
    site.receive(1)
    site.deliver()
    assert [letter.position for letter in site.state.dead_letters(limit=None)] == [3, 4, 5, 6]
    assert site.stored() <= site.delivered | site.rejected


def test_dead_letters_stay_and_can_be_replayed(site: Site) -> None:
    """Also those of events that the restored inbox lacks: no other event gets their position."""
    site.receive(4)
    site.back_up("inbox")
    site.receive(5)
    site.deliver()
    before = site.dead()
    assert len(before) > 1
    site.restore("inbox", 0)
    site.receive(9)
    site.deliver()
    assert before.items() <= site.dead().items()
    again = [Delivery(position, "queue", NOW) for position in before]
    assert site.state.replay("app", again, now=NOW) == len(before)
    site.restore("inbox", 0)
    site.receive(3)
    site.deliver()
    assert set(before.values()) <= site.delivered


def test_a_new_inbox_starts_at_the_first_position(site: Site) -> None:
    """The state of the relay belongs to another one, so it has no say."""
    site.receive(4)
    site.deliver()
    site.stop_relay()
    site.inbox.close()
    for file in site.directory.glob("inbox.db*"):
        file.unlink()
    site.inbox = site.opened_inbox()
    site.receive(1)
    site.deliver()
    assert [record.position for record in site.start_relay().read(0, 9)] == [1]
    assert site.stored() <= site.delivered | site.rejected


def test_a_state_of_a_version_without_timelines(site: Site) -> None:
    """The receiver reads its position too, so that a backup can be restored together with the upgrade."""
    site.receive(3)
    site.deliver()
    site.back_up("inbox")
    site.receive(3)
    site.deliver()
    site.stop_relay()
    with closing(apsw.Connection(str(site.files["relay"]))) as db:
        db.execute("CREATE TABLE origin (identity INTEGER NOT NULL) STRICT").fetchall()
        db.execute("INSERT INTO origin SELECT number FROM timeline ORDER BY rowid LIMIT 1").fetchall()
        db.execute("DROP TABLE timeline").fetchall()
        db.pragma("user_version", 3)
    site.restore("inbox", 0)
    site.receive(2)
    site.deliver()
    assert site.stored() <= site.delivered | site.rejected


def test_a_restarted_receiver_makes_no_duplicates(site: Site) -> None:
    """A new timeline of the same log changes nothing, whichever process is restarted first."""
    for _ in range(3):
        site.receive(2)
        site.deliver()
        before = len(site.delivered | site.rejected)
        site.restart()
        site.receive(2)
        site.plan()
        site.stop_relay()
        site.plan()
        assert site.state.statuses()[0].backlog == 2
        site.deliver()
        assert len(site.delivered | site.rejected) == before + 2


def test_a_destination_that_is_added_after_a_restart_starts_at_the_end(site: Site) -> None:
    """The relay ran without one, so it read nothing since the receiver was restarted."""
    site.receive(2)
    site.deliver()
    site.planner.join({})
    site.restart()
    site.receive(3)
    later = {"later": APP["app"].model_copy(update={"name": "later", "begin": "now"})}
    site.planner.join(later)
    site.receive(1)
    assert not site.planner.plan(later)
    assert [each.position for each in site.state.pending("later", after=0, limit=9, now=NOW)] == [6]


def test_an_inbox_has_a_bounded_number_of_timelines(site: Site) -> None:
    """The oldest are deleted, but never the first, which is the log itself; a process that stores nothing has none."""
    site.restart()
    site.restart()
    site.receive()
    first, second = site.start_relay().timelines()
    for _ in range(schema.MAX_TIMELINES):
        schema.start_timeline(site.inbox._db, 0)
    after = site.start_relay().timelines()
    assert len(after) == 1 + schema.MAX_TIMELINES
    assert after[0] == first
    assert second not in after


OPERATIONS = st.one_of(
    st.tuples(st.just("receive"), st.integers(1, 5)),
    st.tuples(st.just("deliver"), st.integers(0, 4)),
    st.tuples(st.sampled_from(["restart", "plan", "stop_relay"])),
    st.tuples(st.just("back_up"), st.sampled_from(["inbox", "relay"])),
    st.tuples(st.just("restore"), st.sampled_from(["inbox", "relay"]), st.integers(0, 3)),
)


@settings(max_examples=150, deadline=None)
@given(operations=st.lists(OPERATIONS, max_size=25))
@example(operations=[("receive", 3), ("deliver", 9), ("restore", "inbox", 0), ("receive", 5)])
@example(
    operations=[
        *[("receive", 3), ("deliver", 9), ("back_up", "relay"), ("restore", "relay", 0), ("restore", "inbox", 0)],
        *[("receive", 2), ("restore", "relay", 1), ("receive", 5)],
    ]
)
def test_no_stored_event_is_skipped(operations: Sequence[tuple[object, ...]]) -> None:
    """Whatever is restored in whatever order, at the end each stored event was delivered or is a dead letter."""
    with TemporaryDirectory() as directory, closing(Site(Path(directory))) as site:
        site.back_up("inbox")
        site.back_up("relay")
        for name, *arguments in operations:
            getattr(site, str(name))(*arguments)
        site.deliver()
        assert site.stored() <= site.delivered | set(site.dead().values())
        assert set(site.dead().values()) <= site.rejected


@pytest.mark.parametrize(
    ("known", "current", "end"),
    [
        ("a0", "a0", None),
        ("a0", "a0 b5", None),
        ("a0 b0", "a0 b0", None),
        ("a0 b0", "a0 b0 c3", 3),
        ("a0 b0 c7", "a0 b0", None),
        ("a0 b0 c7", "a0 b0 d5 e8", 5),
        ("a0 y7 z8", "a0 b2 c5", 2),
    ],
)
def test_the_position_after_which_a_log_has_other_events(known: str, current: str, end: int | None) -> None:
    """It is where the first timeline starts that the state does not know."""
    one, other = ([Timeline(ord(name), int(start)) for name, start in text.split()] for text in (known, current))
    assert common_end(one, other) == end
