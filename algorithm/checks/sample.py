"""The part of an image's voxels that checks look at."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

Volume = NDArray[np.float32]

_SLICES = 9
_LINES = 64


def steps_of(image: sitk.Image, step_mm: float) -> tuple[int, int, int]:
    """Return every how many voxels along z, y, x a sample takes one, for voxels about so long."""
    x, y, z = (max(1, round(step_mm / spacing)) for spacing in image.GetSpacing())
    return z, y, x


def sample(image: sitk.Image, step_mm: float) -> Volume:
    """Return every so many voxels, float32, z, y, x, at voxels of about the given length."""
    steps = steps_of(image, step_mm)
    cut = tuple(
        slice(min(step // 2, side - 1), None, step) for step, side in zip(steps, _sides(image), strict=True)
    )
    return np.ascontiguousarray(sitk.GetArrayViewFromImage(image)[cut], np.float32)


def voxel_litres(image: sitk.Image, step_mm: float) -> float:
    """Return how many litres one voxel of such a sample stands for."""
    return float(np.prod(steps_of(image, step_mm)) * np.prod(image.GetSpacing()) / 1e6)


def neighbours_alike(image: sitk.Image, low: float, high: float) -> float:
    """Return the correlation of neighbouring voxels along x, clipped to a range: near 0 for noise."""
    values = sitk.GetArrayViewFromImage(image)
    depth, height, _ = values.shape
    slices = np.unique(np.linspace(0, depth - 1, _SLICES).round().astype(int))
    lines = np.unique(np.linspace(0, height - 1, _LINES).round().astype(int))
    part = np.clip(values[slices][:, lines], low, high).astype(np.float64)
    left, right = part[..., :-1].ravel(), part[..., 1:].ravel()
    if left.size == 0 or left.std() == 0 or right.std() == 0:
        return 1.0
    return float(np.corrcoef(left, right)[0, 1])


def _sides(image: sitk.Image) -> tuple[int, ...]:
    return tuple(image.GetSize()[::-1])
