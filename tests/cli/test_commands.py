"""The commands, run as a user runs them."""

import json
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from service.meta import catalogue
from service.meta.webhook_fields import FIELDS, NOT_CHOSEN
from tests.support import commands
from tests.support.server import Server, free_port


def run(*arguments: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("WEBHOOK_", "OTEL_"))}
    return commands.run(*arguments, environ=clean | environ, given=stdin.encode())


def on_terminal(*arguments: str, columns: int, **environ: str) -> list[str]:
    """Run a command on a terminal, and give the lines that it shows."""
    mine, theirs = pty.openpty()
    with os.fdopen(mine, "rb", buffering=0) as screen:
        more = {"COLUMNS": str(columns), "TERM": "xterm"} | environ
        with subprocess.Popen([sys.executable, "-m", "service", *arguments], stdout=theirs, env=os.environ | more):
            os.close(theirs)
            shown = b""
            with suppress(OSError):  # Linux's word for the end
                while read := screen.read(65536):
                    shown += read
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).splitlines()


COMMANDS = [("serve",), ("check",), ("drain",), ("events",), ("events", "list"), ("events", "show"), ("simulate",)]
COMMANDS += [("subscribe",), ("unsubscribe",), ("status",), ("doctor",)]


@pytest.mark.parametrize("group", [(), ("events",), ("destinations",)])
def test_the_list_of_commands_is_whole(group: tuple[str, ...]) -> None:
    """Each with a sentence that is not cut off."""
    listed = run(*group, "--help").stdout.partition("Commands:")[2].strip().splitlines()
    assert len(listed) >= 4
    assert all(line.endswith(".") and not line.endswith("...") for line in listed), listed


@pytest.mark.parametrize("command", [(), *COMMANDS])
def test_help_teaches(command: tuple[str, ...]) -> None:
    """Every command says what it does, in sentences."""
    done = run(*command, "--help")
    assert done.returncode == 0
    assert len(done.stdout.split()) > 20


def test_a_narrow_terminal() -> None:
    """Has no word cut or broken: names are whole, and sentences go on below themselves."""
    shown = on_terminal("subscribe", "--list-fields", columns=60)
    assert set(FIELDS) - NOT_CHOSEN == {line.split()[0] for line in shown if not line.startswith(" ")}
    assert max(map(len, shown)) <= 60
    shown = on_terminal("doctor", "--credentials", "/nowhere", columns=60)
    details = [line for line in shown[: shown.index("")] if not line.startswith("   -> ")]
    assert {line[:9].strip() for line in details} == {"ok", "wrong", "unknown", ""}
    assert max(map(len, details)) <= 60
    assert any(line.startswith(" " * 24) for line in details)


def test_the_version() -> None:
    """As the package has it."""
    assert run("--version").stdout.startswith("whatsapp-webhook, version ")


@pytest.mark.parametrize("command", ["check", "serve"])
def test_a_bad_configuration_ends_with_2(command: str) -> None:
    """With every problem in one message, and no traceback."""
    done = run(command, WEBHOOK_BIND="x", WEBHOOK_RETENSION="8d", WEBHOOK_FIELDS="mesages")
    assert done.returncode == 2
    assert "WEBHOOK_BIND" in done.stderr
    assert "did you mean WEBHOOK_RETENTION?" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_misspelt_field_is_named_by_check() -> None:
    """With the spelling that was meant; an unknown one is taken, and said."""
    done = run("check", WEBHOOK_FIELDS="messages,mesage_echoes")
    assert done.returncode == 2
    assert "'message_echoes'" in done.stderr
    done = run("check", WEBHOOK_FIELDS="messages,zzz")
    assert done.returncode == 0
    assert "'zzz'" in done.stdout


def test_a_good_configuration() -> None:
    """Ends with 0 and says what is awaited."""
    done = run("check", WEBHOOK_CREDENTIALS_HINT="Make the Secret.")
    assert done.returncode == 0
    assert "configuration is good" in done.stdout
    assert "Make the Secret." in done.stdout


