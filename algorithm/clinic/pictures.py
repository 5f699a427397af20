"""The report's pictures: PNG pixels from SimpleITK, outlines and numbers as vector paths over them."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from algorithm.images import AIR_HU

TOP_SUV = 10.0
"""SUV at the upper end of the grey and of the colour scale."""

CT_WINDOW_HU = (-160.0, 240.0)
"""Soft tissue: level 40, width 400."""

_BODY_SUV = 0.5  # where a projection shows the patient and no longer the air's noise
_MARGIN_MM = 15.0
_PIXEL_MM = 0.8  # of the fused slices
_WINDOW_MM = (240.0, 180.0)  # width and height of a fused slice; more where the lesion needs it
_AROUND_MM = 40.0  # at least shown on every side of the lesion
_OPAQUE_SUV = 4.0  # from here on the PET covers the CT by _COVER
_COVER = 0.75


@dataclass(frozen=True)
class Outline:
    """One lesion in one picture; lengths in mm from the picture's upper left corner.

    Attributes
    ----------
    number : int
    path : str
        SVG path along the borders of the lesion's pixels.
    area : str
        SVG path of the same pixels, closed, for pointing at.
    box : four floats
        Left, top, right, bottom.
    """

    number: int
    path: str
    area: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Picture:
    """Pixels with outlines over them.

    Attributes
    ----------
    png : str
        data: URL.
    width_mm, height_mm : float
    outlines : tuple of Outline
    slice_mm : float or None
        Of an axial slice: its height in the patient's space (superior).
    """

    png: str
    width_mm: float
    height_mm: float
    outlines: tuple[Outline, ...]
    slice_mm: float | None = None


@dataclass(frozen=True)
class Upright:
    """PET and lesions with their axes along left, posterior, superior, as near as the grid allows.

    Attributes
    ----------
    pet : SimpleITK.Image
        SUV.
    suv : float32 array, z, y, x
        A view of its pixels.
    places : tuple of int arrays, shape (voxels, 3), z, y, x
        The voxels of lesion 1, 2, ...
    box : three slices, z, y, x
        The patient with a margin.
    """

    pet: sitk.Image
    suv: NDArray[np.float32]
    places: tuple[NDArray[np.intp], ...]
    box: tuple[slice, slice, slice]

    @classmethod
    def of(cls, pet: sitk.Image, labels: NDArray[np.int32]) -> Upright:
        """Turn PET and labels (z, y, x, on its grid) upright.

        Raises
        ------
        ValueError
            PET and labels differ in size.
        """
        image = sitk.GetImageFromArray(labels)
        image.CopyInformation(pet)
        turned = sitk.GetArrayFromImage(sitk.DICOMOrient(image, "LPS"))
        upright = sitk.DICOMOrient(sitk.Cast(pet, sitk.sitkFloat32), "LPS")
        suv = sitk.GetArrayViewFromImage(upright)
        flat = np.flatnonzero(turned)
        flat = flat[np.argsort(turned.reshape(-1)[flat], kind="stable")]
        borders = np.cumsum(np.bincount(turned.reshape(-1)[flat] - 1)) if flat.size else np.empty(0, int)
        voxels = np.stack(np.unravel_index(flat, turned.shape), axis=1)
        places = tuple(np.split(voxels, borders[:-1])) if flat.size else ()
        return cls(upright, suv, places, _body(suv, upright.GetSpacing(), voxels))


def projections(case: Upright) -> tuple[Picture, Picture]:
    """Return the maximum-intensity projections in inverted grey: coronal, seen from the front, and sagittal.

    Head up; the patient's right is on the left of the first, the front on the left of the second. SUV 0
    is white, `TOP_SUV` and above black.
    """
    x_mm, y_mm, z_mm = case.pet.GetSpacing()
    pictures = []
    for axis, across in ((1, 2), (2, 1)):
        rows, columns = case.box[0], case.box[across]
        shown = case.suv.max(axis=axis)[rows, columns][::-1]
        grey = np.uint8(255) - (np.clip(shown / TOP_SUV, 0, 1) * 255).round().astype(np.uint8)
        step = (x_mm if across == 2 else y_mm, z_mm)
        outlines = []
        for number, voxels in enumerate(case.places, start=1):
            spots = np.stack([rows.stop - 1 - voxels[:, 0], voxels[:, across] - columns.start], axis=1)
            outlines.append(_outline(number, spots, step))
        pictures.append(Picture(_png(grey), grey.shape[1] * step[0], grey.shape[0] * step[1], tuple(outlines)))
    return pictures[0], pictures[1]


def fused_slice(case: Upright, ct: sitk.Image, number: int) -> Picture:
    """Return the axial slice in which a lesion is largest: CT in grey, over it the PET in the colours of hot iron.

    Seen from the feet, front up, a window of the body around the lesion. The higher the SUV, up to 4, the more the
    PET covers the CT.

    Parameters
    ----------
    case : Upright
    ct : SimpleITK.Image
        HU, on any grid.
    number : int
        Lesion, from 1 on.
    """
    voxels = case.places[number - 1]
    z = int(np.bincount(voxels[:, 0]).argmax())
    rows, columns = _window(case, voxels[voxels[:, 0] == z])
    x_mm, y_mm, _ = case.pet.GetSpacing()
    width, height = (columns.stop - columns.start) * x_mm, (rows.stop - rows.start) * y_mm
    grid = _slice_grid(case, z, rows, columns)
    hu = sitk.GetArrayFromImage(
        sitk.Resample(ct, grid, sitk.Transform(), sitk.sitkLinear, AIR_HU, sitk.sitkFloat32)
    )
    suv = sitk.GetArrayFromImage(sitk.Resample(case.pet, grid, sitk.Transform(), sitk.sitkLinear, 0.0))
    outlines = []
    for each, others in enumerate(case.places, start=1):
        here = others[(others[:, 0] == z) & (others[:, 1] >= rows.start) & (others[:, 1] < rows.stop)]
        here = here[(here[:, 2] >= columns.start) & (here[:, 2] < columns.stop)]
        if len(here):
            outlines.append(_outline(each, here[:, 1:] - (rows.start, columns.start), (x_mm, y_mm)))
    middle = case.pet.TransformIndexToPhysicalPoint([int(voxels[0, 2]), int(voxels[0, 1]), z])
    return Picture(_png(_fuse(hu[0], suv[0])), width, height, tuple(outlines), slice_mm=float(middle[2]))


def _body(
    suv: NDArray[np.float32], spacing: Sequence[float], voxels: NDArray[np.intp]
) -> tuple[slice, slice, slice]:
    """Return the part of the volume that shows the patient and every lesion; in z all of it."""
    parts = [slice(0, suv.shape[0])]
    front = suv.max(axis=0)
    for axis, step in ((1, spacing[1]), (2, spacing[0])):
        found = np.concatenate([np.flatnonzero(front.max(axis=2 - axis) > _BODY_SUV), voxels[:, axis]])
        if found.size == 0:
            found = np.array([0, suv.shape[axis] - 1])
        margin = round(_MARGIN_MM / step)
        parts.append(slice(max(0, int(found.min()) - margin), min(suv.shape[axis], int(found.max()) + 1 + margin)))
    return parts[0], parts[1], parts[2]


def _window(case: Upright, here: NDArray[np.intp]) -> tuple[slice, slice]:
    """Return the rows and columns to show around a lesion's voxels in a slice, within the patient if possible."""
    sides = case.pet.GetSpacing()[1], case.pet.GetSpacing()[0]
    reach = [
        float(found.max() + 1 - found.min()) * side + 2 * _AROUND_MM
        for found, side in zip((here[:, 1], here[:, 2]), sides, strict=True)
    ]
    scale = max(1.0, reach[0] / _WINDOW_MM[1], reach[1] / _WINDOW_MM[0])
    parts = []
    for axis, (side, size_mm) in enumerate(zip(sides, _WINDOW_MM[::-1], strict=True), start=1):
        count, body = round(size_mm * scale / side), case.box[axis]
        first = int(here[:, axis].min() + here[:, axis].max() + 1 - count) // 2
        if count < body.stop - body.start:
            first = min(max(first, body.start), body.stop - count)
        parts.append(slice(first, first + count))
    return parts[0], parts[1]


