"""The examples for GitOps tools: what they pass to the chart works, and names agree with each other."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.chart.helm import CHART, rendered

pytestmark = pytest.mark.needs("helm")
EXAMPLES = CHART.parents[1] / "docs" / "examples" / "deploy"


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((EXAMPLES / name).read_text()))


def one(name: str, kind: str) -> dict[str, Any]:
    (found,) = [each for each in documents(name) if each["kind"] == kind]
    return found


VALUES = {
    "values-production.yaml": lambda: documents("values-production.yaml")[0],
    "argocd.yaml": lambda: one("argocd.yaml", "Application")["spec"]["source"]["helm"]["valuesObject"],
    "flux.yaml": lambda: one("flux.yaml", "HelmRelease")["spec"]["values"],
    "kustomization.yaml": lambda: one("kustomization.yaml", "Kustomization")["helmCharts"][0]["valuesInline"],
}


@pytest.mark.parametrize("name", VALUES)
def test_the_values_of_an_example(name: str) -> None:
    """The chart accepts them; each object is valid, and the credentials are those of the examples for Secrets."""
    manifests = rendered(VALUES[name]())
    for manifest in manifests:
        if not manifest["apiVersion"].startswith(("monitoring.coreos.com", "gateway.networking")):
            kubernetes_validate.validate(manifest, "1.36", strict=True)
    (pod,) = [
        each["spec"]["template"]["spec"]
        for each in manifests
        if each["kind"] in ("StatefulSet", "Deployment") and not each["metadata"]["name"].endswith("-relay")
    ]
    names = [each["secret"]["secretName"] for each in pod["volumes"] if each["name"] == "credentials"]
    assert names == ["whatsapp-credentials"]
    kinds = {each["kind"] for each in manifests}
    assert ("Pod" in kinds) is (name not in ("argocd.yaml", "kustomization.yaml")), "the pod of helm test"


@pytest.mark.parametrize("name", ["external-secrets.yaml", "sealed-secrets.yaml"])
def test_an_example_makes_the_secret_of_the_others(name: str) -> None:
    """With the keys that the service reads."""
    (secret,) = documents(name)
    assert (secret["metadata"]["name"], secret["metadata"]["namespace"]) == ("whatsapp-credentials", "whatsapp")
    spec = secret["spec"]
    keys = {each["secretKey"] for each in spec["data"]} if "data" in spec else set(spec["encryptedData"])
    assert keys == {"verify-token", "app-secret"}


def test_the_issuer_is_that_of_the_ingress() -> None:
    """The annotation in the values for production names it."""
    annotations = documents("values-production.yaml")[0]["ingress"]["annotations"]
    assert (
        annotations["cert-manager.io/cluster-issuer"] == one("cert-manager.yaml", "ClusterIssuer")["metadata"]["name"]
    )


def test_the_page_names_each_example() -> None:
    """With a link."""
    page = (CHART.parents[1] / "docs" / "kubernetes.md").read_text()
    files = [each for each in EXAMPLES.iterdir() if isinstance(each, Path)]
    assert len(files) == 7
    assert all(f"examples/deploy/{each.name}" in page for each in files)
