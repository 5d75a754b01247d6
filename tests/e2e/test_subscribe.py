"""`subscribe`, `unsubscribe` and `status` against a Graph API that does the handshake with the real service."""

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
    with World(tmp_path_factory.mktemp("world")) as made, made.behind():
        yield made


@pytest.fixture
def world(running: World) -> World:
    """A Meta at which nothing is set up."""
    running.reset()
    return running


def test_from_nothing_to_subscribed(world: World) -> None:
    """App and account, after a real handshake; it says first what will change, and nothing secret."""
    done = world.run("subscribe", "--fields", "messages,account_update", text="y\n")
    assert done.returncode == 0, done.stderr
    assert f"app {APP}\n  now   nothing\n  then  {world.url}: account_update, messages\n" in done.stdout
    assert f"account {ACCOUNT}\n  now   not subscribed\n  then  subscribed\n" in done.stdout
    assert done.stdout.endswith("Done: Meta now has this registration.\n")
    assert done.stdout.index("Change this at Meta?") < done.stdout.index(f"app {APP}: done")
    assert world.registered()["callback_url"] == world.url
    assert world.fields() == {"messages", "account_update"}
    assert APP in world.state["accounts"][ACCOUNT]["apps"]
    assert world.server.metric("whatsapp_webhook_handshakes_total", outcome="verified") > 0
    assert world.graph.changed[0][2]["include_values"] == "true"
    for secret in (world.server.secret, world.access_token, world.server.token):
        assert secret not in done.stdout + done.stderr


def test_a_no_changes_nothing(world: World) -> None:
    """Nor does an end of the input, nor --dry-run."""
    for answer, more in (("n\n", ()), ("", ()), ("", ("--dry-run",))):
        done = world.run("subscribe", *more, text=answer)
        assert done.returncode == (0 if more else 1)
        assert world.graph.changed == []


def test_again_is_nothing(world: World) -> None:
    """Once it is so, no request changes anything, unless it is to: then Meta does its handshake once more."""
    assert world.run("subscribe", "--yes", "--fields", "messages").returncode == 0
    changed = len(world.graph.changed)
    done = world.run("subscribe", "--yes", "--fields", "messages")
    assert done.returncode == 0
    assert "Nothing to change" in done.stdout
    assert len(world.graph.changed) == changed
    before = world.server.metric("whatsapp_webhook_handshakes_total", outcome="verified")
    assert world.run("subscribe", "--yes", "--fields", "messages", "--force").returncode == 0
    assert world.server.metric("whatsapp_webhook_handshakes_total", outcome="verified") == before + 1


@pytest.mark.parametrize("adds", [False, True])
def test_fields_that_are_not_wanted_any_more(world: World, adds: bool) -> None:  # noqa: FBT001
    """Go, whether a POST leaves what it does not name or not; what comes and goes is said."""
    world.graph.adds = adds
    world.register(fields="messages,flows,security")
    done = world.run("subscribe", "--yes", "--fields", "messages,calls")
    assert done.returncode == 0, done.stderr
    assert "added: calls; removed: flows, security" in done.stdout
    assert world.fields() == {"messages", "calls"}
    assert world.run("subscribe", "--yes", "--fields", "messages").returncode == 0
    assert world.fields() == {"messages"}


def test_which_fields_without_being_told(world: World) -> None:
    """All that Meta offers at first, then those that are there; WEBHOOK_FIELDS and --fields say otherwise."""
    assert world.run("subscribe", "--yes").returncode == 0
    assert world.fields() == set(FIELDS) - NOT_CHOSEN
    assert world.run("subscribe", "--yes", WEBHOOK_FIELDS="messages,calls").returncode == 0
    assert world.fields() == {"messages", "calls"}
    assert "Nothing to change" in world.run("subscribe", "--yes").stdout
    assert world.run("subscribe", "--yes", "--force").returncode == 0
    assert world.fields() == {"messages", "calls"}
    assert world.run("subscribe", "--yes", "--fields", "all").returncode == 0
    assert world.fields() == set(FIELDS) - NOT_CHOSEN


