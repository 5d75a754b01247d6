"""Applications behind the real service and relay: libraries of others, and the examples of docs/receive-events.md."""

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from service.events import Event, parse, structured
from service.meta import catalogue
from service.relay import destinations
from service.relay.destinations import Destination
from tests.support.relaying import META_SECRET, Relay, write
from tests.support.server import Server, free_port, until

ROOT = Path(__file__).parents[2]
APPS = ROOT / "tests" / "apps"
EXAMPLES = ROOT / "docs" / "examples" / "receivers"
PAGE = (ROOT / "docs" / "receive-events.md").read_text()
KINDS = ("message text", "message image", "status delivered", "status read", "message reaction")
OTHER_SECRETS = {"meta": "0123456789abcdef0123456789abcdef", "cloudevents": "whsec_b3RoZXI="}
NEEDS_NPM = pytest.mark.needs("npm")


@pytest.fixture(scope="session")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the packages of the lock file, and return the directory from which Node finds them."""
    directory = tmp_path_factory.mktemp("node")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(APPS / name, directory)
    subprocess.run(["npm", "ci", "--silent"], cwd=directory, check=True)
    return directory


class Service(NamedTuple):
    """The running relay of an inbox that holds an event of each of KINDS."""

    relay: Relay
    events: Sequence[Event]

    def deliver(self, *deliveries: dict[str, str]) -> None:
        """Replace the destinations by *deliveries*, each of which gets every stored event."""
        write(self.relay.directory, *deliveries)

    def attempts(self, destination: str, outcome: str) -> float:
        """Return the number of attempts with this outcome."""
        return self.relay.metric("whatsapp_webhook_relay_attempts_total", destination=destination, outcome=outcome)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("service")
    write(directory)
    with Server(directory) as server, Relay(directory) as relay:
        for kind in KINDS:
            assert server.notify(catalogue.notification(kind)).status == 200
        yield Service(relay, server.kept())


@contextmanager
def running(command: list[str], directory: Path) -> Iterator[Path]:
    """Run a program until the block ends; yield the file with its output."""
    printed = directory / "printed"
    with printed.open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, cwd=directory) as process:
        try:
            yield printed
        finally:
            process.kill()


@contextmanager
def listening(program: Path, port: int, secret: str, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Run `PROGRAM PORT SECRET` until the block ends; yield the file with its output once it listens.

    A program for Node is copied to where its modules are.
    """
    if program.suffix == ".py":
        command = [sys.executable, str(program)]
    else:
        command = ["node", shutil.copy(program, request.getfixturevalue("modules"))]
    with running([*command, str(port), secret], request.getfixturevalue("tmp_path")) as printed:
        until(lambda: is_listening(port), printed.read_text)
        yield printed


def is_listening(port: int) -> bool:
    """Return whether a connection to *port* can be opened."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


@pytest.mark.parametrize("program", ["with_pywa.py", pytest.param("with_whatsapp_api_js.mjs", marks=NEEDS_NPM)])
def test_an_application_written_for_meta(program: str, service: Service, request: pytest.FixtureRequest) -> None:
    """An unchanged WhatsApp library reads what `format: meta` delivers, with its signature check on."""
    port, name = free_port(), program.partition(".")[0].replace("_", "-")
    with listening(APPS / program, port, META_SECRET, request) as printed:
        service.deliver({"name": name, "url": f"http://127.0.0.1:{port}/webhook", "format": "meta"})
        until(lambda: service.attempts(name, "delivered") == len(KINDS), printed.read_text)
        expected = ["message", "status", "delivered", "read", *(own_id(event.data) for event in service.events)]
        until(lambda: all(word in printed.read_text() for word in expected), printed.read_text)
        assert "unmatching" not in printed.read_text()  # pywa's word for a wrong signature


def own_id(notification: bytes) -> str:
    """Return the id that Meta gave to the one message or status of *notification*."""
    value = json.loads(notification)["entry"][0]["changes"][0]["value"]
    return str((value.get("messages") or value["statuses"])[0]["id"])


def receivers() -> list[Path]:
    """Return the examples that receive by HTTP."""
    return sorted(path for path in EXAMPLES.iterdir() if path.stem.endswith(("_meta", "_cloudevents")))


@pytest.mark.parametrize(
    "program", [pytest.param(path, id=path.name, marks=[NEEDS_NPM] * (path.suffix == ".mjs")) for path in receivers()]
)
def test_an_example(program: Path, service: Service, request: pytest.FixtureRequest) -> None:
    """It accepts each event once, and answers 401 to the same events signed with another secret.

    With `format: meta`, whose requests have one signature, it accepts that of any line of its file: for a rotation.
    """
    port, form, directory = free_port(), program.stem.rpartition("_")[2], service.relay.directory
    (directory / "other-secret").write_text(OTHER_SECRETS[form])
    secrets = directory / f"{form}-secret"
    if form == "meta":
        secrets = directory / "rotated-secrets"
        secrets.write_text(f"the-secret-after-the-rotation\n\n{META_SECRET}\n")
    name = program.name.replace("_", "-").replace(".", "-")
    signed = {"name": name, "url": f"http://127.0.0.1:{port}/webhook", "format": form}
    forged = signed | {"name": f"{name}-forged", "secretFile": "other-secret"}
    with listening(program, port, str(secrets), request) as printed:
        service.deliver(signed, forged)
        until(lambda: service.attempts(name, "delivered") == len(KINDS), printed.read_text)
        until(lambda: service.attempts(f"{name}-forged", "4xx") >= len(KINDS), printed.read_text)
        assert service.attempts(f"{name}-forged", "delivered") == 0
        accepted = re.findall("got .*", printed.read_text())  # also behind a part of a line that Flask logs
    assert len(accepted) == len(KINDS)
    for event in service.events:
        expected = own_id(event.data) if form == "meta" else f"got {event.type} {event.id}"
        assert sum(expected in line for line in accepted) == 1
    assert all(len(line) < 250 for line in accepted), "one short line per event"


@pytest.mark.parametrize("program", receivers(), ids=lambda path: path.name)
def test_the_page_shows_the_examples(program: Path) -> None:
    """Line for line, and short enough to read at a glance."""
    text = program.read_text()
    assert f"\n{text}```\n" in PAGE
    assert len(text.splitlines()) <= 23


def test_the_page_has_every_option_of_a_destination() -> None:
    """One row of the table for each."""
    options = [field.alias or name for name, field in Destination.model_fields.items()]
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.partition("## What you can rely on")[0], re.MULTILINE)
    assert sorted(rows) == sorted(options)


def test_the_destinations_file_of_the_page_is_valid() -> None:
    """The relay accepts the example."""
    (example,) = re.findall(r"^```yaml\n(destinations:\n.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert [each.name for each in destinations.parse(example.encode(), "page")] == ["bot", "crm"]


def test_the_event_of_the_documentation() -> None:
    """The example in docs/events.md is what the service makes of its data."""
    page = (ROOT / "docs" / "events.md").read_text()
    (example,) = re.findall(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    shown = json.loads(example)
    (event,) = parse(json.dumps(shown["data"]).encode(), received_at=0, nonce="")
    assert json.loads(structured(event)) == shown
