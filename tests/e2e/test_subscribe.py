"""`subscribe`, `unsubscribe` and `status` with a fake Graph API, which does the handshake with the real service."""

import base64
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from service.meta.webhook_fields import FIELDS, NOT_CHOSEN
from tests.support.public import ACCOUNT, APP, NUMBER, World
from tests.support.server import free_port
from tests.support.terminal import lines_on_terminal

pytestmark = pytest.mark.needs("nginx")
ELSEWHERE = "https://elsewhere.example.com/hook"
THIRD = "https://third.example.com/hook"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("world")) as started, started.behind():
        yield started


@pytest.fixture
def world(running: World) -> World:
    """Return the running World, without any registration at Meta."""
    running.reset()
    return running


def test_subscribe_registers_app_and_account(world: World) -> None:
    """`subscribe` registers app and account after a real handshake, prints the changes first, and prints no secret."""
    result = world.run("subscribe", "--fields", "messages,account_update", text="y\n")
    assert result.returncode == 0, result.stderr
    assert f"app {APP}\n  now   nothing\n  then  {world.url}: account_update, messages\n" in result.stdout
    assert f"account {ACCOUNT}\n  now   not subscribed\n  then  subscribed\n" in result.stdout
    assert result.stdout.endswith("Done: Meta now has this registration.\n")
    assert result.stdout.index("Change this at Meta?") < result.stdout.index(f"app {APP}: done")
    assert world.registered()["callback_url"] == world.url
    assert world.fields() == {"messages", "account_update"}
    assert APP in world.state["accounts"][ACCOUNT]["apps"]
    assert world.server.metric("whatsapp_webhook_handshakes_total", outcome="verified") > 0
    assert world.graph.changed[0][2]["include_values"] == "true"
    for secret in (world.server.secret, world.access_token, world.server.token):
        assert secret not in result.stdout + result.stderr


def test_subscribe_without_confirmation(world: World) -> None:
    """`subscribe` changes nothing if the answer is no, if the input is empty, or with --dry-run."""
    for answer, more in (("n\n", ()), ("", ()), ("", ("--dry-run",))):
        result = world.run("subscribe", *more, text=answer)
        assert result.returncode == (0 if more else 1)
        assert world.graph.changed == []


def test_subscribe_twice(world: World) -> None:
    """A second `subscribe` changes nothing; with --force it registers again, and Meta does its handshake again."""
    assert world.run("subscribe", "--yes", "--fields", "messages").returncode == 0
    changed = len(world.graph.changed)
    result = world.run("subscribe", "--yes", "--fields", "messages")
    assert result.returncode == 0
    assert "Nothing to change" in result.stdout
    assert len(world.graph.changed) == changed
    before = world.server.metric("whatsapp_webhook_handshakes_total", outcome="verified")
    assert world.run("subscribe", "--yes", "--fields", "messages", "--force").returncode == 0
    assert world.server.metric("whatsapp_webhook_handshakes_total", outcome="verified") == before + 1


@pytest.mark.parametrize("adds", [False, True])
def test_subscribe_removes_fields_that_are_not_named(world: World, adds: bool) -> None:  # noqa: FBT001
    """Fields that are not named are removed, even if Meta's POST keeps them; added and removed fields are printed."""
    world.graph.adds = adds
    world.register(fields="messages,flows,security")
    result = world.run("subscribe", "--yes", "--fields", "messages,calls")
    assert result.returncode == 0, result.stderr
    assert "added: calls; removed: flows, security" in result.stdout
    assert world.fields() == {"messages", "calls"}
    assert world.run("subscribe", "--yes", "--fields", "messages").returncode == 0
    assert world.fields() == {"messages"}


def test_default_fields(world: World) -> None:
    """Without --fields, `subscribe` registers those of WEBHOOK_FIELDS, else those registered now, else every field."""
    assert world.run("subscribe", "--yes").returncode == 0
    assert world.fields() == set(FIELDS) - NOT_CHOSEN
    assert world.run("subscribe", "--yes", WEBHOOK_FIELDS="messages,calls").returncode == 0
    assert world.fields() == {"messages", "calls"}
    assert "Nothing to change" in world.run("subscribe", "--yes").stdout
    assert world.run("subscribe", "--yes", "--force").returncode == 0
    assert world.fields() == {"messages", "calls"}
    assert world.run("subscribe", "--yes", "--fields", "all").returncode == 0
    assert world.fields() == set(FIELDS) - NOT_CHOSEN


