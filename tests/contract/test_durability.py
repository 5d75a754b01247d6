"""The durability check rejects settings that could lose events, at startup and later, with reason and remedy."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import nats as client
import pytest
from nats.js.api import DiscardPolicy, PersistMode, RetentionPolicy, StorageType, StreamConfig

from service.config import inbox_url
from service.errors import InboxUnavailable
from service.storage.protocols import Inbox
from tests.support.engines import Servers, Subject
from tests.support.events import NOW, event
from tests.support.server import until
from tests.support.servers.nats import Nats
from tests.support.servers.postgresql import Postgresql

WEAK = "durability=weak"


class Case(NamedTuple):
    """An unsafe setting, and parts of the problem and the remedy in the error's text."""

    make: Callable[[Any, str], object]  # with the server and the URL
    problem: str
    remedy: str
    reason: str = "unsafe"
    weak: bool = True  # whether ?durability=weak accepts it


def name_of(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


def opened(url: str) -> Any:
    return closing(Subject.of(inbox_url(url)).opener())


def rejection(url: str) -> InboxUnavailable:
    with pytest.raises(InboxUnavailable) as raised, opened(url):
        pass
    return raised.value


def check(case: Case, url: str, weak_url: str) -> None:
    """Check that *url* is rejected with problem and remedy, and that *weak_url* is accepted if the case says so."""
    rejected = rejection(url)
    assert rejected.reason == case.reason
    assert case.problem in rejected.detail
    assert case.remedy in rejected.detail
    if case.weak:
        assert "durability=weak" in rejected.detail
        with opened(weak_url) as inbox:
            inbox.purge(NOW)
            assert len(inbox.put([event(1)])) == 1
    else:
        assert rejection(weak_url).reason == case.reason


# PostgreSQL.


@pytest.fixture
def own_postgresql() -> Iterator[Postgresql]:
    """A server whose settings a test may change."""
    with Postgresql() as server:
        yield server


def of_database(setting: str) -> Callable[[Postgresql, str], object]:
    return lambda server, url: server.execute(f"ALTER DATABASE {name_of(url)} SET {setting}")


def unlogged(server: Postgresql, url: str) -> None:
    with opened(url):
        pass
    server.execute("ALTER TABLE whatsapp_webhook.event_timeless SET UNLOGGED", name_of(url))


def standby(server: Postgresql, url: str) -> None:
    with opened(url):
        pass
    server.process.kill()
    (server.data / "standby.signal").touch()
    server.start()


POSTGRESQL = {
    "fsync": Case(lambda server, _: server.configure_and_wait(fsync="off"), "fsync is off", "postgresql.conf"),
    "full_page_writes": Case(
        lambda server, _: server.configure_and_wait(full_page_writes="off"),
        "full_page_writes is off",
        "postgresql.conf",
    ),
    "synchronous_commit": Case(of_database("synchronous_commit = off"), "synchronous_commit is off", "RESET"),
    "local": Case(of_database("synchronous_commit = local"), "synchronous_commit is local", "RESET"),
    "remote_write": Case(of_database("synchronous_commit = remote_write"), "is remote_write", "RESET"),
    "read only": Case(
        of_database("default_transaction_read_only = on"),
        "accepts no writes",
        "default_transaction_read_only",
        reason="read_only",
        weak=False,
    ),
    "standby": Case(standby, "is a standby", "name the primary", reason="read_only", weak=False),
    "unlogged": Case(unlogged, "event_timeless is unlogged", "SET LOGGED"),
}


@pytest.mark.needs("postgresql")
@pytest.mark.parametrize("name", POSTGRESQL)
def test_unsafe_postgresql_settings_are_rejected(name: str, own_postgresql: Postgresql) -> None:
    """Unsafe settings, unlogged tables and standbys are rejected."""
    url = own_postgresql.new_database()
    case = POSTGRESQL[name]
    case.make(own_postgresql, url)
    if name == "unlogged":
        case = case._replace(weak=False)
        assert "is unlogged" in rejection(url).detail
        with opened(f"{url}?{WEAK}"):
            return
    check(case, url, f"{url}?{WEAK}")


@pytest.mark.needs("postgresql")
def test_a_database_without_utf8_is_rejected(servers: Servers) -> None:
    """It could not store every character, so it is rejected with ?durability=weak too."""
    server = servers.postgresql()
    server.execute("CREATE DATABASE ascii ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    for url in (server.url("ascii"), f"{server.url('ascii')}?{WEAK}"):
        assert "encoding is SQL_ASCII" in rejection(url).detail


@pytest.mark.needs("postgresql")
def test_postgresql_that_becomes_unsafe_later_is_rejected(own_postgresql: Postgresql) -> None:
    """After the next purge no event is stored any more, until the setting is safe again."""
    url = own_postgresql.new_database()
    with opened(url) as inbox:
        inbox.put([event(1)])
        own_postgresql.configure_and_wait(fsync="off")
        with pytest.raises(InboxUnavailable, match="fsync is off"):
            inbox.purge(NOW)
        with pytest.raises(InboxUnavailable, match="fsync is off"):
            inbox.put([event(2)])
        own_postgresql.configure_and_wait(fsync="on")
        inbox.probe()
        inbox.put([event(2)])


# Kafka.

KAFKA = {
    "min.insync.replicas": Case(
        lambda *_: {"min_insync_replicas": "1"}, "min.insync.replicas is 1", "kafka-configs.sh"
    ),
    "unclean elections": Case(
        lambda *_: {"unclean_leader_election_enable": "true"}, "unclean.leader.election.enable is true", "=false"
    ),
    "compaction": Case(lambda *_: {"cleanup_policy": "compact"}, "cleanup.policy is compact", "=delete"),
    "eviction": Case(lambda *_: {"retention_bytes": "1000000"}, "retention.bytes is 1000000", "=-1"),
}


@pytest.mark.needs("kafka")
@pytest.mark.parametrize("name", KAFKA)
def test_unsafe_topic_settings_are_rejected(name: str, servers: Servers) -> None:
    """A topic whose settings could lose events is rejected."""
    config: Any = KAFKA[name].make(None, "")
    url = servers.kafka().new_topic(**config)
    check(KAFKA[name], url, f"{url}?{WEAK}")


@pytest.mark.needs("kafka")
def test_a_topic_with_too_few_replicas_is_rejected(servers: Servers) -> None:
    """With one replica and min.insync.replicas=2, no event would ever be acknowledged."""
    rejected = rejection(servers.kafka().new_topic(replicas=1))
    assert rejected.reason == "unsafe"
    assert "1 replicas and min.insync.replicas is 2" in rejected.detail
    assert "three replicas" in rejected.detail


@pytest.mark.needs("kafka")
def test_a_missing_topic_is_not_created(servers: Servers) -> None:
    """It would get the brokers' default settings; instead, the error contains the command that creates it."""
    url = f"kafka://{servers.kafka().servers}/nowhere"
    rejected = rejection(url)
    assert rejected.reason == "cannot_open"
    assert "kafka-topics.sh --create --topic nowhere --replication-factor 3" in rejected.detail
    assert "nowhere" not in servers.kafka().admin.list_topics(timeout=10).topics


@pytest.mark.needs("kafka")
def test_a_topic_that_becomes_unsafe_later_is_rejected(servers: Servers) -> None:
    """After the next check no event is stored any more, until the setting is safe again."""
    url = servers.kafka().new_topic()
    with opened(url) as inbox:
        inbox.put([event(1)])
        servers.kafka().configure(url, min_insync_replicas="1")

        def works() -> bool:
            inbox._settings_checked_at = float("-inf")  # as after half a minute
            return _works(inbox)

        until(lambda: not works(), "the unsafe setting is not noticed")  # a broker may not have it yet
        with pytest.raises(InboxUnavailable, match=r"min\.insync\.replicas is 1"):
            inbox.probe()
        with pytest.raises(InboxUnavailable, match=r"min\.insync\.replicas is 1"):
            inbox.put([event(2)])
        servers.kafka().configure(url, min_insync_replicas="2")
        until(lambda: _works(inbox), "the inbox does not recover")  # a broker may not have the new setting yet
        inbox.put([event(2)])


def _works(inbox: Inbox) -> bool:
    try:
        inbox.probe()
    except InboxUnavailable:
        return False
    return True


# NATS.


def of_stream(**settings: Any) -> Callable[[Nats, str], object]:
    def make(server: Nats, url: str) -> None:
        async def ask() -> None:
            async with await client.connect(f"nats://127.0.0.1:{server.port}") as connection:
                options: dict[str, Any] = {"storage": StorageType.FILE, "discard": DiscardPolicy.NEW} | settings
                config = StreamConfig(name=name_of(url), subjects=[f"{name_of(url).lower()}.>"], **options)
                await connection.jetstream().add_stream(config)

        run(ask())

    return make


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(coroutine)


NATS = {
    "memory": Case(of_stream(storage=StorageType.MEMORY), "is in memory", "storage is file"),
    "discard old": Case(of_stream(discard=DiscardPolicy.OLD), "evicts the oldest", "--discard new"),
    "interest": Case(of_stream(retention=RetentionPolicy.INTEREST), "drops events without a consumer", "limits"),
    "work queue": Case(of_stream(retention=RetentionPolicy.WORK_QUEUE), "once they are consumed", "limits"),
    "limit per subject": Case(of_stream(max_msgs_per_subject=3), "limits the events per", "--max-msgs-per-subject"),
    "asynchronous": Case(of_stream(persist_mode=PersistMode.ASYNC), "before it writes", "persist_mode"),
}


@pytest.mark.needs("nats")
@pytest.mark.parametrize("name", NATS)
def test_unsafe_stream_settings_are_rejected(name: str, servers: Servers) -> None:
    """A stream whose settings could lose events is rejected."""
    url = servers.nats().new_stream()
    NATS[name].make(servers.nats(), url)
    check(NATS[name], url, f"{url}&{WEAK}")


@pytest.mark.needs("nats")
def test_a_stream_without_acknowledgements_is_rejected(servers: Servers) -> None:
    """Without acknowledgements, a put could not wait until its events are stored."""
    url = servers.nats().new_stream()
    of_stream(no_ack=True)(servers.nats(), url)
    assert "does not acknowledge events" in rejection(url).detail


@pytest.mark.needs("nats")
def test_a_nats_server_that_syncs_at_intervals_is_rejected() -> None:
    """With the default of two minutes, a power failure loses all events acknowledged since the last sync."""
    with Nats(sync='"2m"') as server:
        url = server.new_stream()
        check(Case(lambda *_: None, "syncs only every 120 s", "sync_interval: always"), url, f"{url}&{WEAK}")


@pytest.mark.needs("nats")
def test_a_single_nats_server_without_a_readable_monitor_is_rejected(servers: Servers) -> None:
    """With one replica, and no monitor that shows whether each write is synced, durability is unknown."""
    url = servers.nats().new_stream().partition("?")[0]
    check(Case(lambda *_: None, "one server's disk", "monitor=http"), url, f"{url}?{WEAK}")
    rejected = rejection(f"{url}?monitor=http://127.0.0.1:9")
    assert (rejected.reason, "can't be read" in rejected.detail) == ("unsafe", True)


@pytest.mark.needs("nats")
def test_a_stream_without_our_subject_is_rejected(servers: Servers) -> None:
    """The error names the subject to add to the stream."""
    url = servers.nats().new_stream()
    of_stream()(servers.nats(), url)
    rejected = rejection(f"{url}&subject=elsewhere")
    assert (rejected.reason, "does not accept the subject elsewhere.>" in rejected.detail) == ("cannot_open", True)


def test_a_missing_client_library_is_reported(tmp_path: Path) -> None:
    """`check` exits with status 2 and the command that installs it."""
    for name in ("psycopg", "confluent_kafka", "nats"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not installed', name=__name__)")
    for engine in ("postgresql", "kafka", "nats"):
        done = subprocess.run(
            [sys.executable, "-m", "service", "check"],
            env=os.environ | {"PYTHONPATH": f"{tmp_path}:.", "WEBHOOK_INBOX": f"{engine}://host/name"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert f"pip install 'whatsapp-webhook[{engine}]'" in done.stderr
