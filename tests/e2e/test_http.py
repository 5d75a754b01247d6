"""The HTTP behaviour that DESIGN 3.1 to 3.3 specify, on the real server."""

import http.client
import json
import time
from functools import partial
from pathlib import Path

import pytest

from service import signature
from service.meta import catalogue
from tests.support.server import Answer, Server, keep_alive, post, read_answer, run_command, until

NEW_SECRET = "fedcba9876543210fedcba9876543210"


def test_the_handshake(shared_server: Server) -> None:
    """The answer is the challenge as plain text, with headers against sniffing and caching."""
    answer = shared_server.handshake(challenge="007.a~b")
    assert (answer.status, answer.body) == (200, b"007.a~b")
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


def test_every_rejected_handshake_looks_the_same(shared_server: Server) -> None:
    """Whatever the reason; it differs from the answer of a wrong path."""
    good = f"hub.mode=subscribe&hub.challenge=1&hub.verify_token={shared_server.token}"
    refused = [
        shared_server.handshake("wrong"),
        shared_server.handshake(""),
        shared_server.handshake(challenge="<script>"),
        shared_server.handshake(challenge="x" * 257),
        shared_server.request("GET", "/webhooks"),
        shared_server.request("GET", "/webhooks?" + good.replace("subscribe", "other")),
        shared_server.request("GET", f"/webhooks?{good}&hub.challenge=2"),
    ]
    shapes = {
        (answer.status, answer.body, tuple(sorted(answer.headers.items() - {("date", answer.headers["date"])})))
        for answer in refused
    }
    assert len(shapes) == 1
    assert refused[0].status == 404
    assert refused[0].body != shared_server.request("GET", "/nowhere").body


def test_the_reason_of_a_rejected_handshake_is_counted(server: Server) -> None:
    """Only operators see it."""
    server.handshake("wrong")
    server.request("GET", "/webhooks")
    assert server.metric("whatsapp_webhook_handshakes_total", outcome="wrong_token") == 1
    assert server.metric("whatsapp_webhook_handshakes_total", outcome="missing_parameter") == 1


def test_a_notification_is_stored_before_it_is_answered(server: Server) -> None:
    """A second process sees the event immediately. A duplicate gets the same 200 with an empty body."""
    body = catalogue.notification("message text")
    first, again = server.notify(body), server.notify(body)
    assert (first.status, first.body) == (200, b"")
    assert (again.status, again.body) == (200, b"")
    (event,) = server.kept()
    assert event.type == "com.whatsapp.message.text"
    assert server.metric("whatsapp_webhook_events_total", type=event.type, outcome="duplicate") == 1


def test_an_unrecognized_body_is_stored_whole(shared_server: Server) -> None:
    """A 4xx would make Meta send it again for seven days."""
    assert shared_server.notify(b"no JSON \xff").status == 200
    assert shared_server.kept()[-1].data == b"no JSON \xff"


def test_unrecognized_events_are_logged_and_counted(server: Server) -> None:
    """A whole body, and one update of a notification whose other update is recognized; once, if sent again."""
    metric = partial(server.metric, "whatsapp_webhook_events_total", type="com.whatsapp.unrecognized", outcome="new")
    assert metric() == 0
    assert "whatsapp_webhook_events_total{" in server.admin("/metrics").body.decode(), "an alert needs the zero"
    start = b'"changes":['
    good, repeated = map(catalogue.notification, ("message text", "message image"))
    repeated = repeated.replace(b'"from":', b'"from":"1","from":').partition(start)[2].removesuffix(b"]}]}")
    merged = good.replace(start, start + repeated + b",")
    for body in (b"no JSON", merged, b"no JSON"):
        assert server.notify(body).status == 200
    assert metric() == 2
    assert server.metric("whatsapp_webhook_events_total", type="com.whatsapp.message.text", outcome="new") == 1
    assert server.stop() == 0
    lines = [line for line in server.log_lines() if line["event"] == "unrecognized event stored"]
    assert [line["reason"] for line in lines] == ["body", "update"]


