"""The images of a case with truth, all on the PET's grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from algorithm.cases.case import Case
from algorithm.errors import GeometryError, InvalidImageError, MissingInputError, UserError
from algorithm.images import geometry_text, other_geometry_text, read_image, read_pet_ct, same_geometry


@dataclass(frozen=True)
class Study:
    """The images of a case, all on the PET's grid: CT in HU and PET in SUV (float32), contours (uint8 0/1)."""

    ct: sitk.Image
    pet: sitk.Image
    seg: sitk.Image


def read_study(case: Case) -> Study:
    """Read a case and put all its images on the PET's grid.

    The contours' labels other than 0 become 1 (as in the released training code; in HECKTOR primary tumour and
    nodes are both tumour).

    Raises
    ------
    MissingInputError
        The case has no truth.
    UserError
        A file cannot be decoded, the PET is not in SUV, the contours lie on another grid, or hold no labels.
    """
    if case.truth is None:
        raise MissingInputError(f"the case {case.name} has no truth; add its contours")
    pair = read_pet_ct(case.ct, case.pet)
    if case.truth_on_own_grid:
        return Study(ct=pair.ct, pet=pair.pet, seg=truth_on(case.truth, pair.pet))
    labels = read_image(case.truth, "SEG")
    if not same_geometry(labels, pair.pet):
        raise GeometryError(
            f"{case.truth.name} ({geometry_text(labels)}) does not lie on the grid of {case.pet.name} "
            f"({other_geometry_text(pair.pet, labels)}); resample it (a list of cases may say so: truth_grid own)"
        )
    return Study(ct=pair.ct, pet=pair.pet, seg=_tumour(labels, case.truth))


def truth_on(path: Path, grid: sitk.Image) -> sitk.Image:
    """Read contours from whatever grid they lie on and bring them onto another: uint8, 0 and 1.

    Nearest neighbour, as HECKTOR's organisers bring masks from grid to grid; labels as in :func:`read_study`.

    Raises
    ------
    UserError
        The file cannot be decoded, or holds no labels.
    """
    labels = read_image(path, "SEG")
    return _tumour(sitk.Resample(labels, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0.0), path)


def _tumour(labels: sitk.Image, path: Path) -> sitk.Image:
    values = sitk.GetArrayViewFromImage(labels)
    if not np.array_equal(values, np.round(values)):
        raise InvalidImageError(f"{path.name} holds fractions, expected whole-numbered labels")
    return sitk.Cast(sitk.NotEqual(labels, 0.0), sitk.sitkUInt8)


def reason(error: UserError, case: Case) -> str:
    """Return an error's sentence without the case's folders, which the reader knows from the case's name."""
    text = str(error)
    for path in case.files:
        text = text.replace(str(path), path.name)
    return text
