"""What was learned from simulated heads about the network's errors; kept beside the code as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from qsm_ai.reconstruction.uncertainty import ErrorModel

FILE = "calibration.json"


@dataclass(frozen=True)
class Calibration:
    """Error models and ranges, for one set of weights.

    Attributes
    ----------
    weights : str
        SHA-256 of the network's file.
    removed, given : ErrorModel
        For maps whose background was removed here, and for those from a given local field.
    ranges, given_ranges : dict of (lowest, highest)
        Statistics of the heads, of the two kinds.
    """

    weights: str
    removed: ErrorModel
    given: ErrorModel
    ranges: Mapping[str, tuple[float, float]]
    given_ranges: Mapping[str, tuple[float, float]]

    def model(self, background_removed: bool) -> ErrorModel:
        """The error model of one kind of map."""
        return self.removed if background_removed else self.given

    def ranges_of(self, background_removed: bool) -> Mapping[str, tuple[float, float]]:
        """The ranges of one kind of map."""
        return self.ranges if background_removed else self.given_ranges

    def fits(self, network: str) -> bool:
        """Whether a network, by its name, has the weights that this was found with, as far as it tells."""
        digests = [word.strip(",") for word in network.split() if _is_digest(word.strip(","))]
        return all(self.weights.startswith(digest) for digest in digests)


def _is_digest(word: str) -> bool:
    return len(word) >= 8 and all(letter in "0123456789abcdef" for letter in word)


@lru_cache
def shipped_calibration() -> Calibration:
    """The calibration of the shipped weights."""
    return parse_calibration(json.loads(files("qsm_ai.reconstruction").joinpath(FILE).read_text("utf-8")))


def parse_calibration(document: Mapping[str, Any]) -> Calibration:
    """A calibration from its JSON.

    Raises
    ------
    KeyError, ValueError
        If something is missing.
    """
    removed, given = document["removed"], document["given"]
    return Calibration(document["sha256"], _model(removed), _model(given), _ranges(removed), _ranges(given))


def _model(kind: Mapping[str, Any]) -> ErrorModel:
    return ErrorModel(float(kind["intercept"]), dict(kind["weights"]))


def _ranges(kind: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    return {name: (float(low), float(high)) for name, (low, high) in kind["ranges"].items()}
