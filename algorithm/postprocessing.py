"""What is done to a mask after the threshold, and what is measured on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from algorithm.description import Postprocessing
from algorithm.preprocessing import bounding_box

CONNECTIVITY = ndimage.generate_binary_structure(3, 2)
"""18 neighbours, by face or edge: AutoPET's official scoring counts lesions so."""


@dataclass(frozen=True)
class Lesion:
    """One connected piece of a mask.

    Attributes
    ----------
    volume_ml : float
    suv_max, suv_mean : float
        Over the lesion's voxels.
    centroid_mm : tuple of float
        Mean position of the voxels in the patient's space (left, posterior, superior).
    """

    volume_ml: float
    suv_max: float
    suv_mean: float
    centroid_mm: tuple[float, float, float]


def lesions(mask: NDArray[np.uint8] | NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Label the 18-connected components of a mask.

    Parameters
    ----------
    mask : uint8 or bool array, z, y, x

    Returns
    -------
    labels : int32 array, z, y, x
        0 outside, 1 to ``count`` inside.
    count : int
    """
    labels = np.zeros(mask.shape, np.int32)
    box = bounding_box(mask.astype(bool, copy=False))  # a tumour is a small part of a body
    return labels, int(ndimage.label(mask[box], CONNECTIVITY, output=labels[box]))


def clean_mask(
    mask: NDArray[np.uint8], suv: NDArray[np.float32], spacing_mm: Sequence[float], how: Postprocessing
) -> NDArray[np.uint8]:
    """Take away voxels below the SUV floor, then lesions below the smallest volume or the smallest SUVmax.

    Parameters
    ----------
    mask : uint8 array, z, y, x
        Zeros and ones.
    suv : float32 array, z, y, x
        The PET on the mask's grid.
    spacing_mm : three floats, x, y, z
    how : Postprocessing
        From the checkpoint's description.

    Returns
    -------
    uint8 array, z, y, x
        A new array.
    """
    kept = mask > 0
    if how.suv_floor > 0:
        kept &= suv >= how.suv_floor
    if how.minimum_lesion_ml > 0 or how.minimum_suv_max > 0:
        labels, count = lesions(kept)
        voxels = np.flatnonzero(kept)
        inside = labels.reshape(-1)[voxels]
        stay = np.bincount(inside, minlength=count + 1) * voxel_volume_ml(spacing_mm) >= how.minimum_lesion_ml
        highest = np.zeros(count + 1, np.float32)
        np.maximum.at(highest, inside, suv.reshape(-1)[voxels])
        kept.reshape(-1)[voxels] = (stay & (highest >= how.minimum_suv_max))[inside]
    return kept.view(np.uint8)


def voxel_volume_ml(spacing_mm: Sequence[float]) -> float:
    """Return the volume in ml of a voxel with these sides in mm, in whatever order."""
    return float(np.prod(spacing_mm)) / 1000
