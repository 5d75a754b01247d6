"""What loses events is refused, on the real servers: before a 200 and under way; with the reason and the remedy."""

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
    """A setting that somebody made, what is said of it, and which word of the remedy."""

    make: Callable[[Any, str], object]  # of the server and the URL
    said: str
    remedy: str
    reason: str = "unsafe"
    weak: bool = True  # whether ?durability=weak lets it through


def name_of(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


def opened(url: str) -> Any:
    return closing(Subject.of(inbox_url(url)).opener())


def refusal(url: str) -> InboxUnavailable:
    with pytest.raises(InboxUnavailable) as refused, opened(url):
        pass
    return refused.value


def judge(case: Case, url: str, weak_url: str) -> None:
    """See that it is refused in words, and let through where somebody wants it so."""
    refused = refusal(url)
    assert refused.reason == case.reason
    assert case.said in refused.detail
    assert case.remedy in refused.detail
    if case.weak:
        assert "durability=weak" in refused.detail
        with opened(weak_url) as inbox:
            inbox.purge(NOW)
            assert len(inbox.put([event(1)])) == 1
    else:
        assert refusal(weak_url).reason == case.reason


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


def stood_by(server: Postgresql, url: str) -> None:
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
        "takes no writes",
        "default_transaction_read_only",
        reason="read_only",
        weak=False,
    ),
    "standby": Case(stood_by, "is a standby", "name the primary", reason="read_only", weak=False),
    "unlogged": Case(unlogged, "event_timeless is unlogged", "SET LOGGED"),
}


@pytest.mark.needs("postgresql")
@pytest.mark.parametrize("name", POSTGRESQL)
def test_postgresql(name: str, own_postgresql: Postgresql) -> None:
    """Its settings, its tables, and where it stands."""
    url = own_postgresql.new_database()
    case = POSTGRESQL[name]
    case.make(own_postgresql, url)
    if name == "unlogged":
        case = case._replace(weak=False)
        assert "is unlogged" in refusal(url).detail
        with opened(f"{url}?{WEAK}"):
            return
    judge(case, url, f"{url}?{WEAK}")


