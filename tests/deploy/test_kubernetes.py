"""Kubernetes: every overlay builds, every object is valid, and the policies say what they should."""

import math
import os
import re
import runpy
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import kubernetes_validate
import pytest
import yaml

from qsm_ai import __version__
from qsm_ai.api.settings import Settings
from qsm_ai.jobs.memory import needed_mb
from qsm_ai.jobs.records import Job
from qsm_ai.observe import catalogue

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
VERSION = "1.33"
OVERLAYS = sorted(p.name for p in (KUBERNETES / "overlays").iterdir())
WHOLE = ["eks", "gke", "local-cpu"]
CLOUDS = ["eks", "gke"]
ONCE = sorted(p.name for p in (KUBERNETES / "cluster").iterdir())
"""What a cluster gets once, apart from the service."""
# Kinds of operators, for which the validator has no schema.
FOREIGN = {
    "BackendConfig", "ExternalSecret", "ManagedCertificate",
    "PodMonitor", "PrometheusRule", "ScaledObject", "ServiceMonitor",
}  # fmt: skip

SAMPLE_SHAPE = (180, 216, 160)
ITSELF_MB = 500
"""A worker beside its computing process; deploy/kubernetes/README.md has what was measured."""

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
            seen[name] = kustomize(KUBERNETES / ("cluster" if name in ONCE else "overlays") / name)
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


@pytest.mark.parametrize("name", [*OVERLAYS, *ONCE])
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


SIZES = {"Mi": 2**20, "Gi": 2**30}


def size(text: str) -> int:
    """Bytes of a quantity."""
    return int(text[:-2]) * SIZES[text[-2:]]


@pytest.mark.parametrize("name", WHOLE)
def test_uploads_to_the_page_have_room(built: Callable[[str], Objects], name: str) -> None:
    """Streamlit spools them to /tmp; a pod that passes its limits there is evicted."""
    image = (DEPLOY / "docker/streamlit-fe.Dockerfile").read_text()
    (largest,) = re.findall(r"STREAMLIT_SERVER_MAX_UPLOAD_SIZE=(\d+)", image)
    pod = pods(built(name))["streamlit-fe"]
    (volume,) = [v["emptyDir"] for v in pod["volumes"] if v["name"] == "tmp"]
    assert "medium" not in volume
    # Two people with the largest file that there may be.
    assert size(volume["sizeLimit"]) >= 2 * int(largest) * 2**20
    (container,) = pod["containers"]
    assert size(container["resources"]["limits"]["ephemeral-storage"]) > size(volume["sizeLimit"])
    # Asked for, so that it is not the first to go from a full node.
    assert size(container["resources"]["requests"]["ephemeral-storage"]) > 0


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
def test_who_is_sent_requests_ends_only_when_nobody_sends_them_any_more(
    built: Callable[[str], Objects], name: str
) -> None:
    """Balancers notice late that a pod ends; what it has taken until then is answered."""
    for tier in ("fastapi-be", "streamlit-fe", "triton-is"):
        pod = pods(built(name))[tier]
        (container,) = pod["containers"]
        command, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
        assert command == "sleep"
        assert float(seconds) >= (5 if tier == "triton-is" else 15)
        left = pod["terminationGracePeriodSeconds"] - float(seconds)
        if tier != "fastapi-be":
            assert left >= 30
            continue
        given = settings_of(built(name)) | {v["name"]: v["value"] for v in container["env"]}
        # An upload that stalls is dropped after a minute; one that goes on has as long.
        uploads = float(given["QSM_SHUTDOWN_S"])
        assert uploads >= Settings().upload_stall_s
        assert uploads + Settings().worker_grace_s + 10 <= left


