"""Organ maps beside contours, as the synthetic bodies have them (``synthesis.study``)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from algorithm.cases import Case
from algorithm.errors import InvalidImageError
from algorithm.images import foreign_label, read_image

ORGANS_FILE = "organs.nii.gz"

ORGANS = 10
"""Labels 1 to 10, see ``synthesis.body.Tissue``; 0 is everything else."""

UNKNOWN = 255
"""Where a case has no organ map."""


def organ_map_of(case: Case) -> Path | None:
    """Return the organ map beside a case's contours; None where there is none."""
    path = case.truth.parent / ORGANS_FILE if case.truth is not None else None
    return path if path is not None and path.is_file() else None


def read_organs(path: Path, grid: sitk.Image) -> NDArray[np.uint8]:
    """Return an organ map on the network's grid, z, y, x.

    Raises
    ------
    InvalidImageError
        It holds something else than the labels 0 to 10.
    """
    organs = read_image(path, "organ map")
    foreign = foreign_label(organs, ORGANS)
    if foreign is not None:
        raise InvalidImageError(
            f"an organ map has labels 0 to {ORGANS}, got {foreign:g} in {path}; relabel it, or move it "
            "away to train without"
        )
    nearest = sitk.Resample(organs, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0, sitk.sitkUInt8)
    return sitk.GetArrayFromImage(nearest)  # type: ignore[no-any-return]
