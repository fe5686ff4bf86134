"""QSM-ViT: any patch, no statistics across patches, nothing corrected before training."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from qsm_ai.network.qsm_vit import QsmVit, depth_to_space, space_to_depth  # noqa: E402

if TYPE_CHECKING:
    Make = Callable[..., QsmVit]


def test_blocks_become_channels_and_back() -> None:
    x = torch.arange(2 * 3 * 4 * 6 * 8, dtype=torch.float32).reshape(2, 3, 4, 6, 8)
    deep = space_to_depth(x)
    assert deep.shape == (2, 24, 2, 3, 4)
    assert torch.equal(depth_to_space(deep), x)
    # The eight channels of a voxel are the block of eight that it stands for.
    assert torch.equal(deep[1, 8:16, 1, 2, 3], x[1, 1, 2:4, 4:6, 6:8].flatten())


@pytest.mark.parametrize("shape", [(8, 8, 8), (16, 8, 24), (32, 16, 8)])
def test_any_multiple_of_eight_is_a_patch(shape: tuple[int, int, int], small_network: Make) -> None:
    with torch.no_grad():
        assert small_network(1)(torch.randn(2, 6, *shape)).shape == (2, 1, *shape)


def test_an_untrained_network_corrects_nothing(small_network: Make) -> None:
    with torch.no_grad():
        assert not small_network()(torch.randn(1, 6, 16, 16, 16)).any()


def test_every_weight_has_a_say(small_network: Make) -> None:
    model = small_network(1)
    model(torch.randn(1, 6, 16, 16, 16)).square().sum().backward()
    # Keys without bias to queries: softmax takes no notice of a shift that all keys share.
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_there_are_no_statistics_over_patches_or_space() -> None:
    kinds = {type(module) for module in QsmVit().modules()}
    norms = {kind for kind in kinds if "Norm" in kind.__name__}
    assert norms == {nn.LayerNorm}


def test_a_patch_does_not_know_its_batch(small_network: Make) -> None:
    model = small_network(1)
    batch = torch.randn(3, 6, 16, 16, 16)
    with torch.no_grad():
        together = model(batch)
        for number in range(3):
            alone = model(batch[number : number + 1])
            torch.testing.assert_close(alone, together[number : number + 1], rtol=1e-4, atol=1e-5)


def test_convolutions_move_with_the_head_by_eight_voxels(small_network: Make) -> None:
    """Attention sees the whole patch and its borders; the rest is the same everywhere."""
    model = small_network(1, depth=0)
    wide = torch.randn(1, 6, 16, 16, 128)
    with torch.no_grad():
        first, second = model(wide[..., :112]), model(wide[..., 8:120])
    torch.testing.assert_close(first[..., 56:64], second[..., 48:56], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(first[..., 48:56], second[..., 48:56], atol=1e-2)


def test_attention_reaches_across_the_patch(small_network: Make) -> None:
    model = small_network(1)
    patch = torch.randn(1, 6, 8, 8, 128)
    changed = patch.clone()
    changed[..., :8] += 3
    with torch.no_grad():
        far = (model(changed) - model(patch))[..., 120:].abs().max()
    assert far > 1e-6


def test_a_network_can_be_made_again_from_its_architecture(small_network: Make) -> None:
    model = small_network(1, depth=2, blocks=(2, 1))
    again = QsmVit(**model.architecture)
    again.load_state_dict(model.state_dict())
    patch = torch.randn(1, 6, 8, 8, 8)
    with torch.no_grad():
        assert torch.equal(again.eval()(patch), model(patch))


def test_names_of_weights_stay_those_of_earlier_checkpoints() -> None:
    names = QsmVit().state_dict()
    assert {name.split(".")[0] for name in names} == {
        "enter", "encode_fine", "down_middle", "encode_middle", "down_coarse", "transform", "up_middle",
        "join_middle", "decode_middle", "up_fine", "join_fine", "decode_fine", "leave",
    }  # fmt: skip
    assert "transform.0.query_key_value.weight" in names
    assert names["enter.weight"].shape == (48, 48, 3, 3, 3)
