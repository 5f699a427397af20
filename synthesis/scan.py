"""A synthetic whole-body PET/CT with lesions, made from an organ map: body, uptake, scanner, records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from algorithm.errors import InvalidImageError
from algorithm.images import AIR_HU, foreign_label
from synthesis.anatomy import build_phantom
from synthesis.body import Float, Grid, Labels, Phantom, Tissue
from synthesis.style import FWHM_TO_SIGMA, Style, draw_style, in_view, shaped
from synthesis.tumours import Layers, add_lesions
from synthesis.uptake import Tracer, body_hu, body_uptake

SPACING = (4.0, 4.0, 3.27)


@dataclass(frozen=True)
class LesionRecord:
    """One lesion of a synthetic body.

    Attributes
    ----------
    site : str
        ``node``, ``lung``, ``liver``, ``bone``, ``soft tissue``, ``mass``, ``bowel`` or ``prostate``.
    volume_ml : float
        Volume of its part of the mask.
    suv_max : float
        Highest SUV in the mask before noise.
    centre_mm : tuple of float
        Centroid x, y, z in the image's physical (LPS) coordinates.
    """

    site: str
    volume_ml: float
    suv_max: float
    centre_mm: tuple[float, float, float]


@dataclass(frozen=True)
class SyntheticBody:
    """One synthetic scan; all images share one grid.

    Attributes
    ----------
    ct : SimpleITK.Image
        int16, HU.
    suv : SimpleITK.Image
        float32, SUV.
    seg : SimpleITK.Image
        uint8, 1 in lesions.
    organs : SimpleITK.Image
        uint8 organ map on the same grid.
    lesions : tuple of LesionRecord
    style : Style
    benign : tuple of str
        Uptake without a tumour that comes and goes and is here, see :mod:`synthesis.benign`.
    """

    ct: sitk.Image
    suv: sitk.Image
    seg: sitk.Image
    organs: sitk.Image
    lesions: tuple[LesionRecord, ...]
    style: Style
    benign: tuple[str, ...]


def _scan_ct(hu: Float, phantom: Phantom, rng: np.random.Generator) -> NDArray[np.int16]:
    """Resolution, noise, the table and the CT's round field of view (air outside), int16 HU."""
    grid = phantom.grid
    air = phantom.tissue == Tissue.AIR
    hu[:, phantom.table] = np.where(air[:, phantom.table], rng.uniform(-450, -150), hu[:, phantom.table])
    blurred = ndimage.gaussian_filter(hu, [1.6 / s for s in grid.spacing], truncate=3)
    blurred += rng.uniform(6, 16) * rng.standard_normal(grid.shape, dtype=np.float32)
    _, y, x = grid.axes()
    middle = [n * s / 2 for n, s in zip(grid.shape, grid.spacing, strict=True)]
    field = rng.choice([250.0, 390.0], p=[0.6, 0.4])
    outside = (y[0] - middle[1]) ** 2 + (x[0] - middle[2]) ** 2 > field**2
    blurred[:, outside] = AIR_HU
    return np.asarray(np.clip(np.rint(blurred), AIR_HU, 3071), np.int16)


def _breathe(
    suv: Float, mask: NDArray[np.int16], phantom: Phantom, reach: float
) -> tuple[Float, NDArray[np.int16]]:
    """Shift PET and mask along z near the diaphragm: PET averages over breaths that the CT held."""
    grid, marks = phantom.grid, phantom.landmarks
    z = grid.axes()[0][:, 0, 0]
    source = (z + reach * np.exp(-0.5 * ((z - marks.lung_base - 60) / 55) ** 2)) / grid.spacing[0]
    source = np.clip(source, 0, grid.shape[0] - 1)
    below = np.minimum(source.astype(int), grid.shape[0] - 2)
    weight = (source - below).astype(np.float32)[:, None, None]
    return suv[below] * (1 - weight) + suv[below + 1] * weight, mask[np.rint(source).astype(int)]


def _move(volume: NDArray[Any], by_mm: tuple[float, float], grid: Grid) -> NDArray[Any]:
    """Shift by whole voxels along y and x: the patient moved between CT and PET."""
    for axis, shift in zip((1, 2), by_mm, strict=True):
        volume = np.roll(volume, round(shift / grid.spacing[axis]), axis)
    return volume


