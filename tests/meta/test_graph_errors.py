"""The Graph API's errors in words: the causes behind 2200, which Meta tells in a message."""

import time

import pytest

from service.meta.graph import errors, handshake_errors

FAILED = "(#2200) Callback verification failed with the following errors: "


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (f"{FAILED}HTTP Status Code = 301; HTTP Message = Moved Permanently", "it redirects (301)"),
        (f"{FAILED}HTTP Status Code = 401; HTTP Message = Unauthorized", "asks for a login"),
        (f"{FAILED}HTTP Status Code = 403; HTTP Message = Forbidden", "something before the service refuses it"),
        (f"{FAILED}HTTP Status Code = 404; HTTP Message = Not Found", "the verify token is not one in force"),
        (f"{FAILED}HTTP Status Code = 418; HTTP Message = Teapot", "it answers 418"),
        (f"{FAILED}HTTP Status Code = 502; HTTP Message = Bad Gateway", "a proxy answers"),
        (f"{FAILED}HTTP Status Code = 503; HTTP Message = Service Unavailable", "a proxy answers"),
        (f"{FAILED}curl_errno = 6; curl_error = Could not resolve host", "name in it is not found"),
        (f"{FAILED}curl_errno = 7; curl_error = Failed to connect", "nobody takes connections"),
        (f"{FAILED}curl_errno = 28; curl_error = Connection timed out after 6000 milliseconds", "six seconds"),
        (f"{FAILED}curl_errno = 35; curl_error = x; HTTP Status Code = 0", "TLS handshake failed"),
        (f"{FAILED}curl_errno = 60; curl_error = SSL certificate problem", "certificate is not trusted"),
        (f"{FAILED}curl_errno = 99; curl_error = x", "curl's error 99"),
        (
            '(#2200) Response does not match challenge, expected value="12", received="\\"12\\""',
            "in quotes or with blanks",
        ),
        ('(#2200) Response does not match challenge, expected value="12", received="12\n"', "in quotes or with blanks"),
        (
            '(#2200) Response does not match challenge, expected value="12", received="<html>\nhi"',
            "something else answers",
        ),
        ("(#2200) callback verification failed: ", "does not say why"),
    ],
)
def test_why_a_handshake_failed(message: str, says: str) -> None:
    """Each cause has its own words, and a remedy."""
    found = errors.of_answer({"code": handshake_errors.HANDSHAKE_ERROR_CODE, "message": message}, {})
    assert says in found.what
    assert found.side == errors.CALLBACK
    assert found.remedy.endswith((".", "?"))
    assert not found.again


@pytest.mark.parametrize("error", [{}, {"code": "190"}, {"code": None, "message": None}, {"code": [1], "message": {}}])
def test_a_strange_error_is_told_too(error: dict[str, object]) -> None:
    """Whatever Meta sends."""
    assert errors.of_answer(error, {"x-business-use-case-usage": "[]"}).what


def test_a_message_without_an_end() -> None:
    """Is not searched for ever: what tells a cause stands at its beginning."""
    started = time.monotonic()
    found = errors.of_answer(
        {"code": handshake_errors.HANDSHAKE_ERROR_CODE, "message": 'expected value="' * 200_000}, {}
    )
    assert "does not say why" in found.what
    assert time.monotonic() - started < 5


def test_fields_of_an_object_are_not_fields_to_choose() -> None:
    """Though Meta's words for both have the word in them."""
    told = "(#100) Tried accessing nonexisting field (x) on node type (Business)"
    assert "not of what it was given as" in errors.of_answer({"code": 100, "message": told}, {}).what
    told = "(#100) Param fields[0] must be one of {messages}"
    assert "does not know one of the fields" in errors.of_answer({"code": 100, "message": told}, {}).what
