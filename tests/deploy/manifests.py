"""What `deploy/` says to Docker, Ray and Kubernetes, read as they read it."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deploy.settings import PROJECT_ROOT

DEPLOY = PROJECT_ROOT / "deploy"
DOCKERFILE = DEPLOY / "Dockerfile"
RAY_CLUSTER = DEPLOY / "ray" / "cluster.yaml"
KUBERNETES = DEPLOY / "kubernetes"

_VARIABLE = re.compile(r"\$\((\w+)\)")


@dataclass(frozen=True)
class Pod:
    """A pod that one of the manifests asks for."""

    of: str
    labels: dict[str, str]
    spec: dict[str, Any]

    def containers(self) -> list[dict[str, Any]]:
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]


def documents() -> list[dict[str, Any]]:
    """Return every document that kustomize would apply."""
    listed = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
    return [document for name in listed for document in yaml.safe_load_all((KUBERNETES / name).read_text())]


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [document for document in documents() if document["kind"] == kind]


def pods() -> list[Pod]:
    """Return the pods of the deployments and of the Ray cluster's groups."""
    templates = {d["metadata"]["name"]: d["spec"]["template"] for d in of_kind("Deployment")}
    for cluster in of_kind("RayCluster"):
        templates["head"] = cluster["spec"]["headGroupSpec"]["template"]
        for group in cluster["spec"]["workerGroupSpecs"]:
            templates[group["groupName"]] = group["template"]
    return [Pod(name, made["metadata"]["labels"], made["spec"]) for name, made in templates.items()]


def commands() -> Iterator[list[str]]:
    """Give the arguments of every `headrace` command in a manifest or in the Dockerfile."""
    for pod in pods():
        for container in pod.containers():
            words = [*container.get("command", ()), *container.get("args", ())]
            if words[:1] == ["headrace"]:
                yield [_filled(word, container) for word in words[1:]]
    yield _last_command()
    for line in RAY_CLUSTER.read_text().splitlines():
        if found := re.match(r"[#\s]*headrace ([a-z].*)", line):
            yield shlex.split(found[1], comments=True)


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions, each with what follows it on one line."""
    text = "".join(line for line in DOCKERFILE.read_text().splitlines(True) if not line.startswith("#"))
    lines = text.replace("\\\n", " ").splitlines()
    pairs = [line.partition(" ") for line in lines if line.strip()]
    return [(name, " ".join(rest.split())) for name, _, rest in pairs]


def _last_command() -> list[str]:
    given = [rest for name, rest in instructions() if name == "CMD"]
    words: list[str] = yaml.safe_load(given[-1])
    assert words[0] == "headrace"
    return words[1:]


def _filled(word: str, container: dict[str, Any]) -> str:
    """Return the argument as Kubernetes fills it in; KeyError for a variable that the container lacks."""
    known = {variable["name"]: "10.0.0.1" for variable in container.get("env", ())}
    return _VARIABLE.sub(lambda found: known[found[1]], word)


def copied(line: str) -> list[Path]:
    """Return the sources of a COPY from the build's context."""
    words = [word for word in line.split() if not word.startswith("--")]
    return [PROJECT_ROOT / word for word in words[:-1]]
