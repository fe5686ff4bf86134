"""What the user may choose about a reconstruction."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, get_args

Method = Literal["qsm-vit", "tkd", "tikhonov", "tv"]
Reference = Literal["mean", "csf", "none"]
Unwrapping = Literal["path", "laplacian"]
Background = Literal["lbv", "pdf", "v-sharp"]

METHODS: tuple[str, ...] = get_args(Method)
REFERENCES: tuple[str, ...] = get_args(Reference)
UNWRAPPINGS: tuple[str, ...] = get_args(Unwrapping)
BACKGROUNDS: tuple[str, ...] = get_args(Background)


@dataclass(frozen=True)
class Options:
    """Choices of a reconstruction; the defaults are what was measured best.

    Attributes
    ----------
    method : {"qsm-vit", "tkd", "tikhonov", "tv"}
        How the local field becomes susceptibility.
    reference : {"mean", "csf", "none"}
        What zero means in the map: the mean of the mask, that of the fluid in the ventricles, or whatever
        the inversion left.
    unwrapping : {"path", "laplacian"}
        Path following with the echoes as templates, or the fast Laplacian.
    background : {"lbv", "pdf", "v-sharp"}
        How the field of sources outside the mask is removed.

    Raises
    ------
    ValueError
        If a choice does not exist.
    """

    method: Method = "qsm-vit"
    reference: Reference = "mean"
    unwrapping: Unwrapping = "path"
    background: Background = "pdf"

    def __post_init__(self) -> None:
        for name, chosen, known in (
            ("method", self.method, METHODS),
            ("reference", self.reference, REFERENCES),
            ("unwrapping", self.unwrapping, UNWRAPPINGS),
            ("background", self.background, BACKGROUNDS),
        ):
            if chosen not in known:
                raise ValueError(f"{name} {chosen!r} does not exist; choose one of {', '.join(known)}")

    def as_dict(self) -> dict[str, str]:
        """The choices by name, for reports."""
        return asdict(self)
