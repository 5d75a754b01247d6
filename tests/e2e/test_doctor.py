"""`doctor` on about 60 broken set-ups, where it names the cause first, with the remedy; and on a correct one."""

import base64
import datetime as dt
import json
import shlex
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from service.credentials import Credentials
from service.doctor.caller import Caller
from service.doctor.checks import certificate, credentials, handshake, notifications, responder
from service.meta import catalogue
from tests.support.public import ACCOUNT, APP, NUMBER, World, findings
from tests.support.server import Server, until

pytestmark = pytest.mark.needs("nginx", "haproxy")
ELSEWHERE = "https://elsewhere.example.com/hook"
# Always unknown in these tests: localhost is not public, and the Graph API does not report whether an app is live.
ALWAYS_UNKNOWN = {"name", "app live"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("world")) as made:
        yield made


@pytest.fixture
def world(shared: World) -> World:
    """A correct set-up, except that there is no proxy in front of the service yet."""
    shared.reset()
    shared.register()
    return shared


@pytest.fixture
def other(tmp_path: Path) -> Iterator[World]:
    """A set-up for one test, which may change or break its service."""
    with World(tmp_path) as made:
        made.register()
        yield made


def diagnosed(world: World, *, here: bool = False, **environ: str) -> list[dict[str, str]]:
    """Run the doctor, from outside or (*here*) on the service's machine; its output must not contain a secret."""
    done = world.run("doctor", "--json", here=here, **environ)
    assert done.returncode in (0, 1), done.stderr
    for secret in (world.server.secret, world.access_token, world.server.token):
        assert secret not in done.stdout + done.stderr
    assert (done.returncode == 0) is json.loads(done.stdout)["ok"]
    return findings(done.stdout)


def cause(found: list[dict[str, str]]) -> dict[str, str]:
    """Return the first finding that is wrong, else the first that is unknown without reason."""
    wrong = [each for each in found if each["state"] == "wrong"]
    return (wrong or [each for each in found if each["state"] == "unknown" and each["check"] != "name"])[0]


def test_a_verify_token_is_not_sent_without_tls(world: World) -> None:
    """An http URL gets no request, unless its host is loopback."""
    port, handshakes = world.server.port, "whatsapp_webhook_handshakes_total"
    before = sum(world.server.metric(handshakes, outcome=outcome) for outcome in ("verified", "wrong_token"))
    done = world.run("doctor", "--json", "--url", f"http://0.0.0.0:{port}/webhooks")
    (not_checked,) = [each for each in findings(done.stdout) if each["check"] == "not checked"]
    assert "without TLS" in not_checked["detail"]
    assert "https" in not_checked["remedy"]
    after = sum(world.server.metric(handshakes, outcome=outcome) for outcome in ("verified", "wrong_token"))
    assert after == before
    loopback = world.run("doctor", "--json", "--url", f"http://127.0.0.1:{port}/webhooks")
    assert "not checked" not in [each["check"] for each in findings(loopback.stdout)]


@pytest.mark.parametrize("proxy", ["nginx", "haproxy"])
def test_a_correct_set_up(world: World, proxy: str) -> None:
    """No finding is wrong, from outside or in the pod; what can't be checked is unknown, with a remedy."""
    rules = {} if proxy == "nginx" else {"rules": ""}
    with world.behind(proxy, **rules):
        outside, within = diagnosed(world), diagnosed(world, here=True)
    for found, unseen in ((outside, {"service", "inbox"}), (within, set())):
        assert [each for each in found if each["state"] == "wrong"] == []
        assert {each["check"] for each in found if each["state"] == "unknown"} == ALWAYS_UNKNOWN | unseen
        assert all(each["remedy"] for each in found if each["state"] == "unknown")
    assert "exec POD -- whatsapp-webhook doctor" in next(
        each["remedy"] for each in outside if each["check"] == "service"
    )
    order = [each["check"] for each in within]
    assert order == list(dict.fromkeys(order))
    assert order[:3] == ["configuration", "credentials", "service"]
    assert order.index("url") < order.index("name") < order.index("connection") < order.index("certificate")
    assert order.index("certificate") < order.index("answer") < order.index("handshake") < order.index("notification")
    assert order.index("notification") < order.index("body limit") < order.index("inbox") < order.index("app")
    assert order[-5:] == ["app live", "callback", "fields", "accounts", "overrides"]


def test_its_events_are_few_and_marked_as_tests(world: World) -> None:
    """It stores two to five small events, all marked as tests."""
    with world.behind():
        before = len(world.server.kept())
        diagnosed(world, here=True)
    kept = world.server.kept()
    assert 1 < len(kept) - before < 6
    assert all(event.test for event in kept)
    assert sum(len(event.data) for event in kept) < 1000 * len(kept)


