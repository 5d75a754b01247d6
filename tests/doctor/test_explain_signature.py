"""Why a signature was refused: each common mistake, made on purpose, is found."""

import base64
import gzip
import hashlib
import hmac
import json
from collections.abc import Callable
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import signature
from service.doctor.explain.signature import Explanation, SigningKey, SigningKeys, explain
from service.meta import catalogue

SECRET = b"0123456789abcdef0123456789abcdef"
# Serialized as Meta does: non-ASCII characters and slashes are escaped.
TEXT = "Grüße 🙂 a/b <c> 50% & me@example.com"
BODY = (
    json.dumps(
        {"object": "whatsapp_business_account", "entry": [{"id": "1", "time": 1, "text": TEXT}]}, separators=(",", ":")
    )
    .replace("/", "\\/")
    .encode()
)
KEYS = SigningKeys(
    [SigningKey("line 1 of app-secret", b"another"), SigningKey("line 2 of app-secret", SECRET)],
    [SigningKey("line 1 of verify-token", b"a-token")],
    [SigningKey("other-app, line 1", b"of-another-app")],
)


def signed(body: bytes, key: bytes = SECRET) -> str:
    return signature.header_for(body, key)


def explained(body: bytes, header: str | None = None, keys: SigningKeys = KEYS) -> Explanation:
    return explain(body, signed(BODY) if header is None else header, keys)


def test_a_right_signature() -> None:
    """It is reported as right, whichever line it was made with."""
    assert explained(BODY).is_good


def dumped(**more: object) -> Callable[[bytes], bytes]:
    def write(body: bytes) -> bytes:
        text: str = json.dumps(json.loads(body), **more)  # type: ignore[arg-type]
        return text.encode()

    return write


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (dumped(), "parsed and serialized again"),
        (dumped(separators=(",", ":")), "escape sequences were replaced by their characters"),
        (dumped(separators=(",", ":"), ensure_ascii=False), "escape sequences were replaced by their characters"),
        (dumped(ensure_ascii=False), "parsed and serialized again"),
        (dumped(indent=2), "parsed and serialized again"),
        (lambda body: body.replace(b"\\/", b"/"), "escape sequences were replaced by their characters"),
        (lambda body: body + b"\n", "a line end was added"),
        (lambda body: body + b"\r\n", "a line end was added"),
        (lambda body: b"\xef\xbb\xbf" + body, "byte order mark"),
        (gzip.compress, "it was compressed"),
        (lambda body: quote_plus(body).encode(), "percent-encoded"),
        (lambda body: b"payload=" + quote_plus(body).encode(), "put into a form field"),
        (lambda body: quote_plus(body).encode() + b"=", "put into a form field"),
        (base64.b64encode, "encoded in base64"),
        (lambda body: json.dumps(body.decode()).encode(), "put into a JSON string"),
        (lambda body: json.dumps({"body": body.decode(), "isBase64Encoded": False}).encode(), "an API gateway's event"),
        (
            lambda body: json.dumps({"body": base64.b64encode(body).decode(), "isBase64Encoded": True}).encode(),
            "an API gateway's event",
        ),
        (lambda _: b"", "nothing of it is left"),
        (lambda _: b"[object Object]", "nothing of it is left"),
        (lambda body: body[:40], "a part of it is missing"),
        (lambda body: json.dumps(json.loads(body), sort_keys=True).encode(), "keys in another order"),
    ],
)
def test_a_changed_body(change: Callable[[bytes], bytes], expected: str) -> None:
    """The change is named, whether a proxy or the capture made it."""
    changed = change(BODY)
    assert changed != BODY
    found = explained(changed)
    assert "The body was changed on the way" in found.what
    assert expected in found.what
    assert not found.is_good


