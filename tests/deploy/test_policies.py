"""What outsiders' rules find in the deployment is mended, or justified in deploy/policies.yaml."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
TOOLS = Path(os.environ.get("QSM_POLICIES_ENV", ROOT / ".venv-policies")) / "bin"
JUSTIFIED: dict[str, list[dict[str, str]]] = yaml.safe_load((DEPLOY / "policies.yaml").read_text())
OVERLAYS = sorted(p.name for p in (DEPLOY / "kubernetes/overlays").iterdir())

# Checkov takes a minute and more of one processor for the largest tree.
pytestmark = pytest.mark.timeout(1800)

Finding = tuple[str, str]


@pytest.fixture(scope="module")
def checkov() -> Callable[..., list[Finding]]:
    """Findings of checkov, without a way to any network."""
    program = TOOLS / "checkov"
    if not program.exists():
        pytest.skip("checkov is not installed: make policies")

    def run(framework: str, *where: str) -> list[Finding]:
        done = subprocess.run(
            [
                str(program), *where, "--framework", framework, "--output", "json", "--quiet", "--compact",
                "--soft-fail", "--skip-download", "--download-external-modules", "false",
            ],
            capture_output=True, text=True, check=False, cwd=ROOT,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        report = json.loads(done.stdout)
        assert report["summary"]["passed"] > 0
        assert report["summary"]["parsing_errors"] == 0
        # A check that finds something to skip by a comment would be a second place for exceptions.
        assert report["summary"]["skipped"] == 0
        return [(r["check_id"], r["resource"]) for r in report["results"]["failed_checks"]]

    return run


def judge(area: str, findings: list[Finding]) -> None:
    """Every finding has its reason, and every reason its finding."""

    def excuses(finding: Finding) -> Iterator[int]:
        for n, entry in enumerate(JUSTIFIED[area]):
            if entry["check"] == finding[0] and fnmatchcase(finding[1], entry["where"]):
                yield n

    used = {finding: set(excuses(finding)) for finding in findings}
    assert [finding for finding, found in used.items() if not found] == []
    idle = set(range(len(JUSTIFIED[area]))) - set().union(*used.values())
    assert [JUSTIFIED[area][n] for n in sorted(idle)] == []


def test_every_exception_gives_its_reason() -> None:
    for entries in JUSTIFIED.values():
        for entry in entries:
            assert set(entry) == {"check", "where", "why"}
            assert len(entry["why"]) > 10


@pytest.mark.slow
def test_kubernetes(checkov: Callable[..., list[Finding]], tool: Callable[..., str], tmp_path: Path) -> None:
    kubectl = tool("kubectl")
    for name in OVERLAYS:
        folder = DEPLOY / "kubernetes/overlays" / name
        built = subprocess.run(
            [kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=True
        )
        (tmp_path / f"{name}.yaml").write_text(built.stdout)
    judge("kubernetes", checkov("kubernetes", "-d", str(tmp_path)))


@pytest.mark.slow
@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_terraform(checkov: Callable[..., list[Finding]], cloud: str) -> None:
    judge(f"terraform/{cloud}", checkov("terraform", "-d", f"deploy/terraform/{cloud}"))


@pytest.mark.slow
def test_dockerfiles(checkov: Callable[..., list[Finding]]) -> None:
    judge("dockerfile", checkov("dockerfile", "-d", "deploy/docker"))


@pytest.mark.slow
def test_workflows(checkov: Callable[..., list[Finding]]) -> None:
    judge("github_actions", checkov("github_actions", "-d", ".github"))


@pytest.mark.slow
def test_workflows_give_strangers_no_way_in() -> None:
    program = TOOLS / "zizmor"
    if not program.exists():
        pytest.skip("zizmor is not installed: make policies")
    done = subprocess.run(
        [str(program), "--offline", "--no-progress", "--format=plain", "--min-severity=medium", ".github"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout
