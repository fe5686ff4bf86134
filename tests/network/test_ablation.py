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
    Outcome,
    Variant,
    ablate,
    squared,
    table,
)
from qsm_ai.network.training import Pool, loss  # noqa: E402
from qsm_ai.reconstruction.inputs import CHANNELS  # noqa: E402

WIDTHS = (4, 8, 16)


def awake(network: AblatedVit) -> AblatedVit:
    """With a last layer that is not zero, as after some training."""
    torch.nn.init.normal_(network.leave.weight, generator=torch.Generator().manual_seed(0))
    return network.eval()


@pytest.mark.parametrize("name", CHANNELS)
def test_an_input_that_the_network_is_blind_to_changes_nothing(name: str) -> None:
    torch.manual_seed(0)
    patches = torch.randn(1, len(CHANNELS), 16, 16, 16)
    changed = patches.clone()
    changed[:, CHANNELS.index(name)] += 1
    blind, seeing = awake(AblatedVit((name,), widths=WIDTHS)), awake(AblatedVit(widths=WIDTHS))
    assert torch.equal(blind(patches), blind(changed))
    assert not torch.equal(seeing(patches), seeing(changed))


def test_convolutions_stand_where_the_transformer_was() -> None:
    without = AblatedVit(convolutions=True, widths=WIDTHS)
    assert not any("query_key_value" in name for name in without.state_dict())
    assert any("query_key_value" in name for name in AblatedVit(widths=WIDTHS).state_dict())
    assert awake(without)(torch.zeros(1, len(CHANNELS), 16, 16, 16)).shape == (1, 1, 16, 16, 16)


def test_an_unknown_input_is_refused() -> None:
    with pytest.raises(ValueError, match="no input 'phase'"):
        AblatedVit(("phase",))


def test_every_input_is_left_out_once_and_names_are_unique() -> None:
    left_out = [blind for v in VARIANTS for blind in v.network.get("blind_to", ())]
    assert tuple(left_out) == CHANNELS
    assert VARIANTS[0] is BASE
    assert len({v.name for v in VARIANTS}) == len(VARIANTS)


def test_the_squared_error_is_blind_to_what_has_no_weight() -> None:
    target, weight = torch.zeros(1, 1, 8, 8, 8), torch.ones(1, 1, 8, 8, 8)
    weight[..., 4:] = 0
    correction = torch.full_like(target, 3.0)
    correction[..., 4:] = 1e6
    assert squared(correction, target, weight) == 4.5


def test_without_slopes_the_loss_sees_values_alone() -> None:
    torch.manual_seed(0)
    error, weight = torch.randn(1, 1, 8, 8, 8), torch.ones(1, 1, 8, 8, 8)
    values = torch.sqrt(1 + error**2).mean() - 1
    torch.testing.assert_close(loss(error, torch.zeros_like(error), weight, slope_share=0.0), values)
    assert loss(error, torch.zeros_like(error), weight) > values


def test_variants_learn_from_the_same_examples(tmp_path: Path) -> None:
    """Those that see what there is to learn from learn it, the others do not."""
    rng = np.random.default_rng(0)
    for number in range(4):
        stack = rng.standard_normal((8, 24, 24, 24)).astype(np.float32)
        # In blocks of eight voxels: a narrow network learns nothing finer in so few steps.
        known = stack[CHANNELS.index("tikhonov")]
        known[...] = np.kron(rng.standard_normal((3, 3, 3)), np.ones((8, 8, 8)))
        stack[-2], stack[-1] = 2 * known, 1
        np.save(tmp_path / f"{number:06d}-0.npy", stack.astype(np.float16))
    small = {"widths": WIDTHS}
    variants = (
        Variant("all", small),
        Variant("smaller", small, crop=24),
        Variant("blind", {**small, "blind_to": ("tikhonov",)}, objective=squared),
    )
    pool = Pool(tmp_path)
    all_, smaller, blind = ablate(pool, pool, 60, variants, crop=24)
    assert (all_.name, all_.nrmse) == ("all", smaller.nrmse)
    assert all_.nrmse < 0.8 * all_.nrmse_first
    assert blind.nrmse > 0.95 * blind.nrmse_first
    assert all_.nrmse_first == blind.nrmse_first
    assert all_.parameters == blind.parameters


def test_the_table_compares_with_the_first() -> None:
    rows = table(
        [Outcome("as it is", 40.0, 50.0, 800_000, 10.0), Outcome("other", 44.0, 50.0, 1_000_000, 5.0)]
    )
    assert rows.splitlines()[2:] == [
        "| as it is | 40.0 | 1.000 | 0.80 M | 1.00 |",
        "| other | 44.0 | 1.100 | 1.00 M | 0.50 |",
        "| *uncorrected* | 50.0 | 1.250 |  |  |",
    ]
