"""Versions of the Graph API, and when Meta ends them.

Source: Meta, "Graph API > Changelog > Available Graph API Versions". The default version is in `config/settings.py`.
"""

import datetime as dt
from collections.abc import Mapping
from typing import Final

END_OF_LIFE: Final[Mapping[str, dt.date]] = {
    "v20.0": dt.date(2026, 9, 24),
    "v21.0": dt.date(2027, 1, 21),
    "v22.0": dt.date(2027, 5, 20),
    "v23.0": dt.date(2027, 10, 8),
}
WARNING_DAYS: Final = 90


def warning(version: str, answered: str, today: dt.date) -> str:
    """Return why *version* should be changed: it ends soon, or Meta *answered* with another one; empty if neither."""
    if answered and answered != version:
        return f"Meta answered with version {answered} of the Graph API instead of {version}, which it may have ended."
    end = END_OF_LIFE.get(version)
    if end is None or (end - today).days > WARNING_DAYS:
        return ""
    return f"Version {version} of the Graph API {'ends' if end >= today else 'ended'} on {end.isoformat()}."
