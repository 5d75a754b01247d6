"""The signature: only what Meta signs is accepted."""

import hashlib
import hmac

import pytest

from service import signature
from service.errors import BadSignature

SECRET = b"test_app_secret"
BODY = b'{"object":"whatsapp_business_account","entry":[]}'


def check(body: bytes, header: str | None, *secrets: bytes) -> int:
    checked = signature.Check(signature.digest_in(header), secrets)
    for start in range(0, len(body), 7):
        checked.update(body[start : start + 7])
    return checked.match()


def test_a_known_signature_is_accepted() -> None:
    """The signature of a known body under a known secret never changes."""
    header = "sha256=dec6a680679a968e7e0319355b23599cbfc54502c0784668e9618baa0c633756"
    assert check(BODY, header, SECRET) == 1
    assert signature.header_for(BODY, SECRET) == header


def test_the_name_of_the_header() -> None:
    """It is the SHA-256 header of Meta's documentation, not the older SHA-1 one."""
    assert signature.HEADER == "X-Hub-Signature-256"


def test_each_secret_is_accepted_and_its_position_returned() -> None:
    """During a rotation, the operator must see which line of the file is used."""
    header = signature.header_for(BODY, SECRET)
    assert check(BODY, header, SECRET, b"other") == 1
    assert check(BODY, header, b"other", SECRET) == 2
    assert check(BODY, header, b"other", b"another", b"third", SECRET) == 4
    assert check(BODY, header, SECRET, SECRET) == 1


def test_upper_case_digits_are_accepted() -> None:
    """Hexadecimal digits may be in either case; the prefix may not."""
    digits = signature.header_for(BODY, SECRET).removeprefix("sha256=").upper()
    assert check(BODY, f"sha256={digits}", SECRET) == 1


def _forged() -> list[tuple[str, bytes, str | None, bytes]]:
    right = hmac.digest(SECRET, BODY, "sha256").hex()
    cases: list[tuple[str, bytes, str | None, bytes]] = [
        ("absent", BODY, None, SECRET),
        ("empty", BODY, "", SECRET),
        ("prefix only", BODY, "sha256=", SECRET),
        ("no prefix", BODY, right, SECRET),
        ("upper prefix", BODY, f"SHA256={right}", SECRET),
        ("sha1", BODY, "sha1=" + hmac.digest(SECRET, BODY, "sha1").hex(), SECRET),
        ("sha1 digest, right prefix", BODY, "sha256=" + hmac.digest(SECRET, BODY, "sha1").hex(), SECRET),
        ("sha512", BODY, "sha256=" + hmac.digest(SECRET, BODY, "sha512").hex(), SECRET),
        ("plain hash", BODY, "sha256=" + hashlib.sha256(BODY).hexdigest(), SECRET),
        ("hash of secret and body", BODY, "sha256=" + hashlib.sha256(SECRET + BODY).hexdigest(), SECRET),
        ("repeated", BODY, f"sha256={right},sha256={right}", SECRET),
        ("repeated with a blank", BODY, f"sha256={right}, sha256={right}", SECRET),
        ("trailing blank", BODY, f"sha256={right} ", SECRET),
        ("leading blank", BODY, f" sha256={right}", SECRET),
        ("trailing newline", BODY, f"sha256={right}\n", SECRET),
        ("quoted", BODY, f'"sha256={right}"', SECRET),
        ("too long", BODY, f"sha256={right}00", SECRET),
        ("digits that are not ASCII", BODY, "sha256=" + "\u0661" * 64, SECRET),
        ("full-width digits", BODY, "sha256=" + "\uff11" * 64, SECRET),
        ("not hexadecimal", BODY, "sha256=" + "g" * 64, SECRET),
        ("signs", BODY, "sha256=" + "+1" * 32, SECRET),
        ("underscores", BODY, "sha256=" + "1_" * 32, SECRET),
        ("zeros", BODY, "sha256=" + "0" * 64, SECRET),
        ("empty secret", BODY, signature.header_for(BODY, b""), SECRET),
        ("the verify token as secret", BODY, signature.header_for(BODY, b"the-verify-token"), SECRET),
        ("secret with a newline", BODY, signature.header_for(BODY, SECRET + b"\n"), SECRET),
        ("secret in upper case", BODY, signature.header_for(BODY, SECRET.upper()), SECRET),
        ("body with spaces", BODY.replace(b":", b": "), f"sha256={right}", SECRET),
        ("body with a newline", BODY + b"\n", f"sha256={right}", SECRET),
        ("body with a BOM", b"\xef\xbb\xbf" + BODY, f"sha256={right}", SECRET),
        ("empty body", b"", f"sha256={right}", SECRET),
        ("body twice", BODY * 2, f"sha256={right}", SECRET),
    ]
    beside = "/:@G`g"  # the neighbours of 0-9, A-F and a-f
    cases.extend((f"{other} as a digit", BODY, f"sha256={right[:63]}{other}", SECRET) for other in beside)
    for index in range(64):
        other = format(int(right[index], 16) ^ 1, "x")
        cases.append((f"digit {index} changed", BODY, f"sha256={right[:index]}{other}{right[index + 1 :]}", SECRET))
        cases.append((f"digit {index} missing", BODY, f"sha256={right[:index]}{right[index + 1 :]}", SECRET))
    for index in range(len(BODY)):
        changed = BODY[:index] + bytes([BODY[index] ^ 1]) + BODY[index + 1 :]
        cases.append((f"byte {index} of the body changed", changed, f"sha256={right}", SECRET))
    return cases


FORGED = _forged()


def test_the_number_of_forged_requests() -> None:
    """There are at least 200."""
    assert len(FORGED) >= 200


@pytest.mark.parametrize(("body", "header", "secret"), [case[1:] for case in FORGED], ids=[case[0] for case in FORGED])
def test_a_forged_signature_is_rejected(body: bytes, header: str | None, secret: bytes) -> None:
    """It is absent, malformed, or of another algorithm, secret or body."""
    with pytest.raises(BadSignature):
        check(body, header, secret)


def test_without_a_secret_nothing_is_accepted() -> None:
    """Not even the signature under an empty secret matches."""
    for header in (signature.header_for(BODY, b""), "sha256=" + "0" * 64):
        with pytest.raises(BadSignature):
            check(BODY, header)
