"""Terraform: formatted, valid, and planned by the real provider without an account."""

import json
import math
import os
import re
import runpy
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLOUDS = ROOT / "deploy/terraform"
FILES = sorted(CLOUDS.rglob("*.tf"))
GET = "see terraform's own pages"


@pytest.fixture(scope="module")
def aws(
    tool: Callable[..., str], plugins: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., str]:
    """Terraform in a copy of the AWS tree, initialised without a way to any network."""
    terraform = tool("terraform", get=GET)
    folder = tmp_path_factory.mktemp("terraform")
    shutil.copytree(CLOUDS / "aws", folder / "aws", ignore=shutil.ignore_patterns(".terraform*"))
    (folder / "rc").touch()

    alone = {"TF_CLI_CONFIG_FILE": str(folder / "rc"), "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [terraform, *arguments],
            cwd=folder / "aws",
            env=os.environ | alone,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout

    run("init", "-backend=false", f"-plugin-dir={plugins}", "-no-color")
    return run


def test_files_are_formatted(tool: Callable[..., str]) -> None:
    terraform = tool("terraform", get=GET)
    report = subprocess.run(
        [terraform, "fmt", "-check", "-recursive", "-list=true", str(CLOUDS)],
        env=os.environ | {"TF_CLI_CONFIG_FILE": os.devnull},
        capture_output=True,
        text=True,
        check=False,
    )
    assert report.returncode == 0, report.stdout + report.stderr


def test_aws_is_valid(aws: Callable[..., str]) -> None:
    assert "configuration is valid" in aws("validate", "-no-color")


@pytest.mark.timeout(900)
def test_aws_keeps_its_promises_in_the_plan(aws: Callable[..., str]) -> None:
    report = aws("test", "-no-color")
    assert re.search(r"Success! \d+ passed, 0 failed\.", report), report


def blocks(kind: str, text: str) -> list[tuple[str, str]]:
    """Name and body of each top-level block of a kind."""
    return re.findall(rf'^{kind} "([^"]+)" {{\n(.*?)^}}', text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(CLOUDS)))
def test_inputs_and_outputs_are_described_and_typed(file: Path) -> None:
    text = file.read_text()
    for name, body in blocks("variable", text):
        assert re.search(r"^  description\s*= \"[^\"]{6,}\"", body, re.MULTILINE), name
        assert re.search(r"^  type\s*=", body, re.MULTILINE), name
    for name, body in blocks("output", text):
        assert re.search(r"^  description\s*= \"[^\"]{6,}\"", body, re.MULTILINE), name


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(CLOUDS)))
def test_no_address_is_open_to_the_world_and_no_secret_stands_in_the_tree(file: Path) -> None:
    text = file.read_text()
    assert not re.search(r'(?i)(password|secret_key|token)\s*=\s*"[^"$]+"', text)
    for resource in re.findall(r'^resource "aws_\w*ingress_rule" .*?^}', text, re.MULTILINE | re.DOTALL):
        assert "0.0.0.0/0" not in resource


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_costs_are_worked_out_from_the_prices_that_are_stated(cloud: str) -> None:
    costs = runpy.run_path(str(CLOUDS / "costs.py"))
    assert (CLOUDS / cloud / "README.md").read_text() == costs["page"](cloud), "run deploy/terraform/costs.py"
    assert "**assumed**" in costs["page"](cloud)


def test_google_signs_addresses_of_the_bucket_in_the_backends_name_alone() -> None:
    """Without a key file, IAM signs; uploads straight to the bucket need it."""
    services = re.search(r"google_project_service.*?toset\(\[(.*?)\]\)", read("gcp/main.tf"), re.DOTALL)
    assert services
    assert '"iamcredentials"' in services[1]
    signers = [
        body
        for file in FILES
        if "gcp" in file.parts
        for body in re.findall(r'^resource "google_\w+" "\w+" {\n(.*?)^}', file.read_text(), re.M | re.S)
        if "serviceAccountTokenCreator" in body
    ]
    (signer,) = signers
    account = 'google_service_account.tier["backend"]'
    assert f"service_account_id = {account}.name" in signer
    assert f'"serviceAccount:${{{account}.email}}"' in signer


def read(path: str) -> str:
    return (CLOUDS / path).read_text()


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_seconds_of_a_scan_are_those_of_the_pipeline_as_it_is(cloud: str) -> None:
    costs = runpy.run_path(str(CLOUDS / "costs.py"))
    timing = json.loads((ROOT / "benchmarks/results/speed.json").read_text())["timing"]
    stages = sum(stage["seconds"] for stage in timing["stages"] if stage["stage"] != "network")
    larger = math.prod(costs["SAMPLE"]) / math.prod(timing["shape"][1:])
    # No GPU takes off a stage without a network; none takes off more than all of it.
    assert stages * larger < costs["WORKER_S"] < timing["seconds"] * larger
    assert timing["shape"][0] == 4
    assert f"| {costs['WORKER_S']:.0f} s each |" in (CLOUDS / cloud / "README.md").read_text()


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_every_declared_variable_is_used_and_every_used_one_declared(cloud: str) -> None:
    for folder in {file.parent for file in FILES if cloud in file.parts}:
        text = "\n".join(file.read_text() for file in folder.glob("*.tf"))
        declared = {name for name, _ in blocks("variable", text)}
        assert declared == set(re.findall(r"\bvar\.(\w+)", text)), folder.name
