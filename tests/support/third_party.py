"""Licences and known vulnerabilities of the Python packages in the image, for `make audit`."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
LOCK: Final = ROOT / "requirements.lock"
PAGE: Final = ROOT / "THIRD_PARTY.md"
# Licences that may be combined with the project's, Apache-2.0, and used in an image that anybody may run.
ALLOWED: Final = frozenset(
    {
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "LGPL-3.0-only",  # psycopg, used as a library that can be replaced
        "MIT",
        "MIT-0",
        "MPL-2.0",
        "PSF-2.0",
        "ZPL-2.1",
        "any OSI-approved",
    }
)
# The identifiers of licences that packages name in their own words.
_IDENTIFIERS: Final = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache Software License": "Apache-2.0",
    "MIT License": "MIT",
    "ZPL 2.1": "ZPL-2.1",
    "any-OSI": "any OSI-approved",
}
_HEAD: Final = """\
# Third-party software

The Python packages in the image, with the licence that each declares: made by `make audit` from `requirements.lock`.
Their licence texts are in the image, in the `.dist-info` directories of `/opt/venv`. The base image is Debian with
Python; its packages' licences are in `/usr/share/doc`.

| package | licence |
|---|---|
"""


def packages() -> Sequence[str]:
    """Return the names of the packages in the lock file."""
    return re.findall(r"^([a-z0-9-]+)==", LOCK.read_text(), re.MULTILINE)


def licence_of(package: str) -> str:
    """Return the licence of an installed package: an SPDX expression if it declares one.

    Raises PackageNotFoundError.
    """
    about = metadata.metadata(package)
    classifiers = [each.rpartition(" :: ")[2] for each in about.get_all("Classifier") or () if "License ::" in each]
    declared = about["License-Expression"] or (about["License"] or "").split("\n")[0] or next(iter(classifiers), "")
    return _IDENTIFIERS.get(declared, declared)


def refused(licence: str) -> bool:
    """Return whether a licence, or each alternative of an expression, has a part that is not allowed."""
    alternatives = re.split(r" OR ", licence.replace("(", "").replace(")", ""))
    return not any(set(re.split(r" AND ", each)) <= ALLOWED for each in alternatives)


def page() -> str:
    """Return the content of THIRD_PARTY.md."""
    return _HEAD + "".join(f"| {name} | {licence_of(name)} |\n" for name in packages())


def vulnerabilities(program: str) -> tuple[Sequence[str], Sequence[str]]:
    """Return known vulnerabilities, and packages that could not be checked, according to `pip-audit`."""
    command = [program, "--require-hashes", "--disable-pip", "-r", str(LOCK), "-f", "json", "--progress-spinner", "off"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout:
        raise SystemExit(done.stderr)
    dependencies = json.loads(done.stdout)["dependencies"]
    found = [f"{each['name']}: {one['id']}" for each in dependencies for one in each.get("vulns", ())]
    return found, [each["name"] for each in dependencies if "skip_reason" in each]


def main(program: str | None) -> str:
    """Write the page, and print what was found; return the problem, or an empty string."""
    PAGE.write_text(page())
    wrong = [f"{name} ({licence_of(name)})" for name in packages() if refused(licence_of(name))]
    print(f"licences of {len(packages())} packages: {PAGE.name}")
    if wrong:
        return f"licences that are not allowed: {', '.join(wrong)}"
    if program is None:
        print("vulnerabilities are not checked: make release-tools installs pip-audit")
        return ""
    found, unchecked = vulnerabilities(program)
    if unchecked:
        print(f"vulnerabilities of {len(unchecked)} packages are not checked: the registry does not answer about them")
    return f"known vulnerabilities: {', '.join(found)}" if found else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 and Path(sys.argv[1]).is_file() else None) or None)
