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
from qsm_ai.network.training import Objective, Plan, Trainer, loss
from qsm_ai.network.whole_heads import DIPOLE, LBV, MAPS, TRUST, V_SHARP_MM, WholeHeads
from qsm_ai.physics.fourier import irfftn, rfftn
from qsm_ai.reconstruction.consistency import CONSISTENCY_FACTOR, LEAST_CONSISTENCY, MOST_CONSISTENCY
from qsm_ai.reconstruction.inputs import CHANNELS, ERROR_GAIN

WIDTHS = (16, 48, 96)
"""A third of the real network's: trained in minutes, not in hours."""

HEADS = 2
"""A step; of smaller crops so many more that the voxels are as many."""

TURNS = 2
"""In which each head is judged, on average."""

FIELD, FIRST, ERROR, MASK = (
    MAPS.index(name) for name in ("local_field", "total_variation", "field_error", "mask")
)


class AblatedVit(QsmVit):
    """QSM-ViT with one of its parts left out or added.

    Parameters
    ----------
    sees : names of ``whole_heads.MAPS``
        All others are zeros to the network.
    convolutions : bool
        Residual convolutions at 1/8 resolution instead of the transformer.
    widths : (int, int, int)
        See :class:`QsmVit`.

    Raises
    ------
    ValueError
        If a map has no such name.
    """

    def __init__(
        self,
        sees: tuple[str, ...] = CHANNELS,
        *,
        convolutions: bool = False,
        widths: tuple[int, int, int] = WIDTHS,
    ) -> None:
        super().__init__(len(MAPS), widths)
        if unknown := set(sees) - set(MAPS):
            raise ValueError(f"there is no map {min(unknown)!r}")
        if convolutions:
            # One has 54 · width² multiplications a voxel, three transformer blocks 30 and their attention.
            self.transform = nn.Sequential(Residual(widths[-1]))
        seen = torch.tensor([float(name in sees) for name in MAPS])
        self.register_buffer("seen", seen[None, :, None, None, None], persistent=False)

    def forward(self, stack: Tensor) -> Tensor:
        """Corrections of a stack of heads.

        Parameters
        ----------
        stack : (N, 9 or more, E, E, E) float32
            See :func:`whole_heads.whole_head`; what is behind the maps is not looked at.

        Returns
        -------
        (N, 1, E, E, E) float
        """
        assert isinstance(self.seen, Tensor)  # noqa: S101 - registered as one
        return super().forward(stack[:, : len(MAPS)] * self.seen)


class HeldVit(AblatedVit):
    """The same with the consistency as a part of the network: what is held to the field is what is judged.

    Parameters
    ----------
    factor : float
        Of the weight μ that the pipeline would use.
    passes : int
        Each corrects the held map of the one before.
    **parts
        Of :class:`AblatedVit`.
    """

    def __init__(self, factor: float = 1.0, passes: int = 1, **parts: Any) -> None:
        super().__init__(**parts)
        self.factor, self.passes = factor, passes

    def forward(self, stack: Tensor) -> Tensor:
        """As :meth:`AblatedVit.forward`, of whole heads alone."""
        first = chi = stack[:, FIRST : FIRST + 1]
        for _ in range(self.passes):
            seen = torch.cat([stack[:, :FIRST], chi, stack[:, FIRST + 1 :]], dim=1)
            chi = held(chi + super().forward(seen).float(), stack, self.factor)
        return chi - first


