"""The bills of materials of the image: SPDX for all of it, CycloneDX for its Python environment; both validated."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
# What cosign calls the formats, and the files.
KINDS: Final = {"spdxjson": "image.spdx.json", "cyclonedx": "python.cdx.json"}
ENVIRONMENT: Final = "/opt/venv/"  # of the service in the image
MAX_BYTES: Final = 1_500_000  # the public log of signatures rejects attestations of a few megabytes
# Without the list of files, which would be nine tenths of the bill.
SETTINGS: Final = {
    "SYFT_CHECK_FOR_APP_UPDATE": "false",
    "SYFT_FILE_METADATA_SELECTION": "none",
    "SYFT_RELATIONSHIPS_PACKAGE_FILE_OWNERSHIP": "false",
}


def make(image: str, out: Path, *, plain_http: bool) -> Mapping[str, Path]:
    """Write the bills of *image*, a reference in a registry, to *out*; return the files by cosign's type.

    Raises SystemExit if the Python packages are not those of the lock file, or a bill is too large to be signed;
    CalledProcessError if one is invalid.
    """
    files = {kind: out / name for kind, name in KINDS.items()}
    _scan(image, f"spdx-json={files['spdxjson']}", plain_http=plain_http)
    only_python = ("--override-default-catalogers", "python-installed-package-cataloger")
    _scan(image, f"cyclonedx-json@1.6={files['cyclonedx']}", *only_python, plain_http=plain_http)
    subprocess.run([sys.executable, Path(__file__).with_name("validate_sbom.py"), *files.values()], check=True)
    unexpected = differences(json.loads(files["cyclonedx"].read_text()), (ROOT / "requirements.lock").read_text())
    if unexpected:
        raise SystemExit(f"the image has other Python packages than requirements.lock: {', '.join(unexpected)}")
    for file in files.values():
        if file.stat().st_size > MAX_BYTES:
            raise SystemExit(f"{file} has more than {MAX_BYTES} bytes: the public log would reject its attestation")
    return files


def _scan(image: str, output: str, *options: str, plain_http: bool) -> None:
    environ = SETTINGS | {"SYFT_REGISTRY_INSECURE_USE_HTTP": str(plain_http).lower()}
    command = ["syft", "scan", "--quiet", f"registry:{image}", "--output", output, *options]
    subprocess.run(command, env=os.environ | environ, check=True)


def differences(bill: Mapping[str, Any], lock: str) -> list[str]:
    """Return what a CycloneDX bill has in other versions than the lock file, and what it lacks.

    It may lack what the lock file has for some platforms only. The base image may have packages of its own.
    """
    listed = {}
    for component in bill["components"]:
        paths = [each["value"] for each in component.get("properties", ()) if each["name"] == "syft:location:0:path"]
        if "version" in component and paths and paths[0].startswith(ENVIRONMENT):
            listed[component["name"].lower().replace("_", "-")] = component["version"]
    lines = re.findall(r"^([a-z0-9.-]+)==([^ \\;]+)( ;)?", lock, re.MULTILINE)
    locked = {name: version for name, version, _ in lines}
    needed = ["whatsapp-webhook", *(name for name, _, condition in lines if not condition)]
    other = [
        f"{name} {version}"
        for name, version in sorted(listed.items())
        if name != "whatsapp-webhook" and locked.get(name) != version
    ]
    return [*other, *(f"no {name}" for name in needed if name not in listed)]
