"""Thresholding the PET: what any network has to beat."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Threshold = Callable[[NDArray[np.float32], NDArray[np.bool_]], float]
"""SUV of an image, given its SUVs and its truth (any shape), from which on voxels are called tumour."""


def best_threshold(suv: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    """Return the SUV threshold with the highest Dice, chosen with the truth in hand; infinite without a tumour."""
    if not truth.any():
        return np.inf
    order = np.argsort(-suv, axis=None, kind="stable")
    values = suv.reshape(-1)[order]
    found = np.cumsum(truth.reshape(-1)[order], dtype=np.int64)
    called = np.arange(1, values.size + 1)
    dice = 2.0 * found / (called + int(truth.sum()))
    dice[:-1][values[:-1] == values[1:]] = -1.0  # equal values are called together
    return float(values[np.argmax(dice)])


BASELINES: dict[str, Threshold] = {
    "SUV >= 2.5": lambda suv, truth: 2.5,
    "SUV >= 4": lambda suv, truth: 4.0,
    "41 % of SUVmax": lambda suv, truth: 0.41 * float(suv.max()),
    "best threshold (knows the truth)": best_threshold,
}
