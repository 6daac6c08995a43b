"""Everything in `deploy/` for Docker, Ray and Kubernetes that can be checked without them."""

import re
import subprocess
from typing import Any

import kubernetes_validate
import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from deploy.settings import PROJECT_ROOT
from services.telemetry_settings import CONTROLLER, ROUTER, Telemetry
from shards.json_codec import from_json, parse
from tests.deploy.manifests import (
    DOCKERFILE,
    KUBERNETES,
    RAY_CLUSTER,
    Pod,
    commands,
    copied,
    documents,
    instructions,
    of_kind,
    pods,
)
from tests.docs.command_line import problem_of

_KUBERNETES_VERSION = "1.31"
_OWN_KINDS = {"RayCluster"}
"""Kinds that no released schema is at hand for; what is in their pods is checked as pods."""
_PODS = pods()


@pytest.mark.parametrize("arguments", list(commands()), ids=" ".join)
def test_every_headrace_command_is_one_that_the_command_line_takes(arguments: list[str]) -> None:
    assert not problem_of(arguments)


def test_rays_own_validation_takes_the_cluster() -> None:
    cluster = yaml.safe_load(RAY_CLUSTER.read_text())
    validate_config(prepare_config(cluster))
    kinds = cluster["available_node_types"]
    assert cluster["head_node_type"] in kinds
    assert kinds["head"]["resources"]["CPU"] == 0
    assert any(kind["resources"].get("GPU") for kind in kinds.values())
    assert cluster["max_workers"] >= sum(kind.get("max_workers", 0) for kind in kinds.values())
    # Ray's own commands too: `ray start` must know each option.
    for line in cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"]:
        known = subprocess.run(["ray", "start", "--help"], capture_output=True, text=True, check=True).stdout
        assert all(option in known for option in re.findall(r"--[a-z-]+", line)), line


@pytest.mark.parametrize("document", documents(), ids=lambda d: f"{d['kind']} {d['metadata']['name']}")
def test_kubernetes_takes_every_document(document: dict[str, Any]) -> None:
    if document["kind"] not in _OWN_KINDS:
        kubernetes_validate.validate(document, _KUBERNETES_VERSION, strict=True)


@pytest.mark.parametrize("pod", _PODS, ids=lambda pod: pod.of)
def test_pods_ask_for_resources_and_for_no_rights(pod: Pod) -> None:
    document = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod.of, "labels": pod.labels},
        "spec": pod.spec,
    }
    kubernetes_validate.validate(document, _KUBERNETES_VERSION, strict=True)
    assert pod.spec["securityContext"]["runAsNonRoot"]
    user = next(rest for name, rest in instructions() if name == "USER")
    assert f"{pod.spec['securityContext']['runAsUser']}" == user.partition(":")[0]
    volumes = {volume["name"] for volume in pod.spec["volumes"]}
    for container in pod.containers():
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        assert "readinessProbe" in container or container in pod.spec["initContainers"]


def test_services_budgets_and_deployments_select_pods_that_exist() -> None:
    for deployment in of_kind("Deployment"):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    for service in of_kind("Service"):
        assert service["spec"]["clusterIP"] == "None"
        pod = _selected(service["spec"]["selector"])
        ports = {port["name"]: port["containerPort"] for c in pod.containers() for port in c.get("ports", ())}
        assert all(ports[port["targetPort"]] == port["port"] for port in service["spec"]["ports"])
    for budget in of_kind("PodDisruptionBudget"):
        _selected(budget["spec"]["selector"]["matchLabels"])
        (deployment,) = (
            d for d in of_kind("Deployment") if d["metadata"]["name"] == budget["metadata"]["name"]
        )
        assert budget["spec"]["minAvailable"] < deployment["spec"]["replicas"]
    for pod in _PODS:
        for spread in pod.spec.get("topologySpreadConstraints", ()):
            assert spread["labelSelector"]["matchLabels"].items() <= pod.labels.items()


def _selected(selector: dict[str, str]) -> Pod:
    (pod,) = (pod for pod in _PODS if selector.items() <= pod.labels.items())
    return pod


def test_addresses_and_ports_in_commands_are_those_of_the_services() -> None:
    known = {f"{s['metadata']['name']}:{p['port']}" for s in of_kind("Service") for p in s["spec"]["ports"]}
    (cluster,) = of_kind("RayCluster")
    # The operator makes this service for the head; its port is Ray's own.
    known.add(f"{cluster['metadata']['name']}-head-svc:6379")
    for pod in _PODS:
        for container in pod.containers():
            arguments = dict(a[2:].split("=", 1) for a in container.get("args", ()) if re.match("--.*=", a))
            named = [arguments[name] for name in ("controller", "ray-address") if name in arguments]
            assert set(named) <= known
            if "port" in arguments:
                ports = {port["name"]: port["containerPort"] for port in container["ports"]}
                assert int(arguments["port"]) == ports["grpc"]
                assert container["readinessProbe"]["grpc"]["port"] == ports["grpc"]


