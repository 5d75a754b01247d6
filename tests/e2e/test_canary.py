"""Personal data and secrets, on every code path at debug level, appear in no log, metric, probe or span."""

import base64
import json
from pathlib import Path

import pytest

from service import signature
from service.meta import catalogue
from tests.e2e.test_traces import Receiver, settings
from tests.support.server import Server, read_answer, until

NUMBER = "4915112345678"
TEXT = "canary-text-of-a-person"
NAME = "Canary-Name"
TOKEN = "canary-verify-token"
SECRET = "canary-app-secret"
WAMID = "wamid." + base64.b64encode(f"\x1d{NUMBER}canary".encode()).decode()


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Send requests of every outcome, and return logs, metrics and spans as text."""
    directory: Path = tmp_path_factory.mktemp("canary")
    receiver = Receiver()
    server = Server(directory, WEBHOOK_READ_TIMEOUT="1s", **settings(receiver))
    server.token, server.secret = TOKEN, SECRET
    with server:
        message = {"from": NUMBER, "id": WAMID, "timestamp": "1749416383", "type": "text", "text": {"body": TEXT}}
        contact = {"wa_id": NUMBER, "profile": {"name": NAME}}
        for field in ("messages", "history", "standby", TEXT):
            value = {"metadata": {"phone_number_id": "1"}, "contacts": [contact], "messages": [message], "event": TEXT}
            body = catalogue.body([{"entry": {}, "change": {"field": field, "value": value}}])
            assert server.notify(body).status == 200
            assert server.notify(body).status == 200
            assert server.notify(body, secret="another").status == 401
        server.notify(f"no JSON {NUMBER} {TEXT}".encode())
        server.notify(body, **{"Content-Encoding": TEXT})
        server.request("POST", "/webhooks", body)
        server.request("POST", "/webhooks", body, {signature.HEADER: TEXT})
        server.handshake()
        server.handshake(TOKEN + "x")
        server.handshake(challenge=f"<{TEXT}>")
        server.request("GET", f"/webhooks/{TOKEN}?hub.verify_token={TOKEN}")
        server.request("PUT", f"/webhooks?hub.verify_token={TOKEN}", body)
        unsigned = f"POST /webhooks HTTP/1.1\r\nHost: x\r\nX-Hub-Signature-256: sha256={'0' * 64}\r\n"
        broken = (
            f"GET /webhooks?hub.verify_token={TOKEN} HTTP/9.9\r\n\r\n",
            f"GET /webhooks?hub.verify_token={TOKEN}" + "x" * 9000 + " HTTP/1.1\r\n\r\n",
            f"GET /webhooks?hub.verify_token={TOKEN} HTTP/1.1\r\nHost: x\r\n{TEXT} {NUMBER}\r\n\r\n",
            f"POST /webhooks?hub.verify_token={TOKEN} HTTP/1.1\r\nHost: x\r\nContent-Length: {TEXT}\r\n\r\n",
            f"{unsigned}Transfer-Encoding: chunked\r\n\r\n{TEXT}\r\n",
            f"{unsigned}Content-Length: 99\r\n\r\n{TEXT}",
        )
        for request in broken:
            with server.connect() as client:
                client.sendall(request.encode())
                read_answer(client)
        server.write_credentials(TOKEN + "\nanother", "")
        (server.directory / "inbox.db").rename(server.directory / "moved.db")
        server.notify(catalogue.notification("message text").replace(b"Is it", TEXT.encode()))
        until(lambda: server.metric("whatsapp_webhook_credentials_stale") == 1, "not stale")
        pages = [server.admin(path).body.decode() for path in ("/metrics", "/readyz", "/livez")]
    receiver.shutdown()
    return {"log": server.log_file.read_text(), "admin": "".join(pages), "spans": receiver.raw.decode("latin-1")}


@pytest.mark.parametrize("canary", [NUMBER, TEXT, NAME, TOKEN, SECRET, WAMID, WAMID[10:30], NUMBER[3:]])
def test_no_secret_and_no_personal_data_appear(seen: dict[str, str], canary: str) -> None:
    """Not in a log line, a metric, a probe or a span."""
    for where, text in seen.items():
        assert canary not in text, f"in the {where}"


def test_every_code_path_was_taken(seen: dict[str, str]) -> None:
    """The log has a line of each, otherwise the test above would prove nothing."""
    lines = [json.loads(line) for line in seen["log"].splitlines()]
    logged = {(line["event"], line.get("reason")) for line in lines}
    refusals = {
        ("notification rejected", "bad_signature"),
        ("notification rejected", "encoded"),
        ("notification not stored", "vanished"),
        ("handshake rejected", "wrong_token"),
        ("handshake rejected", "bad_challenge"),
    }
    assert refusals <= logged
    assert {
        "notification accepted",
        "handshake verified",
        "request rejected",
        "credentials not readable",
        "inbox unavailable",
    } <= {event for event, _ in logged}
    assert "POST /webhooks" in seen["spans"]


def test_people_are_keyed_hashes(seen: dict[str, str]) -> None:
    """The same event has the same keyed hash in each line, so that an operator can follow it."""
    lines = [json.loads(line) for line in seen["log"].splitlines()]
    ids = [line["ids"] for line in lines if line["event"] == "notification accepted"]
    assert ids[0] == ids[1]
    assert len({tuple(each) for each in ids}) == len(ids) / 2 or len(ids) % 2
