"""Writes and signs the request for a destination: an event as Meta would have sent it, or as a CloudEvent.

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
    """Return the request for *event* in the format *form*, signed with each of *secrets* if the format allows several.

    *own_headers* are the destination's; *now* is in seconds since the epoch.
    """
    headers = dict(own_headers)
    if traceparent:
        headers["traceparent"] = traceparent
    if form == META_FORMAT:
        headers["Content-Type"] = "application/json"
        headers[signature.HEADER] = signature.header_for(event.data, secrets[0])
        return Message(headers, event.data)
    attributes = attributes_of(event)
    flags = {"test": event.test, "replay": replay}
    attributes |= {flag: "true" for flag, is_set in flags.items() if is_set}
    headers |= {f"ce-{name}": in_header(value) for name, value in attributes.items()}
    headers["Content-Type"] = "application/json" if is_json(event) else "application/octet-stream"
    headers["webhook-id"] = event.id
    headers["webhook-timestamp"] = str(now)
    signed = b"%b.%d.%b" % (event.id.encode(), now, event.data)
    headers["webhook-signature"] = " ".join(
        "v1," + base64.b64encode(hmac.digest(key_of(secret), signed, "sha256")).decode("ascii") for secret in secrets
    )
    return Message(headers, event.data)


def key_of(secret: bytes) -> bytes:
    """Return the key in a Standard Webhooks secret (`whsec_` and base64); raise ValueError if it is not one."""
    if not secret.startswith(STANDARD_PREFIX):
        raise ValueError("must be whsec_ followed by base64")
    try:
        key = base64.b64decode(secret.removeprefix(STANDARD_PREFIX), validate=True)
    except binascii.Error as ex:
        raise ValueError("must have base64 after whsec_") from ex
    if not key:
        raise ValueError("must have base64 after whsec_")
    return key
