"""`doctor` on broken set-ups: each has its cause named first, with the remedy; and on one that is whole."""

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
# What is never known here: the name of these tests is this machine's own, and the Graph API does not tell it.
UNKNOWN = {"name", "app live"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("world")) as made:
        yield made


@pytest.fixture
def world(shared: World) -> World:
    """A set-up in which everything is right, but that nothing stands before the service yet."""
    shared.reset()
    shared.register()
    return shared


@pytest.fixture
def other(tmp_path: Path) -> Iterator[World]:
    """One of its own, whose service may be changed."""
    with World(tmp_path) as made:
        made.register()
        yield made


def diagnosed(world: World, *, here: bool = False, **environ: str) -> list[dict[str, str]]:
    """Run the doctor from outside, or in the pod; nothing secret may be in what it says."""
    done = world.run("doctor", "--json", here=here, **environ)
    assert done.returncode in (0, 1), done.stderr
    for secret in (world.server.secret, world.access_token, world.server.token):
        assert secret not in done.stdout + done.stderr
    assert (done.returncode == 0) is json.loads(done.stdout)["ok"]
    return findings(done.stdout)


def cause(found: list[dict[str, str]]) -> dict[str, str]:
    """Give the first that is wrong, else the first that is unknown and need not be."""
    wrong = [each for each in found if each["state"] == "wrong"]
    return (wrong or [each for each in found if each["state"] == "unknown" and each["check"] != "name"])[0]


def test_a_verify_token_is_not_sent_in_the_clear(world: World) -> None:
    """Without TLS nothing is sent, unless it stays on this machine."""
    port, handshakes = world.server.port, "whatsapp_webhook_handshakes_total"
    before = sum(world.server.metric(handshakes, outcome=outcome) for outcome in ("verified", "wrong_token"))
    done = world.run("doctor", "--json", "--url", f"http://0.0.0.0:{port}/webhooks")
    (stop,) = [each for each in findings(done.stdout) if each["check"] == "beyond"]
    assert "without TLS" in stop["detail"]
    assert "https" in stop["remedy"]
    after = sum(world.server.metric(handshakes, outcome=outcome) for outcome in ("verified", "wrong_token"))
    assert after == before
    loopback = world.run("doctor", "--json", "--url", f"http://127.0.0.1:{port}/webhooks")
    assert "beyond" not in [each["check"] for each in findings(loopback.stdout)]


@pytest.mark.parametrize("proxy", ["nginx", "haproxy"])
def test_a_set_up_that_is_whole(world: World, proxy: str) -> None:
    """Nothing is wrong, from outside and from within; what can't be seen is unknown, with the way to see it."""
    rules = {} if proxy == "nginx" else {"rules": ""}
    with world.behind(proxy, **rules):
        outside, within = diagnosed(world), diagnosed(world, here=True)
    for found, unseen in ((outside, {"service", "inbox"}), (within, set())):
        assert [each for each in found if each["state"] == "wrong"] == []
        assert {each["check"] for each in found if each["state"] == "unknown"} == UNKNOWN | unseen
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


def test_what_it_leaves_behind(world: World) -> None:
    """Little, and all of it marked as a test."""
    with world.behind():
        before = len(world.server.kept())
        diagnosed(world, here=True)
    kept = world.server.kept()
    assert 1 < len(kept) - before < 6
    assert all(event.test for event in kept)
    assert sum(len(event.data) for event in kept) < 1000 * len(kept)


def test_in_words(world: World) -> None:
    """A line a look, the remedy below it, and at the end where to begin."""
    world.state["accounts"][ACCOUNT]["apps"].clear()
    with world.behind():
        done = world.run("doctor")
    assert done.returncode == 1
    assert "ok       handshake" in done.stdout
    assert f"-> whatsapp-webhook subscribe {world.url} --app {APP} --account {ACCOUNT}" in done.stdout
    assert "Begin here: accounts: The app is not subscribed" in done.stdout