@pytest.mark.parametrize(
    ("original", "change", "expected"),
    [
        (b'{"a": "x"}\n', bytes.strip, "the line end at the end was removed"),
        (b'{\n"a": 1}', lambda body: body.replace(b"\n", b"\r\n"), "line ends were changed to CR LF"),
        (b'{\r\n"a": 1}', lambda body: body.replace(b"\r\n", b"\n"), "line ends were changed to LF"),
        ('{"a":"é"}'.encode(), lambda body: body.decode("latin-1").encode(), "wrong encoding"),
        ('{"a":"é"}'.encode(), lambda _: b'{"a":"\\u00e9"}', "characters were replaced by escape sequences"),
        (b'{"a":"me\\u0040x"}', lambda _: b'{"a":"me@x"}', "escape sequences were replaced by their characters"),
        (b'{"a":"it\\u0027s"}', lambda _: b'{"a":"it\'s"}', "escape sequences were replaced by their characters"),
        (b'{"a":"b\\\\\\/c"}', lambda _: b'{"a":"b\\\\/c"}', "escape sequences were replaced by their characters"),
        (
            '{"a":"\U0001f642\u00e9"}'.encode(),
            lambda _: b'{"a":"\\ud83d\\ude42\\u00e9"}',
            "characters were replaced by escape sequences",
        ),
    ],
)
def test_bodies_of_another_sender(original: bytes, change: Callable[[bytes], bytes], expected: str) -> None:
    """The sender may serialize differently than Meta, but signs as Meta does."""
    found = explained(change(original), signed(original))
    assert expected in found.what


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"of-another-app", "signed with other-app, line 1"),
        (b"a-token", "signed with line 1 of verify-token, which is not a signing key"),
    ],
)
def test_another_key(key: bytes, expected: str) -> None:
    """Another app's secret, or the verify token, is named as the key."""
    assert expected in explained(BODY, signed(BODY, key)).what


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (b'"' + SECRET + b'"', "in quotes"),
        (SECRET.upper(), "in capital letters"),
        (SECRET[:16] + b" " + SECRET[16:], "with spaces in it"),
        (b"APP_SECRET=" + SECRET, "with a name before it"),
        (b"secret: " + SECRET, "with a name before it"),
        (base64.b64encode(SECRET), "in base64"),
    ],
)
def test_a_miswritten_secret(written: bytes, expected: str) -> None:
    """The right secret is recognized in the wrong form, and is not printed."""
    found = explained(BODY, keys=SigningKeys([SigningKey("line 1 of app-secret", written)]))
    assert expected in found.what
    assert SECRET.decode() not in found.what + found.remedy


def test_two_mistakes() -> None:
    """Both are reported."""
    found = explained(BODY + b"\n", signed(BODY, b"of-another-app"))
    assert "a line end was added" in found.what
    assert "other-app, line 1" in found.what


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("sha1=" + hmac.new(SECRET, BODY, hashlib.sha1).hexdigest(), "older SHA-1"),
        (f"{signed(BODY)}, {signed(BODY)}", "is there twice"),
        (signed(BODY).removeprefix("sha256="), "without `sha256=`"),
        (base64.b64encode(hmac.digest(SECRET, BODY, "sha256")).decode(), "in base64"),
        ("nonsense", "is not `sha256=` and 64"),
        ("", "is not `sha256=` and 64"),
    ],
)
def test_an_invalid_header(header: str, expected: str) -> None:
    """The explanation says what it is instead."""
    assert expected in explained(BODY, header).what


def test_no_header() -> None:
    """The explanation says that something drops it."""
    assert "no X-Hub-Signature-256 header" in explain(BODY, None, KEYS).what


def test_no_explanation() -> None:
    """The remedy says what else to try."""
    found = explained(BODY, signed(b"something else"))
    assert not found.is_found
    assert "--candidate" in found.remedy


@given(st.binary(max_size=200), st.text(max_size=100))
def test_any_bytes(body: bytes, header: str) -> None:
    """No body and no header make it raise."""
    assert explain(body, header, KEYS).what
    assert explain(body, "sha256=" + "0" * 64, KEYS).remedy


def test_a_large_body() -> None:
    """Every mistake is tried on 3 MB within the test's timeout."""
    assert not explained(catalogue.batch(1000) + b" " * 2_000_000, signed(b"x")).is_found
