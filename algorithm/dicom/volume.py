"""From a series to an image: pixels decoded and scaled slice by slice, geometry from the headers.

pydicom decodes; compressed transfer syntaxes (JPEG, JPEG lossless, JPEG-LS, JPEG 2000, RLE) through GDCM's
plug-in.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from algorithm.dicom.headers import Header, number, numbers, pydicom_module, text
from algorithm.dicom.series import Series
from algorithm.dicom.stack import Slice, slice_step
from algorithm.errors import InstallationError, InvalidImageError, UnreadableImageError
from algorithm.images import AIR_HU

_HU_TYPES = ("", "HU", "HU_MOD", "US")
"""RescaleType (0028,1054) of CT numbers; US is "unspecified". Dual-energy maps have others (PS3.3 C.11.1.1.2)."""


def read_ct_volume(series: Series) -> sitk.Image:
    """Read a CT series in HU.

    HU = stored value x RescaleSlope (0028,1053) + RescaleIntercept (0028,1052), per slice (PS3.3 C.11.1). Padding
    (PixelPaddingValue 0028,0120, with PixelPaddingRangeLimit 0028,0121 a range; PS3.3 C.7.5.1.1.2) and whatever
    lies below air become -1024 HU.

    Parameters
    ----------
    series : Series
        A stack without a problem.

    Returns
    -------
    SimpleITK.Image
        float32, HU, on the series' own grid.

    Raises
    ------
    InvalidImageError
        The slices make no volume, or one has no rescale slope or intercept, so that its values are not HU.
    UnreadableImageError
        Pixels are damaged.
    InstallationError
        No decoder for the transfer syntax is installed.
    """
    check_stack(series)
    kind = text(series.header, "RescaleType").upper()
    if kind not in _HU_TYPES:
        raise InvalidImageError(
            f"the CT must be in HU, got RescaleType {kind} in {series}; give another series of the study"
        )
    slopes = np.array([_rescale(piece, "RescaleSlope", "CT", "HU") for piece in series.slices])
    if slopes.min() <= 0:
        wrong = int(slopes.argmin())
        raise InvalidImageError(
            f"the CT slice {series.slices[wrong].path} must have a RescaleSlope above 0, got {slopes[wrong]:g}; "
            "export the series again"
        )
    intercepts = np.array([_rescale(piece, "RescaleIntercept", "CT", "HU") for piece in series.slices])
    image = _read(series, slopes, intercepts, padding=AIR_HU)
    values = sitk.GetArrayViewFromImage(image)
    return sitk.Maximum(image, AIR_HU) if values.min() < AIR_HU else image


def read_pet_volume(series: Series, factors: NDArray[np.float64]) -> sitk.Image:
    """Read a PET series and multiply each slice by its factor.

    Parameters
    ----------
    series : Series
        A stack without a problem.
    factors : float array, one per slice
        From stored value to SUV. Padding becomes 0.

    Returns
    -------
    SimpleITK.Image
        float32, stored value x factor, on the series' own grid.

    Raises
    ------
    InvalidImageError, UnreadableImageError, InstallationError
        As :func:`read_ct_volume`.
    """
    check_stack(series)
    return _read(series, factors, np.zeros(len(factors)), padding=0.0)


def empty_volume(series: Series) -> sitk.Image:
    """Return zeros, float32, on a series' own grid; no pixel is read.

    Raises
    ------
    InvalidImageError
        The slices make no volume.
    """
    check_stack(series)
    rows, columns = (int(number(series.header, side) or 0) for side in ("Rows", "Columns"))
    return _placed(sitk.Image((columns, rows, len(series.slices)), sitk.sitkFloat32), series)


def check_stack(series: Series) -> None:
    """Raise InvalidImageError, with the reason, where a series makes no volume."""
    if series.problem:
        raise InvalidImageError(
            f"{series} cannot be used: {series.problem}; export it again as one static volume, "
            "or give another series"
        )
    if numbers(series.header, "PixelSpacing", 2) is None:
        raise InvalidImageError(f"{series} has no PixelSpacing, so its size is unknown; export the series again")


def voxel_volume_ml(series: Series) -> float:
    """Return the volume of a voxel, from the distances of pixels and of slices."""
    row_step, column_step = numbers(series.header, "PixelSpacing", 2) or (0.0, 0.0)
    return row_step * column_step * slice_step(series.slices, series.normal) / 1000.0


def _rescale(piece: Slice, keyword: str, what: str, unit: str) -> float:
    value = number(piece.header, keyword)
    if value is None:
        raise InvalidImageError(
            f"the {what} slice {piece.path} has no {keyword}, so its values are not {unit}; "
            "export the series again"
        )
    return value


def _read(
    series: Series, slopes: NDArray[np.float64], intercepts: NDArray[np.float64], *, padding: float
) -> sitk.Image:
    rows, columns = (int(number(series.header, side) or 0) for side in ("Rows", "Columns"))
    values = np.empty((len(series.slices), rows, columns), np.float32)
    for index, stored in _stored_slices(series.slices):
        if stored.shape != (rows, columns):
            raise UnreadableImageError(
                f"the slice {series.slices[index].path} must have {rows}x{columns} pixels, got {stored.shape}; "
                "export the series again"
            )
        values[index] = stored
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
            if slopes[index] != 1.0:
                values[index] *= np.float32(slopes[index])
            if intercepts[index]:
                values[index] += intercepts[index]
        padded = _padded(stored, series.slices[index].header)
        if padded is not None:
            values[index][padded] = padding
    lowest, highest = float(values.min()), float(values.max())
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise InvalidImageError(
            f"{series} must have finite values, got {lowest:g} to {highest:g}; export the series again"
        )
    return _placed(sitk.GetImageFromArray(values), series)


def _placed(image: sitk.Image, series: Series) -> sitk.Image:
    """Give an image, in place, the geometry of a series; return it."""
    row_step, column_step = numbers(series.header, "PixelSpacing", 2) or (1.0, 1.0)
    image.SetSpacing((column_step, row_step, slice_step(series.slices, series.normal)))
    image.SetOrigin(series.slices[0].position)
    axes = np.column_stack([series.orientation[:3], series.orientation[3:], series.normal])
    image.SetDirection(axes.ravel().tolist())
    return image


def _stored_slices(slices: tuple[Slice, ...]) -> Iterator[tuple[int, NDArray[np.integer[Any]]]]:
    """Yield each slice's index and stored values, y, x; each file is read once."""
    by_file: dict[Path, list[int]] = {}
    for index, piece in enumerate(slices):
        by_file.setdefault(piece.path, []).append(index)
    for path, indices in by_file.items():
        pixels = _stored_values(path)
        for index in indices:
            yield index, pixels[slices[index].frame]


