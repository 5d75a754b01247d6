"""The worker in gunicorn's life: what it takes part in, and what it refuses."""

import http.client
import subprocess
import sys

import pytest

from tests.receiver.worker.conversation import serving
from tests.support.server import Server, free_port, until


def _ask(port: int) -> int:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    client.request("GET", "/")
    status = client.getresponse().status
    client.close()
    return status


def test_a_worker_ends_after_max_requests() -> None:
    """And another one takes its place: no request is lost, the last one closes its connection."""
    with serving("ours", "max_requests=5") as port:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        for number in range(1, 6):
            client.request("GET", "/")
            answer = client.getresponse()
            assert answer.read()
            assert answer.getheader("Connection") == ("close" if number == 5 else "keep-alive")
        assert [_ask(port) for _ in range(12)] == [200] * 12


@pytest.mark.parametrize("setting", ["proxy_protocol=v1", "proxy_protocol=auto", "forwarded_allow_ips=*"])
def test_settings_that_believe_a_proxy_are_refused(setting: str) -> None:
    """At the start, in words: what they would change is not done here."""
    command = [sys.executable, "-m", "tests.receiver.worker.echo", str(free_port()), "ours", setting]
    ended = subprocess.run(command, capture_output=True, timeout=20, check=False)
    assert ended.returncode != 0
    assert setting.split("=", maxsplit=1)[0].encode() + b": this worker believes no proxy" in ended.stderr


@pytest.mark.parametrize(
    "said",
    [b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + b"\1" * 12],
    ids=["version 1", "version 2"],
)
def test_a_load_balancer_that_speaks_the_proxy_protocol(server: Server, said: bytes) -> None:
    """Gets 400, and the log says what to turn off."""
    for pieces in ([said + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"], [said[:7], said[7:]]):
        with server.connect() as client:
            for piece in pieces:
                client.sendall(piece)
            assert client.recv(4096).startswith(b"HTTP/1.1 400 ")
    until(
        lambda: "PROXY protocol is not spoken here: turn it off" in server.log_file.read_text(),
        server.log_file.read_text,
    )
