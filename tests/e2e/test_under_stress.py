"""Slow clients, many clients, full disks, shutdowns: honest traffic continues."""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import apsw
import psutil
import pytest

from service.meta import catalogue
from tests.support.server import Server, post, read_answer, until
from tests.support.traffic import Traffic

OTHER_SECRET = "fedcba9876543210fedcba9876543210"
HEAD = b"POST /webhooks HTTP/1.1\r\nHost: x\r\nX-Hub-Signature-256: sha256=" + b"0" * 64


@pytest.mark.alone
@pytest.mark.usefixtures("many_files")
def test_a_thousand_stalled_clients(tmp_path: Path) -> None:
    """In the request line, the headers, the body, a chunk, slow or silent: each is cut, and nobody else waits."""
    parts = [
        b"POST /web",
        HEAD + b"\r\nContent-Le",
        HEAD + b"\r\nContent-Length: 500\r\n\r\n{",
        HEAD + b"\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"",
    ]
    with Server(tmp_path, WEBHOOK_READ_TIMEOUT="3s") as server:
        clients = [server.connect() for _ in range(1000)]
        for number, client in enumerate(clients):
            client.sendall(parts[number % len(parts)])
        with Traffic(server) as traffic:
            over = time.monotonic() + 6
            cut: set[socket.socket] = set()
            while time.monotonic() < over and len(cut) < len(clients):
                for client in [client for client in clients if client not in cut][::5]:
                    try:
                        client.send(b"x")  # slowly
                    except OSError:
                        cut.add(client)
                time.sleep(0.2)
                poll = select.poll()
                for client in set(clients) - cut:
                    poll.register(client, select.POLLIN | select.POLLHUP)
                ready = {descriptor for descriptor, _ in poll.poll(0)}
                cut |= {client for client in clients if client not in cut and client.fileno() in ready}
            assert len(cut) == len(clients)
        for client in clients:
            client.close()
        assert set(traffic.answers) == {"200"}
        assert sorted(traffic.latencies)[int(len(traffic.latencies) * 0.99)] < 1
        until(lambda: server.metric("http_server_active_requests") == 0, "requests were left over")


def test_a_hundred_large_concurrent_bodies(tmp_path: Path) -> None:
    """Three megabytes each: memory stays below 512 MiB, and each gets 200 or 503."""
    with Server(tmp_path) as server:
        tree = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children()]
        answers: Counter[int] = Counter()
        peak = 0
        bodies = [
            b'{"object":"whatsapp_business_account","entry":[{"id":"%d","x":["%s"]}]}' % (number, b"ab" * 1_500_000)
            for number in range(4)
        ]

        def send(number: int) -> None:
            with server.connect() as client:
                raw = post(bodies[number % 4], server.secret)
                client.settimeout(60)
                try:
                    client.sendall(raw[:1_000_000])
                    time.sleep(0.3)
                    client.sendall(raw[1_000_000:])
                except OSError:
                    pass  # answered early; the answer can be read
                answers[read_answer(client).status] += 1

        senders = [threading.Thread(target=send, args=(number,)) for number in range(100)]
        for sender in senders:
            sender.start()
        while any(sender.is_alive() for sender in senders):
            peak = max(peak, sum(process.memory_info().rss for process in tree))
            time.sleep(0.02)
        assert set(answers) <= {200, 503}
        assert answers[200] > 0
        assert sum(answers.values()) == 100
        assert peak < 512 * 2**20, f"{peak / 2**20:.0f} MiB"
        assert server.notify(catalogue.notification("message text")).status == 200


