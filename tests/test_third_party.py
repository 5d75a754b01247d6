"""The licences of the packages in the image are known and allowed; `make audit` writes the page."""

import pytest

from tests.support import third_party


def test_the_page_is_that_of_the_lock() -> None:
    """With each package once, and a licence that is allowed."""
    assert third_party.PAGE.read_text() == third_party.page(), "run `make audit`"
    assert [name for name in third_party.packages() if third_party.refused(third_party.licence_of(name))] == []
    assert len(third_party.packages()) > 40


@pytest.mark.parametrize(
    ("licence", "is_refused"),
    [
        ("MIT", False),
        ("MIT OR GPL-3.0-only", False),
        ("(MIT AND Apache-2.0)", False),
        ("MIT AND GPL-3.0-only", True),
        ("AGPL-3.0-only", True),
        ("", True),
        ("Proprietary", True),
    ],
)
def test_an_expression(licence: str, is_refused: bool) -> None:  # noqa: FBT001
    """One alternative must be allowed as a whole; a package that declares nothing is refused."""
    assert third_party.refused(licence) is is_refused
