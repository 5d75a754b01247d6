"""The configuration: every problem is reported together, with its remedy."""

from pathlib import Path

import pytest

from service import config
from service.cli.load_config import configured
from service.config import SECRETS, parsers
from service.errors import ConfigurationError


def load(**environ: str) -> config.Config:
    return configured(environ)


def problems(**environ: str) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as refused:
        load(**environ)
    return refused.value.problems


def test_the_defaults() -> None:
    """An empty environment is valid, and has the documented defaults."""
    loaded = load()
    assert str(loaded.bind) == "0.0.0.0:8080"
    assert str(loaded.admin_bind) == "127.0.0.1:9090"
    assert str(loaded.relay_bind) == "127.0.0.1:9091"
    assert loaded.path == "/webhooks"
    assert (loaded.inbox.engine, loaded.inbox.path) == ("sqlite", Path("/var/lib/whatsapp-webhook/inbox.db"))
    assert (loaded.read_timeout, loaded.accept_timeout) == (10, 2)
    assert (loaded.retention, loaded.body_retention) == (8 * 86400, 8 * 86400)
    assert (loaded.workers, loaded.connections, loaded.inflight_bytes) == (1, 4096, 134217728)
    assert loaded.fields == frozenset()


def test_a_variable_that_is_empty_has_its_default() -> None:
    """A chart renders an unset value as an empty variable."""
    assert load(WEBHOOK_WORKERS="", WEBHOOK_FIELDS="") == load()


def test_every_problem_is_reported_together() -> None:
    """All problems are in one error, each with the name of its variable."""
    found = problems(WEBHOOK_BIND="here", WEBHOOK_READ_TIMEOUT="10", WEBHOOK_PATHS="/x", WEBHOOK_LOG_LEVEL="loud")
    assert len(found) == 4
    assert all(any(name in problem for problem in found) for name in ("BIND", "READ_TIMEOUT", "PATHS", "LOG_LEVEL"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WEBHOOK_BIND", "8080"),
        ("WEBHOOK_BIND", "0.0.0.0:0"),
        ("WEBHOOK_BIND", "0.0.0.0:65536"),
        ("WEBHOOK_BIND", ":8080"),
        ("WEBHOOK_PATH", "webhooks"),
        ("WEBHOOK_PATH", "/a?b"),
        ("WEBHOOK_READ_TIMEOUT", "0s"),
        ("WEBHOOK_READ_TIMEOUT", "-1s"),
        ("WEBHOOK_READ_TIMEOUT", "10 s"),
        ("WEBHOOK_READ_TIMEOUT", "1e3s"),
        ("WEBHOOK_PATH", "//a"),
        ("WEBHOOK_PATH", "/a//b"),
        ("WEBHOOK_RETENTION", "9" * 400 + "d"),
        ("WEBHOOK_CONNECTIONS", "9" * 20),
        ("WEBHOOK_CONNECTIONS", "9" * 5000),
        ("WEBHOOK_INBOX", "http://["),
        ("WEBHOOK_WORKERS", "0"),
        ("WEBHOOK_WORKERS", "two"),
        ("WEBHOOK_WORKERS", "٣"),
        ("WEBHOOK_WORKERS", "2"),
        ("WEBHOOK_MAX_BODY_BYTES", "4MB"),
        ("WEBHOOK_INFLIGHT_BYTES", "1000"),
        ("WEBHOOK_BODY_RETENTION", "9d"),
        ("WEBHOOK_LOG_FORMAT", "xml"),
        ("WEBHOOK_ADMIN_BIND", "0.0.0.0:8080"),
        ("WEBHOOK_INBOX", "redis://here"),
        ("WEBHOOK_INBOX", "sqlite://"),
        ("WEBHOOK_INBOX", "sqlite://host/path"),
        ("WEBHOOK_INBOX", "sqlite:///a/"),
        ("WEBHOOK_INBOX", "sqlite:///a.db?mode=ro"),
        ("WEBHOOK_INBOX", "sqlite:///a.db?durability=weak"),
        ("WEBHOOK_INBOX", "memory://"),
        ("WEBHOOK_INBOX_FILE", "/nowhere/at/all"),
    ],
)
def test_a_value_that_cannot_be_used(name: str, value: str) -> None:
    """The problem is a sentence that names the variable."""
    (problem,) = problems(**{name: value})
    assert name.removesuffix("_FILE") in problem
    assert problem.endswith((".", "?"))


