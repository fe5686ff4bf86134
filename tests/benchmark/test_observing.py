"""The benchmark of observing does the same job with and without it."""

from __future__ import annotations

from qsm_ai.benchmark.observing import Overhead, measure
from qsm_ai.reconstruction.stages import STAGES


def test_a_job_is_measured_in_pairs_and_its_observing_by_itself() -> None:
    found = measure(24, "tkd", 2)
    assert len(found.plain) == len(found.observed) == 2
    without_network = [stage for stage in STAGES if stage.name not in ("network", "consistency")]
    assert found.spans == 3 + len(without_network)
    assert 0 < found.own < min(found.plain)
    assert found.as_dict()["share"] == found.share


def test_shares_are_of_the_processor_time_of_a_job() -> None:
    found = Overhead("tkd", (1, 1, 1), (2.0, 4.0, 3.0), (2.2, 4.0, 3.0), (), (), own=0.03, spans=5)
    assert found.share == 0.01
    assert found.difference == 0
