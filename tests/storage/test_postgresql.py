"""The PostgreSQL inbox beyond the contract: its partitions, its versions, who stands between, and how it is reached."""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import psycopg
import pytest
import trustme

from service.config import InboxUrl, inbox_url
from service.errors import InboxUnavailable
from service.storage import engines, postgresql
from service.storage.postgresql import PostgresqlInbox, connection, schema
from service.storage.postgresql.connection import ServerAddress
from service.storage.postgresql.inbox import MAX_COUNTED_EVENTS
from service.storage.postgresql.schema import Migration
from service.storage.protocols import Outcome, Terms
from tests.support.engines import HOUR, Servers, Subject
from tests.support.events import DAY, NOW, event
from tests.support.server import free_port, until
from tests.support.servers.postgresql import Postgresql, programs
from tests.support.servers.process import Process, directory, unprivileged

pytestmark = pytest.mark.needs("postgresql")


@pytest.fixture
def url(servers: Servers) -> InboxUrl:
    return inbox_url(servers.postgresql().new_database())


def opened(url: InboxUrl, *, body_retention: int = HOUR, **terms: float) -> PostgresqlInbox:
    return postgresql.ENGINE.inbox_opener(url, Terms(HOUR, body_retention, **terms))()


def partitions_of(inbox: PostgresqlInbox) -> set[str]:
    query = "SELECT relid::regclass::text FROM pg_partition_tree('whatsapp_webhook.event') WHERE isleaf"
    return {name.rpartition(".")[2] for (name,) in inbox._db.execute(query)}


def refusal(url: InboxUrl) -> InboxUnavailable:
    with pytest.raises(InboxUnavailable) as refused:
        opened(url)
    return refused.value


def test_partitions_are_there_before_their_day(url: InboxUrl) -> None:
    """So that midnight is like any other moment; what has no day of its own has one for all."""
    with closing(opened(url)) as inbox:
        inbox.purge(NOW)
        assert partitions_of(inbox) == {
            "event_timeless",
            "event_20261118",
            "event_20261119",
            "event_20261120",
        }
        inbox.put([msgspec.structs.replace(event(1), own_time=NOW - 100 * DAY)])
        inbox.put([msgspec.structs.replace(event(2), own_time=NOW - 101 * DAY, field="history")])
        inbox.put([msgspec.structs.replace(event(3), own_time=10**15)])
        assert len(partitions_of(inbox)) == 5


def test_a_partition_goes_whole(url: InboxUrl) -> None:
    """Once everything in it is too old, and nobody needs any of it."""
    needed: list[int | None] = [1]
    terms = Terms(HOUR, HOUR, hold=lambda _: needed[0])
    with closing(postgresql.ENGINE.inbox_opener(url, terms)()) as inbox:
        old = [
            msgspec.structs.replace(event(number), own_time=NOW - 3 * DAY, received_at=NOW - 3 * DAY)
            for number in range(5)
        ]
        inbox.put(old)
        late = msgspec.structs.replace(event(9), own_time=NOW - 3 * DAY, received_at=NOW)  # Meta tried again for days
        inbox.put([late])
        assert not inbox.purge(NOW)
        assert "event_20261115" in partitions_of(inbox)
        assert not inbox.purge(NOW + 2 * HOUR)  # the relay still needs it
        needed[0] = None
        assert inbox.purge(NOW + 2 * HOUR)
        assert "event_20261115" not in partitions_of(inbox)


def test_a_reader_holds_a_drop_back_and_is_not_held(url: InboxUrl) -> None:
    """The drop waits for moments only, as all that comes after it waits for it."""
    with closing(opened(url)) as inbox, psycopg.connect(url.text) as reader:
        inbox.put([event(1, at=NOW - 3 * DAY)])
        reader.execute("SELECT count(*) FROM whatsapp_webhook.event")  # in a transaction that stays open
        started = time.monotonic()
        assert not inbox.purge(NOW)
        assert time.monotonic() - started < 1
        assert inbox.put([event(2)]) == [Outcome.NEW]
        reader.commit()
        assert not inbox.purge(NOW)  # nor is it tried again at once
        inbox._purge._not_before = 0
        assert inbox.purge(NOW)


def test_bodies_go_earlier_and_ids_stay(url: InboxUrl) -> None:
    """By `body_retention`; a repeat is still told."""
    with closing(opened(url, body_retention=HOUR // 2)) as inbox, closing(engines.open_log(url)) as log:
        inbox.put([event(number, at=NOW - HOUR * 3 // 4) for number in range(300)])
        inbox.put([event(number) for number in range(300, 303)])
        while inbox.purge(NOW):
            pass
        assert [record.event for record in log.read(0, 1000)] == [event(number) for number in range(300, 303)]
        assert log.first() == log.read(0, 1)[0].position
        assert inbox.put([event(5, at=NOW - HOUR * 3 // 4)]) == [Outcome.DUPLICATE]


def test_what_commits_late_is_not_passed(url: InboxUrl) -> None:
    """A reader sees no position before all that come earlier: who appends next waits for who is just committing."""
    with closing(opened(url)) as slow, closing(opened(url)) as fast, closing(engines.open_log(url)) as log:
        slow.purge(NOW)
        slow.put([event(0)])
        slow._db.execute("BEGIN")
        slow.put([event(1)])
        told: list[Outcome] = []
        other = threading.Thread(target=lambda: told.extend(fast.put([event(2)])))
        other.start()
        time.sleep(0.2)
        assert [record.event.id for record in log.read(0, 10)] == [event(0).id]
        slow._db.execute("COMMIT")
        other.join()
        assert told == [Outcome.NEW]
        assert [record.event.id for record in log.read(0, 10)] == [event(number).id for number in range(3)]


def test_a_later_version_that_we_still_work_with(url: InboxUrl) -> None:
    """A rolling update: the new pod has taken its step, the old one goes on writing, and is started once more."""
    step = Migration("ALTER TABLE whatsapp_webhook.event ADD COLUMN more text", works_with=1)
    with closing(opened(url)) as old:
        old.put([event(1)])
        with closing(connection.connect(ServerAddress.of(url, timeout=2))) as db:
            schema.migrate(db, "inbox", (*schema.MIGRATIONS, step))
        assert old.put([event(1), event(2)]) == [Outcome.DUPLICATE, Outcome.NEW]
    with closing(opened(url)) as again, closing(engines.open_log(url)) as log:
        again.put([event(3)])
        assert len(log.read(0, 10)) == 3


def test_a_later_version_that_needs_a_later_one(url: InboxUrl) -> None:
    """It is said, and nothing is touched."""
    step = Migration("DROP TABLE whatsapp_webhook.progress", works_with=len(schema.MIGRATIONS) + 1)
    with closing(connection.connect(ServerAddress.of(url, timeout=2))) as db:
        schema.migrate(db, "inbox", (*schema.MIGRATIONS, step))
    assert refusal(url).reason == "newer"


def test_a_migration_under_load(url: InboxUrl) -> None:
    """Old and new at once, both writing: no put fails, and every event is there."""
    step = Migration("ALTER TABLE whatsapp_webhook.event ADD COLUMN more text", works_with=1)
    over = threading.Event()
    kept: list[int] = []

    def write() -> None:
        with closing(opened(url)) as old:
            for number in range(10**6):
                if over.is_set():
                    return
                old.put([event(number)])
                kept.append(number)

    thread = threading.Thread(target=write)
    thread.start()
    until(lambda: len(kept) > 50, "nothing is written")
    with closing(connection.connect(ServerAddress.of(url, timeout=2))) as db:
        schema.migrate(db, "inbox", (*schema.MIGRATIONS, step))
    before = len(kept)
    until(lambda: len(kept) > before + 50, "the old one stopped")
    over.set()
    thread.join()
    assert {each.id for each in Subject.of(url).kept()} == {event(number).id for number in kept}


def test_an_empty_database_for_a_reader(url: InboxUrl) -> None:
    """It is not made by who only looks."""
    with pytest.raises(InboxUnavailable, match="holds no inbox yet"):
        engines.open_log(url)


def test_a_user_that_may_not(servers: Servers, url: InboxUrl) -> None:
    """Said as what it is, with the remedy."""
    servers.postgresql().execute("DO $$ BEGIN CREATE ROLE nobody LOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
    assert refusal(inbox_url(url.text.replace("postgres@", "nobody@"))).reason == "denied"


@pytest.mark.parametrize(
    ("change", "reason", "said"),
    [
        (lambda text: text.rpartition("/")[0] + "/nowhere", "cannot_open", "no such database"),
        (lambda _: "postgresql://postgres@127.0.0.1:1/x", "unreachable", "is it up"),
        (lambda text: text + "?sslmode=require", "tls", "sslmode"),
        (lambda _: "postgresql://postgres@nowhere.invalid/x", "unreachable", "is this its address"),
    ],
)
def test_a_server_that_can_not_be_had(url: InboxUrl, change: object, reason: str, said: str) -> None:
    """Each in words, within its time."""
    started = time.monotonic()
    refused = refusal(inbox_url(change(url.text)))  # type: ignore[operator]
    assert (refused.reason, said in refused.detail) == (reason, True), refused.detail
    assert "postgres@" not in refused.detail
    assert time.monotonic() - started < 4


@pytest.mark.parametrize("text", ["postgresql://me:secret@host/x?sslmod=require", "postgresql://me:%zzsecret@host/y"])
def test_a_url_that_is_none_is_not_said_again(text: str) -> None:
    """It may hold a password."""
    (problem,) = connection.problems(inbox_url(text))
    assert "libpq" in problem
    assert "secret" not in problem


@pytest.mark.needs("postgresql_tls")
def test_tls_and_a_password(tmp_path: Path) -> None:
    """Verified in full, the password from a mounted file."""
    authority = trustme.CA()
    with Postgresql(home=programs(tls=True)) as server:
        certificate = authority.issue_cert("localhost")
        certificate.private_key_pem.write_to_path(server.data / "server.key")
        certificate.cert_chain_pems[0].write_to_path(server.data / "server.crt")
        (server.data / "server.key").chmod(0o600)
        if (user := unprivileged()) is not None:
            shutil.chown(server.data / "server.key", user)
        authority.cert_pem.write_to_path(tmp_path / "ca.crt")
        server.execute("CREATE ROLE receiver LOGIN PASSWORD 'one' SUPERUSER")
        server.configure(ssl="on")
        (server.data / "pg_hba.conf").write_text(
            "hostssl all receiver 127.0.0.1/32 scram-sha-256\nhost all postgres 127.0.0.1/32 trust\n"
        )
        server.configure()
        passwords = tmp_path / "pgpass"
        passwords.write_text(f"localhost:{server.port}:*:receiver:one\n")
        passwords.chmod(0o600)
        rest = f"receiver@localhost:{server.port}/postgres?sslmode=verify-full&hostaddr=127.0.0.1"
        url = f"postgresql://{rest}&sslrootcert={tmp_path}/ca.crt"
        until(lambda: refusal(inbox_url(url)).reason == "denied", "anybody gets in")
        with closing(opened(inbox_url(f"{url}&passfile={passwords}"))) as inbox:
            assert inbox.put([event(1)]) == [Outcome.NEW]
            assert inbox._db.info.parameter_status("is_superuser") == "on"
            assert inbox._db.pgconn.ssl_in_use
        trustme.CA().cert_pem.write_to_path(tmp_path / "ca.crt")
        assert refusal(inbox_url(f"{url}&passfile={passwords}")).reason == "tls"


@pytest.fixture
def pgbouncer(servers: Servers) -> Iterator[int]:
    """One in transaction mode, with a single connection of its own to the server."""
    server, port, made = servers.postgresql(), free_port(), directory("pgbouncer")
    (made / "users").write_text('"postgres" ""\n')
    (made / "ini").write_text(
        f"[databases]\n* = host=127.0.0.1 port={server.port} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nauth_type = any\nauth_file = {made}/users\npool_mode = transaction\n"
        f"default_pool_size = 2\nunix_socket_dir = \nlogfile = {made}/pgbouncer.log\nserver_reset_query = \n"
    )
    process = Process(["pgbouncer", str(made / "ini")], made / "out", user=unprivileged())
    process.log.touch()

    def is_up() -> bool:
        try:
            psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres", connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    process.start(is_up)
    yield port
    process.kill()
    shutil.rmtree(made, ignore_errors=True)


@pytest.mark.needs("pgbouncer")
def test_behind_pgbouncer(pgbouncer: int, servers: Servers) -> None:
    """In transaction mode, three who write over two connections: nothing depends on which one it is."""
    direct = servers.postgresql().new_database()
    url = inbox_url(direct.replace(str(servers.postgresql().port), str(pgbouncer)))
    inboxes = [opened(url) for _ in range(3)]
    for number in range(60):
        assert inboxes[number % 3].put([event(number), event(number + 1)]) == [
            "new" if number == 0 else "duplicate",
            "new",
        ]
    for inbox in inboxes:
        inbox.probe()
        inbox.purge(NOW)
        inbox.close()
    assert len(Subject.of(url).kept()) == 61


def test_nothing_waits_for_ever(url: InboxUrl) -> None:
    """A lock that somebody holds, as long as they like: an answer comes within the timeout."""
    with closing(opened(url, timeout=0.5)) as inbox, psycopg.connect(url.text) as other:
        inbox.put([event(1)])
        other.execute("LOCK TABLE whatsapp_webhook.event")
        started = time.monotonic()
        with pytest.raises(InboxUnavailable) as refused:
            inbox.put([event(2)])
        assert time.monotonic() - started < 1
        assert (refused.value.reason, refused.value.reopen) == ("locked", False)


def test_what_comes_while_a_partition_is_dropped(url: InboxUrl) -> None:
    """Who drops looks once more when nobody else writes: what was just appended to it is not taken along."""
    with closing(opened(url)) as slow, closing(opened(url)) as purging:
        day = NOW - 3 * DAY
        slow.put([msgspec.structs.replace(event(1), own_time=day, received_at=day)])
        slow._db.execute("BEGIN")
        slow.put([msgspec.structs.replace(event(2), own_time=day, received_at=NOW)])
        commit = threading.Timer(0.05, lambda: slow._db.execute("COMMIT"))
        commit.start()
        assert not purging.purge(NOW)
        commit.join()
    assert event(2).id in {each.id for each in Subject.of(url).kept()}


def test_where_an_empty_log_ends(url: InboxUrl) -> None:
    """Before what is just being appended: a reader that begins there does not pass it."""
    with closing(opened(url)) as inbox:
        inbox.purge(NOW)
        inbox.put([event(0)])
        inbox._db.execute("TRUNCATE whatsapp_webhook.event")
        with closing(engines.open_log(url)) as log:
            inbox._db.execute("BEGIN")
            inbox.put([event(1)])
            last = log.last()
            assert log.first() == last + 1
            inbox._db.execute("COMMIT")
            (record,) = log.read(last, 10)
            assert record.event == event(1)


def test_standbys_that_are_away() -> None:
    """What they may not have is not told as kept: neither at once, nor as the repeat of what was kept before."""
    with Postgresql() as server:
        url = inbox_url(server.new_database())
        with closing(opened(url, timeout=0.5)) as inbox:
            inbox.purge(NOW)
            server.configure_and_wait(synchronous_standby_names="nobody")
            server.execute("CHECKPOINT")  # the checkpointer is who tells the others that commits have to wait
            for _ in range(3):
                with (
                    closing(opened(url, timeout=0.5)) as again,
                    pytest.raises(InboxUnavailable, match=r"in time|standbys"),
                ):
                    again.put([event(1)])
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            until(lambda: server.execute(waiting) == [(0,)], "sessions wait for ever")
            server.configure_and_wait(synchronous_standby_names="")
            assert inbox.put([event(1), event(2)]) == [Outcome.DUPLICATE, Outcome.NEW]


def test_an_event_that_no_column_holds(url: InboxUrl) -> None:
    """It is at fault, and not the inbox."""
    for odd in (
        msgspec.structs.replace(event(1), time=2**70),
        msgspec.structs.replace(event(1), own_time=2**63),
        msgspec.structs.replace(event(1), subject="\ud800"),
    ):
        with closing(opened(url)) as inbox, pytest.raises(InboxUnavailable) as refused:
            inbox.put([odd])
        assert refused.value.alone
        assert not refused.value.reopen


def test_sessions_do_not_pile_up(url: InboxUrl) -> None:
    """While a lock is held, whoever gave up waiting for it is gone from the server too."""
    opened(url).close()
    with psycopg.connect(url.text) as other:
        other.execute("LOCK TABLE whatsapp_webhook.event")
        for _ in range(6):
            with pytest.raises(InboxUnavailable):
                opened(url, timeout=0.2)
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'whatsapp-webhook' AND datname = "
        found = other.execute(query + "current_database()").fetchone()
        assert found is not None
        assert found[0] <= 1


def test_how_much_is_held_is_estimated_where_it_is_much(url: InboxUrl) -> None:
    """Counting would keep notifications waiting; the server's own estimate is near."""
    with closing(opened(url)) as inbox:
        for start in range(0, MAX_COUNTED_EVENTS + 5000, 5000):
            inbox.put([event(number) for number in range(start, start + 5000)])
        inbox._db.execute("ANALYZE whatsapp_webhook.event")
        inbox._measure()
        assert inbox.size().events == pytest.approx(MAX_COUNTED_EVENTS + 5000, rel=0.1)
