"""The PostgreSQL inbox beyond the contract: partitions, migrations, PgBouncer, TLS, locks and standbys."""

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


def rejection(url: InboxUrl) -> InboxUnavailable:
    with pytest.raises(InboxUnavailable) as raised:
        opened(url)
    return raised.value


def test_partitions_are_created_before_their_day(url: InboxUrl) -> None:
    """So no put at midnight must create one. Events without a day share a partition."""
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


def test_a_partition_is_dropped_as_a_whole(url: InboxUrl) -> None:
    """It is dropped once all its events are past the retention and below the low-watermark."""
    needed: list[int | None] = [1]
    terms = Terms(HOUR, HOUR, low_watermark=lambda _: needed[0])
    with closing(postgresql.ENGINE.inbox_opener(url, terms)()) as inbox:
        old = [
            msgspec.structs.replace(event(number), own_time=NOW - 3 * DAY, received_at=NOW - 3 * DAY)
            for number in range(5)
        ]
        inbox.put(old)
        late = msgspec.structs.replace(event(9), own_time=NOW - 3 * DAY, received_at=NOW)  # Meta retried it for days
        inbox.put([late])
        assert not inbox.purge(NOW)
        assert "event_20261115" in partitions_of(inbox)
        assert not inbox.purge(NOW + 2 * HOUR)  # the relay still needs it
        needed[0] = None
        assert inbox.purge(NOW + 2 * HOUR)
        assert "event_20261115" not in partitions_of(inbox)


def test_a_reader_delays_a_drop_but_not_later_puts(url: InboxUrl) -> None:
    """The drop waits for its lock only briefly, as all later statements wait behind it."""
    with closing(opened(url)) as inbox, psycopg.connect(url.text) as reader:
        inbox.put([event(1, at=NOW - 3 * DAY)])
        reader.execute("SELECT count(*) FROM whatsapp_webhook.event")  # its transaction stays open
        started = time.monotonic()
        assert not inbox.purge(NOW)
        assert time.monotonic() - started < 1
        assert inbox.put([event(2)]) == [Outcome.NEW]
        reader.commit()
        assert not inbox.purge(NOW)  # it is not tried again immediately
        inbox._purge._not_before = 0
        assert inbox.purge(NOW)