def test_misspelt_field(world: World) -> None:
    """A misspelt field is rejected with the right spelling; Meta rejects a field that this version does not know."""
    result = world.run("subscribe", "--yes", "--fields", "mesages")
    assert result.returncode == 2
    assert "'mesages': did you mean 'messages'?" in result.stderr
    result = world.run("subscribe", "--yes", "--fields", "zebra")
    assert result.returncode == 1
    assert "Meta does not know one of the fields" in result.stderr


def test_list_fields(world: World) -> None:
    """`--list-fields` prints every field and what it brings, without an app id."""
    result = world.run("subscribe", "--list-fields", WEBHOOK_APP_ID="")
    assert result.returncode == 0
    for name in set(FIELDS) - NOT_CHOSEN:
        assert name in result.stdout
        assert FIELDS[name] in result.stdout


def test_subscribe_replaces_another_url_only_on_request(world: World) -> None:
    """If another URL is registered, `subscribe` changes nothing without --replace."""
    world.register(ELSEWHERE)
    result = world.run("subscribe", "--yes")
    assert result.returncode == 2
    assert f"The app sends to {ELSEWHERE}" in result.stderr
    assert "--replace" in result.stderr
    assert "Nothing was changed." in result.stderr
    assert world.graph.changed == []
    assert world.run("subscribe", "--yes", "--replace").returncode == 0
    assert world.registered()["callback_url"] == world.url


@pytest.mark.parametrize("owner", ["account", "number"])
def test_subscribe_removes_an_override_only_on_request(world: World, owner: str) -> None:
    """`subscribe` removes an override to another URL only with --drop-overrides.

    In particular it does not subscribe an account again, because that would remove the account's override.
    """
    account = world.state["accounts"][ACCOUNT]
    world.register()
    if owner == "account":
        account["apps"][APP] = ELSEWHERE
    else:
        account["numbers"][NUMBER]["overrides"][APP] = ELSEWHERE
    result = world.run("subscribe", "--yes", "--fields", "messages")
    # An account's override would leave no events for our URL; a number's is often intended, for a test.
    assert result.returncode == (2 if owner == "account" else 0)
    assert ELSEWHERE in result.stderr + result.stdout
    assert "--drop-overrides" in result.stderr + result.stdout
    assert world.graph.changed == []
    result = world.run("subscribe", "--yes", "--fields", "messages", "--drop-overrides")
    assert result.returncode == 0, result.stderr
    assert account["apps"] == {APP: None}
    assert not account["numbers"][NUMBER]["overrides"].get(APP)


def test_subscribe_sets_overrides(world: World) -> None:
    """`subscribe` sets overrides of an account and a number, and `unsubscribe` removes them; the app's own URL stays.

    The account is subscribed first if it is not.
    """
    world.register(ELSEWHERE)
    world.state["accounts"][ACCOUNT]["apps"].clear()
    result = world.run("subscribe", "--yes", "--override-account", ACCOUNT, "--override-number", NUMBER)
    assert result.returncode == 0, result.stderr
    assert world.state["accounts"][ACCOUNT]["apps"] == {APP: world.url}
    assert world.state["accounts"][ACCOUNT]["numbers"][NUMBER]["overrides"] == {APP: world.url}
    assert world.registered()["callback_url"] == ELSEWHERE
    assert "note: it was not checked whether the app is subscribed to the number's account" in result.stdout
    second = world.run("subscribe", "--yes", "--override-account", ACCOUNT, "--override-number", NUMBER)
    assert "Nothing to change" in second.stdout
    removed = world.run("unsubscribe", "--yes")
    assert removed.returncode == 0, removed.stderr
    assert world.state["accounts"][ACCOUNT]["apps"] == {APP: None}
    assert not world.state["accounts"][ACCOUNT]["numbers"][NUMBER]["overrides"].get(APP)
    assert world.registered()["callback_url"] == ELSEWHERE


