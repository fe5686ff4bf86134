"""GitHub's workflows: pinned actions, least permissions, and the same commands as everybody's."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def load(path: Path) -> dict[str, Any]:
    # YAML 1.1 reads the key `on` as true.
    return {("on" if key is True else key): value for key, value in yaml.safe_load(path.read_text()).items()}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_actions_are_pinned_and_jobs_bounded_and_unprivileged(path: Path) -> None:
    workflow = load(path)
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        if "uses" in job:
            assert (ROOT / job["uses"]).is_file()
            continue
        assert job["timeout-minutes"] <= 90
        for step in job["steps"]:
            assert re.fullmatch(r"[\w./-]+@v\d+(\.\d+)*", step.get("uses", "a/b@v1"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_nothing_that_a_stranger_writes_reaches_a_shell(path: Path) -> None:
    for job in load(path)["jobs"].values():
        for step in job.get("steps", []):
            assert "${{ github.event" not in step.get("run", "")
            assert "${{ github.ref" not in step.get("run", "")
    assert "pull_request_target" not in path.read_text()


def test_ci_runs_what_a_contributor_runs() -> None:
    steps = load(ROOT / ".github/workflows/test.yml")["jobs"]["test"]["steps"]
    assert "bash .ci/run" in [step.get("run") for step in steps]


def test_every_image_is_built() -> None:
    matrix = load(ROOT / ".github/workflows/images.yml")["jobs"]["build"]["strategy"]["matrix"]["image"]
    assert set(matrix) == {p.stem for p in (ROOT / "deploy/docker").glob("*.Dockerfile")}


def test_hooks_call_the_projects_own_tools() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]
    assert all(hook["entry"].startswith(".venv/bin/") for hook in hooks[0]["hooks"])