def test_a_misspelt_field(world: World) -> None:
    """Is not sent: the right spelling is told. One that is not known here is Meta's to refuse."""
    done = world.run("subscribe", "--yes", "--fields", "mesages")
    assert done.returncode == 2
    assert "'mesages': did you mean 'messages'?" in done.stderr
    done = world.run("subscribe", "--yes", "--fields", "zebra")
    assert done.returncode == 1
    assert "Meta does not know one of the fields" in done.stderr


def test_every_field_can_be_listed(world: World) -> None:
    """With what it brings, without any credentials."""
    done = world.run("subscribe", "--list-fields", WEBHOOK_APP_ID="")
    assert done.returncode == 0
    for name in set(FIELDS) - NOT_CHOSEN:
        assert name in done.stdout
        assert FIELDS[name] in done.stdout


def test_somebody_elses_url_stays(world: World) -> None:
    """Unless it is said that it may go."""
    world.register(ELSEWHERE)
    done = world.run("subscribe", "--yes")
    assert done.returncode == 2
    assert f"The app sends to {ELSEWHERE}" in done.stderr
    assert "--replace" in done.stderr
    assert "Nothing was changed." in done.stderr
    assert world.graph.changed == []
    assert world.run("subscribe", "--yes", "--replace").returncode == 0
    assert world.registered()["callback_url"] == world.url


@pytest.mark.parametrize("of", ["account", "number"])
def test_an_override_that_leads_elsewhere_stays(world: World, of: str) -> None:
    """Unless it is said that it may go; subscribing an account that is subscribed would have removed it."""
    account = world.state["accounts"][ACCOUNT]
    world.register()
    if of == "account":
        account["apps"][APP] = ELSEWHERE
    else:
        account["numbers"][NUMBER]["overrides"][APP] = ELSEWHERE
    done = world.run("subscribe", "--yes", "--fields", "messages")
    # Of an account nothing would come; that of a number is often meant, to try something out.
    assert done.returncode == (2 if of == "account" else 0)
    assert ELSEWHERE in done.stderr + done.stdout
    assert "--drop-overrides" in done.stderr + done.stdout
    assert world.graph.changed == []
    done = world.run("subscribe", "--yes", "--fields", "messages", "--drop-overrides")
    assert done.returncode == 0, done.stderr
    assert account["apps"] == {APP: None}
    assert not account["numbers"][NUMBER]["overrides"].get(APP)


def test_overrides_on_request(world: World) -> None:
    """For an account or a number; the app keeps its own URL, and the account is subscribed first."""
    world.register(ELSEWHERE)
    world.state["accounts"][ACCOUNT]["apps"].clear()
    done = world.run("subscribe", "--yes", "--override-account", ACCOUNT, "--override-number", NUMBER)
    assert done.returncode == 0, done.stderr
    assert world.state["accounts"][ACCOUNT]["apps"] == {APP: world.url}
    assert world.state["accounts"][ACCOUNT]["numbers"][NUMBER]["overrides"] == {APP: world.url}
    assert world.registered()["callback_url"] == ELSEWHERE
    assert "note: it was not checked whether the app is subscribed to the number's account" in done.stdout
    again = world.run("subscribe", "--yes", "--override-account", ACCOUNT, "--override-number", NUMBER)
    assert "Nothing to change" in again.stdout
    ended = world.run("unsubscribe", "--yes")
    assert ended.returncode == 0, ended.stderr
    assert world.state["accounts"][ACCOUNT]["apps"] == {APP: None}
    assert not world.state["accounts"][ACCOUNT]["numbers"][NUMBER]["overrides"].get(APP)
    assert world.registered()["callback_url"] == ELSEWHERE


def test_what_an_override_has_no_use_for(world: World) -> None:
    """Is refused, not passed over: fields and accounts are of the app's own subscription."""
    for more in (("--fields", "messages"), ("--account", ACCOUNT)):
        done = world.run("subscribe", "--yes", "--override-number", NUMBER, *more)
        assert done.returncode == 2
        assert "omit --fields and --account" in done.stderr
    assert world.graph.asked == []


def test_an_override_needs_a_subscription(world: World) -> None:
    """Else it is refused before anything is asked of Meta that changes something."""
    done = world.run("subscribe", "--yes", "--override-account", ACCOUNT)
    assert done.returncode == 2
    assert "The app has no subscription yet" in done.stderr
    assert world.graph.changed == []


