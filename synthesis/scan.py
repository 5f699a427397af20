"""A synthetic whole-body PET/CT with lesions, made from an organ map: body, uptake, scanner, records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from algorithm.errors import InvalidImageError
from algorithm.images import AIR_HU
from synthesis.anatomy import build_phantom
from synthesis.body import Float, Grid, Labels, Phantom, Tissue
from synthesis.tumours import Layers, add_lesions
from synthesis.uptake import Tracer, body_hu, body_uptake

SPACING = (4.0, 4.0, 3.27)

FWHM_TO_SIGMA = 1 / 2.3548


@dataclass(frozen=True)
class LesionRecord:
    """One lesion of a synthetic body.

    Attributes
    ----------
    site : str
        ``node``, ``lung``, ``liver``, ``bone``, ``soft tissue``, ``mass``, ``bowel`` or ``prostate``.
    volume_ml : float
        Volume of its part of the mask.
    suv_peak : float
        Highest SUV in the mask before noise.
    centre_mm : tuple of float
        Centroid x, y, z in the image's physical (LPS) coordinates.
    """

    site: str
    volume_ml: float
    suv_peak: float
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
    """

    ct: sitk.Image
    suv: sitk.Image
    seg: sitk.Image
    organs: sitk.Image
    lesions: tuple[LesionRecord, ...]


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
    suv: Float, mask: NDArray[np.int16], phantom: Phantom, rng: np.random.Generator
) -> tuple[Float, NDArray[np.int16]]:
    """Shift PET and mask along z near the diaphragm by up to 8 mm: PET averages over breaths that the CT held."""
    grid, marks = phantom.grid, phantom.landmarks
    z = grid.axes()[0][:, 0, 0]
    reach = float(np.clip(rng.normal(0, 4), -8, 8))
    source = (z + reach * np.exp(-0.5 * ((z - marks.lung_base - 60) / 55) ** 2)) / grid.spacing[0]
    source = np.clip(source, 0, grid.shape[0] - 1)
    below = np.minimum(source.astype(int), grid.shape[0] - 2)
    weight = (source - below).astype(np.float32)[:, None, None]
    return suv[below] * (1 - weight) + suv[below + 1] * weight, mask[np.rint(source).astype(int)]


def _scan_pet(suv: Float, liver: float, sigma: float, grid: Grid, rng: np.random.Generator) -> Float:
    """Add correlated noise: 5 to 15 % of the liver's SUV in the liver, growing as the square root of SUV."""
    noise = ndimage.gaussian_filter(
        rng.standard_normal(grid.shape, dtype=np.float32), [0.75 * sigma / s for s in grid.spacing], truncate=3
    )
    noise /= noise.std()
    level = rng.uniform(0.05, 0.15)
    noisy = suv + level * np.sqrt(np.maximum(suv, 0.02) * liver) * noise
    return np.asarray(np.clip(noisy, 0, None), np.float32)


def _resample_labels(image: sitk.Image, spacing: Sequence[float]) -> sitk.Image:
    """Nearest-neighbour resampling that keeps the outer corner of the first voxel and the direction."""
    old = np.array(image.GetSpacing())
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
        Number of lesions to plant, 0 for a tumour-free body; drawn from 1 to 15 when None.

    Returns
    -------
    SyntheticBody

    Raises
    ------
    InvalidImageError
        When the organ map is not 3-D, has a label above 10, or holds neither lungs nor liver.
    """
    resampled = _checked_map(organs, spacing)
    upright = sitk.DICOMOrient(resampled, "LPS")
    whole = sitk.GetArrayFromImage(upright)
    x, y, z = upright.GetSpacing()
    box = _working_box(whole, Grid(whole.shape, (z, y, x)))
    part = np.ascontiguousarray(whole[box])
    grid = Grid(part.shape, (z, y, x))

    rng = np.random.default_rng(seed)
    phantom = build_phantom(part, grid, rng)
    activity, liver = body_uptake(phantom, tracer, rng)
    hu = body_hu(phantom, rng)
    sigma = rng.uniform(5, 8) * FWHM_TO_SIGMA
    suv = ndimage.gaussian_filter(activity, [sigma / s for s in grid.spacing], truncate=3)
    mask, sites = add_lesions(phantom, tracer, lesions, Layers(activity, suv, hu, sigma), rng)
    ct = _scan_ct(hu, phantom, rng)
    suv, mask = _breathe(suv, mask, phantom, rng)
    records = _records(suv, mask, sites, grid, upright, box)
    suv = _scan_pet(suv, liver, sigma, grid, rng)

    image = partial(_image_on_map, box=box, upright=upright, organs=resampled)
    return SyntheticBody(
        ct=image(ct, AIR_HU),
        suv=image(suv, 0),
        seg=image((mask > 0).astype(np.uint8), 0),
        organs=resampled,
        lesions=records,
    )


def _checked_map(organs: sitk.Image, spacing: tuple[float, float, float] | None) -> sitk.Image:
    """Return an organ map on the result's grid; raises InvalidImageError if no body can be built around it."""
    if organs.GetDimension() != 3:
        raise InvalidImageError(
            f"an organ map must be 3-D, got {organs.GetDimension()} dimensions; give a label volume"
        )
    resampled = sitk.Cast(organs, sitk.sitkUInt8) if spacing is None else _resample_labels(organs, spacing)
    labels = sitk.GetArrayViewFromImage(resampled)
    if not np.isin(labels, (Tissue.LUNG, Tissue.LIVER)).any():
        raise InvalidImageError(
            "the organ map holds neither lungs (5) nor liver (3); give one that covers the trunk"
        )
    if labels.max() > Tissue.GLAND:
        raise InvalidImageError(
            f"an organ map has labels 0 to 10, got {labels.max()}; give one with these ten organs"
        )
    return resampled


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
    code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(organs.GetDirection())
    image = sitk.DICOMOrient(image, code)
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
                suv_peak=round(float(suv[where][own].max()), 3),
                centre_mm=tuple(
                    round(c, 2) for c in image.TransformContinuousIndexToPhysicalPoint(centre[::-1].tolist())
                ),
            )
        )
    return tuple(records)
