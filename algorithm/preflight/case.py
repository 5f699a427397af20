"""A job of the size that the platform's have, made of the example."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from algorithm.errors import MissingInputError
from algorithm.images import AIR_HU
from algorithm.sockets import CT_FOLDER, PET_FOLDER, find_job

SIZE = (400, 400, 326)  # voxels of a whole body in AutoPET, x, y, z
SPACING_MM = (2.036, 2.036, 3.0)
_NO_UPTAKE = 0.0


def enlarge(source: Path, target: Path) -> None:
    """Make a job whose images are as large as AutoPET's from a smaller job.

    The body is repeated, mirrored at its ends, to the length of a whole one and lies in the middle of a
    field of air. That is **synthetic**: the amount of work is real, the anatomy is not.

    Parameters
    ----------
    source : Path
        Folder like ``/input``.
    target : Path
        Folder like ``/input``, which is made.

    Raises
    ------
    MissingInputError
        ``source`` holds no job.
    """
    job = find_job(source, target / "nothing")
    for path, folder, air in ((job.ct, CT_FOLDER, AIR_HU), (job.pet, PET_FOLDER, _NO_UPTAKE)):
        image = _repeated(sitk.ReadImage(str(path)))
        place = target / folder / path.name
        place.parent.mkdir(parents=True)
        sitk.WriteImage(_in_field(image, air), str(place))


def copy_job(source: Path, target: Path) -> None:
    """Copy a job's inputs and let every user read them: the container's user is none of this machine's."""
    if not source.is_dir():
        raise MissingInputError(f"there is no folder {source} with a job to try; name one with --input")
    shutil.copytree(source, target, dirs_exist_ok=True)
    for path in [target, *target.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def _repeated(image: sitk.Image) -> sitk.Image:
    """Repeat an image along z, mirrored at its ends, to the length of a whole body."""
    missing = max(0, round(SIZE[2] * SPACING_MM[2] / image.GetSpacing()[2]) - image.GetSize()[2])
    array = np.pad(sitk.GetArrayViewFromImage(image), ((0, missing), (0, 0), (0, 0)), mode="symmetric")
    longer = sitk.GetImageFromArray(array)
    longer.SetSpacing(image.GetSpacing())
    longer.SetOrigin(image.GetOrigin())
    longer.SetDirection(image.GetDirection())
    return longer


def _in_field(image: sitk.Image, air: float) -> sitk.Image:
    """Resample an image onto the grid of AutoPET, its centre in the middle of the field."""
    grid = sitk.Image(SIZE, image.GetPixelID())
    grid.SetSpacing(SPACING_MM)
    grid.SetDirection(image.GetDirection())
    offset = np.subtract(_centre(image), _centre(grid))
    grid.SetOrigin(tuple(float(value) for value in offset))
    return sitk.Resample(image, grid, sitk.Transform(), sitk.sitkLinear, air)


def _centre(image: sitk.Image) -> tuple[float, ...]:
    middle = [(side - 1) / 2 for side in image.GetSize()]
    return tuple(image.TransformContinuousIndexToPhysicalPoint(middle))
