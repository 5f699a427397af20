"""Truths as masks of 0 and 1, brought onto another grid where the list or layout of the cases says so."""

from __future__ import annotations

from pathlib import Path

import SimpleITK as sitk

from algorithm.cases import Case, truth_on
from algorithm.errors import GeometryError
from algorithm.images import geometry_text, other_geometry_text, read_image, read_mask, same_geometry


def read_truth(path: Path, grid: sitk.Image | Path, *, on_own_grid: bool) -> sitk.Image:
    """Read a truth.

    Parameters
    ----------
    path : Path
    grid : SimpleITK.Image or Path
        An image, or its file, onto whose grid a truth on its own grid is brought; not looked at otherwise.
    on_own_grid : bool
        See :class:`algorithm.cases.Case`. All labels of such a truth are tumour.

    Returns
    -------
    SimpleITK.Image
        3-D, uint8, 0 and 1.

    Raises
    ------
    UserError
        As :func:`algorithm.images.read_mask`, or :func:`algorithm.cases.truth_on`.
    """
    if not on_own_grid:
        return read_mask(path)
    return truth_on(path, read_image(grid, "image") if isinstance(grid, Path) else grid)


def truth_on_pet(case: Case, pet: sitk.Image) -> sitk.Image | None:
    """Read a case's truth, which must lie on its PET's grid or may be brought onto it; None where there is none.

    Raises
    ------
    GeometryError
        It lies on another grid.
    UserError
        As :func:`read_truth`.
    """
    if case.truth is None:
        return None
    truth = read_truth(case.truth, pet, on_own_grid=case.truth_on_own_grid)
    if not same_geometry(truth, pet):
        raise GeometryError(
            f"the truth {case.truth} ({geometry_text(truth)}) does not lie on the grid of its PET "
            f"({other_geometry_text(pet, truth)})"
        )
    return truth