def test_unsubscribing(world: World) -> None:
    """Ends what leads to the URL, and nothing that leads elsewhere."""
    world.register(ELSEWHERE)
    done = world.run("unsubscribe", "--yes")
    assert done.returncode == 0
    assert f"The app sends to {ELSEWHERE}" in done.stdout
    assert world.graph.changed == []
    world.register()
    world.state["accounts"][ACCOUNT]["apps"][APP] = ELSEWHERE
    done = world.run("unsubscribe", "--yes")
    assert done.returncode == 2
    assert "would be removed with its subscription" in done.stderr
    assert world.run("unsubscribe", "--dry-run", "--drop-overrides").returncode == 0
    assert world.graph.changed == []
    done = world.run("unsubscribe", "--yes", "--drop-overrides")
    assert done.returncode == 0, done.stderr
    assert world.registered() == {}
    assert world.state["accounts"][ACCOUNT]["apps"] == {}


def test_status(world: World) -> None:
    """In words and as JSON, and nothing secret in either."""
    empty = world.run("status").stdout
    assert "not subscribed: Meta sends no WhatsApp events to this app" in empty
    assert "not subscribed: Meta sends none of its events to this app" in empty
    world.register(fields="messages,calls")
    world.state["accounts"][ACCOUNT]["apps"][APP] = ELSEWHERE
    world.state["accounts"][ACCOUNT]["numbers"]["106540352242924"]["overrides"][APP] = world.url  # on the second page
    said = world.run("status")
    assert said.returncode == 0, said.stderr
    for part in (f"callback URL  {world.url}", "calls, messages", ELSEWHERE, f"+1 555-078-3883)  override {world.url}"):
        assert part in said.stdout
    document = json.loads(world.run("status", "--json").stdout)
    assert document["app"]["subscription"] == {
        "callback_url": world.url,
        "fields": ["calls", "messages"],
        "active": True,
    }
    assert document["accounts"][0]["override"] == ELSEWHERE
    assert len(document["accounts"][0]["numbers"]) == 3
    assert world.access_token not in said.stdout + str(document)


def test_a_terminal_that_knows_ascii_alone(world: World) -> None:
    """Is told a name all the same."""
    world.state["apps"][APP]["name"] = "Caf\u00e9"
    for command in ("status", "doctor"):
        environ = os.environ | world.environ | {"PYTHONIOENCODING": "ascii"}
        started = [sys.executable, "-m", "service", command]
        done = subprocess.run(started, env=environ, capture_output=True, text=True, check=False)
        assert "Caf" in done.stdout
        assert "Traceback" not in done.stderr


def test_status_without_an_access_token(world: World) -> None:
    """Tells what the app secret alone shows, and then what is missing."""
    world.register()
    world.write("access-token", "")
    done = world.run("status")
    world.write("access-token", world.access_token)
    assert done.returncode == 1
    assert f"callback URL  {world.url}" in done.stdout
    assert "access-token (or WEBHOOK_ACCESS_TOKEN)" in done.stderr


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://wa.example.com/webhooks", "https only"),
        ("https://a@wa.example.com/webhooks", "without user, password"),
        ("https://wa.example.com/web+hooks", "+ in the path"),
        ("wa.example.com", "must be a URL"),
    ],
)
def test_a_url_that_meta_never_calls(world: World, url: str, why: str) -> None:
    """Is refused before Meta is asked."""
    done = world.run("subscribe", url)
    assert done.returncode == 2
    assert why in done.stderr
    assert world.graph.asked == []


def test_secrets_from_the_environment(world: World, tmp_path: Path) -> None:
    """Instead of files; a server does not take them, and says so."""
    secrets: dict[str, str] = {
        "WEBHOOK_CREDENTIALS_DIR": str(tmp_path),
        "WEBHOOK_APP_SECRET": world.server.secret,
        "WEBHOOK_VERIFY_TOKEN": world.server.token,
    }
    done = world.run("subscribe", "--yes", **secrets)
    assert done.returncode == 1
    assert "access-token (or WEBHOOK_ACCESS_TOKEN)" in done.stderr
    done = world.run("subscribe", "--yes", **secrets, WEBHOOK_ACCESS_TOKEN=world.access_token)
    assert done.returncode == 0, done.stderr
    done = world.run("check", **secrets)
    assert done.returncode == 2
    assert "a server reads the file app-secret" in done.stderr


