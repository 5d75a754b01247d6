"""One try against servers that misbehave: always an answer, always in time, never further than allowed."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import gevent
import pytest
import trustme

from service.outcomes import AttemptOutcome
from service.relay.message import Message
from service.relay.sender import MAX_RESPONSE_BODY_BYTES, DeliveryResponse, Sender, _connected

MESSAGE = Message({"X-A": "1"}, b"body")
TIMEOUT = 0.5
SLACK = 0.4
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@contextmanager
def serving(
    answer: Callable[[socket.socket], None], context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> Iterator[tuple[int, list[bytes]]]:
    """A server that reads a request and does what *answer* does; gives its port and what it received."""
    received: list[bytes] = []
    with socket.create_server((host, 0)) as listener:

        def serve(client: socket.socket) -> None:
            with suppress(OSError), client:
                connection = context.wrap_socket(client, server_side=True) if context else client
                while True:
                    request = b""
                    while not request.endswith(MESSAGE.body):
                        piece = connection.recv(65536)
                        if not piece:
                            return
                        request += piece
                    received.append(request)
                    answer(connection)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1], received
        listener.shutdown(socket.SHUT_RDWR)


def saying(answer: bytes) -> Callable[[socket.socket], None]:
    return lambda client: client.sendall(answer)


def sender(port: int, *, internal: bool = True, scheme: str = "http") -> Sender:
    url = f"{scheme}://localhost:{port}/hook?a=b"
    return Sender(url, internal=internal, timeout=TIMEOUT, connections=2)


@pytest.mark.parametrize("status", [600, 999])
def test_a_status_that_http_does_not_know(status: int) -> None:
    """It is an error like any other: the status and what Retry-After asks for count."""
    answer = f"HTTP/1.1 {status} Denied\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n"
    with serving(saying(answer.encode())) as (port, _):
        assert sender(port).send(MESSAGE) == DeliveryResponse(status, AttemptOutcome.ERROR, "120")


def test_a_post() -> None:
    """Path and query, headers and body; the connection is used again."""
    with serving(saying(b"HTTP/1.1 204 No Content\r\n\r\n")) as (port, received):
        made = sender(port)
        assert [made.send(MESSAGE) for _ in range(3)] == [DeliveryResponse(204, "delivered")] * 3
        made.close()
    assert received[0].startswith(b"POST /hook?a=b HTTP/1.1\r\nHost: localhost:")
    assert b"\r\nX-A: 1\r\n" in received[0]
    assert b"\r\nContent-Length: 4\r\n" in received[0]


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, "delivered"), (302, "redirect"), (307, "redirect"), (404, "4xx"), (429, "4xx"), (500, "5xx")],
)
def test_a_status(status: int, outcome: str) -> None:
    """Is told as it is; a redirect is followed nowhere."""
    said = f"HTTP/1.1 {status} X\r\nLocation: http://127.0.0.1:1/\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\nok"
    with serving(saying(said.encode())) as (port, received):
        assert sender(port).send(MESSAGE) == DeliveryResponse(status, outcome, "7")
        assert len(received) == 1


def drip(client: socket.socket, first: bytes, piece: bytes) -> None:
    client.sendall(first)
    with suppress(OSError):
        for _ in range(200):
            client.sendall(piece)
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda _: time.sleep(3), DeliveryResponse(0, "timeout")),
        (lambda client: drip(client, b"HTTP/1.1 200 OK\r\nX-", b"a"), DeliveryResponse(0, "timeout")),
        (lambda client: drip(client, b"", b"H"), DeliveryResponse(0, "timeout")),
        (
            lambda client: drip(client, b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b"a"),
            DeliveryResponse(200, "delivered"),
        ),
        (lambda client: client.close(), DeliveryResponse(0, "connection")),
        (saying(b"nonsense\r\n\r\n"), DeliveryResponse(0, "connection")),
        (saying(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nab"), DeliveryResponse(200, "delivered")),
    ],
    ids=["silent", "endless head", "endless line", "dripping body", "closed", "no HTTP", "short body"],
)
def test_an_answer_that_does_not_come(answer: Callable[[socket.socket], None], expected: DeliveryResponse) -> None:
    """The try ends at its deadline, however the answer drips; a status that came is what counts."""
    with serving(answer) as (port, _):
        started = time.monotonic()
        assert sender(port).send(MESSAGE) == expected
        assert time.monotonic() - started < TIMEOUT + SLACK


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> Iterator[ssl.SSLContext]:
    """The context of a server on localhost whose authority is trusted."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    with authority.cert_pem.tempfile() as file:
        monkeypatch.setenv("SSL_CERT_FILE", file)
        yield context


