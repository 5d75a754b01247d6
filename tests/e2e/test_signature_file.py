"""`doctor --signature`: a request as it was caught."""

import json
import os
from pathlib import Path

import pytest

from service import signature
from service.meta import catalogue
from tests.support import commands

SECRET = "0123456789abcdef0123456789abcdef"
BODY = catalogue.notification("message text")
HEADER = signature.header_for(BODY, SECRET.encode())


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Run":
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "app-secret").write_text(SECRET)
    (tmp_path / "credentials" / "verify-token").write_text("t")
    monkeypatch.chdir(tmp_path)
    return Run()


class Run:
    """Runs the command in the test's directory."""

    def __call__(self, *arguments: str, stdin: bytes = b"") -> tuple[int, str]:
        """Give its status, and what it said."""
        done = commands.run("doctor", "--credentials", "credentials", *arguments, environ=os.environ, given=stdin)
        said = done.stdout + done.stderr
        assert SECRET not in said
        assert "Traceback" not in said
        return done.returncode, said


def request(body: bytes = BODY, *, end: bytes = b"\r\n", more: bytes = b"", length: int | None = None) -> bytes:
    size = str(len(BODY) if length is None else length).encode()
    lines = [b"POST /webhooks HTTP/1.1", b"Host: wa.example.com", b"x-hub-signature-256: " + HEADER.encode()]
    return end.join([*lines, *([more] if more else [b"Content-Length: " + size]), b"", body])


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_a_whole_request(run: Run, end: bytes) -> None:
    """Head and body; what follows the body is not of it."""
    Path("caught").write_bytes(request(end=end))
    assert run("--signature", "caught")[0] == 0
    Path("caught").write_bytes(request(end=end) + b"\nPOST /webhooks HTTP/1.1\r\n")
    assert run("--signature", "caught")[0] == 0
    assert run("--signature", "-", stdin=request())[0] == 0
    Path("caught").write_bytes(b"GET /webhooks?x HTTP/1.1\r\nHost: x\r\n\r\n" + request(end=end))
    assert run("--signature", "caught")[0] == 0


def test_chunks(run: Run) -> None:
    """Are put together."""
    chunks = b"5\r\n" + BODY[:5] + b"\r\n%x\r\n" % (len(BODY) - 5) + BODY[5:] + b"\r\n0\r\n\r\n"
    Path("caught").write_bytes(request(chunks, more=b"Transfer-Encoding: chunked"))
    status, said = run("--signature", "caught")
    assert status == 0, said


def test_chunks_that_are_cut_off(run: Run) -> None:
    """Are told, and not taken for another secret's."""
    chunks = b"5\r\n" + BODY[:5] + b"\r\n%x\r\n" % (len(BODY) - 5) + BODY[5:] + b"\r\n"
    for caught in (chunks, chunks[:30]):
        Path("caught").write_bytes(request(caught, more=b"Transfer-Encoding: chunked"))
        status, said = run("--signature", "caught")
        assert status == 2
        assert "The last chunk of the body is not in FILE" in said


def test_more_secrets_than_the_service_takes(run: Run) -> None:
    """Are not said to be in force."""
    Path("credentials/app-secret").write_text("".join(f"{each}\n" for each in (*range(4), SECRET)))
    Path("caught").write_bytes(request())
    status, said = run("--signature", "caught")
    assert status == 1
    assert "more than 4 values" in said


def test_a_header_that_was_pasted(run: Run) -> None:
    """May have quotes and blanks about it."""
    Path("body").write_bytes(BODY)
    for pasted in (f'"{HEADER}"', f" {HEADER} ", f"x-hub-signature-256: '{HEADER}'"):
        assert run("--signature", "body", "--header", pasted)[0] == 0


def test_a_body_alone(run: Run) -> None:
    """With its header beside it; without one it is told what to do."""
    Path("body").write_bytes(BODY)
    assert run("--signature", "body", "--header", HEADER)[0] == 0
    assert run("--signature", "body", "--header", f"X-Hub-Signature-256: {HEADER}")[0] == 0
    status, said = run("--signature", "body")
    assert status == 2
    assert "--header" in said
    status, said = run("--signature", "body", "--header", "")
    assert status == 2
    assert "--header is empty" in said


def test_a_handshake(run: Run) -> None:
    """Is no notification, and has no signature."""
    Path("caught").write_bytes(b"GET /webhooks?hub.mode=subscribe HTTP/1.1\r\nHost: x\r\n\r\n")
    status, said = run("--signature", "caught")
    assert status == 2
    assert "This is a GET" in said


def test_a_request_that_is_cut_off(run: Run) -> None:
    """Is told: that is why it can't be right."""
    Path("caught").write_bytes(request(BODY[:100]))
    status, said = run("--signature", "caught")
    assert status == 2
    assert f"Only 100 of {len(BODY)} bytes" in said


def test_another_apps_secret(run: Run) -> None:
    """Named in a file."""
    Path("other").write_text("of-another-app\n")
    Path("body").write_bytes(BODY)
    header = signature.header_for(BODY, b"of-another-app")
    status, said = run("--signature", "body", "--header", header, "--candidate", "other")
    assert status == 1
    assert "signed with other, line 1" in said
    assert "of-another-app" not in said
    status, said = run("--signature", "body", "--header", header, "--candidate", "other", "--json")
    assert json.loads(said)["explained"] is True


def test_what_goes_together(run: Run) -> None:
    """A candidate alone says nothing."""
    assert run("--header", "x")[0] == 2
    assert run("--signature", "nowhere")[0] == 2