def error(code: int, message: str = "m", **more: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, **more}, "times": 99}


@pytest.mark.parametrize(
    ("fault", "side", "says"),
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
def test_errors_in_words(world: World, fault: dict[str, Any], side: str, says: str) -> None:
    """What went wrong, whose side, what to do."""
    if "error" in fault:
        headers = fault["error"].pop("headers", "")
        fault = fault | ({"headers": {}} if headers is None else {})
    world.graph.faults.append(fault)
    done = world.run("status")
    assert done.returncode == 1
    assert f"On whose side: {side}." in done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_how_long_a_limit_lasts(world: World) -> None:
    """As Meta's header says; and nothing is tried again, which would only prolong it."""
    usage = json.dumps({ACCOUNT: [{"type": "whatsapp", "estimated_time_to_regain_access": 17}]})
    world.graph.faults.append(error(80008) | {"headers": {"X-Business-Use-Case-Usage": usage}})
    done = world.run("status")
    assert "Try again in 17 minutes" in done.stderr
    assert len(world.graph.asked) == 1


@pytest.mark.parametrize("fault", [error(2, status=500), {"status": 503, "raw": "busy"}])
def test_what_passes_is_tried_again(world: World, fault: dict[str, Any]) -> None:
    """Twice more; what does not pass is asked once."""
    world.register()
    world.graph.faults.append(fault | {"times": 2})
    assert world.run("status").returncode == 0
    world.graph.asked.clear()
    world.graph.faults[:] = [error(190)]
    assert world.run("status").returncode == 1
    assert len(world.graph.asked) == 1


class Proxy(BaseHTTPRequestHandler):
    """One on the way out, which wants a user."""

    asked: ClassVar[list[str]] = []

    def do_CONNECT(self) -> None:
        """Connect, and pass bytes on."""
        self.asked.append(self.path)
        if self.headers.get("Proxy-Authorization") != "Basic " + base64.b64encode(b"ada:l@ce").decode():
            self.send_error(407)
            return
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port))) as other:
            self.send_response(200)
            self.end_headers()
            ends = {self.connection: other, other: self.connection}
            while ready := select.select(list(ends), [], [], 5)[0]:
                for end in ready:
                    if not (read := end.recv(65536)):
                        return
                    ends[end].sendall(read)

    def log_message(self, *_said: object) -> None:
        """Do not log requests."""


def test_a_proxy_on_the_way_out(world: World) -> None:
    """As the environment names it for everybody; where it does not let us through, that is told, and no password."""
    world.register()
    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        at = f"127.0.0.1:{proxy.server_address[1]}"
        done = world.run("status", HTTPS_PROXY=f"http://ada:l%40ce@{at}", NO_PROXY="")
        assert done.returncode == 0, done.stderr
        assert Proxy.asked == [f"localhost:{world.graph.port}"]
        assert world.run("status", HTTPS_PROXY=f"http://{at}", NO_PROXY="localhost").returncode == 0
        assert len(Proxy.asked) == 1
        done = world.run("status", HTTPS_PROXY=f"http://ada:wrong-one@{at}", NO_PROXY="")
        assert done.returncode == 1
        assert "through the proxy of HTTPS_PROXY" in done.stderr
        assert "wrong-one" not in done.stderr
        proxy.shutdown()


def test_nobody_there(world: World) -> None:
    """And an authority that is not trusted: each a sentence."""
    done = world.run("status", WEBHOOK_GRAPH_URL=f"https://localhost:{free_port()}")
    assert "could not be reached" in done.stderr
    done = world.run("status", WEBHOOK_GRAPH_URL="https://nowhere.invalid")
    assert "the host name in https://nowhere.invalid" in done.stderr
    done = world.run("status", SSL_CERT_FILE="")
    assert "not trusted here" in done.stderr
    assert "Traceback" not in done.stderr