def test_another_version_answers(world: World) -> None:
    """Meta answers requests for a version that it ended with another one: the doctor says so."""
    world.graph.answers_as = "v25.0"
    with world.behind():
        done = world.run("doctor", "--json")
    (finding,) = [each for each in json.loads(done.stdout)["findings"] if each["check"] == "graph version"]
    assert finding["state"] == "unknown"
    assert "answered with version v25.0" in finding["detail"]
    assert "WEBHOOK_GRAPH_VERSION" in finding["remedy"]


def test_its_text_output(world: World) -> None:
    """It prints one line for each finding, the remedy below it, and at the end the cause to start with."""
    world.state["accounts"][ACCOUNT]["apps"].clear()
    with world.behind():
        done = world.run("doctor")
    assert done.returncode == 1
    assert "ok       handshake" in done.stdout
    assert f"-> whatsapp-webhook subscribe {world.url} --app {APP} --account {ACCOUNT}" in done.stdout
    assert "Start here: accounts: The app is not subscribed" in done.stdout


@pytest.mark.parametrize("of", ["apps", "accounts"])
def test_a_remedy_can_be_pasted(world: World, of: str) -> None:
    """A remedy's command has the --credentials that the doctor was given; after it, no finding is wrong."""
    if of == "apps":
        world.state["apps"][APP]["subscriptions"].clear()
    world.state["accounts"][ACCOUNT]["apps"].clear()
    environ = {"WEBHOOK_CREDENTIALS_DIR": "/nowhere"}
    command_line = ("doctor", "--json", "--credentials", str(world.server.credentials))
    with world.behind():
        remedy = cause(findings(world.run(*command_line, **environ).stdout))["remedy"]
        command, *arguments = shlex.split(remedy)
        assert command == "whatsapp-webhook"
        done = world.run(*arguments, "--yes", **environ)
        assert done.returncode == 0, done.stderr
        assert world.run(*command_line, **environ).returncode == 0


def test_a_real_event_proves_that_the_app_is_live(other: World) -> None:
    """An event from a test or from `simulate` does not."""
    other.server.notify(catalogue.notification("message text"))
    with other.behind():
        assert {"app live"} < {each["check"] for each in diagnosed(other, here=True) if each["state"] == "unknown"}
    other.server.notify(catalogue.notification("message text").replace(b'"102290129340398"', b'"7"'))
    with other.behind():
        found = diagnosed(other, here=True)
    (live,) = [each for each in found if each["check"] == "app live"]
    assert live["state"] == "ok"


def test_without_a_url_the_registered_one_is_checked(world: World) -> None:
    """Without an app either, `url` and `app` are unknown."""
    with world.behind():
        found = diagnosed(world, WEBHOOK_CALLBACK_URL="")
        assert "handshake" in {each["check"] for each in found}
    found = diagnosed(world, WEBHOOK_CALLBACK_URL="", WEBHOOK_APP_ID="")
    unknown = {each["check"]: each["remedy"] for each in found if each["state"] == "unknown"}
    assert "--url URL" in unknown["url"]
    assert "--app ID" in unknown["app"]


def test_a_decoded_query_string(world: World) -> None:
    """It is reported as unknown, because the handshake with this token succeeds."""
    with world.behind("haproxy", rules="http-request set-query %[query,url_dec]"):
        found = diagnosed(world)
    assert [each for each in found if each["state"] == "wrong"] == []
    (query,) = [each for each in found if each["check"] == "query string"]
    assert query["state"] == "unknown"
    assert "changes the query string" in query["detail"]


def test_an_override_of_one_number(world: World) -> None:
    """It may be intended: it is unknown, not wrong; so is the account's override if a number overrides it back."""
    world.state["accounts"][ACCOUNT]["numbers"][NUMBER]["overrides"][APP] = ELSEWHERE
    with world.behind():
        found = diagnosed(world)
        assert [each for each in found if each["state"] == "wrong"] == []
        (overrides,) = [each for each in found if each["check"] == "overrides"]
        assert (overrides["state"], ELSEWHERE in overrides["detail"]) == ("unknown", True)
        account = world.state["accounts"][ACCOUNT]
        account["apps"][APP], account["numbers"][NUMBER]["overrides"][APP] = ELSEWHERE, world.url
        assert [each for each in diagnosed(world) if each["state"] == "wrong"] == []


def test_an_override_that_cannot_be_checked(other: World) -> None:
    """Another callback URL is unknown, not wrong, if a real event arrived and no account was given."""
    other.register(ELSEWHERE)
    with other.behind():
        assert cause(diagnosed(other, here=True, WEBHOOK_ACCOUNTS=""))["check"] == "callback"
        other.server.notify(catalogue.notification("message text").replace(b'"102290129340398"', b'"7"'))
        found = diagnosed(other, here=True, WEBHOOK_ACCOUNTS="")
    (callback,) = [each for each in found if each["check"] == "callback"]
    assert callback["state"] == "unknown"
    assert "Overrides were not checked" in callback["detail"]