def signed(server: Server, body: bytes) -> dict[str, str]:
    return {signature.HEADER: signature.header_for(body, server.secret.encode())}


@pytest.mark.parametrize(
    "header",
    [None, "", "sha256=", "sha256=" + "0" * 64, "sha256=" + "0" * 63, "sha256=" + "g" * 64, "sha1=" + "0" * 40],
)
def test_a_wrong_signature_is_rejected(shared_server: Server, header: str | None) -> None:
    """Absent, malformed or wrong: 401 with one fixed body."""
    headers = {} if header is None else {signature.HEADER: header}
    answer = shared_server.request("POST", "/webhooks", b"{}", headers)
    assert (answer.status, answer.body) == (401, b"signature refused\n")


def test_only_the_sha256_header_counts(shared_server: Server) -> None:
    """The SHA-1 header is ignored, a repeated header rejected, and underscores are not dashes."""
    body = b"{}"
    right = signature.header_for(body, shared_server.secret.encode())
    assert shared_server.request("POST", "/webhooks", body, {"X-Hub-Signature": right}).status == 401
    assert shared_server.request("POST", "/webhooks", body, {"X_Hub_Signature_256": right}).status == 401
    with shared_server.connect() as client:
        head = f"POST /webhooks HTTP/1.1\r\nHost: x\r\n{signature.HEADER}: {right}\r\n{signature.HEADER}: {right}\r\n"
        client.sendall(f"{head}Content-Length: 2\r\n\r\n{{}}".encode())
        assert read_answer(client).status == 401


def test_a_large_content_length_is_rejected_before_the_body_is_read(shared_server: Server) -> None:
    """The connection closes, and the client can read the answer."""
    with shared_server.connect() as client:
        client.sendall(post(b"", shared_server.secret, length=4194305))
        answer = read_answer(client)
    assert (answer.status, answer.headers["connection"]) == (413, "close")


def test_a_large_chunked_body_is_rejected_while_it_is_read(shared_server: Server) -> None:
    """Without a Content-Length the bytes are counted."""
    with shared_server.connect() as client:
        head = f"POST /webhooks HTTP/1.1\r\nHost: x\r\n{signature.HEADER}: sha256={'0' * 64}\r\n"
        client.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        try:
            for _ in range(80):
                client.sendall(chunk)
        except OSError:
            pass
        answer = read_answer(client)
    assert (answer.status, answer.headers["connection"]) == (413, "close")


def test_the_largest_accepted_body(shared_server: Server) -> None:
    """Exactly 4 MiB."""
    body = b'"' + b"x" * (4194304 - 2) + b'"'
    assert shared_server.notify(body).status == 200


def test_a_chunked_notification(shared_server: Server) -> None:
    """A proxy may send chunks: the signature covers the bytes without the framing."""
    body = catalogue.notification("message image")
    with keep_alive(shared_server.port) as connection:
        connection.request(
            "POST",
            "/webhooks",
            iter([body[:10], body[10:200], body[200:]]),
            signed(shared_server, body),
            encode_chunked=True,
        )
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"")
        connection.request("GET", "/nowhere")
        assert connection.getresponse().status == 404


def test_an_encoded_body(shared_server: Server) -> None:
    """Content-Encoding and transfer codings are rejected with 415, except for `identity`."""
    for encoding in ("gzip", "", "identity, gzip", "identity,identity", "x-identity"):
        assert shared_server.notify(b"{}", **{"Content-Encoding": encoding}).status == 415, encoding
    assert shared_server.notify(b"{}", **{"Content-Encoding": "identity"}).status == 200
    with shared_server.connect() as client:
        head = post(b"", shared_server.secret).replace(b"Content-Length: 0", b"Transfer-Encoding: gzip, chunked")
        client.sendall(head + b"0\r\n\r\n")
        assert read_answer(client).status == 415


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "FOO"])
def test_other_methods(shared_server: Server, method: str) -> None:
    """405, with the two allowed methods."""
    answer = shared_server.request(method, "/webhooks")
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, POST"


