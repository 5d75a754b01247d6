"""The commands, run as a user runs them."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
import pytest

from service import cli
from service.meta import catalogue
from service.meta.webhook_fields import FIELDS, NOT_CHOSEN
from tests.support import commands
from tests.support.server import Server, free_port


def run(*arguments: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("WEBHOOK_", "OTEL_"))}
    return commands.run(*arguments, environ=clean | environ, given=stdin.encode())


def on_terminal(*arguments: str, columns: int, **environ: str) -> list[str]:
    """Run a command on a terminal, and return the lines that it prints."""
    mine, theirs = pty.openpty()
    with os.fdopen(mine, "rb", buffering=0) as screen:
        more = {"COLUMNS": str(columns), "TERM": "xterm"} | environ
        with subprocess.Popen([sys.executable, "-m", "service", *arguments], stdout=theirs, env=os.environ | more):
            os.close(theirs)
            shown = b""
            with suppress(OSError):  # EIO: the end of the output on Linux
                while read := screen.read(65536):
                    shown += read
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).splitlines()


def every_command(group: click.Group = cli.commands, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command and group."""
    for name, command in group.commands.items():
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from every_command(command, (*path, name))


@pytest.mark.parametrize("group", [(), ("events",), ("destinations",)])
def test_short_help_is_not_cut_off(group: tuple[str, ...]) -> None:
    """In each group, every command has a short help that ends with a full stop."""
    listed = run(*group, "--help").stdout.partition("Commands:")[2].strip().splitlines()
    assert len(listed) >= 4
    assert all(line.endswith(".") and not line.endswith("...") for line in listed), listed


@pytest.mark.parametrize("command", [(), *every_command()], ids=" ".join)
def test_help_has_an_example_and_fits_80_columns(command: tuple[str, ...]) -> None:
    """Every command has a description and an example, no line is longer than 80 columns, every option has a text."""
    done = run(*command, "--help", COLUMNS="80")
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    _, _, text = done.stdout.partition("\n\n")
    description, _, options = text.partition("Options:\n")
    assert len(description.split()) > 8
    assert f" {' '.join(('whatsapp-webhook', *command))}" in description
    for option in re.split(r"\n(?=  -)", options.partition("\n\n")[0]):
        assert re.search(r"(  |\n {10,})[A-Z][^.]*\.", option), option


def test_a_narrow_terminal() -> None:
    """On 60 columns no word is cut or broken, and long sentences are continued in their own column."""
    shown = on_terminal("subscribe", "--list-fields", columns=60)
    assert set(FIELDS) - NOT_CHOSEN == {line.split()[0] for line in shown if not line.startswith(" ")}
    assert max(map(len, shown)) <= 60
    shown = on_terminal("doctor", "--credentials", "/nowhere", columns=60)
    details = [line for line in shown[: shown.index("")] if not line.startswith("   -> ")]
    assert {line[:9].strip() for line in details} == {"ok", "wrong", "unknown", ""}
    assert max(map(len, details)) <= 60
    assert any(line.startswith(" " * 24) for line in details)


def test_the_version() -> None:
    """`--version` prints the version of the package."""
    assert run("--version").stdout.startswith("whatsapp-webhook, version ")


@pytest.mark.parametrize("command", ["check", "serve"])
def test_an_invalid_configuration_exits_with_status_2(command: str) -> None:
    """Every problem is in one message, without a traceback."""
    done = run(command, WEBHOOK_BIND="x", WEBHOOK_RETENSION="8d", WEBHOOK_FIELDS="mesages")
    assert done.returncode == 2
    assert "WEBHOOK_BIND" in done.stderr
    assert "did you mean WEBHOOK_RETENTION?" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_reports_a_misspelt_field() -> None:
    """It suggests the right spelling. A field that is merely unknown is accepted with a note."""
    done = run("check", WEBHOOK_FIELDS="messages,mesage_echoes")
    assert done.returncode == 2
    assert "'message_echoes'" in done.stderr
    done = run("check", WEBHOOK_FIELDS="messages,zzz")
    assert done.returncode == 0
    assert "'zzz'" in done.stdout


