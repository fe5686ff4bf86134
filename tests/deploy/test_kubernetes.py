"""Kubernetes: every overlay builds, every object is valid, and the policies say what they should."""

import runpy
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from qsm_ai.api.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
VERSION = "1.33"
OVERLAYS = sorted(p.name for p in (KUBERNETES / "overlays").iterdir())
WHOLE = ["eks", "gke", "local-cpu"]
# Kinds of operators, for which the validator has no schema.
FOREIGN = {
    "BackendConfig", "ExternalSecret", "ManagedCertificate",
    "PrometheusRule", "ScaledObject", "ServiceMonitor",
}  # fmt: skip

Objects = list[dict[str, Any]]


@pytest.fixture(scope="module")
def built(tool: Callable[..., str]) -> Callable[[str], Objects]:
    """The objects of an overlay (or another folder), each folder built once."""
    kubectl = tool("kubectl")
    seen: dict[str, Objects] = {}

    def build(name: str) -> Objects:
        if name not in seen:
            folder = KUBERNETES / ("cluster" if name == "nvidia" else "overlays") / name
            done = subprocess.run(
                [kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            seen[name] = list(yaml.safe_load_all(done.stdout))
        return seen[name]

    return build


def of_kind(objects: Objects, kind: str) -> dict[str, dict[str, Any]]:
    return {o["metadata"]["name"]: o for o in objects if o["kind"] == kind}


def pods(objects: Objects) -> dict[str, dict[str, Any]]:
    return {name: o["spec"]["template"]["spec"] for name, o in of_kind(objects, "Deployment").items()}


@pytest.mark.parametrize("name", [*OVERLAYS, "nvidia"])
def test_every_object_is_valid(built: Callable[[str], Objects], name: str) -> None:
    objects = built(name)
    assert objects
    for item in objects:
        if item["kind"] not in FOREIGN:
            kubernetes_validate.validate(item, VERSION, strict=True)


@pytest.mark.parametrize("name", OVERLAYS)
def test_everything_is_in_one_namespace_that_is_restricted(
    built: Callable[[str], Objects], name: str
) -> None:
    (namespace,) = of_kind(built(name), "Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    others = [o for o in built(name) if o["kind"] != "Namespace"]
    assert {o["metadata"]["namespace"] for o in others} == {namespace["metadata"]["name"]}


@pytest.mark.parametrize("name", OVERLAYS)
def test_pods_can_do_no_more_than_they_must(built: Callable[[str], Objects], name: str) -> None:
    for pod in pods(built(name)).values():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]
            assert not container["image"].endswith(":latest")
            assert ":" in container["image"].rsplit("/", 1)[-1]


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_gateway_lives_whether_triton_does_or_not(built: Callable[[str], Objects], name: str) -> None:
    wanted = {
        "fastapi-be": ("/healthz", "/readyz"),
        "streamlit-fe": ("/_stcore/health", "/_stcore/health"),
        "triton-is": ("/v2/health/live", "/v2/health/ready"),
    }
    for tier, pod in pods(built(name)).items():
        (container,) = pod["containers"]
        probes = (container["livenessProbe"], container["readinessProbe"])
        assert tuple(p["httpGet"]["path"] for p in probes) == wanted[tier]
        startup = container["startupProbe"]
        # Building an engine takes up to twenty minutes.
        patience = startup["periodSeconds"] * startup["failureThreshold"]
        assert patience >= (1200 if tier == "triton-is" else 60)


@pytest.mark.parametrize("name", WHOLE)
def test_nobody_reaches_anybody_unless_said(built: Callable[[str], Objects], name: str) -> None:
    policies = of_kind(built(name), "NetworkPolicy")
    deny = policies["default-deny"]["spec"]
    assert deny["podSelector"] == {}
    assert set(deny["policyTypes"]) == {"Ingress", "Egress"}
    assert "ingress" not in deny
    assert "egress" not in deny


@pytest.mark.parametrize("name", WHOLE)
def test_only_the_backend_reaches_tritons_grpc_and_nobody_its_http(
    built: Callable[[str], Objects], name: str
) -> None:
    backend = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "fastapi-be"}}}
    prometheus = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    may = {8001: [backend], 8002: [prometheus]}
    for policy in of_kind(built(name), "NetworkPolicy").values():
        spec = policy["spec"]
        if spec["podSelector"].get("matchLabels", {}).get("app.kubernetes.io/name") != "triton-is":
            continue
        assert "egress" not in spec
        for rule in spec["ingress"]:
            for port in rule["ports"]:
                assert rule["from"] == may[port["port"]]


@pytest.mark.parametrize("name", OVERLAYS)
def test_triton_is_published_nowhere(built: Callable[[str], Objects], name: str) -> None:
    services = of_kind(built(name), "Service")
    assert services["triton-is"]["spec"]["clusterIP"] == "None"
    kinds = {n: s["spec"].get("type", "ClusterIP") for n, s in services.items()}
    # Where the backend is outside the cluster, Triton has an address inside the cloud's network.
    assert {n for n, kind in kinds.items() if kind != "ClusterIP"} <= {"triton-is-node", "triton-is-internal"}
    for service in services.values():
        if service["spec"].get("type") == "LoadBalancer":
            assert service["metadata"]["annotations"]["networking.gke.io/load-balancer-type"] == "Internal"
    for ingress in of_kind(built(name), "Ingress").values():
        assert "triton" not in yaml.safe_dump(ingress["spec"])


