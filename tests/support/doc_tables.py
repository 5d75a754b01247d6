"""The tables in the docs that are generated from the code: `make docs` writes them, a test compares them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from service.doctor.check_table import CHECKS

ROOT: Final = Path(__file__).parents[2]


def doctor_checks() -> str:
    """Return a row for each check of the doctor, with an anchor."""
    rows = [
        f'| <a id="check-{check.id.replace(" ", "-")}"></a>`{check.id}` | {check.may_be_wrong} | {check.to_do} |'
        for check in CHECKS
    ]
    return "\n".join(["| check | what may be wrong | what to do |", "|---|---|---|", *rows])


TABLES: Final[dict[str, tuple[str, Callable[[], str]]]] = {"doctor-checks": ("docs/meta.md", doctor_checks)}


def written(page: str, name: str, table: str) -> str:
    """Return the page with *table* between the markers of *name*."""
    pattern = rf"(?s)(<!-- {name}: made by `make docs` -->\n).*?(\n<!-- end of {name} -->)"
    return re.sub(pattern, lambda match: match[1] + table + match[2], page)


if __name__ == "__main__":
    for name, (path, make) in TABLES.items():
        file = ROOT / path
        file.write_text(written(file.read_text(), name, make()))
