"""Terraform for AWS applied for real, to an AWS that `moto` emulates, and destroyed again: nothing stays.

State and its lock lie in the emulated S3, as they do in production. What `moto` cannot do is listed in
``BEYOND``, left out, and checked by `terraform test` alone.
"""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
MOTO = Path(os.environ.get("QSM_MOTO_ENV", ROOT / ".venv-moto")) / "bin"
TREE = ROOT / "deploy/terraform/aws"
INVENTORY = Path(__file__).with_name("aws_inventory.py")

# Found by trying: here the emulated AWS answers 404 or 501, or what the provider cannot read.
BEYOND = {
    "account": {
        "aws_s3_bucket_policy.state": "count = 0",  # it speaks plain HTTP, which the policy refuses
    },
    "modules/storage": {
        "aws_s3_bucket_logging.scans": "count = 0",  # S3: fails at a policy for everybody, as the TLS rule is
    },
    "modules/database": {
        # Secrets Manager: what has no function of one's own cannot be cancelled
        "aws_secretsmanager_secret_rotation.password": "count = 0",
    },
    "modules/observability": {
        "aws_budgets_budget.month": "count = 0",  # budgets: tags cannot be asked for
    },
    "modules/services": {
        "aws_appautoscaling_target.tier": "for_each = {}",  # application auto scaling: the same
        "aws_appautoscaling_policy.cpu": "for_each = {}",
    },
    "modules/triton": {
        "aws_eks_addon.network": "count = 0",  # EKS: no add-ons
        "aws_eks_addon.other": "for_each = toset([])",
        "aws_eks_pod_identity_association.autoscaler": "count = 0",
        "aws_eks_pod_identity_association.logs": "count = 0",
        "aws_vpc_security_group_egress_rule.nodes": "count = 0",  # EKS: a cluster has no security group
        "aws_vpc_security_group_ingress_rule.nodes": "count = 0",
        "aws_autoscaling_attachment.gpu": "count = 0",  # EKS: a node group's scaling group is only a name
    },
}

PROVIDER = """
provider "aws" {
  region                      = var.region
  access_key                  = "none"
  secret_key                  = "none"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_region_validation      = true
  s3_use_path_style           = true
}
"""
SETTINGS: dict[str, Any] = {
    "environment": "moto",
    "domain": "qsm.example.org",
    "allowed_cidrs": ["192.0.2.0/24"],
    "alarm_email": "qsm@example.org",
    "images": {"backend": "example.org/qsm-ai/fastapi-be:1", "frontend": "example.org/qsm-ai/streamlit-fe:1"},
    "waf": {"enabled": True},
    "oidc": {"issuer": "https://id.example.org", "audience": "qsm-ai"},
    # What README.md says for trials: without these, destroy refuses.
    "force_destroy": True,
    "database": {"deletion_protection": False},
}
CERTIFICATE = """
import sys
sys.path.insert(0, sys.argv[1])
from aws_inventory import client
print(client("acm").request_certificate(DomainName="qsm.example.org")["CertificateArn"])
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def endpoint(free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An AWS of this machine's own."""
    if not (MOTO / "moto_server").exists():
        pytest.skip("moto is not installed: make moto")
    port = free_port()
    log = tmp_path_factory.mktemp("moto") / "log"
    with log.open("wb") as stream:
        server = subprocess.Popen(
            [str(MOTO / "moto_server"), "-H", "127.0.0.1", "-p", str(port)],
            stdout=stream,
            stderr=stream,
            env=os.environ | {"MOTO_IAM_LOAD_MANAGED_POLICIES": "true"},
        )
        try:
            address = f"http://127.0.0.1:{port}"
            for _ in range(600):
                assert server.poll() is None, log.read_text()
                try:
                    httpx.get(f"{address}/moto-api/", timeout=60).raise_for_status()
                    break
                except httpx.HTTPError:
                    time.sleep(0.5)
            yield address
        finally:
            # It keeps nothing that would have to be written.
            server.kill()
            server.wait()


