"""A picture of the result for people: two projections of the PET with the tumour outlined.

It is not written unless asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from algorithm.errors import OutputError
from algorithm.lesions import in_words
from algorithm.lettering import draw_line, draw_text, text_width
from algorithm.outputs import PICTURE, mark_png, written_as
from algorithm.postprocessing import voxel_volume_ml

BLACK_SUV = 10.0
"""SUV that is drawn black; 0 is white."""

CORONAL, SAGITTAL = 1, 2
"""Axes of an upright image's array (z, y, x) along which the two views look."""

_TUMOUR = (214, 24, 24)
_TEXT, _FRAME = (40, 40, 40), (200, 200, 200)
_LARGEST_HEIGHT, _LARGEST_WIDTH = 900, 1100  # pixels, of a view and of both together
_MARGIN, _GAP = 28, 24
_TITLE_CAPS, _LABEL_CAPS = 17, 12  # height of capital letters
_BAR_WIDTH, _LEAST_BAR_HEIGHT, _LARGEST_BAR_HEIGHT = 22, 150, 400
_BAR_COLUMN = 90  # of the grey scale with its numbers
_SCALE_SHARE = 0.4  # of the first view's width that the scale may take


@dataclass(frozen=True)
class View:
    """One projection in the picture.

    Attributes
    ----------
    name : str
    sides : two str
        What lies on the viewer's left and right: R, L, A or P.
    grey : uint8 array, (rows, columns)
    outline : bool array, (rows, columns)
    """

    name: str
    sides: tuple[str, str]
    grey: NDArray[np.uint8]
    outline: NDArray[np.bool_]


@dataclass(frozen=True)
class Picture:
    """A drawn picture.

    Attributes
    ----------
    pixels : uint8 array, (rows, columns, 3)
    views : tuple of two slices each
        Rows and columns of the coronal and the sagittal view.
    pixel_mm : float
        Side of a pixel inside them.
    """

    pixels: NDArray[np.uint8]
    views: tuple[tuple[slice, slice], ...]
    pixel_mm: float


def projection(
    image: sitk.Image, axis: int, *, pixel_mm: float | None = None, interpolator: int = sitk.sitkLinear
) -> NDArray[np.float32]:
    """Return an image's maximum-intensity projection, upright and with square pixels.

    Parameters
    ----------
    image : SimpleITK.Image
        3-D, its axes turned as they may.
    axis : int
        ``CORONAL``: the patient faces the viewer, right side on the left. ``SAGITTAL``: the patient looks to the
        left.
    pixel_mm : float or None
        Side of a pixel; None: the image's finest spacing in the view.
    interpolator : int
        ``sitk.sitkNearestNeighbor`` for masks.

    Returns
    -------
    float32 array, (rows, columns)
        Rows run from head to foot.
    """
    values, spacing = _upright(image)
    flat = sitk.GetImageFromArray(np.flipud(values.max(axis=axis)).astype(np.float32))
    steps_mm = _steps_mm(spacing, axis)
    flat.SetSpacing(steps_mm)
    pixel_mm = pixel_mm or min(steps_mm)
    sides_mm = [side * step for side, step in zip(flat.GetSize(), steps_mm, strict=True)]
    size = [max(1, round(side / pixel_mm)) for side in sides_mm]
    first_centre = [(pixel_mm - step) / 2 for step in steps_mm]
    square = sitk.Resample(flat, size, sitk.Transform(), interpolator, first_centre, (pixel_mm, pixel_mm))
    return np.asarray(sitk.GetArrayFromImage(square), np.float32)