def test_override_with_fields_or_accounts(world: World) -> None:
    """--fields and --account are rejected beside an override: they belong to the app's own subscription."""
    for more in (("--fields", "messages"), ("--account", ACCOUNT)):
        result = world.run("subscribe", "--yes", "--override-number", NUMBER, *more)
        assert result.returncode == 2
        assert "omit --fields and --account" in result.stderr
    assert world.graph.asked == []


def test_override_without_a_subscription(world: World) -> None:
    """If the app has no subscription, an override is rejected before anything is changed."""
    result = world.run("subscribe", "--yes", "--override-account", ACCOUNT)
    assert result.returncode == 2
    assert "The app has no subscription yet" in result.stderr
    assert world.graph.changed == []


def test_unsubscribe(world: World) -> None:
    """`unsubscribe` removes only what sends to the URL, and an override to another URL only with --drop-overrides."""
    world.register(ELSEWHERE)
    result = world.run("unsubscribe", "--yes")
    assert result.returncode == 0
    assert f"The app sends to {ELSEWHERE}" in result.stdout
    assert world.graph.changed == []
    world.register()
    world.state["accounts"][ACCOUNT]["apps"][APP] = ELSEWHERE
    result = world.run("unsubscribe", "--yes")
    assert result.returncode == 2
    assert "would be removed with its subscription" in result.stderr
    assert world.run("unsubscribe", "--dry-run", "--drop-overrides").returncode == 0
    assert world.graph.changed == []
    result = world.run("unsubscribe", "--yes", "--drop-overrides")
    assert result.returncode == 0, result.stderr
    assert world.registered() == {}
    assert world.state["accounts"][ACCOUNT]["apps"] == {}


def test_status(world: World) -> None:
    """`status` prints the registration as text or as JSON, and never the access token."""
    empty = world.run("status").stdout
    assert "not subscribed: Meta sends no WhatsApp events to this app" in empty
    assert "not subscribed: Meta sends none of its events to this app" in empty
    world.register(fields="messages,calls")
    world.state["accounts"][ACCOUNT]["apps"][APP] = ELSEWHERE
    world.state["accounts"][ACCOUNT]["numbers"]["106540352242924"]["overrides"][APP] = world.url  # on the second page
    result = world.run("status")
    assert result.returncode == 0, result.stderr
    for part in (f"callback URL  {world.url}", "calls, messages", ELSEWHERE, f"+1 555-078-3883)  override {world.url}"):
        assert part in result.stdout
    document = json.loads(world.run("status", "--json").stdout)
    assert document["app"]["subscription"] == {
        "callback_url": world.url,
        "fields": ["calls", "messages"],
        "active": True,
    }
    assert document["accounts"][0]["override"] == ELSEWHERE
    assert len(document["accounts"][0]["numbers"]) == 3
    assert world.access_token not in result.stdout + str(document)


def test_ascii_terminal(world: World) -> None:
    """`status` and `doctor` print a non-ASCII name without an error if the output is ASCII."""
    world.state["apps"][APP]["name"] = "Caf\u00e9"
    for command in ("status", "doctor"):
        environ = os.environ | world.environ | {"PYTHONIOENCODING": "ascii"}
        command_line = [sys.executable, "-m", "service", command]
        result = subprocess.run(command_line, env=environ, capture_output=True, text=True, check=False)
        assert "Caf" in result.stdout
        assert "Traceback" not in result.stderr


def test_status_without_an_access_token(world: World) -> None:
    """Without an access token, `status` prints what needs only the app secret, and reports the missing token."""
    world.register()
    world.write("access-token", "")
    result = world.run("status")
    world.write("access-token", world.access_token)
    assert result.returncode == 1
    assert f"callback URL  {world.url}" in result.stdout
    assert "access-token (or WEBHOOK_ACCESS_TOKEN)" in result.stderr


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://wa.example.com/webhooks", "https only"),
        ("https://a@wa.example.com/webhooks", "without user, password"),
        ("https://wa.example.com/web+hooks", "+ in the path"),
        ("wa.example.com", "must be a URL"),
    ],
)
def test_url_that_meta_would_not_call(world: World, url: str, expected: str) -> None:
    """A URL that Meta would not call is rejected before any request to Meta."""
    result = world.run("subscribe", url)
    assert result.returncode == 2
    assert expected in result.stderr
    assert world.graph.asked == []


