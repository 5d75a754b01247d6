"""`whatsapp-webhook relay` as a user runs it, with an inbox that the test fills."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from prometheus_client.parser import text_string_to_metric_families

from service.config import inbox_url
from service.events import Event, parse
from service.meta import catalogue
from service.storage import engines
from service.storage.protocols import Inbox, Terms
from tests.support.server import Answer, ask, free_port, run_command, until

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
META_SECRET = "the-secret-of-the-app"
WEEK = 7 * 86_400_000


class Relay:
    """One relay process, for the inbox in a directory; several may share one inbox."""

    def __init__(self, directory: Path, *, command: list[str] | None = None, **environ: str) -> None:
        """*environ* overrides the settings of a test; *command* replaces `relay`."""
        self.directory = directory
        self.command_line = command or [sys.executable, "-m", "service", "relay"]
        self.file = directory / "destinations.yaml"
        self.inbox = directory / "inbox.db"
        self.port = free_port()
        self.log_file = directory / f"relay-{self.port}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.environ = {
            "WEBHOOK_INBOX": f"sqlite://{self.inbox}",
            "WEBHOOK_RELAY_BIND": f"127.0.0.1:{self.port}",
            "WEBHOOK_DESTINATIONS": str(self.file),
            "WEBHOOK_LOG_FORMAT": "json",
            **environ,
        }

    def __enter__(self) -> Self:
        self.start()
        self.wait_until_ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(self.command_line, env=os.environ | self.environ, stdout=log, stderr=log)

    def stop(self) -> int:
        """Stop it as Kubernetes would; return its exit status."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        finally:
            self.kill()

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.kill()
            self.process.wait()
            self.process = None

    def wait_until_ready(self) -> None:
        """Wait until /readyz is 200."""
        until(lambda: self.admin("/readyz").status == 200, lambda: f"never ready: {self.admin('/readyz').body!r}")

    def admin(self, path: str) -> Answer:
        """Return the admin listener's response; status 0 if it can't be reached."""
        try:
            return ask(self.port, "GET", path, None, {})
        except OSError as ex:
            return Answer(0, {}, str(ex).encode())

    def metric(self, name: str, **labels: str) -> float:
        """Return the value of a sample; 0 if there is none."""
        for family in text_string_to_metric_families(self.admin("/metrics").body.decode()):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return sample.value
        return 0.0

    def log_lines(self) -> list[dict[str, Any]]:
        """Return the lines of the log, parsed."""
        return [json.loads(line) for line in self.log_file.read_text().splitlines()]

    def command(self, *arguments: str, ok: bool = True) -> str:
        """Run another command with the same settings; return what it printed."""
        return run_command(self.environ, *arguments, ok=ok)

    def backlog(self, *names: str) -> int:
        """Return how many deliveries are pending, to these destinations or to all, including events not read yet."""
        url = inbox_url(self.environ["WEBHOOK_INBOX"])
        if not engines.deliveries(url).exists(url):
            return sys.maxsize
        database = engines.deliveries(url).open(url)
        try:
            return sum(each.backlog for each in database.records.statuses() if not names or each.name in names)
        finally:
            database.close()


def write(directory: Path, *destinations: dict[str, Any]) -> None:
    """Write the destinations file and its secrets, with defaults for tests."""
    (directory / "cloudevents-secret").write_text(SECRET)
    (directory / "meta-secret").write_text(META_SECRET)
    entries = []
    defaults = {"name": "app", "format": "cloudevents", "internal": True, "from": "beginning", "tests": True}
    for destination in destinations:
        entry = defaults | destination
        entry.setdefault("secretFile", f"{entry['format']}-secret")
        entries.append(entry)
    temporary = directory / "destinations.new"
    temporary.write_text(json.dumps({"destinations": entries}))  # JSON is YAML
    temporary.replace(directory / "destinations.yaml")


def keep(inbox: Inbox, *bodies: bytes, at: int | None = None) -> list[Event]:
    """Store the events of notifications, and return them."""
    now = int(time.time() * 1000) if at is None else at
    events = [event for body in bodies for event in parse(body, received_at=now, nonce="")]
    inbox.put(events)
    return events


def opened(directory: Path, url: str = "") -> Inbox:
    """Open the inbox at *url* for writing; without a URL, the SQLite inbox in the directory."""
    where = inbox_url(url or f"sqlite://{directory}/inbox.db")
    return engines.load(where).inbox_opener(where, Terms(WEEK, WEEK))()


def messages(count: int, keys: int) -> Sequence[bytes]:
    """Return notifications with one message each, of *keys* people in turn."""
    return [message(number % keys, number) for number in range(count)]


def message(person: int, number: int) -> bytes:
    """Return a notification with a message of a person; its text is *number*."""
    sender = str(16505550000 + person)
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": catalogue.BUSINESS, "phone_number_id": catalogue.PHONE_NUMBER_ID},
        "contacts": [{"profile": {"name": "Ada ✓"}, "wa_id": sender}],
        "messages": [
            {
                "from": sender,
                "id": f"wamid.{number:08}",
                "timestamp": "1795000000",
                "type": "text",
                "text": {"body": str(number)},
            }
        ],
    }
    entry = {"id": catalogue.ACCOUNT, "changes": [{"value": value, "field": "messages"}]}
    return json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode()
