"""One attempt against servers that misbehave: it always has a result, in time, and contacts allowed addresses only."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import gevent
import pytest
import trustme

from service.outcomes import AttemptOutcome
from service.relay.attempt_result import MAX_EVIDENCE_TEXT_BYTES
from service.relay.message import Message
from service.relay.sender import MAX_RESPONSE_BODY_BYTES, Sender, _connect
from service.storage.deliveries import AttemptEvidence

MESSAGE = Message({"X-A": "1"}, b"body")
TIMEOUT = 0.5
SLACK = 0.4
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@contextmanager
def serving(
    answer: Callable[[socket.socket], None], context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> Iterator[tuple[int, list[bytes]]]:
    """Run a server that reads each request and then calls *answer*; yield its port and the received requests."""
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


class Answer(NamedTuple):
    """The deciding answer to an attempt, without its evidence."""

    status: int
    outcome: str
    retry_after: str | None = None


def post(client: Sender) -> Answer:
    return Answer(*client.send(MESSAGE)[-1][:3])


def sender(port: int, *, internal: bool = True, scheme: str = "http") -> Sender:
    url = f"{scheme}://localhost:{port}/hook?a=b"
    return Sender(url, internal=internal, timeout=TIMEOUT, connections=2)


@pytest.mark.parametrize("status", [600, 999])
def test_a_status_outside_of_http(status: int) -> None:
    """It is an error like any other: its status and Retry-After are reported."""
    answer = f"HTTP/1.1 {status} Denied\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n"
    with serving(saying(answer.encode())) as (port, _):
        assert post(sender(port)) == Answer(status, AttemptOutcome.ERROR, "120")


def test_a_post() -> None:
    """The server receives path, query, headers and body, and the connection is reused."""
    with serving(saying(b"HTTP/1.1 204 No Content\r\n\r\n")) as (port, received):
        reused = sender(port)
        assert [post(reused) for _ in range(3)] == [Answer(204, "delivered")] * 3
        reused.close()
    assert received[0].startswith(b"POST /hook?a=b HTTP/1.1\r\nHost: localhost:")
    assert b"\r\nX-A: 1\r\n" in received[0]
    assert b"\r\nContent-Length: 4\r\n" in received[0]


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, "delivered"), (302, "redirect"), (307, "redirect"), (404, "4xx"), (429, "4xx"), (500, "5xx")],
)
def test_a_status(status: int, outcome: str) -> None:
    """The status and Retry-After are reported; a redirect is not followed."""
    answer = f"HTTP/1.1 {status} X\r\nLocation: http://127.0.0.1:1/\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\nok"
    with serving(saying(answer.encode())) as (port, received):
        assert post(sender(port)) == Answer(status, outcome, None if status == 200 else "7")
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
        (lambda _: time.sleep(3), Answer(0, "timeout")),
        (lambda client: drip(client, b"HTTP/1.1 200 OK\r\nX-", b"a"), Answer(200, "delivered")),
        (lambda client: drip(client, b"", b"H"), Answer(0, "timeout")),
        (
            lambda client: drip(client, b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b"a"),
            Answer(200, "delivered"),
        ),
        (lambda client: client.close(), Answer(0, "connection")),
        (saying(b"nonsense\r\n\r\n"), Answer(0, "connection")),
        (saying(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nab"), Answer(200, "delivered")),
    ],
    ids=["silent", "endless head", "endless line", "dripping body", "closed", "no HTTP", "short body"],
)
def test_an_incomplete_response(answer: Callable[[socket.socket], None], expected: Answer) -> None:
    """The attempt ends at its deadline, however slowly the response arrives; a received status counts."""
    with serving(answer) as (port, _):
        started = time.monotonic()
        assert post(sender(port)) == expected
        assert time.monotonic() - started < TIMEOUT + SLACK


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> Iterator[ssl.SSLContext]:
    """The context of a server on localhost whose certificate authority is trusted."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    with authority.cert_pem.tempfile() as file:
        monkeypatch.setenv("SSL_CERT_FILE", file)
        yield context


@pytest.mark.parametrize("answer", [lambda _: time.sleep(3), lambda client: drip(client, b"HTTP/1.1 2", b"0")])
def test_no_response_over_tls(trusted: ssl.SSLContext, answer: Callable[[socket.socket], None]) -> None:
    """The attempt ends at its deadline, and other attempts of the event loop continue meanwhile."""
    with serving(answer, trusted) as (slow, _), serving(saying(GOOD)) as (port, received):
        started = time.monotonic()
        waiting = gevent.spawn(post, sender(slow, scheme="https"))
        gevent.sleep(0.1)
        client = sender(port)
        assert [post(client).status for _ in range(20)] == [200] * 20
        assert time.monotonic() - started < TIMEOUT
        assert waiting.get() == Answer(0, "timeout")
        assert time.monotonic() - started < TIMEOUT + SLACK
        assert len(received) == 20


