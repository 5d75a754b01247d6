"""Connections that are half-closed, reset, dropped, or idle by the thousands."""

import socket
import sqlite3
import statistics
import struct
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import gevent
import gevent.socket
import psutil
import pytest

from service.meta import catalogue
from service.receiver.worker.busy_connections import TurnQueue
from service.receiver.worker.connection import Connection
from service.receiver.worker.slow_connections import WaitingConnections
from tests.support.server import Server, keep_alive, post, read_answer, until


def worker_of(server: Server) -> psutil.Process:
    """Return the worker process."""
    (worker,) = psutil.Process(server.process.pid).children()
    return worker


def test_a_client_that_half_closes_after_its_request(server: Server) -> None:
    """It still gets one response, then the server closes the connection."""
    with server.connect() as client:
        client.sendall(post(catalogue.notification("message text"), server.secret))
        client.shutdown(socket.SHUT_WR)
        assert read_answer(client).status == 200
        assert client.recv(1) == b""


def test_a_client_that_half_closes_within_a_request(server: Server) -> None:
    """In the head or in the body, the response is 400."""
    whole = post(b"{}", server.secret)
    for piece in (whole[:20], whole[:-1]):
        with server.connect() as client:
            client.sendall(piece)
            client.shutdown(socket.SHUT_WR)
            assert read_answer(client).status == 400


def test_closing_an_idle_connection_too_late() -> None:
    """If its next request is already arriving, the request is answered before the connection closes."""
    ours, theirs = gevent.socket.socketpair()
    waiting = WaitingConnections(capacity=10, bytes_limit=10**6, free=lambda: 10)
    connection = Connection(
        ours,
        {},
        read_timeout=5,
        keepalive=75,
        max_raw_body_bytes=1000,
        max_field_bytes=8190,
        waiting=waiting,
        turns=TurnQueue(),
    )
    request = gevent.spawn(connection.next)
    gevent.sleep(0.05)
    loop = gevent.get_hub().loop

    def close_idle_late() -> None:
        theirs.send(b"GET / HT")
        for _ in range(400):  # more than the loop runs before it polls sockets
            loop.run_callback(time.sleep, 0.0005)
        waiting.close_idle()
        theirs.send(b"TP/1.1\r\n")

    gevent.spawn(close_idle_late).join()
    gevent.sleep(0.05)
    theirs.send(b"Host: x\r\n\r\n")
    assert request.get(timeout=5).environ["HTTP_HOST"] == "x"
    assert connection.close_requested


def test_an_empty_line_after_a_request_does_not_start_one(tmp_path: Path) -> None:
    """The connection is idle, and is not closed by the read timeout."""
    with Server(tmp_path, WEBHOOK_READ_TIMEOUT="1s") as server, server.connect() as client:
        notification = post(catalogue.notification("message text"), server.secret)
        for raw, status in ((b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n", 404), (notification, 200)) * 2:
            client.sendall(raw + b"\r\n")
            assert read_answer(client).status == status
            time.sleep(1.5)


def test_a_request_above_the_memory_limit(tmp_path: Path) -> None:
    """If all other requests are complete, it gets 503; requests are accepted again once memory is free."""
    limit = {"WEBHOOK_INFLIGHT_BYTES": "300000", "WEBHOOK_MAX_BODY_BYTES": "300000", "WEBHOOK_ACCEPT_TIMEOUT": "2s"}
    with Server(tmp_path, **limit) as server, ExitStack() as stack:
        lock = stack.enter_context(closing(sqlite3.connect(server.inbox, isolation_level=None)))
        lock.execute("BEGIN IMMEDIATE")
        large, small = post(catalogue.batch(800), server.secret), post(catalogue.batch(40), server.secret)
        holders = [stack.enter_context(server.connect()) for _ in range(2)]
        for holder in holders:
            holder.sendall(large)
        time.sleep(0.5)
        with server.connect() as client:
            started = time.monotonic()
            client.sendall(small)
            answer = read_answer(client)
            assert time.monotonic() - started < 1, "it waited for the inbox"
            assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        lock.execute("ROLLBACK")
        for holder in holders:
            read_answer(holder)
        until(lambda: server.notify(catalogue.batch(20)).status == 200, "not served again")


def test_connections_that_are_opened_and_dropped(server: Server) -> None:
    """After ten thousand of them, some reset or with half a request, no file stays open and requests are answered."""
    worker = worker_of(server)
    assert server.handshake().status == 200
    files, whole = worker.num_fds(), post(catalogue.notification("message text"), server.secret)
    for number in range(10_000):
        with server.connect() as client:
            if number % 3 == 1:
                client.sendall(whole[: number % len(whole)])
            if number % 3 == 2:  # a reset while the request is being answered
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.sendall(whole)
    until(lambda: worker.num_fds() <= files + 2, lambda: f"{worker.num_fds()} files are open, {files} were")
    assert server.handshake().status == 200
    assert server.metric("http_server_active_requests") == 0


@pytest.mark.parametrize("body", [b"2\r\nab\r\n" * 200_000, b"0\r\nX: " + b"a" * 2_000_000], ids=["chunks", "trailer"])
def test_a_body_of_framing_takes_little_memory(server: Server, body: bytes) -> None:
    """Ten unauthenticated clients send chunks of two bytes, or an endless trailer."""
    worker = worker_of(server)
    before = worker.memory_info().rss
    head = b"POST /webhooks HTTP/1.1\r\nHost: a\r\nX-Hub-Signature-256: sha256=" + b"a" * 64
    clients = [server.connect() for _ in range(10)]
    for client in clients:
        with suppress(OSError):  # a body above a limit is rejected before it is all sent
            client.sendall(head + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    until(lambda: server.handshake().status == 200, "not served")
    grown = worker.memory_info().rss - before
    assert grown < 40 * 2**20, f"{grown / 2**20:.0f} MiB"
    for client in clients:
        client.close()


@pytest.mark.alone
@pytest.mark.usefixtures("many_files")
def test_idle_connections_do_not_slow_down_others(tmp_path: Path) -> None:
    """With five thousand idle keep-alive connections, the p99 latency of requests grows by less than half."""
    with Server(tmp_path, WEBHOOK_CONNECTIONS="6000") as server:
        ratios = []
        worker = worker_of(server)
        for _ in range(5):
            until(lambda: worker.num_fds() < 100, "connections stay open")
            alone = _p99_seconds(server)
            with ExitStack() as stack:
                for _ in range(5000):
                    idle = stack.enter_context(server.connect())
                    idle.sendall(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
                    assert idle.recv(4096).startswith(b"HTTP/1.1 404")
                ratios.append(_p99_seconds(server) / alone)
        print(f"p99 beside idle connections, in ratios: {[round(each, 2) for each in ratios]}")
        assert statistics.median(ratios) < 1.5


def _p99_seconds(server: Server) -> float:
    """Return the p99 latency of requests."""
    times = []
    with keep_alive(server.port) as connection:
        for _ in range(400):
            started = time.perf_counter()
            connection.request("GET", "/webhooks")
            connection.getresponse().read()
            times.append(time.perf_counter() - started)
    return sorted(times)[int(len(times) * 0.99)]