def test_a_misspelt_variable() -> None:
    """An unknown variable is an error, which suggests a similar name."""
    assert "did you mean WEBHOOK_RETENTION?" in problems(WEBHOOK_RETENSION="8d")[0]
    assert "is not a setting" in problems(WEBHOOK_QQQQQQQ="1")[0]


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_in_a_servers_environment(name: str) -> None:
    """It is rejected, because the server would ignore it; the error names the file to use and not the secret."""
    (problem,) = problems(**{name: "0123456789abcdef"})
    assert f"a server reads the file {SECRETS[name]}" in problem
    assert "0123456789abcdef" not in problem


def test_contradictions_and_invalid_values_are_reported_together() -> None:
    """An invalid value is not reported as a contradiction as well."""
    found = problems(WEBHOOK_WORKERS="2", WEBHOOK_BODY_RETENTION="9d", WEBHOOK_PATH="x", WEBHOOK_FIELDS="mesages")
    assert len(found) == 4
    assert len(problems(WEBHOOK_BIND="x", WEBHOOK_ADMIN_BIND="0.0.0.0:8080")) == 1
    assert "must be one of json, console" in problems(WEBHOOK_LOG_FORMAT="xml")[0]


def test_variables_that_kubernetes_injects_are_ignored() -> None:
    """A Service called `webhook` adds its address to the environment of every pod in the namespace."""
    load(
        WEBHOOK_SERVICE_HOST="10.0.0.1",
        WEBHOOK_SERVICE_PORT="80",
        WEBHOOK_SERVICE_PORT_HTTP="80",
        WEBHOOK_PORT="tcp://10.0.0.1:80",
        WEBHOOK_PORT_8080_TCP="tcp://10.0.0.1:8080",
        WEBHOOK_PORT_8080_TCP_ADDR="10.0.0.1",
        WEBHOOK_X_SERVICE_HOST="10.0.0.1",
    )


def test_an_error_does_not_quote_the_inbox_url() -> None:
    """The URL may contain a password."""
    assert "hunter2" not in problems(WEBHOOK_INBOX="redis://me:hunter2@here")[0]


def test_the_inbox_url_from_a_file(tmp_path: Path) -> None:
    """The URL can be in a mounted file; setting both variables is an error."""
    file = tmp_path / "url"
    file.write_text("sqlite:///data/inbox.db\n")
    assert load(WEBHOOK_INBOX_FILE=str(file)).inbox.path == Path("/data/inbox.db")
    assert "both set" in problems(WEBHOOK_INBOX_FILE=str(file), WEBHOOK_INBOX="sqlite:///x.db")[0]


def test_a_misspelt_field() -> None:
    """A field that is similar to a known one is an error; any other unknown field is accepted, as Meta may add it."""
    assert "'messages'" in problems(WEBHOOK_FIELDS="mesages")[0]
    assert load(WEBHOOK_FIELDS=" messages, calls ,").fields == {"messages", "calls"}
    assert load(WEBHOOK_FIELDS="zzz_of_tomorrow").fields == {"zzz_of_tomorrow"}


def test_durations_and_addresses() -> None:
    """Each unit is parsed, and an IPv6 address keeps its brackets."""
    assert [parsers.duration(text) for text in ("500ms", "1s", "1.5m", "2h", "8d")] == [0.5, 1, 90, 7200, 691200]
    assert str(parsers.address("[::1]:8080")) == "[::1]:8080"


