"""The worker and gunicorn's settings: which it supports, and which it rejects."""

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


def test_a_worker_restarts_after_max_requests() -> None:
    """No request is lost, and the last response closes its connection."""
    with serving("ours", "max_requests=5") as port:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        for number in range(1, 6):
            client.request("GET", "/")
            answer = client.getresponse()
            assert answer.read()
            assert answer.getheader("Connection") == ("close" if number == 5 else "keep-alive")
        assert [_ask(port) for _ in range(12)] == [200] * 12


@pytest.mark.parametrize("setting", ["proxy_protocol=v1", "proxy_protocol=auto", "forwarded_allow_ips=*"])
def test_settings_that_trust_a_proxy_are_rejected(setting: str) -> None:
    """The server does not start, and the error names the setting."""
    command = [sys.executable, "-m", "tests.receiver.worker.echo", str(free_port()), "ours", setting]
    done = subprocess.run(command, capture_output=True, timeout=20, check=False)
    assert done.returncode != 0
    assert setting.split("=", maxsplit=1)[0].encode() + b": this worker never trusts proxy headers" in done.stderr


@pytest.mark.parametrize(
    "header",
    [b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + b"\1" * 12],
    ids=["version 1", "version 2"],
)
def test_a_load_balancer_that_speaks_the_proxy_protocol(server: Server, header: bytes) -> None:
    """It gets 400, and the log says to turn the protocol off."""
    for pieces in ([header + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"], [header[:7], header[7:]]):
        with server.connect() as client:
            for piece in pieces:
                client.sendall(piece)
            assert client.recv(4096).startswith(b"HTTP/1.1 400 ")
    until(
        lambda: "PROXY protocol is not supported: turn it off" in server.log_file.read_text(),
        server.log_file.read_text,
    )
