"""What an installation costs, from prices that are assumed and seconds that go back to a measurement.

``python deploy/terraform/costs.py`` writes the tables into both READMEs; a test keeps them current. Prices
are list prices on demand in US dollars as remembered in 2026 for eu-central-1 and europe-west3, without tax
and discounts. They were not looked up: put yours in and run it again.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
HOURS = 730.0

SAMPLE = (180, 216, 160)
SPEED = HERE.parents[1] / "benchmarks/results/speed.json"
TIMING = json.loads(SPEED.read_text(encoding="utf-8"))["timing"]


def worker_seconds() -> float:
    """How long a worker takes for the sample scan on two processors, while a GPU has the network.

    Worked out from the scan of ``benchmarks/results/speed.json`` on two cores, which has as many echoes: all
    of it but the arithmetic of the network, at the rate of convolutions that was measured beside it, times
    the ratio of voxels. What the network takes beyond its arithmetic stays in, so it is rather too much.

    Returns
    -------
    float
        s.
    """
    arithmetic = sum(stage["operations"] for stage in TIMING["stages"]) / TIMING["convolution_rate"]
    return (TIMING["seconds"] - arithmetic) * math.prod(SAMPLE) / math.prod(TIMING["shape"][1:])


# Measured: what the sample scan's upload and results take up together.
SCAN_GB = 0.08

# Assumed: four workers keep one GPU node busy.
WORKERS_PER_GPU = 4.0
RETENTION_DAYS = 7.0

WORKER_S = worker_seconds()
GPU_S = WORKER_S / WORKERS_PER_GPU


@dataclass(frozen=True)
class Part:
    """Something that costs whether anybody comes or not: its price in a month, each, and how many."""

    name: str
    monthly: float
    number: float = 1.0
    basis: str = ""

    @property
    def cost(self) -> float:
        """Dollars a month."""
        return self.monthly * self.number


def hourly(name: str, price: float, number: float = 1.0) -> Part:
    """A part with a price by the hour."""
    return Part(name, price * HOURS, number, f"{number:g} × {price:g} an hour")


AWS_VCPU, AWS_GB, AWS_GPU = 0.04656, 0.00511, 0.658
GCP_VCPU, GCP_GB, GCP_GPU = 0.0648, 0.0072, 1.10

IDLE = {
    "aws": [
        hourly("EKS control plane", 0.10),
        hourly("system node, t3.medium", 0.048),
        hourly("NAT gateways", 0.052, 2),
        hourly("load balancers (ALB, NLB)", 0.027, 2),
        hourly("public addresses", 0.005, 4),
        hourly("backend, 1 vCPU and 4 GB", AWS_VCPU + 4 * AWS_GB),
        hourly("worker, 4 vCPU and 8 GB", 4 * AWS_VCPU + 8 * AWS_GB),
        hourly("frontend, 0.5 vCPU and 2 GB", 0.5 * AWS_VCPU + 2 * AWS_GB),
        hourly("database, db.t4g.small with a standby", 0.076),
        Part("disks (20 GB twice, 30 GB)", 8.3, 1, "0.137 and 0.095 a GB and month"),
        Part("keys", 1.0, 5, "5 × 1 a month"),
    ],
    "gcp": [
        hourly("GKE control plane", 0.10),
        hourly("system node, e2-standard-2", 0.0863),
        hourly("NAT and forwarding rules", 0.051),
        hourly("backend, 2 vCPU and 8 GiB, always on", 2 * GCP_VCPU + 8 * GCP_GB),
        hourly("worker, 4 vCPU and 16 GiB, always on", 4 * GCP_VCPU + 16 * GCP_GB),
        hourly("frontend, 1 vCPU and 2 GiB, resting", 1 * 0.009 + 2 * 0.009),
        hourly("database, db-custom-1-3840 with a standby", 0.139),
        Part("disks", 14.0, 1, "0.1 to 0.2 a GB and month"),
    ],
}
GPU = {
    "aws": hourly("one GPU node, g4dn.xlarge", AWS_GPU),
    "gcp": hourly("one GPU node, g2-standard-8 with an L4", GCP_GPU),
}
# Worker by the second, GPU node by the second, storage by the GB and month.
BY_SCAN = {
    "aws": ((4 * AWS_VCPU + 8 * AWS_GB) / 3600, AWS_GPU / 3600, 0.0245),
    "gcp": ((4 * GCP_VCPU + 16 * GCP_GB) / 3600, GCP_GPU / 3600, 0.023),
}


def section(cloud: str) -> str:
    """The README's section on costs."""
    idle, gpu = IDLE[cloud], GPU[cloud]
    rows = ["| idle | how | US$ a month |", "| --- | --- | --- |"]
    rows += [f"| {part.name} | {part.basis} | {part.cost:.0f} |" for part in idle]
    total = sum(part.cost for part in idle)
    rows += [
        f"| **all of this, the GPU resting** (`gpu.min = 0`) | | **{total:.0f}** |",
        f"| {gpu.name} | {gpu.basis} | {gpu.cost:.0f} |",
        f"| **with one GPU node always there** | | **{total + gpu.cost:.0f}** |",
    ]
    worker, node, storage = BY_SCAN[cloud]
    kept = SCAN_GB * RETENTION_DAYS / 30 * storage
    size = " × ".join(map(str, SAMPLE))
    more = [
        "| 1,000 scans | how | US$ |",
        "| --- | --- | --- |",
        f"| workers beyond the first | {WORKER_S:.0f} s each | {1000 * WORKER_S * worker:.2f} |",
        f"| GPU node, if it rests otherwise | {GPU_S:.1f} s each, without gaps | {1000 * GPU_S * node:.2f} |",
        f"| storage | {1000 * SCAN_GB:.0f} MB each for {RETENTION_DAYS:.0f} days | {1000 * kept:.2f} |",
        f"| **together** | | **{1000 * (WORKER_S * worker + GPU_S * node + kept):.2f}** |",
    ]
    return "\n".join(
        [
            "Prices are **assumed**: list prices on demand as remembered, neither looked up nor yours.",
            "Put yours into [costs.py](../costs.py) and run it.",
            f"Worked out from [a measurement](../../../docs/benchmarks.md#speed): {WORKER_S:.0f} s of a",
            f"worker for the sample scan ({size}, four echoes), as a scan of 160³ took on two cores",
            "without the arithmetic of the network; one of four processors was not measured and is hardly",
            f"slower. Measured: {1000 * SCAN_GB:.0f} MB for upload and results. Assumed: that four workers",
            "share a GPU. Traffic, logs and requests come on top; they are small beside these.",
            "",
            *rows,
            "",
            *more,
            "",
            "What costs is to be there, not to compute. `gpu.min = 0` saves most; the first scan then waits",
            "for a node. `monthly_budget_usd` sends a letter before the month's sum passes it.",
        ]
    )


def page(cloud: str) -> str:
    """The README with its section on costs as it should be."""
    text = (HERE / cloud / "README.md").read_text(encoding="utf-8")
    made = f"## What it costs\n\n{section(cloud)}\n\n## "
    return re.sub(r"## What it costs\n.*?\n## ", lambda _: made, text, count=1, flags=re.DOTALL)


if __name__ == "__main__":
    for cloud in IDLE:
        (HERE / cloud / "README.md").write_text(page(cloud), encoding="utf-8")