@pytest.mark.parametrize("of", ["apps", "accounts"])
def test_a_remedy_can_be_pasted(world: World, of: str) -> None:
    """It says where the credentials are, where the doctor was told; after it all is well."""
    if of == "apps":
        world.state["apps"][APP]["subscriptions"].clear()
    world.state["accounts"][ACCOUNT]["apps"].clear()
    told = {"WEBHOOK_CREDENTIALS_DIR": "/nowhere"}
    asked = ("doctor", "--json", "--credentials", str(world.server.credentials))
    with world.behind():
        remedy = cause(findings(world.run(*asked, **told).stdout))["remedy"]
        command, *arguments = shlex.split(remedy)
        assert command == "whatsapp-webhook"
        done = world.run(*arguments, "--yes", **told)
        assert done.returncode == 0, done.stderr
        assert world.run(*asked, **told).returncode == 0


def test_a_real_event_tells_that_the_app_is_live(other: World) -> None:
    """As no test does, nor what `simulate` sends."""
    other.server.notify(catalogue.notification("message text"))
    with other.behind():
        assert {"app live"} < {each["check"] for each in diagnosed(other, here=True) if each["state"] == "unknown"}
    other.server.notify(catalogue.notification("message text").replace(b'"102290129340398"', b'"7"'))
    with other.behind():
        found = diagnosed(other, here=True)
    (live,) = [each for each in found if each["check"] == "app live"]
    assert live["state"] == "ok"


def test_without_a_url_it_takes_the_registered_one(world: World) -> None:
    """Where Meta tells it; else the way from outside is unknown."""
    with world.behind():
        found = diagnosed(world, WEBHOOK_CALLBACK_URL="")
        assert "handshake" in {each["check"] for each in found}
    found = diagnosed(world, WEBHOOK_CALLBACK_URL="", WEBHOOK_APP_ID="")
    unknown = {each["check"]: each["remedy"] for each in found if each["state"] == "unknown"}
    assert "--url URL" in unknown["url"]
    assert "--app ID" in unknown["app"]


def test_a_query_that_is_changed(world: World) -> None:
    """Is told, though what Meta sends with this token gets through."""
    with world.behind("haproxy", rules="http-request set-query %[query,url_dec]"):
        found = diagnosed(world)
    assert [each for each in found if each["state"] == "wrong"] == []
    (query,) = [each for each in found if each["check"] == "query string"]
    assert query["state"] == "unknown"
    assert "changes the query string" in query["detail"]


def test_an_override_that_may_be_meant(world: World) -> None:
    """One of an account's numbers is sent elsewhere, to try something out: nothing is wrong, and it is told."""
    world.state["accounts"][ACCOUNT]["numbers"][NUMBER]["overrides"][APP] = ELSEWHERE
    with world.behind():
        found = diagnosed(world)
        assert [each for each in found if each["state"] == "wrong"] == []
        (told,) = [each for each in found if each["check"] == "overrides"]
        assert (told["state"], ELSEWHERE in told["detail"]) == ("unknown", True)
        account = world.state["accounts"][ACCOUNT]
        account["apps"][APP], account["numbers"][NUMBER]["overrides"][APP] = ELSEWHERE, world.url
        assert [each for each in diagnosed(world) if each["state"] == "wrong"] == []


def test_an_override_that_cannot_be_seen(other: World) -> None:
    """Explains how something real came, though the app's own URL is another one."""
    other.register(ELSEWHERE)
    with other.behind():
        assert cause(diagnosed(other, here=True, WEBHOOK_ACCOUNTS=""))["check"] == "callback"
        other.server.notify(catalogue.notification("message text").replace(b'"102290129340398"', b'"7"'))
        found = diagnosed(other, here=True, WEBHOOK_ACCOUNTS="")
    (callback,) = [each for each in found if each["check"] == "callback"]
    assert callback["state"] == "unknown"
    assert "Whether an override sends here was not seen" in callback["detail"]


def test_too_many_calls_at_meta(world: World) -> None:
    """Leave what is there unknown."""
    with world.behind():
        world.graph.faults.append({"error": {"code": 4, "message": "m"}, "times": 99})
        found = diagnosed(world)
    (app,) = [each for each in found if each["check"] == "app"]
    assert app["state"] == "unknown"