def test_bodies_are_dropped_before_ids(url: InboxUrl) -> None:
    """Bodies are dropped after `body_retention`; duplicates are still recognized."""
    with closing(opened(url, body_retention=HOUR // 2)) as inbox, closing(engines.open_log(url)) as log:
        inbox.put([event(number, at=NOW - HOUR * 3 // 4) for number in range(300)])
        inbox.put([event(number) for number in range(300, 303)])
        while inbox.purge(NOW):
            pass
        assert [record.event for record in log.read(0, 1000)] == [event(number) for number in range(300, 303)]
        assert log.first() == log.read(0, 1)[0].position
        assert inbox.put([event(5, at=NOW - HOUR * 3 // 4)]) == [Outcome.DUPLICATE]


def test_a_reader_does_not_skip_a_late_commit(url: InboxUrl) -> None:
    """Positions become visible in order: each commit waits for the one before it."""
    with closing(opened(url)) as slow, closing(opened(url)) as fast, closing(engines.open_log(url)) as log:
        slow.purge(NOW)
        slow.put([event(0)])
        slow._db.execute("BEGIN")
        slow.put([event(1)])
        outcomes: list[Outcome] = []
        other = threading.Thread(target=lambda: outcomes.extend(fast.put([event(2)])))
        other.start()
        time.sleep(0.2)
        assert [record.event.id for record in log.read(0, 10)] == [event(0).id]
        slow._db.execute("COMMIT")
        other.join()
        assert outcomes == [Outcome.NEW]
        assert [record.event.id for record in log.read(0, 10)] == [event(number).id for number in range(3)]


def test_tables_of_a_compatible_later_version_are_accepted(url: InboxUrl) -> None:
    """During a rolling update, the old pod keeps writing after the new one's migration, and can restart."""
    step = Migration("ALTER TABLE whatsapp_webhook.event ADD COLUMN more text", works_with=1)
    with closing(opened(url)) as old:
        old.put([event(1)])
        with closing(connection.connect(ServerAddress.of(url, timeout=2))) as db:
            schema.migrate(db, "inbox", (*schema.MIGRATIONS, step))
        assert old.put([event(1), event(2)]) == [Outcome.DUPLICATE, Outcome.NEW]
    with closing(opened(url)) as again, closing(engines.open_log(url)) as log:
        again.put([event(3)])
        assert len(log.read(0, 10)) == 3


def test_tables_of_an_incompatible_later_version_are_rejected(url: InboxUrl) -> None:
    """The error has the reason `newer`."""
    step = Migration("DROP TABLE whatsapp_webhook.progress", works_with=len(schema.MIGRATIONS) + 1)
    with closing(connection.connect(ServerAddress.of(url, timeout=2))) as db:
        schema.migrate(db, "inbox", (*schema.MIGRATIONS, step))
    assert rejection(url).reason == "newer"


def test_a_migration_under_load(url: InboxUrl) -> None:
    """While an old pod writes, the migration makes no put fail, and no event is lost."""
    step = Migration("ALTER TABLE whatsapp_webhook.event ADD COLUMN more text", works_with=1)
    stop = threading.Event()
    stored: list[int] = []

    def write() -> None:
        with closing(opened(url)) as old:
            for number in range(10**6):
                if stop.is_set():
                    return
                old.put([event(number)])
                stored.append(number)

    thread = threading.Thread(target=write)
    thread.start()
    until(lambda: len(stored) > 50, "no event is written")
    with closing(connection.connect(ServerAddress.of(url, timeout=2))) as db:
        schema.migrate(db, "inbox", (*schema.MIGRATIONS, step))
    before = len(stored)
    until(lambda: len(stored) > before + 50, "the old pod stopped writing")
    stop.set()
    thread.join()
    assert {each.id for each in Subject.of(url).kept()} == {event(number).id for number in stored}


def test_a_reader_creates_no_tables(url: InboxUrl) -> None:
    """An empty database is an error."""
    with pytest.raises(InboxUnavailable, match="contains no inbox yet"):
        engines.open_log(url)


def test_a_user_without_privileges_is_rejected(servers: Servers, url: InboxUrl) -> None:
    """The error has the reason `denied`."""
    servers.postgresql().execute("DO $$ BEGIN CREATE ROLE nobody LOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
    assert rejection(inbox_url(url.text.replace("postgres@", "nobody@"))).reason == "denied"


@pytest.mark.parametrize(
    ("change", "reason", "message"),
    [
        (lambda text: text.rpartition("/")[0] + "/nowhere", "cannot_open", "no such database"),
        (lambda _: "postgresql://postgres@127.0.0.1:1/x", "unreachable", "is it up"),
        (lambda text: text + "?sslmode=require", "tls", "sslmode"),
        (lambda _: "postgresql://postgres@nowhere.invalid/x", "unreachable", "is its address right"),
    ],
)
def test_a_failed_connection_is_reported(url: InboxUrl, change: object, reason: str, message: str) -> None:
    """Each failure has its own reason and message, within the timeout, and without the user's name."""
    started = time.monotonic()
    raised = rejection(inbox_url(change(url.text)))  # type: ignore[operator]
    assert (raised.reason, message in raised.detail) == (reason, True), raised.detail
    assert "postgres@" not in raised.detail
    assert time.monotonic() - started < 4


@pytest.mark.parametrize("text", ["postgresql://me:secret@host/x?sslmod=require", "postgresql://me:%zzsecret@host/y"])
def test_an_invalid_url_is_not_repeated(text: str) -> None:
    """It may contain a password."""
    (problem,) = connection.problems(inbox_url(text))
    assert "libpq" in problem
    assert "secret" not in problem


@pytest.mark.needs("postgresql_tls")
def test_tls_and_a_password(tmp_path: Path) -> None:
    """The certificate is verified in full, and the password comes from a mounted file."""
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
        until(lambda: rejection(inbox_url(url)).reason == "denied", "a client without a password is accepted")
        with closing(opened(inbox_url(f"{url}&passfile={passwords}"))) as inbox:
            assert inbox.put([event(1)]) == [Outcome.NEW]
            assert inbox._db.info.parameter_status("is_superuser") == "on"
            assert inbox._db.pgconn.ssl_in_use
        trustme.CA().cert_pem.write_to_path(tmp_path / "ca.crt")
        assert rejection(inbox_url(f"{url}&passfile={passwords}")).reason == "tls"


@pytest.fixture
def pgbouncer(servers: Servers) -> Iterator[int]:
    """PgBouncer in transaction mode, with two connections to the server."""
    server, port, home = servers.postgresql(), free_port(), directory("pgbouncer")
    (home / "users").write_text('"postgres" ""\n')
    (home / "ini").write_text(
        f"[databases]\n* = host=127.0.0.1 port={server.port} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nauth_type = any\nauth_file = {home}/users\npool_mode = transaction\n"
        f"default_pool_size = 2\nunix_socket_dir = \nlogfile = {home}/pgbouncer.log\nserver_reset_query = \n"
    )
    process = Process(["pgbouncer", str(home / "ini")], home / "out", user=unprivileged())
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
    shutil.rmtree(home, ignore_errors=True)


@pytest.mark.needs("pgbouncer")
def test_behind_pgbouncer(pgbouncer: int, servers: Servers) -> None:
    """In transaction mode, three writers share two connections: no state depends on the connection."""
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


def test_a_put_does_not_wait_forever(url: InboxUrl) -> None:
    """While another session holds a lock on the table, a put raises within its timeout."""
    with closing(opened(url, timeout=0.5)) as inbox, psycopg.connect(url.text) as other:
        inbox.put([event(1)])
        other.execute("LOCK TABLE whatsapp_webhook.event")
        started = time.monotonic()
        with pytest.raises(InboxUnavailable) as raised:
            inbox.put([event(2)])
        assert time.monotonic() - started < 1
        assert (raised.value.reason, raised.value.reopen) == ("locked", False)


def test_an_event_that_is_appended_during_a_drop_is_kept(url: InboxUrl) -> None:
    """The partition is checked again under its lock, so a new event in it prevents the drop."""
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


def test_the_last_position_of_an_empty_log(url: InboxUrl) -> None:
    """It is below uncommitted events, so that a reader that starts there does not skip them."""
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


def test_an_event_without_its_standby_is_not_acknowledged() -> None:
    """Neither when it is put first, nor as a duplicate when it is put again."""
    with Postgresql() as server:
        url = inbox_url(server.new_database())
        with closing(opened(url, timeout=0.5)) as inbox:
            inbox.purge(NOW)
            server.configure_and_wait(synchronous_standby_names="nobody")
            server.execute("CHECKPOINT")  # the checkpointer makes the sessions wait for standbys
            for _ in range(3):
                with (
                    closing(opened(url, timeout=0.5)) as again,
                    pytest.raises(InboxUnavailable, match=r"in time|standbys"),
                ):
                    again.put([event(1)])
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            until(lambda: server.execute(waiting) == [(0,)], "sessions wait forever")
            server.configure_and_wait(synchronous_standby_names="")
            assert inbox.put([event(1), event(2)]) == [Outcome.DUPLICATE, Outcome.NEW]


def test_an_event_that_no_column_can_store(url: InboxUrl) -> None:
    """The error says that the event is at fault, not the inbox."""
    for invalid in (
        msgspec.structs.replace(event(1), time=2**70),
        msgspec.structs.replace(event(1), own_time=2**63),
        msgspec.structs.replace(event(1), subject="\ud800"),
    ):
        with closing(opened(url)) as inbox, pytest.raises(InboxUnavailable) as raised:
            inbox.put([invalid])
        assert raised.value.alone
        assert not raised.value.reopen


def test_sessions_do_not_pile_up(url: InboxUrl) -> None:
    """A session whose client gave up waiting for a lock is closed on the server too."""
    opened(url).close()
    with psycopg.connect(url.text) as other:
        other.execute("LOCK TABLE whatsapp_webhook.event")
        for _ in range(6):
            with pytest.raises(InboxUnavailable):
                opened(url, timeout=0.2)
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'whatsapp-webhook' AND datname = "
        sessions = other.execute(query + "current_database()").fetchone()
        assert sessions is not None
        assert sessions[0] <= 1


def test_the_number_of_many_events_is_estimated(url: InboxUrl) -> None:
    """A count would delay notifications; the server's own estimate is close."""
    with closing(opened(url)) as inbox:
        for start in range(0, MAX_COUNTED_EVENTS + 5000, 5000):
            inbox.put([event(number) for number in range(start, start + 5000)])
        inbox._db.execute("ANALYZE whatsapp_webhook.event")
        inbox._measure()
        assert inbox.size().events == pytest.approx(MAX_COUNTED_EVENTS + 5000, rel=0.1)