def _slice_grid(case: Upright, z: int, rows: slice, columns: slice) -> sitk.Image:
    """Return a finer grid of a part of one slice: square pixels, one slice thick."""
    x_mm, y_mm, z_mm = case.pet.GetSpacing()
    size = [round((part.stop - part.start) * side / _PIXEL_MM) for part, side in ((columns, x_mm), (rows, y_mm))]
    pixel = [
        (part.stop - part.start) * side / n
        for part, side, n in zip((columns, rows), (x_mm, y_mm), size, strict=True)
    ]
    first = [
        columns.start - 0.5 + pixel[0] / x_mm / 2,
        rows.start - 0.5 + pixel[1] / y_mm / 2,
        float(z),
    ]
    grid = sitk.Image([*size, 1], sitk.sitkUInt8)
    grid.SetSpacing((*pixel, z_mm))
    grid.SetDirection(case.pet.GetDirection())
    grid.SetOrigin(case.pet.TransformContinuousIndexToPhysicalPoint(first))
    return grid


def _fuse(hu: NDArray[np.float32], suv: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the colours of one slice, shape (rows, columns, 3)."""
    low, high = CT_WINDOW_HU
    grey = 255 * np.clip((hu - low) / (high - low), 0, 1)[..., None]
    cover = _COVER * np.clip(suv / _OPAQUE_SUV, 0, 1)[..., None]
    return np.asarray((grey * (1 - cover) + _hot_iron(suv / TOP_SUV) * cover).round(), np.uint8)


def _hot_iron(value: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the colours of DICOM's "Hot Iron" palette (PS3.6, B.1.1), 0 to 255, for values 0 to 1."""
    step = 255 * np.clip(value, 0, 1)[..., None]
    colours = np.concatenate([2 * step, 2 * (step - 128), 4 * (step - 192)], axis=-1)
    return np.asarray(np.clip(colours, 0, 255), np.float32)


def _png(pixels: NDArray[np.uint8]) -> str:
    """Return a data: URL of the picture, grey (rows, columns) or colour (rows, columns, 3)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=pixels.ndim == 3), str(path), useCompression=True)
        return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _outline(number: int, spots: NDArray[np.intp], step_mm: tuple[float, float]) -> Outline:
    """Draw around pixels.

    Parameters
    ----------
    number : int
    spots : int array, shape (pixels, 2)
        Row and column; a pixel may come several times.
    step_mm : two floats
        Width and height of a pixel.
    """
    top, left = (int(each) for each in spots.min(axis=0))
    inside = np.zeros(spots.max(axis=0) - (top, left) + 3, bool)  # with a border of one pixel
    inside[spots[:, 0] - top + 1, spots[:, 1] - left + 1] = True
    wide, high = step_mm
    x, y = (left - 1) * wide, (top - 1) * high
    level = [
        f"M{x + start * wide:.5g} {y + row * high:.5g}h{(end - start) * wide:.4g}"
        for row, start, end in _runs(inside[1:] != inside[:-1], first=1)
    ]
    upright = [
        f"M{x + column * wide:.5g} {y + start * high:.5g}v{(end - start) * high:.4g}"
        for column, start, end in _runs((inside[:, 1:] != inside[:, :-1]).T, first=1)
    ]
    filled = [
        f"M{x + start * wide:.5g} {y + row * high:.5g}"
        f"h{(end - start) * wide:.4g}v{high:.4g}H{x + start * wide:.5g}z"
        for row, start, end in _runs(inside, first=0)
    ]
    bottom, right = (int(each) for each in spots.max(axis=0) + 1)
    return Outline(
        number, "".join(level + upright), "".join(filled), (left * wide, top * high, right * wide, bottom * high)
    )


def _runs(marked: NDArray[np.bool_], first: int) -> list[tuple[int, int, int]]:
    """Return the runs of True along the rows: row (counted from ``first``), start and end column."""
    edges = np.diff(np.pad(marked, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    _, ends = np.nonzero(edges == -1)
    return list(zip((rows + first).tolist(), starts.tolist(), ends.tolist(), strict=True))
