"""Validates bills of materials by their formats' own libraries: SPDX 2 (`.spdx.json`) and CycloneDX 1.6 (`.cdx.json`).

The Python of `make release-tools` runs it, which has these libraries.
"""

import sys
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document


def problems(path: Path) -> list[str]:
    """Return what is wrong with a file."""
    if path.name.endswith(".spdx.json"):
        return [each.validation_message for each in validate_full_spdx_document(parse_file(str(path)))]
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(path.read_text())
    return [str(error)] if error else []


if __name__ == "__main__":
    found = [f"{path}: {problem}" for path in map(Path, sys.argv[1:]) for problem in problems(path)]
    sys.exit("\n".join(found[:20]) or None)