def test_a_rate_limit_of_the_graph_api(world: World) -> None:
    """It makes `app` unknown."""
    with world.behind():
        world.graph.faults.append({"error": {"code": 4, "message": "m"}, "times": 99})
        found = diagnosed(world)
    (app,) = [each for each in found if each["check"] == "app"]
    assert app["state"] == "unknown"


def test_one_of_several_addresses(world: World) -> None:
    """Each is checked for its certificate and its response, because Meta may use any of them."""
    addresses = ["127.0.0.1", "127.0.0.2"]
    both, caller = [(address, world.port) for address in addresses], Caller(world.url)
    stranger = {"certificate": trustme.CA().issue_cert("localhost"), "address": addresses[1]}
    with world.behind(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(world.trusted))
        with world.behind(**stranger):
            found = certificate.check("localhost", both)
            assert (found.state, found.detail.partition(":")[0]) == ("wrong", "At 127.0.0.2")
            assert certificate.check("localhost", both[:1]).state == "ok"
        with world.behind(address=addresses[1]):
            assert certificate.check("localhost", both).state == "ok"
            assert responder.differing_address(caller, addresses) is None
        with world.behind(address=addresses[1], rules="return 404;"):
            other = responder.differing_address(caller, addresses)
            assert other is not None
            assert "At 127.0.0.2, one of 2 addresses: 404" in other.detail


def test_it_has_metas_user_agents(world: World) -> None:
    """A firewall may let only Meta's through."""
    known = (
        'if ($http_user_agent !~ "^facebookplatform/1.0|^facebookexternalua$") { return 403; } client_max_body_size 4m;'
    )
    with world.behind(rules=known):
        assert [each for each in diagnosed(world) if each["state"] == "wrong"] == []


def test_one_of_several_instances(world: World) -> None:
    """It may have answered if they share an inbox: its credentials differ, or the proxy changes the request."""
    token, secret = world.server.token.encode(), world.server.secret.encode()
    direct = responder.DirectResult(verifies=True, accepts=True, is_alone=False)
    rules = "http-request del-header x-hub-signature-256\n    http-request set-query x=1"
    with world.behind("haproxy", rules=rules), pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(world.trusted))
        caller = Caller(world.url)
        (verified,) = handshake.check(caller, token, lambda: handshake.NOT_RECEIVED, direct)
        known = notifications.Known(direct, is_the_apps=True, refused=lambda: 5.0)
        (sent,) = notifications.check(caller, secret, known, [])
    for found in (verified, sent):
        assert found.state == "wrong"
        assert "either it has other credentials, or the proxy changes the request" in found.detail


def test_a_wrong_url_is_not_suggested_as_a_replacement(world: World) -> None:
    """If Meta would not call the URL, the remedy does not suggest to register it."""
    plain = f"http://localhost:{world.server.port}/webhooks"
    (callback,) = [each for each in diagnosed(world, WEBHOOK_CALLBACK_URL=plain) if each["check"] == "callback"]
    assert callback["state"] == "wrong"
    assert "--replace" not in callback["remedy"]


def test_stored_through_the_url_or_directly(world: World) -> None:
    """The inbox finding distinguishes test notifications sent through the URL from those sent directly."""
    found = diagnosed(world, here=True)  # there is no proxy
    assert next(each for each in found if each["check"] == "inbox")["detail"].endswith(
        "through the URL, none was accepted."
    )


def test_several_accounts(world: World) -> None:
    """Each has a finding that names it; a phone number id in place of an account id is recognized."""
    with world.behind():
        found = diagnosed(world, WEBHOOK_ACCOUNTS=f"{ACCOUNT},888,{NUMBER}")
    details = [each["detail"] for each in found if each["check"] == "accounts"]
    assert details[0].startswith("The app is subscribed to account")
    assert details[1].startswith("Account 888: there is no object with this id")
    assert details[2].startswith(f"Account {NUMBER}: this is the id of another kind of object")


def test_a_late_response(world: World) -> None:
    """A handshake that takes longer than Meta waits is wrong."""
    caller = Caller(f"http://127.0.0.1:{world.server.port}/webhooks")
    token = world.server.token.encode()
    (found,) = handshake.check(caller, token, lambda: None, None, limit=0.0)
    assert found.state == "wrong"
    assert "Meta waits at most six seconds" in found.detail
    assert [each.state for each in handshake.check(caller, token, lambda: None, None)] == ["ok"]


def test_in_a_pod_without_egress(world: World) -> None:
    """Checks that a network policy may prevent are unknown; the remedy is to run outside the cluster."""
    nowhere = f"https://localhost:{world.port}"
    found = diagnosed(world, here=True, KUBERNETES_SERVICE_HOST="10.0.0.1", WEBHOOK_GRAPH_URL=nowhere)
    assert [each for each in found if each["state"] == "wrong"] == []
    unknown = {each["check"]: each["remedy"] for each in found if each["state"] == "unknown"}
    assert {"connection", "not checked", "app"} <= set(unknown)
    assert "outside" in unknown["connection"]
    assert "outside" in unknown["app"]


