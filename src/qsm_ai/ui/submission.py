"""A scan ready to be sent, and the choices there are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qsm_ai.ui.uploads import File, Role

METHODS = {
    "qsm-vit": ("QSM-ViT", "Deep network held to the measured field. The default."),
    "tv": ("TV", "Total variation: sharp edges, slower, no learning."),
    "tikhonov": ("Tikhonov", "Closed form: smooth, very fast."),
    "tkd": ("TKD", "Thresholded k-space division: very fast, streaks."),
}
REFERENCES = {
    "mean": "Mean of the brain",
    "csf": "Ventricles (CSF)",
    "none": "None",
}


UNWRAPPINGS = {
    "path": "Path following",
    "laplacian": "Laplacian",
}
BACKGROUNDS = {
    "pdf": "PDF",
    "lbv": "LBV",
    "v-sharp": "V-SHARP",
}
PHASE_SIGNS = {
    "auto": "From the scanner's maker",
    "positive": "Phase rises with the field",
    "negative": "Phase falls with the field",
}


@dataclass(frozen=True)
class Submission:
    """What is asked of the API.

    Attributes
    ----------
    files : role to files, in echo order
    echo_times_ms : ms; empty when the scan starts from a field
    field_strength : T, or None where it does not matter
    method, reference, unwrapping, background, phase_sign : the API's words
    b0_direction : direction in voxel axes, of any length, or None to take it from the image
    """

    files: Mapping[Role, Sequence[File]]
    echo_times_ms: Sequence[float] = ()
    field_strength: float | None = None
    method: str = "qsm-vit"
    reference: str = "mean"
    unwrapping: str = "path"
    background: str = "pdf"
    phase_sign: str = "auto"
    b0_direction: tuple[float, float, float] | None = None

    def parts(self) -> list[tuple[str, tuple[str, bytes, str]]]:
        """Multipart files: (field, (name, content, media type))."""
        return [
            (role.value, (file.name, file.content, _media_type(file.name)))
            for role in (*_IMAGES, Role.SIDECAR)
            for file in self.files.get(role, ())
        ]

    def fields(self) -> dict[str, str]:
        """Multipart form fields."""
        fields = {
            "method": self.method,
            "reference": self.reference,
            "unwrapping": self.unwrapping,
            "background": self.background,
            "phase_sign": self.phase_sign,
        }
        if self.echo_times_ms:
            fields["te_ms"] = _numbers(self.echo_times_ms)
        if self.field_strength is not None:
            fields["b0"] = f"{self.field_strength:.10g}"
        if self.b0_direction is not None:
            fields["b0_direction"] = _numbers(self.b0_direction)
        return fields

    def key(self, salt: str) -> str:
        """The idempotency key: the same scan with the same choices and salt has the same one.

        Parameters
        ----------
        salt : str
            Of whoever sends it, and of the occasion.
        """
        digest = hashlib.blake2b(repr((salt, self.fields())).encode(), digest_size=16)
        for role, (name, content, _) in self.parts():
            digest.update(repr((role, name, len(content))).encode())
            digest.update(content)
        return digest.hexdigest()


_IMAGES = (Role.PHASE, Role.MAGNITUDE, Role.TOTAL_FIELD, Role.LOCAL_FIELD, Role.MASK)


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.10g}" for value in values)


def _media_type(name: str) -> str:
    lowered = name.lower()
    if lowered.endswith(".json"):
        return "application/json"
    return "application/gzip" if lowered.endswith(".gz") else "application/octet-stream"