def test_meta_in_the_middle_of_it(world: World) -> None:
    """A refusal after the first step says what was done; the next run goes on from there."""
    world.graph.faults.append(error(200, status=403) | {"method": "POST", "path": "subscribed_apps"})
    done = world.run("subscribe", "--yes", "--fields", "messages")
    assert done.returncode == 1
    assert f"app {APP}: done" in done.stdout
    assert f"account {ACCOUNT}: failed. This step and those after it were not applied." in done.stderr
    world.graph.faults.clear()
    done = world.run("subscribe", "--yes", "--fields", "messages")
    assert done.returncode == 0
    assert f"app {APP}\n" not in done.stdout
    assert f"account {ACCOUNT}: done" in done.stdout


def test_the_wrong_verify_token(world: World) -> None:
    """Meta's handshake fails, and what it says is said in words; nothing is registered."""
    done = world.run("subscribe", "--yes", WEBHOOK_VERIFY_TOKEN="another")
    assert done.returncode == 1
    assert "the service does not accept the verify token" in done.stderr
    assert f"`whatsapp-webhook doctor --url {world.url}` finds out which" in done.stderr
    assert "On whose side: the callback URL's." in done.stderr
    assert world.registered() == {}


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://localhost:1/webhooks", "Meta could not connect"),
        ("https://nowhere.invalid/webhooks", "its host name could not be resolved"),
        ("https://localhost:{graph}/webhooks", "it answers 400 instead of 200"),
        ("https://localhost:{port}/", "either the path does not lead to the service"),
        ("https://127.0.0.1:{port}/webhooks", "the certificate is not trusted"),
    ],
)
def test_metas_handshake_fails(world: World, url: str, says: str) -> None:
    """Each cause is Meta's own finding, told in words; nothing is registered."""
    done = world.run("subscribe", url.format(graph=world.graph.port, port=world.port), "--yes")
    assert done.returncode == 1
    assert f"Meta's handshake with the callback URL failed: {says}" in done.stderr.replace("404: ", "")
    assert world.registered() == {}


