"""A folder with one PET to one image in SUV: what ``python -m algorithm suv`` does."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from algorithm.dicom.reckoning import SuvOverrides
from algorithm.dicom.study import DicomPet, read_pet
from algorithm.errors import OutputError
from algorithm.files import check_writable, written_whole

SUFFIXES = (".nii.gz", ".nii", ".mha", ".nrrd")


def convert(
    folder: Path,
    out: Path,
    overrides: SuvOverrides | None = None,
    say: Callable[[str], None] = print,
    *,
    series: str | None = None,
) -> DicomPet:
    """Convert the PET in a DICOM folder to SUVbw, write it, and print the reckoning.

    Parameters
    ----------
    folder : Path
        With one PET series that can be used, or ``series`` naming it.
    out : Path
        .nii.gz, .nii, .mha or .nrrd; must not exist.
    overrides : SuvOverrides, optional
        What the user supplies in place of the headers.
    say : callable
        Gets one sentence per call.
    series : str, optional
        SeriesInstanceUID.

    Returns
    -------
    DicomPet
        What was written.

    Raises
    ------
    OutputError
        The suffix is another, a file is there already, or it cannot be written.
    UserError
        As :func:`algorithm.dicom.study.read_pet`.
    """
    if not out.name.lower().endswith(SUFFIXES):
        raise OutputError(f"the SUV image is written as {', '.join(SUFFIXES)}, got {out.name}; change its suffix")
    if out.exists():
        raise OutputError(f"{out} exists already; remove it or choose another name")
    check_writable(out)
    pet = read_pet(folder, series=series, overrides=overrides, say=say)
    _write(pet.image, out)
    say(f"PET {pet.series}")
    for sentence in (*pet.reckoning.sentences(), *(f"Note: {note}." for note in pet.notes)):
        say(sentence)
    values = sitk.GetArrayViewFromImage(pet.image)
    size = "x".join(str(side) for side in pet.image.GetSize())
    say(f"Wrote {out}: {size} voxels, SUVbw {values.min():.4g} to {values.max():.4g}.")
    return pet


def _write(image: sitk.Image, out: Path) -> None:
    """Write whole, and read back: on a full disk SimpleITK writes half a file in silence."""
    with written_whole(out) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
            stored = sitk.GetArrayFromImage(sitk.ReadImage(str(temporary)))
        except RuntimeError:
            stored = None
        if stored is None or not np.array_equal(stored, sitk.GetArrayViewFromImage(image)):
            free = shutil.disk_usage(out.parent).free
            raise OutputError(
                f"{out} could not be stored completely ({free / 2**20:.0f} MiB are free there); free some space "
                "or choose another folder"
            )