def test_a_valid_configuration() -> None:
    """`check` exits with status 0 and reports that credentials are missing."""
    done = run("check", WEBHOOK_CREDENTIALS_HINT="Make the Secret.")
    assert done.returncode == 0
    assert "configuration is valid" in done.stdout
    assert "Make the Secret." in done.stdout


def test_an_error_that_a_user_can_cause_has_no_traceback(tmp_path: Path) -> None:
    """A port in use, a directory that cannot be created, an inbox that does not exist, and wrong arguments."""
    with Server(tmp_path) as server:
        taken = run("serve", WEBHOOK_RUN_DIR=str(tmp_path / "r"), WEBHOOK_ADMIN_BIND=f"127.0.0.1:{server.admin_port}")
        taken_public = run(
            "serve",
            WEBHOOK_RUN_DIR=str(tmp_path / "r"),
            WEBHOOK_ADMIN_BIND=f"127.0.0.1:{free_port()}",
            WEBHOOK_BIND=f"127.0.0.1:{server.port}",
        )
    assert (
        taken_public.stderr == f"Error: WEBHOOK_BIND 127.0.0.1:{server.port} cannot be bound: Address already in use.\n"
    )
    file = tmp_path / "file"
    file.write_text("x")
    for done in (
        taken,
        taken_public,
        run("serve", WEBHOOK_RUN_DIR=str(file / "below")),
        run("drain", "--seconds", "0", WEBHOOK_RUN_DIR=str(file / "below")),
        run("events", "list", "--inbox", f"sqlite://{tmp_path}/none.db"),
        run("events", "list", "--inbox", "memory://?durability=weak"),
        run("events", "list", "--inbox", "nonsense"),
        run("events", "list", "--since", "yesterday"),
        run("simulate", "nonsense"),
        run("simulate", "http://["),
        run("simulate", "http://127.0.0.1:9/webhooks", "--credentials", str(tmp_path / "none"), "--rate", "nan"),
        run("simulate", "http://127.0.0.1:9/webhooks", "--credentials", str(tmp_path / "none"), "--duration", "inf"),
        run("simulate", "http://127.0.0.1:9/webhooks", "--credentials", str(tmp_path / "none")),
    ):
        assert done.returncode in (1, 2), done
        assert done.stderr
        assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A stopped server with four events."""
    with Server(tmp_path_factory.mktemp("filled")) as server:
        for kind in ("message text", "status read", "template approved", "call offered"):
            assert server.notify(catalogue.notification(kind)).status == 200
    return server


def listed(server: Server, *options: str) -> list[dict[str, object]]:
    done = run("events", "list", "--json", *options, WEBHOOK_INBOX=server.environ["WEBHOOK_INBOX"])
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_events_as_json(filled: Server) -> None:
    """Each matching event is a CloudEvent on one line, oldest first."""
    found = listed(filled)
    assert [event["type"] for event in found] == [event.type for event in filled.kept()]
    assert all(event["specversion"] == "1.0" and event["data"] for event in found)


def test_filters(filled: Server) -> None:
    """Type, subject, time and number, alone and combined."""
    (message,) = listed(filled, "--type", "com.whatsapp.message.*")
    assert listed(filled, "--subject", str(message["subject"]), "--type", "com.whatsapp.message.text") == [message]
    assert len(listed(filled, "--number", catalogue.PHONE_NUMBER_ID)) == 3
    (template,) = listed(filled, "--type", "*template*")
    account = str(template["source"]).removeprefix("/")
    assert listed(filled, "--number", account) == listed(filled, "--account", account) == [template]
    assert len(listed(filled, "--account", catalogue.ACCOUNT)) == 3
    assert len(listed(filled, "--type", "com.whatsapp.message", "--type", "com.whatsapp.status")) == 2
    assert (
        listed(filled, "--not-type", "com.whatsapp.call", "--not-type", "com.whatsapp.*.*", "--account", account) == []
    )
    assert message in listed(filled, "--direction", "inbound", "--groups", "none", "--field", "messages")
    assert (
        listed(filled, "--groups", "only") == listed(filled, "--direction", "outbound", "--type", "*.message.*") == []
    )
    assert listed(filled, "--subject", f"+{message['waid']}") == [message], "the number of a person with a user id"
    assert listed(filled, "--number", "nobody") == []
    assert len(listed(filled, "--since", "1h")) == 4
    assert listed(filled, "--limit", "2") == listed(filled)[2:]
    assert listed(filled, "--since", "2999-01-01") == []
    assert listed(filled, "--until", "1h") == []
    assert len(listed(filled, "--since", "2020-01-01T00:00:00Z", "--until", "2999-01-01")) == 4


def test_the_table_and_one_event(filled: Server) -> None:
    """`events list` prints the newest events, `events show` one event with its data, by position and by id."""
    inbox = {"WEBHOOK_INBOX": filled.environ["WEBHOOK_INBOX"]}
    table = run("events", "list", "--limit", "2", **inbox).stdout
    assert len(table.strip().splitlines()) == 4
    assert "2 of 4 events" in table
    assert [line.split()[0] for line in table.splitlines()[1:3]] == ["3", "4"]
    assert "None of the 4 stored events" in run("events", "list", "--type", "nothing", **inbox).stdout
    event = filled.kept()[0]
    shown = json.loads(run("events", "show", event.id, **inbox).stdout)
    assert (shown["id"], shown["position"]) == (event.id, 1)
    assert shown["data"] == json.loads(event.data)
    assert json.loads(run("events", "show", "1", **inbox).stdout) == shown
    assert "no event '99'" in run("events", "show", "99", **inbox).stderr
    missing = run("events", "show", "nothing", **inbox)
    assert missing.returncode == 1
    assert "no event" in missing.stderr


def test_the_table_marks_tests(tmp_path: Path) -> None:
    """Test events of the doctor and of Meta's "Test" button are marked; real ones are not."""
    with Server(tmp_path) as server:
        for body in (catalogue.test_notification(), catalogue.notification("message text")):
            assert server.notify(body).status == 200
    lines = run("events", "list", WEBHOOK_INBOX=server.environ["WEBHOOK_INBOX"]).stdout.splitlines()
    assert ["(test)" in line for line in lines[1:3]] == [True, False]


