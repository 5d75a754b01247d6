"""The client of the Graph API: what it tries again, how long it waits, and what it sends where."""

from collections.abc import Iterator

import pytest
import trustme

from service.errors import GraphRefused
from service.meta.graph import registration
from service.meta.graph.client import MAX_GRAPH_ATTEMPTS, AppCredentials, Graph
from tests.support import graph
from tests.support.public import ACCOUNT, APP


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[graph.Graph]:
    authority, tls = trustme.CA(), graph.ssl.SSLContext(graph.ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    trusted = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(trusted)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    with graph.Graph(graph.state(), tls=tls) as running:
        yield running


def client(api: graph.Graph, waits: list[float], timeout: float = 5) -> Graph:
    (token,) = api.state["tokens"]
    keys = AppCredentials(APP, api.state["apps"][APP]["secret"].encode(), token.encode())
    return Graph(f"https://localhost:{api.port}", "v26.0", keys, sleep=waits.append, timeout=timeout)


def test_an_answer_that_does_not_come(api: graph.Graph) -> None:
    """Is waited for no longer than the timeout, and asked for again, with a pause that grows."""
    api.faults.append({"sleep": 1, "times": 99})
    waits: list[float] = []
    with pytest.raises(GraphRefused, match="did not answer in time") as refused:
        registration.app(client(api, waits, timeout=0.1))
    assert refused.value.again
    assert len(waits) == MAX_GRAPH_ATTEMPTS - 1
    assert len(api.asked) == MAX_GRAPH_ATTEMPTS


def test_a_refusal_is_asked_for_once(api: graph.Graph) -> None:
    """Nobody gets another answer by asking again."""
    api.faults.append({"error": {"code": 190, "message": "m"}, "times": 99})
    waits: list[float] = []
    with pytest.raises(GraphRefused):
        registration.app(client(api, waits))
    assert waits == []


def test_secrets_are_in_a_header(api: graph.Graph) -> None:
    """And in no URL, where a proxy on the way would write them down; nor in what an error or a repr says."""
    asking = client(api, [])
    registration.accounts(asking, [ACCOUNT])
    registration.app(asking)
    (token,) = api.state["tokens"]
    secret = api.state["apps"][APP]["secret"]
    for said in (*map(str, api.asked), repr(asking.keys)):
        assert token not in said
        assert secret not in said
    assert any("?" in path for _, path in api.asked)


@pytest.mark.parametrize("version", ["v1.0", "v99.0"])
def test_a_version_that_is_none(api: graph.Graph, version: str) -> None:
    """Is told as that."""
    waits: list[float] = []
    asking = Graph(f"https://localhost:{api.port}", version, client(api, waits).keys, sleep=waits.append)
    with pytest.raises(GraphRefused) as refused:
        registration.app(asking)
    assert "WEBHOOK_GRAPH_VERSION" in refused.value.remedy


@pytest.mark.parametrize(("active", "is_so"), [(True, True), (False, False), ("true", True), ("false", False)])
def test_a_boolean_that_is_a_word(api: graph.Graph, active: object, is_so: bool) -> None:  # noqa: FBT001
    """Is read as one, as Meta writes either."""
    about = {"callback_url": "https://wa.example.com/", "active": active, "fields": []}
    api.state["apps"][APP]["subscriptions"][graph.OBJECT] = about
    subscription = registration.app(client(api, [])).subscription
    assert subscription is not None
    assert subscription.active is is_so
