"""Reading and checking the PET/CT pair, writing masks; all geometry lives in SimpleITK's images.

SimpleITK knows an image as x, y, z with spacing in mm and origin and direction in the patient's space (LPS);
its arrays are z, y, x.
"""

from __future__ import annotations

import gzip
import io
import itertools
import math
import os
import shutil
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from algorithm.errors import (
    GeometryError,
    InvalidImageError,
    MissingInputError,
    OutputError,
    UnreadableImageError,
    UserError,
)
from algorithm.files import written_whole

AIR_HU = -1024.0
"""CT number outside the CT's field of view, as in AutoPET's resampled CTs."""

MASK_SUFFIXES = (".mha", ".nii.gz")

_HIGHEST_SUV = 5000.0  # tumours of AutoPET reach 393, urine some hundreds; Bq/ml are in the tens of thousands
_LOWEST_SUV = -50.0  # reconstruction filters undershoot by a few; a CT goes down to -1024 HU
_HIGHEST_UPTAKE_LIKE_CT = 100.0  # a CT that stays within [0, 100] HU shows neither air, fat nor bone
_GEOMETRY_TOLERANCE_MM = 0.01  # float32 headers round by less; a voxel is a hundred times larger
_DIRECTION_TOLERANCE = 1e-4

sitk.ProcessObject.SetGlobalWarningDisplay(False)  # any output on stderr flags a grand-challenge job


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
    """

    ct: sitk.Image
    pet: sitk.Image
    ct_path: Path
    pet_path: Path
    ct_resampled: bool


def read_pet_ct(ct_path: Path, pet_path: Path) -> PetCt:
    """Read a CT (HU) and a PET (SUV), check both, and bring the CT onto the PET's grid.

    A CT on another grid is interpolated linearly, with air outside its field of view.

    Raises
    ------
    MissingInputError, UnreadableImageError, InvalidImageError
        As :func:`read_image`; and if the values cannot be SUV or HU.
    GeometryError
        The CT has nothing to show where the PET lies.
    """
    return pair_of(read_image(ct_path, "CT"), read_image(pet_path, "PET"), ct_path, pet_path)


def pair_of(ct: sitk.Image, pet: sitk.Image, ct_path: Path, pet_path: Path) -> PetCt:
    """Check a CT (HU) and a PET (SUV) that were read, and bring the CT onto the PET's grid.

    Parameters
    ----------
    ct, pet : SimpleITK.Image
        3-D, float32. A CT on the PET's grid gets the PET's header: those of one grid may differ in rounding.
    ct_path, pet_path : Path
        Where they came from, for messages: files, or folders of DICOM files.

    Raises
    ------
    InvalidImageError
        The values cannot be SUV or HU.
    GeometryError
        The CT has nothing to show where the PET lies.
    """
    _check_suv(pet, pet_path)
    _check_hu(ct, ct_path)
    resampled = not same_geometry(ct, pet)
    if resampled:
        ct = _onto_grid(ct, pet, ct_path, pet_path)
    ct.CopyInformation(pet)
    return PetCt(ct=ct, pet=pet, ct_path=ct_path, pet_path=pet_path, ct_resampled=resampled)


def read_image(path: Path, what: str) -> sitk.Image:
    """Read one scalar volume.

    Parameters
    ----------
    path : Path
        .mha, .mhd, .nii, .nii.gz, .nrrd, or whatever else SimpleITK reads as a volume.
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
        It cannot be decoded, or is damaged or cut off.
    InvalidImageError
        It is not 3-D, has several components per voxel, or holds values that are not finite.
    """
    image = _squeezed(_decode(path, what))
    if image.GetDimension() != 3:
        raise InvalidImageError(
            f"the {what} must be 3-D, got {_size_text(image)} pixels in {path}; give one volume per file"
        )
    components = image.GetNumberOfComponentsPerPixel()
    if components != 1:
        raise InvalidImageError(
            f"the {what} must have one value per voxel, got {components} in {path}; give a grey-value image"
        )
    if image.GetPixelID() != sitk.sitkFloat32:
        image = sitk.Cast(image, sitk.sitkFloat32)
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
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        with _stderr_captured([]):
            reader.ReadImageInformation()
    except RuntimeError:
        return None
    return reader if reader.GetDimension() == 3 else None


def is_mask_like(path: Path, grid: sitk.ImageFileReader | None) -> bool:
    """Tell by the header whether a file could be a mask of this software: an 8-bit volume in .mha.

    Parameters
    ----------
    path : Path
    grid : SimpleITK.ImageFileReader or None
        Header of the image whose grid the mask must have; None: any grid will do.
    """
    if not path.is_file() or path.suffix != ".mha":
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
    values = np.unique(sitk.GetArrayViewFromImage(image))
    if not np.isin(values, (0, 1)).all():
        strange = ", ".join(f"{value:g}" for value in values[~np.isin(values, (0, 1))][:3])
        raise InvalidImageError(f"a mask holds 0 and 1 only, got {strange} in {path}; make it binary")
    return sitk.Cast(image, sitk.sitkUInt8)


def write_mask(
    mask: NDArray[np.uint8],
    like: sitk.Image,
    path: Path,
    *,
    protect: Sequence[Path] = (),
    instead_of: Sequence[Path] = (),
) -> None:
    """Write a mask with exactly the geometry of another image, compressed and whole.

    The file is read back before it takes its place: on a full disk SimpleITK writes half a .nii.gz in silence.

    Parameters
    ----------
    mask : uint8 array, z, y, x
        Zeros and ones.
    like : SimpleITK.Image
        The PET, whose spacing, origin and direction the mask gets.
    path : Path
        .mha or .nii.gz; the folder is made if need be, an existing file replaced.
    protect : sequence of Path
        Files that must not be overwritten: the case's own images.
    instead_of : sequence of Path
        Masks in the same folder that this one replaces, once it is whole.

    Raises
    ------
    OutputError
        The path is one of ``protect``, has another suffix, or cannot be written.
    """
    if mask.shape != like.GetSize()[::-1] or mask.dtype != np.uint8 or (mask.size and mask.max() > 1):
        raise ValueError(
            f"mask must be uint8 zeros and ones of shape {like.GetSize()[::-1]} (z, y, x), "
            f"got {mask.dtype} of shape {mask.shape}"
        )
    check_mask_path(path, protect=protect)
    image = sitk.GetImageFromArray(mask)
    image.CopyInformation(like)
    with written_whole(path, instead_of=instead_of) as temporary:
        try:
            with _stderr_captured([]):
                sitk.WriteImage(image, str(temporary), useCompression=True)
            stored = sitk.GetArrayFromImage(read_mask(temporary))
        except (RuntimeError, UserError):
            stored = None
        if stored is None or not np.array_equal(stored, mask):
            free = shutil.disk_usage(path.parent).free
            raise OutputError(
                f"the mask {path} could not be stored completely ({free / 2**20:.0f} MiB are free there); "
                "free some space or choose another folder"
            )


def check_mask_path(path: Path, *, protect: Sequence[Path] = ()) -> None:
    """Raise OutputError if a mask cannot have this name: another suffix, or one of the files to ``protect``."""
    if not path.name.endswith(MASK_SUFFIXES):
        raise OutputError(f"a mask is written as {' or '.join(MASK_SUFFIXES)}, got {path.name}; change its suffix")
    if path.exists() and any(other.exists() and path.samefile(other) for other in protect):
        raise OutputError(f"the mask would overwrite its own input {path}; choose another folder or name")


def same_geometry(a: sitk.Image, b: sitk.Image) -> bool:
    """Tell whether two images have the same size and their corners the same places, up to rounding in headers."""
    if a.GetSize() != b.GetSize():
        return False
    corners = list(itertools.product(*((0, side - 1) for side in a.GetSize())))
    places_a, places_b = (np.array([image.TransformIndexToPhysicalPoint(c) for c in corners]) for image in (a, b))
    return bool(np.abs(places_a - places_b).max() < _GEOMETRY_TOLERANCE_MM)


def geometry_text(image: sitk.Image | sitk.ImageFileReader) -> str:
    """Describe the grid of an image or of its header in one phrase, for messages."""

    def numbers(values: Sequence[float], decimals: int) -> str:
        return ", ".join(f"{round(value, decimals) + 0.0:g}" for value in values)

    spacing = "x".join(f"{step:.2f}" for step in image.GetSpacing())
    return (
        f"{_size_text(image)} voxels of {spacing} mm at origin ({numbers(image.GetOrigin(), 2)}), "
        f"direction ({numbers(image.GetDirection(), 4)})"
    )


def _decode(path: Path, what: str) -> sitk.Image:
    """Read an image file, or say why it cannot be read; the pixel type stays as it is stored."""
    if not path.is_file():
        raise MissingInputError(f"there is no {what} image at {path}; check the path")
    complaints: list[str] = []
    damage = ""
    try:
        with path.open("rb") as stream:
            if not stream.read(1):
                raise EOFError("it is empty (0 bytes)")
        with _stderr_captured(complaints):
            reader = sitk.ImageFileReader()
            reader.SetFileName(str(path))
            reader.ReadImageInformation()
            _check_streams(path, reader)
            image = reader.Execute()
        if any("ncompress failed" in line for line in complaints):
            damage = "its compressed data are damaged"
    except OSError as error:
        damage = error.strerror or str(error)
    except (EOFError, zlib.error) as error:
        damage = str(error)
    except RuntimeError as error:
        damage = " ".join(complaints) or _itk_reason(error)
    if damage:
        raise UnreadableImageError(f"cannot read the {what} {path}: {damage}; copy or export it again")
    return image


def _check_streams(path: Path, reader: sitk.ImageFileReader) -> None:
    """Raise EOFError, OSError or zlib.error for damage that ITK passes over in silence.

    ITK leaves what is missing of a NIfTI file as it finds the memory, and ignores gzip's checksum in both NIfTI
    and NRRD. It does notice MetaImages that are too short or do not decompress.
    """
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        expected = int(float(reader.GetMetaData("vox_offset")))
        expected += math.prod(reader.GetSize()) * int(reader.GetMetaData("bitpix")) // 8
        with gzip.open(path) if name.endswith(".gz") else path.open("rb") as stream:
            found = _length(stream)
        if found < expected:
            raise EOFError(f"it is cut off after {found} of {expected} bytes")
    elif name.endswith(".nrrd"):
        with path.open("rb") as stream:
            header = list(iter(lambda: stream.readline().strip().lower(), b""))
            if any(line.startswith(b"encoding:") and line.endswith((b"gzip", b"gz")) for line in header):
                with gzip.GzipFile(fileobj=stream) as data:
                    _length(data)


def _length(stream: io.BufferedIOBase) -> int:
    return sum(len(block) for block in iter(lambda: stream.read(2**20), b""))


@contextmanager
def _stderr_captured(lines: list[str]) -> Iterator[None]:
    """Collect what ITK's C libraries write to file descriptor 2 instead of letting it reach stderr.

    MetaIO reports damaged data there, and there only. A pipe, because a container may have no writable folder for
    a temporary file; it does not block: what exceeds its buffer (64 KiB on Linux) is dropped.
    """
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    sys.stderr.flush()
    stderr = os.dup(2)
    os.dup2(write_end, 2)
    os.close(write_end)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        with os.fdopen(read_end, encoding="utf-8", errors="replace") as caught:
            lines.extend(" ".join(line.split()) for line in caught if line.strip())


def _itk_reason(error: RuntimeError) -> str:
    """Return the last line of ITK's message, which holds its reason."""
    reason = [line.strip() for line in str(error).splitlines() if line.strip()][-1]
    if "Unable to determine ImageIO" in reason:
        return "it is not in an image format that SimpleITK knows"
    return reason.removeprefix("Reason: ")


