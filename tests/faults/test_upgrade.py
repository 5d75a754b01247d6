"""An upgrade and a rollback under load, with data, on each engine: nothing that was answered 200 is lost.

`TEST_UPGRADE_FROM` names the earlier version, a tag or commit of this repository: `make upgrade FROM=v1.2.3`.
"""

import io
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service.config import inbox_url
from service.storage import engines
from tests.faults.ledger import Ledger, kept_ids
from tests.support.destination import Destination, saying
from tests.support.engines import ROWS, Servers
from tests.support.relaying import Relay, write
from tests.support.server import Server, until

ROOT = Path(__file__).parents[2]
FROM = os.environ.get("TEST_UPGRADE_FROM")
SECONDS = float(os.environ.get("TEST_UPGRADE_SECONDS", "5"))  # of load on each version
ENGINES = [name for name in ROWS if name != "memory"]
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not FROM, reason="TEST_UPGRADE_FROM names no earlier version"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the earlier version."""
    directory = tmp_path_factory.mktemp("earlier")
    archive = subprocess.run(["git", "archive", str(FROM), "service"], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(directory, filter="data")
    return directory


@pytest.fixture
def app() -> Iterator[Destination]:
    with closing(Destination(saying())) as app:
        yield app


class Version:
    """Receiver and, if the engine has a log, relay of one version, on one directory."""

    def __init__(self, root: Path, directory: Path, url: str, like: "Version | None" = None) -> None:
        """*root* has its program. Port and secret are those of *like*, so that the load goes on."""
        program = [sys.executable, "-P", "-m", "service"]
        environ = {"PYTHONPATH": str(root), "WEBHOOK_INBOX": url, "WEBHOOK_LOG_FORMAT": "json"}
        self.server = Server(directory, command=[*program, "serve"], **environ)
        if like:
            self.server.port, self.server.secret = like.server.port, like.server.secret
            self.server.environ["WEBHOOK_BIND"] = like.server.environ["WEBHOOK_BIND"]
        self.relay = Relay(directory, command=[*program, "relay"], **environ)
        self.has_relay = engines.load(inbox_url(url)).deliveries is not None

    def start(self) -> dict[str, bool]:
        """Start both; return for each whether it works, or says that it needs the later version."""
        self.server.write_credentials(self.server.token, self.server.secret)
        self.server.log_file.unlink(missing_ok=True)
        self.server.start()
        if not self.has_relay:
            return {"receiver": _works(self.server)}
        self.relay.start()
        return {"receiver": _works(self.server), "relay": _works(self.relay)}

    def stop(self) -> None:
        self.server.stop()
        self.relay.stop()


def _works(process: Server | Relay) -> bool:
    def is_known() -> bool:
        return process.admin("/readyz").status == 200 or "later version" in process.log_file.read_text()

    until(is_known, lambda: f"it neither works nor says why: {process.log_file.read_text()[-2000:]}")
    return process.admin("/readyz").status == 200


@pytest.mark.parametrize("name", [pytest.param(each, marks=pytest.mark.needs(each)) for each in ENGINES])
def test_an_upgrade_and_a_rollback_under_load(
    name: str, tmp_path: Path, servers: Servers, earlier: Path, app: Destination
) -> None:
    """The earlier version, this, the earlier and this. One that can't use what the later one wrote says so.

    It harms nothing: with this version everything is delivered.
    """
    url = ROWS[name].place(tmp_path, servers)
    write(tmp_path, {"url": f"http://127.0.0.1:{app.port}/", "format": "meta"})
    version = first = Version(earlier, tmp_path, url)
    print()
    with Ledger(first.server, connections=2, pause=0.01) as ledger:
        for number, root in enumerate((earlier, ROOT, earlier, ROOT)):
            version = Version(root, tmp_path, url, first)
            before, started = len(ledger.acknowledged), time.monotonic()
            works = version.start()
            if works["receiver"]:
                ledger.wait_for(before + 1)
            gap = time.monotonic() - started
            assert all(works.values()) or number == 2, works
            time.sleep(SECONDS)
            print(f"{name:10} {'this' if root == ROOT else 'earlier':7} ready after {gap:4.1f} s, {works}")
            if number < 3:
                version.stop()
    try:
        assert ledger.acknowledged <= kept_ids(version.server)
        if version.has_relay:
            until(lambda: version.relay.backlog("app") == 0, "not everything is delivered", patience=120)
            delivered = b"".join(app.bodies())
            missing = [each for each in ledger.acknowledged if each.encode() not in delivered]
            assert not missing
    finally:
        version.stop()
    duplicates = f", {len(app.requests) - len(set(app.bodies()))} duplicates" if version.has_relay else ""
    print(f"{name:10} answers {dict(ledger.answers)}, {len(ledger.acknowledged)} events{duplicates}, none lost")
