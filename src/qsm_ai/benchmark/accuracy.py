"""Accuracy of every method on phantoms: from phase, from the total field and from the true local field."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsm_ai.benchmark.cases import Case
from qsm_ai.benchmark.code import code_digest
from qsm_ai.benchmark.phantoms import make_phantom
from qsm_ai.benchmark.scoring import Quality, assess
from qsm_ai.reconstruction.network import Network
from qsm_ai.reconstruction.options import METHODS, Options
from qsm_ai.reconstruction.pipeline import reconstruct

STARTS = ("phase", "total field", "local field")
PICTURED = ("reference", "lesion")
"""Axes whose maps are shown."""


@dataclass(frozen=True)
class Score:
    """One method on one phantom.

    Attributes
    ----------
    case, axis, value : str
        See ``cases.Case``.
    start, method : str
        ``start`` is one of ``STARTS``.
    quality : Quality
    seconds : float
    key : str
        Of all that the numbers depend on: phantom, start, method, weights, and the code that makes maps.
        Equal keys, equal numbers.
    """

    case: str
    axis: str
    value: str
    start: str
    method: str
    quality: Quality
    seconds: float
    key: str

    def as_dict(self) -> dict[str, Any]:
        """By name, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Score:
        """What :meth:`as_dict` made, read back from JSON."""
        quality = Quality(**stored["quality"])
        regions = {name: (v[0], v[1], v[2]) for name, v in quality.regions.items()}
        quality = Quality(**{**vars(quality), "regions": regions})
        return cls(**{**stored, "quality": quality})


def key_of(case: Case, start: str, method: str, weights: str, code: str | None = None) -> str:
    """Hash of all that a score depends on.

    Parameters
    ----------
    case : Case
    start, method : str
    weights : SHA-256 of the network's file
        Counts for the network's own method alone.
    code : str or None
        See :func:`code.code_digest`; that of the code installed when left out.

    Returns
    -------
    16 hexadecimal digits
    """
    parts = [case.definition(), start, method, weights if method == "qsm-vit" else "", code or code_digest()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def read_scores(record: Path) -> list[Score]:
    """Scores of an earlier run.

    Parameters
    ----------
    record : Path
        JSON that a run wrote; may not exist, or be of an older form: then there are none.

    Returns
    -------
    list of Score
    """
    try:
        return [Score.from_dict(row) for row in json.loads(record.read_text())["scores"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def measure(
    cases: Iterable[Case],
    network: Network | None,
    methods: Sequence[str] = METHODS,
    starts: Sequence[str] = STARTS,
    *,
    weights: str = "",
    labels: NDArray[np.int16] | None = None,
    done: Iterable[Score] = (),
    slices: Path | None = None,
    tell: Callable[[Score], None] = lambda _: None,
) -> list[Score]:
    """Reconstruct every phantom by every method from every start, except what is known already.

    Parameters
    ----------
    cases : Case
    network : Network or None
        Needed for the method "qsm-vit" alone.
    methods, starts : names
    weights : SHA-256 of the network's file
    labels : (L, M, N) int or None
        Labels of a real head, for the cases that ask for them.
    done : Score
        Of an earlier run: not measured again.
    slices : folder or None
        Gets a slice of each map of the phantoms that are shown.
    tell : callable
        Given each new score as it is known.

    Returns
    -------
    list of Score
        Old and new, in the order of cases, starts and methods.
    """
    known = {score.key: score for score in done}
    scores = []
    for case in cases:
        wanted = [(s, m, key_of(case, s, m, weights)) for s in starts for m in methods]
        if any(key not in known for *_, key in wanted):
            phantom = make_phantom(case, labels)
            assert phantom.scan.mask is not None  # noqa: S101 - a phantom knows its brain
            pictured = slices is not None and case.axis in PICTURED
            if pictured:
                _keep_slice(slices, case, "truth", phantom.chi, phantom.scan.mask, phantom.regions)  # type: ignore[arg-type]
        for start, method, key in wanted:
            if key not in known:
                result = reconstruct(phantom.starting_from(start), Options(method=method), network)  # type: ignore[arg-type]
                quality = assess(result.chi, phantom.chi, phantom.scan.mask, phantom.regions)  # type: ignore[arg-type]
                seconds = sum(result.timings.values())
                known[key] = Score(case.name, case.axis, case.value, start, method, quality, seconds, key)
                if pictured:
                    _keep_slice(
                        slices,  # type: ignore[arg-type]
                        case,
                        f"{start}, {method}",
                        result.chi,
                        phantom.scan.mask,  # type: ignore[arg-type]
                        phantom.regions,
                    )
                tell(known[key])
            scores.append(known[key])
    return scores


def slice_file(folder: Path, case: str, title: str) -> Path:
    """Where the slice of a map lies."""
    return folder / f"{case}, {title}.npy"


def _keep_slice(
    folder: Path,
    case: Case,
    title: str,
    chi: NDArray[np.float32],
    mask: NDArray[np.bool_],
    regions: NDArray[np.uint8],
) -> None:
    """Store an axial slice through the lesion, or through the basal ganglia."""
    wanted = regions == (16 if case.lesion is not None else 2)
    level = round(float(np.argwhere(wanted)[:, 2].mean())) if wanted.any() else chi.shape[2] // 2
    folder.mkdir(parents=True, exist_ok=True)
    np.save(slice_file(folder, case.name, title), (chi * mask)[:, :, level].astype(np.float16))