def test_a_tls_handshake_that_does_not_end() -> None:
    """The server accepts the connection and sends nothing: the attempt ends at its deadline."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = sender(listener.getsockname()[1], scheme="https")
        started = time.monotonic()
        waiting = gevent.spawn(post, client)
        gevent.sleep(0.01)
        assert time.monotonic() - started < TIMEOUT / 2
        assert waiting.get() == Answer(0, "timeout")
        assert time.monotonic() - started < TIMEOUT + SLACK


def test_an_endless_response() -> None:
    """It is read up to a limit, and its connection is not reused."""

    def pour(client: socket.socket) -> None:
        client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        with suppress(OSError):
            while True:
                client.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                poured.append(4096)

    poured: list[int] = []
    with serving(pour) as (port, _):
        client = sender(port)
        assert post(client) == Answer(200, "delivered")
        time.sleep(0.1)
        assert sum(poured) < 100 * MAX_RESPONSE_BODY_BYTES
        assert post(client) == Answer(200, "delivered")


@pytest.mark.parametrize("status_line", [b"100 Continue", b"102 Processing", b"103 Early Hints"])
def test_interim_responses_are_skipped(status_line: bytes) -> None:
    """The final response counts; too many interim responses are an error."""
    before = b"HTTP/1.1 %b\r\nLink: <a>\r\n\r\n" % status_line
    with serving(saying(before * 3 + GOOD)) as (port, _):
        client = sender(port)
        assert [post(client) for _ in range(2)] == [Answer(200, "delivered")] * 2
    with serving(saying(before * 100 + GOOD)) as (port, _):
        assert post(sender(port)) == Answer(0, "connection")


def test_endless_interim_responses_end_at_the_deadline() -> None:
    """However fast they arrive."""

    def pour(client: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)

    with serving(pour) as (port, _):
        started = time.monotonic()
        assert post(sender(port)).status == 0
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
@pytest.mark.parametrize(("answer", "status"), [(chunks, 200), (interim, 0), (headers, 200)])
def test_a_response_never_delays_other_destinations(answer: Callable[[socket.socket], None], status: int) -> None:
    """One-byte chunks, interim responses with 99 headers, 6 MB of headers: none occupies the loop for over 50 ms.

    The size of the head is limited; after a complete head the status counts, whatever the body is.
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
        client = sender(port)
        answers = [gevent.spawn(post, client).get().status for _ in range(3)]
        ticking.kill()
    assert answers == [status] * 3
    assert len([gap for gap in gaps if gap > 0.05]) <= 1, sorted(gaps)[-5:]  # the machine runs other things too


