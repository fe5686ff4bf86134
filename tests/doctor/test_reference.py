"""The reference scan and the values expected of it."""

import hashlib

import numpy as np
import pytest

from qsm_ai.doctor.reference import LIMIT, compare, expected, probe, reference_scan
from qsm_ai.inference.repository import model_file
from qsm_ai.physics.inversion import tkd


def test_the_expected_values_are_those_of_the_shipped_weights() -> None:
    digest = hashlib.sha256(model_file().read_bytes()).hexdigest()[:12]
    assert expected()["weights"] == digest, "new weights: run python -m qsm_ai.doctor.reference"
    scan = reference_scan()
    assert len(expected()["values"]) == len(probe(scan.chi, scan))


def test_the_expected_map_is_near_the_truth() -> None:
    scan = reference_scan()
    assert np.corrcoef(expected()["values"], probe(scan.chi, scan))[0, 1] > 0.9


def test_a_classical_inversion_is_a_map_but_not_the_networks() -> None:
    scan = reference_scan()
    x, y, z = scan.affine[2, :3] / np.linalg.norm(scan.affine[:3, :3], axis=0)
    voxel_size = tuple(float(v) for v in np.linalg.norm(scan.affine[:3, :3], axis=0))
    chi = tkd(scan.local_field, scan.mask, voxel_size, (float(x), float(y), float(z)))
    agreement = compare(chi)
    assert agreement.is_a_map
    assert not agreement.is_right
    assert agreement.error > 5 * LIMIT


def test_zeros_are_no_map() -> None:
    agreement = compare(np.zeros(reference_scan().chi.shape))
    assert not agreement.is_a_map
    assert not agreement.is_right


@pytest.mark.parametrize("bad", [np.zeros((3, 3, 3)), np.full(reference_scan().chi.shape, np.nan)])
def test_what_cannot_be_compared_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"shape|finite"):
        compare(bad)
