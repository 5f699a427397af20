"""Reading and checking the PET/CT pair, writing masks; all geometry lives in SimpleITK's images.

SimpleITK knows an image as x, y, z with spacing in mm and origin and direction in the patient's space (LPS);
its arrays are z, y, x.
"""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from algorithm.checks.contract import NO_FINDINGS, Checks, Findings
from algorithm.checks.geometry import check_grid
from algorithm.checks.hu import check_hu
from algorithm.checks.pair import check_pair
from algorithm.checks.suv import check_suv
from algorithm.errors import (
    GeometryError,
    InvalidImageError,
    MissingInputError,
    OutputError,
    ResourceError,
    UnreadableImageError,
    UserError,
)
from algorithm.files import is_same_file, written_whole
from algorithm.formats.stored import AbsentError, FormatError, shown, size_text
from algorithm.formats.volume import decode, header_of, stderr_captured, stored_in
from algorithm.outputs import MASK, MASK_NOTE, check_free

AIR_HU = -1024.0
"""CT number outside the CT's field of view, as in AutoPET's resampled CTs."""

MASK_SUFFIXES = (".mha", ".nii.gz")

_GEOMETRY_TOLERANCE_MM = 0.01  # float32 headers round by less; a voxel is a hundred times larger
_CORNERS_APART = 0.1  # of the smallest spacing: cosines of four decimals move a whole body's corners by less
_SPACINGS_APART = 1e-3  # relative: another voxel size is another grid, however short the volume is
_DIRECTION_TOLERANCE = 1e-4


@dataclass(frozen=True)
class PetCt:
    """One case: CT and PET on the same grid.

    Attributes
    ----------
    ct : SimpleITK.Image
        float32, HU, on the PET's grid.
    pet : SimpleITK.Image
        float32, SUV.
    ct_path, pet_path : Path
        The files they came from.
    ct_resampled : bool
        The CT had another grid and was interpolated onto the PET's.
    findings : Findings
        What the checks of the input contract corrected and noted.
    """

    ct: sitk.Image
    pet: sitk.Image
    ct_path: Path
    pet_path: Path
    ct_resampled: bool
    findings: Findings = NO_FINDINGS


def read_pet_ct(ct_path: Path, pet_path: Path, checks: Checks | None = None) -> PetCt:
    """Read a CT (HU) and a PET (SUV), check both, and bring the CT onto the PET's grid.

    Parameters
    ----------
    ct_path, pet_path : Path
    checks : Checks, optional
        Which checks of the input contract are done; all by default.

    Raises
    ------
    MissingInputError, UnreadableImageError, InvalidImageError, GeometryError
        As :func:`read_image` and :func:`pair_up`.
    """
    return pair_up(*read_both(ct_path, pet_path), ct_path, pet_path, checks)


def read_both(ct_path: Path, pet_path: Path) -> tuple[sitk.Image, sitk.Image]:
    """Read a CT and a PET at the same time, as :func:`read_image` does; of two mistakes the CT's is told."""
    with ThreadPoolExecutor(1, "read") as second:
        pet = second.submit(read_image, pet_path, "PET")
        return read_image(ct_path, "CT"), pet.result()


def pair_up(ct: sitk.Image, pet: sitk.Image, ct_path: Path, pet_path: Path, checks: Checks | None = None) -> PetCt:
    """Check a CT and a PET, wherever they came from, and bring the CT onto the PET's grid.

    A CT on another grid is interpolated linearly, with air outside its field of view.

    Parameters
    ----------
    ct, pet : SimpleITK.Image
        float32; HU and SUV.
    ct_path, pet_path : Path
        What they are called in messages.
    checks : Checks, optional
        Which checks of the input contract are done; all by default.

    Raises
    ------
    InvalidImageError
        A grid or values are not what the input contract (:mod:`algorithm.checks.contract`) asks for.
    GeometryError
        CT and PET do not show the same body at the same place.
    """
    checks = checks or Checks()
    findings = [checks.findings]
    for image, what, path in ((pet, "PET", pet_path), (ct, "CT", ct_path)):
        findings.append(check_grid(image, what, path, checks))
    findings.append(check_suv(pet, pet_path, checks))
    ct, found = check_hu(ct, ct_path, checks)
    findings.append(found)
    resampled = ct.GetSize() != pet.GetSize() or corners_apart_mm(ct, pet) >= _GEOMETRY_TOLERANCE_MM
    if resampled:
        ct = _onto_grid(ct, pet, ct_path, pet_path)
    ct.CopyInformation(pet)
    findings.append(check_pair(ct, pet, ct_path, pet_path, checks))
    return PetCt(ct, pet, ct_path, pet_path, resampled, Findings.of(findings))