@pytest.mark.parametrize(("size", "retry_after"), [(60_000, "7"), (70_000, None)])
def test_the_limit_of_a_head(size: int, retry_after: str | None) -> None:
    """The head may have 64 KiB in total; above it, only the status line is used. The body has its own limit."""
    fields = b"".join(b"X%d: " % number + b"y" * (size // 10) + b"\r\n" for number in range(10))
    head = b"HTTP/1.1 503 X\r\n" + fields + b"Retry-After: 7\r\nContent-Length: 2\r\n\r\n"
    with serving(saying(head + b"ok")) as (port, _):
        assert post(sender(port)) == Answer(503, "5xx", retry_after)


def test_a_reused_connection_that_was_just_closed_is_no_failure() -> None:
    """The message is sent again on a new connection; if that is closed without a response, the attempt failed."""
    answered = []

    def close_if_reused(client: socket.socket) -> None:
        answered.append(client)
        if answered.count(client) > 1:
            client.close()
        else:
            client.sendall(GOOD)

    with serving(close_if_reused) as (port, received):
        client = sender(port)
        assert post(client) == Answer(200, "delivered")
        for _ in range(3):
            first, second = client.send(MESSAGE)
            assert (first.outcome, second.outcome) == ("stale", "delivered"), "each POST has a result of its own"
        assert len(received) == 7
    with serving(lambda client: client.close()) as (port, received):
        assert post(sender(port)) == Answer(0, "connection")
        assert len(received) == 1


def test_a_host_whose_first_address_does_not_respond() -> None:
    """The next address is tried within the same attempt."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, serving(saying(GOOD)) as (port, received):
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(address)
        addresses = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", where) for where in (address, ("127.0.0.1", port))]
        started = time.monotonic()
        _connect(addresses, internal=True, timeout=TIMEOUT).close()
        assert time.monotonic() - started < TIMEOUT
        assert received == []


def test_a_host_name_that_does_not_exist() -> None:
    """It is a failure like any other."""
    client = Sender("http://no-such-name.invalid/", internal=True, timeout=TIMEOUT, connections=1)
    assert post(client).outcome in ("connection", "timeout")


def test_a_port_on_which_nothing_listens() -> None:
    """The attempt fails immediately."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert post(sender(port)) == Answer(0, "connection")


def test_a_deadline_does_not_cancel_the_next_attempt() -> None:
    """The deadline of an attempt that ended does not affect later ones on the same connection."""
    with serving(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")) as (port, _):
        client = sender(port)
        end = time.monotonic() + 3 * TIMEOUT
        while time.monotonic() < end:
            assert post(client).status == 200


def test_a_host_that_resolves_to_loopback_is_forbidden() -> None:
    """The resolved address is checked before anything is sent to it."""
    with serving(saying(b"HTTP/1.1 200 OK\r\n\r\n")) as (port, received):
        assert post(sender(port, internal=False)) == Answer(0, "forbidden")
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
def test_a_host_with_several_addresses(first: str) -> None:
    """Each address is checked; the attempt uses the allowed ones, and resolves the name once."""
    own, lookups = own_address(), list[str]()

    def look_up(host: str, port: int, *_more: object) -> list[tuple[object, ...]]:
        lookups.append(host)
        addresses = ["127.0.0.1", own] if first == "forbidden" else [own, "127.0.0.1"]
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port)) for address in addresses]

    with serving(saying(GOOD), host=own) as (port, received):
        url = f"http://several.invalid:{port}/"
        client = Sender(url, internal=False, timeout=TIMEOUT, connections=1, resolve=look_up)
        assert post(client) == Answer(200, "delivered")
        assert len(received) == 1
    assert lookups == ["several.invalid"]


def test_a_forbidden_address_after_one_that_fails() -> None:
    """If nothing listens on the allowed address, the forbidden one is not used instead."""
    own = own_address()
    with serving(saying(GOOD)) as (port, received):
        addresses = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port)) for address in (own, "127.0.0.1")]
        url = f"http://several.invalid:{port}/"
        client = Sender(url, internal=False, timeout=TIMEOUT, connections=1, resolve=lambda *_: addresses)
        assert post(client) == Answer(0, "connection")
        assert received == []