@pytest.mark.parametrize("answer", [lambda _: time.sleep(3), lambda client: drip(client, b"HTTP/1.1 2", b"0")])
def test_one_that_does_not_answer_over_tls(trusted: ssl.SSLContext, answer: Callable[[socket.socket], None]) -> None:
    """The same; and other attempts of the loop go on meanwhile."""
    with serving(answer, trusted) as (slow, _), serving(saying(GOOD)) as (port, received):
        started = time.monotonic()
        waiting = gevent.spawn(sender(slow, scheme="https").send, MESSAGE)
        gevent.sleep(0.1)
        made = sender(port)
        assert [made.send(MESSAGE).status for _ in range(20)] == [200] * 20
        assert time.monotonic() - started < TIMEOUT
        assert waiting.get() == DeliveryResponse(0, "timeout")
        assert time.monotonic() - started < TIMEOUT + SLACK
        assert len(received) == 20


def test_a_handshake_that_does_not_end() -> None:
    """Nothing is said after the connection: the deadline is that of all of a try."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = sender(listener.getsockname()[1], scheme="https")
        started = time.monotonic()
        waiting = gevent.spawn(made.send, MESSAGE)
        gevent.sleep(0.01)
        assert time.monotonic() - started < TIMEOUT / 2
        assert waiting.get() == DeliveryResponse(0, "timeout")
        assert time.monotonic() - started < TIMEOUT + SLACK


def test_an_endless_answer() -> None:
    """Is read to a bound, and its connection is not used again."""

    def pour(client: socket.socket) -> None:
        client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        with suppress(OSError):
            while True:
                client.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                poured.append(4096)

    poured: list[int] = []
    with serving(pour) as (port, _):
        made = sender(port)
        assert made.send(MESSAGE) == DeliveryResponse(200, "delivered")
        time.sleep(0.1)
        assert sum(poured) < 100 * MAX_RESPONSE_BODY_BYTES
        assert made.send(MESSAGE) == DeliveryResponse(200, "delivered")


@pytest.mark.parametrize("interim", [b"100 Continue", b"102 Processing", b"103 Early Hints"])
def test_an_interim_answer_is_none(interim: bytes) -> None:
    """The one behind it counts; an end must come of them."""
    before = b"HTTP/1.1 %b\r\nLink: <a>\r\n\r\n" % interim
    with serving(saying(before * 3 + GOOD)) as (port, _):
        made = sender(port)
        assert [made.send(MESSAGE) for _ in range(2)] == [DeliveryResponse(200, "delivered")] * 2
    with serving(saying(before * 100 + GOOD)) as (port, _):
        assert sender(port).send(MESSAGE) == DeliveryResponse(0, "connection")


def test_interim_answers_without_end_hold_up_nobody() -> None:
    """As fast as they may come."""

    def pour(client: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)

    with serving(pour) as (port, _):
        started = time.monotonic()
        assert sender(port).send(MESSAGE).status == 0
        assert time.monotonic() - started < TIMEOUT + SLACK


def chunks(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100_000)


def interim(client: socket.socket) -> None:
    head = b"".join(b"X%d: y\r\n" % number for number in range(99))
    while True:
        client.sendall((b"HTTP/1.1 103 Early Hints\r\n" + head + b"\r\n") * 10)


def headers(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\n")
    for number in range(99):
        client.sendall(b"X%d: " % number + b"y" * 60_000 + b"\r\n")
    client.sendall(b"Content-Length: 0\r\n\r\n")


@pytest.mark.alone
@pytest.mark.parametrize(("answer", "status"), [(chunks, 200), (interim, 0), (headers, 0)])
def test_an_answer_never_holds_up_other_destinations(answer: Callable[[socket.socket], None], status: int) -> None:
    """Chunks of a byte, interim answers with 99 headers, 6 MB of headers: nobody waits for longer than 50 ms.

    What comes before the head is complete is bounded; behind it the status counts, whatever follows.
    """
    gaps: list[float] = []

    def tick() -> None:
        last = time.monotonic()
        while True:
            gevent.sleep(0.001)
            now = time.monotonic()
            gaps.append(now - last)
            last = now

    with serving(answer) as (port, _):
        ticking = gevent.spawn(tick)
        made = sender(port)
        answers = [gevent.spawn(made.send, MESSAGE).get().status for _ in range(3)]
        ticking.kill()
    assert answers == [status] * 3
    assert len([gap for gap in gaps if gap > 0.05]) <= 1, sorted(gaps)[-5:]  # the machine is shared


@pytest.mark.parametrize(("size", "status"), [(60_000, 200), (70_000, 0)])
def test_the_limit_of_a_head(size: int, status: int) -> None:
    """64 KiB, in fields of any size; a body has another limit."""
    fields = b"".join(b"X%d: " % number + b"y" * (size // 10) + b"\r\n" for number in range(10))
    with serving(saying(b"HTTP/1.1 200 OK\r\n" + fields + b"Content-Length: 2\r\n\r\nok")) as (port, _):
        assert sender(port).send(MESSAGE).status == status


def test_a_connection_that_was_just_let_go_of_is_no_failure() -> None:
    """A kept one that ends before a word of the answer: once more, on another; a fresh one that does is a failure."""
    answered = []

    def every_second(client: socket.socket) -> None:
        answered.append(client)
        if answered.count(client) > 1:
            client.close()
        else:
            client.sendall(GOOD)

    with serving(every_second) as (port, received):
        made = sender(port)
        assert [made.send(MESSAGE) for _ in range(4)] == [DeliveryResponse(200, "delivered")] * 4
        assert len(received) == 7
    with serving(lambda client: client.close()) as (port, received):
        assert sender(port).send(MESSAGE) == DeliveryResponse(0, "connection")
        assert len(received) == 1


def test_a_name_whose_first_address_is_silent() -> None:
    """The next one has its turn within the same try."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, serving(saying(GOOD)) as (port, received):
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(address)
        addresses = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", where) for where in (address, ("127.0.0.1", port))]
        started = time.monotonic()
        _connected(addresses, internal=True, timeout=TIMEOUT).close()
        assert time.monotonic() - started < TIMEOUT
        assert received == []


