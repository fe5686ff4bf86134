"""What each part of network and training is worth: small trainings that differ in one thing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from qsm_ai.network.qsm_vit import QsmVit, Residual
from qsm_ai.network.training import Objective, Plan, Pool, Trainer, loss
from qsm_ai.reconstruction.inputs import CHANNELS

WIDTHS = (16, 48, 96)
"""A third of the real network's: trained in minutes, not in hours."""

CROPS = 2
"""A step; of smaller crops so many more that the voxels are as many."""


class AblatedVit(QsmVit):
    """QSM-ViT without one of its parts.

    Parameters
    ----------
    blind_to : names of ``reconstruction.inputs.CHANNELS``
        Inputs that the network sees as zeros.
    convolutions : bool
        Residual convolutions at 1/8 resolution instead of the transformer.
    widths : (int, int, int)
        See :class:`QsmVit`.

    Raises
    ------
    ValueError
        If an input has no such name.
    """

    def __init__(
        self,
        blind_to: tuple[str, ...] = (),
        *,
        convolutions: bool = False,
        widths: tuple[int, int, int] = WIDTHS,
    ) -> None:
        super().__init__(len(CHANNELS), widths)
        if unknown := set(blind_to) - set(CHANNELS):
            raise ValueError(f"there is no input {min(unknown)!r}")
        if convolutions:
            # One has 54 · width² multiplications a voxel, three transformer blocks 30 and their attention.
            self.transform = nn.Sequential(Residual(widths[-1]))
        seen = torch.tensor([float(name not in blind_to) for name in CHANNELS])
        self.register_buffer("seen", seen[None, :, None, None, None], persistent=False)

    def forward(self, patches: Tensor) -> Tensor:
        """As :meth:`QsmVit.forward`."""
        assert isinstance(self.seen, Tensor)  # noqa: S101 - registered as one
        return super().forward(patches * self.seen)


@dataclass(frozen=True)
class Variant:
    """One training.

    Attributes
    ----------
    name : str
        What differs from the first of ``VARIANTS``.
    network : mapping
        Arguments of :class:`AblatedVit`.
    seed : int
    crop : voxels or None
        Of a crop in training, where it is another than the others'.
    objective : callable
        See :func:`training.loss`.
    """

    name: str
    network: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    crop: int | None = None
    objective: Objective = loss


def squared(correction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of half the squared error.

    Parameters
    ----------
    correction, target, weight : (N, 1, X, Y, Z)
        See :func:`training.loss`.

    Returns
    -------
    () float
    """
    error = (correction - target) * (weight > 0)
    return (weight * error**2).sum() / weight.sum().clamp(min=1) / 2


BASE = Variant("as it is")
VARIANTS = (
    BASE,
    Variant("the same with another seed", seed=1),
    Variant("convolutions for the transformer", {"convolutions": True}),
    *(Variant(f"without {name.replace('_', ' ')}", {"blind_to": (name,)}) for name in CHANNELS),
    Variant("crops of 24, as many voxels", crop=24),
    Variant("squared error", objective=squared),
    Variant("without the gradient in the loss", objective=partial(loss, slope_share=0.0)),
)


@dataclass(frozen=True)
class Outcome:
    """What a variant came to.

    Attributes
    ----------
    name : str
    nrmse, nrmse_first : float
        See :meth:`training.Trainer.validate`.
    parameters : int
    seconds : float
        Of the training.
    """

    name: str
    nrmse: float
    nrmse_first: float
    parameters: int
    seconds: float


def ablate(
    pool: Pool, validation: Pool, steps: int, variants: tuple[Variant, ...] = VARIANTS, crop: int = 48
) -> Iterator[Outcome]:
    """Train every variant on the same examples for as many steps, and validate it.

    Parameters
    ----------
    pool, validation : Pool
    steps : int
    variants : Variant
    crop : voxels
        Of the variants that have no other.

    Yields
    ------
    Outcome
    """
    for variant in variants:
        edge = variant.crop or crop
        plan = Plan(
            steps=steps,
            warmup=steps // 10,
            decay=steps // 2,
            batch=max(1, round(CROPS * (crop / edge) ** 3)),
            crop=edge,
            large_crop=edge,
            large_every=0,
            seed=variant.seed,
        )
        torch.manual_seed(plan.seed)
        model = AblatedVit(**variant.network)
        with TemporaryDirectory(prefix="qsm-ai-ablation-") as folder:
            trainer = Trainer(plan, Path(folder), model=model, objective=variant.objective)
            row = list(trainer.run(pool, None, save_every=steps))[-1]
            # The same crops for all, whatever they were trained on.
            found = trainer.validate(validation, edge=crop)
        parameters = sum(p.numel() for p in model.parameters())
        yield Outcome(variant.name, found["nrmse"], found["nrmse_first"], parameters, row["seconds"])


def table(outcomes: list[Outcome]) -> str:
    """Outcomes as a table in Markdown.

    Parameters
    ----------
    outcomes : Outcome
        The first is what the others are compared with.

    Returns
    -------
    str
    """
    first = outcomes[0]
    rows = [
        (o.name, o.nrmse, f"{o.parameters / 1e6:.2f} M", f"{o.seconds / first.seconds:.2f}") for o in outcomes
    ]
    rows.append(("*uncorrected*", first.nrmse_first, "", ""))
    head = ("variant", "error / %", "over the first's", "parameters", "time over the first's")
    lines = [head, ("---", *["---:"] * 4)]
    lines += [(name, f"{error:.1f}", f"{error / first.nrmse:.3f}", *more) for name, error, *more in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
