"""A job's memory is known before it is begun, and a machine's before jobs are taken."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qsm_ai.jobs.capacity import SHARE, memory_for_jobs_mb
from qsm_ai.jobs.memory import PROCESS_MB, needed_mb
from qsm_ai.jobs.records import Job, State

RESIDENT = """
import json, sys
from pathlib import Path

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
"""

PROGRAM = f"""{RESIDENT}
from qsm_ai.jobs import compute

reply = compute.answer(json.loads(sys.argv[1]), lambda message: None)
sys.stdout.write(json.dumps([reply["kind"], resident()]))
"""

AROUND_A_NETWORK = f"""{RESIDENT}
import numpy as np
from qsm_ai.reconstruction.pipeline import reconstruct
from qsm_ai.scan import Grid, Scan

class Silent:
    name = "silent 1"
    def predict(self, patches, on_patch=None):
        return np.zeros_like(patches[:, :1])

start, n = resident(), int(sys.argv[1])
x, y, z = np.meshgrid(*[np.linspace(-1, 1, n, dtype=np.float32)] * 3, indexing="ij")
mask = x**2 + y**2 + z**2 < 0.9
rng = np.random.default_rng(0)
magnitude = 1 + rng.random((1, n, n, n), dtype=np.float32)
field = 0.1 * x * y * mask
grid = Grid((n, n, n), np.eye(4))
scan = Scan("scan", grid, (0.0, 0.0, 1.0), 3.0, magnitude=magnitude, total_field=field, mask=mask)
del x, y, z
reconstruct(scan, network=Silent())
sys.stdout.write(json.dumps(resident() - start))
"""
EDGE = 72


def a_job(voxels: int, echoes: int) -> Job:
    summary = {"voxels": voxels, "echoes": echoes}
    return Job("a" * 32, "ann", State.QUEUED, {"method": "tkd"}, (), summary)


@pytest.mark.parametrize("method", ["tkd", "tv"])
def test_the_estimate_covers_what_a_reconstruction_takes(files: Any, tmp_path: Path, method: str) -> None:
    task = {
        "task": "reconstruct",
        "sources": [
            {"role": "phase", "name": files.phase.name, "path": str(files.phase)},
            {"role": "magnitude", "name": files.magnitude.name, "path": str(files.magnitude)},
        ],
        "parameters": {"te_ms": [4, 8, 12], "b0": 3.0, "method": method},
        "output": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, json.dumps(task)], stdout=subprocess.PIPE, check=True
    )
    kind, peak = json.loads(done.stdout)
    assert kind == "result"
    estimate = needed_mb(a_job(48 * 44 * 40, 3))
    assert peak <= estimate <= 3 * peak


@pytest.mark.slow
def test_the_estimate_covers_the_steps_around_a_network() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", AROUND_A_NETWORK, str(EDGE)],
        stdout=subprocess.PIPE,
        check=True,
    )
    taken = json.loads(done.stdout)
    estimate = needed_mb(a_job(EDGE**3, 1)) - PROCESS_MB
    assert taken <= estimate <= 3 * taken


def test_more_voxels_and_more_echoes_take_more() -> None:
    assert needed_mb(a_job(100**3, 4)) < needed_mb(a_job(200**3, 4)) < needed_mb(a_job(200**3, 8))
    assert needed_mb(replace(a_job(0, 0), summary={})) > 0


def test_the_limit_of_a_container_counts_where_there_is_one(tmp_path: Path) -> None:
    limit, none = tmp_path / "memory.max", tmp_path / "unlimited"
    limit.write_text(f"{1000 << 20}\n")
    none.write_text("max\n")
    assert memory_for_jobs_mb((tmp_path / "missing", limit)) == int(SHARE * 1000)
    whole = memory_for_jobs_mb((none,))
    assert whole > int(SHARE * 1000)
    assert memory_for_jobs_mb(()) == whole