def test_a_name_that_is_not_there() -> None:
    """Is a failure like any other, and nothing is written of it."""
    made = Sender("http://no-such-name.invalid/", internal=True, timeout=TIMEOUT, connections=1)
    assert made.send(MESSAGE).outcome in ("connection", "timeout")


def test_nobody_listens() -> None:
    """Which is soon known."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert sender(port).send(MESSAGE) == DeliveryResponse(0, "connection")


def test_a_late_one_does_not_cut_the_next() -> None:
    """The deadline of a try that is over is nobody else's, on the same connection."""
    with serving(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")) as (port, _):
        made = sender(port)
        over = time.monotonic() + 3 * TIMEOUT
        while time.monotonic() < over:
            assert made.send(MESSAGE).status == 200


def test_a_name_that_leads_to_loopback_is_left() -> None:
    """Judged is the address that was connected to; nothing was said there."""
    with serving(saying(b"HTTP/1.1 200 OK\r\n\r\n")) as (port, received):
        assert sender(port, internal=False).send(MESSAGE) == DeliveryResponse(0, "forbidden")
        assert received == []


def own_address() -> str:
    """Return the address by which this machine reaches others: one that is not forbidden."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(probe.getsockname()[0])


@pytest.mark.parametrize("first", ["forbidden", "allowed"])
def test_a_name_with_several_addresses(monkeypatch: pytest.MonkeyPatch, first: str) -> None:
    """Each is judged; the attempt uses those that are allowed, and never looks the name up again."""
    own, lookups = own_address(), list[str]()

    def look_up(host: str, port: int, *_more: object) -> list[object]:
        lookups.append(host)
        addresses = ["127.0.0.1", own] if first == "forbidden" else [own, "127.0.0.1"]
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with serving(saying(GOOD), host=own) as (port, received):
        made = Sender(f"http://several.invalid:{port}/", internal=False, timeout=TIMEOUT, connections=1)
        assert made.send(MESSAGE) == DeliveryResponse(200, "delivered")
        assert len(received) == 1
    assert lookups == ["several.invalid"]


def test_a_forbidden_address_behind_one_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens on the one that is allowed: the other one is not connected to instead."""
    own = own_address()
    with serving(saying(GOOD)) as (port, received):
        found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port)) for address in (own, "127.0.0.1")]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
        made = Sender(f"http://several.invalid:{port}/", internal=False, timeout=TIMEOUT, connections=1)
        assert made.send(MESSAGE) == DeliveryResponse(0, "connection")
        assert received == []


def test_a_certificate_that_nobody_vouches_for() -> None:
    """Nothing is said to who can't prove the name."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    with serving(saying(b"HTTP/1.1 200 OK\r\n\r\n"), context) as (port, received):
        assert sender(port, scheme="https").send(MESSAGE) == DeliveryResponse(0, "tls")
        assert received == []


def test_a_certificate_of_a_trusted_authority(trusted: ssl.SSLContext) -> None:
    """SSL_CERT_FILE names the authorities, as everywhere."""
    with serving(saying(GOOD), trusted) as (port, _):
        assert sender(port, scheme="https").send(MESSAGE) == DeliveryResponse(200, "delivered")


def test_a_certificate_of_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever vouches for it."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("other.example").configure_cert(context)
    with authority.cert_pem.tempfile() as file, serving(saying(GOOD), context) as (port, received):
        monkeypatch.setenv("SSL_CERT_FILE", file)
        assert sender(port, scheme="https").send(MESSAGE) == DeliveryResponse(0, "tls")
        assert received == []
