"""Uptake without a body, for the tests that read files but need no anatomy: smooth, as a PET is; synthetic."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_SIGMA_VOXELS = 1.5


def smooth_uptake(shape: tuple[int, int, int], low: float, high: float, seed: int) -> NDArray[np.float32]:
    """Return a smooth random volume (z, y, x) that reaches from ``low`` to ``high``, in SUV."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), _SIGMA_VOXELS)
    scaled = (noise - noise.min()) / (noise.max() - noise.min())
    return np.asarray(low + scaled * (high - low), np.float32)
