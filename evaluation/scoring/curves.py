"""Areas under the curve of a figure over interaction steps, as the interactive editions rank them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from algorithm.errors import UsageError


def area_under_curve(values: Sequence[float], steps: int) -> float:
    """Area under a figure's curve by the trapezoidal rule, with one interaction as the unit of length.

    The area is ``v[0] / 2 + v[1] + ... + v[K - 1] + v[K] / 2``, not divided by K: a constant 1 gives K. That is
    how the evaluation pages of autoPET IV (11 predictions, K = 10) and V (6 predictions, K = 5) define AUC-DSC,
    AUC-FPV, AUC-FNV, AUC-Dice and AUC-DMM, and what V's interaction loop sums.

    Parameters
    ----------
    values : sequence of float, (steps + 1,)
        The figure after 0, 1, ..., ``steps`` interactions. One NaN makes the area NaN: a case for which the figure
        is not defined at some step has no area.
    steps : int
        K, the number of interactions: 10 in IV, 5 in V.

    Returns
    -------
    float
        In units of the figure (ml for FPV and FNV) times steps.

    Raises
    ------
    UsageError
        There is not exactly one value per step, or no step at all.
    """
    if steps < 1:
        raise UsageError(f"an area needs at least one interaction step, got {steps}")
    if len(values) != steps + 1:
        raise UsageError(
            f"an area over {steps} interactions needs {steps + 1} values (steps 0 to {steps}), got {len(values)}; "
            "give one prediction per step"
        )
    return math.fsum([values[0] / 2, *values[1:-1], values[-1] / 2])