def test_brackets_in_an_id_are_not_markup(tmp_path: Path) -> None:
    """The table prints them unchanged."""
    with Server(tmp_path) as server:
        body = catalogue.notification("message text").replace(b'"id":"wamid.', b'"id":"[/red][bold]wamid.')
        assert server.notify(body).status == 200
    done = run("events", "list", WEBHOOK_INBOX=server.environ["WEBHOOK_INBOX"])
    assert done.returncode == 0, done.stderr
    assert "[/red][bold]wamid." in done.stdout


def test_simulate(shared_server: Server) -> None:
    """Every kind, duplicates, a batch and forgeries are answered as expected; a second run has new ids."""
    url = f"http://127.0.0.1:{shared_server.port}/webhooks"
    before = len(shared_server.kept())
    for _ in range(2):
        done = run("simulate", url, "--credentials", str(shared_server.credentials))
        assert done.returncode == 0, done.stdout
        assert "Every answer was as expected." in done.stdout
        assert "wrong " not in done.stdout.replace("wrong token", "")
    assert len(shared_server.kept()) == before + 2 * (len(catalogue.kinds()) + 1 + 1 + 20)  # one kind has two events
    assert (
        "batch of 1000 messages"
        in run("simulate", url, "--credentials", str(shared_server.credentials), "--all").stdout
    )
    done = run("simulate", url, "--credentials", str(shared_server.credentials), "--unrecognized")
    assert done.returncode == 0, done.stdout
    assert shared_server.kept()[-1].type == "com.whatsapp.unrecognized"


