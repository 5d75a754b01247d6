"""Explanations of the Graph API's errors, such as the causes behind 2200, which are in Meta's message only."""

import time

import pytest

from service.meta.graph import errors, handshake_errors

FAILED = "(#2200) Callback verification failed with the following errors: "


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (f"{FAILED}HTTP Status Code = 301; HTTP Message = Moved Permanently", "it redirects (301)"),
        (f"{FAILED}HTTP Status Code = 401; HTTP Message = Unauthorized", "requires a login"),
        (
            f"{FAILED}HTTP Status Code = 403; HTTP Message = Forbidden",
            "something in front of the service refuses the request",
        ),
        (f"{FAILED}HTTP Status Code = 404; HTTP Message = Not Found", "the service does not accept the verify token"),
        (f"{FAILED}HTTP Status Code = 418; HTTP Message = Teapot", "it answers 418"),
        (f"{FAILED}HTTP Status Code = 502; HTTP Message = Bad Gateway", "a proxy answers"),
        (f"{FAILED}HTTP Status Code = 503; HTTP Message = Service Unavailable", "a proxy answers"),
        (f"{FAILED}curl_errno = 6; curl_error = Could not resolve host", "host name could not be resolved"),
        (f"{FAILED}curl_errno = 7; curl_error = Failed to connect", "could not connect"),
        (f"{FAILED}curl_errno = 28; curl_error = Connection timed out after 6000 milliseconds", "six seconds"),
        (f"{FAILED}curl_errno = 35; curl_error = x; HTTP Status Code = 0", "TLS handshake failed"),
        (f"{FAILED}curl_errno = 60; curl_error = SSL certificate problem", "certificate is not trusted"),
        (f"{FAILED}curl_errno = 99; curl_error = x", "curl error 99"),
        (
            '(#2200) Response does not match challenge, expected value="12", received="\\"12\\""',
            "in quotes or with whitespace",
        ),
        (
            '(#2200) Response does not match challenge, expected value="12", received="12\n"',
            "in quotes or with whitespace",
        ),
        (
            '(#2200) Response does not match challenge, expected value="12", received="<html>\nhi"',
            "something else answers",
        ),
        ("(#2200) callback verification failed: ", "does not say why"),
    ],
)
def test_why_a_handshake_failed(message: str, expected: str) -> None:
    """Each cause has its own explanation, and a remedy."""
    found = errors.of_error({"code": handshake_errors.HANDSHAKE_ERROR_CODE, "message": message}, {})
    assert expected in found.what
    assert found.side == errors.CALLBACK
    assert found.remedy.endswith((".", "?"))
    assert not found.again


@pytest.mark.parametrize("error", [{}, {"code": "190"}, {"code": None, "message": None}, {"code": [1], "message": {}}])
def test_a_malformed_error(error: dict[str, object]) -> None:
    """Any error object is explained."""
    assert errors.of_error(error, {"x-business-use-case-usage": "[]"}).what


def test_a_very_long_message() -> None:
    """Only its beginning is searched, which takes little time."""
    started = time.monotonic()
    found = errors.of_error(
        {"code": handshake_errors.HANDSHAKE_ERROR_CODE, "message": 'expected value="' * 200_000}, {}
    )
    assert "does not say why" in found.what
    assert time.monotonic() - started < 5


def test_two_meanings_of_field() -> None:
    """Meta's messages about an object's fields and about webhook fields have different explanations."""
    message = "(#100) Tried accessing nonexisting field (x) on node type (Business)"
    assert "the id of another kind of object" in errors.of_error({"code": 100, "message": message}, {}).what
    message = "(#100) Param fields[0] must be one of {messages}"
    assert "does not know one of the fields" in errors.of_error({"code": 100, "message": message}, {}).what