def read_image(path: Path, what: str) -> sitk.Image:
    """Read one scalar volume.

    Parameters
    ----------
    path : Path
        .mha, .mhd, .nii, .nii.gz, .hdr with .img, .nrrd or .nhdr.
    what : str
        What the image is called in messages: "CT", "PET", "mask".

    Returns
    -------
    SimpleITK.Image
        3-D, float32; a fourth dimension of length 1 is dropped.

    Raises
    ------
    MissingInputError
        There is no such file.
    UnreadableImageError
        It is no regular file, cannot be decoded, or is damaged, or its header is wrong about the data's length.
    InvalidImageError
        It is not 3-D, has several components per voxel, or holds values that are not finite.
    """
    image = _decode(path, what, np.dtype(np.float32))
    lowest, highest = _value_range(image)
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise InvalidImageError(
            f"the {what} must be finite, got values from {lowest} to {highest} in {path}; export the image again"
        )
    return image


def read_header(path: Path) -> sitk.ImageFileReader | None:
    """Read an image's size and geometry, but none of its voxels.

    Returns
    -------
    SimpleITK.ImageFileReader or None
        It answers ``GetSize``, ``GetSpacing``, ``GetOrigin`` and ``GetDirection``. None: the file cannot be read
        or is no volume; :func:`read_image` says why.
    """
    try:
        stored = stored_in(path)
        header = header_of(path, stored)
    except (FormatError, OSError):
        return None
    return header if header.GetDimension() == 3 and min(stored.size) > 0 else None


def is_mask_like(path: Path, grid: sitk.ImageFileReader | None) -> bool:
    """Tell by the header whether a file is a mask of this software on a grid: an 8-bit volume in .mha.

    Parameters
    ----------
    path : Path
    grid : SimpleITK.ImageFileReader or None
        Header of the image whose grid the mask must have; None: any grid will do.
    """
    if path.suffix != ".mha" or not MASK.is_earlier(path):
        return False
    header = read_header(path)
    if header is None or header.GetPixelID() != sitk.sitkUInt8 or header.GetNumberOfComponents() != 1:
        return False
    return grid is None or (
        header.GetSize() == grid.GetSize()
        and np.allclose(header.GetSpacing(), grid.GetSpacing(), atol=_GEOMETRY_TOLERANCE_MM)
        and np.allclose(header.GetOrigin(), grid.GetOrigin(), atol=_GEOMETRY_TOLERANCE_MM)
        and np.allclose(header.GetDirection(), grid.GetDirection(), atol=_DIRECTION_TOLERANCE)
    )


def read_mask(path: Path) -> sitk.Image:
    """Read a mask: a volume of zeros and ones.

    Returns
    -------
    SimpleITK.Image
        3-D, uint8.

    Raises
    ------
    MissingInputError, UnreadableImageError, InvalidImageError
        As :func:`read_image`; and if there is a value other than 0 and 1.
    """
    image = read_image(path, "mask")
    view = sitk.GetArrayViewFromImage(image)
    if not ((view == 0) | (view == 1)).all():
        strange = ", ".join(f"{value:g}" for value in np.unique(view[(view != 0) & (view != 1)])[:3])
        raise InvalidImageError(f"a mask holds 0 and 1 only, got {strange} in {path}; make it binary")
    return sitk.Cast(image, sitk.sitkUInt8)


