"""A simulated head becomes a scan of what is given of it."""

from __future__ import annotations

import numpy as np

from qsm_ai.benchmark.simulated_scan import simulated_scan
from qsm_ai.network.anatomy import simulate_head
from qsm_ai.network.simulation import simulate_echoes


def test_a_scan_has_echo_times_where_it_has_a_phase_and_the_heads_grid_always() -> None:
    rng = np.random.default_rng(1)
    head = simulate_head(rng, (8.0, 9.0, 10.0))
    echoes = simulate_echoes(rng, head, b0_direction=(0.0, 0.6, 0.8), field_strength=7.0)
    phase = simulated_scan("one", head, echoes, head.brain, phase=echoes.phase)
    given = simulated_scan("one", head, echoes, head.brain, local_field=echoes.true_field)
    assert phase.echo_times == echoes.echo_times
    assert given.echo_times == ()
    for scan in (phase, given):
        assert scan.grid.voxel_size == (8.0, 9.0, 10.0)
        assert (scan.b0_direction, scan.field_strength) == ((0.0, 0.6, 0.8), 7.0)
        assert scan.mask is head.brain
