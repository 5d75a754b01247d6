"""What a destination gets: an event as Meta would have sent it, or as a CloudEvent, signed.

Sources: "Validate payloads", WhatsApp Business Platform documentation; CloudEvents 1.0 "HTTP Protocol Binding",
sections 3.1 and 3.1.3.2; Standard Webhooks, "Signature scheme" (https://www.standardwebhooks.com).
"""

import base64
import binascii
import hmac
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from service import signature
from service.events import Event, attributes_of, in_header, is_json
from service.relay.destinations import META_FORMAT

STANDARD_PREFIX: Final = b"whsec_"


class Message(NamedTuple):
    """One POST, ready to be sent."""

    headers: dict[str, str]
    body: bytes


def compose(
    event: Event,
    form: str,
    own_headers: Mapping[str, str],
    secrets: Sequence[bytes],
    *,
    now: int,
    replay: bool,
    traceparent: str | None,
) -> Message:
    """Write *event* in the format *form*, signed with each of *secrets* if the format holds several.

    *own_headers* are the destination's; *now* is in seconds since the epoch.
    """
    headers = dict(own_headers)
    if traceparent:
        headers["traceparent"] = traceparent
    if form == META_FORMAT:
        headers["Content-Type"] = "application/json"
        headers[signature.HEADER] = signature.header_for(event.data, secrets[0])
        return Message(headers, event.data)
    told = attributes_of(event)
    marks = {"test": event.test, "replay": replay}
    told |= {mark: "true" for mark, is_set in marks.items() if is_set}
    headers |= {f"ce-{name}": in_header(value) for name, value in told.items()}
    headers["Content-Type"] = "application/json" if is_json(event) else "application/octet-stream"
    headers["webhook-id"] = event.id
    headers["webhook-timestamp"] = str(now)
    signed = b"%b.%d.%b" % (event.id.encode(), now, event.data)
    headers["webhook-signature"] = " ".join(
        "v1," + base64.b64encode(hmac.digest(key_of(secret), signed, "sha256")).decode("ascii") for secret in secrets
    )
    return Message(headers, event.data)


def key_of(secret: bytes) -> bytes:
    """Give the key that a Standard Webhooks secret (`whsec_` and base64) holds; raises ValueError where it is none."""
    if not secret.startswith(STANDARD_PREFIX):
        raise ValueError("wants whsec_ and base64 behind it")
    try:
        key = base64.b64decode(secret.removeprefix(STANDARD_PREFIX), validate=True)
    except binascii.Error as ex:
        raise ValueError("wants base64 behind whsec_") from ex
    if not key:
        raise ValueError("wants base64 behind whsec_")
    return key
