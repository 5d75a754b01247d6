"""Versions of the Graph API: a warning comes early enough, and only if there is a reason."""

import datetime as dt

import pytest

from service.meta.graph import versions

END = versions.END_OF_LIFE["v21.0"]


@pytest.mark.parametrize(
    ("version", "answered", "days_left", "expected"),
    [
        ("v21.0", "v21.0", 91, ""),
        ("v21.0", "v21.0", 90, "Version v21.0 of the Graph API ends on 2027-01-21."),
        ("v21.0", "", 0, "Version v21.0 of the Graph API ends on 2027-01-21."),
        ("v21.0", "", -1, "Version v21.0 of the Graph API ended on 2027-01-21."),
        ("v99.0", "", 0, ""),
        ("v99.0", "v26.0", 500, "Meta answered with version v26.0"),
    ],
)
def test_a_version_that_ends(version: str, answered: str, days_left: int, expected: str) -> None:
    """From 90 days before its end; or as soon as Meta answers with another version."""
    warning = versions.warning(version, answered, END - dt.timedelta(days=days_left))
    assert warning.startswith(expected)
    assert bool(warning) == bool(expected)
