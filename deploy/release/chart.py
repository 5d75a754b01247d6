"""The chart as it is published: with the image's digest in it, and what Artifact Hub shows."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "deploy" / "helm"
LINKS: Final = {
    "Events": "docs/events.md",
    "Kubernetes": "docs/kubernetes.md",
    "Runbook": "docs/runbook.md",
    "Security": "SECURITY.md",
}
BULLET: Final = re.compile(r"^- (.*(?:\n  .*)*)", re.MULTILINE)


def changes(heading: str, changelog: str) -> Sequence[str]:
    """Return the items of the section whose heading starts so. Raises SystemExit if there is no such section."""
    _, found, rest = changelog.partition(f"\n## {heading}")
    if not found:
        raise SystemExit(f"CHANGELOG.md has no section `## {heading}`: make release VERSION=... writes it")
    section = rest.partition("\n## ")[0]
    return [" ".join(item.split()) for item in BULLET.findall(section)]


def package(image: str, digest: str, version: str, source: str, changes: Sequence[str], out: Path) -> Path:
    """Package the chart into *out*, and return the file.

    *image* is `registry/name` without a tag, *digest* the one of its index, *source* the URL of the repository.
    Raises SystemExit if values.yaml has not the two lines that change.
    """
    copy = out / "chart"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(CHART, copy)
    values = (copy / "values.yaml").read_text()
    for old, new in (("repository: whatsapp-webhook", f"repository: {image}"), ('digest: ""', f"digest: {digest}")):
        if values.count(f"  {old}\n") != 1:
            raise SystemExit(f"{CHART}/values.yaml: `{old}` is not there exactly once")
        values = values.replace(f"  {old}\n", f"  {new}\n")
    (copy / "values.yaml").write_text(values)
    with (copy / "Chart.yaml").open("a") as file:
        file.write(_annotations(image, digest, version, source, changes))
    subprocess.run(["helm", "lint", "--strict", "--quiet", copy], check=True)
    subprocess.run(["helm", "package", copy, "--destination", out], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(copy)
    return out / f"whatsapp-webhook-{version}.tgz"


def _annotations(image: str, digest: str, version: str, source: str, changes: Sequence[str]) -> str:
    """Return more lines of Chart.yaml, whose last key is `annotations`. JSON is YAML."""
    raw = f"{source.replace('https://github.com/', 'https://raw.githubusercontent.com/')}/v{version}/docs"
    links = [{"name": name, "url": f"{source}/blob/v{version}/{path}"} for name, path in LINKS.items()]
    annotations = {
        "changes": changes,
        "images": [
            {
                "name": "whatsapp-webhook",
                "image": f"{image}:{version}@{digest}",
                "platforms": ["linux/amd64", "linux/arm64"],
            }
        ],
        "links": links,
        "screenshots": [{"title": "Grafana dashboard", "url": f"{raw}/dashboard.png"}],
    }
    lines = [f"  artifacthub.io/{name}: {json.dumps(json.dumps(value))}" for name, value in annotations.items()]
    lines.append(f'  artifacthub.io/prerelease: "{str("-" in version).lower()}"')
    return "\n".join([*lines, f"home: {source}", f"sources: [{source}]", f"icon: {raw}/icon.svg", ""])
