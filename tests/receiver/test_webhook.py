"""The webhook resource: the order of the checks of a notification."""

import io
from typing import TypeVar

import falcon
import pytest
from falcon import testing

from service import signature
from service.credentials import Credentials
from service.errors import BadSignature
from service.receiver.webhook import Limits, Webhook
from service.storage.protocols import Outcome
from service.telemetry import logs
from tests.support.instruments import receiver_instruments

T = TypeVar("T")
SECRET = b"0123456789abcdef"
BODY = b'{"object":"whatsapp_business_account","entry":[]}'


class Recorded:
    """A webhook that records the names of the dependencies it uses, in order."""

    def __init__(self) -> None:
        self.used: list[str] = []
        logs.configure(level="error", form="json", stream=io.StringIO())
        self.webhook = Webhook(
            credentials=lambda: self._use("credentials", Credentials(app_secrets=(SECRET,))),
            submit=lambda events, *_: self._use("submit", [Outcome.NEW] * len(events)),
            fields=(),
            limits=Limits(body_bytes=1000, read_timeout=1, accept_timeout=1),
            instruments=receiver_instruments(clock=lambda: self._use("now", 0)),
            keyed_hasher=logs.KeyedHasher(),
            nonce=lambda: self._use("nonce", "nonce"),
            rate_limited_log=logs.RateLimitedLog(logs.get("webhook")),
        )

    def _use(self, name: str, value: T) -> T:
        self.used.append(name)
        return value

    def post(self, header: str) -> falcon.Response:
        """Send a POST of BODY with the signature *header*; return the response."""
        environ = testing.create_environ(method="POST", headers={signature.HEADER: header, "Content-Length": "49"})
        environ["wsgi.input"] = self
        self._left = io.BytesIO(BODY)
        response = falcon.Response()
        self.webhook.on_post(falcon.Request(environ), response)
        return response

    def read(self, size: int) -> bytes:
        """Return a piece of the body: this object is the request's `wsgi.input`."""
        return self._use("body", self._left.read(size))


def test_the_order_of_the_checks() -> None:
    """The secrets are read before the body; a body is parsed only if its signature is valid, then stored."""
    recorded = Recorded()
    assert recorded.post(signature.header_for(BODY, SECRET)).status == falcon.HTTP_200
    assert recorded.used == ["credentials", "body", "now", "nonce", "submit"]


def test_a_forged_body_is_never_parsed() -> None:
    """A body with an invalid signature reaches neither the parser nor the inbox."""
    recorded = Recorded()
    with pytest.raises(BadSignature):
        recorded.post("sha256=" + "0" * 64)
    assert recorded.used == ["credentials", "body"]


def test_a_malformed_signature_header() -> None:
    """The notification is rejected before its body is read."""
    recorded = Recorded()
    with pytest.raises(BadSignature):
        recorded.post("sha256=0")
    assert recorded.used == ["credentials"]
