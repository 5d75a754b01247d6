"""The inbox's file: symbolic links, spaces in its path, a file of another program, and what the log reports."""

import subprocess
import sys
from pathlib import Path

from service.meta import catalogue
from tests.support.destination import destination
from tests.support.relaying import Relay, write
from tests.support.server import Server, until


def test_a_symbolic_link_is_resolved(tmp_path: Path) -> None:
    """WAL, lock and relay.db are beside the target; a second process with the other path is reported as `locked`."""
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.mkdir()
    (link / "inbox.db").symlink_to(real / "events.db")
    with destination() as app, Server(tmp_path, WEBHOOK_INBOX=f"sqlite://{link}/inbox.db") as server:
        assert server.notify(catalogue.notification("message text")).status == 200
        write(tmp_path, {"url": f"http://127.0.0.1:{app.port}/"})
        with Relay(tmp_path, WEBHOOK_INBOX=server.environ["WEBHOOK_INBOX"]):
            until(lambda: app.requests, "not delivered")
        names = {file.name for file in real.iterdir()}
        assert {"events.db", "events.db-wal", "events.db.lock", "relay.db"} <= names
        assert {file.name for file in link.iterdir()} == {"inbox.db"}
        (tmp_path / "second").mkdir()
        second = Server(tmp_path / "second", WEBHOOK_INBOX=f"sqlite://{real}/events.db")
        second.write_credentials(second.token, second.secret)
        second.start()
        until(lambda: b"locked: another process writes" in second.admin("/readyz").body, "not refused")
        second.stop()
        assert server.notify(catalogue.notification("message text")).status == 200


def test_a_path_with_spaces(tmp_path: Path) -> None:
    """They are percent-encoded in the URL."""
    (tmp_path / "a b").mkdir()
    with Server(tmp_path, WEBHOOK_INBOX=f"sqlite://{tmp_path}/a%20b/x%3F.db") as server:
        assert server.notify(catalogue.notification("message text")).status == 200
        assert (tmp_path / "a b" / "x?.db").stat().st_size > 0


def test_the_database_of_another_program_is_not_used(tmp_path: Path) -> None:
    """Not ready, with the reason; notifications are logged as not stored, and the file is not changed."""
    program = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('CREATE TABLE a (b)'); db.commit()"
    path = tmp_path / "inbox.db"
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)
    before = path.read_bytes()
    server = Server(tmp_path)
    server.write_credentials(server.token, server.secret)
    server.start()
    try:
        until(lambda: b"foreign: " in server.admin("/readyz").body, "not said")
        assert server.notify(catalogue.notification("message text")).status == 503
        lines = server.log_lines()
        (line,) = [each for each in lines if each["event"] == "notification not stored"]
        assert (line["level"], line["reason"]) == ("error", "foreign")
        assert not any(each["event"] == "notification rejected" for each in lines)
    finally:
        server.stop()
    assert path.read_bytes() == before
    assert {file.name for file in tmp_path.glob("inbox.db*")} == {"inbox.db"}


def test_a_misspelt_name_of_a_credential_file(tmp_path: Path) -> None:
    """The log names it, as /readyz does."""
    server = Server(tmp_path)
    server.write_credentials(None, server.secret)
    (server.credentials / "verify_token").write_text(server.token)
    server.start()
    try:
        until(lambda: "credentials not readable" in server.log_file.read_text(), "not said")
        (line,) = [each for each in server.log_lines() if each["event"] == "credentials not readable"]
        assert "verify_token" in line["hint"]
    finally:
        server.stop()
