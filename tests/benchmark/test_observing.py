"""The benchmark of observing does the same job with and without it."""

from __future__ import annotations

from qsm_ai.benchmark.observing import Overhead, measure
from qsm_ai.benchmark.speed import simulate_scan
from qsm_ai.reconstruction.options import Options
from qsm_ai.reconstruction.pipeline import planned_stages


def test_a_job_is_measured_in_pairs_and_its_observing_by_itself() -> None:
    found = measure(24, "tkd", 1)
    assert len(found.plain) == len(found.observed) == 1
    stages = planned_stages(simulate_scan(24), Options(method="tkd"))
    assert found.spans == len(("request", "job", "compute", *stages))
    assert 0 < found.own < min(found.plain)
    assert found.as_dict()["share"] == found.share


def test_shares_are_of_the_processor_time_of_a_job() -> None:
    found = Overhead("tkd", (1, 1, 1), (2.0, 4.0, 3.0), (2.2, 4.0, 3.0), (), (), own=0.03, spans=5)
    assert found.share == 0.01
    assert found.difference == 0
