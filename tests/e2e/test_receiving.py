"""Applications behind the relay, written with other people's libraries, which verify signatures."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.meta import catalogue
from tests.support.relaying import META_SECRET, Relay, write
from tests.support.server import Server, free_port, until

ROOT = Path(__file__).parents[2]
APPS = ROOT / "tests" / "apps"
DOCS = ROOT / "docs" / "receiving"


@pytest.fixture(scope="session")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the Node modules from the lock file."""
    directory = tmp_path_factory.mktemp("node")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(APPS / name, directory)
    subprocess.run(["npm", "ci", "--silent"], cwd=directory, check=True)
    return directory


@contextmanager
def running(command: list[str], directory: Path) -> Iterator[Path]:
    """Run an application until the block ends; yield the file with its output."""
    printed = directory / "printed"
    with printed.open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, cwd=directory) as process:
        try:
            yield printed
        finally:
            process.kill()


def in_node(program: Path, modules: Path) -> Path:
    """Copy a program to where Node finds its modules."""
    return Path(shutil.copy(program, modules))


def deliver(tmp_path: Path, printed: Path, form: str, port: int, expected: list[str]) -> None:
    """Send notifications through the service, and check that the application got each of them."""
    write(tmp_path, {"url": f"http://127.0.0.1:{port}/webhook", "format": form})
    with Server(tmp_path) as server, Relay(tmp_path) as relay:
        for kind in ("message text", "message image", "status delivered", "status read", "message reaction"):
            assert server.notify(catalogue.notification(kind)).status == 200
        until(lambda: all(word in printed.read_text() for word in expected), printed.read_text)
        delivered = {"destination": "app", "outcome": "delivered"}
        until(lambda: relay.metric("whatsapp_webhook_relay_attempts_total", **delivered) == 5, printed.read_text)
        wamids = [json.loads(event.data)["entry"][0]["changes"][0]["value"] for event in server.kept()]
    texts = [value["messages"][0]["id"] for value in wamids if "messages" in value]
    assert all(wamid in printed.read_text() for wamid in texts)


def test_an_application_with_pywa(tmp_path: Path) -> None:
    """Flask and pywa, format `meta`; pywa verifies each signature with the destination's secret."""
    port = free_port()
    command = [sys.executable, str(APPS / "with_pywa.py"), str(port), META_SECRET]
    with running(command, tmp_path) as printed:
        deliver(tmp_path, printed, "meta", port, ["message", "status", "delivered", "read"])
        assert "unmatching" not in printed.read_text()


@pytest.mark.needs("npm")
def test_an_application_in_node(tmp_path: Path, modules: Path) -> None:
    """whatsapp-api-js, format `meta`."""
    port = free_port()
    program = in_node(APPS / "with_whatsapp_api_js.mjs", modules)
    command = ["node", str(program), str(port), META_SECRET]
    with running(command, tmp_path) as printed:
        deliver(tmp_path, printed, "meta", port, ["message", "status", "delivered", "read"])


@pytest.mark.parametrize("program", ["receive.py", pytest.param("receive.mjs", marks=pytest.mark.needs("npm"))])
def test_the_programs_of_the_documentation(program: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """About ten lines each, format `cloudevents`; they reject a signature made with another secret."""
    port, secret = free_port(), str(tmp_path / "cloudevents-secret")
    if program.endswith(".py"):
        command = [sys.executable, str(DOCS / program)]
    else:
        command = ["node", str(in_node(DOCS / program, request.getfixturevalue("modules")))]
    with running([*command, str(port), secret], tmp_path) as printed:
        deliver(tmp_path, printed, "cloudevents", port, ["got com.whatsapp.message.text"])
        (tmp_path / "other-secret").write_text("whsec_b3RoZXI=")
        write(tmp_path, {"url": f"http://127.0.0.1:{port}/", "secretFile": "other-secret"})
        before = printed.read_text().count("got ")
        with Server(tmp_path) as server, Relay(tmp_path) as relay:
            server.notify(catalogue.notification("message text"))
            until(lambda: _refused(relay), "never tried")
        assert printed.read_text().count("got ") == before


def _refused(relay: Relay) -> bool:
    tries = [
        relay.metric("whatsapp_webhook_relay_attempts_total", destination="app", outcome=outcome)
        for outcome in ("4xx", "connection")
    ]
    return any(tries)


def test_the_documentation_shows_the_programs_that_are_tested() -> None:
    """Line by line."""
    page = (ROOT / "docs" / "receiving.md").read_text()
    for program in ("receive.py", "receive.mjs"):
        assert (DOCS / program).read_text() in page
