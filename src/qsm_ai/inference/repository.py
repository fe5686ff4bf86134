"""Where the model repository lies, and the network's weights in it."""

from __future__ import annotations

import os
from pathlib import Path

from qsm_ai.inference.errors import ModelFileMissing

MODEL = "qsm_vit"
VARIABLE = "QSM_MODEL_REPOSITORY"


def model_repository() -> Path:
    """The folder that Triton serves: ``QSM_MODEL_REPOSITORY``, or the project's own.

    Raises
    ------
    ModelFileMissing
        When there is no such folder.
    """
    stated = os.environ.get(VARIABLE)
    folder = Path(stated) if stated else Path(__file__).parents[3] / "model_repository"
    if not folder.is_dir():
        raise ModelFileMissing(
            "The model repository is not there.",
            mend=f"Set {VARIABLE} to a folder that holds {MODEL}/, or run from a checkout of the project.",
        )
    return folder.absolute()


def model_file(model: str = MODEL) -> Path:
    """The ONNX file of the newest version of a model.

    Parameters
    ----------
    model : str

    Returns
    -------
    Path

    Raises
    ------
    ModelFileMissing
        When no version has one.
    """
    files = [f for f in (model_repository() / model).glob("*/model.onnx") if f.parent.name.isdigit()]
    if not files:
        raise ModelFileMissing(
            f"The weights of {model} are not there (model.onnx in the folder of a version).",
            mend="Fetch the weights with the checkout, or train and export a network.",
        )
    return max(files, key=lambda f: int(f.parent.name))
