"""Statistics that a few wild values do not move."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def robust_spread(values: NDArray[np.float32]) -> float:
    r"""Standard deviation of normal values, however wild a few of them are.

    .. math:: 1.4826 \, \mathrm{median} | x - \mathrm{median}\, x |

    Parameters
    ----------
    values : of any shape, at least one

    Returns
    -------
    float
        In the unit of the values.
    """
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))
