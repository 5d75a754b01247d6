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
from tempfile import TemporaryDirectory
from typing import Final

from release import chart, prepare, sbom
from release.target import Target

ISSUER: Final = "https://token.actions.githubusercontent.com"
CHANGELOG: Final = prepare.ROOT / "CHANGELOG.md"
DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


def publish(to: Target) -> Mapping[str, str]:
    """Make and push everything but the image; return the references of image and chart, by digest."""
    to.out.mkdir(parents=True, exist_ok=True)
    image = f"{to.image}@{to.digest}"
    bills = sbom.make(image, to.out, plain_http=to.is_rehearsal)
    changes = chart.changes("Unreleased" if to.is_rehearsal else f"{to.version} (", CHANGELOG.read_text())
    package = chart.package(to, changes)
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
    """Check the signatures of image, chart and bills of materials as a user does, without a login at the registry.

    Raises SystemExit if one is missing, wrong, or not public.
    """
    who = ["--key", f"{to.key}.pub", "--insecure-ignore-tlog=true"] if to.key else _identity(to)
    registry = ["--allow-http-registry"] * to.is_rehearsal
    with TemporaryDirectory() as nobody:
        for reference in references.values():
            _run("cosign", "verify", *who, *registry, reference, DOCKER_CONFIG=nobody)
        for kind in sbom.KINDS:
            command = ("cosign", "verify-attestation", "--type", kind, *who, *registry, references["image"])
            _run(*command, DOCKER_CONFIG=nobody)


def _identity(to: Target) -> list[str]:
    """Return cosign's options for a signature that the release workflow made for this version's tag."""
    workflow = f"{to.source}/.github/workflows/release.yml@refs/tags/v{to.version}"
    return ["--certificate-identity", workflow, "--certificate-oidc-issuer", ISSUER]


def _cosign(to: Target, command: str, *arguments: str) -> None:
    signer = ["--key", f"{to.key}.key", "--tlog-upload=false"] if to.key else ["--yes"]
    _run("cosign", command, *signer, *["--allow-http-registry"] * to.is_rehearsal, *arguments)


def _notes(to: Target, changes: Sequence[str], references: Mapping[str, str]) -> str:
    """Return the text of the release: what changed, how to verify it, how to install what was verified."""
    items = "\n".join(f"- {each}" for each in changes)
    check = f"cosign verify {' '.join(_identity(to))}"
    commands = [
        *(f"{check} {reference}" for reference in references.values()),
        f"helm install wh oci://{references['chart']} --namespace whatsapp --create-namespace",
    ]
    return f"{items}\n\n```sh\n" + "\n".join(commands) + "\n```\n"


def _run(*command: str, **environ: str) -> str:
    """Run a program and return both of its outputs; raises SystemExit with them if it fails."""
    done = subprocess.run(command, env=os.environ | environ, capture_output=True, text=True, check=False)
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
    if not DIGEST.fullmatch(given.digest):
        parser.error(f"{given.digest!r} is not a digest: it is sha256: and 64 hex digits")
    version = prepare.current(prepare.ROOT)
    image, charts = given.image.lower(), given.charts.lower()  # a registry accepts no other names
    return Target(image, given.digest, charts, version, given.source, given.out, given.key, given.rehearse)


if __name__ == "__main__":
    target = _target(sys.argv[1:])
    published = publish(target)
    verify(target, published)
    print(json.dumps(published, indent=1))