@pytest.mark.needs("postgresql")
def test_a_database_that_can_not_hold_every_letter(servers: Servers) -> None:
    """Weak or not: a text would be lost, or refused, in the middle of the night."""
    server = servers.postgresql()
    server.execute("CREATE DATABASE ascii ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    for url in (server.url("ascii"), f"{server.url('ascii')}?{WEAK}"):
        assert "encoding is SQL_ASCII" in refusal(url).detail


@pytest.mark.needs("postgresql")
def test_postgresql_that_turns_unsafe_under_way(own_postgresql: Postgresql) -> None:
    """Within a second of the change nothing is kept any more; and it goes on where that is undone."""
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
def test_kafka(name: str, servers: Servers) -> None:
    """The topic's settings."""
    config: Any = KAFKA[name].make(None, "")
    url = servers.kafka().new_topic(**config)
    judge(KAFKA[name], url, f"{url}?{WEAK}")


@pytest.mark.needs("kafka")
def test_kafka_with_too_few_replicas(servers: Servers) -> None:
    """One replica, and two that must have each event: it would never be acknowledged."""
    refused = refusal(servers.kafka().new_topic(replicas=1))
    assert refused.reason == "unsafe"
    assert "1 replicas and min.insync.replicas is 2" in refused.detail
    assert "three replicas" in refused.detail


@pytest.mark.needs("kafka")
def test_kafka_without_the_topic(servers: Servers) -> None:
    """It is not made in passing, with whatever the brokers' defaults are: the command is told."""
    url = f"kafka://{servers.kafka().servers}/nowhere"
    refused = refusal(url)
    assert refused.reason == "cannot_open"
    assert "kafka-topics.sh --create --topic nowhere --replication-factor 3" in refused.detail
    assert "nowhere" not in servers.kafka().admin.list_topics(timeout=10).topics


@pytest.mark.needs("kafka")
def test_kafka_that_turns_unsafe_under_way(servers: Servers) -> None:
    """As soon as it is looked at, nothing is kept any more; and it goes on where that is undone."""
    url = servers.kafka().new_topic()
    with opened(url) as inbox:
        inbox.put([event(1)])
        servers.kafka().configure(url, min_insync_replicas="1")
        inbox._set = float("-inf")  # half a minute later
        with pytest.raises(InboxUnavailable, match=r"min\.insync\.replicas is 1"):
            inbox.probe()
        with pytest.raises(InboxUnavailable, match=r"min\.insync\.replicas is 1"):
            inbox.put([event(2)])
        servers.kafka().configure(url, min_insync_replicas="2")
        until(lambda: _works(inbox), "it does not go on")  # another broker may be asked, which has not heard of it yet
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
                wanted: dict[str, Any] = {"storage": StorageType.FILE, "discard": DiscardPolicy.NEW} | settings
                config = StreamConfig(name=name_of(url), subjects=[f"{name_of(url).lower()}.>"], **wanted)
                await connection.jetstream().add_stream(config)

        run(ask())

    return make


def run(what: Coroutine[Any, Any, None]) -> None:
    asyncio.run(what)


NATS = {
    "memory": Case(of_stream(storage=StorageType.MEMORY), "is in memory", "storage is file"),
    "discard old": Case(of_stream(discard=DiscardPolicy.OLD), "evicts the oldest", "--discard new"),
    "interest": Case(of_stream(retention=RetentionPolicy.INTEREST), "drops what nobody asked for", "limits"),
    "work queue": Case(of_stream(retention=RetentionPolicy.WORK_QUEUE), "drops what nobody asked for", "limits"),
    "some of a subject": Case(of_stream(max_msgs_per_subject=3), "only some of a subject", "--max-msgs-per-subject"),
    "asynchronous": Case(of_stream(persist_mode=PersistMode.ASYNC), "before it writes", "persist_mode"),
}


@pytest.mark.needs("nats")
@pytest.mark.parametrize("name", NATS)
def test_nats(name: str, servers: Servers) -> None:
    """The stream's settings."""
    url = servers.nats().new_stream()
    NATS[name].make(servers.nats(), url)
    judge(NATS[name], url, f"{url}&{WEAK}")


@pytest.mark.needs("nats")
def test_nats_without_acknowledgements(servers: Servers) -> None:
    """Weak or not, nothing could be waited for."""
    url = servers.nats().new_stream()
    of_stream(no_ack=True)(servers.nats(), url)
    assert "acknowledges nothing" in refusal(url).detail


@pytest.mark.needs("nats")
def test_nats_that_syncs_now_and_then() -> None:
    """The default is every two minutes: a power cut takes what was acknowledged since."""
    with Nats(sync='"2m"') as server:
        url = server.new_stream()
        judge(Case(lambda *_: None, "syncs every 120 s only", "sync_interval: always"), url, f"{url}&{WEAK}")


@pytest.mark.needs("nats")
def test_nats_that_nobody_can_ask(servers: Servers) -> None:
    """One replica, and no monitor to ask whether each write is synced: unknown is not safe."""
    url = servers.nats().new_stream().partition("?")[0]
    judge(Case(lambda *_: None, "one server's disk", "monitor=http"), url, f"{url}?{WEAK}")
    refused = refusal(f"{url}?monitor=http://127.0.0.1:9")
    assert (refused.reason, "can't be read" in refused.detail) == ("unsafe", True)


@pytest.mark.needs("nats")
def test_nats_whose_stream_is_another_ones(servers: Servers) -> None:
    """It does not take our subjects: said with what to add."""
    url = servers.nats().new_stream()
    of_stream()(servers.nats(), url)
    refused = refusal(f"{url}&subject=elsewhere")
    assert (refused.reason, "does not take elsewhere.>" in refused.detail) == ("cannot_open", True)


def test_an_engine_whose_client_is_not_there(tmp_path: Path) -> None:
    """Says what to install; nothing else is loaded for it."""
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