def test_simulate_one_kind(shared_server: Server) -> None:
    """With a sender and a text, as often as wanted; the kinds are those of the catalogue."""
    url, options = f"http://127.0.0.1:{shared_server.port}/webhooks", ("--credentials", str(shared_server.credentials))
    before = len(shared_server.kept())
    message = ("--kind", "message.text", "--from", "16505550199", "--text", "Grüße / 🙂", "--count", "3")
    done = run("simulate", url, *options, *message)
    assert done.returncode == 0, done.stdout
    new = shared_server.kept()[before:]
    assert [(event.type, event.waid) for event in new] == [("com.whatsapp.message.text", "16505550199")] * 3
    assert len({event.id for event in new}) == 3
    bodies = [json.loads(event.data)["entry"][0]["changes"][0]["value"]["messages"][0]["text"]["body"] for event in new]
    assert bodies == ["Grüße / 🙂"] * 3
    kinds = run("simulate", url, "--kind", "list").stdout.split()
    assert len(kinds) == len(set(kinds)) == len(catalogue.kinds())
    assert "message.text.reply" in kinds


def test_simulate_a_file(shared_server: Server, tmp_path: Path) -> None:
    """It is signed and sent byte for byte, also if it is no notification."""
    url, options = f"http://127.0.0.1:{shared_server.port}/webhooks", ("--credentials", str(shared_server.credentials))
    for number, body in enumerate((catalogue.notification("status read"), b'["no notification", 7]\n')):
        (tmp_path / "body.json").write_bytes(body)
        before = len(shared_server.kept())
        done = run("simulate", url, *options, "--file", str(tmp_path / "body.json"))
        assert done.returncode == 0, done.stdout
        (event,) = shared_server.kept()[before:]
        assert event.type == ("com.whatsapp.status.read", "com.whatsapp.unrecognized")[number]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--kind", "message.txt"), "'message.txt' is no kind. Similar: message.text"),
        (("--kind", "xyzzy"), "--kind list prints all"),
        (("--from", "1"), "need --kind"),
        (("--kind", "template.approved", "--from", "1"), "--kind template.approved has no sender"),
        (("--kind", "message.image", "--text", "x"), "--kind message.image has no text"),
        (("--kind", "message.text", "--all"), "Use one of"),
        (("--file", "/dev/null", "--rate", "5"), "Use one of"),
    ],
)
def test_simulate_rejects_options_without_effect(options: tuple[str, ...], problem: str) -> None:
    """With what to write instead; nothing is sent."""
    done = run("simulate", "http://127.0.0.1:9/webhooks", *options)
    assert done.returncode == 2
    assert problem in " ".join(done.stderr.split())


def test_simulate_load(shared_server: Server) -> None:
    """`--rate` sends at a constant rate and prints latency percentiles."""
    url = f"http://127.0.0.1:{shared_server.port}/webhooks"
    done = run("simulate", url, "--credentials", str(shared_server.credentials), "--rate", "50", "--duration", "2")
    assert done.returncode == 0, done.stdout
    assert "p99 " in done.stdout
    assert " 100" in done.stdout


def test_simulate_fails_if_an_answer_is_wrong(shared_server: Server, tmp_path: Path) -> None:
    """With another secret nothing is accepted: status 1. If nobody listens, it says so."""
    (tmp_path / "verify-token").write_text("wrong")
    (tmp_path / "app-secret").write_text("wrong" * 4)
    url = f"http://127.0.0.1:{shared_server.port}/webhooks"
    assert run("simulate", url, "--credentials", str(tmp_path)).returncode == 1
    done = run("simulate", "http://127.0.0.1:9/webhooks", "--credentials", str(tmp_path))
    assert done.returncode == 1
    assert "could not connect. Check that the service is running" in done.stdout


