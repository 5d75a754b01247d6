"""The handshake: a caller with an accepted token gets the challenge; all others are rejected."""

import string
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import HandshakeRefused
from service.handshake import verify

TOKENS = (b"first-token", b"second-token")
GOOD = {"hub.mode": "subscribe", "hub.verify_token": "first-token", "hub.challenge": "1158201444"}


def reason(query: str, tokens: tuple[bytes, ...] = TOKENS) -> str:
    with pytest.raises(HandshakeRefused) as refused:
        verify(query, tokens)
    return refused.value.reason


@pytest.mark.parametrize("at", [0, 31, 63, 64, 65, 199])
def test_every_character_of_a_token_counts(at: int) -> None:
    """A long token is compared in full, including its length."""
    token = "t" * 200
    assert verify(urlencode(GOOD | {"hub.verify_token": token}), (token.encode(),)).position == 1
    for other in (token[:at] + "u" + token[at + 1 :], token[:at], token + "t"):
        with pytest.raises(HandshakeRefused, match="wrong_token"):
            verify(urlencode(GOOD | {"hub.verify_token": other}), (token.encode(),))


def test_the_challenge_comes_back_with_the_token_position() -> None:
    """Each accepted token verifies, and its position is returned."""
    assert verify(urlencode(GOOD), TOKENS) == ("1158201444", 1)
    assert verify(urlencode(GOOD | {"hub.verify_token": "second-token"}), TOKENS) == ("1158201444", 2)
    assert verify(urlencode(GOOD), (b"first-token", b"first-token")).position == 1


def test_other_parameters_are_ignored() -> None:
    """A proxy may add parameters."""
    assert verify("a=b&" + urlencode(GOOD) + "&utm=1", TOKENS).challenge == "1158201444"


@pytest.mark.parametrize("name", list(GOOD))
def test_a_missing_parameter(name: str) -> None:
    """Each of the three parameters is required."""
    assert reason(urlencode({key: value for key, value in GOOD.items() if key != name})) == "missing_parameter"


@pytest.mark.parametrize("name", list(GOOD))
def test_a_repeated_parameter(name: str) -> None:
    """Each of the three parameters must occur exactly once, even with equal values."""
    assert reason(urlencode(GOOD) + "&" + urlencode({name: GOOD[name]})) == "repeated_parameter"


def test_names_are_compared_after_decoding() -> None:
    """A repeated parameter with a percent-encoded name is recognized."""
    assert reason(urlencode(GOOD) + "&hub%2Echallenge=2") == "repeated_parameter"


@pytest.mark.parametrize("mode", ["", "Subscribe", "unsubscribe", "subscribe ", "subscribe\n"])
def test_a_wrong_mode(mode: str) -> None:
    """The mode must be exactly `subscribe`."""
    assert reason(urlencode(GOOD | {"hub.mode": mode})) == "wrong_mode"


@pytest.mark.parametrize(
    "token",
    [
        "",
        "wrong",
        "first-toke",
        "first-token2",
        " first-token",
        "first-token\n",
        "FIRST-TOKEN",
        "first-token\x00",
        "tökén",
    ],
)
def test_a_wrong_token(token: str) -> None:
    """A token that differs slightly is rejected."""
    assert reason(urlencode(GOOD | {"hub.verify_token": token})) == "wrong_token"


@pytest.mark.parametrize(
    "challenge", ["", " ", "a b", "<script>", "a\r\nb", "é", "a" * 257, "a;b", "a&b", '"a"', "a\n", "１", "a,b", "{}"]
)
def test_a_bad_challenge(challenge: str) -> None:
    """A challenge must be 1 to 256 characters of the allowed set."""
    assert reason(urlencode(GOOD | {"hub.challenge": challenge})) == "bad_challenge"


def test_every_character_that_is_allowed_in_a_challenge() -> None:
    """All allowed characters are echoed, and a challenge may have 256 of them."""
    every = string.ascii_letters + string.digits + "._~+/=-"
    assert verify(urlencode(GOOD | {"hub.challenge": every}), TOKENS).challenge == every
    assert verify(urlencode(GOOD | {"hub.challenge": "a" * 256}), TOKENS).challenge == "a" * 256
    assert verify(urlencode(GOOD | {"hub.challenge": "0001"}), TOKENS).challenge == "0001"


def test_every_byte_that_is_not_allowed_in_a_challenge() -> None:
    """A challenge with one byte outside of the set is rejected."""
    allowed = (string.ascii_letters + string.digits + "._~+/=-").encode()
    for byte in sorted(set(range(256)) - set(allowed)):
        for challenge in (bytes([byte]), b"1" + bytes([byte]) + b"1"):
            query = f"hub.mode=subscribe&hub.verify_token=first-token&hub.challenge={quote(challenge, safe='')}"
            assert reason(query) == "bad_challenge"


def test_without_an_accepted_token_nothing_verifies() -> None:
    """Neither an empty token nor any other one."""
    assert reason(urlencode(GOOD), ()) == "not_configured"
    assert reason(urlencode(GOOD | {"hub.verify_token": ""}), ()) == "not_configured"


def test_an_empty_query() -> None:
    """It has no parameters."""
    assert reason("") == "missing_parameter"


@given(st.binary(min_size=1, max_size=40).filter(lambda token: token.strip() == token))
def test_a_token_of_any_bytes(token: bytes) -> None:
    """Tokens are compared as bytes, whatever their encoding."""
    query = f"hub.mode=subscribe&hub.challenge=1&hub.verify_token={quote(token, safe='')}"
    assert verify(query, (b"other", token)).position == 2
    assert reason(query, (token + b"x",)) == "wrong_token"


@given(st.text(max_size=200))
def test_any_other_query_is_rejected(query: str) -> None:
    """The reason is one of the closed set."""
    raw = query.encode("utf-8", "surrogatepass").decode("latin-1")
    assert reason(raw) in {"missing_parameter", "repeated_parameter", "wrong_mode", "bad_challenge", "wrong_token"}