def test_head_is_not_allowed(shared_server: Server) -> None:
    """405 without a body."""
    answer = shared_server.request("HEAD", "/webhooks")
    assert (answer.status, answer.headers["allow"], answer.body) == (405, "GET, POST", b"")


@pytest.mark.parametrize(
    "path", ["/", "/webhook", "/webhooks/", "/webhooks/x", "//webhooks", "/WEBHOOKS", "/metrics", "/readyz", "/livez"]
)
def test_other_paths(shared_server: Server, path: str) -> None:
    """404 for every method; the paths of the admin listener are not served here."""
    for method in ("GET", "POST", "OPTIONS", "PUT"):
        answer = shared_server.request(method, path)
        assert (answer.status, answer.body) == (404, b"not found\n")


def test_no_answer_reveals_the_software(shared_server: Server) -> None:
    """Neither name nor version, on both listeners, even for broken requests."""
    answers = [
        shared_server.handshake(),
        shared_server.notify(b"{}"),
        shared_server.request("GET", "/"),
        shared_server.admin("/livez"),
    ]
    answers.append(shared_server.request("POST", "/webhooks"))
    for broken in (
        b"GET / HTTP/9.9\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n",
    ):
        with shared_server.connect() as client:
            client.sendall(broken)
            answers.append(read_answer(client))
    assert all(answer.status for answer in answers)
    for answer in answers:
        assert "server" not in answer.headers
        assert not any(word in repr(answer).lower() for word in ("gunicorn", "falcon", "python", "waitress", "gevent"))


@pytest.mark.parametrize(
    "header", ["", f"{signature.HEADER}: sha256=00\r\n", f"{signature.HEADER}: sha1={'0' * 64}\r\n"]
)
def test_a_malformed_signature_is_rejected_before_the_body(shared_server: Server, header: str) -> None:
    """The server does not wait for the body."""
    with shared_server.connect() as client:
        client.sendall(f"POST /webhooks HTTP/1.1\r\nHost: x\r\n{header}Content-Length: 1000\r\n\r\n".encode())
        client.settimeout(3)
        assert read_answer(client).status == 401