def write_picture(path: Path, pet: sitk.Image, mask: NDArray[np.uint8]) -> None:
    """Draw a picture and write it; see :func:`draw`.

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
    image = sitk.GetImageFromArray(draw(pet, mask).pixels, isVector=True)
    with written_as(path, PICTURE) as temporary:
        try:
            sitk.WriteImage(image, str(temporary))
            mark_png(temporary)
        except RuntimeError as error:
            raise OutputError(f"cannot write the picture {path}; name it .png, in a folder with space") from error


def draw(pet: sitk.Image, mask: NDArray[np.uint8]) -> Picture:
    """Draw the PET's coronal and sagittal projection side by side, those of the mask outlined in red.

    Both are of one scale, with square pixels; SUV 0 is white, ``BLACK_SUV`` and above black. Around them stand
    title, grey scale, a scale in mm and the legend with the tumour's volume.

    Parameters
    ----------
    pet : SimpleITK.Image
        SUV.
    mask : uint8 array, z, y, x
        Tumour on the PET's grid.
    """
    tumour = sitk.GetImageFromArray(mask)
    tumour.CopyInformation(pet)
    pixel_mm = _pixel_mm(pet)
    coronal = _view(pet, tumour, CORONAL, pixel_mm)
    sagittal = _view(pet, tumour, SAGITTAL, pixel_mm)
    tumour_ml = int(np.count_nonzero(mask)) * voxel_volume_ml(pet.GetSpacing())
    return _composed((coronal, sagittal), pixel_mm, tumour_ml)


def _upright(image: sitk.Image) -> tuple[NDArray[np.generic], tuple[float, float, float]]:
    """Return an image's values as a view (z, y, x) towards head, back and left, and its spacing along x, y, z."""
    towards = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
    axes = [next(axis for axis, letter in enumerate(towards) if letter in pair) for pair in ("LR", "PA", "SI")]
    values = sitk.GetArrayViewFromImage(image).transpose([2 - axis for axis in reversed(axes)])
    steps = [1 if towards[axis] in "LPS" else -1 for axis in reversed(axes)]
    x, y, z = (image.GetSpacing()[axis] for axis in axes)
    return values[tuple(slice(None, None, step) for step in steps)], (x, y, z)


def _steps_mm(spacing: tuple[float, float, float], axis: int) -> tuple[float, float]:
    x, y, z = spacing
    return (x if axis == CORONAL else y), z


def _pixel_mm(image: sitk.Image) -> float:
    """Return the side of a pixel with which both views fit."""
    values, spacing = _upright(image)
    wide, deep, high = (side * step for side, step in zip(reversed(values.shape), spacing, strict=True))
    return float(max(high / _LARGEST_HEIGHT, (wide + deep) / _LARGEST_WIDTH))


def _view(pet: sitk.Image, tumour: sitk.Image, axis: int, pixel_mm: float) -> View:
    grey = 255 * (1 - np.clip(projection(pet, axis, pixel_mm=pixel_mm) / BLACK_SUV, 0, 1))
    inside = _shadow(tumour, axis, pixel_mm)
    outline = inside ^ ndimage.binary_erosion(inside, iterations=2)
    name, sides = ("coronal", ("R", "L")) if axis == CORONAL else ("sagittal", ("A", "P"))
    return View(name, sides, grey.round().astype(np.uint8), outline)


def _shadow(tumour: sitk.Image, axis: int, pixel_mm: float) -> NDArray[np.bool_]:
    """Return where a mask is in a projection; a voxel smaller than a pixel has the pixel that its centre is in."""
    inside = projection(tumour, axis, pixel_mm=pixel_mm, interpolator=sitk.sitkNearestNeighbor) > 0
    values, spacing = _upright(tumour)
    places = np.argwhere(np.flipud(values.max(axis=axis)))
    pixels = ((places + 0.5) * _steps_mm(spacing, axis)[::-1] / pixel_mm).astype(int)
    inside[tuple(np.minimum(pixels, np.array(inside.shape) - 1).T)] = True
    return inside