def test_messages_that_are_not_stored(other: World) -> None:
    """WEBHOOK_FIELDS without messages is reported as unknown: it may be intended."""
    _store_calls_only(other)
    with other.behind():
        (inbox,) = [each for each in diagnosed(other, here=True) if each["check"] == "inbox"]
    assert inbox["state"] == "unknown"
    assert "WEBHOOK_FIELDS does not include messages" in inbox["detail"]


def test_signatures_that_were_refused(other: World) -> None:
    """They are reported as unknown until a real event is stored: they may have been Meta's."""
    assert other.server.notify(b"{}", secret="another").status == 401
    with other.behind():
        (counters,) = [each for each in diagnosed(other, here=True) if each["check"] == "counters"]
    assert counters["state"] == "unknown"
    assert "doctor --signature FILE" in counters["remedy"]


def test_a_url_in_capitals(world: World) -> None:
    """A registered URL that differs only in case of scheme and host is the same URL."""
    world.register(world.url.replace("https://localhost", "HTTPS://LocalHost"))
    world.state["accounts"][ACCOUNT]["apps"][APP] = world.url.replace("localhost", "LOCALHOST")
    with world.behind():
        assert [each for each in diagnosed(world) if each["state"] == "wrong"] == []


@pytest.mark.parametrize("of", ["account", "number"])
def test_an_override_that_sends_here(world: World, of: str) -> None:
    """It makes the set-up correct, whatever the app's own URL is."""
    world.register(ELSEWHERE)
    account = world.state["accounts"][ACCOUNT]
    (account["apps"] if of == "account" else account["numbers"][NUMBER]["overrides"])[APP] = world.url
    with world.behind():
        found = diagnosed(world)
    assert [each for each in found if each["state"] == "wrong"] == []
    assert "an override sends here" in next(each["detail"] for each in found if each["check"] == "callback")


def test_an_override_is_found_without_a_url(world: World) -> None:
    """The registered URL is compared with the override if no URL is given."""
    world.state["accounts"][ACCOUNT]["apps"][APP] = ELSEWHERE
    with world.behind():
        assert cause(diagnosed(world, WEBHOOK_CALLBACK_URL=""))["check"] == "overrides"


@pytest.mark.parametrize(
    "rules",
    [
        "proxy_intercept_errors on; error_page 404 /sorry; location = /sorry { return 404 sorry; }",
        "proxy_intercept_errors on; error_page 404 =200 /sorry; location = /sorry { return 200 sorry; }",
    ],
)
def test_a_proxy_with_its_own_error_pages(world: World, rules: str) -> None:
    """Replacing the service's refusals is not wrong: Meta's handshake succeeds."""
    with world.behind(rules=f"{rules} client_max_body_size 4m;"):
        found = diagnosed(world)
    assert [each for each in found if each["state"] == "wrong"] == []
    assert "handshake" in {each["check"] for each in found}


@pytest.mark.parametrize("proxy", ["nginx", "haproxy", "haproxy, TLS 1.2"])
def test_a_proxy_that_requires_metas_certificate(world: World, proxy: str) -> None:
    """It is unknown, not wrong, that the doctor gets no further."""
    if proxy == "nginx":
        front = world.behind(rules=f"ssl_verify_client on; ssl_client_certificate {world.trusted};")
    else:
        older = " ssl-max-ver TLSv1.2" if "1.2" in proxy else ""
        front = world.behind("haproxy", rules="", tls=f"ca-file {world.trusted} verify required{older}")
    with front:
        found = diagnosed(world)
    assert [each for each in found if each["state"] == "wrong"] == []
    (answer,) = [each for each in found if each["check"] == ("certificate" if "1.2" in proxy else "answer")]
    assert answer["state"] == "unknown"
    assert "client certificate" in answer["detail"]


def test_a_redirect_does_not_reveal_the_token(world: World) -> None:
    """A login page may repeat the whole query in its Location header."""
    rules = "if ($args ~ hub) { return 302 https://login.example.com/?to=$request_uri; } client_max_body_size 4m;"
    with world.behind(rules=rules):
        named = cause(diagnosed(world))  # which searches the output for secrets
    assert "redirects to https://login.example.com/ " in named["detail"]
    for path in ("$uri&$args", "go#$args", "$arg_hub.verify_token", "$args"):
        rules = f"if ($args ~ hub) {{ return 302 https://login.example.com/{path}; }} client_max_body_size 4m;"
        with world.behind(rules=rules):
            assert "redirects to" in cause(diagnosed(world))["detail"]