def test_the_secrets_at_the_end_of_the_head_are_used(server: Server) -> None:
    """A rotation during the body rejects nothing; the next request is verified with the new secrets only."""
    raw = post(catalogue.notification("message text"), server.secret)
    with server.connect() as client:
        client.sendall(raw[:-10])
        until(lambda: server.metric("http_server_active_requests") == 1, "not there")
        changed = "whatsapp_webhook_credentials_changed_timestamp_seconds"
        before = server.metric(changed)
        server.write_credentials(server.token, "fedcba9876543210fedcba9876543210")
        until(lambda: server.metric(changed) > before, "not seen")
        client.sendall(raw[-10:])
        assert read_answer(client).status == 200
    with server.connect() as client:
        client.sendall(raw)
        assert read_answer(client).status == 401


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"POST /webhooks HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
        (
            b"POST /webhooks HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"POST /webhooks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /webhooks HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 9000 + b"\r\n\r\n", 431),
        (b"GET /webhooks HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
        (b"GET /webhooks?" + b"y" * 5000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"get /webhooks HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ],
)
def test_broken_requests(shared_server: Server, raw: bytes, status: int) -> None:
    """Each gets one answer, and the connection closes."""
    with shared_server.connect() as client:
        client.sendall(raw)
        answer = read_answer(client)
        assert answer.status in (status, 501 if b"xchunked" in raw else status)
        assert answer.headers["connection"] == "close"
        assert client.recv(1) == b""


def test_a_connection_serves_many_requests(shared_server: Server) -> None:
    """Keep-alive, pipelining and 100-continue work; HTTP/1.0 closes."""
    body = catalogue.notification("status read")
    with shared_server.connect() as client:
        one = post(body, shared_server.secret)
        client.sendall(one + one + b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
        stream = client.makefile("rb")
        statuses = []
        for _ in range(3):
            statuses.append(stream.readline().split()[1])
            length = 0
            while (line := stream.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            stream.read(length)
        assert statuses == [b"200", b"200", b"404"]
    with shared_server.connect() as client:
        client.sendall(post(b"", shared_server.secret, length=2, more="Expect: 100-continue\r\n"))
        assert client.recv(1000).startswith(b"HTTP/1.1 100 ")
    with shared_server.connect() as client:
        client.sendall(b"GET /nowhere HTTP/1.0\r\n\r\n")
        assert read_answer(client).headers["connection"] == "close"


def test_a_connection_closed_between_requests_is_not_logged(server: Server) -> None:
    """Neither a port scan nor the end of a kept-alive connection writes a line."""
    before = len(server.log_lines())
    for _ in range(3):
        server.connect().close()
        with keep_alive(server.port) as connection:
            connection.request("GET", "/webhooks")
            connection.getresponse().read()
    time.sleep(0.5)
    assert [line["event"] for line in server.log_lines()[before:]] == ["handshake rejected"]


def test_an_incomplete_body(tmp_path: Path) -> None:
    """408 at the read timeout, however slowly it arrives; 400 if the client closes early; nothing is stored."""
    with Server(tmp_path, WEBHOOK_READ_TIMEOUT="1s") as server:
        with server.connect() as client:
            started = time.monotonic()
            client.sendall(post(b"", server.secret, length=100))
            for _ in range(4):
                client.sendall(b"x")
                time.sleep(0.2)
            answer = read_answer(client)
            assert (answer.status, answer.headers["connection"]) == (408, "close")
            assert 0.8 < time.monotonic() - started < 2
        with server.connect() as client:
            client.sendall(post(b"x", server.secret, length=100))
            client.shutdown(1)
            assert read_answer(client).status == 400
        for part in (b"POST /web", b"POST /webhooks HTTP/1.1\r\nHo"):
            with server.connect() as client:
                client.sendall(part)
                assert read_answer(client).status == 408
        with server.connect() as client:
            assert client.recv(1) == b"", "a connection that says nothing is closed without a word"
        assert server.kept() == []
        assert server.metric("whatsapp_webhook_notifications_total", outcome="timeout") == 1
        assert server.metric("whatsapp_webhook_notifications_total", outcome="aborted") == 1


def test_without_credentials(tmp_path: Path) -> None:
    """Not ready, 503 and 404, with a hint where to put credentials; ready without a restart once they exist."""
    server = Server(tmp_path, WEBHOOK_CREDENTIALS_HINT="Make the Secret wh-credentials.")
    try:
        server.start()
        until(lambda: server.admin("/readyz").status == 503, "no answer")
        assert server.handshake("").status == 404
        assert server.handshake("anything").status == 404
        answer = server.notify(b"{}", secret="")
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert server.metric("whatsapp_webhook_notifications_total", outcome="not_configured") == 1
        assert b'credentials_accepted{credential="app-secret"} 0.0' in server.admin("/metrics").body
        ready = json.loads(server.admin("/readyz").body)
        assert ready["checks"]["credentials"]["why"].endswith("Make the Secret wh-credentials.")
        assert server.admin("/livez").status == 200
        server.write_credentials(server.token, server.secret)
        server.wait_until_ready()
        assert server.handshake().status == 200
        assert server.notify(b"{}").status == 200
    finally:
        server.stop()


def test_a_rotation(server: Server) -> None:
    """Old and new are accepted together, then only the new; if the files vanish, the last values stay accepted."""
    server.write_credentials(f"new\n{server.token}\n", f"{NEW_SECRET}\n{server.secret}")
    until(lambda: server.handshake("new").status == 200, "the new token was not accepted")
    assert b'matches_total{credential="app-secret",position="2"} 0.0' in server.admin("/metrics").body
    assert server.handshake().status == 200
    assert server.notify(b"{}").status == 200
    assert server.notify(b"{}", secret=NEW_SECRET).status == 200
    assert server.metric("whatsapp_webhook_credential_matches_total", credential="verify-token", position="2") == 1
    assert server.metric("whatsapp_webhook_credential_matches_total", credential="app-secret", position="2") == 1
    assert server.metric("whatsapp_webhook_credentials_accepted", credential="verify-token") == 2
    server.write_credentials("new", NEW_SECRET)
    until(lambda: server.handshake().status == 404, "the old token is still accepted")
    assert server.notify(b"{}").status == 401
    server.write_credentials(None, None)
    until(lambda: server.metric("whatsapp_webhook_credentials_stale") == 1, "not reported as stale")
    assert server.handshake("new").status == 200
    assert server.admin("/readyz").status == 200
    assert time.time() - server.metric("whatsapp_webhook_credentials_changed_timestamp_seconds") < 60


def test_a_change_is_seen_within_a_second(server: Server) -> None:
    """As documented."""
    server.write_credentials("other", server.secret)
    changed = time.monotonic()
    until(lambda: server.handshake("other").status == 200, "never")
    assert time.monotonic() - changed < 1


def test_the_admin_listener(shared_server: Server) -> None:
    """It serves probes and metrics, in both formats, and nothing else."""
    assert shared_server.admin("/livez").status == 200
    ready = json.loads(shared_server.admin("/readyz").body)
    assert ready == {
        "ready": True,
        "checks": {"credentials": {"ok": True}, "inbox": {"ok": True}, "draining": {"ok": True}},
    }
    assert shared_server.admin("/metrics").headers["content-type"].startswith("text/plain; version=")
    openmetrics = shared_server.admin("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert openmetrics.body.endswith(b"# EOF\n")
    assert shared_server.admin("/webhooks").status == 404
    for method in ("POST", "PUT", "OPTIONS"):
        connection = http.client.HTTPConnection("127.0.0.1", shared_server.admin_port)
        connection.request(method, "/livez")
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_head_on_the_admin_listener(shared_server: Server, path: str) -> None:
    """HEAD gets the headers of GET without the body."""
    with keep_alive(shared_server.admin_port) as connection:
        connection.request("HEAD", path)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"")
        assert answer.headers["Content-Type"] == shared_server.admin(path).headers["content-type"]
        assert int(answer.headers["Content-Length"]) > 5


def test_the_health_path(tmp_path: Path) -> None:
    """For load balancers that probe the public port: 200 or 503 without a body for GET and HEAD, 405 otherwise."""
    with Server(tmp_path, WEBHOOK_HEALTH_PATH="/healthz") as server:
        for method in ("GET", "HEAD"):
            answer = server.request(method, "/healthz")
            assert (answer.status, answer.body) == (200, b"")
        assert server.request("POST", "/healthz").status == 405
        assert server.request("GET", "/healthz/").status == 404
        assert server.metric("http_server_request_duration_seconds_count", http_route="/healthz") > 0
        server.run("drain", "--seconds", "0")
        until(lambda: server.request("GET", "/healthz").status == 503, "still healthy")
        assert server.request("HEAD", "/healthz").body == b""
        assert server.notify(b"{}").status == 200


def test_the_health_path_is_off_by_default(shared_server: Server) -> None:
    """It must not be the webhook's own path."""
    assert shared_server.request("GET", "/healthz").status == 404
    assert "use a different path" in _refused(shared_server, WEBHOOK_HEALTH_PATH="/webhooks")


def _refused(server: Server, **environ: str) -> str:
    return run_command(server.environ | environ, "check", ok=False)


def test_a_large_header(tmp_path: Path) -> None:
    """A client certificate that a gateway passes on: 431 by default, accepted if the setting allows it."""
    certificate = {"X-Client-Cert": "x" * 9000}
    with Server(tmp_path) as server:
        assert server.notify(b"{}", **certificate).status == 431
        server.stop()
        server.environ["WEBHOOK_MAX_HEADER_BYTES"] = "16384"
        server.start()
        server.wait_until_ready()
        assert server.notify(b"{}", **certificate).status == 200
        assert server.notify(b"{}", **{"X-Client-Cert": "x" * 17000}).status == 431


def test_how_long_a_connection_may_be_idle(tmp_path: Path) -> None:
    """WEBHOOK_KEEPALIVE_TIMEOUT: a proxy must close earlier."""
    with Server(tmp_path, WEBHOOK_KEEPALIVE_TIMEOUT="1s") as server, server.connect() as client:
        client.sendall(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n")
        assert read_answer(client).status == 404
        started = time.monotonic()
        assert client.recv(1) == b""
        assert 0.5 < time.monotonic() - started < 5


@pytest.mark.needs("cases")
@pytest.mark.parametrize("name", ["19-h2c-upgrade", "21-absolute-form", "22-content-encoding-identity"])
@pytest.mark.parametrize("chunked", [False, True])
def test_requests_that_other_servers_reject(shared_server: Server, cases: Path, name: str, chunked: bool) -> None:  # noqa: FBT001
    """An h2c upgrade, the absolute form, `identity`: each gets 200, and the next request is read correctly."""
    head, _, body = (cases / f"{name}.http").read_text().replace("\r\n", "\n").partition("\n\n")
    content = body.encode()
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(content)}"
    head = head.replace("@SIG@", signature.header_for(content, shared_server.secret.encode()))
    lines = [line for line in head.splitlines() if line != "Connection: close"]
    lines = [framing if line.startswith("Content-Length:") else line for line in lines]
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content) if chunked else content
    raw = "\r\n".join(lines).encode() + b"\r\n\r\n" + sent
    with shared_server.connect() as client:
        client.sendall(raw + raw + b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n")
        received = client.makefile("rb")
        statuses = []
        for _ in range(3):
            statuses.append(int(received.readline().split()[1]))
            length = 0
            while (line := received.readline()) != b"\r\n":
                length = int(line.split(b":")[1]) if line.lower().startswith(b"content-length:") else length
            received.read(length)
        assert statuses == [200, 200, 404]


def test_fields_that_are_not_selected(tmp_path: Path) -> None:
    """They are answered 200 and counted as ignored; unrecognized bodies are stored all the same."""
    with Server(tmp_path, WEBHOOK_FIELDS="messages") as server:
        assert server.notify(catalogue.notification("template approved")).status == 200
        assert server.notify(catalogue.notification("message text")).status == 200
        assert server.notify(b"unrecognized").status == 200
        assert [event.type for event in server.kept()] == ["com.whatsapp.message.text", "com.whatsapp.unrecognized"]
        assert server.metric("whatsapp_webhook_events_total", outcome="ignored") == 1


def test_all_kinds_of_the_catalogue(shared_server: Server) -> None:
    """Each is answered 200 and stored."""
    before = len(shared_server.kept())
    answers = [shared_server.notify(catalogue.notification(kind)) for kind in catalogue.kinds()]
    assert {answer.status for answer in answers} == {200}
    assert len(shared_server.kept()) >= before + len(answers)


@pytest.mark.needs("corpus")
def test_all_of_the_corpus(shared_server: Server, corpus: list[Path]) -> None:
    """Each real payload is answered 200."""
    answers: list[Answer] = [shared_server.notify(file.read_bytes()) for file in corpus]
    assert {answer.status for answer in answers} == {200}
