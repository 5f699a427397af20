"""The mask on the PET's grid, interpolated where the probability can exceed the threshold and nowhere else.

Linear interpolation exceeds no value that it lies between. So a voxel of the PET can be tumour only where a place
that is lies within one voxel of the network's grid.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from algorithm.preprocessing import Box, resample_onto

_SLICES = 8  # of the PET that are interpolated at a time: few, so that their box is tight
_TOUCH = 1.0 + 1e-6  # voxels of the network's grid over which a value reaches, with room for rounding


def exceeding(
    probability: NDArray[np.float32], grid: sitk.Image, pet: sitk.Image, threshold: float
) -> NDArray[np.bool_]:
    """Tell where a probability, interpolated linearly onto the PET's grid, exceeds a threshold.

    The same as comparing every slab of :func:`algorithm.preprocessing.restore`, but for what rounds otherwise in
    the last digit.

    Parameters
    ----------
    probability : float32 array, x, y, z
        On ``grid``.
    grid, pet : SimpleITK.Image
        Geometries; :attr:`algorithm.preprocessing.Prepared.grid` and the case's PET.
    threshold : float
        At least 0.

    Returns
    -------
    bool array, z, y, x
    """
    mask = np.zeros(pet.GetSize()[::-1], bool)
    boxes = list(_boxes(probability > threshold, grid, pet))
    if boxes:
        image = sitk.GetImageFromArray(probability.transpose(2, 1, 0))
        image.CopyInformation(grid)
        for box in boxes:
            mask[box] = resample_onto(image, pet, box) > threshold
    return mask


def _boxes(tumour: NDArray[np.bool_], grid: sitk.Image, pet: sitk.Image) -> Iterator[Box]:
    """Yield boxes of the PET's grid, z, y, x, outside of which no voxel touches one of the tumour's (x, y, z)."""
    to_pet = np.linalg.inv(_matrix(pet)) @ _matrix(grid)
    shift = np.linalg.inv(_matrix(pet)) @ (np.array(grid.GetOrigin()) - np.array(pet.GetOrigin()))
    across = int(np.abs(to_pet[2]).argmin())  # the ends of lines along it, which stay in their slab, are enough
    ends = _ends_of_lines(tumour, across)
    if not ends.size:
        return
    centres = ends @ to_pet.T + shift
    reach = _TOUCH * np.abs(to_pet).sum(axis=1)
    reach[2] += abs(to_pet[2, across]) * tumour.shape[across]  # nothing, unless a grid is rotated
    last = np.array(pet.GetSize()) - 1
    lowest = np.ceil(centres - reach).astype(int).clip(0)
    highest = np.floor(centres + reach).astype(int).clip(None, last)
    for first in range(0, int(last[2]) + 1, _SLICES):
        end = min(first + _SLICES, int(last[2]) + 1)
        here = (lowest[:, 2] < end) & (highest[:, 2] >= first)
        if not here.any():
            continue
        low, high = lowest[here].min(axis=0), highest[here].max(axis=0) + 1
        if (low < high).all():
            z = slice(max(first, int(low[2])), min(end, int(high[2])))
            yield z, slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))


def _ends_of_lines(mask: NDArray[np.bool_], axis: int) -> NDArray[np.intp]:
    """Return the first and the last voxel of a mask on every line along an axis, (voxels, 3)."""
    lines = np.argwhere(mask.any(axis=axis))
    along = np.moveaxis(mask, axis, -1)
    first = along.argmax(axis=-1)
    last = mask.shape[axis] - 1 - along[..., ::-1].argmax(axis=-1)
    return np.concatenate([np.insert(lines, axis, end[tuple(lines.T)], axis=1) for end in (first, last)])


def _matrix(image: sitk.Image) -> NDArray[np.float64]:
    """Return the matrix from steps along an image's x, y, z to mm in the patient's space."""
    direction = np.array(image.GetDirection()).reshape(3, 3)
    matrix: NDArray[np.float64] = direction * np.array(image.GetSpacing())
    return matrix
