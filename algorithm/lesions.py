"""The lesions of a mask: numbered, measured one by one and in total. What a nuclear medicine physician reads."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist

from algorithm.postprocessing import Lesion, lesions, voxel_volume_ml

PEAK_RADIUS_MM = 10.0 * (3 / (4 * np.pi)) ** (1 / 3)
"""Radius of a sphere of 1 ml: 6.2035 mm."""

_FORWARD = tuple(
    step for step in itertools.product((-1, 0, 1), repeat=3) if step > (0, 0, 0) and np.abs(step).sum() <= 2
)
"""Half of the 18 neighbours that share a face or an edge; the other half is reached from the other voxel."""

_MANY_VOXELS = 1_000_000
"""From here on labelling the whole grid is quicker than joining voxel by voxel."""

_FEW_POINTS = 400
"""Up to here all distances are quicker than a convex hull."""


@dataclass(frozen=True)
class MeasuredLesion(Lesion):
    """One lesion with everything that the clinical report says of it.

    Attributes
    ----------
    number : int
        1 for the largest; the label in `Burden.labels`, the segment in the DICOM SEG, the row in the report.
    suv_peak : float
        Mean SUV in the sphere of 1 ml that maximises it, see `suv_peaks`.
    mtv_ml : float
        Metabolic tumour volume: that of the lesion's voxels, in ml. The mask is the definition of the tumour, no
        further threshold is put on it.
    tlg_g : float
        Total lesion glycolysis, SUVmean times MTV (Larson et al. 1999, Clin. Positron Imaging 2:159).
    longest_diameter_mm : float
        Largest distance between two points of the lesion in three dimensions, from voxel corner to voxel corner.
    hottest_mm : tuple of float
        Centre of the voxel with SUVmax in the patient's space (left, posterior, superior); it always lies in the
        lesion, the centroid of a ring does not.
    """

    number: int
    suv_peak: float
    mtv_ml: float
    tlg_g: float
    longest_diameter_mm: float
    hottest_mm: tuple[float, float, float]


def in_words(amount: float) -> str:
    """Return a volume (ml) or a glycolysis (g) for people: no lesion is too small for a figure other than 0."""
    if 0 < amount < 0.01:
        return "< 0.01"
    return f"{amount:.2f}" if 0 < amount < 1 else f"{amount:.1f}"


@dataclass(frozen=True)
class Totals:
    """The patient's tumour burden.

    Attributes
    ----------
    lesions : int
    mtv_ml, tlg_g : float
        Sums over the lesions.
    suv_max, suv_peak : float or None
        The largest of all lesions, each for itself; None without lesions.
    dmax_mm : float or None
        Largest distance between the centroids of two lesions (Cottereau et al. 2020, J. Nucl. Med. 61:40); None
        with fewer than two.
    """

    lesions: int
    mtv_ml: float
    tlg_g: float
    suv_max: float | None
    suv_peak: float | None
    dmax_mm: float | None


@dataclass(frozen=True)
class Burden:
    """All lesions of a mask.

    Attributes
    ----------
    labels : int32 array, z, y, x
        0 outside, else the lesion's number.
    lesions : tuple of MeasuredLesion
        By number, so the largest first.
    totals : Totals
    """

    labels: NDArray[np.int32]
    lesions: tuple[MeasuredLesion, ...]
    totals: Totals


def number_lesions(mask: NDArray[np.uint8] | NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Label the 18-connected pieces of a mask, the largest first; of two alike, the one that begins first.

    It finds the same pieces as `postprocessing.lesions`, but looks only at the mask's voxels: a tumour is a small
    part of a body.

    Parameters
    ----------
    mask : uint8 or bool array, z, y, x

    Returns
    -------
    labels : int32 array, z, y, x
        0 outside, 1 to ``count`` inside.
    count : int
    """
    labels = np.zeros(mask.shape, np.int32)
    flat = np.flatnonzero(mask.astype(bool, copy=False))
    if flat.size == 0:
        return labels, 0
    if flat.size < _MANY_VOXELS:
        piece = _pieces(np.unravel_index(flat, mask.shape), mask.shape)
    else:
        piece = lesions(mask)[0].reshape(-1)[flat] - 1
    voxels = np.bincount(piece)
    first = np.full(voxels.size, flat.size)
    np.minimum.at(first, piece, np.arange(flat.size))
    number = np.empty(voxels.size, np.int32)
    number[np.lexsort((first, -voxels))] = np.arange(1, voxels.size + 1)
    labels.reshape(-1)[flat] = number[piece]
    return labels, int(voxels.size)


