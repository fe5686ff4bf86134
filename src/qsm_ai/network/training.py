"""Training of QSM-ViT: resumable, the same on CPU and GPU."""

from __future__ import annotations

import copy
import csv
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from qsm_ai.network.qsm_vit import QsmVit
from qsm_ai.reconstruction.inputs import CHANNELS

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of correction, target and weight; see :func:`loss`."""

SMALLEST_CROP = 24
"""Voxels. On a coarse grid of 2×2×2, oneDNN's bfloat16 gradient of a depthwise convolution holds what lay in
memory before (PyTorch 2.13, channels last): steps are not reproducible there, and some are not finite."""


SMOOTH_EDGE, SMOOTH_GAIN = 8, 4.0
"""Voxels along the edge of the cubes over which the loss takes means, and what those are multiplied by."""


@dataclass(frozen=True)
class Plan:
    """How to train.

    The learning rate rises over ``warmup`` steps, stays, and falls linearly to zero over the last ``decay``
    of ``steps``: training may be prolonged from any checkpoint of the plateau.

    Attributes
    ----------
    steps, warmup, decay : int
    batch : int
        Crops a step.
    crop : int
        Edge of a crop, voxels, a multiple of eight and at least ``SMALLEST_CROP``.
    large_crop : int
        Edge of the crops that one step in ``large_every`` uses instead, as many as have no more voxels.
    large_every : int
    rate : float
        Learning rate of the plateau.
    ema : float
        Decay of the averaged weights a step.
    seed : int

    Raises
    ------
    ValueError
        If a crop has an edge that the network cannot be trained on.
    """

    steps: int = 4000
    warmup: int = 100
    decay: int = 1500
    batch: int = 2
    crop: int = 64
    large_crop: int = 96
    large_every: int = 5
    rate: float = 1e-3
    ema: float = 0.998
    seed: int = 0

    def __post_init__(self) -> None:
        for edge in (self.crop, self.large_crop):
            if edge < SMALLEST_CROP or edge % 8:
                raise ValueError(f"crops are multiples of 8 voxels, {SMALLEST_CROP} or more; not {edge}")


def learning_rate(plan: Plan, step: int, left: float | None = None) -> float:
    """Learning rate at a step, in three straight pieces.

    Parameters
    ----------
    plan : Plan
    step : int
        From 0 to ``plan.steps`` − 1.
    left : float, 0 to 1, or None
        Share of the time that is left, where time ends the training instead of the number of steps: the rate
        falls over the same share of it.

    Returns
    -------
    float
    """
    to_come = plan.steps - step if left is None else left * plan.steps
    rise = min(1.0, (step + 1) / max(plan.warmup, 1))
    fall = min(1.0, to_come / max(plan.decay, 1))
    return plan.rate * rise * max(fall, 0.0)


class Pool:
    """Crops from a folder of examples, which may grow meanwhile.

    Parameters
    ----------
    directory : Path
        Holds ``*.npy`` files made by ``examples.write_pool``.
    device : str
        Where the crops are wanted. Other than a CPU, it holds every example from its first crop on.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """

    def __init__(self, directory: Path, device: str = "cpu") -> None:
        self.directory, self.device = directory, device
        self.files: list[Path] = []
        self._held: dict[Path, Tensor] = {}
        self.refresh()

    def refresh(self) -> None:
        """Look for new files."""
        self.files = sorted(self.directory.glob("*.npy"))
        if not self.files:
            raise FileNotFoundError(f"no examples in {self.directory.name}: `qsm-ai train` makes some")

    def _stack(self, path: Path) -> Tensor:
        """An example, on a CPU as a map of its file, of which only crops are read."""
        if self.device == "cpu":
            return torch.from_numpy(np.load(path, mmap_mode="c"))
        if path not in self._held:
            self._held[path] = torch.from_numpy(np.load(path)).to(self.device)
        return self._held[path]

    def crop(self, rng: np.random.Generator, edge: int) -> Tensor:
        """Draw a crop, randomly turned and mirrored, that holds brain.

        Parameters
        ----------
        rng : numpy Generator
        edge : voxels

        Returns
        -------
        (8, edge, edge, edge) float32
            Inputs, target and weight; zeros where an example is smaller than the crop.
        """
        stack = self._stack(self.files[rng.integers(len(self.files))])
        part = stack[..., :0]
        for _ in range(8):
            corner = [int(rng.integers(0, max(n - edge, 0) + 1)) for n in stack.shape[1:]]
            box = tuple(slice(c, c + edge) for c in corner)
            part = stack[(slice(None), *box)].float()
            if part[-1].mean() > 0.3:
                break
        part = functional.pad(part, [side for n in reversed(part.shape[1:]) for side in (0, edge - n)])
        # The dipole's direction reaches the network only through its inputs: any turn of them is a scan too.
        part = part.permute(0, *(1 + int(axis) for axis in rng.permutation(3)))
        return part.flip([1 + axis for axis in range(3) if rng.random() < 0.5])

    def batch(self, plan: Plan, step: int) -> Tensor:
        """Crops of one step, the same for the same plan, step and files.

        Parameters
        ----------
        plan : Plan
        step : int

        Returns
        -------
        (N, 8, E, E, E) float32
        """
        rng = np.random.default_rng([plan.seed, step])
        large = plan.large_every > 0 and step % plan.large_every == plan.large_every - 1
        edge = plan.large_crop if large else plan.crop
        count = max(1, int(plan.batch * (plan.crop / edge) ** 3))
        return torch.stack([self.crop(rng, edge) for _ in range(count)])


def loss(
    correction: Tensor,
    target: Tensor,
    weight: Tensor,
    slope_share: float = 0.5,
    smooth_share: float = 1.0,
) -> Tensor:
    r"""Charbonnier loss of the map, of its gradients, and of what is smooth in it.

    .. math:: \langle w(\sqrt{1 + e^2} - 1) \rangle
              + \tfrac12 \cdot \tfrac13 \sum_a \langle w (\sqrt{0.01 + (\Delta_a e)^2} - 0.1) \rangle
              + \langle \bar w (\sqrt{1 + (4 \bar e)^2} - 1) \rangle, \qquad
              e = \text{correction} - \text{target}

    with differences Δ of neighbours along each axis, and means :math:`\bar e` over cubes of eight voxels.
    Short waves are settled by the field that the map is held to afterwards; in the long ones of a map from
    phase nothing but the network knows what is background.

    Parameters
    ----------
    correction, target, weight : (N, 1, X, Y, Z)
        In units of the volume's robust scale.
    slope_share : float
        Of the gradients, mean over the axes.
    smooth_share : float
        Of the means.

    Returns
    -------
    () float
        Zero for the truth; blind to what has no weight.

    References
    ----------
    Charbonnier et al. 1997, 10.1109/83.551699.
    """
    error = (correction - target) * (weight > 0)
    total = weight.sum().clamp(min=1)
    value = (weight * (torch.sqrt(1 + error**2) - 1)).sum() / total
    slope = error.new_zeros(())
    for axis in (2, 3, 4):
        both = torch.minimum(weight.narrow(axis, 1, weight.shape[axis] - 1),
                             weight.narrow(axis, 0, weight.shape[axis] - 1))  # fmt: skip
        step = error.diff(dim=axis)
        slope = slope + (both * (torch.sqrt(0.01 + step**2) - 0.1)).sum() / total
    return value + slope_share * slope / 3 + smooth_share * _smooth_loss(error, weight)


def _smooth_loss(error: Tensor, weight: Tensor) -> Tensor:
    """The third term of :func:`loss`, of cubes that overlap by half."""
    edge = min(SMOOTH_EDGE, *error.shape[2:])
    share = functional.avg_pool3d(weight, edge, stride=max(edge // 2, 1))
    mean = functional.avg_pool3d(error * weight, edge, stride=max(edge // 2, 1)) / share.clamp(min=1e-3)
    return (share * (torch.sqrt(1 + (SMOOTH_GAIN * mean) ** 2) - 1)).sum() / share.sum().clamp(min=1e-3)


class Trainer:
    """Weights, their moving average and the optimiser, together in one checkpoint.

    Parameters
    ----------
    plan : Plan
    directory : Path
        Gets ``checkpoint.pt`` and ``curve.csv``; training goes on from the checkpoint there.
    device : str
    model : QsmVit or None
        Another architecture than the default, or one that already has weights: training starts from them
        where the folder holds no checkpoint.
    objective : callable
        What training makes small.

    Raises
    ------
    ValueError
        If the checkpoint there is of another architecture.
    """

    def __init__(
        self,
        plan: Plan,
        directory: Path,
        device: str = "cpu",
        model: QsmVit | None = None,
        objective: Objective = loss,
    ) -> None:
        torch.manual_seed(plan.seed)
        self.objective = objective
        self.precision = torch.bfloat16 if has_bfloat16(device) else torch.float32
        self.plan, self.directory, self.device = plan, directory, device
        directory.mkdir(parents=True, exist_ok=True)
        made = QsmVit(len(CHANNELS)) if model is None else model
        self.model: QsmVit = made.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        flat = [p for p in self.model.parameters() if p.ndim < 2]
        deep = [p for p in self.model.parameters() if p.ndim >= 2]
        groups = [{"params": deep, "weight_decay": 1e-2}, {"params": flat, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98))
        self.step = 0
        checkpoint = directory / "checkpoint.pt"
        if checkpoint.exists():
            state = torch.load(checkpoint, map_location=device, weights_only=True)
            if state.get("architecture", self.model.architecture) != self.model.architecture:
                raise ValueError(
                    f"the checkpoint in {directory.name} holds another architecture than this one"
                )
            self.model.load_state_dict(state["model"])
            self.average = state["average"]
            if state.get("optimiser"):
                self.optimiser.load_state_dict(state["optimiser"])
            self.step = state["step"]

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        partial = self.directory / "checkpoint.part"
        torch.save(
            {
                "model": self.model.state_dict(),
                "average": self.average,
                "optimiser": self.optimiser.state_dict(),
                "step": self.step,
                "plan": asdict(self.plan),
                "architecture": self.model.architecture,
            },
            partial,
        )
        partial.rename(self.directory / "checkpoint.pt")

    def update(self, batch: Tensor, left: float | None = None) -> float:
        """Take a step; one that is not finite changes no weight.

        Parameters
        ----------
        batch : (N, 8, E, E, E) float32
        left : float or None
            See :func:`learning_rate`.

        Returns
        -------
        float
            The loss before the step, or NaN.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.plan, self.step, left)
        self.optimiser.zero_grad(set_to_none=True)
        batch = batch.to(self.device)
        with self._autocast():
            correction = self.model(batch[:, :-2])
        value = self.objective(correction.float(), batch[:, -2:-1].clamp(-200, 200), batch[:, -1:])
        self.step += 1
        if not torch.isfinite(value):
            return float("nan")
        value.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        if not torch.isfinite(norm):
            return float("nan")
        self.optimiser.step()
        keep = min(self.plan.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value_now in self.model.state_dict().items():
                self.average[name].lerp_(value_now, 1 - keep)
        return float(value.detach())

    def averaged(self) -> QsmVit:
        """Copy of the model with its averaged weights, ready to predict."""
        model = copy.deepcopy(self.model)
        model.load_state_dict(self.average)
        return model.eval()

    def run(
        self,
        pool: Pool,
        validation: Pool | None,
        save_every: int = 100,
        seconds: float | None = None,
    ) -> Iterator[dict[str, float]]:
        """Train to the end of the plan, or of the time.

        Parameters
        ----------
        pool : Pool
        validation : Pool or None
            Held-out heads, for the curve only.
        save_every : int
            Steps between two rows of the curve, each with a checkpoint.
        seconds : float or None
            Train for so long from now, whatever the plan's number of steps; the last row comes a bit later.

        Yields
        ------
        dict
            A row of the curve: step, mean loss, learning rate, seconds, number of examples, and what
            :meth:`validate` measures.
        """
        losses: list[float] = []
        began = time.monotonic()
        with ThreadPoolExecutor(1) as ahead:
            following = ahead.submit(pool.batch, self.plan, self.step)
            left = self._left(began, seconds)
            while left > 0:
                batch = following.result()
                following = ahead.submit(pool.batch, self.plan, self.step + 1)
                losses.append(self.update(batch, None if seconds is None else left))
                left = self._left(began, seconds)
                if self.step % save_every == 0 or left <= 0:
                    row = {
                        "step": float(self.step),
                        "loss": _mean(losses),
                        "rate": self.optimiser.param_groups[0]["lr"],
                        "seconds": time.monotonic() - began,
                        "examples": float(len(pool.files)),
                    }
                    if validation is not None:
                        row |= self.validate(validation)
                    self._record(row)
                    self.save()
                    pool.refresh()
                    if validation is not None:
                        validation.refresh()
                    losses = []
                    yield row

    def _left(self, began: float, seconds: float | None) -> float:
        """Share of the time, or of the steps, that is left."""
        if seconds is None:
            return 1 - self.step / self.plan.steps
        return 1 - (time.monotonic() - began) / max(seconds, 1e-9)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.device.split(":")[0], dtype=torch.bfloat16, enabled=self.precision is torch.bfloat16
        )

    def validate(self, pool: Pool, crops: int = 16, edge: int | None = None) -> dict[str, float]:
        """Measure the averaged weights on fixed crops of held-out heads.

        Parameters
        ----------
        pool : Pool
        crops : int
            Their number.
        edge : voxels or None
            Of each; that of the largest of the training when left out.

        Returns
        -------
        dict
            ``nrmse`` of the corrected and ``nrmse_first`` of the uncorrected map, in percent of the truth's
            spread.
        """
        model = self.averaged()
        rng = np.random.default_rng(1)
        wrong = first = spread = 0.0
        for _ in range(crops):
            crop = pool.crop(rng, edge or self.plan.large_crop)[None].to(self.device)
            with torch.no_grad(), self._autocast():
                correction = model(crop[:, :-2]).float()
            inside = crop[:, -1] >= 1
            if not inside.any():
                continue
            target = crop[:, -2][inside].clamp(-200, 200)
            truth = target + crop[:, 1][inside]
            # Capped, so that a single lesion does not stand for everything.
            wrong += float(((correction[:, 0][inside] - target).clamp(-8, 8) ** 2).mean())
            first += float((target.clamp(-8, 8) ** 2).mean())
            spread += float((truth - truth.mean()).clamp(-8, 8).pow(2).mean())
        if spread == 0:
            return {"nrmse": float("nan"), "nrmse_first": float("nan")}
        return {"nrmse": 100 * (wrong / spread) ** 0.5, "nrmse_first": 100 * (first / spread) ** 0.5}

    def _record(self, row: dict[str, float]) -> None:
        path = self.directory / "curve.csv"
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, row.keys())
            if new:
                writer.writeheader()
            writer.writerow({k: f"{v:.6g}" for k, v in row.items()})


def has_bfloat16(device: str) -> bool:
    """Whether a device computes in bfloat16 itself; emulated, it takes longer than float32.

    Parameters
    ----------
    device : str

    Returns
    -------
    bool
    """
    return not device.startswith("cpu") or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _mean(losses: list[float]) -> float:
    """Of the finite ones; NaN where there is none."""
    finite = [value for value in losses if np.isfinite(value)]
    return sum(finite) / len(finite) if finite else float("nan")