def _implant(hu: Float, phantom: Phantom, rng: np.random.Generator) -> None:
    """Put a metal joint into one hip, with streaks across its slices, in place."""
    grid, marks = phantom.grid, phantom.landmarks
    side = rng.choice([-1, 1])
    centre = (marks.hip, marks.centre[0], marks.centre[1] + side * 95)
    box = grid.box(centre, 60)
    z, y, x = grid.axes(box)
    near = np.sqrt((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2)
    part = hu[box]
    metal = (near < 55) & (part > 200)
    streaks = 250 * np.cos(np.arctan2(y - centre[1], x - centre[2]) * 9 + rng.uniform(0, 6)) * np.exp(-near / 60)
    part[(part > -300) & (near < 58)] += np.broadcast_to(streaks, part.shape)[(part > -300) & (near < 58)]
    part[metal] = rng.uniform(2200, 3071)


def _scan_pet(suv: Float, liver: float, level: float, sigma: float, grid: Grid, rng: np.random.Generator) -> Float:
    """Add correlated noise: ``level`` times the liver's SUV in the liver, growing as the square root of SUV."""
    noise = ndimage.gaussian_filter(
        rng.standard_normal(grid.shape, dtype=np.float32), [0.75 * sigma / s for s in grid.spacing], truncate=3
    )
    noise /= noise.std()
    noisy = suv + level * np.sqrt(np.maximum(suv, 0.02) * liver) * noise
    return np.asarray(np.clip(noisy, 0, None), np.float32)


def _resample_labels(image: sitk.Image, spacing: Sequence[float], style: Style) -> sitk.Image:
    """Nearest-neighbour resampling that keeps the outer corner of the first voxel and the direction."""
    direction = np.abs(np.array(image.GetDirection()).reshape(3, 3))  # of the image's axes in the patient's
    old = np.array(image.GetSpacing()) * (np.array(style.stretch) @ np.rint(direction))
    image = sitk.Image(image)
    image.SetSpacing(old.tolist())
    new = np.array(spacing, float)
    size = np.maximum(1, np.rint(np.array(image.GetSize()) * old / new)).astype(int)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    origin = np.array(image.GetOrigin()) + direction @ ((new - old) / 2)
    return sitk.Resample(
        image, size.tolist(), sitk.Transform(), sitk.sitkNearestNeighbor, origin.tolist(), new.tolist(),
        image.GetDirection(), 0, sitk.sitkUInt8,
    )  # fmt: skip


def _working_box(organs: Labels, grid: Grid) -> tuple[slice, slice, slice]:
    """Part of the grid that can hold body, arms and table: all slices, in plane the organs plus a margin."""
    where = np.nonzero(np.isin(organs, (Tissue.LUNG, Tissue.LIVER)).any(0))
    low = [int(np.min(w)) for w in where]
    high = [int(np.max(w)) + 1 for w in where]
    y = (low[0] - int(125 / grid.spacing[1]), high[0] + int(115 / grid.spacing[1]))
    x = (low[1] - int(175 / grid.spacing[2]), high[1] + int(175 / grid.spacing[2]))
    return (
        slice(None),
        slice(max(0, y[0]), min(grid.shape[1], y[1])),
        slice(max(0, x[0]), min(grid.shape[2], x[1])),
    )


def synthesise(
    organs: sitk.Image,
    tracer: Tracer,
    seed: int | Sequence[int],
    *,
    spacing: tuple[float, float, float] | None = SPACING,
    lesions: int | None = None,
    style: Style | None = None,
) -> SyntheticBody:
    """Make one synthetic whole-body PET/CT from an organ map.

    Parameters
    ----------
    organs : SimpleITK.Image
        Organ map, labels 0 to 10 as in `synthesis.body.Tissue`, any axis-aligned direction.
    tracer : 'fdg' or 'psma'
    seed : int or sequence of int
        The same seed gives the same bytes.
    spacing : tuple of float or None
        Spacing x, y, z in mm of the result; None keeps the organ map's grid.
    lesions : int or None
        Number of lesions to plant, 0 for a tumour-free body; drawn from 1 to 15 when None. Now and then 8 to 15
        all over the marrow take their place.
    style : Style or None
        Build and scan; drawn when None.

    Returns
    -------
    SyntheticBody

    Raises
    ------
    InvalidImageError
        When the organ map is not 3-D, has a label above 10, or holds neither lungs nor liver.
    """
    rng = np.random.default_rng(seed)
    drawn = draw_style(rng)
    style = style or drawn
    if spacing is None:  # the grid is the organ map's: nothing is stretched, appended or cut off
        style = replace(style, stretch=(1.0, 1.0, 1.0), more_leg_mm=0.0, view=(0.0, 1.0))
    resampled = _checked_map(organs, spacing, style)
    upright = sitk.DICOMOrient(resampled, "LPS")
    whole = sitk.GetArrayFromImage(upright)
    x, y, z = upright.GetSpacing()
    box = _working_box(whole, Grid(whole.shape, (z, y, x)))
    part = np.ascontiguousarray(whole[box])
    grid = Grid(part.shape, (z, y, x))

    phantom = build_phantom(part, grid, rng)
    activity, liver, benign = body_uptake(phantom, tracer, rng)
    hu = body_hu(phantom, rng)
    if style.prosthesis:
        _implant(hu, phantom, rng)
    sigma = style.fwhm_mm * FWHM_TO_SIGMA
    suv = ndimage.gaussian_filter(activity, [sigma / s for s in grid.spacing], truncate=3)
    mask, sites = add_lesions(phantom, tracer, lesions, Layers(activity, suv, hu, sigma), rng)
    ct = _scan_ct(hu, phantom, rng)
    suv, mask = _breathe(suv * np.float32(style.calibration), mask, phantom, style.breath_mm)
    suv, mask = _move(suv, style.motion_mm, grid), _move(mask, style.motion_mm, grid)
    noisy = _scan_pet(suv, liver, style.noise, sigma, grid, rng)
    view = in_view(len(ct), style)
    ct, suv, noisy, mask = ct[view], suv[view], noisy[view], mask[view]
    upright = upright[:, :, view]
    resampled = sitk.DICOMOrient(upright, _orientation(resampled))
    records = _records(suv, mask, sites, grid, upright, box)

    image = partial(_image_on_map, box=box, upright=upright, organs=resampled)
    return SyntheticBody(
        ct=image(ct, AIR_HU),
        suv=image(noisy, 0),
        seg=image((mask > 0).astype(np.uint8), 0),
        organs=resampled,
        lesions=records,
        style=style,
        benign=tuple(benign),
    )


def _checked_map(organs: sitk.Image, spacing: tuple[float, float, float] | None, style: Style) -> sitk.Image:
    """Return an organ map on the result's grid; raises InvalidImageError if no body can be built around it."""
    if organs.GetDimension() != 3:
        raise InvalidImageError(
            f"an organ map must be 3-D, got {organs.GetDimension()} dimensions; give a label volume"
        )
    foreign = foreign_label(organs, Tissue.GLAND)
    if foreign is not None:
        raise InvalidImageError(
            f"an organ map has labels 0 to 10, got {foreign:g}; give one with these ten organs"
        )
    resampled = sitk.Cast(organs, sitk.sitkUInt8) if spacing is None else _resample_labels(organs, spacing, style)
    resampled = sitk.DICOMOrient(shaped(sitk.DICOMOrient(resampled, "LPS"), style), _orientation(organs))
    labels = sitk.GetArrayViewFromImage(resampled)
    if not np.isin(labels, (Tissue.LUNG, Tissue.LIVER)).any():
        raise InvalidImageError(
            "the organ map holds neither lungs (5) nor liver (3); give one that covers the trunk"
        )
    return resampled


def _orientation(image: sitk.Image) -> str:
    code: str = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
    return code


def _image_on_map(
    values: Float | Labels | NDArray[np.int16],
    outside: float,
    box: tuple[slice, slice, slice],
    upright: sitk.Image,
    organs: sitk.Image,
) -> sitk.Image:
    """Return the working box's values (z, y, x in the LPS frame) as an image on the organ map's own grid."""
    volume = np.full(upright.GetSize()[::-1], outside, values.dtype)
    volume[box] = values
    image = sitk.GetImageFromArray(volume)
    image.CopyInformation(upright)
    image = sitk.DICOMOrient(image, _orientation(organs))
    image.CopyInformation(organs)
    return image


def _records(
    suv: Float, mask: NDArray[np.int16], sites: list[str], grid: Grid, image: sitk.Image, box: tuple[slice, ...]
) -> tuple[LesionRecord, ...]:
    """Measure every lesion on the noise-free SUV."""
    records = []
    for number, (where, site) in enumerate(zip(ndimage.find_objects(mask), sites, strict=False), start=1):
        if where is None:
            continue
        own = mask[where] == number
        corner = [part.start + (whole.start or 0) for part, whole in zip(where, box, strict=True)]
        centre = np.argwhere(own).mean(0) + corner
        records.append(
            LesionRecord(
                site=site,
                volume_ml=round(float(own.sum()) * grid.voxel_ml, 4),
                suv_max=round(float(suv[where][own].max()), 3),
                centre_mm=tuple(
                    round(c, 2) for c in image.TransformContinuousIndexToPhysicalPoint(centre[::-1].tolist())
                ),
            )
        )
    return tuple(records)
