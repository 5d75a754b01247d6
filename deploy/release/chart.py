"""The chart as it is published: with the image's digest in it, and what Artifact Hub shows."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from release.target import Target

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


def package(to: Target, changes: Sequence[str]) -> Path:
    """Package the chart with its *changes*, and return the file; raises SystemExit if a line to replace is missing."""
    copy = to.out / "chart"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(CHART, copy)
    values = (copy / "values.yaml").read_text()
    for old, new in (
        ("repository: whatsapp-webhook", f"repository: {to.image}"),
        ('digest: ""', f"digest: {to.digest}"),
    ):
        if values.count(f"  {old}\n") != 1:
            raise SystemExit(f"{CHART}/values.yaml: `{old}` is not there exactly once")
        values = values.replace(f"  {old}\n", f"  {new}\n")
    (copy / "values.yaml").write_text(values)
    (copy / "README.md").write_text(_readme((CHART / "README.md").read_text(), to))
    with (copy / "Chart.yaml").open("a") as file:
        file.write(_annotations(to, changes))
    subprocess.run(["helm", "lint", "--strict", "--quiet", copy], check=True)
    subprocess.run(["helm", "package", copy, "--destination", to.out], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(copy)
    return to.out / f"whatsapp-webhook-{to.version}.tgz"


def _readme(text: str, to: Target) -> str:
    """Return the README for readers who have the chart from a registry: it names its image, and pages are elsewhere."""
    command = re.compile(r"^helm install wh deploy/helm (.*?) --set image\.repository=\S+$", re.MULTILINE)
    if not command.search(text):
        raise SystemExit(f"{CHART}/README.md has no command `helm install wh deploy/helm ... --set image.repository=`")
    text = command.sub(rf"helm install wh oci://{to.charts}/whatsapp-webhook --version {to.version} \1", text)
    return text.replace("](../../", f"]({to.source}/blob/v{to.version}/")


def _annotations(to: Target, changes: Sequence[str]) -> str:
    """Return more lines of Chart.yaml, whose last key is `annotations`. JSON is YAML."""
    raw = f"{to.source.replace('https://github.com/', 'https://raw.githubusercontent.com/')}/v{to.version}/docs"
    links = [{"name": name, "url": f"{to.source}/blob/v{to.version}/{path}"} for name, path in LINKS.items()]
    annotations = {
        "changes": changes,
        "images": [
            {
                "name": "whatsapp-webhook",
                "image": f"{to.image}:{to.version}@{to.digest}",
                "platforms": ["linux/amd64", "linux/arm64"],
            }
        ],
        "links": links,
        "screenshots": [{"title": "Grafana dashboard", "url": f"{raw}/dashboard.png"}],
    }
    lines = [f"  artifacthub.io/{name}: {json.dumps(json.dumps(value))}" for name, value in annotations.items()]
    lines.append(f'  artifacthub.io/prerelease: "{str("-" in to.version).lower()}"')
    return "\n".join([*lines, f"home: {to.source}", f"sources: [{to.source}]", f"icon: {raw}/icon.svg", ""])