def test_several_secrets(other: World) -> None:
    """The app's secret may be another line than the first."""
    other.write("app-secret", "0123456789abcdef" * 2 + "\n" + other.server.secret + "\n")
    with other.behind():
        until(lambda: other.server.notify(b"{}", secret="0123456789abcdef" * 2).status == 200, "not seen")
        found = diagnosed(other)
    assert [each for each in found if each["state"] == "wrong"] == []
    assert "Line 2 of the app secrets matches" in next(each["detail"] for each in found if each["check"] == "app")


def test_too_many_secrets(world: World) -> None:
    """They are wrong, although the first one alone would be accepted."""
    environ = _elsewhere(app_secret="\n".join(f"{number:032x}" for number in range(5)))(world)
    with world.behind():
        named = cause(diagnosed(world, **environ))
    assert "more than 4 values" in named["detail"]


@pytest.mark.parametrize(
    "token", ["example-corp-7f3a9c2e51d8", "my-app-hook", "your_bakery_99", "correct horse battery"]
)
def test_a_real_token_is_not_a_placeholder(token: str) -> None:
    """Tokens with words of examples in them are accepted."""
    accepted = Credentials((token.encode(),), (b"0123456789abcdef0123456789abcdef",))
    assert {each.state for each in credentials.check(accepted, (), "")} <= {"ok", "unknown"}


class Hostile(BaseHTTPRequestHandler):
    """Sends an endless head or body, slowly."""

    def do_GET(self) -> None:
        """Send bytes until the client closes."""
        with suppress(OSError):
            self.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"" if self.path.startswith("/head") else b"\r\n"))
            while True:
                self.wfile.write(b"X")
                time.sleep(0.05)

    def log_message(self, *_arguments: object) -> None:
        """Log nothing."""


@pytest.mark.parametrize("where", ["head", "body"])
def test_an_endless_response(where: str) -> None:
    """It is abandoned at the deadline."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    started = time.monotonic()
    response = Caller(f"http://127.0.0.1:{server.server_address[1]}/{where}", deadline=0.5).get()
    assert (response.status, response.error) == (0, "the request timed out")
    assert time.monotonic() - started < 3
    server.shutdown()


class Broken(NamedTuple):
    """A set-up with one fault: how it is made, and the check, detail and remedy that the doctor must name first."""

    check: str
    detail: str
    remedy: str
    front: dict[str, Any] | Callable[[World], AbstractContextManager[Any]] = {}  # noqa: RUF012  never changed
    do: Callable[[World], object] = lambda _: None
    environ: Callable[[World], dict[str, str]] = lambda _: {}
    here: bool = False


def _subscription(world: World) -> dict[str, Any]:
    return world.registered()


def _path(world: World) -> dict[str, str]:
    return {"WEBHOOK_CALLBACK_URL": f"https://localhost:{world.port}/"}


def _expired(world: World) -> AbstractContextManager[Any]:
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    return world.behind(certificate=world.authority.issue_cert("localhost", not_after=past))


def _without_intermediate(world: World) -> AbstractContextManager[Any]:
    return world.behind(certificate=world.authority.create_child_ca().issue_cert("localhost"), chain=False)


def _self_signed() -> trustme.LeafCert:
    """Make a self-signed certificate, as `openssl req -x509` does."""
    key, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]),
    )
    made = x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key(), serial_number=1)
    made = made.not_valid_before(dt.datetime(2020, 1, 1)).not_valid_after(dt.datetime(2099, 1, 1))  # noqa: DTZ001
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return trustme.LeafCert(private, made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM), [])


@contextmanager
def _without_tls(world: World) -> Iterator[None]:
    """Serve something without TLS at the port."""
    with socket.create_server(("127.0.0.1", world.port)) as listener:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    client.close()

        threading.Thread(target=answer, daemon=True).start()
        yield
        listener.shutdown(socket.SHUT_RDWR)


def _change(**files: str) -> Callable[[World], None]:
    def write(world: World) -> None:
        for name, value in files.items():
            world.write(name.replace("_", "-"), value)

    return write


def _elsewhere(**files: str) -> Callable[[World], dict[str, str]]:
    """Return an environment with credentials for the doctor that differ from the service's."""

    def environ(world: World) -> dict[str, str]:
        directory = Path(tempfile.mkdtemp(dir=world.directory))
        for file in world.server.credentials.iterdir():
            (directory / file.name).write_bytes(file.read_bytes())
        for name, value in files.items():
            (directory / name.replace("_", "-")).write_text(value)
        return {"WEBHOOK_CREDENTIALS_DIR": str(directory)}

    return environ


def _another_app(world: World) -> None:
    """Change the app's secret at Meta, so that it differs from the one of the files and the service."""
    world.state["apps"][APP]["secret"] = "0123456789abcdef" * 2


def _stop(world: World) -> None:
    world.server.stop()


def _fault(**error: Any) -> Callable[[World], None]:
    return lambda world: world.graph.faults.append({"error": {"message": "m", **error}, "times": 99})


def _break_inbox(world: World) -> None:
    """Replace the inbox by a file that can't be opened."""
    world.server.stop()
    world.server.inbox.write_bytes(b"not a database" * 1000)
    world.server.start()