def test_one_of_several_addresses(world: World) -> None:
    """May have another certificate, or lead elsewhere: Meta takes any of them."""
    addresses = ["127.0.0.1", "127.0.0.2"]
    both, caller = [(address, world.port) for address in addresses], Caller(world.url)
    stranger = {"certificate": trustme.CA().issue_cert("localhost"), "address": addresses[1]}
    with world.behind(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(world.trusted))
        with world.behind(**stranger):
            found = certificate.look("localhost", both)
            assert (found.state, found.detail.partition(":")[0]) == ("wrong", "At 127.0.0.2")
            assert certificate.look("localhost", both[:1]).state == "ok"
        with world.behind(address=addresses[1]):
            assert certificate.look("localhost", both).state == "ok"
            assert responder.otherwise(caller, addresses) is None
        with world.behind(address=addresses[1], rules="return 404;"):
            other = responder.otherwise(caller, addresses)
            assert other is not None
            assert "At 127.0.0.2, one of 2 addresses: 404" in other.detail


def test_it_calls_as_meta_does(world: World) -> None:
    """Some let nobody else through."""
    known = (
        'if ($http_user_agent !~ "^facebookplatform/1.0|^facebookexternalua$") { return 403; } client_max_body_size 4m;'
    )
    with world.behind(rules=known):
        assert [each for each in diagnosed(world) if each["state"] == "wrong"] == []


def test_one_of_several_instances(world: World) -> None:
    """May have answered, where they share an inbox: then it need not have other credentials."""
    token, secret = world.server.token.encode(), world.server.secret.encode()
    direct = responder.Direct(greets=True, takes=True, is_alone=False)
    rules = "http-request del-header x-hub-signature-256\n    http-request set-query x=1"
    with world.behind("haproxy", rules=rules), pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(world.trusted))
        caller = Caller(world.url)
        (greeted,) = handshake.look(caller, token, lambda: handshake.NOT_HERE, direct)
        sides = notifications.Sides(direct, is_the_apps=True, refused=lambda: 5.0)
        (sent,) = notifications.send(caller, secret, sides, [])
    for found in (greeted, sent):
        assert found.state == "wrong"
        assert "it has other credentials, or the proxy changes what is asked" in found.detail


def test_a_url_that_is_wrong_replaces_none(world: World) -> None:
    """Though another one is registered: nobody is told to put it in that one's place."""
    plain = f"http://localhost:{world.server.port}/webhooks"
    (callback,) = [each for each in diagnosed(world, WEBHOOK_CALLBACK_URL=plain) if each["check"] == "callback"]
    assert callback["state"] == "wrong"
    assert "--replace" not in callback["remedy"]


def test_what_came_by_the_url(world: World) -> None:
    """Is told apart from what was sent directly."""
    found = diagnosed(world, here=True)  # nobody stands before the service
    assert next(each for each in found if each["check"] == "inbox")["detail"].endswith("by the URL none was taken.")


def test_which_account_meta_refuses(world: World) -> None:
    """Is said, where several are named; and a number's id in its place is told as that."""
    with world.behind():
        found = diagnosed(world, WEBHOOK_ACCOUNTS=f"{ACCOUNT},888,{NUMBER}")
    told = [each["detail"] for each in found if each["check"] == "accounts"]
    assert told[0].startswith("Subscribed to account")
    assert told[1].startswith("Account 888: there is nothing with this id")
    assert told[2].startswith(f"Account {NUMBER}: this id is not of what it was given as")


def test_an_answer_that_comes_too_late(world: World) -> None:
    """Is no handshake to Meta, whatever it says."""
    caller = Caller(f"http://127.0.0.1:{world.server.port}/webhooks")
    token = world.server.token.encode()
    (found,) = handshake.look(caller, token, lambda: None, None, late=0.0)
    assert found.state == "wrong"
    assert "Meta waits for six" in found.detail
    assert [each.state for each in handshake.look(caller, token, lambda: None, None)] == ["ok"]


def test_in_a_pod_that_may_not_go_out(world: World) -> None:
    """What its network policy may forbid is unknown, with how it can be seen; nothing is wrong."""
    nowhere = f"https://localhost:{world.port}"
    found = diagnosed(world, here=True, KUBERNETES_SERVICE_HOST="10.0.0.1", WEBHOOK_GRAPH_URL=nowhere)
    assert [each for each in found if each["state"] == "wrong"] == []
    unknown = {each["check"]: each["remedy"] for each in found if each["state"] == "unknown"}
    assert {"connection", "beyond", "app"} <= set(unknown)
    assert "outside" in unknown["connection"]
    assert "outside" in unknown["app"]