def measure_burden(mask: NDArray[np.uint8] | NDArray[np.bool_], pet: sitk.Image) -> Burden:
    """Find and measure every lesion of a mask.

    Parameters
    ----------
    mask : uint8 or bool array, z, y, x
        Tumour on the PET's grid.
    pet : SimpleITK.Image
        SUV.

    Raises
    ------
    ValueError
        Mask and PET differ in size.
    """
    suv = sitk.GetArrayViewFromImage(pet)
    if mask.shape != suv.shape:
        raise ValueError(f"mask and PET must have the same size, got {mask.shape} and {suv.shape} (z, y, x)")
    mask = mask.astype(bool, copy=False)
    labels, count = number_lesions(mask)
    if count == 0:
        return Burden(labels, (), Totals(0, 0.0, 0.0, None, None, None))
    flat = np.flatnonzero(mask)
    flat = flat[np.argsort(labels.reshape(-1)[flat], kind="stable")]
    number = labels.reshape(-1)[flat] - 1
    measured = _measured(flat, number, suv, pet)
    centroids = np.array([each.centroid_mm for each in measured])
    totals = Totals(
        lesions=count,
        mtv_ml=sum(each.mtv_ml for each in measured),
        tlg_g=sum(each.tlg_g for each in measured),
        suv_max=max(each.suv_max for each in measured),
        suv_peak=max(each.suv_peak for each in measured),
        dmax_mm=_largest_distance(centroids) if count > 1 else None,
    )
    return Burden(labels, measured, totals)


def suv_peaks(
    places: Sequence[NDArray[np.intp]],
    number: NDArray[np.integer],
    suv: NDArray[np.float32],
    spacing_mm: Sequence[float],
) -> NDArray[np.float64]:
    """Return each lesion's SUVpeak: the largest mean SUV of a sphere of 1 ml centred on one of its voxels.

    The sphere has a radius of 6.2035 mm. A voxel belongs to it whole if its centre lies within that radius and not
    at all otherwise; there are no partial voxels. Voxels outside the lesion count, voxels outside the image do
    not. It is the "global intensity peak" of the Image Biomarker Standardisation Initiative (Zwanenburg et al.,
    reference manual, section "Local intensity features", 0F91) for each lesion alone, after the peak of PERCIST
    (Wahl et al. 2009, J. Nucl. Med. 50 Suppl. 1:122S).

    Parameters
    ----------
    places : three int arrays, z, y, x
        The voxels of all lesions.
    number : int array
        The lesion of each voxel, from 0 on.
    suv : float32 array, z, y, x
    spacing_mm : three floats, x, y, z

    Returns
    -------
    float64 array
        One per lesion.
    """
    total = np.zeros(number.size)
    inside = np.zeros(number.size)
    reach = [int(PEAK_RADIUS_MM / side) for side in reversed(spacing_mm)]
    away = [min(place.min(), size - 1 - place.max()) for place, size in zip(places, suv.shape, strict=True)]
    all_inside = all(gap >= steps for gap, steps in zip(away, reach, strict=True))
    strides = suv.shape[1] * suv.shape[2], suv.shape[2], 1
    flat, values = np.ravel_multi_index(tuple(places), suv.shape), suv.reshape(-1)
    for step in itertools.product(*(range(-steps, steps + 1) for steps in reach)):
        if np.linalg.norm(np.multiply(step, spacing_mm[::-1])) > PEAK_RADIUS_MM:
            continue
        there = flat + int(np.dot(step, strides))
        if all_inside:
            total += values[there]
            inside += 1
            continue
        valid = np.ones(number.size, bool)
        for place, move, size in zip(places, step, suv.shape, strict=True):
            valid &= (place + move >= 0) & (place + move < size)
        total[valid] += values[there[valid]]
        inside += valid
    peaks = np.full(int(number.max()) + 1, -np.inf)
    np.maximum.at(peaks, number, total / inside)
    return peaks