def _store_calls_only(world: World) -> None:
    world.server.stop()
    world.server.environ["WEBHOOK_FIELDS"] = "calls"
    world.register(fields="calls")
    world.server.start()
    world.server.wait_until_ready()


@contextmanager
def _another_instance(world: World) -> Iterator[None]:
    """Point the URL to another release, with the same verify token and another app secret."""
    directory = Path(tempfile.mkdtemp(dir=world.directory))
    with Server(directory) as other, world.behind(upstream=other.port):
        (other.credentials / "verify-token").write_text(world.server.token)
        until(lambda: other.handshake(token=world.server.token).status == 200, "the token was not read")
        yield


@contextmanager
def _two_releases(world: World) -> Iterator[None]:
    """Put a load balancer in front that alternates between two releases with different credentials."""
    directory = Path(tempfile.mkdtemp(dir=world.directory))
    with Server(directory) as other:
        others = f"balance roundrobin\n    server two 127.0.0.1:{other.port}"
        with world.behind("haproxy", rules="", more=others):
            yield


NOTHING = nullcontext
BROKEN = {
    "a setting is misspelt": Broken(
        "configuration",
        "did you mean WEBHOOK_RETENTION",
        "Correct it in the environment",
        environ=lambda _: {"WEBHOOK_RETENSION": "8d"},
    ),
    "a field is misspelt": Broken(
        "configuration",
        "did you mean 'messages'",
        "Correct it in the environment",
        environ=lambda _: {"WEBHOOK_FIELDS": "mesages"},
    ),
    "no credentials": Broken(
        "credentials",
        "can't be read",
        "Put them into",
        environ=lambda world: {"WEBHOOK_CREDENTIALS_DIR": str(world.directory / "nowhere")},
    ),
    "an example's secret": Broken(
        "credentials",
        "app-secret, line 1, is a placeholder",
        "App settings > Basic",
        environ=_elsewhere(app_secret="what-meta-shows-under-app-settings-basic"),
    ),
    "a secret that is too short": Broken(
        "credentials",
        "app-secret, line 1, is not an app secret",
        "Put them into",
        environ=_elsewhere(app_secret="FROM-META"),
    ),
    "a secret in UTF-16": Broken(
        "credentials",
        "app-secret is not UTF-8 text but UTF-16",
        "Put them into",
        environ=_elsewhere(app_secret="\0".join("0123456789abcdef0123456789abcdef")),
    ),
    "an example's token": Broken(
        "credentials",
        "verify-token, line 1, is a placeholder",
        "openssl",
        environ=_elsewhere(verify_token="<your token>"),
    ),
    "a secret encoded twice": Broken(
        "credentials",
        "is a base64-encoded app secret",
        "32 hexadecimal digits",
        environ=_elsewhere(app_secret=base64.b64encode(b"0123456789abcdef" * 2).decode()),
    ),
    "a secret in quotes": Broken(
        "credentials",
        "is in quotes",
        "32 hexadecimal digits",
        environ=_elsewhere(app_secret='"0123456789abcdef0123456789abcdef"'),
    ),
    "a name before the secret": Broken(
        "credentials",
        "starts with a name",
        "32 hexadecimal digits",
        environ=_elsewhere(app_secret="APP_SECRET=0123456789abcdef"),
    ),
    "the same value in both": Broken(
        "credentials",
        "contain the same value",
        "32 hexadecimal digits",
        environ=_elsewhere(app_secret="0123456789abcdef" * 2, verify_token="0123456789abcdef" * 2),
    ),
    "http": Broken(
        "url",
        "Meta calls https only",
        "terminates TLS",
        environ=lambda world: {"WEBHOOK_CALLBACK_URL": f"http://localhost:{world.server.port}/webhooks"},
    ),
    "an address that is not public": Broken(
        "url",
        "it is not a public address",
        "public DNS name",
        environ=lambda _: {"WEBHOOK_CALLBACK_URL": "https://10.1.2.3/webhooks"},
        front=NOTHING,
    ),
    "no such name": Broken(
        "name",
        "could not be resolved",
        "DNS record",
        NOTHING,
        environ=lambda _: {"WEBHOOK_CALLBACK_URL": "https://wa.invalid/webhooks"},
    ),
    "nothing listens on the port": Broken("connection", "Connection refused", "load balancer", NOTHING),
    "no TLS": Broken("certificate", "TLS handshake failed", "serves TLS", _without_tls),
    "a self-signed certificate": Broken(
        "certificate",
        "is self-signed",
        "public authorities",
        lambda world: world.behind(certificate=_self_signed()),
    ),
    "a certificate of an unknown authority": Broken(
        "certificate",
        "its authority is not trusted",
        "public authorities",
        lambda world: world.behind(certificate=trustme.CA().issue_cert("localhost")),
    ),
    "an expired certificate": Broken("certificate", "has expired", "Renew the certificate", _expired),
    "a certificate for another name": Broken(
        "certificate",
        "is for wa.example.com, not for localhost",
        "for the name in the callback URL",
        lambda world: world.behind(certificate=world.authority.issue_cert("wa.example.com")),
    ),
    "no intermediate certificate": Broken(
        "certificate", "intermediate certificates are not sent", "fullchain", _without_intermediate
    ),
    "a redirect": Broken(
        "answer",
        "redirects to https://www.example.com/webhooks",
        "Register the URL that it redirects to",
        {"rules": "return 301 https://www.example.com/webhooks;"},
    ),
    "a login": Broken("answer", "answers 401", "Allow everybody to reach this path", {"rules": "return 401;"}),
    "a firewall": Broken("answer", "answers 403", "Allow everybody to reach this path", {"rules": "return 403;"}),
    "the path is missing": Broken("answer", "not at this path", "with that path", environ=_path),
    "no rule for the path": Broken("answer", "404", "host and path", {"rules": "location /webhooks { return 404; }"}),
    "something else answers": Broken(
        "answer", "Something other than this service answers", "host and path", {"rules": 'return 200 "welcome";'}
    ),
    "the service is down": Broken("answer", "A proxy answers 502", "running and ready", {"upstream": 9}),
    "the service is down, haproxy": Broken(
        "answer",
        "A proxy answers 503",
        "running and ready",
        lambda world: world.behind("haproxy", rules="", upstream=9),
    ),
    "another verify token": Broken(
        "handshake",
        "either the service does not accept this verify token, or a proxy",
        "line 1",
        environ=_elsewhere(verify_token="another"),
    ),
    "the query is dropped": Broken(
        "handshake",
        "missing_parameter",
        "query string on unchanged",
        {"rules": "client_max_body_size 4m; rewrite ^ /webhooks? break;"},
        here=True,
    ),
    "the query is dropped, haproxy": Broken(
        "handshake",
        "missing_parameter",
        "query string on unchanged",
        lambda world: world.behind("haproxy", rules="http-request set-query x=1"),
        here=True,
    ),
    "the signature is dropped": Broken(
        "notification",
        "drops the X-Hub-Signature-256 header",
        "X-Hub-Signature-256",
        {"rules": 'client_max_body_size 4m; proxy_set_header X-Hub-Signature-256 "";'},
        here=True,
    ),
    "the signature is dropped, haproxy": Broken(
        "notification",
        "drops the X-Hub-Signature-256 header",
        "X-Hub-Signature-256",
        lambda world: world.behind("haproxy", rules="http-request del-header x-hub-signature-256"),
        here=True,
    ),
    "the signature is dropped, seen from outside": Broken(
        "notification",
        "although the secret here is the app's: either the service does not accept it, or the proxy",
        "header and the body on unchanged",
        {"rules": 'client_max_body_size 4m; proxy_set_header X-Hub-Signature-256 "";'},
    ),
    "bodies are changed": Broken(
        "notification",
        "changes the body",
        "body on unchanged",
        {"rules": 'client_max_body_size 4m; proxy_set_body "$request_body ";'},
        here=True,
    ),
    "only GET gets through": Broken(
        "notification",
        "Something in front of the service answers 403",
        "Allow everybody to reach this path",
        {"rules": "if ($request_method != GET) { return 403; }"},
    ),
    "another secret, seen from outside": Broken(
        "notification",
        "either the service does not accept this app secret, or the proxy changes",
        "App settings > Basic",
        environ=_elsewhere(app_secret="fedcba9876543210" * 2),
    ),
    "a limit of 1 MB": Broken(
        "body limit", "with 413 by something in front of the service (nginx", "client_max_body_size 4m", {"rules": ""}
    ),
    "a limit of 1 MB, haproxy": Broken(
        "body limit",
        "by something in front of the service",  # with 413, or by closing the connection
        "body limit to 4 MB",
        lambda world: world.behind(
            "haproxy", rules="http-request return status 413 if { req.hdr_val(content-length) gt 1048576 }"
        ),
    ),
    "the secret of another app": Broken(
        "app", "The app secret is not this app's", "Copy the app secret again", do=_another_app
    ),
    "no such app": Broken("app", "no app with this id", "Check the id", environ=lambda _: {"WEBHOOK_APP_ID": "1"}),
    "the app is in development mode": Broken(
        "app live",
        "in development mode",
        "Privacy policy URL",
        do=lambda world: world.state["apps"][APP].pop("privacy_policy_url"),
    ),
    "nothing is registered": Broken(
        "callback",
        "no callback URL",
        "whatsapp-webhook subscribe https://",
        do=lambda world: world.state["apps"][APP]["subscriptions"].clear(),
    ),
    "another URL is registered": Broken("callback", ELSEWHERE, "--replace", do=lambda world: world.register(ELSEWHERE)),
    "Meta has disabled the subscription": Broken(
        "callback",
        "disabled the app's subscription",
        "--force",
        do=lambda world: _subscription(world).update(active=False),
    ),
    "not subscribed to messages": Broken(
        "fields",
        "not subscribed to the webhook fields messages",
        "--fields calls,messages",
        do=lambda world: world.register(fields="calls"),
    ),
    "not subscribed to a field that is stored": Broken(
        "fields",
        "not subscribed to the webhook fields calls",
        "--fields calls,messages",
        environ=lambda _: {"WEBHOOK_FIELDS": "messages,calls"},
    ),
    "the account is not subscribed": Broken(
        "accounts",
        "not subscribed to account",
        "--account",
        do=lambda world: world.state["accounts"][ACCOUNT]["apps"].clear(),
    ),
    "the access token has expired": Broken(
        "accounts",
        "has expired",
        "Generate a new one",
        do=lambda world: world.state["tokens"][world.access_token].update(subcode=463),
    ),
    "the access token may not see the account": Broken(
        "accounts",
        "lacks a permission",
        "full control",
        do=lambda world: world.state["tokens"][world.access_token].update({"may not": 1}),
    ),
    "an override of the account": Broken(
        "overrides",
        ELSEWHERE,
        "--drop-overrides",
        do=lambda world: world.state["accounts"][ACCOUNT]["apps"].update({APP: ELSEWHERE}),
    ),
    "an override of a number": Broken(
        "overrides",
        f"number {NUMBER}",
        "--drop-overrides",
        do=lambda world: [
            number["overrides"].update({APP: ELSEWHERE})
            for number in world.state["accounts"][ACCOUNT]["numbers"].values()
        ],
    ),
    "something else answers in its place": Broken(
        "notification",
        "answers 200 in its place",
        "pass POST requests",
        {"rules": 'if ($request_method = POST) { return 200 "ok"; }'},
    ),
    "something else answers in its place, with an empty body": Broken(
        "notification",
        "answers 200 in its place",
        "pass POST requests",
        {"rules": "if ($request_method = POST) { return 200; }"},
    ),
    "refusals are made successes": Broken(
        "notification",
        "answers 200 in its place",
        "pass POST requests",
        lambda world: world.behind(
            "haproxy",
            rules="http-request del-header x-hub-signature-256",
            more="http-response set-status 200 if { method POST }",
        ),
    ),
    "refusals of large bodies are made successes": Broken(
        "body limit",
        "answers 200 in its place",
        "pass POST requests",
        {"rules": "error_page 413 =200 /ok; location = /ok { return 200 ok; }"},
    ),
    "a limit on requests": Broken(
        "handshake",
        "The service answered before, but now something in front of it answers 503",
        "exempt the path",
        {
            "rules": "limit_req zone=few; client_max_body_size 4m;",
            "outside": "limit_req_zone $server_port zone=few:1m rate=1r/m;",
        },
    ),
    "special characters are refused": Broken(
        "notification",
        "A plain notification is accepted, one with special characters is not",
        "Allow everybody to reach this path",
        lambda world: world.behind(
            "haproxy",
            rules="option http-buffer-request\n    http-request deny if { req.body -m sub <script }",
        ),
    ),
    "another instance, with another secret": Broken(
        "notification",
        "Another instance answered",
        "another release",
        _another_instance,
        here=True,
    ),
    "two releases in turn": Broken(
        "handshake",
        "several instances answer at this URL",
        "to two releases?",
        _two_releases,
    ),
    "what is registered is no URL": Broken(
        "url",
        "is no URL that Meta can call",
        "Register the right URL",
        NOTHING,
        do=lambda world: world.register("https://h:99999/"),
        environ=lambda _: {"WEBHOOK_CALLBACK_URL": ""},
    ),
}
BREAKING = {
    "the service is not running": Broken(
        "service", "No response from the admin listener", "whatsapp-webhook check", NOTHING, do=_stop, here=True
    ),
    "the inbox can't be opened": Broken("service", "Not ready: inbox:", "runbook", do=_break_inbox, here=True),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_cause_is_named_first(world: World, name: str) -> None:
    """The first wrong finding has the expected check, detail and remedy."""
    _assert_cause(world, BROKEN[name])


@pytest.mark.parametrize("name", BREAKING)
def test_the_cause_is_named_first_of_a_broken_service(other: World, name: str) -> None:
    """As above, for set-ups that break the service itself."""
    _assert_cause(other, BREAKING[name])


def _assert_cause(world: World, broken: Broken) -> None:
    broken.do(world)
    front = broken.front
    made = front() if front is NOTHING else front(world) if callable(front) else world.behind(**front)
    with made:
        found = diagnosed(world, here=broken.here, **broken.environ(world))
    named = cause(found)
    assert named["check"] == broken.check, found
    assert broken.detail in named["detail"]
    assert broken.remedy in named["remedy"]
    assert named["state"] == "wrong"
