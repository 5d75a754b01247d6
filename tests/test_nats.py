"""The NATS inbox beyond the contract."""

import msgspec
import pytest
from contract.engines import Servers, Subject
from contract.test_inbox import event
from servers.nats import Nats

from service.config import inbox_url
from service.errors import InboxUnavailable
from service.events import Event
from service.inbox.nats.settings import Settings, problems

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
    assert Settings.of(inbox_url("nats://h/S")).servers == ("nats://h",)