def held(chi: Tensor, stack: Tensor, factor: float = 1.0) -> Tensor:
    r"""Maps held to the local field, each with the weight that its noise asks for.

    .. math:: \chi + F^{-1} \left[ \frac{D}{D^2 + \mu} F \left( W^2 (f - d * \chi) \right) \right]

    Parameters
    ----------
    chi : (N, 1, E, E, E) float32
        In units of the scale.
    stack : (N, 11 or more, E, E, E) float32
        See :func:`whole_heads.whole_head`.
    factor : float
        Of :math:`\mu = 5 (\sigma / s)^2`, see :func:`reconstruction.consistency.consistency_weight`.

    Returns
    -------
    (N, 1, E, E, E) float32
        Zero outside the mask.
    """
    shape = tuple(chi.shape[-3:])
    mask = stack[:, MASK]
    kernel = stack[:, DIPOLE, :, :, : shape[-1] // 2 + 1]
    noise = torch.stack([e[m > 0].median() for e, m in zip(stack[:, ERROR], mask, strict=True)]) / ERROR_GAIN
    weight = (CONSISTENCY_FACTOR * noise**2).clamp(LEAST_CONSISTENCY, MOST_CONSISTENCY) * factor
    unexplained = stack[:, TRUST] * (stack[:, FIELD] - irfftn(rfftn(chi[:, 0]) * kernel, shape))
    answer = irfftn(rfftn(unexplained) * (kernel / (kernel**2 + weight[:, None, None, None])), shape)
    consistent: Tensor = ((chi[:, 0] + answer) * mask)[:, None]
    return consistent


@dataclass(frozen=True)
class Variant:
    """One training.

    Attributes
    ----------
    name : str
        What differs from the first of ``VARIANTS``.
    parts : mapping
        Arguments of :class:`AblatedVit`.
    consistency : mapping or None
        Arguments of :class:`HeldVit` where the consistency is inside the loss.
    seed : int
    crop : voxels or None
        Of a crop in training, where it is no whole head.
    objective : callable
        See :func:`training.loss`.
    """

    name: str
    parts: Mapping[str, Any] = field(default_factory=dict)
    consistency: Mapping[str, Any] | None = None
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


def _without(name: str) -> Variant:
    sees = tuple(channel for channel in CHANNELS if channel != name)
    return Variant(f"without {name.replace('_', ' ')}", {"sees": sees})


BASE = Variant("as it is")
VARIANTS = (
    BASE,
    Variant("another seed", seed=1),
    Variant("a third seed", seed=2),
    Variant("convolutions for the transformer", {"convolutions": True}),
    *(
        Variant(f"V-SHARP, {radius} mm, too", {"sees": (*CHANNELS, f"v_sharp_{radius}")})
        for radius in V_SHARP_MM
    ),
    Variant("LBV, too", {"sees": (*CHANNELS, LBV)}),
    *(_without(name) for name in CHANNELS),
    Variant("crops of 24, as many voxels", crop=24),
    Variant("squared error", objective=squared),
    Variant("without the gradient in the loss", objective=partial(loss, slope_share=0.0)),
    Variant("without the means in the loss", objective=partial(loss, smooth_share=0.0)),
    Variant("consistency in the loss", consistency={}),
    Variant("the same, a tenth of μ", consistency={"factor": 0.1}),
    Variant("the same, ten times μ", consistency={"factor": 10.0}),
    Variant("the same, two passes", consistency={"passes": 2}),
)


@dataclass(frozen=True)
class Outcome:
    """What a variant came to.

    Attributes
    ----------
    name : str
    nrmse : float
        Of the network's map, see :meth:`training.Trainer.validate`; where the consistency is in the loss, of
        what comes out of it.
    nrmse_held : float
        Of the map held to the field.
    parameters : int
    seconds : float
        Of the training.
    """

    name: str
    nrmse: float
    nrmse_held: float
    parameters: int
    seconds: float


def ablate(
    heads: WholeHeads,
    validation: WholeHeads,
    steps: int,
    edge: int,
    variants: tuple[Variant, ...] = VARIANTS,
    device: str = "cpu",
) -> Iterator[Outcome]:
    """Train every variant on the same heads for as many steps, and validate it.

    Parameters
    ----------
    heads, validation : WholeHeads
    steps : int
    edge : voxels
        Of the heads.
    variants : Variant
    device : str

    Yields
    ------
    Outcome
    """
    for variant in variants:
        crop = variant.crop or edge
        plan = Plan(
            steps=steps,
            warmup=steps // 10,
            decay=steps // 2,
            batch=max(1, round(HEADS * (edge / crop) ** 3)),
            crop=crop,
            large_crop=crop,
            large_every=0,
            seed=variant.seed,
        )
        torch.manual_seed(plan.seed)
        inside = variant.consistency
        model = AblatedVit(**variant.parts) if inside is None else HeldVit(**inside, **variant.parts)
        with TemporaryDirectory(prefix="qsm-ai-ablation-") as folder:
            trainer = Trainer(plan, Path(folder), device, model, variant.objective)
            row = list(trainer.run(heads, None, save_every=steps))[-1]
            nrmse = nrmse_held = _error(trainer, validation, edge)
            if inside is None:
                # From the checkpoint that was just written.
                judge = Trainer(plan, Path(folder), device, HeldVit(**variant.parts))
                nrmse_held = _error(judge, validation, edge)
        parameters = sum(p.numel() for p in model.parameters())
        yield Outcome(variant.name, nrmse, nrmse_held, parameters, row["seconds"])


def uncorrected(validation: WholeHeads, edge: int, device: str = "cpu") -> Outcome:
    """What the classical map comes to by itself.

    Parameters
    ----------
    validation : WholeHeads
    edge : voxels
        Of the heads.
    device : str

    Returns
    -------
    Outcome
    """
    with TemporaryDirectory(prefix="qsm-ai-ablation-") as folder:
        before, after = (
            _error(Trainer(Plan(), Path(folder), device, model), validation, edge)
            for model in (AblatedVit(), HeldVit())
        )
    return Outcome("*uncorrected*", before, after, 0, 0.0)


def _error(trainer: Trainer, validation: WholeHeads, edge: int) -> float:
    return trainer.validate(validation, crops=TURNS * len(validation.files), edge=edge)["nrmse"]


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
    head = ("variant", "network's map", "held to the field", "held, over the first's", "parameters", "time")
    lines = [head, ("---", *["---:"] * 5)]
    for o in outcomes:
        row = (o.name, f"{o.nrmse:.1f}", f"{o.nrmse_held:.1f}", f"{o.nrmse_held / first.nrmse_held:.3f}")
        cost = (
            (f"{o.parameters / 1e6:.2f} M", f"{o.seconds / first.seconds:.2f}") if o.parameters else ("", "")
        )
        lines.append((*row, *cost))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
