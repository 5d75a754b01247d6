"""The inbox's URL in a file: a change is followed without a restart, an invalid one is ignored and logged."""

import sys
from contextlib import closing
from pathlib import Path

import pytest

from service.cli import load_config
from service.config import InboxUrl
from service.errors import InboxUnavailable
from service.storage.protocols import Outcome, Terms
from service.storage.url_reload import InboxSource, current
from service.telemetry import logs
from tests.faults.ledger import Ledger, kept_ids
from tests.support.engines import Servers
from tests.support.events import HOUR, event
from tests.support.server import Server, until
from tests.support.servers.postgresql import Postgresql

TERMS = Terms(HOUR, HOUR)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "url"


def configured(file: Path, text: str) -> InboxUrl:
    write(file, text)
    return load_config.configured({"WEBHOOK_INBOX_FILE": str(file)}).inbox


def write(file: Path, text: str) -> None:
    """Write the file as the kubelet does: replace it by another file."""
    new = file.with_name("new")
    new.write_text(text + "\n")
    new.replace(file)


def test_a_changed_url_is_opened(file: Path, tmp_path: Path) -> None:
    """The next call opens the inbox at the new URL."""
    source = InboxSource(configured(file, f"sqlite://{tmp_path}/one.db"), TERMS)
    with closing(source()) as inbox:
        inbox.put([event(1)])
        assert not source.moved()
        write(file, f"sqlite://{tmp_path}/other.db")
        assert source.moved()
        with closing(source()) as other:
            assert not source.moved()
            assert other.put([event(1)]) == [Outcome.NEW]


@pytest.mark.parametrize("text", ["", "nonsense", "postgresql://host:x/y", "memory://?durability=weak"])
def test_an_invalid_file_is_ignored(file: Path, tmp_path: Path, text: str) -> None:
    """An empty file, an invalid URL, or another engine: the last good value stays."""
    url = configured(file, f"sqlite://{tmp_path}/one.db")
    source = InboxSource(url, TERMS)
    write(file, text)
    assert not source.moved()
    assert current(url) == url
    source().close()
    assert (tmp_path / "one.db").exists()


def test_an_unknown_engine_is_logged_without_the_url(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log has the problem, but no text of the file, which may contain a password."""
    logs.configure(level="info", form="json", stream=sys.stdout)
    source = InboxSource(configured(file, f"sqlite://{tmp_path}/one.db"), TERMS)
    write(file, "hunter2://host/name")
    assert not source.moved()
    log = capsys.readouterr().out
    assert "must name an engine" in log
    assert "hunter2" not in log


def test_a_deleted_file_is_ignored(file: Path, tmp_path: Path) -> None:
    """The last good value stays."""
    url = configured(file, f"sqlite://{tmp_path}/one.db")
    file.unlink()
    assert not InboxSource(url, TERMS).moved()
    assert current(url) == url


@pytest.mark.needs("postgresql")
def test_a_password_is_rotated_under_load(tmp_path: Path) -> None:
    """A change to another user and password needs no restart, and every response stays 200."""
    with Postgresql() as database:
        url = database.new_database()
        name = url.rpartition("/")[2]
        for user in ("one", "two"):
            database.execute(f"CREATE ROLE {user} LOGIN SUPERUSER PASSWORD '{user}-secret'")
        file = tmp_path / "url"
        rules = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        (database.data / "pg_hba.conf").write_text(rules)
        database.configure()
        write(file, url.replace("postgres@", "one:one-secret@"))
        server = Server(tmp_path, WEBHOOK_INBOX_FILE=str(file), WEBHOOK_INBOX="")
        with server, Ledger(server) as ledger:

            def users() -> set[str]:
                rows = database.execute(f"SELECT DISTINCT usename FROM pg_stat_activity WHERE datname = '{name}'")
                return {str(user) for (user,) in rows}

            ledger.wait_for(50)
            assert users() == {"one"}
            write(file, url.replace("postgres@", "two:wrong@"))
            until(lambda: "inbox not changed" in server.log_file.read_text(), "nobody noticed")
            write(file, url.replace("postgres@", "two:two-secret@"))
            until(lambda: users() == {"two"}, lambda: f"still {users()}")
            database.execute("ALTER ROLE one NOLOGIN")
            ledger.wait_for(len(ledger.acknowledged) + 200)
        assert set(ledger.answers) == {200}
        server.environ["WEBHOOK_INBOX"] = url
        assert ledger.acknowledged <= kept_ids(server)
        text = server.log_file.read_text()
        assert "inbox changed" in text
        assert "secret" not in text.replace("app-secret", "").replace("app_secret", "")
        assert "wrong" not in text


@pytest.mark.needs("postgresql")
def test_a_password_in_the_url_is_neither_logged_nor_served(servers: Servers, tmp_path: Path) -> None:
    """A password in the environment appears in no log line, in /readyz or in /metrics."""
    url = servers.postgresql().new_database().replace("postgres@", "postgres:canary@")
    with Server(tmp_path, WEBHOOK_INBOX=url) as server:
        servers.postgresql().execute(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")
        until(lambda: server.admin("/readyz").status == 503, "it is still ready")
        assert b"canary" not in server.admin("/readyz").body + server.admin("/metrics").body
    assert "canary" not in server.log_file.read_text()


def test_a_missing_directory_is_reported_when_the_inbox_is_opened(file: Path, tmp_path: Path) -> None:
    """Reading the URL's file does not check the directory."""
    source = InboxSource(configured(file, f"sqlite://{tmp_path}/nowhere/inbox.db"), TERMS)
    with pytest.raises(InboxUnavailable, match="nowhere"):
        source()


def test_a_new_url_that_could_not_be_opened_is_tried_again(file: Path, tmp_path: Path) -> None:
    """The URL counts as changed until its inbox was opened."""
    source = InboxSource(configured(file, f"sqlite://{tmp_path}/one.db"), TERMS)
    source().close()
    write(file, f"sqlite://{tmp_path}/later/other.db")
    with pytest.raises(InboxUnavailable):
        source()
    assert source.moved()
    (tmp_path / "later").mkdir()
    source().close()
    assert not source.moved()
