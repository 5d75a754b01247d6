"""The client of the Graph API: its retries, its timeouts, and where it puts secrets."""

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


def test_a_timeout(api: graph.Graph) -> None:
    """A request without a response is abandoned at the timeout and retried, with a wait before each retry."""
    api.faults.append({"sleep": 1, "times": 99})
    waits: list[float] = []
    with pytest.raises(GraphRefused, match="did not respond in time") as refused:
        registration.app(client(api, waits, timeout=0.1))
    assert refused.value.again
    assert len(waits) == MAX_GRAPH_ATTEMPTS - 1
    assert len(api.asked) == MAX_GRAPH_ATTEMPTS


def test_a_refusal_is_not_retried(api: graph.Graph) -> None:
    """A permanent error is raised after one request."""
    api.faults.append({"error": {"code": 190, "message": "m"}, "times": 99})
    waits: list[float] = []
    with pytest.raises(GraphRefused):
        registration.app(client(api, waits))
    assert waits == []


def test_secrets_are_in_a_header(api: graph.Graph) -> None:
    """No secret is in a URL, which a proxy may log, nor in a repr."""
    calling = client(api, [])
    registration.accounts(calling, [ACCOUNT])
    registration.app(calling)
    (token,) = api.state["tokens"]
    secret = api.state["apps"][APP]["secret"]
    for text in (*map(str, api.asked), repr(calling.keys)):
        assert token not in text
        assert secret not in text
    assert any("?" in path for _, path in api.asked)


@pytest.mark.parametrize("version", ["v1.0", "v99.0"])
def test_an_unknown_version(api: graph.Graph, version: str) -> None:
    """The remedy names the setting."""
    waits: list[float] = []
    calling = Graph(f"https://localhost:{api.port}", version, client(api, waits).keys, sleep=waits.append)
    with pytest.raises(GraphRefused) as refused:
        registration.app(calling)
    assert "WEBHOOK_GRAPH_VERSION" in refused.value.remedy


@pytest.mark.parametrize(("active", "is_so"), [(True, True), (False, False), ("true", True), ("false", False)])
def test_booleans_and_strings(api: graph.Graph, active: object, is_so: bool) -> None:  # noqa: FBT001
    """Meta sends a boolean either as a boolean or as a string."""
    about = {"callback_url": "https://wa.example.com/", "active": active, "fields": []}
    api.state["apps"][APP]["subscriptions"][graph.OBJECT] = about
    subscription = registration.app(client(api, [])).subscription
    assert subscription is not None
    assert subscription.active is is_so
