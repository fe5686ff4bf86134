"""The unit dipole against what is known of it in closed form."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from qsm_ai.physics.dipole import dipole_kernel, forward_field
from qsm_ai.physics.fourier import frequencies

Voxel = tuple[float, float, float]
DIRECTIONS = [(0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 0.3, 0.954), (0.5, -0.5, 0.707)]
VOXELS = [(1.0, 1.0, 1.0), (0.5, 0.5, 1.5), (1.0, 2.0, 0.7)]
direction = st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda b: np.linalg.norm(b) > 0.1)
voxel = st.tuples(*[st.floats(0.3, 3)] * 3)


def positions(shape: tuple[int, ...], voxel_size: Voxel) -> NDArray[np.float64]:
    """Of voxel centres, mm, from the middle voxel: (3, X, Y, Z)."""
    return np.stack(
        np.meshgrid(
            *[(np.arange(n) - n // 2) * h for n, h in zip(shape, voxel_size, strict=True)], indexing="ij"
        )
    )


def partial_volumes(
    radius: float, shape: tuple[int, ...], voxel_size: Voxel, axes: int = 3
) -> NDArray[np.float32]:
    """Share of each voxel within a sphere (a cylinder along z with two axes), by 5³ points."""
    centre = positions(shape, voxel_size)
    share = np.zeros(shape, np.float32)
    steps = (np.arange(5) - 2) / 5
    for shift in np.stack(np.meshgrid(*[steps] * 3), -1).reshape(-1, 3):
        moved = centre + (shift * np.asarray(voxel_size)).reshape(3, 1, 1, 1)
        share += (moved[:axes] ** 2).sum(0) < radius**2
    return share / 125


def blob(at: NDArray[np.float64]) -> NDArray[np.float32]:
    """A smooth body without symmetry."""
    x, y, z = at
    body = np.exp(-(x**2 / 18 + (y - 1) ** 2 / 40 + z**2 / 26)) - 0.6 * np.exp(
        -((x - 5) ** 2 + y**2 + (z + 4) ** 2) / 16
    )
    return body.astype(np.float32)


@given(direction, voxel)
@settings(max_examples=30, deadline=None)
def test_it_lies_between_minus_two_thirds_and_one_third(b: Voxel, h: Voxel) -> None:
    kernel = dipole_kernel((12, 11, 10), h, b)
    assert kernel.shape == (12, 11, 6)
    assert kernel.dtype == np.float32
    assert kernel.min() >= -2 / 3 - 1e-6
    assert kernel.max() <= 1 / 3 + 1e-6


@pytest.mark.parametrize(
    ("b", "along"), [((1, 0, 0), (1, 0, 0)), ((0, 1, 0), (0, 1, 0)), ((0, 0, 1), (0, 0, 1))]
)
def test_it_is_minus_two_thirds_along_the_field_and_one_third_across(
    b: Voxel, along: tuple[int, ...]
) -> None:
    kernel = dipole_kernel((8, 8, 8), (1, 1, 1), b)
    for axis in range(3):
        index = tuple(2 * int(a == axis) for a in range(3))
        assert kernel[index] == pytest.approx(-2 / 3 if along[axis] else 1 / 3)


def test_it_is_zero_at_the_magic_angle_and_in_the_middle() -> None:
    kernel = dipole_kernel((10, 10, 10), (1, 1, 1), (0, 0, 1))
    for n in range(1, 5):
        assert kernel[n, n, n] == pytest.approx(0, abs=1e-7)
        assert kernel[-n, n, n] == pytest.approx(0, abs=1e-7)
    assert kernel[0, 0, 0] == 0


@given(direction, voxel)
@settings(max_examples=20, deadline=None)
def test_it_depends_on_the_angle_in_millimetres(b: Voxel, h: Voxel) -> None:
    shape = (5, 7, 9)
    k = np.stack(np.broadcast_arrays(*frequencies(shape, h))).astype(np.float64)
    length = np.sqrt((k**2).sum(0))
    length[0, 0, 0] = 1
    cosine = np.tensordot(np.asarray(b) / np.linalg.norm(b), k, 1) / length
    expected = 1 / 3 - cosine**2
    expected[0, 0, 0] = 0
    seen = dipole_kernel(shape, h, b)
    np.testing.assert_allclose(seen, expected, atol=1e-5)


def test_mirroring_the_body_and_the_field_mirrors_the_result() -> None:
    """Also at the highest frequency of an even axis, which stands for both signs."""
    chi = np.random.default_rng(0).standard_normal((8, 10, 12)).astype(np.float32)
    field = forward_field(chi, (1, 1, 2), (0.5, 0.4, 0.77), margin=4)
    mirrored = forward_field(chi[::-1].copy(), (1, 1, 2), (-0.5, 0.4, 0.77), margin=4)
    np.testing.assert_allclose(mirrored[::-1], field, atol=1e-5)


@given(direction, st.floats(0.1, 10))
@settings(max_examples=15, deadline=None)
def test_only_the_line_of_the_field_counts_not_its_sense_or_length(b: Voxel, length: float) -> None:
    other = tuple(-length * c for c in b)
    np.testing.assert_allclose(
        dipole_kernel((6, 6, 6), (1, 1, 2), b), dipole_kernel((6, 6, 6), (1, 1, 2), other), atol=1e-5
    )


def test_a_direction_without_length_is_refused() -> None:
    with pytest.raises(ValueError, match="no length"):
        dipole_kernel((4, 4, 4), (1, 1, 1), (0, 0, 0))


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_permuting_the_axes_of_everything_permutes_the_field(order: tuple[int, int, int]) -> None:
    shape, h, b = (20, 24, 18), (1.0, 1.5, 2.0), (0.2, 0.5, 0.84)
    chi = blob(positions(shape, h))
    field = forward_field(chi, h, b)
    permuted = forward_field(
        np.ascontiguousarray(chi.transpose(order)), tuple(h[a] for a in order), tuple(b[a] for a in order)
    )
    np.testing.assert_allclose(permuted, field.transpose(order), atol=1e-6)


def test_turning_the_body_and_the_field_together_turns_the_result() -> None:
    shape, h, b = (48, 48, 48), (1.0, 1.0, 1.0), np.array([0.0, 0.3, 0.954])
    about_x, about_z = np.deg2rad(30), np.deg2rad(20)
    turn = np.array(
        [[1, 0, 0], [0, np.cos(about_x), -np.sin(about_x)], [0, np.sin(about_x), np.cos(about_x)]]
    )
    turn = (
        np.array([[np.cos(about_z), -np.sin(about_z), 0], [np.sin(about_z), np.cos(about_z), 0], [0, 0, 1]])
        @ turn
    )
    at = positions(shape, h)
    field = forward_field(blob(at), h, tuple(b))
    turned_field = forward_field(blob(np.tensordot(turn.T, at, 1)), h, tuple(turn @ b))
    # The turned field at the turned place is the field at the place.
    inner = at[:, 12:37:2, 12:37:2, 12:37:2].reshape(3, -1)
    seen = map_coordinates(turned_field, turn @ inner + 24, order=3)
    wanted = field[12:37:2, 12:37:2, 12:37:2].ravel()
    assert np.abs(seen - wanted).max() < 0.01 * np.abs(wanted).max()


@pytest.mark.parametrize("b", DIRECTIONS)
def test_coarser_voxels_along_one_axis_see_the_same_field(b: Voxel) -> None:
    fine = forward_field(blob(positions((48, 48, 48), (1, 1, 1))), (1, 1, 1), b)
    coarse = forward_field(blob(positions((48, 48, 24), (1, 1, 2))), (1, 1, 2), b)
    assert np.abs(coarse - fine[:, :, ::2]).max() < 0.01 * np.abs(fine).max()


@given(st.floats(0.2, 5))
@settings(max_examples=10, deadline=None)
def test_the_field_does_not_depend_on_the_unit_of_length(factor: float) -> None:
    chi = blob(positions((16, 16, 16), (1, 1, 1)))
    scaled = forward_field(chi, (factor, factor, 2 * factor), (0.1, 0.2, 0.97))
    np.testing.assert_allclose(scaled, forward_field(chi, (1, 1, 2), (0.1, 0.2, 0.97)), atol=1e-6)


@given(st.floats(-3, 3), st.floats(-3, 3), direction)
@settings(max_examples=15, deadline=None)
def test_the_field_is_linear_in_the_susceptibility(p: float, q: float, b: Voxel) -> None:
    rng = np.random.default_rng(0)
    one, two = rng.standard_normal((2, 10, 12, 14)).astype(np.float32)
    assume(abs(p) + abs(q) > 0.01)
    together = forward_field(np.float32(p) * one + np.float32(q) * two, (1, 1, 1.5), b)
    apart = np.float32(p) * forward_field(one, (1, 1, 1.5), b) + np.float32(q) * forward_field(
        two, (1, 1, 1.5), b
    )
    np.testing.assert_allclose(together, apart, atol=1e-5)


@pytest.mark.parametrize("h", VOXELS)
@pytest.mark.parametrize("b", DIRECTIONS)
def test_a_sphere_makes_a_dipole_outside_and_nothing_inside(b: Voxel, h: Voxel) -> None:
    r"""Outside (χ/3)(a/r)³(3cos²θ − 1); inside 0, once the Lorentz sphere is taken off."""
    shape = tuple(2 * round(20 / s) for s in h)
    radius, chi = 6.0, 1.0
    field = forward_field(chi * partial_volumes(radius, shape, h), h, b)
    at = positions(shape, h)
    r = np.sqrt((at**2).sum(0))
    cosine = np.tensordot(np.asarray(b) / np.linalg.norm(b), at, 1) / np.maximum(r, 1e-9)
    expected = chi / 3 * (radius / np.maximum(r, radius)) ** 3 * (3 * cosine**2 - 1)
    thick = max(h)
    outside, inside = (r > radius + 2 * thick) & (r < 18), r < radius - 2 * thick
    assert np.abs(field - expected)[outside].max() < 0.035 * chi
    assert np.sqrt(np.mean((field - expected)[outside] ** 2)) < 0.005 * chi
    assert np.abs(field[inside]).max() < 0.03 * chi


def test_a_cylinder_across_the_field() -> None:
    r"""Outside (χ/2)(a/r)² cos 2φ; inside −χ/6."""
    shape, h, radius = (96, 96, 4), (1.0, 1.0, 1.0), 6.0
    chi = partial_volumes(radius, shape, h, axes=2)
    field = forward_field(chi, h, (1, 0, 0), margin=0)  # periodic along z: endless
    x, y, _ = positions(shape, h)
    r2 = np.maximum(x**2 + y**2, 1e-9)
    expected = 0.5 * radius**2 * (x**2 - y**2) / r2**2
    outside, inside = (r2 > (radius + 2) ** 2) & (r2 < 30**2), r2 < (radius - 2) ** 2
    assert np.abs(field - expected)[outside].max() < 0.02
    assert np.abs(field[inside] + 1 / 6).max() < 0.02


def test_a_cylinder_along_the_field() -> None:
    """Outside 0; inside χ/3; and the mean, which the kernel does not know, taken off."""
    shape, h = (64, 64, 4), (1.0, 1.0, 1.0)
    chi = partial_volumes(6.0, shape, h, axes=2)
    field = forward_field(chi, h, (0, 0, 1), margin=0)
    np.testing.assert_allclose(field, (chi - chi.mean()) / 3, atol=1e-5)


def test_torch_tensors_give_the_same_field_and_its_gradient() -> None:
    torch = pytest.importorskip("torch")
    chi = blob(positions((14, 15, 16), (1, 1, 1)))
    tensor = torch.from_numpy(chi).requires_grad_()
    field = forward_field(tensor, (1, 1, 1.5), (0.1, 0.2, 0.97))
    np.testing.assert_allclose(
        field.detach().numpy(), forward_field(chi, (1, 1, 1.5), (0.1, 0.2, 0.97)), atol=1e-6
    )
    weights = torch.from_numpy(np.random.default_rng(0).standard_normal(chi.shape).astype(np.float32))
    (field * weights).sum().backward()
    # The dipole is its own adjoint.
    adjoint = forward_field(weights, (1, 1, 1.5), (0.1, 0.2, 0.97))
    np.testing.assert_allclose(tensor.grad.numpy(), adjoint.numpy(), atol=1e-5)