@pytest.mark.parametrize("name", WHOLE)
def test_who_computes_has_the_memory_that_a_usual_scan_is_given(
    built: Callable[[str], Objects], name: str
) -> None:
    """Otherwise nodes are overcommitted by usual scans, or a worker takes none."""
    voxels, echoes = math.prod(SAMPLE_SHAPE), 4
    job = SimpleNamespace(summary={"voxels": voxels, "echoes": echoes})
    needed = needed_mb(cast(Job, job))
    (container,) = pods(built(name))["worker" if name in CLOUDS else "fastapi-be"]["containers"]
    given = {
        kind: int(container["resources"][kind]["memory"].removesuffix("Gi")) << 10
        for kind in ("requests", "limits")
    }
    assert given["requests"] >= needed + ITSELF_MB
    assert given["limits"] * 3 / 4 >= needed


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
    # The secrets of the gateway, and nothing of its ConfigMap.
    assert migration["envFrom"] == [source for source in gateway["envFrom"] if "secretRef" in source]
    assert len(migration["envFrom"]) == 1
    given = {item["name"].removeprefix("QSM_").lower(): item["value"] for item in migration["env"]}
    assert Settings(**given, host="0.0.0.0").access == ["keys"]  # noqa: S104 - it refuses to be open
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


@pytest.mark.parametrize("name", CLOUDS)
def test_a_setting_can_be_changed_without_a_change_to_the_job(
    built: Callable[[str], Objects], kustomize: Callable[[Path], Objects], tmp_path: Path, name: str
) -> None:
    """The cluster refuses any change to a Job's template."""
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(KUBERNETES / "overlays" / name, tmp_path)],
        "configMapGenerator": [
            {
                "name": "backend",
                "namespace": "qsm-ai",
                "behavior": "merge",
                "literals": ["QSM_RETENTION_HOURS=1"],
            }
        ],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    changed = kustomize(tmp_path)
    assert settings_of(changed)["QSM_RETENTION_HOURS"] == "1"
    assert pods(changed)["worker"] != pods(built(name))["worker"]
    assert of_kind(changed, "Job") == of_kind(built(name), "Job")
    # Another image does change it, so it goes by itself soon after its end.
    (job,) = of_kind(changed, "Job").values()
    assert 0 < job["spec"]["ttlSecondsAfterFinished"] <= 3600
    assert "delete job" in (KUBERNETES / "README.md").read_text()


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


def ways_out(objects: Objects, tier: str) -> set[tuple[str, int]]:
    """Addresses and ports to which the pods of a tier may go."""
    return {
        (peer["ipBlock"]["cidr"], port["port"])
        for policy in of_kind(objects, "NetworkPolicy").values()
        if tier in tier_of(policy["spec"]["podSelector"])
        for rule in policy["spec"].get("egress", [])
        for peer in rule["to"]
        if "ipBlock" in peer
        for port in rule["ports"]
    }


def test_on_gke_gateways_and_workers_and_nobody_else_reach_who_gives_them_their_identity(
    built: Callable[[str], Objects],
) -> None:
    # With Dataplane V2, and without:
    # https://cloud.google.com/kubernetes-engine/docs/how-to/workload-identity
    servers = {("169.254.169.254/32", 80), ("169.254.169.252/32", 988)}
    accounts = of_kind(built("gke"), "ServiceAccount")
    for tier, pod in pods(built("gke")).items():
        needs = "iam.gke.io/gcp-service-account" in accounts[pod["serviceAccountName"]]["metadata"].get(
            "annotations", {}
        )
        assert needs == (tier in BACKENDS)
        reached = {way for way in ways_out(built("gke"), tier) if way[0].startswith("169.254.")}
        assert servers <= reached if needs else reached == set()


@pytest.mark.parametrize("name", ["eks", "local-cpu"])
def test_elsewhere_nobody_reaches_the_nodes_identity(built: Callable[[str], Objects], name: str) -> None:
    for tier in pods(built(name)):
        assert not any(address.startswith("169.254.") for address, _ in ways_out(built(name), tier))


def test_terraform_lets_the_pods_of_gke_have_the_backends_identity(built: Callable[[str], Objects]) -> None:
    terraform = (DEPLOY / "terraform/gcp/main.tf").read_text()
    binding = re.search(
        r'^resource "google_service_account_iam_member" "workload_identity" {(.*?)^}',
        terraform,
        re.MULTILINE | re.DOTALL,
    )
    assert binding
    assert "roles/iam.workloadIdentityUser" in binding[1]
    bound = set()
    for name, account in of_kind(built("gke"), "ServiceAccount").items():
        identity = account["metadata"].get("annotations", {}).get("iam.gke.io/gcp-service-account")
        if identity is not None:
            bound.add(name)
            # What Terraform calls it in an installation with the usual name.
            assert identity == "qsm-production-backend@PROJECT.iam.gserviceaccount.com"
    (members,) = re.findall(r"for_each = toset\(\[(.*?)\]\)", binding[1])
    assert set(re.findall(r'"([\w-]+)"', members)) == bound
    (namespace,) = of_kind(built("gke"), "Namespace")
    assert f".svc.id.goog[{namespace}/${{each.key}}]" in binding[1]


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
    assert leads.pop("/") == "streamlit-fe"
    assert leads == dict.fromkeys(["/api", *AT_THE_BACKEND], backend)