@pytest.mark.parametrize("name", WHOLE)
def test_the_door_leads_each_path_to_its_tier(built: Callable[[str], Objects], name: str) -> None:
    (ingress,) = of_kind(built(name), "Ingress").values()
    services = of_kind(built(name), "Service")
    leads = {}
    for path in ingress["spec"]["rules"][0]["http"]["paths"]:
        service = path["backend"]["service"]
        leads[path["path"]] = service["name"]
        assert service["port"]["name"] in {p["name"] for p in services[service["name"]]["spec"]["ports"]}
    backend = "fastapi-be"
    assert leads == {"/api": backend, "/healthz": backend, "/readyz": backend, "/": "streamlit-fe"}


@pytest.mark.parametrize("name", OVERLAYS)
def test_services_policies_and_budgets_select_pods_that_exist(
    built: Callable[[str], Objects], name: str
) -> None:
    labels = {
        n: o["spec"]["template"]["metadata"]["labels"] for n, o in of_kind(built(name), "Deployment").items()
    }
    selectors = [s["spec"]["selector"] for s in of_kind(built(name), "Service").values()]
    selectors += [
        b["spec"]["selector"]["matchLabels"] for b in of_kind(built(name), "PodDisruptionBudget").values()
    ]
    assert selectors
    for selector in selectors:
        assert any(selector.items() <= found.items() for found in labels.values()), selector
    assert set(of_kind(built(name), "PodDisruptionBudget")) == set(labels)


@pytest.mark.parametrize("name", ["eks", "eks-triton", "gke", "gke-triton"])
def test_triton_has_its_gpu_and_tolerates_its_taint(built: Callable[[str], Objects], name: str) -> None:
    pod = pods(built(name))["triton-is"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert [t["key"] for t in pod["tolerations"]] == ["nvidia.com/gpu"]
    assert pod["nodeSelector"]


def test_without_a_gpu_triton_is_the_cpu_image(built: Callable[[str], Objects]) -> None:
    pod = pods(built("local-cpu"))["triton-is"]
    assert pod["containers"][0]["image"] == "qsm-ai/triton-is-cpu:dev"
    assert "nvidia.com/gpu" not in pod["containers"][0]["resources"]["limits"]


@pytest.mark.parametrize("name", ["eks", "gke"])
def test_secrets_come_from_outside_and_scaling_follows_what_waits(
    built: Callable[[str], Objects], name: str
) -> None:
    assert of_kind(built(name), "Secret") == {}
    (external,) = of_kind(built(name), "ExternalSecret").values()
    sources = pods(built(name))["fastapi-be"]["containers"][0]["envFrom"]
    assert {"secretRef": {"name": external["spec"]["target"]["name"]}} in sources
    scaled = of_kind(built(name), "ScaledObject")
    assert set(scaled) == {"fastapi-be", "triton-is"}
    for item in scaled.values():
        assert item["spec"]["scaleTargetRef"]["name"] in pods(built(name))
        queries = [t["metadata"]["query"] for t in item["spec"]["triggers"]]
        assert not any("gpu_utilization" in query for query in queries)


@pytest.mark.parametrize("name", WHOLE)
def test_every_setting_that_is_passed_on_exists(built: Callable[[str], Objects], name: str) -> None:
    known = {f"QSM_{field.upper()}" for field in Settings.model_fields}
    (settings,) = of_kind(built(name), "ConfigMap").values()
    assert set(settings["data"]) <= known
    assert settings["data"]["QSM_TRITON_URL"].endswith("triton-is:8001")


def test_sqlite_has_one_writer(built: Callable[[str], Objects]) -> None:
    backend = of_kind(built("local-cpu"), "Deployment")["fastapi-be"]["spec"]
    assert backend["replicas"] == 1
    assert backend["strategy"] == {"type": "Recreate"}


def test_alerts_are_those_of_compose() -> None:
    rules = runpy.run_path(str(DEPLOY / "monitoring/kubernetes_rules.py"))
    assert rules["TARGET"].read_text(encoding="utf-8") == rules["manifest"](), "run make docs"


def test_terraform_and_the_cluster_mean_the_same_port_and_label(built: Callable[[str], Objects]) -> None:
    terraform = "\n".join(p.read_text() for p in (DEPLOY / "terraform/aws/modules/triton").glob("*.tf"))
    service = of_kind(built("eks-triton"), "Service")["triton-is-node"]
    assert f"default     = {service['spec']['ports'][0]['nodePort']}" in terraform
    for label, value in pods(built("eks-triton"))["triton-is"]["nodeSelector"].items():
        assert f'"{label}" = "{value}"' in terraform
