"""What Fluent Bit does to lines that are not ours, in the Lua that it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lupa.luajit21 import LuaRuntime

SCRIPT = Path(__file__).parents[2] / "deploy/monitoring/fluent-bit/normalise.lua"
KEPT, CHANGED, DROPPED = 0, 2, -1


@pytest.fixture(scope="module")
def normalise() -> Any:
    lua = LuaRuntime()
    lua.execute(SCRIPT.read_text())
    function = lua.globals().normalise

    def call(record: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        code, _, changed = function("qsm.x", 0.0, lua.table_from(record))
        return code, dict(changed)

    return call


@pytest.mark.parametrize(
    ("letter", "level"),
    [("V", "debug"), ("I", "info"), ("W", "warning"), ("E", "error"), ("F", "critical")],
)
def test_a_line_of_triton_gets_the_fields_of_the_other_tiers(normalise: Any, letter: str, level: str) -> None:
    line = f"2026-11-23T05:32:00Z {letter} 8625 model_lifecycle.cc:839] \"successfully loaded 'qsm_vit'\"\n"
    assert normalise({"log": line, "stream": "stderr"}) == (
        CHANGED,
        {
            "time": "2026-11-23T05:32:00Z",
            "level": level,
            "tier": "triton",
            "pid": 8625,
            "source": "model_lifecycle.cc:839",
            "event": "successfully loaded 'qsm_vit'",
            "stream": "stderr",
        },
    )


def test_a_line_of_triton_without_quotes_is_kept_as_it_is(normalise: Any) -> None:
    _, record = normalise({"log": "2026-11-23T05:32:00.123456Z I 1 server.cc:604] "})
    assert record["event"] == ""
    assert record["time"] == "2026-11-23T05:32:00.123456Z"


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("| qsm_vit | 1       | READY  |", "info"),
        ("Signal (15) received.", "info"),
        ("Error: Failed to initialize NVML", "error"),
        ("triton-entrypoint: WARNING: no GPU; ONNX Runtime serves on the CPU", "warning"),
    ],
)
def test_other_lines_stay_with_a_level(normalise: Any, line: str, level: str) -> None:
    assert normalise({"log": line}) == (CHANGED, {"level": level, "tier": "other", "event": line})


@pytest.mark.parametrize("line", ["", "\n", "+-----+-----+"])
def test_lines_without_a_word_are_dropped(normalise: Any, line: str) -> None:
    assert normalise({"log": line})[0] == DROPPED


def test_a_line_that_was_parsed_already_is_left_alone(normalise: Any) -> None:
    record = {"time": "2026-11-23T05:32:00Z", "level": "info", "tier": "backend", "event": "request"}
    assert normalise(record) == (KEPT, record)