def write_mask(
    mask: NDArray[np.uint8],
    like: sitk.Image,
    path: Path,
    *,
    protect: Sequence[Path] = (),
    instead_of: Sequence[Path] = (),
    staging: Path | None = None,
) -> None:
    """Write a mask with the geometry of another image, as exactly as the format can, compressed and whole.

    The file is read back before it takes its place: on a full disk SimpleITK writes half a .nii.gz in silence.

    Parameters
    ----------
    mask : uint8 array, z, y, x
        Zeros and ones.
    like : SimpleITK.Image
        The PET, whose spacing, origin and direction the mask gets.
    path : Path
        .mha or .nii.gz; the folder is made if need be, an earlier mask of this software replaced.
    protect : sequence of Path
        Files that must not be overwritten: the case's own images.
    instead_of : sequence of Path
        Masks in the same folder that this one replaces, once it is whole.
    staging : Path, optional
        As :func:`algorithm.files.written_whole` takes it.

    Raises
    ------
    OutputError
        The path is one of ``protect``, has another suffix, cannot be written, or something else lies there.
    """
    if mask.shape != like.GetSize()[::-1] or mask.dtype != np.uint8 or (mask.size and mask.max() > 1):
        raise ValueError(
            f"mask must be uint8 zeros and ones of shape {like.GetSize()[::-1]} (z, y, x), "
            f"got {mask.dtype} of shape {mask.shape}"
        )
    check_mask_path(path, protect=protect)
    check_free(path, MASK)
    image = sitk.GetImageFromArray(mask)
    image.CopyInformation(like)
    image.SetMetaData("ITK_FileNotes", MASK_NOTE)
    with written_whole(path, instead_of=instead_of, staging=staging) as temporary:
        try:
            with stderr_captured([]):
                sitk.WriteImage(image, str(temporary), useCompression=True)
            stored = _decode(temporary, "mask")
        except (RuntimeError, UserError):
            stored = None
        if stored is None or not np.array_equal(sitk.GetArrayViewFromImage(stored), mask):
            free = shutil.disk_usage(path.parent).free
            raise OutputError(
                f"the mask {path} could not be stored completely ({free / 2**20:.0f} MiB are free there); "
                "free some space or choose another folder"
            )


def check_mask_path(path: Path, *, protect: Sequence[Path] = ()) -> None:
    """Raise OutputError if a mask cannot have this name: another suffix, or one of the files to ``protect``."""
    try:
        str(path.absolute()).encode("utf-8")
    except UnicodeEncodeError:
        raise OutputError(f"a mask's path must be valid UTF-8, got {shown(path)}; choose another") from None
    if not path.name.endswith(MASK_SUFFIXES):
        raise OutputError(f"a mask is written as {' or '.join(MASK_SUFFIXES)}, got {path.name}; change its suffix")
    if any(is_same_file(path, other) for other in protect):
        raise OutputError(f"the mask would overwrite its own input {path}; choose another folder or name")


def foreign_label(image: sitk.Image, most: int) -> float | None:
    """Return the first value of a label map that is no whole number from 0 to ``most``; None where all are."""
    values = sitk.GetArrayViewFromImage(image)
    with np.errstate(invalid="ignore"):  # what no byte can hold differs from what the cast makes of it
        labels = values.astype(np.uint8)
    foreign = values[(labels != values) | (labels > most)]
    return float(foreign[0]) if foreign.size else None


def same_geometry(a: sitk.Image, b: sitk.Image) -> bool:
    """Tell whether two images have the same grid, up to rounding in headers.

    Sizes are equal, voxels too up to a thousandth, and corners lie at the same places up to a tenth of a voxel.
    NIfTI has axes at right angles only, so that a grid with rounded cosines is stored as the nearest such grid.
    """
    if a.GetSize() != b.GetSize() or not np.allclose(a.GetSpacing(), b.GetSpacing(), rtol=_SPACINGS_APART, atol=0):
        return False
    smallest = float(min(*a.GetSpacing(), *b.GetSpacing()))
    return corners_apart_mm(a, b) < _CORNERS_APART * smallest


