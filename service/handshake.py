"""The handshake: Meta checks whether the server at this URL knows the verify token.

Source: "Webhooks > Create a webhook endpoint > Verification requests", WhatsApp Business Platform documentation.
"""

import hmac
import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import parse_qsl

from service.errors import HandshakeRefused
from service.outcomes import HandshakeOutcome

_PARAMETERS = ("hub.mode", "hub.verify_token", "hub.challenge")
# The challenge is opaque. It is echoed, so it must not let a caller make this host return arbitrary content.
_CHALLENGE = re.compile(r"[A-Za-z0-9._~+/=-]{1,256}")


class Verified(NamedTuple):
    """The challenge to return, and the position, from 1, of the accepted token that matched."""

    challenge: str
    position: int


def verify(query: str, tokens: Sequence[bytes]) -> Verified:
    """Check the *query* string of a verification request against the accepted *tokens*.

    Raises HandshakeRefused with its reason.
    """
    if not tokens:
        raise HandshakeRefused(HandshakeOutcome.NOT_CONFIGURED)
    mode, token, challenge = _parameters(query)
    if mode != "subscribe":
        raise HandshakeRefused(HandshakeOutcome.WRONG_MODE)
    if not _CHALLENGE.fullmatch(challenge):
        raise HandshakeRefused(HandshakeOutcome.BAD_CHALLENGE)
    return Verified(challenge, _position(token.encode("latin-1"), tokens))


def _parameters(query: str) -> list[str]:
    # Latin-1 preserves each percent-decoded byte, so that a token is compared as bytes.
    pairs = parse_qsl(query, keep_blank_values=True, encoding="latin-1")
    parameters = []
    for name in _PARAMETERS:
        values = [value for key, value in pairs if key == name]
        if not values:
            raise HandshakeRefused(HandshakeOutcome.MISSING_PARAMETER)
        if len(values) > 1:
            raise HandshakeRefused(HandshakeOutcome.REPEATED_PARAMETER)
        parameters.append(values[0])
    return parameters


def _position(token: bytes, tokens: Sequence[bytes]) -> int:
    position = 0
    for index, known in enumerate(tokens, start=1):
        if hmac.compare_digest(token, known):
            position = position or index
    if not position:
        raise HandshakeRefused(HandshakeOutcome.WRONG_TOKEN)
    return position
