"""Why a signature was refused: each of the usual mistakes, made on purpose, is found."""

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
from service.doctor.explain.signature import Explanation, Key, Kind, explain
from service.meta import catalogue

SECRET = b"0123456789abcdef0123456789abcdef"
# As Meta writes: escaped, slashes too.
TEXT = "Grüße 🙂 a/b <c> 50% & me@example.com"
BODY = (
    json.dumps(
        {"object": "whatsapp_business_account", "entry": [{"id": "1", "time": 1, "text": TEXT}]}, separators=(",", ":")
    )
    .replace("/", "\\/")
    .encode()
)
KEYS = Kind(
    [Key("line 1 of app-secret", b"another"), Key("line 2 of app-secret", SECRET)],
    [Key("line 1 of verify-token", b"a-token")],
    [Key("other-app, line 1", b"of-another-app")],
)


def signed(body: bytes, key: bytes = SECRET) -> str:
    return signature.header_for(body, key)


def explained(body: bytes, header: str | None = None, keys: Kind = KEYS) -> Explanation:
    return explain(body, signed(BODY) if header is None else header, keys)


def test_a_right_one() -> None:
    """Is said to be right, whichever line made it."""
    assert explained(BODY).is_good


def dumped(**more: object) -> Callable[[bytes], bytes]:
    def write(body: bytes) -> bytes:
        text: str = json.dumps(json.loads(body), **more)  # type: ignore[arg-type]
        return text.encode()

    return write


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (dumped(), "read and written anew"),
        (dumped(separators=(",", ":")), "escaped characters in it were written out"),
        (dumped(separators=(",", ":"), ensure_ascii=False), "escaped characters in it were written out"),
        (dumped(ensure_ascii=False), "read and written anew"),
        (dumped(indent=2), "read and written anew"),
        (lambda it: it.replace(b"\\/", b"/"), "escaped characters in it were written out"),
        (lambda it: it + b"\n", "a line's end was added"),
        (lambda it: it + b"\r\n", "a line's end was added"),
        (lambda it: b"\xef\xbb\xbf" + it, "byte order mark"),
        (gzip.compress, "it was compressed"),
        (lambda it: quote_plus(it).encode(), "percent-encoded"),
        (lambda it: b"payload=" + quote_plus(it).encode(), "put into a form"),
        (lambda it: quote_plus(it).encode() + b"=", "put into a form"),
        (base64.b64encode, "written in base64"),
        (lambda it: json.dumps(it.decode()).encode(), "put into a string of JSON"),
        (lambda it: json.dumps({"body": it.decode(), "isBase64Encoded": False}).encode(), "a gateway's event"),
        (
            lambda it: json.dumps({"body": base64.b64encode(it).decode(), "isBase64Encoded": True}).encode(),
            "a gateway's event",
        ),
        (lambda _: b"", "nothing of it is left"),
        (lambda _: b"[object Object]", "nothing of it is left"),
        (lambda it: it[:40], "a part of it is missing"),
        (lambda it: json.dumps(json.loads(it), sort_keys=True).encode(), "keys in another order"),
    ],
)
def test_a_body_that_was_changed(change: Callable[[bytes], bytes], says: str) -> None:
    """By something that stands before, or by whoever caught it."""
    changed = change(BODY)
    assert changed != BODY
    found = explained(changed)
    assert "The body was changed on the way" in found.what
    assert says in found.what
    assert not found.is_good


@pytest.mark.parametrize(
    ("original", "change", "says"),
    [
        (b'{"a": "x"}\n', bytes.strip, "the line's end at the end was cut off"),
        (b'{\n"a": 1}', lambda it: it.replace(b"\n", b"\r\n"), "line ends were made CR LF"),
        (b'{\r\n"a": 1}', lambda it: it.replace(b"\r\n", b"\n"), "line ends were made LF"),
        ('{"a":"é"}'.encode(), lambda it: it.decode("latin-1").encode(), "wrong encoding"),
        ('{"a":"é"}'.encode(), lambda _: b'{"a":"\\u00e9"}', "characters in it were escaped"),
        (b'{"a":"me\\u0040x"}', lambda _: b'{"a":"me@x"}', "escaped characters in it were written out"),
        (b'{"a":"it\\u0027s"}', lambda _: b'{"a":"it\'s"}', "escaped characters in it were written out"),
        (b'{"a":"b\\\\\\/c"}', lambda _: b'{"a":"b\\\\/c"}', "escaped characters in it were written out"),
        (
            '{"a":"\U0001f642\u00e9"}'.encode(),
            lambda _: b'{"a":"\\ud83d\\ude42\\u00e9"}',
            "characters in it were escaped",
        ),
    ],
)
def test_other_bodies(original: bytes, change: Callable[[bytes], bytes], says: str) -> None:
    """Those of somebody who signs as Meta does."""
    found = explained(change(original), signed(original))
    assert says in found.what


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (b"of-another-app", "signed with other-app, line 1"),
        (b"a-token", "signed with line 1 of verify-token, which is no key"),
    ],
)
def test_another_key(key: bytes, says: str) -> None:
    """Another app's secret, or the verify token."""
    assert says in explained(BODY, signed(BODY, key)).what


@pytest.mark.parametrize(
    ("written", "says"),
    [
        (b'"' + SECRET + b'"', "in quotes"),
        (SECRET.upper(), "in capitals"),
        (SECRET[:16] + b" " + SECRET[16:], "with blanks in it"),
        (b"APP_SECRET=" + SECRET, "with a name before it"),
        (b"secret: " + SECRET, "with a name before it"),
        (base64.b64encode(SECRET), "in base64"),
    ],
)
def test_a_secret_that_was_written_otherwise(written: bytes, says: str) -> None:
    """Is the right one, but not as it is."""
    found = explained(BODY, keys=Kind([Key("line 1 of app-secret", written)]))
    assert says in found.what
    assert SECRET.decode() not in found.what + found.remedy


def test_two_mistakes() -> None:
    """Both are told."""
    found = explained(BODY + b"\n", signed(BODY, b"of-another-app"))
    assert "a line's end was added" in found.what
    assert "other-app, line 1" in found.what


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("sha1=" + hmac.new(SECRET, BODY, hashlib.sha1).hexdigest(), "older SHA-1"),
        (f"{signed(BODY)}, {signed(BODY)}", "came twice"),
        (signed(BODY).removeprefix("sha256="), "without `sha256=`"),
        (base64.b64encode(hmac.digest(SECRET, BODY, "sha256")).decode(), "in base64"),
        ("nonsense", "not of the form"),
        ("", "not of the form"),
    ],
)
def test_a_header_that_is_none(header: str, says: str) -> None:
    """With what it is instead."""
    assert says in explained(BODY, header).what


def test_no_header() -> None:
    """Something drops it."""
    assert "no header" in explain(BODY, None, KEYS).what


def test_what_is_not_explained() -> None:
    """Is said to be so, with what to try."""
    found = explained(BODY, signed(b"something else"))
    assert not found.is_found
    assert "--candidate" in found.remedy


@given(st.binary(max_size=200), st.text(max_size=100))
def test_no_bytes_make_it_fail(body: bytes, header: str) -> None:
    """Whatever was caught."""
    assert explain(body, header, KEYS).what
    assert explain(body, "sha256=" + "0" * 64, KEYS).remedy


def test_a_large_one_takes_seconds() -> None:
    """3 MB, which nothing explains: every mistake is tried."""
    assert not explained(catalogue.batch(1000) + b" " * 2_000_000, signed(b"x")).is_found