def test_messages_that_are_not_kept(other: World) -> None:
    """Are told, since that may not be meant."""
    _keep_calls_only(other)
    with other.behind():
        (inbox,) = [each for each in diagnosed(other, here=True) if each["check"] == "inbox"]
    assert inbox["state"] == "unknown"
    assert "WEBHOOK_FIELDS does not name messages" in inbox["detail"]


def test_signatures_that_were_refused(other: World) -> None:
    """May have been Meta's, which nobody here can tell: until something real is in the inbox, they are told."""
    assert other.server.notify(b"{}", secret="another").status == 401
    with other.behind():
        (so_far,) = [each for each in diagnosed(other, here=True) if each["check"] == "so far"]
    assert so_far["state"] == "unknown"
    assert "`doctor --signature FILE`" in so_far["remedy"]


def test_a_url_that_is_written_otherwise(world: World) -> None:
    """Is the same: in capitals, with a slash for nothing."""
    world.register(world.url.replace("https://localhost", "HTTPS://LocalHost"))
    world.state["accounts"][ACCOUNT]["apps"][APP] = world.url.replace("localhost", "LOCALHOST")
    with world.behind():
        assert [each for each in diagnosed(world) if each["state"] == "wrong"] == []


@pytest.mark.parametrize("of", ["account", "number"])
def test_what_an_override_sends_here(world: World, of: str) -> None:
    """Is a set-up that is whole, whatever the app's own URL is."""
    world.register(ELSEWHERE)
    account = world.state["accounts"][ACCOUNT]
    (account["apps"] if of == "account" else account["numbers"][NUMBER]["overrides"])[APP] = world.url
    with world.behind():
        found = diagnosed(world)
    assert [each for each in found if each["state"] == "wrong"] == []
    assert "an override sends here" in next(each["detail"] for each in found if each["check"] == "callback")


def test_an_override_is_seen_without_a_url(world: World) -> None:
    """As it is with one: the registered URL stands for it."""
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
def test_a_proxy_with_pages_of_its_own(world: World, rules: str) -> None:
    """In the place of refusals is no fault: Meta's handshake gets through."""
    with world.behind(rules=f"{rules} client_max_body_size 4m;"):
        found = diagnosed(world)
    assert [each for each in found if each["state"] == "wrong"] == []
    assert "handshake" in {each["check"] for each in found}


@pytest.mark.parametrize("proxy", ["nginx", "haproxy", "haproxy, TLS 1.2"])
def test_a_proxy_that_wants_metas_certificate(world: World, proxy: str) -> None:
    """Lets nobody else through, so that the rest is not seen."""
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


def test_the_token_is_not_in_what_a_redirect_says(world: World) -> None:
    """A login passes on where somebody wanted to go, with all of the query."""
    rules = "if ($args ~ hub) { return 302 https://login.example.com/?to=$request_uri; } client_max_body_size 4m;"
    with world.behind(rules=rules):
        named = cause(diagnosed(world))  # which looks for secrets in all that is said
    assert "redirects to https://login.example.com/ " in named["detail"]
    for path in ("$uri&$args", "go#$args", "$arg_hub.verify_token", "$args"):
        rules = f"if ($args ~ hub) {{ return 302 https://login.example.com/{path}; }} client_max_body_size 4m;"
        with world.behind(rules=rules):
            assert "redirects to" in cause(diagnosed(world))["detail"]


def test_several_secrets(other: World) -> None:
    """Of which the app's is not the first."""
    other.write("app-secret", "0123456789abcdef" * 2 + "\n" + other.server.secret + "\n")
    with other.behind():
        until(lambda: other.server.notify(b"{}", secret="0123456789abcdef" * 2).status == 200, "not seen")
        found = diagnosed(other)
    assert [each for each in found if each["state"] == "wrong"] == []
    assert "its secret is line 2" in next(each["detail"] for each in found if each["check"] == "app")


def test_more_secrets_than_are_taken(world: World) -> None:
    """Are told, though the first one alone would do."""
    environ = _elsewhere(app_secret="\n".join(f"{number:032x}" for number in range(5)))(world)
    with world.behind():
        named = cause(diagnosed(world, **environ))
    assert "more than 4 values" in named["detail"]