AT_THE_BACKEND = {"/docs", "/redoc", "/openapi.json", "/healthz", "/readyz"}


def test_every_door_leads_the_same_paths_to_the_backend() -> None:
    proxy = (DEPLOY / "proxy/nginx.conf").read_text()
    (group,) = re.findall(r"location ~ \^/\(\?:(docs[^)]*)\)\$ {", proxy)
    single = re.findall(r"location = (/\w+) {\n\s*proxy_pass \$backend", proxy)
    assert {"/" + path.replace("\\", "") for path in group.split("|")} | set(single) == AT_THE_BACKEND
    balancer = (DEPLOY / "terraform/aws/modules/services/load_balancer.tf").read_text()
    rules = re.findall(r'^resource "aws_lb_listener_rule" "\w+" {(.*?)^}', balancer, re.MULTILINE | re.DOTALL)
    led: set[str] = set()
    for rule in rules:
        (values,) = re.findall(r"values = \[(.*)\]", rule)
        paths = re.findall(r'"([^"]+)"', values)
        # More are refused.
        assert len(paths) <= 5
        led |= set(paths) if 'tier["backend"]' in rule else set()
    assert led == {"/api/*"} | AT_THE_BACKEND
    google = (DEPLOY / "terraform/gcp/modules/services/main.tf").read_text()
    (values,) = re.findall(r"paths   = \[(.*)\]", google)
    assert set(re.findall(r'"([^"]+)"', values)) == {"/api/*"} | AT_THE_BACKEND


def test_the_door_of_eks_waits_as_long_as_a_request_may(built: Callable[[str], Objects]) -> None:
    (ingress,) = of_kind(built("eks"), "Ingress").values()
    attributes = ingress["metadata"]["annotations"]["alb.ingress.kubernetes.io/load-balancer-attributes"]
    (seconds,) = re.findall(r"idle_timeout\.timeout_seconds=(\d+)", attributes)
    assert int(seconds) > Settings().max_wait_s
    # The same in front of Fargate, where `terraform test` knows nothing of the settings.
    balancer = (DEPLOY / "terraform/aws/modules/services/load_balancer.tf").read_text()
    assert f"idle_timeout = {seconds}" in balancer


