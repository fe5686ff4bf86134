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
            # A tag can be moved; a commit cannot. The comment is for people and Dependabot.
            if "uses" in step:
                assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", step["uses"])
                assert re.search(rf"{step['uses']} # v\d+(\.\d+)*$", path.read_text(), re.MULTILINE)


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


def test_the_same_action_has_the_same_version_everywhere() -> None:
    used = {
        tuple(re.split("[@ ]", found)[:2])
        for path in WORKFLOWS
        for found in re.findall(r"uses: ([\w-]+/\S+@\S+)", path.read_text())
    }
    assert len({action for action, _ in used}) == len(used)


def test_what_may_write_is_given_to_single_jobs() -> None:
    may = {
        ("docs", "publish"): {"pages", "id-token"},
        ("images", "build"): {"packages", "id-token", "attestations"},
        ("release", "wheel"): {"id-token", "attestations"},
        ("release", "images"): {"packages", "id-token", "attestations"},
        ("release", "registry"): {"id-token"},
        ("release", "publish"): {"contents"},
    }
    found = {
        (path.stem, name): {scope for scope, level in job["permissions"].items() if level == "write"}
        for path in WORKFLOWS
        for name, job in load(path)["jobs"].items()
        if "write" in job.get("permissions", {}).values()
    }
    assert found == may


def test_nothing_is_published_that_was_not_tested() -> None:
    jobs = load(ROOT / ".github/workflows/release.yml")["jobs"]

    def before(name: str) -> set[str]:
        needs = jobs[name].get("needs", [])
        direct = {needs} if isinstance(needs, str) else set(needs)
        return direct.union(*(before(need) for need in direct))

    for name in ("images", "registry", "publish"):
        assert {"test", "version"} <= before(name)
    assert "secrets." not in (ROOT / ".github/workflows/release.yml").read_text()


def test_commands_of_workflows_are_targets_of_make_or_files_of_the_tree() -> None:
    targets = set(re.findall(r"(?m)^\.PHONY: (\S+)$", (ROOT / "Makefile").read_text()))
    for path in WORKFLOWS:
        for job in load(path)["jobs"].values():
            for step in job.get("steps", []):
                assert set(re.findall(r"(?m)^make (\S+)", step.get("run", ""))) <= targets
                for file in re.findall(r"\.ci/[\w-]+", step.get("run", "")):
                    assert (ROOT / file).is_file()


def test_every_ecosystem_of_the_tree_is_renewed() -> None:
    updates = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]
    folders = {
        update["package-ecosystem"]: update.get("directories", [update.get("directory")])
        for update in updates
    }
    for listed in folders.values():
        for folder in listed:
            assert (ROOT / folder.strip("/")).is_dir()
    roots = {f"/{path.parent.relative_to(ROOT)}" for path in (ROOT / "deploy/terraform").rglob("versions.tf")}
    assert {folder for folder in roots if "/modules/" not in folder} == set(folders["terraform"])
    assert {"github-actions", "docker", "docker-compose", "pip"} <= set(folders)
    assert all(update["cooldown"]["default-days"] >= 7 for update in updates)
