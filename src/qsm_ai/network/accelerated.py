"""The loops that take longest when examples are made, on a GPU: PDF, total variation and the network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qsm_ai.network.door import Solvers
from qsm_ai.network.qsm_vit import QsmVit
from qsm_ai.physics.dipole import dipole_kernel
from qsm_ai.physics.edges import Edges
from qsm_ai.physics.fourier import bounding_box, fast_shape, irfftn, pad_to, rfftn
from qsm_ai.physics.pdf import OuterSources
from qsm_ai.physics.total_variation import MARGIN_MM, STIFFNESS, STIFFNESS_OUTSIDE, gradient_power

Volume = NDArray[np.float32]

PATCHES_AT_ONCE = 4


class TorchSources(OuterSources):
    """:class:`physics.pdf.OuterSources` with its conjugate gradients on another device.

    Parameters
    ----------
    *args, **keywords
        Of that class.

    Attributes
    ----------
    device : str
        Of the class: a subclass names another.
    """

    device: ClassVar[str] = "cuda"

    def __init__(self, *args: object, **keywords: object) -> None:
        super().__init__(*args, **keywords)  # type: ignore[arg-type]
        self._there = {
            name: torch.as_tensor(volume, device=self.device)
            for name, volume in (
                ("kernel", self._kernel),
                ("weight", self._weight),
                ("strength", self._strength),
                ("inner", self._inner),
            )
        }

    def _seek(self, sources: Volume, unexplained: Volume, iterations: int) -> Volume:
        found = torch.as_tensor(sources, device=self.device)
        residual = self._sent_back(torch.as_tensor(unexplained, device=self.device))
        direction = residual.clone()
        energy = start = _energy(residual)
        for _ in range(iterations):
            if energy <= 1e-12 * start:
                break
            curvature = self._sent_back(self._field_there(direction))
            step = energy / float((direction.double() * curvature).sum())
            residual = residual - step * curvature
            found = found + step * direction
            previous, energy = energy, _energy(residual)
            direction = residual + energy / previous * direction
        found[self._place] = found[self._place].masked_fill(self._there["inner"], 0)
        return _here(found)

    def _field(self, sources: Volume) -> Volume:
        return _here(self._field_there(torch.as_tensor(sources, device=self.device)))

    def _field_there(self, sources: Tensor) -> Tensor:
        return self._filtered(sources * self._there["strength"])[self._place]

    def _sent_back(self, field: Tensor) -> Tensor:
        """The adjoint of :meth:`_field_there`, weighted."""
        padded = torch.zeros(self._shape, device=self.device)
        padded[self._place] = field * self._there["weight"]
        return self._filtered(padded) * self._there["strength"]

    def _filtered(self, volume: Tensor) -> Tensor:
        filtered: Tensor = irfftn(rfftn(volume) * self._there["kernel"], self._shape)
        return filtered


def total_variation(
    local_field: Volume,
    mask: NDArray[np.bool_],
    voxel_size: tuple[float, float, float],
    b0_direction: tuple[float, float, float],
    regularisation: float = 4e-4,
    weights: Volume | None = None,
    iterations: int = 30,
    edges: Edges | None = None,
    outside_weight: float = 0.0,
    *,
    device: str = "cuda",
) -> Volume:
    """:func:`physics.total_variation.total_variation` without a prior map, on another device.

    Parameters
    ----------
    local_field : (X, Y, Z) float32, ppm
    mask : (X, Y, Z) bool
    voxel_size, b0_direction, regularisation, weights, iterations, edges, outside_weight
        Of that function.
    device : str

    Returns
    -------
    (X, Y, Z) float32, ppm
        Zero outside the mask; that function's, but for rounding.
    """
    box = bounding_box(mask)
    inner = mask[box]
    shape = fast_shape(inner.shape, tuple(max(2, round(MARGIN_MM / h)) for h in voxel_size))
    place = tuple(slice(n) for n in inner.shape)

    def there(volume: NDArray[np.float32]) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(volume), device=device)

    def laid_out(volume: Volume) -> Tensor:
        padded: Tensor = pad_to(there(volume), shape)
        return padded

    weight = inner.astype(np.float32)
    if weights is not None:
        weight[inner] *= np.clip(weights[box][inner], 0, 1)
    known = laid_out(weight)
    weighted_field = laid_out(np.where(inner, local_field[box], np.float32(0)) * weight)
    kernel = there(dipole_kernel(shape, voxel_size, b0_direction))
    stiffness, threshold = STIFFNESS * regularisation, 1 / STIFFNESS
    denominator = stiffness * there(gradient_power(shape, voxel_size)) + kernel**2
    if outside_weight > 0:
        denominator += STIFFNESS_OUTSIDE
        kept_back = (1 - laid_out(inner.astype(np.float32))) / (1 + STIFFNESS_OUTSIDE / outside_weight)
        outside = torch.zeros(shape, device=device)
    else:
        denominator[0, 0, 0] = torch.inf  # nothing tells the mean
    data_filter, gradient_filter = kernel / denominator, stiffness / denominator
    if edges is not None:
        normal = laid_out(edges.normal[(slice(None), *box)])
        most = threshold * (1 - laid_out(1 - edges.smoothness[box]))

    spectrum = rfftn(weighted_field) * data_filter
    multiplier = torch.zeros((3, *shape), device=device)
    for _ in range(iterations):
        chi = irfftn(spectrum, shape)
        moved = multiplier + torch.stack(
            [(torch.roll(chi, -1, axis) - chi) / h for axis, h in enumerate(voxel_size)]
        )
        if edges is not None:
            across = (normal * moved).sum(0)
            moved = moved - across * normal
        multiplier = moved * (threshold / moved.square().sum(0).sqrt().clamp(min=threshold))
        if edges is not None:
            moved = moved + across * normal
            multiplier = multiplier + torch.maximum(torch.minimum(across, most), -most) * normal
        split = moved - 2 * multiplier
        pull = torch.zeros(shape, device=device)
        for axis, h in enumerate(voxel_size):
            pull += (torch.roll(split[axis], 1, axis) - split[axis]) / h
        if outside_weight > 0:
            both = chi + outside
            outside = both * kept_back
            pull += STIFFNESS_OUTSIDE / stiffness * (both - 2 * outside)
        filled = irfftn(spectrum * kernel, shape) * (1 - known) + weighted_field
        spectrum = rfftn(filled) * data_filter + rfftn(pull) * gradient_filter
    found = np.zeros(local_field.shape, dtype=np.float32)
    found[box] = _here(irfftn(spectrum, shape)[place]) * inner
    return found


class TorchNetwork:
    """A network that is trained, or was, on the device where it is.

    Parameters
    ----------
    model : QsmVit
    device : str
        Computes in bfloat16 unless it is a CPU.
    """

    name = "PyTorch"

    def __init__(self, model: QsmVit, device: str = "cuda") -> None:
        self.model, self.device = model.to(device).eval(), device

    def predict(self, patches: Volume, on_patch: Callable[[int], None] | None = None) -> Volume:
        """Corrections for a stack of patches, see :class:`reconstruction.network.Network`.

        Parameters
        ----------
        patches : (N, C, P, P, P) float32
        on_patch : callable

        Returns
        -------
        (N, 1, P, P, P) float32
        """
        answers = []
        half = torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.device != "cpu")
        with torch.no_grad(), half:
            for start in range(0, len(patches), PATCHES_AT_ONCE):
                part = torch.as_tensor(patches[start : start + PATCHES_AT_ONCE], device=self.device)
                answers.append(_here(self.model(part).float()))
                if on_patch is not None:
                    on_patch(start + len(part))
        return np.concatenate(answers)


def solvers(device: str) -> Solvers:
    """What :func:`examples.prepare_examples` computes with on a device.

    Parameters
    ----------
    device : str
        As PyTorch names it.

    Returns
    -------
    Solvers
    """
    there = type("TorchSources", (TorchSources,), {"device": device})
    return Solvers(there, partial(total_variation, device=device))


def _here(tensor: Tensor) -> Volume:
    volume: Volume = tensor.cpu().numpy()
    return volume


def _energy(residual: Tensor) -> float:
    return float(residual.double().square().sum())
