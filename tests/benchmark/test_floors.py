"""Floors: what is counted is what is done."""

from collections import Counter

import numpy as np
import pytest
import scipy.fft

from qsm_ai.benchmark.floors import (
    Transform,
    convolution_rate,
    counted_transforms,
    floor_of,
    network_work,
    time_transforms,
)
from qsm_ai.inference.repository import model_file
from qsm_ai.physics.dipole import forward_field
from qsm_ai.physics.laplacian_unwrapping import unwrap_laplacian
from qsm_ai.reconstruction.inputs import CHANNELS
from qsm_ai.reconstruction.patches import PATCH

VOXEL = (1.0, 1.0, 1.0)
UPRIGHT = (0.0, 0.0, 1.0)


def volume() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((12, 10, 14), dtype=np.float32)


def test_transforms_of_the_physics_are_counted_in_their_stage() -> None:
    stage = "first"
    with counted_transforms(lambda: stage) as counts:
        forward_field(volume(), VOXEL, UPRIGHT)
        stage = "second"
        forward_field(volume(), VOXEL, UPRIGHT)
        unwrap_laplacian(volume(), VOXEL)
    assert Counter(kind.name for kind in counts["first"].elements()) == {"rfftn": 1, "irfftn": 1}
    assert Counter(kind.name for kind in counts["second"].elements()) == {
        "rfftn": 1,
        "irfftn": 1,
        "dctn": 1,
        "idctn": 1,
    }


def test_counting_changes_no_result_and_ends() -> None:
    before = scipy.fft.rfftn
    with counted_transforms(lambda: "") as counts:
        counted = forward_field(volume(), VOXEL, UPRIGHT)
    assert np.array_equal(counted, forward_field(volume(), VOXEL, UPRIGHT))
    assert counts[""].total() == 2
    assert scipy.fft.rfftn is before


def test_counting_ends_after_an_error_too() -> None:
    before = scipy.fft.rfftn
    with pytest.raises(KeyError), counted_transforms(lambda: ""):
        raise KeyError
    assert scipy.fft.rfftn is before


def test_what_was_counted_can_be_timed() -> None:
    with counted_transforms(lambda: "") as counts:
        forward_field(volume(), VOXEL, UPRIGHT)
        unwrap_laplacian(volume(), VOXEL)
    seconds = time_transforms(counts[""])
    assert set(seconds) == set(counts[""])
    assert all(s > 0 for s in seconds.values())


def test_a_floor_is_the_number_of_each_kind_times_its_time() -> None:
    small, large = (Transform("rfftn", (n, n, n), "float32", ()) for n in (8, 16))
    assert floor_of({small: 3, large: 2}, {small: 1.0, large: 10.0}) == 23.0


def test_the_networks_operations_are_those_of_its_layers() -> None:
    pytest.importorskip("openvino")
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    from qsm_ai.network.qsm_vit import QsmVit

    work = network_work(model_file())
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        QsmVit()(torch.empty(1, len(CHANNELS), PATCH, PATCH, PATCH))
    assert work.operations == pytest.approx(counter.get_total_flops(), rel=0.02)
    assert work.convolutions == ((48, 48), (128, 24))


def test_a_convolution_rate_is_one_of_a_real_machine() -> None:
    pytest.importorskip("openvino")
    assert 1e8 < convolution_rate(8, 12, "f32") < 1e15
