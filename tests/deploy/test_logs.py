"""Which lines Fluent Bit ships, in the Lua that it runs, and where from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from lupa.luajit21 import LuaRuntime

DEPLOY = Path(__file__).parents[2] / "deploy"
FILES = DEPLOY / "monitoring/fluent-bit"
DROPPED, KEPT, CHANGED = -1, 0, 2
IN_DOCKER = "qsm.var.lib.docker.containers.0abc.0abc-json.log"
IN_A_CLUSTER = f"qsm.var.log.containers.triton-is-7d9f6-x2x5z_qsm-ai_triton-is-{'0a' * 32}.log"

Ours = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def ours() -> Ours:
    """The filter, for a project or none."""
    lua = LuaRuntime()
    lua.execute((FILES / "normalise.lua").read_text())

    def call(tag: str, record: dict[str, Any], project: str | None = None) -> tuple[int, dict[str, Any]]:
        # The script looks where Fluent Bit would have it from the container's environment.
        lua.globals().os.getenv = lambda name: project if name == "QSM_LOG_PROJECT" else None
        given = {
            key: lua.table_from(value) if isinstance(value, dict) else value for key, value in record.items()
        }
        code, _, changed = lua.globals().ours(tag, 0.0, lua.table_from(given))
        return code, dict(changed)

    return call


def docker(project: str, service: str) -> dict[str, Any]:
    """What Docker writes of a line, with the labels that compose.yaml asks for."""
    labels = {"com.docker.compose.project": project, "com.docker.compose.service": service}
    return {"log": "a line\n", "stream": "stdout", "attrs": labels}


def test_lines_of_the_project_are_kept_with_their_container(ours: Ours) -> None:
    code, record = ours(IN_DOCKER, docker("qsm-ai", "triton-is-cpu"), "qsm-ai")
    assert (code, record) == (
        CHANGED,
        {"log": "a line\n", "stream": "stdout", "container": "triton-is-cpu"},
    )


@pytest.mark.parametrize(
    "record",
    [docker("somebody-else", "database"), {"log": "a line\n"}, {"log": "a line\n", "attrs": "text"}],
    ids=["another project", "no label", "no labels"],
)
def test_lines_of_others_on_the_machine_are_not_shipped(ours: Ours, record: dict[str, Any]) -> None:
    assert ours(IN_DOCKER, record, "qsm-ai")[0] == DROPPED


@pytest.mark.parametrize("project", [None, ""])
def test_in_a_cluster_a_line_says_which_pod_wrote_it(ours: Ours, project: str | None) -> None:
    code, record = ours(IN_A_CLUSTER, {"log": "a line"}, project)
    assert code == CHANGED
    assert record == {"log": "a line", "pod": "triton-is-7d9f6-x2x5z", "container": "triton-is"}


def test_a_line_from_elsewhere_stays_as_it_is(ours: Ours) -> None:
    assert ours("qsm.some.file", {"log": "a line"}) == (KEPT, {"log": "a line"})


@pytest.mark.parametrize("where", ["stdout", "cloudwatch", "cloud-logging"])
def test_lines_are_chosen_before_anything_else(where: str) -> None:
    first, *_ = yaml.safe_load((FILES / f"{where}.yaml").read_text())["pipeline"]["filters"]
    assert first == {"name": "lua", "match": "qsm.*", "script": "normalise.lua", "call": "ours"}


def test_cloudwatch_has_a_group_and_forgets() -> None:
    """Compose has no Terraform that would make it."""
    (destination,) = yaml.safe_load((FILES / "cloudwatch.yaml").read_text())["pipeline"]["outputs"]
    # YAML reads `on` as true.
    assert destination["auto_create_group"] is True
    assert destination["log_retention_days"] > 0
