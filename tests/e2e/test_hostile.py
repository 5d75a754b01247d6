"""One hostile client without a secret does not delay or displace the others."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.server import Server, read_answer, until
from tests.support.traffic import Traffic

FORGED = b"X-Hub-Signature-256: sha256=" + b"0" * 64
CHUNKED = b"POST /webhooks HTTP/1.1\r\nHost: a\r\n" + FORGED + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"


def chunks(client: socket.socket) -> None:
    """Send chunks of one byte as fast as possible."""
    client.sendall(CHUNKED)
    while True:
        client.sendall(b"1\r\nx\r\n" * 5000)


def heads(client: socket.socket) -> None:
    """Send a head up to its limit, then byte by byte."""
    client.sendall(HEAD + b"".join(b"X%d: %s\r\n" % (number, b"y" * 4000) for number in range(7)))
    while True:
        client.sendall(b"z")
        time.sleep(0.005)


@contextmanager
def harm(server: Server, clients: int, what: Callable[[socket.socket], None]) -> Iterator[None]:
    """Run *what* in so many clients until the block ends; reconnect those that are cut."""
    over = threading.Event()
    opened: set[socket.socket] = set()

    def run() -> None:
        while not over.is_set():
            with suppress(OSError), server.connect() as client:
                opened.add(client)
                what(client)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    try:
        yield
    finally:
        over.set()
        for client in opened:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(20)


@pytest.mark.alone
def test_slow_heads_delay_nobody(tmp_path: Path) -> None:
    """Twenty heads at the limit, byte by byte; tests/faults/test_attacks.py has hundreds of clients."""
    with Server(tmp_path, WEBHOOK_READ_TIMEOUT="3s") as server, harm(server, 20, heads):
        with Traffic(server) as traffic:
            time.sleep(4)
        assert set(traffic.answers) == {"200"}
        assert max(traffic.latencies) < 1


def test_the_deadline_applies_to_fast_clients(tmp_path: Path) -> None:
    """A request that could continue past its deadline is cut, even if its socket always has bytes."""
    with Server(tmp_path, WEBHOOK_READ_TIMEOUT="1s", WEBHOOK_MAX_BODY_BYTES="67108864") as server:
        with server.connect() as client:
            started = time.monotonic()
            with suppress(OSError):
                chunks(client)
            assert time.monotonic() - started < 5
        # The bytes, or the time: whichever comes first.
        refused = [server.metric("whatsapp_webhook_notifications_total", outcome=it) for it in ("timeout", "aborted")]
        assert sum(refused) == 1


@pytest.mark.alone
def test_idle_connections_make_room(tmp_path: Path) -> None:
    """Connections without a request are closed first if there are too many."""
    with Server(tmp_path, WEBHOOK_CONNECTIONS="20") as server:
        idle = [server.connect() for _ in range(40)]
        for client in idle[:10]:
            with suppress(OSError):
                client.sendall(GET)
        with Traffic(server) as traffic:
            time.sleep(2)
        assert set(traffic.answers) == {"200"}
        assert max(traffic.latencies) < 1
        for client in idle:
            client.close()


def test_a_client_that_reads_no_answers_is_cut(tmp_path: Path) -> None:
    """It gets no further answer, and does not delay the shutdown."""
    with Server(tmp_path, WEBHOOK_READ_TIMEOUT="2s") as server:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", server.port))
            client.settimeout(1)
            with suppress(OSError):
                while True:
                    client.sendall(GET * 2000)
            until(lambda: '"response not read"' in server.log_file.read_text(), "not cut")
            got = b""
            with suppress(OSError):
                while piece := client.recv(1 << 20):
                    got += piece
            assert got.startswith(b"HTTP/1.1 404")
            assert b"408" not in got
        with server.connect() as client:
            client.settimeout(1)
            with suppress(OSError):
                while True:
                    client.sendall(GET * 2000)
            started = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - started < 8
        assert "Worker exiting" in server.log_file.read_text()


def test_large_bodies_leave_room_for_ordinary_ones(tmp_path: Path) -> None:
    """Stalled unsigned megabytes cause rejections of large bodies only, not of ordinary notifications."""
    with Server(tmp_path) as server:
        holders = []
        for _ in range(40):
            client = server.connect()
            client.sendall(b"POST /webhooks HTTP/1.1\r\nHost: a\r\n" + FORGED + b"\r\nContent-Length: 4190000\r\n\r\n")
            with suppress(OSError):
                client.sendall(b"x" * 4_100_000)
            holders.append(client)
        until(lambda: server.metric("whatsapp_webhook_notifications_total", outcome="overloaded") > 0, "never full")
        with Traffic(server) as traffic:
            time.sleep(2)
        assert set(traffic.answers) == {"200"}
        for client in holders:
            client.close()


@pytest.mark.parametrize("words", ["close", "close, te", "TE, Close"])
def test_close_among_other_connection_options(server: Server, words: str) -> None:
    """The Connection header is a list."""
    with server.connect() as client:
        client.sendall(GET.replace(b"Host: a", b"Host: a\r\nConnection: " + words.encode()))
        assert read_answer(client).headers["connection"] == "close"
        assert client.recv(1) == b""


def test_a_method_that_the_framework_reserves(server: Server) -> None:
    """It is answered and counted like any other method."""
    assert server.request("WEBSOCKET", "/webhooks").status == 405
    assert server.request("WEBSOCKET", "/webhooks").headers["allow"] == "GET, POST"
    assert server.metric("http_server_active_requests") == 0
    assert server.metric("http_server_request_duration_seconds_count", http_response_status_code="405") == 2