def test_several_workers_on_memory() -> None:
    """The memory engine supports several workers."""
    assert load(WEBHOOK_WORKERS="2", WEBHOOK_INBOX="memory://?durability=weak").workers == 2


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:pa/sswcanary@127.0.0.1/db",
        "postgresql://me:pa#sswcanary@127.0.0.1/db",
        "postgresql://me:pa?sswcanary@127.0.0.1/db",
        "postgresql://me:se%zzcanary@h/db",
        "postgresql://h/db?password=se%zzcanary",
        "kafka://me:se?canary@b:9093/topic",
        "nats://me:se/canary@b:4222/S",
    ],
)
def test_a_password_that_must_be_percent_encoded(url: str) -> None:
    """The error says to percent-encode it, and does not quote it."""
    with pytest.raises(ConfigurationError) as refused:
        configured({"WEBHOOK_INBOX": url})
    assert "canary" not in str(refused.value)
    assert "percent-encode" in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me@[::1]:5432,other:5433/db?sslmode=verify-full",
        "postgresql:///db?host=/tmp",
        "kafka://b1:9092,b2:9092/topic?sasl.username=me&sasl.password.file=/x",
        "nats://token@b:4222,c:4222/S?tlsca=/x",
    ],
)
def test_urls_of_servers(url: str) -> None:
    """IPv6, several hosts, a socket's directory, and parameters of an engine are accepted."""
    assert configured({"WEBHOOK_INBOX": url}).inbox.text == url


def test_a_path_is_percent_decoded(tmp_path: Path) -> None:
    """It may contain a space, a question mark or a percent sign."""
    assert load(WEBHOOK_INBOX=f"sqlite://{tmp_path}/a%20b%3Fc%25/x.db").inbox.path == tmp_path / "a b?c%" / "x.db"


def test_a_file_whose_name_looks_percent_encoded(tmp_path: Path) -> None:
    """If only the undecoded name exists, it is an error with both names: otherwise a second inbox would be created."""
    (tmp_path / "a%20b").mkdir()
    (tmp_path / "a%20b" / "x.db").touch()
    (problem,) = problems(WEBHOOK_INBOX=f"sqlite://{tmp_path}/a%20b/x.db")
    assert f"{tmp_path}/a%20b/x.db" in problem
    assert f"{tmp_path}/a b/x.db" in problem
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "x.db").touch()
    assert load(WEBHOOK_INBOX=f"sqlite://{tmp_path}/a%20b/x.db").inbox.path == tmp_path / "a b" / "x.db"
    assert load(WEBHOOK_INBOX=f"sqlite://{tmp_path}/a%2520b/x.db").inbox.path == tmp_path / "a%20b" / "x.db"


def test_symbolic_links_are_resolved(tmp_path: Path) -> None:
    """Links of the file and of its directory are resolved, even if the file does not exist yet."""
    (tmp_path / "real").mkdir()
    (tmp_path / "directory").symlink_to("real")
    (tmp_path / "link.db").symlink_to("directory/inbox.db")
    for name in ("link.db", "directory/inbox.db", "real/inbox.db"):
        assert load(WEBHOOK_INBOX=f"sqlite://{tmp_path}/{name}").inbox.path == tmp_path.resolve() / "real" / "inbox.db"


@pytest.mark.parametrize("path", ["/a%00b.db", "/a.db#b", "/%00"])
def test_an_invalid_path(path: str) -> None:
    """It is rejected with the reason."""
    (problem,) = problems(WEBHOOK_INBOX=f"sqlite://{path}")
    assert problem.startswith(("WEBHOOK_INBOX has a NUL", "WEBHOOK_INBOX contains a #"))


def test_postgres_is_a_synonym() -> None:
    """As in libpq, both schemes are accepted."""
    inbox = load(WEBHOOK_INBOX="postgres://wh@db.example.com/wh").inbox
    assert inbox.engine == "postgresql"
    assert str(inbox) == "postgresql://db.example.com/wh"
