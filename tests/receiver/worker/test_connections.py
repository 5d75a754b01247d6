"""What connections do beside sending requests: half-closed, reset, dropped, idle by the thousands."""

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
    """Give the process that serves."""
    (worker,) = psutil.Process(server.process.pid).children()
    return worker


def test_a_client_that_has_said_all(server: Server) -> None:
    """It shuts its half down, and still gets its answer, once; the end of the other half follows."""
    with server.connect() as client:
        client.sendall(post(catalogue.notification("message text"), server.secret))
        client.shutdown(socket.SHUT_WR)
        assert read_answer(client).status == 200
        assert client.recv(1) == b""


def test_a_client_that_stops_within_a_request(server: Server) -> None:
    """In its head or in its body: it is told so."""
    whole = post(b"{}", server.secret)
    for piece in (whole[:20], whole[:-1]):
        with server.connect() as client:
            client.sendall(piece)
            client.shutdown(socket.SHUT_WR)
            assert read_answer(client).status == 400


def test_a_dismissal_that_comes_too_late() -> None:
    """A connection is told to go while its next request is coming in: the request is answered all the same."""
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

    def dismiss() -> None:
        theirs.send(b"GET / HT")
        for _ in range(400):  # more than the loop does before it looks at sockets
            loop.run_callback(time.sleep, 0.0005)
        waiting.close_idle()
        theirs.send(b"TP/1.1\r\n")

    gevent.spawn(dismiss).join()
    gevent.sleep(0.05)
    theirs.send(b"Host: x\r\n\r\n")
    assert request.get(timeout=5).environ["HTTP_HOST"] == "x"
    assert connection.close_requested


def test_an_empty_line_behind_a_request_begins_none(tmp_path: Path) -> None:
    """The connection is idle, for as long as any other, and is told of no timeout."""
    with Server(tmp_path, WEBHOOK_READ_TIMEOUT="1s") as server, server.connect() as client:
        notification = post(catalogue.notification("message text"), server.secret)
        for raw, status in ((b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n", 404), (notification, 200)) * 2:
            client.sendall(raw + b"\r\n")
            assert read_answer(client).status == status
            time.sleep(1.5)


def test_a_newcomer_for_whom_there_is_no_memory(tmp_path: Path) -> None:
    """All others are complete: it gets 503, and is served once there is room."""
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
            assert time.monotonic() - started < 1, "it was stored after all"
            assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        lock.execute("ROLLBACK")
        for holder in holders:
            read_answer(holder)
        until(lambda: server.notify(catalogue.batch(20)).status == 200, "not served again")


def test_connections_that_are_opened_and_dropped(server: Server) -> None:
    """Ten thousand, some with half a request, some reset: no file stays open, and the next one is served."""
    worker = worker_of(server)
    assert server.handshake().status == 200
    files, whole = worker.num_fds(), post(catalogue.notification("message text"), server.secret)
    for number in range(10_000):
        with server.connect() as client:
            if number % 3 == 1:
                client.sendall(whole[: number % len(whole)])
            if number % 3 == 2:  # a reset, with an answer under way
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.sendall(whole)
    until(lambda: worker.num_fds() <= files + 2, lambda: f"{worker.num_fds()} files are open, {files} were")
    assert server.handshake().status == 200
    assert server.metric("http_server_active_requests") == 0


@pytest.mark.parametrize("body", [b"2\r\nab\r\n" * 200_000, b"0\r\nX: " + b"a" * 2_000_000], ids=["chunks", "trailer"])
def test_a_body_of_framing_costs_what_it_holds(server: Server, body: bytes) -> None:
    """Chunks of two bytes, a trailer without an end: from ten clients who need no secret."""
    worker = worker_of(server)
    before = worker.memory_info().rss
    head = b"POST /webhooks HTTP/1.1\r\nHost: a\r\nX-Hub-Signature-256: sha256=" + b"a" * 64
    clients = [server.connect() for _ in range(10)]
    for client in clients:
        with suppress(OSError):  # what is too much is refused before it is all sent
            client.sendall(head + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    until(lambda: server.handshake().status == 200, "not served")
    grown = worker.memory_info().rss - before
    assert grown < 40 * 2**20, f"{grown / 2**20:.0f} MiB"
    for client in clients:
        client.close()


@pytest.mark.alone
@pytest.mark.usefixtures("many_files")
def test_idle_connections_cost_the_others_little(tmp_path: Path) -> None:
    """Five thousand, kept alive: the median request waits less than half as long again, window by window."""
    with Server(tmp_path, WEBHOOK_CONNECTIONS="6000") as server:
        ratios = []
        worker = worker_of(server)
        for _ in range(5):
            until(lambda: worker.num_fds() < 100, "connections stay open")
            alone = _late(server)
            with ExitStack() as stack:
                for _ in range(5000):
                    idle = stack.enter_context(server.connect())
                    idle.sendall(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
                    assert idle.recv(4096).startswith(b"HTTP/1.1 404")
                ratios.append(_late(server) / alone)
        print(f"p99 beside idle connections, in ratios: {[round(each, 2) for each in ratios]}")
        assert statistics.median(ratios) < 1.5


def _late(server: Server) -> float:
    """Give the p99 of honest requests, in seconds."""
    times = []
    with keep_alive(server.port) as connection:
        for _ in range(400):
            started = time.perf_counter()
            connection.request("GET", "/webhooks")
            connection.getresponse().read()
            times.append(time.perf_counter() - started)
    return sorted(times)[int(len(times) * 0.99)]