def test_ten_thousand_duplicates_are_stored_once(server: Server) -> None:
    """The same notification on 16 connections, in other batches, and after a restart."""
    body = catalogue.notification("message text")
    raw = post(body, server.secret)
    answers: Counter[int] = Counter()

    def send() -> None:
        with server.connect() as client:
            stream = client.makefile("rb")
            for _ in range(625):
                client.sendall(raw)
                answers[int(stream.readline().split()[1])] += 1
                while stream.readline() != b"\r\n":
                    pass

    senders = [threading.Thread(target=send) for _ in range(16)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert answers == {200: 10_000}
    assert len(server.kept()) == 1
    changes = [catalogue.change("status read") for _ in range(10)]
    server.notify(catalogue.body(changes))
    server.notify(catalogue.body(changes[5:]) + b" ")
    server.notify(catalogue.body(changes[::-1][:7]))
    assert len(server.kept()) == 11
    server.stop()
    server.start()
    server.wait_until_ready()
    assert server.notify(catalogue.body(changes)).status == 200
    assert server.notify(body).status == 200
    assert len(server.kept()) == 11


def _matched(server: Server, position: str) -> float:
    return server.metric("whatsapp_webhook_credential_matches_total", credential="app-secret", position=position)


def test_a_hundred_credential_swaps_under_load(server: Server) -> None:
    """While old and new overlap, nothing is rejected."""
    with Traffic(server) as traffic:
        for number in range(100):
            (server.directory / "swap").write_text(
                f"{server.secret}\n{OTHER_SECRET}{number}\n" if number % 2 else f"{OTHER_SECRET}\n{server.secret}\n"
            )
            (server.directory / "swap").replace(server.credentials / "app-secret")
            time.sleep(0.03)
        (server.credentials / "app-secret").write_text(f"{OTHER_SECRET}\n{server.secret}\n")
        until(lambda: _matched(server, "2") > 0, "never used")
    assert set(traffic.answers) == {"200"}
    assert _matched(server, "1")


def test_the_admin_listener_answers_while_the_public_one_is_full(tmp_path: Path) -> None:
    """All public connections are used by silent clients."""
    with Server(tmp_path, WEBHOOK_CONNECTIONS="20", WEBHOOK_READ_TIMEOUT="5s") as server:
        clients = [server.connect() for _ in range(60)]
        for path in ("/livez", "/readyz", "/metrics"):
            started = time.monotonic()
            assert server.admin(path).status == 200
            assert time.monotonic() - started < 1
        for client in clients:
            client.close()
        assert server.notify(catalogue.notification("message text")).status == 200


def test_draining(server: Server) -> None:
    """While draining it is not ready and closes connections, but rejects nothing; a restart ends it."""
    done = subprocess.run(
        [sys.executable, "-m", "service", "drain", "--seconds", "0.1"], env=os.environ | server.environ, check=False
    )
    assert done.returncode == 0
    until(lambda: server.admin("/readyz").status == 503, "still ready")
    assert b"drain" in server.admin("/readyz").body
    answer = server.notify(catalogue.notification("message text"))
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert server.admin("/livez").status == 200
    server.stop()
    server.start()
    server.wait_until_ready()
    assert server.notify(catalogue.notification("message text")).headers["connection"] == "keep-alive"


def test_stopping_under_load(server: Server) -> None:
    """Every request whose head has arrived is answered, its event is stored, and the exit is in time."""
    half = [server.connect() for _ in range(20)]
    bodies = [catalogue.notification("message text") for _ in half]
    idle = server.connect()
    with Traffic(server) as traffic:
        time.sleep(0.5)
        for client, body in zip(half, bodies, strict=True):
            client.sendall(post(body, server.secret)[:-100])
        time.sleep(0.1)
        stopped = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        for client, body in zip(half, bodies, strict=True):
            client.sendall(post(body, server.secret)[-100:])
        answers = [read_answer(client) for client in half]
        server.process.wait(25)
        assert time.monotonic() - stopped < 25
    assert [answer.status for answer in answers] == [200] * 20
    assert {answer.headers["connection"] for answer in answers} == {"close"}
    assert idle.recv(1) == b""
    assert server.process.returncode == 0
    data = b"".join(event.data for event in server.kept())
    for body in [*bodies, *traffic.kept]:
        assert body.split(b'"id":"wamid.')[1][:40] in data
    unanswered = {"RemoteDisconnected", "ConnectionRefusedError", "ConnectionResetError", "BrokenPipeError"}
    assert set(traffic.answers) <= {"200"} | unanswered


def test_stalled_clients_do_not_delay_the_shutdown(server: Server) -> None:
    """One that sent a byte, one with a stalled body: both are cut after a second, and the log has the number."""
    raw = post(catalogue.notification("message text"), server.secret)
    with server.connect() as head, server.connect() as body:
        head.sendall(raw[:1])
        body.sendall(raw[:-1])
        until(lambda: server.metric("http_server_active_requests") == 1, "not there")
        stopped = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - stopped < 4
        assert head.recv(1) == b""
        assert (answer := read_answer(body)).status == 503
        assert answer.headers["retry-after"]
    assert [
        line["connections"] for line in server.log_lines() if line["event"] == "connections aborted at shutdown"
    ] == [2]


def test_a_body_that_makes_progress_is_accepted_during_shutdown(server: Server) -> None:
    """For up to three seconds."""
    raw = post(catalogue.batch(200), server.secret)
    step = -(-len(raw) // 9)
    with server.connect() as client:
        client.sendall(raw[:step])
        until(lambda: server.metric("http_server_active_requests") == 1, "not there")
        server.process.send_signal(signal.SIGTERM)
        for start in range(step, len(raw), step):
            time.sleep(0.25)
            client.sendall(raw[start : start + step])
        assert read_answer(client).status == 200


@pytest.mark.needs("mounts")
def test_a_full_disk(tmp_path: Path) -> None:
    """503 with the reason in /readyz while it is full; it recovers without a restart, and no stored event is lost."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)], check=True)
    try:
        with Server(tmp_path, WEBHOOK_INBOX=f"sqlite://{small}/inbox.db") as server:
            server.notify(catalogue.notification("message text"))
            filler = small / "filler"
            filler.write_bytes(b"x" * (os.statvfs(small).f_bavail * os.statvfs(small).f_bsize - 40960))
            kept = 1
            for _ in range(100):
                answer = server.notify(catalogue.notification("message text"))
                if answer.status != 200:
                    break
                kept += 1
            assert (answer.status, answer.headers["retry-after"]) == (503, "5")
            assert b"is full" in server.admin("/readyz").body
            assert server.admin("/livez").status == 200
            assert server.metric("whatsapp_webhook_inbox_errors_total", reason="full") > 0
            filler.unlink()
            until(lambda: server.admin("/readyz").status == 200, "not back by itself")
            assert server.notify(catalogue.notification("message text")).status == 200
            until(lambda: server.metric("whatsapp_webhook_inbox_events") == kept + 1, "the count is off")
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_a_second_server_on_the_same_inbox_waits(server: Server, tmp_path: Path) -> None:
    """It is not ready, reports why, and takes over when the first one has exited."""
    (tmp_path / "second").mkdir()
    second = Server(tmp_path / "second", WEBHOOK_INBOX=server.environ["WEBHOOK_INBOX"])
    second.write_credentials(second.token, second.secret)
    try:
        second.start()
        until(lambda: b"another process writes" in second.admin("/readyz").body, "it does not say why")
        assert second.notify(b"{}").status == 503
        server.stop()
        second.wait_until_ready()
        assert second.notify(b"{}").status == 200
    finally:
        second.stop()


def test_several_workers_and_a_dead_one(tmp_path: Path) -> None:
    """With the memory inbox: metrics are the sum of the workers, and continue after one was killed."""
    with Server(tmp_path, WEBHOOK_WORKERS="2", WEBHOOK_INBOX="memory://?durability=weak") as server:
        for _ in range(40):
            assert server.notify(catalogue.notification("message text")).status == 200
        accepted = {"outcome": "accepted"}
        until(lambda: server.metric("whatsapp_webhook_notifications_total", **accepted) == 40, "the sum is off")
        master = psutil.Process(server.process.pid)
        victim = master.children()[0]
        victim.kill()
        until(
            lambda: len([child for child in master.children() if child.is_running() and child.pid != victim.pid]) == 2,
            "not replaced",
        )
        until(lambda: all(server.admin("/readyz").status == 200 for _ in range(5)), "not ready again")
        for _ in range(20):
            assert server.notify(catalogue.notification("message text")).status == 200
        until(lambda: server.metric("whatsapp_webhook_notifications_total", **accepted) == 60, "counting did not go on")
        files = {file.name for file in (tmp_path / "run" / "whatsapp-webhook" / "metrics").glob("counter_*.db")}
        assert files <= {"counter_w0.db", "counter_w1.db"}
        assert server.metric("whatsapp_webhook_build_info", engine="memory") == 1


def test_series_are_bounded(server: Server) -> None:
    """At most 1,000 series, whatever is sent."""
    for kind in catalogue.kinds():
        server.notify(catalogue.notification(kind))
    for number in range(300):
        body = (
            b'{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[{"field":"f%d","value":{"messages":[{"id":"%d","type":"t%d"}],"event":"E%d"}}]}]}'
            % ((number,) * 4)
        )
        server.notify(body)
        server.request(f"M{number}"[:8], f"/path{number}")
        server.request("GET", f"/webhooks?hub.mode={number}")
    lines = server.admin("/metrics").body.decode().splitlines()
    assert len([line for line in lines if not line.startswith("#")]) <= 1000
    assert not any("f29" in line or "path1" in line for line in lines)


def test_the_processes(server: Server) -> None:
    """The maximum of file descriptors, no control socket, a writer thread, nothing monkey-patched."""
    master = psutil.Process(server.process.pid)
    (worker,) = master.children()
    soft, hard = worker.rlimit(psutil.RLIMIT_NOFILE)
    assert soft == hard
    for process in (master, worker):
        assert not [each for each in process.net_connections(kind="unix") if each.laddr]
    names = {(Path("/proc") / str(thread.id) / "comm").read_text().strip() for thread in worker.threads()}
    assert len(worker.threads()) >= 4, names


def test_a_slow_inbox_is_answered_in_time(tmp_path: Path) -> None:
    """If another program locks the database: 503 within the accept timeout; Meta's retry is stored, once."""
    body = catalogue.notification("message text")
    with Server(tmp_path, WEBHOOK_ACCEPT_TIMEOUT="1s") as server:
        with closing(apsw.Connection(str(server.inbox))) as other:
            other.execute("BEGIN IMMEDIATE")
            started = time.monotonic()
            answer = server.notify(body)
            assert (answer.status, answer.headers["retry-after"]) == (503, "5")
            assert time.monotonic() - started < 2
            until(lambda: server.admin("/readyz").status == 503, "still ready")
            other.execute("ROLLBACK")
        server.wait_until_ready()
        assert server.notify(body).status == 200
        assert len(server.kept()) == 1
