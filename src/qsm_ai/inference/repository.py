"""Where the model repository lies, and the network's weights in it."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from qsm_ai.inference.errors import ModelFileMissing

MODEL = "qsm_vit"
VARIABLE = "QSM_MODEL_REPOSITORY"

WEIGHTS = "weights"
"""Parameter of a model's configuration that tells clients which weights are served."""

DIGITS = 12
"""Of the weights' digest, enough to tell them apart."""


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


def weights_digest(path: Path) -> str:
    """SHA-256 of a network's file, by which measurements and reports name it.

    Parameters
    ----------
    path : Path
        ONNX.

    Returns
    -------
    64 hexadecimal digits
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def name_weights(onnx: Path) -> list[Path]:
    """Write into the configurations of a model which weights they serve.

    Parameters
    ----------
    onnx : Path
        ``MODEL/VERSION/model.onnx``; beside it ``MODEL/config.pbtxt`` and ``MODEL/configs/*.pbtxt``.

    Returns
    -------
    list of Path
        Configurations that name weights; none where the file stands alone.
    """
    folder = onnx.absolute().parents[1]
    named = []
    for path in (folder / "config.pbtxt", *sorted((folder / "configs").glob("*.pbtxt"))):
        if not path.is_file():
            continue
        text, count = re.subn(
            rf'(key: "{WEIGHTS}" value {{ string_value: ")[^"]*',
            rf"\g<1>{weights_digest(onnx)[:DIGITS]}",
            path.read_text(),
        )
        if count:
            path.write_text(text)
            named.append(path)
    return named
