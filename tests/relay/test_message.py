"""What a destination gets, judged by others: Meta's signature, the CloudEvents SDK, the Standard Webhooks library."""

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


def one(body: bytes = catalogue.notification("message text")) -> Event:
    return events.parse(body, received_at=NOW * 1000, nonce="n")[0]


def composed(
    event: Event, form: str, *, replay: bool = False, now: int = NOW, headers: Mapping[str, str] = MappingProxyType({})
) -> Message:
    secrets = [b"current", b"older"] if form == "meta" else KEYS
    return compose(event, form, headers, secrets, now=now, replay=replay, traceparent="00-1-2-01")


def test_meta_is_what_meta_would_have_sent() -> None:
    """The event's data byte for byte, signed with the first secret as Meta signs."""
    event = one()
    sent = composed(event, "meta", headers={"X-Tenant": "a"})
    assert sent.body == event.data
    right = hmac.new(b"current", sent.body, hashlib.sha256).hexdigest()
    assert sent.headers == {
        "X-Tenant": "a",
        "traceparent": "00-1-2-01",
        "Content-Type": "application/json",
        "X-Hub-Signature-256": f"sha256={right}",
    }


@pytest.mark.parametrize("replay", [False, True])
def test_the_cloudevents_sdk_reads_it(replay: bool) -> None:  # noqa: FBT001
    """Every attribute, and the data."""
    event = one()
    sent = composed(event, "cloudevents", replay=replay)
    found = from_binary(HTTPMessage(headers=sent.headers, body=sent.body), JSONFormat())
    assert (found.get_id(), found.get_type(), found.get_source()) == (event.id, event.type, event.source)
    assert found.get_subject() == event.subject
    assert found.get_time().timestamp() * 1000 == event.time
    assert found.get_extension("partitionkey") == event.partitionkey
    assert found.get_extension("replay") == ("true" if replay else None)
    assert found.get_data() == json.loads(event.data)


def test_the_standard_webhooks_library_verifies_it() -> None:
    """With either secret, so that one can be changed while the other still holds; with no third one."""
    sent = composed(one(), "cloudevents", now=int(time.time()))
    for key in KEYS:
        assert Webhook(key.decode()).verify(sent.body, sent.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + base64.b64encode(b"3" * 24).decode()).verify(sent.body, sent.headers)


def test_the_id_is_the_same_on_every_try() -> None:
    """What a consumer tells repeats by."""
    attempts = [composed(one(), "cloudevents", now=NOW + number).headers for number in range(3)]
    assert len({headers["webhook-id"] for headers in attempts}) == len({headers["ce-id"] for headers in attempts}) == 1
    assert len({headers["webhook-signature"] for headers in attempts}) == 3


def test_what_is_no_header_is_escaped() -> None:
    """As the HTTP binding says: percent-encoded UTF-8; our own ids need none of it."""
    event = msgspec.structs.replace(one(), subject='a "quoted" 100% é\r\nx: y')
    value = composed(event, "cloudevents").headers["ce-subject"]
    assert value.isascii()
    assert not set(value) & set(' "\r\n')
    assert unquote(value) == event.subject


def test_what_is_no_json_says_so() -> None:
    """A body that was not recognized goes out as it came."""
    for body, kind in ((b"\xff no JSON", "application/octet-stream"), (b'{"a": 1}', "application/json")):
        sent = composed(one(body), "cloudevents")
        assert (sent.body, sent.headers["Content-Type"]) == (body, kind)


@pytest.mark.needs("corpus")
def test_all_of_the_corpus(corpus: list[Path]) -> None:
    """Every real update can be sent, and read."""
    for file in corpus:
        for event in events.parse(file.read_bytes(), received_at=NOW * 1000, nonce="n"):
            sent = composed(event, "cloudevents")
            assert all(value.isascii() and value.isprintable() for value in sent.headers.values())
            assert from_binary(HTTPMessage(headers=sent.headers, body=sent.body), JSONFormat()).get_id() == event.id


@pytest.mark.parametrize("secret", [b"secret", b"whsec_", b"whsec_not base64!", b"whsec_abc"])
def test_a_secret_that_is_none(secret: bytes) -> None:
    """Is told, not guessed."""
    with pytest.raises(ValueError, match="whsec_"):
        key_of(secret)


def made(**changes: Any) -> Event:
    (event,) = events.parse(catalogue.notification("message text"), received_at=NOW * 1000, nonce="")
    return event._replace(**changes) if hasattr(event, "_replace") else msgspec.structs.replace(event, **changes)


def written(event: Event, form: str = "cloudevents", **more: Any) -> Message:
    given = {"now": NOW, "replay": False, "traceparent": None} | more
    return compose(event, form, {"X-Key": "k"}, KEYS, **given)


def test_every_header_is_text_by_its_right_name() -> None:
    """The destination's own, which stay as they are, the event's attributes, and those of the signature."""
    own = {"X-Key": "k"}
    found = compose(made(), "cloudevents", own, KEYS, now=NOW, replay=False, traceparent=None).headers
    named = {"X-Key", "Content-Type", "webhook-id", "webhook-timestamp", "webhook-signature"}
    attributes = {"specversion", "id", "type", "source", "subject", "time", "partitionkey"}
    assert set(found) == named | {f"ce-{name}" for name in attributes}
    assert all(isinstance(value, str) for value in found.values())
    assert found["webhook-timestamp"] == str(NOW)
    assert own == {"X-Key": "k"}
    assert written(made(), "meta").headers.keys() == {"X-Key", "Content-Type", "X-Hub-Signature-256"}


def test_the_marks_of_a_test_and_of_a_replay() -> None:
    """Are there where it is one, and only there."""
    for test, replay in ((True, False), (False, True)):
        found = written(made(test=test), replay=replay).headers
        assert (found.get("ce-test"), found.get("ce-replay")) == ("true" if test else None, "true" if replay else None)


def test_what_a_header_can_hold_as_it_is() -> None:
    """Printable ASCII but blank, quote and percent; the rest is written by its bytes in UTF-8."""
    plain = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
    assert written(made(subject=plain)).headers["ce-subject"] == plain
    assert written(made(subject=' "%é\n\x7f☺')).headers["ce-subject"] == "%20%22%25%C3%A9%0A%7F%E2%98%BA"


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        (b"secret", "wants whsec_ and base64 behind it"),
        (b"whsec_", "wants base64 behind whsec_"),
        (b"whsec_YWJj!", "wants base64 behind whsec_"),
        (b"whsec_YWJ", "wants base64 behind whsec_"),
    ],
)
def test_what_is_no_secret_is_said(secret: bytes, said: str) -> None:
    """With what it should be."""
    with pytest.raises(ValueError, match=f"^{said}$"):
        key_of(secret)
