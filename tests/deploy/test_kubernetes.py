"""Kubernetes: every overlay builds, every object is valid, and the policies say what they should."""

import os
import re
import runpy
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from qsm_ai import __version__
from qsm_ai.api.settings import Settings
from qsm_ai.observe import catalogue

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
VERSION = "1.33"
OVERLAYS = sorted(p.name for p in (KUBERNETES / "overlays").iterdir())
WHOLE = ["eks", "gke", "local-cpu"]
CLOUDS = ["eks", "gke"]
# Kinds of operators, for which the validator has no schema.
FOREIGN = {
    "BackendConfig", "ExternalSecret", "ManagedCertificate",
    "PodMonitor", "PrometheusRule", "ScaledObject", "ServiceMonitor",
}  # fmt: skip

TIER = "app.kubernetes.io/name"
BACKENDS = {"fastapi-be", "worker"}

Objects = list[dict[str, Any]]


@pytest.fixture(scope="module")
def kustomize(tool: Callable[..., str]) -> Callable[[Path], Objects]:
    """The objects that a folder makes."""
    kubectl = tool("kubectl")

    def build(folder: Path) -> Objects:
        command = [kubectl, "kustomize", "--load-restrictor=LoadRestrictionsNone", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return list(yaml.safe_load_all(done.stdout))

    return build


@pytest.fixture(scope="module")
def built(kustomize: Callable[[Path], Objects]) -> Callable[[str], Objects]:
    """The objects of an overlay (or another folder), each folder built once."""
    seen: dict[str, Objects] = {}

    def build(name: str) -> Objects:
        if name not in seen:
            seen[name] = kustomize(KUBERNETES / ("cluster" if name == "nvidia" else "overlays") / name)
        return seen[name]

    return build


def of_kind(objects: Objects, kind: str) -> dict[str, dict[str, Any]]:
    return {o["metadata"]["name"]: o for o in objects if o["kind"] == kind}


def pods(objects: Objects) -> dict[str, dict[str, Any]]:
    """Pods that stay, by the name of their Deployment."""
    return {name: o["spec"]["template"]["spec"] for name, o in of_kind(objects, "Deployment").items()}


def all_pods(objects: Objects) -> dict[str, dict[str, Any]]:
    """Those that stay and those that end."""
    jobs = {name: o["spec"]["template"]["spec"] for name, o in of_kind(objects, "Job").items()}
    return pods(objects) | jobs


def settings_of(objects: Objects) -> dict[str, str]:
    """What gateways and workers find in their environment."""
    (found,) = (o for name, o in of_kind(objects, "ConfigMap").items() if name.startswith("backend-"))
    data: dict[str, str] = found["data"]
    return data


def tier_of(selector: dict[str, Any]) -> set[str]:
    """The tiers that a pod selector means; all of them when it is empty."""
    found = {selector.get("matchLabels", {}).get(TIER)} - {None}
    for expression in selector.get("matchExpressions", []):
        assert (expression["key"], expression["operator"]) == (TIER, "In")
        found |= set(expression["values"])
    return found


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
    for pod in all_pods(built(name)).values():
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


# https://kubernetes.io/docs/concepts/security/pod-security-standards, "restricted".
RESTRICTED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected",
    "secret",
}  # fmt: skip


@pytest.mark.parametrize("name", OVERLAYS)
def test_pods_are_such_as_the_namespace_lets_in(built: Callable[[str], Objects], name: str) -> None:
    for pod in all_pods(built(name)).values():
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod)
        assert pod["securityContext"]["runAsUser"] > 0
        assert "sysctls" not in pod["securityContext"]
        for volume in pod.get("volumes", []):
            assert set(volume) - {"name"} <= RESTRICTED_VOLUMES
        for container in pod["containers"]:
            assert not {"privileged", "procMount", "runAsUser"} & set(container["securityContext"])
            assert not any("hostPort" in port for port in container.get("ports", []))


