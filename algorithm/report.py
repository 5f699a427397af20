"""What a run leaves behind for people: a report in JSON and a picture. Neither is written unless asked for."""

from __future__ import annotations

import dataclasses
import json
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from algorithm.errors import OutputError
from algorithm.files import written_whole
from algorithm.postprocessing import Lesion

BLACK_SUV = 10.0
"""SUV that is drawn black; 0 is white."""

_TUMOUR_RGB = (214, 24, 24)
_LONGER_SIDE = 800  # pixels


@dataclass(frozen=True)
class Geometry:
    """The PET's grid: size in voxels (x, y, z), spacing and origin in mm, direction cosines row by row."""

    size: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    origin_mm: tuple[float, ...]
    direction: tuple[float, ...]

    @classmethod
    def of(cls, image: sitk.Image) -> Geometry:
        """Return the grid of an image."""
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


@dataclass(frozen=True)
class WeightsUsed:
    """A checkpoint by its name and the SHA-256 of its weights file."""

    name: str
    sha256: str


@dataclass(frozen=True)
class RunReport:
    """All that is needed to tell what a run did and to do it again.

    Attributes
    ----------
    software_version : str
    edition : str or None
        AutoPET edition of the job; None outside grand-challenge.
    ct, pet : str
        Input files.
    ct_resampled : bool
        The CT came on another grid than the PET.
    geometry : Geometry
        The PET's, and so the mask's.
    weights : tuple of WeightsUsed
        One per checkpoint of the ensemble.
    device, precision : str
    windows : int
        Sliding windows per pass.
    passes : int
        Passes over the windows that were averaged: flips, the identity included, times checkpoints.
    passes_planned : int
    stopped_because : str
        Why there were no further passes.
    seconds : dict
        Wall-clock time by stage, in the order of the stages.
    peak_host_memory_mib : float
    peak_device_memory_mib : float or None
        None without an accelerator.
    lesions : tuple of Lesion
        Largest first.
    total_volume_ml : float
    notes : tuple of str
        Whatever was done differently than asked, one sentence each.
    """

    software_version: str
    edition: str | None
    ct: str
    pet: str
    ct_resampled: bool
    geometry: Geometry
    weights: tuple[WeightsUsed, ...]
    device: str
    precision: str
    windows: int
    passes: int
    passes_planned: int
    stopped_because: str
    seconds: dict[str, float]
    peak_host_memory_mib: float
    peak_device_memory_mib: float | None
    lesions: tuple[Lesion, ...]
    total_volume_ml: float
    notes: tuple[str, ...] = ()


def peak_host_memory_mib() -> float:
    """Return the largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes on macOS, KiB on Linux


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole; raises OutputError if it cannot be written."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_report(path: Path, report: RunReport) -> None:
    """Write the run report as JSON, with the attributes' names as keys.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    write_json(path, dataclasses.asdict(report))


def write_picture(path: Path, pet: sitk.Image, mask: NDArray[np.uint8]) -> None:
    """Draw the PET's coronal maximum-intensity projection with that of the mask outlined in red.

    The patient stands upright and faces the viewer, right side on the left; pixels are square. SUV 0 is white,
    ``BLACK_SUV`` and above black.

    Parameters
    ----------
    path : Path
        .png
    pet : SimpleITK.Image
        SUV.
    mask : uint8 array, z, y, x
        Tumour on the PET's grid.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    tumour = sitk.GetImageFromArray(mask)
    tumour.CopyInformation(pet)
    grey = 255 * (1 - np.clip(_coronal(pet, sitk.sitkLinear) / BLACK_SUV, 0, 1))
    inside = _coronal(tumour, sitk.sitkNearestNeighbor) > 0
    outline = inside ^ ndimage.binary_erosion(inside, iterations=2)
    pixels = np.repeat(grey.round().astype(np.uint8)[..., None], 3, axis=2)
    pixels[outline] = _TUMOUR_RGB
    with written_whole(path) as temporary:
        try:
            sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(temporary))
        except RuntimeError as error:
            raise OutputError(f"cannot write the picture {path}; name it .png, in a folder with space") from error


def _coronal(image: sitk.Image, interpolator: int) -> NDArray[np.float32]:
    """Project along the front-back axis; rows run from head to foot, columns from the patient's right to left."""
    upright = sitk.DICOMOrient(sitk.Cast(image, sitk.sitkFloat32), "LPS")
    projection = sitk.GetImageFromArray(np.flipud(sitk.GetArrayViewFromImage(upright).max(axis=1)))
    steps_mm = upright.GetSpacing()[0], upright.GetSpacing()[2]
    projection.SetSpacing(steps_mm)
    sides_mm = [side * step for side, step in zip(projection.GetSize(), steps_mm, strict=True)]
    pixel_mm = max(sides_mm) / _LONGER_SIDE
    size = [max(1, round(side / pixel_mm)) for side in sides_mm]
    first_centre = [(pixel_mm - step) / 2 for step in steps_mm]
    square = sitk.Resample(projection, size, sitk.Transform(), interpolator, first_centre, (pixel_mm, pixel_mm))
    return np.asarray(sitk.GetArrayFromImage(square), np.float32)
