"""Lesions measured by numpy's sums over a labelled volume: the oracle of :mod:`algorithm.lesions`."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from algorithm.postprocessing import Lesion, lesions


def measure_lesions(mask: NDArray[np.uint8], pet: sitk.Image) -> tuple[Lesion, ...]:
    """Measure every lesion of a mask, largest first.

    Parameters
    ----------
    mask : uint8 array, z, y, x
    pet : SimpleITK.Image
        SUV, on the mask's grid.
    """
    labels, count = lesions(mask)
    if count == 0:
        return ()
    places = np.nonzero(labels)
    number = labels[places] - 1
    suv = sitk.GetArrayViewFromImage(pet)[places]
    voxels = np.bincount(number)
    suv_mean = np.bincount(number, weights=suv) / voxels
    suv_max = ndimage.maximum(suv, number, np.arange(count))
    centres_xyz = np.stack([np.bincount(number, weights=axis) / voxels for axis in reversed(places)], axis=1)
    voxel_ml = float(np.prod(pet.GetSpacing())) / 1000
    return tuple(
        Lesion(
            volume_ml=float(voxels[each] * voxel_ml),
            suv_max=float(suv_max[each]),
            suv_mean=float(suv_mean[each]),
            centroid_mm=pet.TransformContinuousIndexToPhysicalPoint(centres_xyz[each].tolist()),
        )
        for each in np.argsort(-voxels, kind="stable")
    )