@pytest.mark.parametrize(
    "token", ["example-corp-7f3a9c2e51d8", "my-app-hook", "your_bakery_99", "correct horse battery"]
)
def test_a_token_of_ones_own_is_none_of_an_examples(token: str) -> None:
    """However it reads."""
    accepted = Credentials((token.encode(),), (b"0123456789abcdef0123456789abcdef",))
    assert {each.state for each in credentials.look(accepted, (), "")} <= {"ok", "unknown"}


class Hostile(BaseHTTPRequestHandler):
    """Drips a head, or a body, without an end."""

    def do_GET(self) -> None:
        """Drip."""
        with suppress(OSError):
            self.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"" if self.path.startswith("/head") else b"\r\n"))
            while True:
                self.wfile.write(b"X")
                time.sleep(0.05)

    def log_message(self, *_said: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize("where", ["head", "body"])
def test_an_answer_without_an_end(where: str) -> None:
    """Is not waited for."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    started = time.monotonic()
    answer = Caller(f"http://127.0.0.1:{server.server_address[1]}/{where}", deadline=0.5).look()
    assert (answer.status, answer.why) == (0, "no answer in time")
    assert time.monotonic() - started < 3
    server.shutdown()


class Broken(NamedTuple):
    """A set-up with one thing wrong: how it is made so, and what the doctor is to name first."""

    check: str
    says: str
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
    """Make a certificate that nobody but itself has signed, as `openssl req -x509` does."""
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
def _plain(world: World) -> Iterator[None]:
    """Something at the port that speaks no TLS."""
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
    """Have the doctor read credentials of its own, which the service does not have."""

    def environ(world: World) -> dict[str, str]:
        directory = Path(tempfile.mkdtemp(dir=world.directory))
        for file in world.server.credentials.iterdir():
            (directory / file.name).write_bytes(file.read_bytes())
        for name, value in files.items():
            (directory / name.replace("_", "-")).write_text(value)
        return {"WEBHOOK_CREDENTIALS_DIR": str(directory)}

    return environ


def _another_app(world: World) -> None:
    """Meta's secret is another one than that of the files and the service."""
    world.state["apps"][APP]["secret"] = "0123456789abcdef" * 2


def _stop(world: World) -> None:
    world.server.stop()


def _fault(**error: Any) -> Callable[[World], None]:
    return lambda world: world.graph.faults.append({"error": {"message": "m", **error}, "times": 99})


def _fill(world: World) -> None:
    """Make the inbox one that can't be opened."""
    world.server.stop()
    world.server.inbox.write_bytes(b"not a database" * 1000)
    world.server.start()


def _keep_calls_only(world: World) -> None:
    world.server.stop()
    world.server.environ["WEBHOOK_FIELDS"] = "calls"
    world.register(fields="calls")
    world.server.start()
    world.server.wait_until_ready()


@contextmanager
def _another_instance(world: World) -> Iterator[None]:
    """The URL leads to another release: the same verify token, another secret."""
    directory = Path(tempfile.mkdtemp(dir=world.directory))
    with Server(directory) as other, world.behind(upstream=other.port):
        (other.credentials / "verify-token").write_text(world.server.token)
        until(lambda: other.handshake(token=world.server.token).status == 200, "the token was not seen")
        yield


@contextmanager
def _in_turn(world: World) -> Iterator[None]:
    """A load balancer has two releases behind it, with other credentials each."""
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
        "app-secret, line 1, is an example's",
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
        "verify-token, line 1, is an example's",
        "openssl",
        environ=_elsewhere(verify_token="<your token>"),
    ),
    "a secret encoded twice": Broken(
        "credentials",
        "base64 of an app secret",
        "32 digits",
        environ=_elsewhere(app_secret=base64.b64encode(b"0123456789abcdef" * 2).decode()),
    ),
    "a secret in quotes": Broken(
        "credentials", "is in quotes", "32 digits", environ=_elsewhere(app_secret='"0123456789abcdef0123456789abcdef"')
    ),
    "a name before the secret": Broken(
        "credentials", "begins with a name", "32 digits", environ=_elsewhere(app_secret="APP_SECRET=0123456789abcdef")
    ),
    "the same value in both": Broken(
        "credentials",
        "hold the same value",
        "32 digits",
        environ=_elsewhere(app_secret="0123456789abcdef" * 2, verify_token="0123456789abcdef" * 2),
    ),
    "http": Broken(
        "url",
        "Meta calls https only",
        "ends TLS",
        environ=lambda world: {"WEBHOOK_CALLBACK_URL": f"http://localhost:{world.server.port}/webhooks"},
    ),
    "an address of nobody's": Broken(
        "url",
        "nobody reaches from the internet",
        "public name",
        environ=lambda _: {"WEBHOOK_CALLBACK_URL": "https://10.1.2.3/webhooks"},
        front=NOTHING,
    ),
    "no such name": Broken(
        "name",
        "is not found",
        "DNS",
        NOTHING,
        environ=lambda _: {"WEBHOOK_CALLBACK_URL": "https://wa.invalid/webhooks"},
    ),
    "nobody listens": Broken("connection", "Connection refused", "load balancer", NOTHING),
    "no TLS": Broken("certificate", "TLS handshake failed", "speak TLS", _plain),
    "a self-signed certificate": Broken(
        "certificate",
        "is self-signed",
        "public authorities",
        lambda world: world.behind(certificate=_self_signed()),
    ),
    "a certificate of nobody's authority": Broken(
        "certificate",
        "or nobody trusts it",
        "public authorities",
        lambda world: world.behind(certificate=trustme.CA().issue_cert("localhost")),
    ),
    "an expired certificate": Broken("certificate", "has expired", "renewed", _expired),
    "a certificate for another name": Broken(
        "certificate",
        "is for wa.example.com, and not for localhost",
        "for the name",
        lambda world: world.behind(certificate=world.authority.issue_cert("wa.example.com")),
    ),
    "no intermediate certificate": Broken(
        "certificate", "intermediate ones are not sent", "fullchain", _without_intermediate
    ),
    "a redirect": Broken(
        "answer",
        "redirects to https://www.example.com/webhooks",
        "Enter the URL that it leads to",
        {"rules": "return 301 https://www.example.com/webhooks;"},
    ),
    "a login": Broken("answer", "answers 401", "Let everybody through", {"rules": "return 401;"}),
    "a firewall": Broken("answer", "answers 403", "Let everybody through", {"rules": "return 403;"}),
    "the path is missing": Broken("answer", "not at this path", "with that path", environ=_path),
    "no rule for the path": Broken("answer", "404", "host and path", {"rules": "location /webhooks { return 404; }"}),
    "something else answers": Broken(
        "answer", "Something else answers", "host and path", {"rules": 'return 200 "welcome";'}
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
        "the verify token is not one in force, or a proxy",
        "line 1",
        environ=_elsewhere(verify_token="another"),
    ),
    "the query is dropped": Broken(
        "handshake",
        "missing_parameter",
        "query on as it is",
        {"rules": "client_max_body_size 4m; rewrite ^ /webhooks? break;"},
        here=True,
    ),
    "the query is dropped, haproxy": Broken(
        "handshake",
        "missing_parameter",
        "query on as it is",
        lambda world: world.behind("haproxy", rules="http-request set-query x=1"),
        here=True,
    ),
    "the signature is dropped": Broken(
        "notification",
        "drops the header",
        "X-Hub-Signature-256",
        {"rules": 'client_max_body_size 4m; proxy_set_header X-Hub-Signature-256 "";'},
        here=True,
    ),
    "the signature is dropped, haproxy": Broken(
        "notification",
        "drops the header",
        "X-Hub-Signature-256",
        lambda world: world.behind("haproxy", rules="http-request del-header x-hub-signature-256"),
        here=True,
    ),
    "the signature is dropped, seen from outside": Broken(
        "notification",
        "The secret here is the app's, and is not in force there, or the proxy",
        "pass header and body on",
        {"rules": 'client_max_body_size 4m; proxy_set_header X-Hub-Signature-256 "";'},
    ),
    "bodies are changed": Broken(
        "notification",
        "changes the body",
        "body on as they are",
        {"rules": 'client_max_body_size 4m; proxy_set_body "$request_body ";'},
        here=True,
    ),
    "only GET gets through": Broken(
        "notification",
        "Something before the service answers 403",
        "Let everybody through",
        {"rules": "if ($request_method != GET) { return 403; }"},
    ),
    "another secret, seen from outside": Broken(
        "notification",
        "the app secret is not in force there, or the proxy changes it",
        "App settings > Basic",
        environ=_elsewhere(app_secret="fedcba9876543210" * 2),
    ),
    "a limit of 1 MB": Broken("body limit", "with 413 (nginx", "client_max_body_size 4m", {"rules": ""}),
    "a limit of 1 MB, haproxy": Broken(
        "body limit",
        "something before the service refuses them",
        "limit to 4 MB",
        lambda world: world.behind(
            "haproxy", rules="http-request return status 413 if { req.hdr_val(content-length) gt 1048576 }"
        ),
    ),
    "the secret of another app": Broken(
        "app", "The app secret is not this app's", "Copy the app secret again", do=_another_app
    ),
    "no such app": Broken("app", "no app with this id", "Look at the id", environ=lambda _: {"WEBHOOK_APP_ID": "1"}),
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
    "Meta has switched it off": Broken(
        "callback",
        "switched the subscription off",
        "--force",
        do=lambda world: _subscription(world).update(active=False),
    ),
    "messages are not chosen": Broken(
        "fields",
        "not asked to send messages",
        "--fields calls,messages",
        do=lambda world: world.register(fields="calls"),
    ),
    "a field that is kept is not chosen": Broken(
        "fields",
        "not asked to send calls",
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
        "Make a new one",
        do=lambda world: world.state["tokens"][world.access_token].update(subcode=463),
    ),
    "the access token may not see the account": Broken(
        "accounts",
        "may not do this",
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
        "pass POSTs on",
        {"rules": 'if ($request_method = POST) { return 200 "ok"; }'},
    ),
    "something else answers in its place, with nothing": Broken(
        "notification",
        "answers 200 in its place",
        "pass POSTs on",
        {"rules": "if ($request_method = POST) { return 200; }"},
    ),
    "refusals are made successes": Broken(
        "notification",
        "answers 200 in its place",
        "pass POSTs on",
        lambda world: world.behind(
            "haproxy",
            rules="http-request del-header x-hub-signature-256",
            more="http-response set-status 200 if { method POST }",
        ),
    ),
    "refusals of large bodies are made successes": Broken(
        "body limit",
        "answers 200 in its place",
        "pass POSTs on",
        {"rules": "error_page 413 =200 /ok; location = /ok { return 200 ok; }"},
    ),
    "a limit on requests": Broken(
        "handshake",
        "The service answered before, and now something before it answers 503",
        "Exempt the path",
        {
            "rules": "limit_req zone=few; client_max_body_size 4m;",
            "outside": "limit_req_zone $server_port zone=few:1m rate=1r/m;",
        },
    ),
    "odd characters are refused": Broken(
        "notification",
        "A plain notification gets through, one with odd characters does not",
        "Let everybody through",
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
        _in_turn,
    ),
    "what is registered is no URL": Broken(
        "url",
        "is no URL that Meta can call",
        "Register the right one",
        NOTHING,
        do=lambda world: world.register("https://h:99999/"),
        environ=lambda _: {"WEBHOOK_CALLBACK_URL": ""},
    ),
}
BREAKING = {
    "the service is not running": Broken(
        "service", "Nothing answers on", "whatsapp-webhook check", NOTHING, do=_stop, here=True
    ),
    "the inbox can't be opened": Broken("service", "Not ready: inbox:", "runbook", do=_fill, here=True),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_cause_is_named_first(world: World, name: str) -> None:
    """With the right remedy."""
    _judge(world, BROKEN[name])


@pytest.mark.parametrize("name", BREAKING)
def test_the_cause_is_named_first_of_a_broken_service(other: World, name: str) -> None:
    """As well."""
    _judge(other, BREAKING[name])


def _judge(world: World, broken: Broken) -> None:
    broken.do(world)
    front = broken.front
    made = front() if front is NOTHING else front(world) if callable(front) else world.behind(**front)
    with made:
        found = diagnosed(world, here=broken.here, **broken.environ(world))
    named = cause(found)
    assert named["check"] == broken.check, found
    assert broken.says in named["detail"]
    assert broken.remedy in named["remedy"]
    assert named["state"] == "wrong"