def test_secrets_from_the_environment(world: World, tmp_path: Path) -> None:
    """The commands accept secrets from the environment instead of files; `check` rejects them for the server."""
    secrets: dict[str, str] = {
        "WEBHOOK_CREDENTIALS_DIR": str(tmp_path),
        "WEBHOOK_APP_SECRET": world.server.secret,
        "WEBHOOK_VERIFY_TOKEN": world.server.token,
    }
    result = world.run("subscribe", "--yes", **secrets)
    assert result.returncode == 1
    assert "access-token (or WEBHOOK_ACCESS_TOKEN)" in result.stderr
    result = world.run("subscribe", "--yes", **secrets, WEBHOOK_ACCESS_TOKEN=world.access_token)
    assert result.returncode == 0, result.stderr
    result = world.run("check", **secrets)
    assert result.returncode == 2
    assert "a server reads the file app-secret" in result.stderr


def error(code: int, message: str = "m", **more: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, **more}, "times": 99}


@pytest.mark.parametrize(
    ("fault", "side", "expected"),
    [
        (error(190, error_subcode=463), "yours", "has expired"),
        (error(190, "Invalid OAuth access token signature."), "yours", "app secret is not this app's"),
        (error(200, status=403), "yours", "full control of this account"),
        (error(100, "Invalid appsecret_proof provided"), "yours", "not that of the access token's app"),
        (error(100, "Object with ID '1' does not exist"), "yours", "may not see it"),
        (error(4, headers=None), "yours", "Try again in an hour"),
        (error(368), "Meta's", "breach of its policies"),
        (error(1, status=500), "Meta's", "can't do this at the moment"),
        (error(2, status=503), "Meta's", "metastatus.com"),
        (error(9999), "Meta's", "code 9999"),
        ({"status": 502, "raw": "<html>bad gateway</html>", "times": 99}, "Meta's", "answered 502"),
        ({"status": 200, "raw": "<html>welcome</html>", "times": 99}, "yours", "a proxy on the way out"),
    ],
)
def test_graph_api_errors(world: World, fault: dict[str, Any], side: str, expected: str) -> None:
    """An error of the Graph API is reported with its cause or remedy, and whose side it is on."""
    if "error" in fault:
        headers = fault["error"].pop("headers", "")
        fault = fault | ({"headers": {}} if headers is None else {})
    world.graph.faults.append(fault)
    result = world.run("status")
    assert result.returncode == 1
    assert f"On whose side: {side}." in result.stderr
    assert expected in result.stderr
    assert "Traceback" not in result.stderr


def test_rate_limit(world: World) -> None:
    """The wait that Meta's header names is printed, and the request is not retried, which would prolong the limit."""
    usage = json.dumps({ACCOUNT: [{"type": "whatsapp", "estimated_time_to_regain_access": 17}]})
    world.graph.faults.append(error(80008) | {"headers": {"X-Business-Use-Case-Usage": usage}})
    result = world.run("status")
    assert "Try again in 17 minutes" in result.stderr
    assert len(world.graph.asked) == 1


@pytest.mark.parametrize("fault", [error(2, status=500), {"status": 503, "raw": "busy"}])
def test_temporary_errors_are_retried(world: World, fault: dict[str, Any]) -> None:
    """A temporary error is retried twice; a permanent one is not retried."""
    world.register()
    world.graph.faults.append(fault | {"times": 2})
    assert world.run("status").returncode == 0
    world.graph.asked.clear()
    world.graph.faults[:] = [error(190)]
    assert world.run("status").returncode == 1
    assert len(world.graph.asked) == 1


class Proxy(BaseHTTPRequestHandler):
    """An HTTP proxy that requires a user and a password."""

    asked: ClassVar[list[str]] = []

    def do_CONNECT(self) -> None:
        """Connect to the target, and pass bytes on in both directions."""
        self.asked.append(self.path)
        if self.headers.get("Proxy-Authorization") != "Basic " + base64.b64encode(b"ada:l@ce").decode():
            self.send_error(407)
            return
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port))) as target:
            self.send_response(200)
            self.end_headers()
            peers = {self.connection: target, target: self.connection}
            while ready := select.select(list(peers), [], [], 5)[0]:
                for sender in ready:
                    if not (received := sender.recv(65536)):
                        return
                    peers[sender].sendall(received)

    def log_message(self, *_arguments: object) -> None:
        """Do not log requests."""


