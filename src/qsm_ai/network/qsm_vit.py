"""QSM-ViT: the architecture alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

SLOPE = 0.1


def space_to_depth(x: Tensor) -> Tensor:
    """Make channels of each block of eight voxels.

    Parameters
    ----------
    x : (N, C, X, Y, Z)
        Edges even.

    Returns
    -------
    (N, 8·C, X/2, Y/2, Z/2)
    """
    n, c, i, j, k = x.shape
    x = x.reshape(n, c, i // 2, 2, j // 2, 2, k // 2, 2)
    return x.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(n, 8 * c, i // 2, j // 2, k // 2)


def depth_to_space(x: Tensor) -> Tensor:
    """Make blocks of eight voxels of the channels: the inverse of :func:`space_to_depth`.

    Parameters
    ----------
    x : (N, 8·C, X, Y, Z)

    Returns
    -------
    (N, C, 2·X, 2·Y, 2·Z)
    """
    n, c, i, j, k = x.shape
    x = x.reshape(n, c // 8, 2, 2, 2, i, j, k)
    return x.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(n, c // 8, 2 * i, 2 * j, 2 * k)


class Residual(nn.Module):
    """Two convolutions beside an identity.

    Nothing is normalised: the statistics of a patch would bend quantities.

    Parameters
    ----------
    width : int
        Channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(width, width, 3, padding=1)
        self.second = nn.Conv3d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, X, Y, Z) → the same shape."""
        correction: Tensor = self.second(F.leaky_relu(self.first(F.leaky_relu(x, SLOPE)), SLOPE))
        return x + correction


class Transformer(nn.Module):
    """A transformer block; a depthwise convolution tells tokens where they are, on a grid of any size.

    Each token is normalised by itself, so that neighbours and other patches have no say in it.

    Parameters
    ----------
    width : int
        Channels, a multiple of ``heads``.
    heads : int
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.position = nn.Conv3d(width, width, 3, padding=1, groups=width)
        self.norm_attention = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 3 * width)
        self.contract = nn.Linear(3 * width, width)
        for last in (self.project, self.contract):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, X, Y, Z) → the same shape."""
        n, c, i, j, k = x.shape
        x = x + self.position(x)
        tokens = x.flatten(2).transpose(1, 2)
        qkv = self.query_key_value(self.norm_attention(tokens))
        q, key, value = qkv.reshape(n, -1, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, key, value)
        tokens = tokens + self.project(attended.transpose(1, 2).reshape(n, -1, c))
        tokens = tokens + self.contract(F.gelu(self.expand(self.norm_mlp(tokens)), approximate="tanh"))
        volume: Tensor = tokens.transpose(1, 2).reshape(n, c, i, j, k)
        return volume


class QsmVit(nn.Module):
    """Predicts the correction to a classical susceptibility map.

    Space to depth by 2; convolutions at 1/2 and 1/4 resolution; a transformer at 1/8; the way back up with
    skip connections; depth to space. Before any training the correction is zero.

    Parameters
    ----------
    channels : int
        Of the input, see ``reconstruction.inputs.CHANNELS``.
    widths : (int, int, int)
        Channels at 1/2, 1/4 and 1/8 resolution.
    blocks : (int, int)
        Residual blocks at 1/2 and 1/4 resolution, on each way.
    depth : int
        Transformer blocks.
    heads : int

    Attributes
    ----------
    architecture : dict
        The arguments, from which the same network can be made again.
    """

    def __init__(
        self,
        channels: int = 6,
        widths: tuple[int, int, int] = (48, 128, 256),
        blocks: tuple[int, int] = (1, 1),
        depth: int = 3,
        heads: int = 8,
    ) -> None:
        super().__init__()
        self.architecture: dict[str, int | tuple[int, ...]] = {
            "channels": channels,
            "widths": tuple(widths),
            "blocks": tuple(blocks),
            "depth": depth,
            "heads": heads,
        }
        fine, middle, coarse = widths
        self.enter = nn.Conv3d(8 * channels, fine, 3, padding=1)
        self.encode_fine = nn.Sequential(*[Residual(fine) for _ in range(blocks[0])])
        self.down_middle = nn.Conv3d(fine, middle, 2, stride=2)
        self.encode_middle = nn.Sequential(*[Residual(middle) for _ in range(blocks[1])])
        self.down_coarse = nn.Conv3d(middle, coarse, 2, stride=2)
        self.transform = nn.Sequential(*[Transformer(coarse, heads) for _ in range(depth)])
        self.up_middle = nn.Conv3d(coarse, 8 * middle, 1)
        self.join_middle = nn.Conv3d(2 * middle, middle, 1)
        self.decode_middle = nn.Sequential(*[Residual(middle) for _ in range(blocks[1] + 1)])
        self.up_fine = nn.Conv3d(middle, 8 * fine, 1)
        self.join_fine = nn.Conv3d(2 * fine, fine, 1)
        self.decode_fine = nn.Sequential(*[Residual(fine) for _ in range(blocks[0])])
        self.leave = nn.Conv3d(fine, 8, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, patches: Tensor) -> Tensor:
        """Corrections of a stack of patches.

        Parameters
        ----------
        patches : (N, channels, X, Y, Z) float
            Edges divisible by eight.

        Returns
        -------
        (N, 1, X, Y, Z) float
        """
        fine = self.encode_fine(self.enter(space_to_depth(patches)))
        middle = self.encode_middle(self.down_middle(fine))
        coarse = self.transform(self.down_coarse(middle))
        up = depth_to_space(self.up_middle(coarse))
        middle = self.decode_middle(self.join_middle(torch.cat([up, middle], dim=1)))
        up = depth_to_space(self.up_fine(middle))
        fine = self.decode_fine(self.join_fine(torch.cat([up, fine], dim=1)))
        correction: Tensor = depth_to_space(self.leave(F.leaky_relu(fine, SLOPE)))
        return correction
