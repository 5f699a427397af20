"""Where the sliding windows lie and how much each of their voxels counts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Start = tuple[int, int, int]

_SIGMA = 0.125  # standard deviation of the importance map, as a share of the window's side (nnU-Net, MONAI)
_LEAST_IMPORTANCE = 1e-3


def plan_windows(size: Sequence[int], patch: Sequence[int], overlap: float) -> tuple[Start, ...]:
    """Return the first voxel of every window that is needed to cover a volume.

    Along each axis windows follow one another at ``patch (1 - overlap)``, rounded down; the last one is moved back
    to end with the volume. The same plan as MONAI's ``sliding_window_inference``.

    Parameters
    ----------
    size, patch : three ints
        x, y, z; no side of the volume may be smaller than the patch's (pad it first).
    overlap : float
        0 <= overlap < 1.
    """
    return tuple((x, y, z) for x, y, z in itertools.product(*plan_axes(size, patch, overlap)))


def plan_axes(size: Sequence[int], patch: Sequence[int], overlap: float) -> list[list[int]]:
    """Return where the windows of :func:`plan_windows`, which are all combinations, begin along each axis."""
    axes = []
    for extent, side in zip(size, patch, strict=True):
        if extent < side:
            raise ValueError(f"the volume {tuple(size)} must be at least as large as the patch {tuple(patch)}")
        step = max(1, int(side * (1 - overlap)))
        count = math.ceil((extent - side) / step) + 1
        axes.append([min(index * step, extent - side) for index in range(count)])
    return axes


def importance_map(patch: Sequence[int]) -> NDArray[np.float32]:
    """Return the weight of each voxel of a window, (x, y, z): a Gaussian, nowhere below 0.001."""
    profiles = []
    for side in patch:
        distance = np.arange(side, dtype=np.float32) - (side - 1) / 2
        profiles.append(np.exp(-(distance**2) / (2 * (_SIGMA * side) ** 2), dtype=np.float32))
    x, y, z = profiles
    gaussian: NDArray[np.float32] = x[:, None, None] * y[None, :, None] * z[None, None, :]
    return np.maximum(gaussian, np.float32(_LEAST_IMPORTANCE), out=gaussian)


def fit_box(box: Sequence[slice], size: Sequence[int], patch: Sequence[int]) -> tuple[slice, slice, slice]:
    """Widen a box to at least one patch, as far as the volume reaches, moving it inwards at the volume's edge."""
    widened = []
    for part, extent, side in zip(box, size, patch, strict=True):
        length = max(part.stop - part.start, min(side, extent))
        start = min(max(0, part.start - (length - (part.stop - part.start)) // 2), extent - length)
        widened.append(slice(start, start + length))
    return widened[0], widened[1], widened[2]


def cut_box(
    volume: NDArray[np.float32], box: Sequence[slice], patch: Sequence[int], outside: float
) -> NDArray[np.float32]:
    """Return what lies in the box, padded on both sides to at least one patch with the value ``outside``."""
    part = volume[tuple(box)]
    return np.pad(part, _padding(part.shape, patch), constant_values=outside)


def paste_box(part: NDArray[np.float32], box: Sequence[slice], shape: Sequence[int]) -> NDArray[np.float32]:
    """Undo :func:`cut_box` for a result: a volume of the given shape that is 0 outside the box."""
    volume = np.zeros(shape, np.float32)
    inner = volume[tuple(box)]
    before = [first for first, _ in _padding(inner.shape, part.shape)]
    inner[:] = part[tuple(slice(first, first + side) for first, side in zip(before, inner.shape, strict=True))]
    return volume


def window_on_volume(
    start: Start, patch: Sequence[int], box: Sequence[slice], part_shape: Sequence[int]
) -> tuple[slice, slice, slice]:
    """Return which voxels of a volume a window shows, given its place in what :func:`cut_box` cut out of it."""
    shown = []
    sides = [part.stop - part.start for part in box]
    padding = _padding(sides, part_shape)
    for first, side, part, length, (before, _) in zip(start, patch, box, sides, padding, strict=True):
        begin, end = max(0, first - before), min(length, first - before + side)
        shown.append(slice(part.start + begin, part.start + end))
    return shown[0], shown[1], shown[2]


def _padding(shape: Sequence[int], least: Sequence[int]) -> list[tuple[int, int]]:
    missing = [max(0, want - have) for have, want in zip(shape, least, strict=True)]
    return [(each // 2, each - each // 2) for each in missing]
