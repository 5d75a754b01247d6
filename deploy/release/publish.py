"""Publishes a release whose image is pushed: bills of materials, chart, signatures; then verifies all of it.

`make publish IMAGE=ghcr.io/owner/name DIGEST=sha256:... CHARTS=ghcr.io/owner/charts SOURCE=https://...` needs the
programs of `make release-tools`, helm, and a login at the registry. cosign signs keyless, with the identity of the
workflow and an entry in the public transparency log. `PUBLISH_OPTIONS="--rehearse --key PREFIX"` signs with the local
key pair PREFIX.key and PREFIX.pub instead, and uses a registry on this machine.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from release import chart, prepare, sbom

ISSUER: Final = "https://token.actions.githubusercontent.com"
CHANGELOG: Final = prepare.ROOT / "CHANGELOG.md"
DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


class Target(NamedTuple):
    """What is published where: *image* and *charts* are `registry/name`."""

    image: str
    digest: str
    charts: str
    version: str
    source: str  # the URL of the repository
    out: Path
    key: str  # prefix of the files of a key pair; empty: keyless
    is_rehearsal: bool  # with a registry on this machine, before the changes have a version


def publish(to: Target) -> Mapping[str, str]:
    """Make and push everything but the image; return the references of image and chart, by digest."""
    to.out.mkdir(parents=True, exist_ok=True)
    image = f"{to.image}@{to.digest}"
    bills = sbom.make(image, to.out, plain_http=to.is_rehearsal)
    changes = chart.changes("Unreleased" if to.is_rehearsal else f"{to.version} (", CHANGELOG.read_text())
    package = chart.package(to.image, to.digest, to.version, to.source, changes, to.out)
    pushed = _run("helm", "push", str(package), f"oci://{to.charts}", *["--plain-http"] * to.is_rehearsal)
    found = DIGEST.search(pushed)
    if found is None:
        raise SystemExit(f"helm push printed no digest:\n{pushed}")
    references = {"image": image, "chart": f"{to.charts}/whatsapp-webhook@{found[0]}"}
    for reference in references.values():
        _cosign(to, "sign", "--recursive", reference)
    for kind, file in bills.items():
        _cosign(to, "attest", "--type", kind, "--predicate", str(file), image)
    (to.out / "release.json").write_text(json.dumps(references | {"version": to.version}, indent=1))
    (to.out / "notes.md").write_text(_notes(to, changes, references))
    return references


def verify(to: Target, references: Mapping[str, str]) -> None:
    """Check the signatures of image, chart and bills of materials; raises SystemExit if one is missing or wrong."""
    if to.key:
        who = ["--key", f"{to.key}.pub", "--insecure-ignore-tlog=true"]
    else:
        who = [*_identity(to.source), "--certificate-oidc-issuer", ISSUER]
    registry = ["--allow-http-registry"] * to.is_rehearsal
    for reference in references.values():
        _run("cosign", "verify", *who, *registry, reference)
    for kind in sbom.KINDS:
        _run("cosign", "verify-attestation", "--type", kind, *who, *registry, references["image"])


def _identity(source: str) -> list[str]:
    return ["--certificate-identity-regexp", f"^{re.escape(source)}/\\.github/workflows/release\\.yml@refs/tags/v"]


def _cosign(to: Target, command: str, *arguments: str) -> None:
    signer = ["--key", f"{to.key}.key", "--tlog-upload=false"] if to.key else ["--yes"]
    _run("cosign", command, *signer, *["--allow-http-registry"] * to.is_rehearsal, *arguments)


def _notes(to: Target, changes: Sequence[str], references: Mapping[str, str]) -> str:
    """Return the text of the release: what changed, how to install it, how to verify it."""
    items = "\n".join(f"- {each}" for each in changes)
    identity = " ".join(f"'{each}'" if each.startswith("^") else each for each in _identity(to.source))
    check = f"cosign verify {identity} --certificate-oidc-issuer {ISSUER}"
    commands = [
        f"helm install wh oci://{to.charts}/whatsapp-webhook --version {to.version}",
        *(f"{check} {reference}" for reference in references.values()),
    ]
    return f"{items}\n\n```sh\n" + "\n".join(commands) + "\n```\n"


def _run(*command: str) -> str:
    """Run a program and return both of its outputs; raises SystemExit with them if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def _target(arguments: list[str]) -> Target:
    parser = argparse.ArgumentParser(prog="publish", description=__doc__)
    parser.add_argument("--image", required=True)
    parser.add_argument("--digest", required=True)
    parser.add_argument("--charts", required=True)
    parser.add_argument("--source", required=True)
    parser.add_argument("--out", type=Path, default=Path("dist"))
    parser.add_argument("--key", default="")
    parser.add_argument("--rehearse", action="store_true", help="use a registry on this machine, which has no TLS")
    given = parser.parse_args(arguments)
    version = prepare.current(prepare.ROOT)
    if not DIGEST.fullmatch(given.digest):
        parser.error(f"{given.digest!r} is not a digest: it is sha256: and 64 hex digits")
    tag = os.environ.get("GITHUB_REF_NAME", f"v{version}")
    if tag != f"v{version}":
        parser.error(f"the tag is {tag}, but pyproject.toml has the version {version}: make release VERSION=...")
    image, charts = given.image.lower(), given.charts.lower()  # a registry accepts no other names
    return Target(image, given.digest, charts, version, given.source, given.out, given.key, given.rehearse)


if __name__ == "__main__":
    target = _target(sys.argv[1:])
    published = publish(target)
    verify(target, published)
    print(json.dumps(published, indent=1))
