"""CT, PET and lesions for the viewer: small enough to travel in the page, in one common grid."""

from __future__ import annotations

import base64
import gzip
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from algorithm.clinic.pictures import Upright
from algorithm.images import AIR_HU

_MOST_VOXELS = 5_000_000
_COARSER = 1.15
_HU_STEP = 8.0
_LABELS = 1002  # NIFTI_INTENT_LABEL: the viewer draws outlines around such
_TOP_SUV_SHOWN = 25.5  # 0.1 per step; hotter voxels are shown as this


@dataclass(frozen=True)
class Volumes:
    """Three NIfTI files (.nii.gz) in base64, on one grid.

    Attributes
    ----------
    ct, pet, lesions : str
    voxel_mm : float
        Side of their cubic voxels.
    top_suv : float
        The PET's values end here.
    """

    ct: str
    pet: str
    lesions: str
    voxel_mm: float
    top_suv: float


@dataclass(frozen=True)
class _Bytes:
    """A uint8 image whose bytes stand for ``lowest + step * byte``, with NIfTI's intent code."""

    image: sitk.Image
    step: float
    lowest: float
    intent: int


def volumes_for_viewer(case: Upright, ct: sitk.Image, most_bytes: int) -> Volumes:
    """Resample the patient's box to cubic voxels, as fine as the PET if there is room, and pack it.

    CT in steps of 8 HU, PET in steps of 0.1 SUV, so that both fit into a byte. Every lesion keeps at least
    a voxel.

    Parameters
    ----------
    case : Upright
    ct : SimpleITK.Image
        HU, on any grid.
    most_bytes : int
        Room for the three volumes in base64.
    """
    size_mm = [
        (part.stop - part.start) * side for part, side in zip(case.box[::-1], case.pet.GetSpacing(), strict=True)
    ]
    voxel_mm = max(min(case.pet.GetSpacing()), float(np.prod(size_mm) / _MOST_VOXELS) ** (1 / 3))
    while True:
        grid = _cubic(case, size_mm, voxel_mm)
        packed = [_pack(_ct(ct, grid)), _pack(_pet(case.pet, grid)), _pack(_lesions(case, grid))]
        if sum(len(each) for each in packed) * 4 / 3 <= most_bytes:
            ct_file, pet_file, lesion_file = (base64.b64encode(each).decode("ascii") for each in packed)
            return Volumes(ct_file, pet_file, lesion_file, voxel_mm, _TOP_SUV_SHOWN)
        voxel_mm *= _COARSER


def _cubic(case: Upright, size_mm: list[float], voxel_mm: float) -> sitk.Image:
    """Return an empty grid of cubic voxels over the patient's box."""
    first = [
        part.start - 0.5 + voxel_mm / side / 2
        for part, side in zip(case.box[::-1], case.pet.GetSpacing(), strict=True)
    ]
    grid = sitk.Image([max(1, round(each / voxel_mm)) for each in size_mm], sitk.sitkUInt8)
    grid.SetSpacing((voxel_mm,) * 3)
    grid.SetDirection(case.pet.GetDirection())
    grid.SetOrigin(case.pet.TransformContinuousIndexToPhysicalPoint(first))
    return grid


def _ct(ct: sitk.Image, grid: sitk.Image) -> _Bytes:
    hu = sitk.Resample(ct, grid, sitk.Transform(), sitk.sitkLinear, AIR_HU, sitk.sitkFloat32)
    return _bytes(hu, _HU_STEP, AIR_HU)


def _pet(pet: sitk.Image, grid: sitk.Image) -> _Bytes:
    suv = sitk.Resample(pet, grid, sitk.Transform(), sitk.sitkLinear, 0.0)
    return _bytes(suv, _TOP_SUV_SHOWN / 255, 0.0)


def _lesions(case: Upright, grid: sitk.Image) -> _Bytes:
    """Return the lesions as 1 on the grid; the voxel nearest to a lesion's middle is always set."""
    mask = np.zeros(case.suv.shape, np.uint8)
    for voxels in case.places:
        mask[tuple(voxels.T)] = 1
    image = sitk.GetImageFromArray(mask)
    image.CopyInformation(case.pet)
    small = sitk.Resample(image, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    for voxels in case.places:
        middle = voxels[len(voxels) // 2]
        at = grid.TransformPhysicalPointToIndex(case.pet.TransformIndexToPhysicalPoint(middle[::-1].tolist()))
        small[[min(max(each, 0), side - 1) for each, side in zip(at, grid.GetSize(), strict=True)]] = 1
    return _Bytes(small, 1.0, 0.0, _LABELS)


def _bytes(image: sitk.Image, step: float, lowest: float) -> _Bytes:
    values: NDArray[np.float32] = (sitk.GetArrayViewFromImage(image) - lowest) / step
    result = sitk.GetImageFromArray(np.clip(np.rint(values), 0, 255).astype(np.uint8))
    result.CopyInformation(image)
    return _Bytes(result, step, lowest, 0)


def _pack(volume: _Bytes) -> bytes:
    """Return a .nii.gz with scl_slope, scl_inter and intent_code, at their places in the header of NIfTI-1."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "volume.nii"
        sitk.WriteImage(volume.image, str(path))
        content = bytearray(path.read_bytes())
    struct.pack_into("<h", content, 68, volume.intent)
    struct.pack_into("<ff", content, 112, volume.step, volume.lowest)
    return gzip.compress(bytes(content), compresslevel=5, mtime=0)