def test_outgoing_proxy(world: World) -> None:
    """Requests use HTTPS_PROXY unless NO_PROXY has the host; a proxy's refusal is reported without the password."""
    world.register()
    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{proxy.server_address[1]}"
        result = world.run("status", HTTPS_PROXY=f"http://ada:l%40ce@{address}", NO_PROXY="")
        assert result.returncode == 0, result.stderr
        assert Proxy.asked == [f"localhost:{world.graph.port}"]
        assert world.run("status", HTTPS_PROXY=f"http://{address}", NO_PROXY="localhost").returncode == 0
        assert len(Proxy.asked) == 1
        result = world.run("status", HTTPS_PROXY=f"http://ada:wrong-one@{address}", NO_PROXY="")
        assert result.returncode == 1
        assert "through the proxy of HTTPS_PROXY" in result.stderr
        assert "wrong-one" not in result.stderr
        proxy.shutdown()


def test_graph_api_is_unreachable(world: World) -> None:
    """A refused connection, an unknown host name and an untrusted certificate are each reported."""
    result = world.run("status", WEBHOOK_GRAPH_URL=f"https://localhost:{free_port()}")
    assert "could not be reached" in result.stderr
    result = world.run("status", WEBHOOK_GRAPH_URL="https://nowhere.invalid")
    assert "the host name in https://nowhere.invalid" in result.stderr
    result = world.run("status", SSL_CERT_FILE="")
    assert "not trusted here" in result.stderr
    assert "Traceback" not in result.stderr


def test_error_after_the_first_step(world: World) -> None:
    """If Meta rejects the second step, the step that was done is printed, and the next run continues from there."""
    world.graph.faults.append(error(200, status=403) | {"method": "POST", "path": "subscribed_apps"})
    result = world.run("subscribe", "--yes", "--fields", "messages")
    assert result.returncode == 1
    assert f"app {APP}: done" in result.stdout
    assert f"account {ACCOUNT}: failed. This step and those after it were not applied." in result.stderr
    world.graph.faults.clear()
    result = world.run("subscribe", "--yes", "--fields", "messages")
    assert result.returncode == 0
    assert f"app {APP}\n" not in result.stdout
    assert f"account {ACCOUNT}: done" in result.stdout


def test_wrong_verify_token(world: World) -> None:
    """With a wrong verify token, Meta's handshake fails: the cause is explained, and nothing is registered."""
    result = world.run("subscribe", "--yes", WEBHOOK_VERIFY_TOKEN="another")
    assert result.returncode == 1
    assert "the service does not accept the verify token" in result.stderr
    assert f"`whatsapp-webhook doctor --url {world.url}` finds out which" in result.stderr
    assert "On whose side: the callback URL's." in result.stderr
    assert world.registered() == {}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://localhost:1/webhooks", "Meta could not connect"),
        ("https://nowhere.invalid/webhooks", "its host name could not be resolved"),
        ("https://localhost:{graph}/webhooks", "it answers 400 instead of 200"),
        ("https://localhost:{port}/", "either the path does not lead to the service"),
        ("https://127.0.0.1:{port}/webhooks", "the certificate is not trusted"),
    ],
)
def test_failed_handshake(world: World, url: str, expected: str) -> None:
    """If Meta's handshake fails, the cause that Meta reports is explained, and nothing is registered."""
    result = world.run("subscribe", url.format(graph=world.graph.port, port=world.port), "--yes")
    assert result.returncode == 1
    assert f"Meta's handshake with the callback URL failed: {expected}" in result.stderr.replace("404: ", "")
    assert world.registered() == {}


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ("return 301 https://www.example.com/;", "it redirects (301), and Meta does not follow redirects"),
        ("return 401;", "requires a login"),
        ("return 403;", "something in front of the service refuses the request"),
        ("return 502;", "a proxy answers that it has no working backend"),
        ("return 200 welcome;", "something else answers there, with 'welcome'"),
        (
            "rewrite ^ /webhooks? break;",
            "does not lead to the service, or the service does not accept the verify token",
        ),
    ],
)
def test_failed_handshake_at_a_proxy(world: World, tmp_path: Path, rules: str, expected: str) -> None:
    """If a proxy (a real nginx) makes Meta's handshake fail, the cause is explained, and nothing is registered."""
    broken = World(tmp_path)
    broken.authority, broken.server = world.authority, world.server
    broken.url = f"https://localhost:{broken.port}/webhooks"
    with broken.behind(rules=rules):
        result = world.run("subscribe", broken.url, "--yes")
    assert result.returncode == 1
    assert expected in result.stderr
    assert "On whose side: the callback URL's." in result.stderr
    assert world.registered() == {}


