"""The real server, run as a user runs it, and clients for it, including malformed requests."""

import http.client
import itertools
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode

from prometheus_client.parser import text_string_to_metric_families

from service import signature
from service.config import inbox_url
from service.storage import engines
from tests.support import commands

PATIENCE = 20.0
FIRST_PORT = 10_000
PORTS_PER_PROCESS = 1_000
TEST_PROCESSES = 16


class Answer(NamedTuple):
    """An HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes


def _ports() -> Iterator[int]:
    """Yield ports below the kernel's ephemeral range, from a range that no other test process of this run uses."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw15").removeprefix("gw"))
    start = FIRST_PORT + PORTS_PER_PROCESS * (worker % TEST_PROCESSES)
    offset = random.SystemRandom().randrange(PORTS_PER_PROCESS)  # another test run may be active on this machine
    for number in itertools.count(offset):
        yield start + number % PORTS_PER_PROCESS


_next_port = _ports()


def free_port() -> int:
    """Return a port without a listener, which the kernel does not assign to client sockets."""
    for port in _next_port:
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError


class Server:
    """`whatsapp-webhook serve` with its files in one directory."""

    def __init__(self, directory: Path, *, command: list[str] | None = None, **environ: str) -> None:
        """*environ* overrides the default test settings; *command* replaces `serve`."""
        self.directory = directory
        self.command = command or [sys.executable, "-m", "service", "serve"]
        self.port, self.admin_port = free_port(), free_port()
        self.token, self.secret = "the-verify-token", secrets.token_hex(16)
        self.credentials = directory / "credentials"
        self.log_file = directory / "log"
        self.inbox = directory / "inbox.db"
        self.process: subprocess.Popen[bytes] | None = None
        self.environ = {
            "WEBHOOK_BIND": f"127.0.0.1:{self.port}",
            "WEBHOOK_ADMIN_BIND": f"127.0.0.1:{self.admin_port}",
            "WEBHOOK_RUN_DIR": str(directory / "run"),
            "WEBHOOK_CREDENTIALS_DIR": str(self.credentials),
            "WEBHOOK_INBOX": f"sqlite://{directory}/inbox.db",
            **environ,
        }

    def __enter__(self) -> Self:
        self.write_credentials(self.token, self.secret)
        self.start()
        self.wait_until_ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def write_credentials(self, token: str | None, secret: str | None) -> None:
        """Write the credentials files; None deletes one."""
        self.credentials.mkdir(exist_ok=True)
        for name, value in (("verify-token", token), ("app-secret", secret)):
            if value is None:
                (self.credentials / name).unlink(missing_ok=True)
            else:
                (self.credentials / name).write_text(value)

    def start(self) -> None:
        """Start the process, and wait until it listens."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=os.environ | self.environ, stdout=log, stderr=log, start_new_session=True
            )
        until(lambda: _listens(self.port), f"the server does not listen; its log: {self.log_file}")

    def stop(self, timeout: float = 30) -> int:
        """Send SIGTERM, as Kubernetes does; return the exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        finally:
            self.kill()

    def kill(self) -> None:
        """Kill master and workers with SIGKILL."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None
        until(lambda: not _listens(self.port), "a worker still listens")

    def wait_until_ready(self) -> None:
        """Wait until /readyz is 200."""
        until(lambda: self.admin("/readyz").status == 200, lambda: f"never ready: {self.admin('/readyz').body!r}")

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request on a new connection."""
        return ask(self.port, method, path, body, headers or {})

    def admin(self, path: str, **headers: str) -> Answer:
        """Send a GET to the admin listener; status 0 if it can't be reached."""
        try:
            return ask(self.admin_port, "GET", path, None, headers)
        except OSError as ex:
            return Answer(0, {}, str(ex).encode())

    def handshake(self, token: str | None = None, challenge: str = "1158201444", **more: str) -> Answer:
        """Send a handshake as Meta does."""
        query = {
            "hub.mode": "subscribe",
            "hub.verify_token": self.token if token is None else token,
            "hub.challenge": challenge,
        }
        return self.request("GET", f"/webhooks?{urlencode({**query, **more})}")

    def notify(self, body: bytes, *, secret: str | None = None, **headers: str) -> Answer:
        """Send a signed notification."""
        signed = {signature.HEADER: signature.header_for(body, (secret or self.secret).encode())}
        return self.request("POST", "/webhooks", body, signed | headers)

    def connect(self) -> socket.socket:
        """Open a raw connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def metric(self, name: str, **labels: str) -> float:
        """Return the value of a sample; 0 if it does not exist."""
        for family in text_string_to_metric_families(self.admin("/metrics").body.decode()):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return sample.value
        return 0.0

    def run(self, *arguments: str, ok: bool = True) -> str:
        """Run another command with the same settings; return its output."""
        return run_command(self.environ, *arguments, ok=ok)

    def kept(self) -> list[Any]:
        """Return all stored events."""
        url = inbox_url(self.environ["WEBHOOK_INBOX"])
        if open_stream := engines.load(url).open_stream:
            with closing(open_stream(url)) as stream:
                return [event for _, event in stream.since(None)]
        with closing(engines.open_log(url)) as log:
            return [record.event for record in log.read(0, 10_000_000)]

    def log_lines(self) -> list[dict[str, Any]]:
        """Return the log lines as objects."""
        return [json.loads(line) for line in self.log_file.read_text().splitlines()]


def run_command(environ: Mapping[str, str], *arguments: str, ok: bool = True) -> str:
    """Run `whatsapp-webhook`; return its output, or its error output if it is expected to fail."""
    done = commands.run(*arguments, environ=os.environ | environ)
    assert (done.returncode == 0) is ok, done.stderr
    return done.stdout if ok else done.stderr


def post(body: bytes, secret: str, *, length: int | None = None, more: str = "") -> bytes:
    """Return a signed POST as bytes."""
    head = (
        "POST /webhooks HTTP/1.1\r\nHost: test\r\n"
        f"{signature.HEADER}: {signature.header_for(body, secret.encode())}\r\n"
        f"Content-Length: {len(body) if length is None else length}\r\n{more}\r\n"
    )
    return head.encode() + body


def read_answer(client: socket.socket) -> Answer:
    """Read one response from a raw connection; status 0 if the connection was closed without one."""
    response = http.client.HTTPResponse(client)
    try:
        response.begin()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    except (http.client.BadStatusLine, ConnectionError):
        return Answer(0, {}, b"")


def until(condition: Any, failure: Any, patience: float = PATIENCE) -> None:
    """Wait until *condition* is true; fail with *failure*, a text or a function, after *patience* seconds."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(failure() if callable(failure) else failure)
        time.sleep(0.02)


@contextmanager
def keep_alive(port: int) -> Iterator[http.client.HTTPConnection]:
    """Open a connection for several requests."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        yield connection


def ask(port: int, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
    with keep_alive(port) as connection:
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
