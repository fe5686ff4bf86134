"""The table of stages and artefacts: the single truth for pipeline, progress, metrics, file names, docs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Artefact:
    """A volume that a stage makes.

    Attributes
    ----------
    name : str
        Key in ``Reconstruction.artefacts``, in metrics and in the API.
    suffix : str
        BIDS suffix: the file is ``<scan>_<suffix>.nii.gz``.
    unit : str
        As it stands in JSON sidecars.
    title : str
        For people.
    window : (float, float)
        Display range in ``unit``.
    """

    name: str
    suffix: str
    unit: str
    title: str
    window: tuple[float, float]


@dataclass(frozen=True)
class Stage:
    """A step of the pipeline.

    ``share`` is its usual part of the whole time, for progress and for the estimate of the time left.
    """

    name: str
    title: str
    consumes: tuple[str, ...]
    produces: tuple[str, ...]
    share: float


ARTEFACTS: dict[str, Artefact] = {
    a.name: a
    for a in (
        Artefact("chi", "Chimap", "ppm", "Susceptibility", (-0.1, 0.2)),
        Artefact("chi_uncertainty", "Chierror", "ppm", "Standard deviation of susceptibility", (0.0, 0.05)),
        Artefact("mask", "mask", "", "Brain mask", (0.0, 1.0)),
        Artefact("total_field", "totalfield", "ppm", "Total field", (-1.0, 1.0)),
        Artefact("field_error", "fielderror", "ppm", "Standard error of the field", (0.0, 0.01)),
        Artefact("local_field", "localfield", "ppm", "Local field", (-0.05, 0.05)),
        Artefact("r2star", "R2starmap", "1/s", "R2*", (0.0, 60.0)),
        Artefact("residual", "residual", "ppm", "Field that the map does not explain", (-0.02, 0.02)),
    )
}

STAGES: tuple[Stage, ...] = (
    Stage("mask", "Finding the brain", ("phase", "magnitude"), ("mask",), 0.06),
    Stage("field_mapping", "Unwrapping and fitting the echoes", ("phase", "magnitude", "mask"),
          ("total_field", "field_error", "r2star"), 0.08),
    Stage("background", "Removing the background field",
          ("total_field", "field_error", "mask"), ("local_field",), 0.10),
    Stage("inversion", "Inverting with classical methods",
          ("local_field", "total_field", "field_error", "mask", "magnitude", "r2star"), (), 0.22),
    Stage("network", "Running the network", ("local_field", "field_error", "mask", "magnitude"), (), 0.36),
    Stage("consistency", "Holding the map to the measured field",
          ("local_field", "total_field", "mask", "magnitude", "r2star"), ("chi",), 0.14),
    Stage("physics_check", "Checking the map against the measured field",
          ("chi", "local_field", "field_error", "mask"), ("residual",), 0.02),
    Stage("uncertainty", "Estimating how sure the map is", ("chi", "residual", "local_field", "mask"),
          ("chi_uncertainty",), 0.02),
)  # fmt: skip
