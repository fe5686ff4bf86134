"""What each tier takes: memory and processor time while scans are reconstructed.

Run from the repository's root as ``.venv/bin/python deploy/kubernetes/measure.py FOLDER [SCANS]`` with a
folder of BIDS files, such as that of ``qsm-ai sample``. It starts Triton (on this machine's processors), a
gateway, a worker and the page as processes of their own, sends the scans one after the other, and looks at
every process of each tier twice a second.

Memory is the proportional set size: pages that several processes share are counted once. "Idle" is the median
after the start, "peak" the highest sum seen. Processor time is that of the scans alone; it depends little on
how busy the machine is otherwise, as time on the clock does.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx

from qsm_ai.inference.server import Ports
from qsm_ai.serve import Addresses, Supervisor

EVERY_S = 0.5
SETTLE_S = 15.0
TICKS = os.sysconf("SC_CLK_TCK")
MIB = 1 << 20


def family(root: int) -> list[int]:
    """A process and all that it started."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def memory(pids: list[int]) -> float:
    """Proportional set size of the processes together, MiB."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def processor(pids: list[int]) -> float:
    """Processor seconds of the processes and of those that they have waited for."""
    total = 0.0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(map(int, fields[11:15])) / TICKS
    return total


class Watch:
    """Looks at the tiers until told to stop."""

    def __init__(self, tiers: dict[str, int]) -> None:
        self._tiers = tiers
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.memory: dict[str, list[float]] = {tier: [] for tier in tiers}

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            for tier, root in self._tiers.items():
                self.memory[tier].append(memory(family(root)))

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def spent(tiers: dict[str, int]) -> dict[str, float]:
    """Processor seconds so far, by tier."""
    return {tier: processor(family(root)) for tier, root in tiers.items()}


def reconstruct(api: str, folder: Path) -> float:
    """Send one scan and wait for its map; seconds."""
    started = time.monotonic()
    handles = []
    try:
        files = []
        for part, role in (("part-phase", "phase"), ("part-mag", "magnitude")):
            for path in sorted(folder.glob(f"*{part}_MEGRE.nii.gz")):
                handles.append(path.open("rb"))
                files.append((role, (path.name, handles[-1])))
        for path in sorted(folder.glob("*.json")):
            handles.append(path.open("rb"))
            files.append(("sidecar", (path.name, handles[-1])))
        job = httpx.post(f"{api}/api/v1/reconstruct", files=files, timeout=600).raise_for_status().json()
    finally:
        for handle in handles:
            handle.close()
    while True:
        state = httpx.get(f"{api}/api/v1/jobs/{job['id']}", timeout=60).raise_for_status().json()
        if state["state"] in {"done", "failed", "cancelled"}:
            if state["state"] != "done":
                raise SystemExit(f"the job {state['state']}: {state.get('problem')}")
            return time.monotonic() - started
        time.sleep(0.5)


def main(folder: Path, scans: int) -> None:
    """Measure, and print JSON."""
    addresses = Addresses.choose(page=28501, api=28000, triton=Ports(28100, 28101, 28102))
    with tempfile.TemporaryDirectory() as place:
        data = Path(place)
        environment = {**os.environ, "QSM_WORKERS": "0"}
        supervisor = Supervisor(addresses, data, precision="auto", environment=environment)
        supervisor.start()
        worker = None
        try:
            supervisor.wait(600, threading.Event(), lambda *_: None)
            environment = {
                **os.environ,
                "QSM_TRITON_URL": f"127.0.0.1:{addresses.triton.grpc}",
                "QSM_DATA_DIR": str(data),
                "QSM_WORKERS": "1",
                "QSM_WORKER_PORT": "0",
            }
            worker = subprocess.Popen(
                [str(Path(sys.executable).with_name("qsm-ai")), "worker"],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            tiers = {tier.name: tier.child.pid for tier in supervisor.tiers} | {"Worker": worker.pid}
            with Watch(tiers) as idle:
                time.sleep(SETTLE_S)
            before = spent(tiers)
            with Watch(tiers) as busy:
                seconds = [reconstruct(supervisor.api_url, folder) for _ in range(scans)]
            after = spent(tiers)
        finally:
            if worker is not None:
                worker.terminate()
                worker.wait(60)
            supervisor.stop()
    report = {
        tier: {
            "idle_mib": round(statistics.median(idle.memory[tier])),
            "peak_mib": round(max(busy.memory[tier])),
            "cpu_seconds_per_scan": round((after[tier] - before[tier]) / scans, 1),
        }
        for tier in tiers
    }
    print(json.dumps({"scans": scans, "seconds": [round(s, 1) for s in seconds], "tiers": report}, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3)