def test_unsubscribe_refuses_if_an_override_would_stop_working(world: World) -> None:
    """`unsubscribe` changes nothing if a number's override to another URL would stop receiving events."""
    world.register()
    world.state["accounts"][ACCOUNT]["numbers"][NUMBER]["overrides"][APP] = ELSEWHERE
    result = world.run("unsubscribe", "--yes")
    assert result.returncode == 2
    assert ELSEWHERE in result.stderr
    assert world.graph.changed == []
    assert "accounts that are not named here were not checked" in world.run("unsubscribe", "--dry-run").stdout
    result = world.run("unsubscribe", "--yes", "--number", NUMBER, WEBHOOK_ACCOUNTS="")
    assert result.returncode == 2
    assert world.graph.changed == []


def test_url_in_capitals(world: World) -> None:
    """A URL registered with its scheme and host in capitals is the same URL, for `subscribe` and `unsubscribe`."""
    world.register(world.url.replace("https://localhost", "HTTPS://LOCALHOST"))
    assert "Nothing to change" in world.run("subscribe", "--yes").stdout
    assert world.run("unsubscribe", "--yes").returncode == 0
    assert world.registered() == {}


def test_registration_changes_while_it_is_read(world: World) -> None:
    """If somebody registers another URL while `subscribe` reads the registration, that URL is not replaced."""
    world.graph.on_ask = {4: lambda: world.register(ELSEWHERE)}  # the second time that the app is read
    result = world.run("subscribe", text="y\n")
    assert result.returncode == 2, result.stdout
    assert world.registered()["callback_url"] == ELSEWHERE


@pytest.mark.parametrize(
    ("arguments", "change", "is_kept"),
    [
        (
            ("--replace", "--fields", "messages"),
            lambda world: world.register(THIRD),
            lambda world: world.registered()["callback_url"] == THIRD,
        ),
        (
            ("--force",),
            lambda world: world.state["apps"][APP]["subscriptions"].clear(),
            lambda world: world.registered() == {},
        ),
        (
            ("--drop-overrides", "--fields", "messages"),
            lambda world: world.state["accounts"][ACCOUNT]["numbers"][NUMBER]["overrides"].update({APP: THIRD}),
            lambda world: world.state["accounts"][ACCOUNT]["numbers"][NUMBER]["overrides"] == {APP: THIRD},
        ),
        (
            ("--fields", "messages,calls"),
            lambda world: world.register(fields="messages,calls,security"),
            lambda world: "security" in world.fields(),
        ),
    ],
)
def test_registration_changes_after_the_last_step(
    world: World, arguments: tuple[str, ...], change: Callable[[World], object], is_kept: Callable[[World], bool]
) -> None:
    """A change by somebody else before the result is verified is kept; what is then missing is reported."""
    world.register(ELSEWHERE if "--replace" in arguments else None)
    world.state["accounts"][ACCOUNT]["apps"][APP] = ELSEWHERE if "--drop-overrides" in arguments else None

    def after_the_step() -> None:
        if world.graph.changed:
            world.graph.on_ask.clear()
            change(world)

    world.graph.on_ask = dict.fromkeys(range(1, 30), after_the_step)
    result = world.run("subscribe", "--yes", *arguments)
    assert is_kept(world)
    if "security" in world.fields():
        assert result.returncode == 0  # a field that somebody else added is not an error
    else:
        assert result.returncode == 1
        assert "the changes above are still missing" in result.stderr


def test_app_secret_rotation(world: World) -> None:
    """If Meta still accepts only the app secret of line 2, that one is used for requests to Meta."""
    world.write("app-secret", "0123456789abcdef" * 2 + f"\n{world.server.secret}\n")
    result = world.run("status")
    world.write("app-secret", world.server.secret)
    assert result.returncode == 0, result.stderr


