"""The receiver's application and the worker, checked by `wsgiref.validate` at each request."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.meta import catalogue
from tests.receiver.worker.cases import read
from tests.receiver.worker.conversation import converse
from tests.support.server import Server

CASES = read()


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    command = [sys.executable, "-m", "tests.receiver.worker.judged"]
    with Server(tmp_path_factory.mktemp("judged"), command=command) as server:
        yield server
        log = server.log_file.read_text()
    # `validate` raises within a request; it reports an iterator that was not closed when that is garbage-collected.
    assert "AssertionError" not in log
    assert "request failed" not in log
    assert "connection failed" not in log
    assert "without being closed" not in log


def test_requests_of_meta(judged: Server) -> None:
    """The handshake and every kind of notification are answered."""
    assert judged.handshake().status == 200
    assert judged.handshake("wrong").status == 404
    for kind in catalogue.kinds():
        assert judged.notify(catalogue.notification(kind)).status == 200


def test_rejected_requests(judged: Server) -> None:
    """Each error response that a client can cause is sent."""
    body = catalogue.notification("message text")
    assert judged.notify(body, secret="wrong").status == 401
    assert judged.notify(body, **{"Content-Encoding": "gzip"}).status == 415
    assert judged.notify(b"x" * 5_000_000).status == 413
    assert judged.request("DELETE", "/webhooks").status == 405
    assert judged.request("HEAD", "/webhooks").status == 405
    assert judged.request("GET", "/elsewhere").status == 404


def test_the_raw_requests(judged: Server) -> None:
    """No case of the corpus causes an error between server and application."""
    with ThreadPoolExecutor(8) as pool:
        for case, found in zip(CASES, pool.map(lambda case: converse(judged.port, [case.raw]), CASES), strict=True):
            assert not [answer for answer in found if answer.startswith("5") and not answer.startswith("501")], (
                case.name
            )
