"""The NATS inbox beyond the contract: sizes, the monitor, URLs, TLS, and a cluster."""

from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
import trustme

from service.config import InboxUrl, inbox_url
from service.errors import InboxUnavailable
from service.events import Event
from service.storage.nats.settings import NatsSettings, problems
from tests.support.engines import Servers, Subject
from tests.support.events import event
from tests.support.server import free_port, until
from tests.support.servers.nats import Nats

pytestmark = pytest.mark.needs("nats")
MAX_PAYLOAD = 2**20


@pytest.mark.parametrize(
    "large",
    [
        msgspec.structs.replace(event(1), data=b"x" * (MAX_PAYLOAD - 200)),
        msgspec.structs.replace(event(1), id="x" * 100_000),
        msgspec.structs.replace(event(1), data=b"x" * 2 * MAX_PAYLOAD),
    ],
    ids=["its headers", "its id", "its data"],
)
def test_a_message_that_is_too_large_is_not_sent(large: Event, servers: Servers) -> None:
    """Headers and data are counted before any message of a batch is sent, so that no unfinished batches pile up."""
    with Subject.of(inbox_url(servers.nats().new_stream())).opened() as inbox:
        for _ in range(100):
            with pytest.raises(InboxUnavailable) as raised:
                inbox.put([event(2), large])
            assert (raised.value.reason, raised.value.alone) == ("too_large", True)
        assert len(inbox.put([event(3), event(4)])) == 2


def test_a_monitor_of_another_server_is_rejected(servers: Servers) -> None:
    """Its settings do not apply to the server that stores the events."""
    with Nats(sync='"2m"') as unsynced:
        url = unsynced.new_stream().replace(unsynced.monitor, servers.nats().monitor)
        with pytest.raises(InboxUnavailable, match="monitor of another server"), Subject.of(inbox_url(url)).opened():
            pass


def test_a_password_with_special_characters() -> None:
    """It is percent-encoded in the URL."""
    with Nats(more='authorization { user: me, password: "p@ss/w" }') as server:
        url = server.new_stream()
        with Subject.of(inbox_url(url.replace("nats://", "nats://me:p%40ss%2Fw@"))).opened() as inbox:
            assert len(inbox.put([event(1)])) == 1
        with pytest.raises(InboxUnavailable) as raised, Subject.of(inbox_url(url)).opened():
            pass
        assert raised.value.reason == "denied"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nats://h/S?replicas=45", "replicas from 1 to 5"),
        ("nats://h/S?replicas=", "replicas from 1 to 5"),
        ("nats://h/S?subject=a%20b", "requires a subject"),
        ("nats://h/S?subject=", "requires a subject"),
        ("nats://h/a.b", "requires a stream"),
        ("nats://h/S?tlsac=x", "tlsca"),
    ],
)
def test_an_invalid_url_is_rejected(text: str, expected: str) -> None:
    """The problems of a URL are found without a connection."""
    assert expected in " ".join(problems(inbox_url(text)))
    assert NatsSettings.of(inbox_url("nats://h/S")).servers == ("nats://h",)


def test_tls(tmp_path: Path) -> None:
    """The server's certificate is accepted only if the authority that the URL names has issued it."""
    authority, other = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    other.cert_pem.write_to_path(tmp_path / "other.pem")
    with Nats(more=f'tls {{ cert_file: "{tmp_path}/cert.pem", key_file: "{tmp_path}/key.pem" }}') as server:
        url = server.new_stream().replace("127.0.0.1:", "localhost:", 1)
        with Subject.of(inbox_url(f"{url}&tlsca={tmp_path}/ca.pem")).opened() as inbox:
            assert len(inbox.put([event(1)])) == 1
        for wrong in (f"&tlsca={tmp_path}/other.pem", "&tls=required", f"&tlsca={tmp_path}/none.pem"):
            with pytest.raises(InboxUnavailable) as raised, Subject.of(inbox_url(url + wrong)).opened():
                pass
            assert raised.value.reason == "tls", raised.value


def test_a_cluster_of_three(tmp_path: Path) -> None:
    """It needs no monitor, works with two of three servers, and acknowledges no event with one."""
    ports = [free_port() for _ in range(3)]
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
    with ExitStack() as stack:
        servers = []
        for number, port in enumerate(ports):
            (tmp_path / str(number)).mkdir()
            cluster = f"cluster {{ name: three, listen: 127.0.0.1:{port}, routes: [{routes}] }}"
            server = Nats(tmp_path / str(number), more=f"server_name: n{number}\n{cluster}", alone=False)
            servers.append(stack.enter_context(server))
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
        url = inbox_url(f"nats://{hosts}/THREE?replicas=3")
        until(lambda: stores(url, *range(10)), "the three servers form no cluster", patience=60)
        servers[0].process.kill()
        until(lambda: stores(url, 10), "two of three servers do not recover", patience=60)
        servers[1].process.kill()
        assert not stores(url, 11)
        servers[0].start()
        until(lambda: stores(url, 12), "two of three servers do not recover", patience=60)
        expected = {event(number).id for number in (*range(11), 12)}
        until(lambda: expected <= stored_ids(url), "events are missing", patience=60)


def stores(url: InboxUrl, *numbers: int) -> bool:
    """Store events; return False if that fails, as during a leader election."""
    try:
        with Subject.of(url, timeout=2.0).opened() as inbox:
            return len(inbox.put([event(number) for number in numbers])) == len(numbers)
    except InboxUnavailable:
        return False


def stored_ids(url: InboxUrl) -> set[str]:
    """Return the ids of the stored events; empty if they can't be read now."""
    try:
        return {each.id for each in Subject.of(url).kept()}
    except InboxUnavailable:
        return set()
