"""Small trainings that differ in one thing each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from qsm_ai.network.ablation import (  # noqa: E402
    BASE,
    VARIANTS,
    AblatedVit,
    HeldVit,
    Outcome,
    Variant,
    ablate,
    held,
    squared,
    table,
    uncorrected,
)
from qsm_ai.network.training import loss  # noqa: E402
from qsm_ai.network.whole_heads import DIPOLE, MAPS, TRUST, WholeHeads  # noqa: E402
from qsm_ai.physics.dipole import dipole_kernel  # noqa: E402
from qsm_ai.physics.fourier import irfftn, rfftn  # noqa: E402
from qsm_ai.physics.inversion import Inverter  # noqa: E402
from qsm_ai.reconstruction.consistency import consistency_weight  # noqa: E402
from qsm_ai.reconstruction.inputs import CHANNELS, ERROR_GAIN  # noqa: E402

WIDTHS = (4, 8, 16)
SMALL = {"widths": WIDTHS}
EDGE = 24
CUBE = (EDGE, EDGE, EDGE)
VOXEL, B0 = (5.0, 5.0, 6.0), (0.2, 0.3, 0.93)


def awake(network: AblatedVit) -> AblatedVit:
    """With a last layer that is not zero, as after some training."""
    torch.nn.init.normal_(network.leave.weight, generator=torch.Generator().manual_seed(0))
    return network.eval()


def some_head(seed: int = 0) -> np.ndarray:
    """Everything at random but the dipole and a mask that fills the cube but for its rim."""
    rng = np.random.default_rng(seed)
    stack = rng.standard_normal((len(MAPS) + 4, *CUBE)).astype(np.float32)
    mask = np.zeros(CUBE)
    mask[2:-2, 2:-2, 2:-2] = 1
    stack[MAPS.index("mask")] = stack[TRUST] = stack[-1] = mask
    stack[MAPS.index("field_error")] = 0.4
    half = dipole_kernel(CUBE, VOXEL, B0)
    stack[DIPOLE] = np.fft.fftn(irfftn(half, CUBE)).real
    return stack


@pytest.mark.parametrize("name", MAPS)
def test_a_map_that_the_network_does_not_see_changes_nothing(name: str) -> None:
    torch.manual_seed(0)
    patches = torch.randn(1, len(MAPS), 16, 16, 16)
    changed = patches.clone()
    changed[:, MAPS.index(name)] += 1
    others = tuple(one for one in MAPS if one != name)
    blind, seeing = awake(AblatedVit(others, widths=WIDTHS)), awake(AblatedVit(MAPS, widths=WIDTHS))
    assert torch.equal(blind(patches), blind(changed))
    assert not torch.equal(seeing(patches), seeing(changed))


def test_convolutions_stand_where_the_transformer_was() -> None:
    without = AblatedVit(convolutions=True, widths=WIDTHS)
    assert not any("query_key_value" in name for name in without.state_dict())
    assert any("query_key_value" in name for name in AblatedVit(widths=WIDTHS).state_dict())
    assert awake(without)(torch.zeros(1, len(MAPS), 16, 16, 16)).shape == (1, 1, 16, 16, 16)


def test_an_unknown_map_is_refused() -> None:
    with pytest.raises(ValueError, match="no map 'phase'"):
        AblatedVit(("phase",))


def test_every_input_is_left_out_once_every_other_map_added_once_and_names_are_unique() -> None:
    seen = [set(v.parts.get("sees", CHANNELS)) for v in VARIANTS]
    left_out = [name for sees in seen for name in set(CHANNELS) - sees]
    added = [name for sees in seen for name in sees - set(CHANNELS)]
    assert sorted(left_out + added) == sorted(MAPS)
    assert VARIANTS[0] is BASE
    assert len({v.name for v in VARIANTS}) == len(VARIANTS)


@pytest.mark.parametrize("factor", [0.1, 1.0, 10.0])
def test_a_map_is_held_to_the_field_by_the_first_step_of_the_pipelines(factor: float) -> None:
    stack = some_head()
    mask = stack[MAPS.index("mask")]
    chi = np.random.default_rng(1).standard_normal(CUBE).astype(np.float32) * mask
    field = stack[MAPS.index("local_field")] * mask
    inverter = Inverter(field, VOXEL, B0, margin=0)
    weight = factor * consistency_weight(0.4 / ERROR_GAIN, 1.0)
    expected = inverter.consistency(chi, weight, mask, steps=1) * mask
    there = torch.from_numpy(stack)[None]
    found = held(torch.from_numpy(chi)[None, None], there, factor)[0, 0].numpy()
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_a_field_that_is_not_trusted_moves_nothing() -> None:
    stack = torch.from_numpy(some_head())[None]
    mask = stack[:, MAPS.index("mask")]
    chi = torch.randn(1, *CUBE) * mask
    assert not torch.allclose(held(chi[:, None], stack)[:, 0], chi)
    stack[:, TRUST] = 0
    torch.testing.assert_close(held(chi[:, None], stack)[:, 0], chi)


def test_a_map_that_explains_the_field_stays_as_it_is() -> None:
    stack = torch.from_numpy(some_head())[None]
    mask = stack[:, MAPS.index("mask")]
    chi = torch.randn(1, *CUBE) * mask
    kernel = stack[:, DIPOLE, :, :, : EDGE // 2 + 1]
    stack[:, MAPS.index("local_field")] = irfftn(rfftn(chi) * kernel, CUBE)
    torch.testing.assert_close(held(chi[:, None], stack)[:, 0], chi, atol=1e-5, rtol=0)


def test_a_second_pass_corrects_what_the_first_held() -> None:
    stack = torch.from_numpy(some_head())[None]
    once, twice = (HeldVit(passes=passes, **SMALL) for passes in (1, 2))
    twice.load_state_dict(awake(once).state_dict())
    first = stack[:, MAPS.index("total_variation")][:, None]
    after = stack.clone()
    after[:, MAPS.index("total_variation")] = (first + once(stack))[:, 0]
    torch.testing.assert_close(twice(stack), once(stack) + once(after))
    assert not torch.equal(twice(stack), once(stack))


def test_the_squared_error_is_blind_to_what_has_no_weight() -> None:
    target, weight = torch.zeros(1, 1, 8, 8, 8), torch.ones(1, 1, 8, 8, 8)
    weight[..., 4:] = 0
    correction = torch.full_like(target, 3.0)
    correction[..., 4:] = 1e6
    assert squared(correction, target, weight) == 4.5


def test_without_slopes_and_means_the_loss_sees_values_alone() -> None:
    torch.manual_seed(0)
    error, weight = torch.randn(1, 1, 8, 8, 8), torch.ones(1, 1, 8, 8, 8)
    values = torch.sqrt(1 + error**2).mean() - 1
    alone = loss(error, torch.zeros_like(error), weight, slope_share=0.0, smooth_share=0.0)
    torch.testing.assert_close(alone, values)
    for share in ("slope_share", "smooth_share"):
        assert loss(error, torch.zeros_like(error), weight, **{share: 0.0}) > values


def test_the_loss_minds_smooth_errors_more_than_rough_ones_of_their_size() -> None:
    torch.manual_seed(0)
    weight = torch.ones(1, 1, 16, 16, 16)
    rough = torch.sign(torch.randn(1, 1, 16, 16, 16))
    nothing = torch.zeros_like(rough)
    smooth_cost, rough_cost = (
        loss(error, nothing, weight) - loss(error, nothing, weight, smooth_share=0.0)
        for error in (torch.ones_like(rough), rough)
    )
    torch.testing.assert_close(smooth_cost, torch.tensor(17.0).sqrt() - 1)
    assert rough_cost < 0.05 * smooth_cost
    weight[..., 8:] = 0
    half = torch.cat([torch.zeros(1, 1, 16, 16, 8), torch.ones(1, 1, 16, 16, 8)], dim=-1)
    assert loss(half, nothing, weight) == 0


@pytest.mark.slow  # tests/network/test_commands.py trains two of them
def test_variants_learn_from_the_same_heads(tmp_path: Path) -> None:
    """Those that see what there is to learn from learn it, the others do not."""
    for number in range(4):
        stack = some_head(number)
        # In blocks of eight voxels: a narrow network learns nothing finer in so few steps.
        known = stack[MAPS.index("tikhonov")]
        known[...] = np.kron(np.random.default_rng(number).standard_normal((3, 3, 3)), np.ones((8, 8, 8)))
        stack[-2] = 2 * known
        np.save(tmp_path / f"{number:06d}.npy", stack.astype(np.float16))
    others = tuple(name for name in CHANNELS if name != "tikhonov")
    variants = (
        Variant("all", SMALL),
        Variant("smaller", SMALL, crop=EDGE),
        Variant("blind", {**SMALL, "sees": others}, objective=squared),
        Variant("held", SMALL, consistency={"factor": 10.0}),
    )
    heads = WholeHeads(tmp_path)
    all_, smaller, blind, inside = ablate(heads, heads, 60, EDGE, variants)
    nothing = uncorrected(heads, EDGE)
    assert (all_.name, all_.nrmse) == ("all", smaller.nrmse)
    assert all_.nrmse < 0.8 * nothing.nrmse
    assert blind.nrmse > 0.95 * nothing.nrmse
    # A field of noise alone only harms a map that is held to it, unless the network was told.
    assert all_.nrmse_held > all_.nrmse
    assert inside.nrmse == inside.nrmse_held
    assert inside.nrmse_held < all_.nrmse_held
    assert all_.parameters == blind.parameters


def test_the_table_compares_with_the_first() -> None:
    rows = table(
        [
            Outcome("as it is", 45.0, 40.0, 800_000, 10.0),
            Outcome("other", 44.0, 44.0, 1_000_000, 5.0),
            Outcome("*uncorrected*", 60.0, 50.0, 0, 0.0),
        ]
    )
    assert rows.splitlines()[2:] == [
        "| as it is | 45.0 | 40.0 | 1.000 | 0.80 M | 1.00 |",
        "| other | 44.0 | 44.0 | 1.100 | 1.00 M | 0.50 |",
        "| *uncorrected* | 60.0 | 50.0 | 1.250 |  |  |",
    ]
