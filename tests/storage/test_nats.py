"""The NATS inbox beyond the contract."""

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
ROOM = 2**20


@pytest.mark.parametrize(
    "large",
    [
        msgspec.structs.replace(event(1), data=b"x" * (ROOM - 200)),
        msgspec.structs.replace(event(1), id="x" * 100_000),
        msgspec.structs.replace(event(1), data=b"x" * 2 * ROOM),
    ],
    ids=["its headers", "its id", "its data"],
)
def test_the_headers_count(large: Event, servers: Servers) -> None:
    """What the server counts is counted before anything is sent; after a hundred of them a batch is still kept."""
    with Subject.of(inbox_url(servers.nats().new_stream())).opened() as inbox:
        for _ in range(100):
            with pytest.raises(InboxUnavailable) as refused:
                inbox.put([event(2), large])
            assert (refused.value.reason, refused.value.alone) == ("too_large", True)
        assert len(inbox.put([event(3), event(4)])) == 2


def test_a_monitor_of_another_server(servers: Servers) -> None:
    """What it says is not of the disk that the events are on."""
    with Nats(sync='"2m"') as lazy:
        url = lazy.new_stream().replace(lazy.monitor, servers.nats().monitor)
        with pytest.raises(InboxUnavailable, match="another server's"), Subject.of(inbox_url(url)).opened():
            pass


def test_a_password_with_odd_letters() -> None:
    """Percent-encoded in the URL."""
    with Nats(more='authorization { user: me, password: "p@ss/w" }') as server:
        url = server.new_stream()
        with Subject.of(inbox_url(url.replace("nats://", "nats://me:p%40ss%2Fw@"))).opened() as inbox:
            assert len(inbox.put([event(1)])) == 1
        with pytest.raises(InboxUnavailable) as refused, Subject.of(inbox_url(url)).opened():
            pass
        assert refused.value.reason == "denied"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nats://h/S?replicas=45", "replicas from 1 to 5"),
        ("nats://h/S?replicas=", "replicas from 1 to 5"),
        ("nats://h/S?subject=a%20b", "wants a subject"),
        ("nats://h/S?subject=", "wants a subject"),
        ("nats://h/a.b", "wants a stream"),
        ("nats://h/S?tlsac=x", "tlsca"),
    ],
)
def test_a_url_that_is_not_right(text: str, said: str) -> None:
    """Said before anything is connected to."""
    assert said in " ".join(problems(inbox_url(text)))
    assert NatsSettings.of(inbox_url("nats://h/S")).servers == ("nats://h",)


def test_tls(tmp_path: Path) -> None:
    """By the authority that the URL names, and by no other."""
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
            with pytest.raises(InboxUnavailable) as refused, Subject.of(inbox_url(url + wrong)).opened():
                pass
            assert refused.value.reason == "tls", refused.value


def test_a_cluster_of_three(tmp_path: Path) -> None:
    """Three replicas need no monitor: one server is killed, and it goes on; two, and nothing is told as kept."""
    ports = [free_port() for _ in range(3)]
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
    with ExitStack() as stack:
        servers = []
        for number, port in enumerate(ports):
            (tmp_path / str(number)).mkdir()
            cluster = f"cluster {{ name: three, listen: 127.0.0.1:{port}, routes: [{routes}] }}"
            made = Nats(tmp_path / str(number), more=f"server_name: n{number}\n{cluster}", alone=False)
            servers.append(stack.enter_context(made))
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
        url = inbox_url(f"nats://{hosts}/THREE?replicas=3")
        until(lambda: keeps(url, *range(10)), "the three do not find together", patience=60)
        servers[0].process.kill()
        until(lambda: keeps(url, 10), "two of three do not go on", patience=60)
        servers[1].process.kill()
        assert not keeps(url, 11)
        servers[0].start()
        until(lambda: keeps(url, 12), "two of three do not go on", patience=60)
        expected = {event(number).id for number in (*range(11), 12)}
        until(lambda: expected <= read(url), "not all is there", patience=60)


def keeps(url: InboxUrl, *numbers: int) -> bool:
    """Say whether they are kept; while a leader is elected they are not."""
    try:
        with Subject.of(url, timeout=2.0).opened() as inbox:
            return len(inbox.put([event(number) for number in numbers])) == len(numbers)
    except InboxUnavailable:
        return False


def read(url: InboxUrl) -> set[str]:
    """Give the ids that can be read now."""
    try:
        return {each.id for each in Subject.of(url).kept()}
    except InboxUnavailable:
        return set()