def test_simulate_stops_at_a_wrong_path(shared_server: Server) -> None:
    """It prints one sentence, not a table of failures with the same cause."""
    url = f"http://127.0.0.1:{shared_server.port}/elsewhere"
    done = run("simulate", url, "--credentials", str(shared_server.credentials))
    assert done.returncode == 1
    assert "404. The path is not WEBHOOK_PATH of the service" in done.stdout
    assert len(done.stdout.splitlines()) == 1


def test_simulate_only_a_test(shared_server: Server) -> None:
    """One event is stored, marked as a test; metrics that do not count it are a failure."""
    url = f"http://127.0.0.1:{shared_server.port}/webhooks"
    options = ("--credentials", str(shared_server.credentials), "--only-test")
    before = len(shared_server.kept())
    done = run("simulate", url, *options, "--metrics", f"http://127.0.0.1:{shared_server.admin_port}/metrics")
    assert done.returncode == 0, done.stdout + done.stderr
    (event,) = shared_server.kept()[before:]
    assert event.test
    assert (
        run("simulate", url, *options, "--metrics", f"http://127.0.0.1:{shared_server.admin_port}/livez").returncode
        == 1
    )
    assert "cannot be read" in run("simulate", url, *options, "--metrics", "http://127.0.0.1:9/").stderr


def test_simulate_asks_before_it_sends_to_another_machine(tmp_path: Path) -> None:
    """Its events are stored and delivered like real ones."""
    (tmp_path / "verify-token").write_text("t")
    (tmp_path / "app-secret").write_text("s")
    done = run("simulate", "http://webhook.example/webhooks", "--credentials", str(tmp_path), stdin="n\n")
    assert done.returncode == 1
    assert "not this machine" in done.stdout


def test_control_characters_are_escaped(tmp_path: Path) -> None:
    """So are changes of text direction; `:smile:` in an id is not replaced by a picture."""
    with Server(tmp_path) as server:
        body = catalogue.notification("message text").replace(b"Is it in stock?", rb"\u009b31m \u202e \u007f")
        assert server.notify(body.replace(b'"id":"wamid.', b'"id":":smile:wamid.')).status == 200
    shown = run("events", "show", "1", WEBHOOK_INBOX=server.environ["WEBHOOK_INBOX"]).stdout
    assert r"\u009b31m \u202e \u007f" in shown
    assert not set("\x7f\x9b\u202e") & set(shown)
    assert ":smile:wamid." in run("events", "list", WEBHOOK_INBOX=server.environ["WEBHOOK_INBOX"]).stdout


def test_a_reader_may_close_the_pipe(filled: Server) -> None:
    """As `head` does: no traceback, no error. A full disk is an error without a traceback."""
    command = f"{sys.executable} -m service events list --json --inbox {filled.environ['WEBHOOK_INBOX']}"
    done = subprocess.run(
        ["bash", "-c", f"{command} | true; echo ${{PIPESTATUS[0]}}; {command} > /dev/full"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout in ("0\n", "141\n")
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_ready_prints_the_state_of_the_server(tmp_path: Path) -> None:
    """It exits with status 1 if the server is not ready or does not answer."""
    server = Server(tmp_path)
    assert "check that the receiver is running" in run("ready", **server.environ).stderr
    server.write_credentials(server.token, None)
    server.start()
    try:
        waiting = run("ready", **server.environ)
        assert (waiting.returncode, "app-secret" in waiting.stdout) == (1, True)
        server.write_credentials(server.token, server.secret)
        server.wait_until_ready()
        good = run("ready", **server.environ)
        assert (good.returncode, json.loads(good.stdout)["ready"]) == (0, True)
    finally:
        server.stop()