def test_processes_are_scraped_at_the_port_that_their_settings_say() -> None:
    (settings,) = of_kind("ConfigMap")
    ((name, text),) = settings["data"].items()
    metrics = from_json(Telemetry, parse(text.encode())).metrics
    scraped = yaml.safe_load((PROJECT_ROOT / "deploy" / "prometheus" / "kubernetes.yml").read_text())
    pods, notes = scraped["scrape_configs"]
    assert pods["relabel_configs"][0]["regex"] == "metrics"
    assert pods["relabel_configs"][-1] == {"target_label": "job", "replacement": notes["job_name"]}
    for role in (ROUTER, CONTROLLER):
        (pod,) = (pod for pod in _PODS if pod.of == f"headrace-{role}")
        (container,) = pod.spec["containers"]
        assert container["name"] == role
        assert {"name": "metrics", "containerPort": metrics.port(role, 0)} in container["ports"]
        (mount,) = (mount for mount in container["volumeMounts"] if mount["name"] == "telemetry")
        assert f"--telemetry={mount['mountPath']}/{name}" in container["args"]
        (volume,) = (volume for volume in pod.spec["volumes"] if volume["name"] == "telemetry")
        assert volume["configMap"]["name"] == settings["metadata"]["name"]


def test_others_reach_only_ports_that_are_there_and_only_with_a_label() -> None:
    inside, *outside = of_kind("NetworkPolicy")
    assert inside["spec"]["podSelector"] == {}
    for policy in (inside, *outside):
        assert policy["spec"]["policyTypes"] == ["Ingress"]
        for rule in policy["spec"]["ingress"]:
            (source,) = rule["from"]
            # Without labels only the namespace's own pods, else on ports that those pods have.
            assert source == {"podSelector": {}} or source["namespaceSelector"]["matchLabels"]
            assert ("ports" in rule) == ("namespaceSelector" in source)
    for policy in outside:
        pod = _selected(policy["spec"]["podSelector"]["matchLabels"])
        ports = {port["containerPort"] for c in pod.containers() for port in c.get("ports", ())}
        assert {p["port"] for rule in policy["spec"]["ingress"] for p in rule["ports"]} <= ports


def test_volumes_versions_and_images_agree() -> None:
    claims = {claim["metadata"]["name"] for claim in of_kind("PersistentVolumeClaim")}
    for pod in _PODS:
        used = (
            v["persistentVolumeClaim"]["claimName"]
            for v in pod.spec["volumes"]
            if "persistentVolumeClaim" in v
        )
        assert set(used) <= claims
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    known = {f"{image['name']}:{image['newTag']}" for image in kustomization["images"]}
    assert {container["image"] for pod in _PODS for container in pod.containers()} == known
    text = RAY_CLUSTER.read_text()
    assert set(re.findall(r"image: (\S+)", text)) == known
    (cluster,) = of_kind("RayCluster")
    assert cluster["spec"]["rayVersion"] == ray.__version__
    # Ray's nodes, controllers and shards must find bundles at one path.
    for pod in _PODS:
        for container in pod.spec["containers"]:
            assert "/workspace" in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_the_dockerfile_is_clean_and_copies_what_exists() -> None:
    done = subprocess.run(["hadolint", str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = instructions()
    sources = [
        path for name, rest in lines if name == "COPY" and "--from" not in rest for path in copied(rest)
    ]
    assert sources
    kept = (PROJECT_ROOT / ".dockerignore").read_text().splitlines()
    for source in sources:
        assert source.exists(), source
        assert f"!{source.relative_to(PROJECT_ROOT)}" in kept
    names = [name for name, _ in lines]
    assert names.index("USER") > max(i for i, name in enumerate(names) if name == "RUN")
    assert not any(name == "ENTRYPOINT" for name in names)


def test_the_image_has_what_the_tests_ran_with() -> None:
    runs = [rest for name, rest in instructions() if name == "RUN"]
    torch, *_ = re.findall(r"torch==\S+", " ".join(runs))
    pins = (PROJECT_ROOT / "constraints.txt").read_text().splitlines()
    assert torch in pins
    assert f"ray=={ray.__version__}" in pins
    first, second = (
        next(i for i, run in enumerate(runs) if word in run) for word in (torch, "-c constraints")
    )
    assert first < second
    for packages in re.findall(r"include = \[(.*)\]", (PROJECT_ROOT / "pyproject.toml").read_text()):
        for package in re.findall(r'"(\w+)\*"', packages):
            assert any(name == "COPY" and rest.startswith(f"{package} ") for name, rest in instructions())