@pytest.mark.parametrize(
    ("rules", "says"),
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
def test_metas_handshake_fails_at_a_proxy(world: World, tmp_path: Path, rules: str, says: str) -> None:
    """As well; a real nginx stands there."""
    other = World(tmp_path)
    other.authority, other.server, other.url = world.authority, world.server, f"https://localhost:{other.port}/webhooks"
    with other.behind(rules=rules):
        done = world.run("subscribe", other.url, "--yes")
    assert done.returncode == 1
    assert says in done.stderr
    assert "On whose side: the callback URL's." in done.stderr
    assert world.registered() == {}


def test_a_number_that_is_sent_elsewhere_keeps_that(world: World) -> None:
    """An account's subscription, without which its number's override gets nothing, ends only where that is said."""
    world.register()
    world.state["accounts"][ACCOUNT]["numbers"][NUMBER]["overrides"][APP] = ELSEWHERE
    done = world.run("unsubscribe", "--yes")
    assert done.returncode == 2
    assert ELSEWHERE in done.stderr
    assert world.graph.changed == []
    assert "accounts that are not named here were not checked" in world.run("unsubscribe", "--dry-run").stdout
    done = world.run("unsubscribe", "--yes", "--number", NUMBER, WEBHOOK_ACCOUNTS="")
    assert done.returncode == 2
    assert world.graph.changed == []


def test_a_url_that_is_registered_in_capitals(world: World) -> None:
    """Is the same one: nothing is to be replaced, and it can be ended."""
    world.register(world.url.replace("https://localhost", "HTTPS://LOCALHOST"))
    assert "Nothing to change" in world.run("subscribe", "--yes").stdout
    assert world.run("unsubscribe", "--yes").returncode == 0
    assert world.registered() == {}


def test_what_changes_while_somebody_reads(world: World) -> None:
    """Is looked at again: what was confirmed is what is done, or nothing."""
    world.graph.on_ask = {4: lambda: world.register(ELSEWHERE)}  # after the first look at app and account
    done = world.run("subscribe", text="y\n")
    assert done.returncode == 2, done.stdout
    assert world.registered()["callback_url"] == ELSEWHERE


@pytest.mark.parametrize(
    ("arguments", "meanwhile", "stays"),
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
def test_what_somebody_else_changes_just_then(
    world: World, arguments: tuple[str, ...], meanwhile: Callable[[World], object], stays: Callable[[World], bool]
) -> None:
    """Between the last step and the look after it: nothing is done that was not shown, and what is left is told."""
    world.register(ELSEWHERE if "--replace" in arguments else None)
    world.state["accounts"][ACCOUNT]["apps"][APP] = ELSEWHERE if "--drop-overrides" in arguments else None

    def after_the_step() -> None:
        if world.graph.changed:
            world.graph.on_ask.clear()
            meanwhile(world)

    world.graph.on_ask = dict.fromkeys(range(1, 30), after_the_step)
    done = world.run("subscribe", "--yes", *arguments)
    assert stays(world)
    if "security" in world.fields():
        assert done.returncode == 0  # a field more is theirs, and nobody's harm
    else:
        assert done.returncode == 1
        assert "the changes above are still missing" in done.stderr


def test_a_secret_that_is_being_rotated(world: World) -> None:
    """May be line 2 at Meta still: then that one is what Meta is asked with."""
    world.write("app-secret", "0123456789abcdef" * 2 + f"\n{world.server.secret}\n")
    done = world.run("status")
    world.write("app-secret", world.server.secret)
    assert done.returncode == 0, done.stderr


def test_a_url_that_is_too_long_for_an_override(world: World) -> None:
    """Is not sent: Meta takes 200 characters there."""
    url = f"{world.url}/{'x' * 200}"
    done = world.run("subscribe", url, "--yes", "--override-number", NUMBER)
    assert done.returncode == 2
    assert "Meta accepts 200" in done.stderr
    assert world.graph.asked == []


def test_a_list_whose_next_page_is_nowhere(world: World) -> None:
    """Is not accepted as complete."""
    world.register()
    page = {"data": [], "paging": {"next": "x"}}
    world.graph.faults[:] = [{"status": 200, "raw": json.dumps(page), "times": 99, "path": "phone_numbers"}]
    assert world.run("status").returncode == 1
    assert world.run("unsubscribe", "--yes").returncode == 1
    assert world.graph.changed == []


def test_secrets_that_meta_says_again(world: World) -> None:
    """Are not said again here: neither the access token, nor the verify token."""
    for told in (f"Error validating token {world.access_token}", f"bad {world.server.secret}", "x"):
        for code in (190, 100, 200, 4, 7777, 2200):
            world.graph.faults[:] = [error(code, told)]
            done = world.run("status")
            assert done.returncode == 1
            assert world.access_token not in done.stderr
            assert world.server.secret not in done.stderr
    token = world.server.token
    world.graph.faults[:] = [
        error(2200, f'Response does not match challenge, expected value="1", received="{token}"') | {"method": "POST"}
    ]
    done = world.run("subscribe", "--yes")
    assert "something else answers there" in done.stderr
    assert token not in done.stderr
    world.graph.faults[:] = [
        error(2200, 'Response does not match challenge, expected value="1", received="a+token+of+mine"')
        | {"method": "POST"}
    ]
    done = world.run("subscribe", "--yes", WEBHOOK_VERIFY_TOKEN="a token of mine")
    assert "something else answers there" in done.stderr
    assert "a+token" not in done.stderr


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
def test_odd_answers_of_metas(world: World, raw: str) -> None:
    """End in a sentence, or in nothing found; never in a traceback."""
    for command in ("status", "doctor"):
        world.graph.faults[:] = [{"status": 200, "raw": raw, "times": 99}]
        done = world.run(command, "--json")
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode in (0, 1)
        assert "\x1b" not in done.stdout + done.stderr


def test_a_list_without_an_end(world: World) -> None:
    """Is not followed forever, nor taken for whole."""
    world.register()
    page = {"data": [], "paging": {"next": "x", "cursors": {"after": "same"}}}
    world.graph.faults[:] = [{"status": 200, "raw": json.dumps(page), "times": 99, "path": "phone_numbers"}]
    assert world.run("status").returncode == 0
    assert len(world.graph.asked) < 10


def test_status_fits_80_columns(world: World) -> None:
    """A URL that is too long for a line is shortened in the middle; `--wide` prints it whole."""
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