def _squeezed(image: sitk.Image) -> sitk.Image:
    """Drop a fourth dimension of length 1."""
    size = list(image.GetSize())
    if len(size) != 4 or size[3] != 1:
        return image
    return sitk.Extract(image, [*size[:3], 0], [0, 0, 0, 0], sitk.ExtractImageFilter.DIRECTIONCOLLAPSETOSUBMATRIX)


def _size_text(image: sitk.Image | sitk.ImageFileReader) -> str:
    return "x".join(str(side) for side in image.GetSize())


def _value_range(image: sitk.Image) -> tuple[float, float]:
    """Return the lowest and highest value; NaN if there is a NaN."""
    values = sitk.GetArrayViewFromImage(image)
    return float(values.min()), float(values.max())


def _check_suv(pet: sitk.Image, path: Path) -> None:
    lowest, highest = _value_range(pet)
    if lowest < _LOWEST_SUV:
        raise InvalidImageError(
            f"the PET must be in SUV, got a minimum of {lowest:g} in {path}, which looks like a CT; "
            "check that CT and PET are not swapped"
        )
    if highest > _HIGHEST_SUV:
        raise InvalidImageError(
            f"the PET must be in SUV, got a maximum of {highest:g} in {path}, which looks like Bq/ml; "
            "divide by the injected dose (decay-corrected) per body weight"
        )


def _check_hu(ct: sitk.Image, path: Path) -> None:
    lowest, highest = _value_range(ct)
    if lowest >= 0 and 0 < highest <= _HIGHEST_UPTAKE_LIKE_CT:
        raise InvalidImageError(
            f"the CT must be in HU, got values from {lowest:g} to {highest:g} in {path}, which look like a PET; "
            "give the CT of the same study"
        )


def _onto_grid(ct: sitk.Image, pet: sitk.Image, ct_path: Path, pet_path: Path) -> sitk.Image:
    """Interpolate a CT linearly onto the PET's grid, air outside it."""
    resampled = sitk.Resample(ct, pet, sitk.Transform(), sitk.sitkLinear, AIR_HU, sitk.sitkFloat32)
    if _value_range(resampled)[1] <= AIR_HU:
        raise GeometryError(
            f"CT and PET do not overlap in space: the CT {ct_path} has {geometry_text(ct)}, "
            f"the PET {pet_path} has {geometry_text(pet)}; give two images of one study"
        )
    return resampled