def corners_apart_mm(a: sitk.Image, b: sitk.Image) -> float:
    """Return the largest distance in mm between the same corner of two grids of one size."""
    corners = list(itertools.product(*((0, side - 1) for side in a.GetSize())))
    places_a, places_b = (np.array([image.TransformIndexToPhysicalPoint(c) for c in corners]) for image in (a, b))
    return float(np.linalg.norm(places_a - places_b, axis=1).max())


def geometry_text(image: sitk.Image | sitk.ImageFileReader) -> str:
    """Describe the grid of an image or of its header in one phrase, for messages."""

    def numbers(values: Sequence[float], decimals: int) -> str:
        return ", ".join(f"{round(value, decimals) + 0.0:g}" for value in values)

    spacing = "x".join(f"{step:.2f}" for step in image.GetSpacing())
    return (
        f"{size_text(image.GetSize())} voxels of {spacing} mm at origin ({numbers(image.GetOrigin(), 2)}), "
        f"direction ({numbers(image.GetDirection(), 4)})"
    )


def other_geometry_text(image: sitk.Image, other: sitk.Image) -> str:
    """Describe the grid of an image after that of another; where both read alike, say how far they are apart."""
    text = geometry_text(image)
    if text != geometry_text(other):
        return text
    return f"{text}, its corners up to {corners_apart_mm(image, other):.2g} mm away"


def _decode(path: Path, what: str, dtype: np.dtype[np.generic] | None = None) -> sitk.Image:
    """Read an image file, or say why it cannot be read; without a ``dtype`` the type stays as it is stored."""
    try:
        stored = stored_in(path)
        size = size_text(stored.size)
        if len(stored.size) != 3 and (len(stored.size) != 4 or stored.size[3] != 1):
            raise InvalidImageError(
                f"the {what} must be 3-D, got {size} pixels in {shown(path)}; give one volume per file"
            )
        if stored.components != 1:
            raise InvalidImageError(
                f"the {what} must have one value per voxel, got {stored.components} in {shown(path)}; "
                "give a grey-value image"
            )
        return decode(path, stored, dtype)
    except AbsentError as error:
        raise MissingInputError(
            f"there is no {what} image at {shown(path)}{error.reason and ': '}{error.reason}; {error.advice}"
        ) from error
    except FormatError as error:
        raise UnreadableImageError(
            f"cannot read the {what} {shown(path)}: {error.reason}; {error.advice}"
        ) from error
    except OSError as error:
        raise UnreadableImageError(
            f"cannot read the {what} {shown(path)}: {error.strerror or error}; make it readable or give another"
        ) from error
    except MemoryError as error:
        raise ResourceError(
            f"there is not enough memory for the {what} {shown(path)} of {size} voxels; "
            "give more memory or crop the image"
        ) from error


def _value_range(image: sitk.Image) -> tuple[float, float]:
    """Return the lowest and highest value; NaN if there is a NaN."""
    values = sitk.GetArrayViewFromImage(image)
    return float(values.min()), float(values.max())


def _onto_grid(ct: sitk.Image, pet: sitk.Image, ct_path: Path, pet_path: Path) -> sitk.Image:
    """Interpolate a CT linearly onto the PET's grid, air outside it."""
    resampled = sitk.Resample(ct, pet, sitk.Transform(), sitk.sitkLinear, AIR_HU, sitk.sitkFloat32)
    if _value_range(resampled)[1] <= AIR_HU:
        raise GeometryError(
            f"CT and PET do not overlap in space: the CT {shown(ct_path)} has {geometry_text(ct)}, "
            f"the PET {shown(pet_path)} has {geometry_text(pet)}; give two images of one study"
        )
    return resampled