@pytest.fixture(scope="module")
def asked(endpoint: str) -> Callable[..., str]:
    """Run a program of ours in moto's environment, against the emulated AWS."""

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [str(MOTO / "python"), *arguments],
            env=os.environ | {"AWS_ENDPOINT_URL": endpoint},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, endpoint: str) -> Path:
    """A copy of the tree for the emulated AWS."""
    folder = tmp_path_factory.mktemp("terraform") / "aws"
    shutil.copytree(TREE, folder, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*", "tests"))
    for root in (folder, folder / "account"):
        (root / "provider_override.tf").write_text(PROVIDER)
    for place, left_out in BEYOND.items():
        text = "".join(
            f'resource "{kind}" "{name}" {{\n  {how}\n}}\n'
            for (kind, name), how in ((address.split("."), how) for address, how in left_out.items())
        )
        (folder / place / "moto_override.tf").write_text(text)
    return folder


@pytest.fixture(scope="module")
def terraform(tool: Callable[..., str], plugins: str, endpoint: str, tree: Path) -> Callable[..., str]:
    """Terraform in one of the two roots, against the emulated AWS."""
    program = tool("terraform", get="see terraform's own pages")
    variables = {
        "TF_CLI_CONFIG_FILE": os.devnull,
        "CHECKPOINT_DISABLE": "1",
        "TF_IN_AUTOMATION": "1",
        "TF_PLUGIN_DIR": plugins,
        "AWS_ENDPOINT_URL": endpoint,
    }

    def run(folder: Path, *arguments: str, allowed: tuple[int, ...] = (0,)) -> str:
        command, *rest = arguments
        options = ["-no-color", "-input=false"] if command in {"init", "plan", "apply", "destroy"} else []
        done = subprocess.run(
            [program, command, *options, *rest],
            cwd=folder,
            env=os.environ | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in allowed, done.stdout[-6000:] + done.stderr[-6000:]
        return done.stdout

    return run


def differences(before: dict[str, list[str]], after: dict[str, list[str]]) -> dict[str, list[str]]:
    """What is there now and was not before, by kind; empty kinds left out."""
    new = {kind: sorted(set(names) - set(before[kind])) for kind, names in after.items()}
    return {kind: names for kind, names in new.items() if names}


def test_the_service_is_made_kept_and_taken_down_without_a_rest(
    terraform: Callable[..., str], asked: Callable[..., str], tree: Path, plugins: str, endpoint: str
) -> None:
    def inventory() -> dict[str, list[str]]:
        found: dict[str, list[str]] = json.loads(asked(str(INVENTORY)))
        return found

    account = tree / "account"
    certificate = asked("-c", CERTIFICATE, str(INVENTORY.parent)).strip()
    empty = inventory()

    # Once in an account: where the state lies, images, the logs' key.
    (account / "trial.auto.tfvars.json").write_text(json.dumps({"force_destroy": True}))
    terraform(account, "init", f"-plugin-dir={plugins}")
    terraform(account, "apply", "-auto-approve")
    config = terraform(account, "output", "-raw", "state_config")
    key = terraform(account, "output", "-raw", "log_user_key_secret_arn")
    with_account = inventory()

    # The service, with its state and the lock in that bucket.
    (tree / "state.config").write_text(
        config
        + f'endpoints = {{ s3 = "{endpoint}" }}\n'
        + 'access_key = "none"\nsecret_key = "none"\nuse_path_style = true\n'
        + "skip_credentials_validation = true\nskip_requesting_account_id = true\n"
    )
    settings = SETTINGS | {"certificate_arn": certificate, "log_user_key_secret_arn": key}
    (tree / "trial.auto.tfvars.json").write_text(json.dumps(settings))
    terraform(tree, "init", f"-plugin-dir={plugins}", "-backend-config=state.config")
    made = terraform(tree, "apply", "-auto-approve", "-parallelism=30")
    assert re.search(r"Apply complete! Resources: 1\d\d added", made), made[-400:]

    there = differences(with_account, inventory())
    assert {"qsm-moto"} == set(there["eks.list_clusters"])
    assert there["rds.describe_db_instances"] == ["qsm-moto"]
    assert len(there["s3.list_buckets"]) == 2
    assert len(there["ecs.list_task_definitions"]) == 3
    assert there["elbv2.describe_load_balancers"] == ["qsm-moto", "qsm-moto-triton"]
    assert not list(tree.glob("terraform.tfstate"))

    # A second look asks for no change that would take something away.
    again = terraform(tree, "plan", "-detailed-exitcode", allowed=(0, 2))
    assert "must be replaced" not in again
    assert "will be destroyed" not in again

    terraform(tree, "destroy", "-auto-approve", "-parallelism=30")
    assert terraform(tree, "state", "list").strip() == ""
    assert differences(with_account, inventory()) == {}

    # The state with its versions goes last.
    terraform(account, "destroy", "-auto-approve")
    assert differences(empty, inventory()) == {}
