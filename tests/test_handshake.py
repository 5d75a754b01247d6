"""The handshake: the challenge for who knows a token, one refusal for everybody else."""

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
    """However long it is; and so does its length."""
    token = "t" * 200
    assert verify(urlencode(GOOD | {"hub.verify_token": token}), (token.encode(),)).position == 1
    for other in (token[:at] + "u" + token[at + 1 :], token[:at], token + "t"):
        with pytest.raises(HandshakeRefused, match="wrong_token"):
            verify(urlencode(GOOD | {"hub.verify_token": other}), (token.encode(),))


def test_the_challenge_comes_back_with_the_token_position() -> None:
    """Each token in force is accepted, and which one is told."""
    assert verify(urlencode(GOOD), TOKENS) == ("1158201444", 1)
    assert verify(urlencode(GOOD | {"hub.verify_token": "second-token"}), TOKENS) == ("1158201444", 2)
    assert verify(urlencode(GOOD), (b"first-token", b"first-token")).position == 1


def test_other_parameters_do_no_harm() -> None:
    """A proxy may add its own."""
    assert verify("a=b&" + urlencode(GOOD) + "&utm=1", TOKENS).challenge == "1158201444"


@pytest.mark.parametrize("name", list(GOOD))
def test_a_missing_parameter(name: str) -> None:
    """Each of the three is needed."""
    assert reason(urlencode({key: value for key, value in GOOD.items() if key != name})) == "missing_parameter"


@pytest.mark.parametrize("name", list(GOOD))
def test_a_repeated_parameter(name: str) -> None:
    """Each of the three is there exactly once, also if both say the same."""
    assert reason(urlencode(GOOD) + "&" + urlencode({name: GOOD[name]})) == "repeated_parameter"


def test_names_are_compared_after_decoding() -> None:
    """A parameter that is hidden by percent-encoding its name counts too."""
    assert reason(urlencode(GOOD) + "&hub%2Echallenge=2") == "repeated_parameter"


@pytest.mark.parametrize("mode", ["", "Subscribe", "unsubscribe", "subscribe ", "subscribe\n"])
def test_a_wrong_mode(mode: str) -> None:
    """The mode is `subscribe`, to the letter."""
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
    """Close is not equal."""
    assert reason(urlencode(GOOD | {"hub.verify_token": token})) == "wrong_token"


@pytest.mark.parametrize(
    "challenge", ["", " ", "a b", "<script>", "a\r\nb", "é", "a" * 257, "a;b", "a&b", '"a"', "a\n", "１", "a,b", "{}"]
)
def test_a_challenge_that_could_do_harm(challenge: str) -> None:
    """What is echoed is 1 to 256 harmless characters."""
    assert reason(urlencode(GOOD | {"hub.challenge": challenge})) == "bad_challenge"


def test_every_character_that_is_allowed_in_a_challenge() -> None:
    """The set is as published, and 256 are not too many."""
    every = string.ascii_letters + string.digits + "._~+/=-"
    assert verify(urlencode(GOOD | {"hub.challenge": every}), TOKENS).challenge == every
    assert verify(urlencode(GOOD | {"hub.challenge": "a" * 256}), TOKENS).challenge == "a" * 256
    assert verify(urlencode(GOOD | {"hub.challenge": "0001"}), TOKENS).challenge == "0001"


def test_every_byte_that_is_not_allowed_in_a_challenge() -> None:
    """One byte beyond the set, among others or alone, and nothing is echoed."""
    allowed = (string.ascii_letters + string.digits + "._~+/=-").encode()
    for byte in sorted(set(range(256)) - set(allowed)):
        for challenge in (bytes([byte]), b"1" + bytes([byte]) + b"1"):
            query = f"hub.mode=subscribe&hub.verify_token=first-token&hub.challenge={quote(challenge, safe='')}"
            assert reason(query) == "bad_challenge"


def test_without_a_token_in_force_nothing_verifies() -> None:
    """Not an empty token, and not a right-looking one."""
    assert reason(urlencode(GOOD), ()) == "not_configured"
    assert reason(urlencode(GOOD | {"hub.verify_token": ""}), ()) == "not_configured"


def test_an_empty_query() -> None:
    """A stranger's GET."""
    assert reason("") == "missing_parameter"


@given(st.binary(min_size=1, max_size=40).filter(lambda token: token.strip() == token))
def test_a_token_of_any_bytes(token: bytes) -> None:
    """Tokens are compared as the bytes that the file and the query hold."""
    query = f"hub.mode=subscribe&hub.challenge=1&hub.verify_token={quote(token, safe='')}"
    assert verify(query, (b"other", token)).position == 2
    assert reason(query, (token + b"x",)) == "wrong_token"


@given(st.text(max_size=200))
def test_no_query_does_anything_else(query: str) -> None:
    """Whatever the query is, it is refused with a reason of the closed set."""
    raw = query.encode("utf-8", "surrogatepass").decode("latin-1")
    assert reason(raw) in {"missing_parameter", "repeated_parameter", "wrong_mode", "bad_challenge", "wrong_token"}
