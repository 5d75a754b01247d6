"""An outage: requests that are answered 503 must not stay in memory, even without the garbage collector."""

import gc
import io
import logging
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gevent
import pytest
from falcon.testing import create_environ

from service import signature
from service.credentials import Credentials
from service.errors import InboxUnavailable
from service.meta import catalogue
from service.receiver.app import create_app
from service.receiver.group_commit import GroupCommit
from service.receiver.webhook import Limits, Webhook
from service.receiver.worker.busy_connections import TurnQueue
from service.receiver.worker.connection import Connection
from service.receiver.worker.request import RequestRefused
from service.receiver.worker.slow_connections import WaitingConnections
from service.storage.protocols import Inbox, Outcome
from service.telemetry import logs
from service.telemetry.tracing import Wsgi
from tests.receiver.test_group_commit import Held
from tests.support.instruments import receiver_instruments

SECRET = b"0123456789abcdef0123456789abcdef"
BODY = catalogue.batch(100)
REQUESTS = 100


@contextmanager
def application(open_inbox: Callable[[], Inbox]) -> Iterator[Wsgi]:
    """Yield the application with a group commit that opens the given inbox."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    logs.configure(level="error", form="json", stream=io.StringIO())
    instruments = receiver_instruments()
    writer = GroupCommit(open_inbox, lambda: False, instruments)
    writer.start()
    rate_limited_log = logs.RateLimitedLog(logs.get("server"))
    webhook = Webhook(
        credentials=lambda: Credentials(app_secrets=(SECRET,)),
        submit=writer.submit,
        fields=frozenset(),
        limits=Limits(body_bytes=2**20, read_timeout=5, accept_timeout=0.02),
        instruments=instruments,
        keyed_hasher=logs.KeyedHasher(),
        nonce=lambda: "1",
        rate_limited_log=rate_limited_log,
    )
    yield create_app(
        webhook, path="/webhooks", health_path="", checks={}, instruments=instruments, rate_limited_log=rate_limited_log
    )
    writer.stop()
    root.handlers, root.level = handlers, level


def post(app: Wsgi) -> str:
    headers = {signature.HEADER: signature.header_for(BODY, SECRET)}
    environ = create_environ(path="/webhooks", method="POST", headers=headers, body=BODY)
    answered: list[str] = []

    def start_response(status: str, *_: Any) -> Any:
        answered.append(status[:3])

    for _ in app(environ, start_response):
        pass
    return answered[0]


class Frozen(Held):
    """An inbox that does not respond, like a frozen disk."""

    def put(self, events: Sequence[Any]) -> Sequence[Outcome]:
        self.gate.clear()
        return super().put(events)


class Locked(Held):
    """An inbox that fails immediately, like a locked database."""

    def put(self, _events: Sequence[Any]) -> Sequence[Outcome]:
        raise InboxUnavailable("locked", "another process writes")


@pytest.mark.parametrize("kind", [Frozen, Locked])
def test_failed_requests_free_their_memory(kind: type[Held]) -> None:
    """After a hundred of them, without the garbage collector, less memory is in use than two of them take."""
    held = kind()
    with application(held.open) as app:
        answers = [post(app)]
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            answers += [post(app) for _ in range(REQUESTS)]
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            gc.enable()
            held.gate.set()
    assert answers == ["503"] * (REQUESTS + 1)
    assert after - before < 2 * 2 * len(BODY)


def test_a_rejected_connection_is_freed() -> None:
    """Its head has up to 32 KiB, and unauthenticated clients can open any number of them."""
    gc.collect()
    gc.disable()
    try:
        before = connections()
        for _ in range(10):
            reject_a_request()
        assert connections() == before
    finally:
        gc.enable()


def connections() -> int:
    return sum(isinstance(each, Connection) for each in gc.get_objects())


def reject_a_request() -> None:
    client, other = gevent.socket.socketpair()
    with client, other:
        connection = Connection(
            client,
            {},
            read_timeout=1,
            keepalive=1,
            max_raw_body_bytes=1,
            max_field_bytes=8190,
            waiting=WaitingConnections(capacity=10, bytes_limit=10**6, free=lambda: 10),
            turns=TurnQueue(),
        )
        other.send(b"GET / HTTP/1.1\r\nbad header\r\n\r\n")
        with pytest.raises(RequestRefused):
            connection.next()
        connection.close()