def _measured(
    flat: NDArray[np.intp], number: NDArray[np.integer], suv: NDArray[np.float32], pet: sitk.Image
) -> tuple[MeasuredLesion, ...]:
    """Measure the lesions whose voxels lie at ``flat``, sorted by ``number`` (from 0 on)."""
    places = np.unravel_index(flat, suv.shape)
    values = np.asarray(suv.reshape(-1)[flat], np.float64)
    voxels = np.bincount(number)
    starts = np.concatenate([[0], np.cumsum(voxels)[:-1]])
    suv_mean = np.bincount(number, weights=values) / voxels
    suv_max = np.maximum.reduceat(values, starts)
    peaks = suv_peaks(places, number, suv, pet.GetSpacing())
    centres_xyz = np.stack([np.bincount(number, weights=axis) / voxels for axis in reversed(places)], axis=1)
    diameters = _longest_diameters(places, number, pet.GetSpacing())
    volumes = voxels * voxel_volume_ml(pet.GetSpacing())
    hottest = [
        int(start + np.argmax(part)) for start, part in zip(starts, np.split(values, starts[1:]), strict=True)
    ]
    return tuple(
        MeasuredLesion(
            volume_ml=float(volumes[each]),
            suv_max=float(suv_max[each]),
            suv_mean=float(suv_mean[each]),
            centroid_mm=pet.TransformContinuousIndexToPhysicalPoint(centres_xyz[each].tolist()),
            number=each + 1,
            suv_peak=float(peaks[each]),
            mtv_ml=float(volumes[each]),
            tlg_g=float(volumes[each] * suv_mean[each]),
            longest_diameter_mm=diameters[each],
            hottest_mm=pet.TransformIndexToPhysicalPoint([int(axis[hottest[each]]) for axis in reversed(places)]),
        )
        for each in range(voxels.size)
    )


def _pieces(places: Sequence[NDArray[np.intp]], shape: Sequence[int]) -> NDArray[np.int32]:
    """Return which 18-connected piece each voxel belongs to, from 0 on in no promised order."""
    padded = [side + 2 for side in shape]
    strides = padded[1] * padded[2], padded[2], 1
    flat = np.ravel_multi_index([place + 1 for place in places], padded)
    node = np.zeros(padded[0] * strides[0], np.int32)  # pages that are never touched cost nothing
    node[flat] = np.arange(1, flat.size + 1)
    here, there = [], []
    for step in _FORWARD:
        neighbour = node[flat + int(np.dot(step, strides))]
        joined = np.flatnonzero(neighbour)
        here.append(joined)
        there.append(neighbour[joined] - 1)
    edges = np.concatenate(here), np.concatenate(there)
    graph = coo_array((np.ones(edges[0].size, bool), edges), shape=(flat.size, flat.size))
    piece: NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return piece


def _longest_diameters(
    places: Sequence[NDArray[np.intp]], number: NDArray[np.integer], spacing_mm: Sequence[float]
) -> list[float]:
    """Return the largest distance between two voxel corners of each lesion, in mm.

    The two corners are the outermost on their line along x, so only those are compared.

    Parameters
    ----------
    places : three int arrays, z, y, x
    number : int array
        The lesion of each voxel, from 0 on, ascending.
    spacing_mm : three floats, x, y, z
    """
    rows = np.stack([number, places[0], places[1]])
    starts, ends = _runs(rows)
    corners = np.concatenate(
        [
            [rows[0, starts], rows[1, starts] + dz, rows[2, starts] + dy, places[2][starts], places[2][ends] + 1]
            for dz, dy in itertools.product((0, 1), repeat=2)
        ],
        axis=1,
    )
    corners = corners[:, np.lexsort(corners[2::-1])]
    starts, _ = _runs(corners[:3])
    line = corners[:3, starts]
    first, last = np.minimum.reduceat(corners[3], starts), np.maximum.reduceat(corners[4], starts)
    points = np.stack([np.tile(line[1], 2), np.tile(line[2], 2), np.concatenate([first, last])], axis=1)
    points_mm = points * np.asarray(spacing_mm, np.float64)[::-1]
    owner = np.tile(line[0], 2)
    order = np.argsort(owner, kind="stable")
    borders = np.cumsum(np.bincount(owner))[:-1]
    return [_largest_distance(each) for each in np.split(points_mm[order], borders)]


def _runs(keys: NDArray[np.integer]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return where the runs of equal columns begin and where they end, the last column included."""
    starts = np.flatnonzero(np.any(np.diff(keys, prepend=-1), axis=0))
    return starts, np.append(starts[1:], keys.shape[1]) - 1


def _largest_distance(points_mm: NDArray[np.float64]) -> float:
    """Return the largest distance between two of the points, shape (points, 3)."""
    if len(points_mm) > _FEW_POINTS:
        try:
            points_mm = points_mm[ConvexHull(points_mm).vertices]
        except QhullError:  # all in one plane or on one line: they have no hull with a volume
            points_mm = _flat_extremes(points_mm)
    return float(pdist(points_mm).max())


def _flat_extremes(points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the points that can be the ends of the largest distance when all lie in one plane or on one line."""
    centred = points_mm - points_mm.mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[2]
    try:
        ends = ConvexHull(centred @ axes[:2].T).vertices.tolist()
    except QhullError:
        along = centred @ axes[0]
        ends = [int(along.argmin()), int(along.argmax())]
    extremes: NDArray[np.float64] = points_mm[ends]
    return extremes