@pytest.mark.parametrize("name", OVERLAYS)
def test_what_may_fill_a_node_is_bounded(built: Callable[[str], Objects], name: str) -> None:
    for pod in all_pods(built(name)).values():
        for volume in pod.get("volumes", []):
            if "emptyDir" in volume:
                assert volume["emptyDir"]["sizeLimit"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_replicas_of_a_tier_are_spread_over_zones(built: Callable[[str], Objects], name: str) -> None:
    for tier, pod in pods(built(name)).items():
        spread = {c["topologyKey"]: c for c in pod["topologySpreadConstraints"]}
        assert "topology.kubernetes.io/zone" in spread
        for constraint in spread.values():
            assert constraint["labelSelector"] == {"matchLabels": {TIER: tier}}


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_gateway_lives_whether_triton_does_or_not(built: Callable[[str], Objects], name: str) -> None:
    wanted = {
        "fastapi-be": ("/healthz", "/readyz"),
        "streamlit-fe": ("/_stcore/health", "/_stcore/health"),
        "triton-is": ("/v2/health/live", "/v2/health/ready"),
    }
    for tier, pod in pods(built(name)).items():
        if tier == "worker":
            continue
        (container,) = pod["containers"]
        probes = (container["livenessProbe"], container["readinessProbe"])
        assert tuple(p["httpGet"]["path"].partition("?")[0] for p in probes) == wanted[tier]
        startup = container["startupProbe"]
        # Building an engine takes up to twenty minutes.
        patience = startup["periodSeconds"] * startup["failureThreshold"]
        assert patience >= (1200 if tier == "triton-is" else 60)


@pytest.mark.parametrize("name", CLOUDS)
def test_a_gateway_that_computes_nothing_takes_scans_while_triton_is_away(
    built: Callable[[str], Objects], name: str
) -> None:
    (gateway,) = pods(built(name))["fastapi-be"]["containers"]
    assert gateway["readinessProbe"]["httpGet"]["path"] == "/readyz?exclude=triton"
    settings = settings_of(built(name))
    assert settings["QSM_WORKERS"] == "0"


@pytest.mark.parametrize("name", CLOUDS)
def test_workers_are_the_backends_image_with_another_command(
    built: Callable[[str], Objects], name: str
) -> None:
    (gateway,), (worker,) = (pods(built(name))[tier]["containers"] for tier in ("fastapi-be", "worker"))
    assert worker["image"] == gateway["image"]
    assert worker["command"] == ["qsm-ai", "worker"]
    assert worker["envFrom"] == gateway["envFrom"]
    # What stands in the container goes before the gateways' ConfigMap.
    assert {"name": "QSM_WORKERS", "value": "1"} in worker["env"]
    given = {variable["name"]: variable["value"] for variable in worker["env"]}
    assert [str(port["containerPort"]) for port in worker["ports"]] == [given["QSM_WORKER_PORT"]]
    assert worker["livenessProbe"]["httpGet"]["path"] == "/healthz"
    # It hands back what it could not end before the kubelet ends it.
    patience = pods(built(name))["worker"]["terminationGracePeriodSeconds"]
    assert 60 <= float(given["QSM_WORKER_GRACE_S"]) < patience


@pytest.mark.parametrize("name", WHOLE)
def test_nobody_comes_in_without_a_key(built: Callable[[str], Objects], name: str) -> None:
    settings = settings_of(built(name))
    fields = {key.removeprefix("QSM_").lower(): value for key, value in settings.items()}
    read = Settings(**fields, host="0.0.0.0")  # type: ignore[arg-type]  # noqa: S104 - it refuses to be open
    assert "keys" in read.access
    assert "open-behind-proxy" not in read.access
    assert (read.oidc is not None) == (name in CLOUDS)


@pytest.mark.parametrize("name", CLOUDS)
def test_the_database_is_migrated_once_for_each_version_and_by_nobody_else(
    built: Callable[[str], Objects], name: str
) -> None:
    (job,) = of_kind(built(name), "Job").values()
    (migration,) = job["spec"]["template"]["spec"]["containers"]
    (gateway,) = pods(built(name))["fastapi-be"]["containers"]
    assert job["metadata"]["name"] == f"migrate-{__version__}"
    assert migration["command"] == ["qsm-ai", "migrate"]
    assert migration["image"] == gateway["image"]
    assert migration["envFrom"] == gateway["envFrom"]
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "OnFailure"
    settings = settings_of(built(name))
    assert settings["QSM_MIGRATE"] == "false"
    # It may reach the database, and nothing else.
    egress = [
        rule
        for policy in of_kind(built(name), "NetworkPolicy").values()
        if "migrate" in tier_of(policy["spec"]["podSelector"])
        for rule in policy["spec"].get("egress", [])
    ]
    assert [port["port"] for rule in egress for port in rule["ports"]] == [5432]


@pytest.mark.parametrize("name", ["eks", "eks-triton", "gke", "gke-triton"])
def test_images_are_those_of_this_version(built: Callable[[str], Objects], name: str) -> None:
    for pod in all_pods(built(name)).values():
        assert pod["containers"][0]["image"].rpartition(":")[2] == __version__


@pytest.mark.parametrize("name", WHOLE)
def test_nobody_reaches_anybody_unless_said(built: Callable[[str], Objects], name: str) -> None:
    policies = of_kind(built(name), "NetworkPolicy")
    deny = policies["default-deny"]["spec"]
    assert deny["podSelector"] == {}
    assert set(deny["policyTypes"]) == {"Ingress", "Egress"}
    assert "ingress" not in deny
    assert "egress" not in deny


@pytest.mark.parametrize("name", WHOLE)
def test_only_the_backend_and_its_workers_reach_tritons_grpc_and_nobody_its_http(
    built: Callable[[str], Objects], name: str
) -> None:
    prometheus = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    askers = set()
    for policy in of_kind(built(name), "NetworkPolicy").values():
        spec = policy["spec"]
        if "triton-is" not in tier_of(spec["podSelector"]):
            continue
        assert "egress" not in spec
        for rule in spec["ingress"]:
            (port,) = (port["port"] for port in rule["ports"])
            if port == 8001:
                for peer in rule["from"]:
                    assert set(peer) == {"podSelector"}
                    askers |= tier_of(peer["podSelector"])
            else:
                assert (port, rule["from"]) == (8002, [prometheus])
    assert askers == BACKENDS & set(pods(built(name)))


@pytest.mark.parametrize("name", WHOLE)
def test_every_way_out_is_to_somebody_named_or_by_tls(built: Callable[[str], Objects], name: str) -> None:
    for policy in of_kind(built(name), "NetworkPolicy").values():
        for rule in policy["spec"].get("egress", []):
            ports = {port["port"] for port in rule["ports"]}
            for peer in rule["to"]:
                if peer.get("ipBlock", {}).get("cidr") == "0.0.0.0/0":
                    assert ports == {443}
                    assert "169.254.169.254/32" in peer["ipBlock"]["except"]
                    # The page speaks with the backend alone, Triton with nobody.
                    assert tier_of(policy["spec"]["podSelector"]) <= BACKENDS
                    assert tier_of(policy["spec"]["podSelector"])


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


@pytest.mark.parametrize("name", CLOUDS)
def test_secrets_come_from_outside(built: Callable[[str], Objects], name: str) -> None:
    assert of_kind(built(name), "Secret") == {}
    (external,) = of_kind(built(name), "ExternalSecret").values()
    for tier in BACKENDS:
        sources = pods(built(name))[tier]["containers"][0]["envFrom"]
        assert {"secretRef": {"name": external["spec"]["target"]["name"]}} in sources


def queries(scaled: dict[str, Any]) -> list[str]:
    return [t["metadata"]["query"] for t in scaled["spec"]["triggers"] if t["type"] == "prometheus"]


@pytest.mark.parametrize("name", CLOUDS)
def test_scaling_follows_what_waits(built: Callable[[str], Objects], name: str) -> None:
    scaled = of_kind(built(name), "ScaledObject")
    assert set(scaled) == set(pods(built(name)))
    for tier, item in scaled.items():
        assert item["spec"]["scaleTargetRef"] == {"name": tier}
        assert not any("gpu_utilization" in query for query in queries(item))
    assert any("nv_inference_pending_request_count" in query for query in queries(scaled["triton-is"]))
    assert any('state=~"queued|running"' in query for query in queries(scaled["worker"]))
    # Who scales says how many there are: a number in the Deployment would be set again by every `apply`.
    assert not any("replicas" in o["spec"] for o in of_kind(built(name), "Deployment").values())


@pytest.mark.parametrize("name", CLOUDS)
def test_scaling_asks_for_metrics_that_there_are(built: Callable[[str], Objects], name: str) -> None:
    known = set(catalogue.of("backend")) | set(catalogue.of("triton"))
    for item in of_kind(built(name), "ScaledObject").values():
        for query in queries(item):
            assert set(re.findall(r"\b(?:qsm|nv)_\w+", query)) <= known, query


@pytest.mark.parametrize("name", CLOUDS)
def test_gpu_and_workers_may_rest_where_that_is_wanted(
    kustomize: Callable[[Path], Objects], tmp_path: Path, name: str
) -> None:
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [str(Path(os.path.relpath(KUBERNETES / "overlays" / name, tmp_path)))],
        "components": [os.path.relpath(KUBERNETES / "components/scale-to-zero", tmp_path)],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    objects = kustomize(tmp_path)
    least = {n: o["spec"]["minReplicaCount"] for n, o in of_kind(objects, "ScaledObject").items()}
    assert least["triton-is"] == least["worker"] == 0
    assert least["fastapi-be"] >= 1
    # Jobs wait as long as a node and an engine may take, and the gateway stays ready meanwhile.
    (container,) = pods(objects)["triton-is"]["containers"]
    startup = container["startupProbe"]
    settings = settings_of(objects)
    assert float(settings["QSM_TRITON_PATIENCE_S"]) > startup["periodSeconds"] * startup["failureThreshold"]


@pytest.mark.parametrize("name", CLOUDS)
def test_gateways_and_nobody_else_reach_redis_where_that_is_wanted(
    built: Callable[[str], Objects], kustomize: Callable[[Path], Objects], tmp_path: Path, name: str
) -> None:
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "qsm-ai",
        "resources": [os.path.relpath(KUBERNETES / "overlays" / name, tmp_path)],
        "components": [os.path.relpath(KUBERNETES / "components/shared-rate-limit", tmp_path)],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    usual = of_kind(built(name), "NetworkPolicy")
    policies = of_kind(kustomize(tmp_path), "NetworkPolicy")
    (added,) = set(policies) - set(usual)
    kubernetes_validate.validate(policies[added], VERSION, strict=True)
    assert policies[added]["metadata"]["namespace"] == "qsm-ai"
    spec = policies[added]["spec"]
    assert tier_of(spec["podSelector"]) == {"fastapi-be"}
    assert spec["policyTypes"] == ["Egress"]
    assert [rule["ports"] for rule in spec["egress"]] == [[{"protocol": "TCP", "port": 6379}]]


@pytest.mark.parametrize("name", OVERLAYS)
def test_new_servers_get_their_share(built: Callable[[str], Objects], name: str) -> None:
    """A gRPC client looks a name up again only when a connection ends."""
    arguments = dict(
        argument.removeprefix("--").split("=")
        for argument in pods(built(name))["triton-is"]["containers"][0]["args"]
    )
    assert int(arguments["grpc-max-connection-age"]) <= 300_000
    # What runs on a connection may end: longer than the client waits for one patch by default.
    assert int(arguments["grpc-max-connection-age-grace"]) >= 1000 * Settings().triton_timeout_s


@pytest.mark.parametrize("name", CLOUDS)
def test_monitors_bear_the_label_that_the_operator_looks_for(
    built: Callable[[str], Objects], name: str
) -> None:
    services = of_kind(built(name), "Service")
    watched = set()
    for kind in ("ServiceMonitor", "PodMonitor", "PrometheusRule"):
        for monitor in of_kind(built(name), kind).values():
            assert monitor["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    for monitor in of_kind(built(name), "ServiceMonitor").values():
        wanted = monitor["spec"]["selector"]["matchLabels"]
        (service,) = [s for s in services.values() if wanted.items() <= s["metadata"]["labels"].items()]
        ports = {port["name"] for port in service["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports
        watched.add(service["metadata"]["name"])
    for monitor in of_kind(built(name), "PodMonitor").values():
        wanted = monitor["spec"]["selector"]["matchLabels"]
        (container,) = pods(built(name))[wanted[TIER]]["containers"]
        ports = {port["name"] for port in container["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= ports
        watched.add(wanted[TIER])
    assert {"fastapi-be", "worker", "triton-is"} <= watched
    # Alerts know the tiers by the name that Prometheus of Compose gives them.
    monitors = [
        *of_kind(built(name), "ServiceMonitor").values(),
        *of_kind(built(name), "PodMonitor").values(),
    ]
    assert {monitor["spec"]["jobLabel"] for monitor in monitors} == {TIER}


@pytest.mark.parametrize("name", WHOLE)
def test_every_setting_that_is_passed_on_exists(built: Callable[[str], Objects], name: str) -> None:
    known = {f"QSM_{field.upper()}" for field in Settings.model_fields}
    settings = settings_of(built(name))
    assert set(settings) <= known
    assert settings["QSM_TRITON_URL"].endswith("triton-is:8001")


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
