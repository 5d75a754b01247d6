"""The request to a destination, verified by Meta's signature, the CloudEvents SDK and the Standard Webhooks library."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_binary
from cloudevents.core.formats.json import JSONFormat
from standardwebhooks import Webhook, WebhookVerificationError

from service import events
from service.events import Event
from service.meta import catalogue
from service.relay.message import Message, compose, key_of

NOW = 1_795_000_000
KEYS = [b"whsec_" + base64.b64encode(bytes([number]) * 24) for number in (1, 2)]


def first_event(body: bytes = catalogue.notification("message text")) -> Event:
    return events.parse(body, received_at=NOW * 1000, nonce="n")[0]


def composed(
    event: Event, form: str, *, replay: bool = False, now: int = NOW, headers: Mapping[str, str] = MappingProxyType({})
) -> Message:
    secrets = [b"current", b"older"] if form == "meta" else KEYS
    return compose(event, form, headers, secrets, now=now, replay=replay, traceparent="00-1-2-01")


def test_the_meta_format_is_what_meta_would_have_sent() -> None:
    """The event's data byte for byte, signed with the first secret as Meta signs."""
    event = first_event()
    sent = composed(event, "meta", headers={"X-Tenant": "a"})
    assert sent.body == event.data
    signature = hmac.new(b"current", sent.body, hashlib.sha256).hexdigest()
    assert sent.headers == {
        "X-Tenant": "a",
        "traceparent": "00-1-2-01",
        "Content-Type": "application/json",
        "X-Hub-Signature-256": f"sha256={signature}",
    }


@pytest.mark.parametrize("replay", [False, True])
def test_the_cloudevents_sdk_reads_it(replay: bool) -> None:  # noqa: FBT001
    """Every attribute, and the data."""
    event = first_event()
    sent = composed(event, "cloudevents", replay=replay)
    received = from_binary(HTTPMessage(headers=sent.headers, body=sent.body), JSONFormat())
    assert (received.get_id(), received.get_type(), received.get_source()) == (event.id, event.type, event.source)
    assert received.get_subject() == event.subject
    assert received.get_time().timestamp() * 1000 == event.time
    assert received.get_extension("partitionkey") == event.partitionkey
    assert received.get_extension("replay") == ("true" if replay else None)
    assert received.get_data() == json.loads(event.data)


def test_the_standard_webhooks_library_verifies_it() -> None:
    """With either secret, so that rotations can overlap, and with no other secret."""
    sent = composed(first_event(), "cloudevents", now=int(time.time()))
    for key in KEYS:
        assert Webhook(key.decode()).verify(sent.body, sent.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + base64.b64encode(b"3" * 24).decode()).verify(sent.body, sent.headers)


def test_the_id_is_the_same_in_every_attempt() -> None:
    """A consumer recognizes duplicates by it."""
    attempts = [composed(first_event(), "cloudevents", now=NOW + number).headers for number in range(3)]
    assert len({headers["webhook-id"] for headers in attempts}) == len({headers["ce-id"] for headers in attempts}) == 1
    assert len({headers["webhook-signature"] for headers in attempts}) == 3


def test_a_value_that_is_not_valid_in_a_header_is_escaped() -> None:
    """Percent-encoded UTF-8, as the HTTP binding requires."""
    event = msgspec.structs.replace(first_event(), subject='a "quoted" 100% é\r\nx: y')
    value = composed(event, "cloudevents").headers["ce-subject"]
    assert value.isascii()
    assert not set(value) & set(' "\r\n')
    assert unquote(value) == event.subject


def test_the_content_type_of_an_unrecognized_body() -> None:
    """Such a body is sent as it was received; its content type depends on whether it is JSON."""
    for body, content_type in ((b"\xff no JSON", "application/octet-stream"), (b'{"a": 1}', "application/json")):
        sent = composed(first_event(body), "cloudevents")
        assert (sent.body, sent.headers["Content-Type"]) == (body, content_type)


@pytest.mark.needs("corpus")
def test_all_of_the_corpus(corpus: list[Path]) -> None:
    """Every real update can be sent, and read by the SDK."""
    for file in corpus:
        for event in events.parse(file.read_bytes(), received_at=NOW * 1000, nonce="n"):
            sent = composed(event, "cloudevents")
            assert all(value.isascii() and value.isprintable() for value in sent.headers.values())
            assert from_binary(HTTPMessage(headers=sent.headers, body=sent.body), JSONFormat()).get_id() == event.id


@pytest.mark.parametrize("secret", [b"secret", b"whsec_", b"whsec_not base64!", b"whsec_abc"])
def test_an_invalid_secret_is_rejected(secret: bytes) -> None:
    """With a message that names the prefix."""
    with pytest.raises(ValueError, match="whsec_"):
        key_of(secret)


def event_with(**changes: Any) -> Event:
    (event,) = events.parse(catalogue.notification("message text"), received_at=NOW * 1000, nonce="")
    return event._replace(**changes) if hasattr(event, "_replace") else msgspec.structs.replace(event, **changes)


def headers_of(event: Event, form: str = "cloudevents", **more: Any) -> dict[str, str]:
    arguments = {"now": NOW, "replay": False, "traceparent": None} | more
    return compose(event, form, {"X-Key": "k"}, KEYS, **arguments).headers


def test_all_headers() -> None:
    """The destination's own headers unchanged, the event's attributes and the signature, as text."""
    own = {"X-Key": "k"}
    headers = compose(event_with(), "cloudevents", own, KEYS, now=NOW, replay=False, traceparent=None).headers
    others = {"X-Key", "Content-Type", "webhook-id", "webhook-timestamp", "webhook-signature"}
    attributes = {"specversion", "id", "type", "source", "subject", "time", "partitionkey"}
    attributes |= {"userid", "waid", "direction"}
    assert set(headers) == others | {f"ce-{name}" for name in attributes}
    assert all(isinstance(value, str) for value in headers.values())
    assert headers["webhook-timestamp"] == str(NOW)
    assert own == {"X-Key": "k"}
    assert headers_of(event_with(), "meta").keys() == {"X-Key", "Content-Type", "X-Hub-Signature-256"}


def test_the_flags_of_a_test_and_of_a_replay() -> None:
    """They are sent only if they are set."""
    for test, replay in ((True, False), (False, True)):
        headers = headers_of(event_with(test=test), replay=replay)
        flags = headers.get("ce-test"), headers.get("ce-replay")
        assert flags == ("true" if test else None, "true" if replay else None)


def test_which_characters_of_a_header_are_escaped() -> None:
    """Printable ASCII except space, quote and percent is sent unchanged; anything else as percent-encoded UTF-8."""
    unchanged = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
    assert headers_of(event_with(subject=unchanged))["ce-subject"] == unchanged
    assert headers_of(event_with(subject=' "%é\n\x7f☺'))["ce-subject"] == "%20%22%25%C3%A9%0A%7F%E2%98%BA"


@pytest.mark.parametrize(
    ("secret", "problem"),
    [
        (b"secret", "must be whsec_ followed by base64"),
        (b"whsec_", "must have base64 after whsec_"),
        (b"whsec_YWJj!", "must have base64 after whsec_"),
        (b"whsec_YWJ", "must have base64 after whsec_"),
    ],
)
def test_the_problem_of_an_invalid_secret(secret: bytes, problem: str) -> None:
    """The message says what the secret should be."""
    with pytest.raises(ValueError, match=f"^{problem}$"):
        key_of(secret)
