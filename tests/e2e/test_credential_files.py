"""Credential files with content that is no value: nobody gets in with what another program wrote into them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service import signature
from service.meta import catalogue
from tests.support.server import Server, until

SECRET = "0123456789abcdef0123456789abcdef"
FILES = {
    "UTF-16": f"{SECRET}\r\n".encode("utf-16"),
    "NUL": b"\0\n",
    "JSON": f'{{\n  "app-secret": "{SECRET}"\n}}\n'.encode(),
    "short": b"{\n",
}
KEYS = (b"", b"\0", b"{", b"}", b"\xff\xfe0", f'"app-secret": "{SECRET}"'.encode())


@pytest.fixture(params=FILES)
def started(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server whose credential files were wrong from the start."""
    server = Server(tmp_path)
    server.write_credentials(None, None)
    for name in ("verify-token", "app-secret"):
        (server.credentials / name).write_bytes(FILES[request.param])
    server.start()
    yield server
    server.stop()


def test_content_that_is_no_secret_verifies_nothing(started: Server) -> None:
    """Neither an empty key nor a brace. The server is not ready, and reports the file and its correct format."""
    body = catalogue.notification("message text")
    for key in KEYS:
        forged = {signature.HEADER: signature.header_for(body, key)}
        assert started.request("POST", "/webhooks", body, forged).status == 503
    assert started.handshake(token="\0").status == 404
    assert started.handshake(token="").status == 404
    ready = started.admin("/readyz")
    assert ready.status == 503
    assert f"{started.credentials}/app-secret".encode() in ready.body
    assert b"write" in ready.body or b"32 hex digits" in ready.body
    assert "credentials not readable" in started.log_file.read_text()
    started.write_credentials("the-verify-token", SECRET)
    started.wait_until_ready()
    assert started.notify(body, secret=SECRET).status == 200


def test_the_last_good_values_stay(server: Server) -> None:
    """If a file becomes UTF-16, the server stays ready with the last good values; metric and log report it."""
    (server.credentials / "app-secret").write_bytes(FILES["UTF-16"])
    until(lambda: server.metric("whatsapp_webhook_credentials_stale") == 1, "the metric does not tell")
    body = catalogue.notification("message text")
    assert server.notify(body).status == 200
    assert server.notify(body, secret="\0").status == 401
    assert server.admin("/readyz").status == 200
    assert "is not UTF-8 text but UTF-16" in server.log_file.read_text()


def test_a_weak_verify_token_is_accepted_with_a_warning(server: Server) -> None:
    """In the log and by `check`, without the token itself."""
    (server.credentials / "verify-token").write_text("changeme")
    until(lambda: server.handshake(token="changeme").status == 200, "not accepted")
    assert "weak verify token" in server.log_file.read_text()
    said = server.run("check")
    assert "warning: verify-token, line 1, is a placeholder" in said
    assert "changeme" not in server.log_file.read_text() + said