def test_what_a_user_can_cause_is_a_sentence(tmp_path: Path) -> None:
    """A port that is taken, a directory that can't be made, an inbox that is not there."""
    with Server(tmp_path) as server:
        taken = run("serve", WEBHOOK_RUN_DIR=str(tmp_path / "r"), WEBHOOK_ADMIN_BIND=f"127.0.0.1:{server.admin_port}")
        taken_public = run(
            "serve",
            WEBHOOK_RUN_DIR=str(tmp_path / "r"),
            WEBHOOK_ADMIN_BIND=f"127.0.0.1:{free_port()}",
            WEBHOOK_BIND=f"127.0.0.1:{server.port}",
        )
    assert (
        taken_public.stderr == f"Error: WEBHOOK_BIND 127.0.0.1:{server.port} can't be bound: Address already in use.\n"
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
    """A server, stopped, with some events."""
    with Server(tmp_path_factory.mktemp("filled")) as server:
        for kind in ("message text", "status read", "template approved", "call offered"):
            assert server.notify(catalogue.notification(kind)).status == 200
    return server


def listed(server: Server, *options: str) -> list[dict[str, object]]:
    done = run("events", "list", "--json", *options, WEBHOOK_INBOX=server.environ["WEBHOOK_INBOX"])
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_events_as_json(filled: Server) -> None:
    """Every match is a structured CloudEvent on a line of its own, oldest first."""
    found = listed(filled)
    assert [event["type"] for event in found] == [event.type for event in filled.kept()]
    assert all(event["specversion"] == "1.0" and event["data"] for event in found)


def test_filters(filled: Server) -> None:
    """On type, subject, time and number, alone and together."""
    (message,) = listed(filled, "--type", "com.whatsapp.message.*")
    assert listed(filled, "--subject", str(message["subject"]), "--type", "com.whatsapp.message.text") == [message]
    assert len(listed(filled, "--number", catalogue.PHONE_NUMBER_ID)) == 3
    (template,) = listed(filled, "--type", "*template*")
    account = str(template["source"]).removeprefix("/")
    assert listed(filled, "--number", account) == [template]
    assert len(listed(filled, "--number", catalogue.ACCOUNT)) == 3
    assert listed(filled, "--number", "nobody") == []
    assert len(listed(filled, "--since", "1h")) == 4
    assert listed(filled, "--limit", "2") == listed(filled)[2:]
    assert listed(filled, "--since", "2999-01-01") == []
    assert listed(filled, "--until", "1h") == []
    assert len(listed(filled, "--since", "2020-01-01T00:00:00Z", "--until", "2999-01-01")) == 4


def test_the_table_and_one_event(filled: Server) -> None:
    """For people: the newest, and one with all that it holds."""
    inbox = {"WEBHOOK_INBOX": filled.environ["WEBHOOK_INBOX"]}
    table = run("events", "list", "--limit", "2", **inbox).stdout
    assert len(table.strip().splitlines()) == 4
    assert "2 of 4 events" in table
    assert [line.split()[0] for line in table.splitlines()[1:3]] == ["3", "4"]
    assert "None of the 4 events" in run("events", "list", "--type", "nothing", **inbox).stdout
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
    """What the doctor and Meta's "Test" button leave is told apart from what people wrote."""
    with Server(tmp_path) as server:
        for body in (catalogue.test_notification(), catalogue.notification("message text")):
            assert server.notify(body).status == 200
    lines = run("events", "list", WEBHOOK_INBOX=server.environ["WEBHOOK_INBOX"]).stdout.splitlines()
    assert ["(test)" in line for line in lines[1:3]] == [True, False]


def test_what_meta_sent_is_no_markup_of_the_table(tmp_path: Path) -> None:
    """Brackets in an id are shown as they are."""
    with Server(tmp_path) as server:
        body = catalogue.notification("message text").replace(b'"id":"wamid.', b'"id":"[/red][bold]wamid.')
        assert server.notify(body).status == 200
    done = run("events", "list", WEBHOOK_INBOX=server.environ["WEBHOOK_INBOX"])
    assert done.returncode == 0, done.stderr
    assert "[/red][bold]wamid." in done.stdout


def test_simulate(shared_server: Server) -> None:
    """Every kind, repeats, a batch and forgeries; every answer as expected; twice, with new ids."""
    url = f"http://127.0.0.1:{shared_server.port}/webhooks"
    before = len(shared_server.kept())
    for _ in range(2):
        done = run("simulate", url, "--credentials", str(shared_server.credentials))
        assert done.returncode == 0, done.stdout
        assert "Every answer was the expected one." in done.stdout
        assert "wrong " not in done.stdout.replace("wrong token", "")
    assert len(shared_server.kept()) == before + 2 * (len(catalogue.kinds()) + 1 + 1 + 1000)  # one kind holds two
    done = run("simulate", url, "--credentials", str(shared_server.credentials), "--unrecognized")
    assert done.returncode == 0, done.stdout
    assert shared_server.kept()[-1].type == "com.whatsapp.unrecognized"


def test_simulate_load(shared_server: Server) -> None:
    """At a rate, with percentiles from when each was due."""
    url = f"http://127.0.0.1:{shared_server.port}/webhooks"
    done = run("simulate", url, "--credentials", str(shared_server.credentials), "--rate", "50", "--duration", "2")
    assert done.returncode == 0, done.stdout
    assert "p99 " in done.stdout
    assert " 100" in done.stdout


def test_simulate_fails_where_an_answer_is_wrong(shared_server: Server, tmp_path: Path) -> None:
    """With another secret nothing is accepted: the exit code says so. Nobody listening is told."""
    (tmp_path / "verify-token").write_text("wrong")
    (tmp_path / "app-secret").write_text("wrong" * 4)
    url = f"http://127.0.0.1:{shared_server.port}/webhooks"
    assert run("simulate", url, "--credentials", str(tmp_path)).returncode == 1
    done = run("simulate", "http://127.0.0.1:9/webhooks", "--credentials", str(tmp_path))
    assert done.returncode == 1
    assert "could not connect. Is the service running" in done.stdout


def test_simulate_tells_a_wrong_path_at_once(shared_server: Server) -> None:
    """One sentence, and not a table of everything that failed for the same reason."""
    url = f"http://127.0.0.1:{shared_server.port}/elsewhere"
    done = run("simulate", url, "--credentials", str(shared_server.credentials))
    assert done.returncode == 1
    assert "404. The path is not its WEBHOOK_PATH" in done.stdout
    assert len(done.stdout.splitlines()) == 1


def test_simulate_only_a_test(shared_server: Server) -> None:
    """One event, marked; what the metrics do not count is a failure."""
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
    assert "can't be read" in run("simulate", url, *options, "--metrics", "http://127.0.0.1:9/").stderr


def test_simulate_asks_before_it_sends_elsewhere(tmp_path: Path) -> None:
    """Its events go where real ones go."""
    (tmp_path / "verify-token").write_text("t")
    (tmp_path / "app-secret").write_text("s")
    done = run("simulate", "http://webhook.example/webhooks", "--credentials", str(tmp_path), stdin="n\n")
    assert done.returncode == 1
    assert "not this machine" in done.stdout


def test_what_somebody_wrote_does_not_steer_the_terminal(tmp_path: Path) -> None:
    """Control sequences and changes of direction are shown as escapes; an id is not made a picture."""
    with Server(tmp_path) as server:
        body = catalogue.notification("message text").replace(b"Is it in stock?", rb"\u009b31m \u202e \u007f")
        assert server.notify(body.replace(b'"id":"wamid.', b'"id":":smile:wamid.')).status == 200
    shown = run("events", "show", "1", WEBHOOK_INBOX=server.environ["WEBHOOK_INBOX"]).stdout
    assert r"\u009b31m \u202e \u007f" in shown
    assert not set("\x7f\x9b\u202e") & set(shown)
    assert ":smile:wamid." in run("events", "list", WEBHOOK_INBOX=server.environ["WEBHOOK_INBOX"]).stdout


def test_whoever_reads_may_have_enough(filled: Server) -> None:
    """As `head` does: no traceback, and no failure; a full disk is a sentence."""
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


def test_ready_says_what_the_server_says(tmp_path: Path) -> None:
    """And ends with 1 where it is not, or where nobody answers."""
    server = Server(tmp_path)
    assert "does it run" in run("ready", **server.environ).stderr
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