def test_a_certificate_of_an_untrusted_authority() -> None:
    """The attempt fails, and nothing is sent."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    with serving(saying(b"HTTP/1.1 200 OK\r\n\r\n"), context) as (port, received):
        assert post(sender(port, scheme="https")) == Answer(0, "tls")
        assert received == []


def test_a_certificate_of_a_trusted_authority(trusted: ssl.SSLContext) -> None:
    """SSL_CERT_FILE names the trusted authorities."""
    with serving(saying(GOOD), trusted) as (port, _):
        assert post(sender(port, scheme="https")) == Answer(200, "delivered")


def test_a_certificate_for_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is rejected, even if its authority is trusted."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("other.example").configure_cert(context)
    with authority.cert_pem.tempfile() as file, serving(saying(GOOD), context) as (port, received):
        monkeypatch.setenv("SSL_CERT_FILE", file)
        assert post(sender(port, scheme="https")) == Answer(0, "tls")
        assert received == []


def evidence(answer: bytes) -> AttemptEvidence:
    """Return the evidence of a failed attempt that got this answer."""
    with serving(saying(answer)) as (port, _):
        (response,) = sender(port).send(MESSAGE)
        assert response.evidence is not None
        return response.evidence


class TestEvidence:
    """What is kept of a failed attempt."""

    def test_a_response(self) -> None:
        """The status in words, some headers, and the text."""
        body = b'{"error": "unknown tenant"}'
        head = b"HTTP/1.1 409 Conflict\r\nContent-Type: application/problem+json\r\nServer: app\r\nX-Request-Id: r1\r\n"
        answer = head + b"Set-Cookie: s=1\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        assert evidence(answer) == AttemptEvidence(
            "responded with 409 Conflict",
            {"Content-Type": "application/problem+json", "Content-Length": "27", "Server": "app", "X-Request-Id": "r1"},
            body.decode(),
        )

    @pytest.mark.parametrize(
        "media_type", ["text/html; charset=utf-8", "application/json", "APPLICATION/vnd.api+json", "application/xml"]
    )
    def test_text_is_kept_up_to_a_limit(self, media_type: str) -> None:
        """In chunks or not, and decoded whatever it is."""
        body = b"a" * (MAX_EVIDENCE_TEXT_BYTES - 1) + b"\xff" + b"b" * 9000
        answer = f"HTTP/1.1 500 X\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        assert evidence(answer + body).text == "a" * (MAX_EVIDENCE_TEXT_BYTES - 1) + "\ufffd"

    @pytest.mark.parametrize(
        "header",
        ["X: y", "Content-Type: image/png", "Content-Type: application/octet-stream", "Content-Encoding: gzip"],
    )
    def test_anything_else_is_not_kept(self, header: str) -> None:
        """Only text can be shown."""
        encoded = "Content-Type: text/plain\r\n" if "Encoding" in header else ""
        assert evidence(f"HTTP/1.1 500 X\r\n{encoded}{header}\r\nContent-Length: 2\r\n\r\nno".encode()).text is None

    def test_a_long_header_is_cut(self) -> None:
        """The destination does not decide how much is stored."""
        answer = b"HTTP/1.1 500 X\r\nServer: " + b"x" * 5000 + b"\r\nContent-Length: 0\r\n\r\n"
        assert evidence(answer).headers == {"Server": "x" * 200, "Content-Length": "0"}

    def test_a_delivered_event_has_none(self) -> None:
        """Its status and duration are enough."""
        with serving(saying(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok")) as (
            port,
            _,
        ):
            (response,) = sender(port).send(MESSAGE)
        assert response.evidence is None
        assert 0 < response.seconds < TIMEOUT

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            (lambda _: time.sleep(3), "no response within 0.5 s"),
            (lambda client: client.close(), "connection closed without a response"),
            (saying(b"nonsense\r\n\r\n"), "no valid HTTP response: nonsense"),
        ],
        ids=["silent", "closed", "no HTTP"],
    )
    def test_no_response(self, answer: Callable[[socket.socket], None], reason: str) -> None:
        """The reason is in words."""
        with serving(answer) as (port, _):
            (response,) = sender(port).send(MESSAGE)
        assert response.evidence is not None
        assert response.evidence.reason.strip() == reason

    def test_no_connection(self) -> None:
        """A host name that does not exist, a port on which nothing listens, a forbidden address."""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        reasons = []
        for url, internal in (
            (f"http://127.0.0.1:{port}/", True),
            (f"http://127.0.0.1:{port}/", False),
        ):
            client = Sender(url, internal=internal, timeout=TIMEOUT, connections=1)
            reasons += [each.evidence.reason for each in client.send(MESSAGE) if each.evidence]
        assert reasons == [
            "connection failed: Connection refused",
            "all addresses of the host require `internal: true`",
        ]

    def test_an_untrusted_certificate(self) -> None:
        """OpenSSL's words say what is wrong with it."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        trustme.CA().issue_cert("localhost").configure_cert(context)
        with serving(saying(GOOD), context) as (port, _):
            (response,) = sender(port, scheme="https").send(MESSAGE)
        assert response.evidence is not None
        assert response.evidence.reason == "TLS: certificate verify failed: unable to get local issuer certificate"


@pytest.mark.parametrize(
    "rest",
    [
        b"".join(b"X%d: y\r\n" % number for number in range(150)) + b"Content-Length: 0\r\n\r\n",
        b"nonsense",
        b"Content-Length: no\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"X: " + b"y" * 70_000 + b"\r\n\r\n",
    ],
    ids=["150 headers", "cut", "invalid length", "invalid chunk", "long header"],
)
def test_a_complete_status_line_decides(rest: bytes) -> None:
    """Whatever follows it: the application accepted the event, so it must not get it again."""

    def answer(client: socket.socket) -> None:
        client.sendall(b"HTTP/1.1 200 OK\r\n" + rest)
        client.close()

    with serving(answer) as (port, received):
        assert post(sender(port)) == Answer(200, "delivered")
        assert len(received) == 1


def test_an_answer_before_the_request_was_read() -> None:
    """An application that rejects early, and closes, has answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            client = listener.accept()[0]
            client.recv(10)
            client.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            time.sleep(0.2)
            client.close()  # with unread data: a reset

        threading.Thread(target=refuse, daemon=True).start()
        big = Message({"X-A": "1"}, b"b" * 20_000_000)
        (response,) = sender(listener.getsockname()[1]).send(big)
        assert response.status == 413
