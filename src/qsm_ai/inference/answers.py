"""What a network may be asked, and what an answer must look like to be believed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qsm_ai.inference.errors import BadAnswer

MEND = "Look into the server's log; its environment must be that of requirements/triton.txt (numpy 1.26)."


def check_patches(patches: NDArray[np.float32], patch_shape: Sequence[int] | None = None) -> None:
    """Refuse what is not a stack of patches of the network's shape.

    Parameters
    ----------
    patches : (N, C, P, P, P) float32
    patch_shape : (C, P, P, P)
        Where it is known; -1 is any size.

    Raises
    ------
    ValueError
        On another number of axes or another shape.
    """
    wanted = tuple(patch_shape or (-1, -1, -1, -1))
    sizes = zip(patches.shape[1:], wanted, strict=False)
    if patches.ndim != 5 or any(size != due for size, due in sizes if due != -1):
        raise ValueError(f"patches are {patches.shape}; the network takes (N, {', '.join(map(str, wanted))})")


def check_answer(patches: NDArray[np.float32], correction: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Let an answer through only if it can be right.

    A server whose Python backend runs under numpy 2 is ready, and answers in the right shape without a byte
    of data; so shape and values are looked at every time.

    Parameters
    ----------
    patches : (N, C, P, P, P) float32
        That were asked.
    correction : (N, 1, P, P, P) float32 or None
        That came.

    Returns
    -------
    (N, 1, P, P, P) float32
        The answer.

    Raises
    ------
    BadAnswer
        When it is missing, of another shape, not finite, or empty.
    """
    if correction is None or correction.size == 0:
        raise BadAnswer("The network answered without any values.", mend=MEND)
    wanted = (len(patches), 1, *patches.shape[2:])
    if correction.shape != wanted or correction.dtype != np.float32:
        raise BadAnswer(
            f"The network answered {correction.dtype} {correction.shape} where float32 {wanted} was due.",
            mend="The server holds another network than this version of qsm-ai expects.",
        )
    if not np.isfinite(correction).all():
        raise BadAnswer("The network answered values that are not finite.", mend=MEND)
    return correction
