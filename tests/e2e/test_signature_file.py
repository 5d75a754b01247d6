"""`doctor --signature`: explains the signature of a captured request."""

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
        """Return its exit status and its output, which must not contain the secret."""
        done = commands.run("doctor", "--credentials", "credentials", *arguments, environ=os.environ, given=stdin)
        output = done.stdout + done.stderr
        assert SECRET not in output
        assert "Traceback" not in output
        return done.returncode, output


def request(body: bytes = BODY, *, end: bytes = b"\r\n", more: bytes = b"", length: int | None = None) -> bytes:
    size = str(len(BODY) if length is None else length).encode()
    lines = [b"POST /webhooks HTTP/1.1", b"Host: wa.example.com", b"x-hub-signature-256: " + HEADER.encode()]
    return end.join([*lines, *([more] if more else [b"Content-Length: " + size]), b"", body])


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_a_whole_request(run: Run, end: bytes) -> None:
    """Bytes after the body, and requests before it, are ignored."""
    Path("captured").write_bytes(request(end=end))
    assert run("--signature", "captured")[0] == 0
    Path("captured").write_bytes(request(end=end) + b"\nPOST /webhooks HTTP/1.1\r\n")
    assert run("--signature", "captured")[0] == 0
    assert run("--signature", "-", stdin=request())[0] == 0
    Path("captured").write_bytes(b"GET /webhooks?x HTTP/1.1\r\nHost: x\r\n\r\n" + request(end=end))
    assert run("--signature", "captured")[0] == 0


def test_a_chunked_body(run: Run) -> None:
    """Its chunks are joined."""
    chunks = b"5\r\n" + BODY[:5] + b"\r\n%x\r\n" % (len(BODY) - 5) + BODY[5:] + b"\r\n0\r\n\r\n"
    Path("captured").write_bytes(request(chunks, more=b"Transfer-Encoding: chunked"))
    status, output = run("--signature", "captured")
    assert status == 0, output


def test_a_truncated_chunked_body(run: Run) -> None:
    """It is a usage error, not a signature with another secret."""
    chunks = b"5\r\n" + BODY[:5] + b"\r\n%x\r\n" % (len(BODY) - 5) + BODY[5:] + b"\r\n"
    for captured in (chunks, chunks[:30]):
        Path("captured").write_bytes(request(captured, more=b"Transfer-Encoding: chunked"))
        status, output = run("--signature", "captured")
        assert status == 2
        assert "The last chunk of the body is not in FILE" in output


def test_too_many_secrets(run: Run) -> None:
    """The service accepts none of them, and neither does the command."""
    Path("credentials/app-secret").write_text("".join(f"{each}\n" for each in (*range(4), SECRET)))
    Path("captured").write_bytes(request())
    status, output = run("--signature", "captured")
    assert status == 1
    assert "more than 4 values" in output


def test_a_pasted_header(run: Run) -> None:
    """It may have quotes or spaces around it, and a name before it."""
    Path("body").write_bytes(BODY)
    for pasted in (f'"{HEADER}"', f" {HEADER} ", f"x-hub-signature-256: '{HEADER}'"):
        assert run("--signature", "body", "--header", pasted)[0] == 0


def test_a_body_alone(run: Run) -> None:
    """It requires --header, and the error says so."""
    Path("body").write_bytes(BODY)
    assert run("--signature", "body", "--header", HEADER)[0] == 0
    assert run("--signature", "body", "--header", f"X-Hub-Signature-256: {HEADER}")[0] == 0
    status, output = run("--signature", "body")
    assert status == 2
    assert "--header" in output
    status, output = run("--signature", "body", "--header", "")
    assert status == 2
    assert "--header is empty" in output


def test_a_handshake(run: Run) -> None:
    """A GET is a usage error: it has no signature."""
    Path("captured").write_bytes(b"GET /webhooks?hub.mode=subscribe HTTP/1.1\r\nHost: x\r\n\r\n")
    status, output = run("--signature", "captured")
    assert status == 2
    assert "FILE contains a GET" in output


def test_a_truncated_request(run: Run) -> None:
    """A body shorter than its Content-Length is a usage error."""
    Path("captured").write_bytes(request(BODY[:100]))
    status, output = run("--signature", "captured")
    assert status == 2
    assert f"only 100 of {len(BODY)} bytes" in output


def test_another_apps_secret(run: Run) -> None:
    """A --candidate file with the secret explains the signature."""
    Path("other").write_text("of-another-app\n")
    Path("body").write_bytes(BODY)
    header = signature.header_for(BODY, b"of-another-app")
    status, output = run("--signature", "body", "--header", header, "--candidate", "other")
    assert status == 1
    assert "signed with other, line 1" in output
    assert "of-another-app" not in output
    status, output = run("--signature", "body", "--header", header, "--candidate", "other", "--json")
    assert json.loads(output)["explained"] is True


def test_options_that_require_others(run: Run) -> None:
    """--header requires --signature, whose file must exist."""
    assert run("--header", "x")[0] == 2
    assert run("--signature", "nowhere")[0] == 2