def test_whoever_follows_the_page_reaches_eks(built: Callable[[str], Objects]) -> None:
    page = (KUBERNETES / "README.md").read_text()
    (ingress,) = of_kind(built("eks"), "Ingress").values()
    assert ingress["spec"]["ingressClassName"] == "alb"
    assert "AWS Load Balancer Controller" in page
    # Every address and identity that is an example is named.
    door = of_kind(built("eks"), "NetworkPolicy")["load-balancer"]
    (peer,) = door["spec"]["ingress"][0]["from"]
    assert f"`{peer['ipBlock']['cidr']}`" in page
    assert f"`{ingress['metadata']['annotations']['alb.ingress.kubernetes.io/inbound-cidrs']}`" in page
    assert "`eks.amazonaws.com/role-arn`" in page
    # By these tags the controller finds where its balancers may stand.
    network = (DEPLOY / "terraform/aws/modules/network/main.tf").read_text()
    assert '"kubernetes.io/role/elb"' in network
    assert '"kubernetes.io/role/internal-elb"' in network


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
        "namespace": "qsm-ai",
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
    starting = startup["periodSeconds"] * startup["failureThreshold"]
    patience = float(settings["QSM_TRITON_PATIENCE_S"])
    assert patience > starting
    # Nobody is told before that time is over, and somebody before the jobs fail.
    added = of_kind(objects, "PrometheusRule")["qsm-ai-scale-to-zero"]
    assert added["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    assert added["metadata"]["namespace"] == "qsm-ai"
    (rule,) = added["spec"]["groups"][0]["rules"]
    assert rule["record"] == "qsm:threshold:start_seconds"
    assert starting < float(rule["expr"].removeprefix("vector(").removesuffix(")")) < patience - 120


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


def logs(objects: Objects) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod that ships logs, and its container."""
    (daemon,) = of_kind(objects, "DaemonSet").values()
    pod: dict[str, Any] = daemon["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


def test_logs_are_shipped_from_every_node_by_somebody_apart(built: Callable[[str], Objects]) -> None:
    objects = built("logs")
    (namespace,) = of_kind(objects, "Namespace")
    # A volume of the host's is refused where the tiers live.
    assert namespace != "qsm-ai"
    assert {o["metadata"]["namespace"] for o in objects if o["kind"] != "Namespace"} == {namespace}
    pod, container = logs(objects)
    taint = {"key": "nvidia.com/gpu", "effect": "NoSchedule"}
    assert any(t.get("key", taint["key"]) == taint["key"] for t in pod["tolerations"])
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert pod["automountServiceAccountToken"] is False
    context = container["securityContext"]
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"], "add": ["DAC_READ_SEARCH"]}
    assert "memory" in container["resources"]["limits"]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    hosts = {v["name"]: v["hostPath"]["path"] for v in pod["volumes"] if "hostPath" in v}
    assert hosts == {"logs": "/var/log", "state": "/var/lib/qsm-ai-fluent-bit"}
    assert mounts["logs"]["readOnly"] is True
    # Nobody reaches it, and it reaches names, who gives it its identity, and whoever speaks TLS.
    (policy,) = of_kind(objects, "NetworkPolicy").values()
    assert policy["spec"]["podSelector"] == {}
    assert "ingress" not in policy["spec"]
    assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    ports = [[port["port"] for port in rule["ports"]] for rule in policy["spec"]["egress"]]
    assert ports == [[53, 53], [80], [443]]


def test_logs_are_read_and_shipped_by_the_files_of_compose(built: Callable[[str], Objects]) -> None:
    made = runpy.run_path(str(DEPLOY / "monitoring/kubernetes_rules.py"))["logs"]()
    assert {path: path.read_text(encoding="utf-8") for path in made} == made, "run make docs"
    objects = built("logs")
    pod, container = logs(objects)
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["fluent-bit"]
    assert container["image"] == compose["image"]
    maps = of_kind(objects, "ConfigMap")
    (files,) = (maps[v["configMap"]["name"]]["data"] for v in pod["volumes"] if "configMap" in v)
    (settings,) = (maps[source["configMapRef"]["name"]]["data"] for source in container["envFrom"])
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    program = container["command"][-1]
    assert program.rpartition("/")[0] == mounts["files"]
    text = files[program.rpartition("/")[2]]
    configured = yaml.safe_load(text)
    named = {configured["service"]["parsers_file"]}
    named |= {item["script"] for item in configured["pipeline"]["filters"] if "script" in item}
    assert named <= set(files)
    # It is told everything that it asks for, and of our pods alone.
    given = {variable["name"]: variable["value"] for variable in container["env"]} | settings
    assert set(re.findall(r"\$\{(\w+)\}", text)) == set(given)
    assert given["QSM_LOG_PATH"] == "/var/log/containers/*_qsm-ai_*.log"
    assert given["QSM_LOG_STATE"] == mounts["state"]


def test_terraform_makes_the_group_and_lets_the_shipper_write(built: Callable[[str], Objects]) -> None:
    terraform = (DEPLOY / "terraform/aws/modules/triton/logs.tf").read_text()
    (settings,) = (o["data"] for n, o in of_kind(built("logs"), "ConfigMap").items() if "settings" in n)
    # The name of an installation with the usual settings.
    assert settings["QSM_LOG_GROUP"].replace("qsm-production", "${var.name}") in terraform
    pod, _ = logs(built("logs"))
    (namespace,) = of_kind(built("logs"), "Namespace")
    assert f'namespace       = "{namespace}"' in terraform
    assert f'service_account = "{pod["serviceAccountName"]}"' in terraform