def _stored_values(path: Path) -> NDArray[np.integer[Any]]:
    """Decode one file: frames, y, x."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            stored = pydicom_module().dcmread(path, force=True)
            _choose_decoder(stored)
            pixels: NDArray[np.integer[Any]] = stored.pixel_array
        except Exception as error:  # every decoder has its own kinds
            raise _unreadable(path, error) from error
    if pixels.ndim == 2:
        pixels = pixels[np.newaxis]
    return _without_unused_bits(pixels, stored, path)


def _choose_decoder(stored: Header) -> None:
    """Let GDCM decode where it can: it refuses damaged streams from which other decoders make wrong pixels."""
    pydicom = pydicom_module()
    syntax = getattr(stored.file_meta, "TransferSyntaxUID", None)
    if syntax is None:  # written before Part 10 files: it has no meta information
        implicit, _ = stored.original_encoding
        syntax = pydicom.uid.ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian
        stored.file_meta.TransferSyntaxUID = syntax
    if syntax.is_compressed and "gdcm" in pydicom.pixels.get_decoder(syntax).available_plugins:
        stored.pixel_array_options(decoding_plugin="gdcm")


def _without_unused_bits(pixels: NDArray[np.integer[Any]], header: Header, path: Path) -> NDArray[np.integer[Any]]:
    """Clear what old overlays keep in the bits above BitsStored (0028,0101), and extend the sign."""
    stored = int(number(header, "BitsStored") or 0)
    high = number(header, "HighBit")
    if pixels.dtype.kind in "iu" and stored and high is not None and high != stored - 1:
        raise InvalidImageError(
            f"the pixels of {path} must end at bit {stored - 1}, as {stored} are stored, got HighBit {high:g}; "
            "export the series again"
        )
    unused = pixels.dtype.itemsize * 8 - stored
    if pixels.dtype.kind not in "iu" or not stored or unused <= 0:
        return pixels
    shift = pixels.dtype.type(unused)
    cleared: NDArray[np.integer[Any]] = (pixels << shift) >> shift
    return cleared


def _padded(stored: NDArray[np.integer[Any]], header: Header) -> NDArray[np.bool_] | None:
    """Tell which pixels are padding; None where the header names none."""
    limits = [number(header, keyword) for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if limits[0] is None or stored.dtype.kind not in "iu":
        return None
    ends = [_as_stored(limit, stored.dtype) for limit in limits if limit is not None]
    mask: NDArray[np.bool_] = (stored >= min(ends)) & (stored <= max(ends))
    return mask


def _as_stored(value: float, kind: np.dtype[np.integer[Any]]) -> int:
    """Bring a padding value into the pixels' range: its own VR may have the other sign."""
    bits: int = kind.itemsize * 8
    whole: int = int(value) & ((1 << bits) - 1)
    return whole - (1 << bits) if kind.kind == "i" and whole >> (bits - 1) else whole


def _unreadable(path: Path, error: Exception) -> UnreadableImageError | InstallationError:
    reason = " ".join(str(error).split()) or type(error).__name__
    if "missing dependencies" in reason:
        pydicom = pydicom_module()
        syntax = text(pydicom.dcmread(path, stop_before_pixels=True).file_meta, "TransferSyntaxUID")
        return InstallationError(
            f"no decoder for the compression of {path} ({pydicom.uid.UID(syntax).name}) is installed; run "
            "`pip install -r requirements-clinic.txt`"
        )
    return UnreadableImageError(f"cannot read the pixels of {path}: {reason}; export the series again")