def test_url_too_long_for_an_override(world: World) -> None:
    """An override's URL of more than 200 characters, Meta's limit, is rejected before any request to Meta."""
    url = f"{world.url}/{'x' * 200}"
    result = world.run("subscribe", url, "--yes", "--override-number", NUMBER)
    assert result.returncode == 2
    assert "Meta accepts 200" in result.stderr
    assert world.graph.asked == []


def test_list_without_a_cursor(world: World) -> None:
    """A list with a next page but no cursor for it is an error, because the rest of it can't be read."""
    world.register()
    page = {"data": [], "paging": {"next": "x"}}
    world.graph.faults[:] = [{"status": 200, "raw": json.dumps(page), "times": 99, "path": "phone_numbers"}]
    assert world.run("status").returncode == 1
    assert world.run("unsubscribe", "--yes").returncode == 1
    assert world.graph.changed == []


def test_secrets_in_metas_messages(world: World) -> None:
    """The access token, app secret and verify token are not printed, even if Meta's error message contains them."""
    for message in (f"Error validating token {world.access_token}", f"bad {world.server.secret}", "x"):
        for code in (190, 100, 200, 4, 7777, 2200):
            world.graph.faults[:] = [error(code, message)]
            result = world.run("status")
            assert result.returncode == 1
            assert world.access_token not in result.stderr
            assert world.server.secret not in result.stderr
    token = world.server.token
    world.graph.faults[:] = [
        error(2200, f'Response does not match challenge, expected value="1", received="{token}"') | {"method": "POST"}
    ]
    result = world.run("subscribe", "--yes")
    assert "something else answers there" in result.stderr
    assert token not in result.stderr
    world.graph.faults[:] = [
        error(2200, 'Response does not match challenge, expected value="1", received="a+token+of+mine"')
        | {"method": "POST"}
    ]
    result = world.run("subscribe", "--yes", WEBHOOK_VERIFY_TOKEN="a token of mine")
    assert "something else answers there" in result.stderr
    assert "a+token" not in result.stderr


@pytest.mark.parametrize(
    "raw",
    [
        '{"data": null}',
        '{"data": 5}',
        '{"data": [], "paging": {"next": "x", "cursors": null}}',
        '{"data": [], "paging": {"next": "x", "cursors": []}}',
        '{"data": [{"object": "whatsapp_business_account", "fields": 5}]}',
        '{"error": {"code": "\u00b2", "message": 5}}',
        '{"error": {"code": "' + "9" * 5000 + '"}}',
        "[" * 100_000,
        '{"a":' * 100_000,
        "[]",
        "null",
        '{"name": "\\ud800\\u001b]0;x"}',
    ],
    ids=lambda raw: raw[:20],
)
def test_malformed_responses(world: World, raw: str) -> None:
    """A malformed response of the Graph API never causes a traceback, and no escape character is printed."""
    for command in ("status", "doctor"):
        world.graph.faults[:] = [{"status": 200, "raw": raw, "times": 99}]
        result = world.run(command, "--json")
        assert "Traceback" not in result.stderr, result.stderr
        assert result.returncode in (0, 1)
        assert "\x1b" not in result.stdout + result.stderr


def test_list_with_the_same_cursor_again(world: World) -> None:
    """A list is read no further if its next page has the same cursor again."""
    world.register()
    page = {"data": [], "paging": {"next": "x", "cursors": {"after": "same"}}}
    world.graph.faults[:] = [{"status": 200, "raw": json.dumps(page), "times": 99, "path": "phone_numbers"}]
    assert world.run("status").returncode == 0
    assert len(world.graph.asked) < 10


def test_status_fits_80_columns(world: World) -> None:
    """A URL that is too long for a line is shortened in the middle; `--wide` prints it in full."""
    url = f"{ELSEWHERE}/{'long/' * 30}end"
    world.register(url, fields=",".join(FIELDS))
    world.state["accounts"][ACCOUNT]["apps"][APP] = url
    environ = os.environ | world.environ
    lines = lines_on_terminal(80, environ, "status")
    assert max(map(len, lines)) <= 80
    assert any("…" in line for line in lines)
    assert "messages" in " ".join(lines)
    wide = lines_on_terminal(80, environ, "status", "--wide")
    assert f"  callback URL  {url}" in wide
    assert f"  override      {url}" in wide
