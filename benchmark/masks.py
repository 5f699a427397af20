"""How far two masks agree."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def dice_of(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Return the Dice of two masks; that of two empty ones is 1."""
    total = int(first.sum(dtype=np.int64)) + int(second.sum(dtype=np.int64))
    return 2 * int((first & second).sum(dtype=np.int64)) / total if total else 1.0