def _composed(views: tuple[View, ...], pixel_mm: float, tumour_ml: float) -> Picture:
    """Lay out the views, and what explains them, on white."""
    title = "PET, maximum-intensity projections"
    legend = f"tumour, {in_words(tumour_ml)} ml" if tumour_ml else "no tumour found"
    height, width = views[0].grey.shape[0], sum(view.grey.shape[1] for view in views) + _GAP
    scale_px, scale_text = _scale(views[0].grey.shape[1], pixel_mm)
    bar_height = min(max(height, _LEAST_BAR_HEIGHT), _LARGEST_BAR_HEIGHT)
    foot = scale_px + 10 + text_width(scale_text, _LABEL_CAPS) + 2 * _GAP + text_width(legend, _LABEL_CAPS) + 24
    top = _MARGIN + _TITLE_CAPS + _GAP + _LABEL_CAPS + 10
    bottom = top + max(height, bar_height)
    inner = max(width + _GAP + _BAR_COLUMN, text_width(title, _TITLE_CAPS), foot)
    pixels = np.full((bottom + _GAP + _LABEL_CAPS + _MARGIN, inner + 2 * _MARGIN, 3), 255, np.uint8)
    draw_text(pixels, title, _MARGIN, _MARGIN + _TITLE_CAPS, _TITLE_CAPS, _TEXT)
    places, left = [], _MARGIN
    for view in views:
        places.append(_put_view(pixels, view, top, left))
        left += view.grey.shape[1] + _GAP
    _put_grey_scale(pixels, top, left, bar_height)
    line = bottom + _GAP + _LABEL_CAPS
    _put_scale(pixels, scale_px, scale_text, line)
    _put_legend(pixels, legend, _MARGIN + foot - text_width(legend, _LABEL_CAPS), line, marked=tumour_ml > 0)
    return Picture(pixels, tuple(places), pixel_mm)


def _put_view(pixels: NDArray[np.uint8], view: View, top: int, left: int) -> tuple[slice, slice]:
    """Draw a view with its frame, its name above the middle and its sides above the corners."""
    height, width = view.grey.shape
    place = slice(top, top + height), slice(left, left + width)
    pixels[top - 1 : top + height + 1, left - 1 : left + width + 1] = _FRAME
    pixels[place] = view.grey[..., None]
    pixels[place][view.outline] = _TUMOUR
    near, far = view.sides
    for text, x in (
        (near, float(left)),
        (view.name, left + (width - text_width(view.name, _LABEL_CAPS)) / 2),
        (far, left + width - text_width(far, _LABEL_CAPS)),
    ):
        draw_text(pixels, text, x, top - 10, _LABEL_CAPS, _TEXT)
    return place


def _put_grey_scale(pixels: NDArray[np.uint8], top: int, left: int, height: int) -> None:
    shades = np.linspace(0, 255, height).round().astype(np.uint8)
    pixels[top - 1 : top + height + 1, left - 1 : left + _BAR_WIDTH + 1] = _FRAME
    pixels[top : top + height, left : left + _BAR_WIDTH] = shades[:, None, None]
    draw_text(pixels, "SUV", left, top - 10, _LABEL_CAPS, _TEXT)
    for share in (0.0, 0.5, 1.0):
        y = top + (height - 1) * (1 - share)
        right = left + _BAR_WIDTH
        draw_line(pixels, [(right, y), (right + 5, y)], 1, _TEXT)
        text_y = min(max(y + _LABEL_CAPS / 2, top + _LABEL_CAPS), top + height)
        draw_text(pixels, f"{share * BLACK_SUV:g}", right + 11, text_y, _LABEL_CAPS, _TEXT)


def _scale(width: int, pixel_mm: float) -> tuple[int, str]:
    """Return the length, in pixels and in words, of the scale: the longest round one that is not too long."""
    most_mm = width * pixel_mm * _SCALE_SHARE
    power = 10 ** math.floor(math.log10(most_mm))
    length_mm = max(step * power for step in (1, 2, 5) if step * power <= most_mm)
    return round(length_mm / pixel_mm), f"{length_mm:g} mm"


def _put_scale(pixels: NDArray[np.uint8], length: int, text: str, line: int) -> None:
    middle = line - _LABEL_CAPS / 2
    draw_line(pixels, [(_MARGIN, middle), (_MARGIN + length, middle)], 2, _TEXT)
    for x in (_MARGIN, _MARGIN + length):
        draw_line(pixels, [(x, middle - 5), (x, middle + 5)], 2, _TEXT)
    draw_text(pixels, text, _MARGIN + length + 10, line, _LABEL_CAPS, _TEXT)


def _put_legend(pixels: NDArray[np.uint8], text: str, left: int, line: int, *, marked: bool) -> None:
    if marked:
        pixels[line - _LABEL_CAPS : line, left - 22 : left - 22 + _LABEL_CAPS] = _TUMOUR
        pixels[line - _LABEL_CAPS + 2 : line - 2, left - 20 : left - 24 + _LABEL_CAPS] = 255
    draw_text(pixels, text, left, line, _LABEL_CAPS, _TEXT)
