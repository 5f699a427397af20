"""What is measured on one pair of masks: overlap, volumes, lesions and surface distances.

Every figure but the surface distances follows from the voxel counts of the components and of their overlaps: one
labelling and one bincount per mask, on the bounding box of both masks' union. The official scripts compare the
whole volume once per component instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from algorithm.postprocessing import lesions, voxel_volume_ml
from algorithm.preprocessing import bounding_box
from evaluation.scoring.editions import Rules

LESION_IOU = 0.1
SURFACE_TOLERANCE_MM = 4.0
HAUSDORFF_PERCENTILE = 0.95

_NEIGHBOURS_6 = ndimage.generate_binary_structure(3, 1)
_ROUNDING_MM = 1e-6

Mask = NDArray[np.bool_]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Scores:
    """The figures of one pair of masks; NaN where a figure is not defined or not counted.

    Attributes
    ----------
    dice : float
        2 |T and P| / (|T| + |P|) over all voxels; empty masks by the edition's rules.
    fpv_ml, fnv_ml : float
        Volume of predicted lesions that touch no true one, and of true lesions that touch no predicted one.
    hd95_mm : float
        The larger of the two directed 95th percentiles of the distances between the surfaces. NaN if a mask is
        empty.
    surface_dice : float
        Share of both surfaces' voxels that lie within the tolerance of the other surface; 0 if one mask is empty,
        NaN if both are.
    lesion_sensitivity : float
        Share of true lesions that some predicted lesion matches (IoU of at least 0.1). NaN without true lesions.
    lesion_precision : float
        Share of predicted lesions that match some true lesion. NaN without predicted lesions.
    lesion_f1 : float
        2 TP / (2 TP + FP + FN) as autoPET V defines it: TP and FN count true lesions with and without a match, FP
        predicted lesions without one; several matches of one lesion are not punished. NaN without true lesions.
    truth_ml, prediction_ml : float
        Volumes of the masks.
    truth_lesions, prediction_lesions, found_lesions, false_lesions : int
        18-connected components of each mask, true ones with a match (TP), predicted ones without (FP).
    """

    dice: float
    fpv_ml: float
    fnv_ml: float
    hd95_mm: float
    surface_dice: float
    lesion_sensitivity: float
    lesion_precision: float
    lesion_f1: float
    truth_ml: float
    prediction_ml: float
    truth_lesions: int
    prediction_lesions: int
    found_lesions: int
    false_lesions: int


@dataclass(frozen=True)
class Metric:
    """How one field of :class:`Scores` is shown: its heading, decimals and which way is better."""

    heading: str
    decimals: int
    higher_is_better: bool | None = None

    def text(self, value: float) -> str:
        """Return the value as it stands in a table; a dash for NaN."""
        return "-" if math.isnan(value) else f"{value:.{self.decimals}f}"


METRICS: dict[str, Metric] = {
    "dice": Metric("Dice", 4, higher_is_better=True),
    "fpv_ml": Metric("FPV ml", 2, higher_is_better=False),
    "fnv_ml": Metric("FNV ml", 2, higher_is_better=False),
    "hd95_mm": Metric("HD95 mm", 2, higher_is_better=False),
    "surface_dice": Metric("Surface Dice", 4, higher_is_better=True),
    "lesion_sensitivity": Metric("Lesion sens.", 3, higher_is_better=True),
    "lesion_precision": Metric("Lesion prec.", 3, higher_is_better=True),
    "lesion_f1": Metric("Lesion F1", 3, higher_is_better=True),
    "truth_ml": Metric("Truth ml", 2),
    "prediction_ml": Metric("Pred. ml", 2),
}


@dataclass(frozen=True)
class Overlaps:
    """Voxel counts of the lesions of both masks and of every pair of lesions that share a voxel.

    Attributes
    ----------
    truth, prediction : ndarray of int, (number of lesions,)
        Voxels of each lesion.
    pair_truth, pair_prediction, pair_shared : ndarray of int, (number of pairs,)
        Index of the true and of the predicted lesion, and the voxels they share.
    """

    truth: Counts
    prediction: Counts
    pair_truth: Counts
    pair_prediction: Counts
    pair_shared: Counts

    @property
    def pair_iou(self) -> NDArray[np.float64]:
        """Intersection over union of each pair."""
        union = self.truth[self.pair_truth] + self.prediction[self.pair_prediction] - self.pair_shared
        iou: NDArray[np.float64] = self.pair_shared / union
        return iou

    def matches(self, minimum_iou: float) -> tuple[Counts, Counts]:
        """Return the indices of the true and of the predicted lesions with a partner of at least this IoU."""
        matching = self.pair_iou >= minimum_iou
        return np.unique(self.pair_truth[matching]), np.unique(self.pair_prediction[matching])


def measure(
    truth: NDArray[np.generic],
    prediction: NDArray[np.generic],
    spacing: tuple[float, ...],
    rules: Rules,
    *,
    tolerance_mm: float = SURFACE_TOLERANCE_MM,
    surfaces: bool = True,
) -> Scores:
    """Measure one pair of masks by one edition's rules.

    Parameters
    ----------
    truth, prediction : ndarray, (z, y, x)
        Masks on the same grid; everything but 0 is tumour.
    spacing : tuple of float
        Voxel spacing in mm, x, y, z, from the header that the rules name.
    rules : Rules
        See :data:`evaluation.scoring.editions.RULES`.
    tolerance_mm : float
        Of the surface Dice. 4 mm is about the resolution of PET and two voxels of AutoPET's grid in plane.
    surfaces : bool
        Whether to measure the distances between the surfaces, which takes most of the time; else those figures are
        NaN.

    Raises
    ------
    ValueError
        The masks differ in shape or are not three-dimensional.
    """
    if truth.ndim != 3 or truth.shape != prediction.shape:
        raise ValueError(f"masks must be 3-D and of one shape, got {truth.shape} and {prediction.shape}")
    true_mask, predicted_mask = crop_to_union(truth, prediction)
    overlaps = count_overlaps(true_mask, predicted_mask)
    to_prediction, to_truth = np.empty(0), np.empty(0)
    if surfaces:
        to_prediction, to_truth = surface_distances(true_mask, predicted_mask, spacing)

    voxel_ml = voxel_volume_ml(spacing)
    found, matching = overlaps.matches(LESION_IOU)
    true_lesions, predicted_lesions = overlaps.truth.size, overlaps.prediction.size
    false_lesions = predicted_lesions - matching.size
    return Scores(
        dice=_dice(overlaps, rules),
        fpv_ml=_untouched_ml(
            overlaps.prediction, overlaps.pair_prediction, voxel_ml, empty=rules.fpv_prediction_empty
        ),
        fnv_ml=_untouched_ml(overlaps.truth, overlaps.pair_truth, voxel_ml, empty=rules.fnv_truth_empty),
        hd95_mm=hausdorff_percentile(to_prediction, to_truth),
        surface_dice=surface_dice(to_prediction, to_truth, tolerance_mm),
        lesion_sensitivity=found.size / true_lesions if true_lesions else math.nan,
        lesion_precision=matching.size / predicted_lesions if predicted_lesions else math.nan,
        lesion_f1=lesion_f1(found.size, false_lesions, true_lesions),
        truth_ml=int(overlaps.truth.sum()) * voxel_ml,
        prediction_ml=int(overlaps.prediction.sum()) * voxel_ml,
        truth_lesions=true_lesions,
        prediction_lesions=predicted_lesions,
        found_lesions=found.size,
        false_lesions=false_lesions,
    )


def crop_to_union(truth: NDArray[np.generic], prediction: NDArray[np.generic]) -> tuple[Mask, Mask]:
    """Return both masks as bool inside the bounding box of their union (one corner voxel if both are empty)."""
    true_mask: Mask = truth.astype(bool, copy=False)
    predicted_mask: Mask = prediction.astype(bool, copy=False)
    box = bounding_box(true_mask | predicted_mask)
    return true_mask[box], predicted_mask[box]


def count_overlaps(truth: Mask, prediction: Mask) -> Overlaps:
    """Label both masks (z, y, x) by 18-connectivity and count the voxels of each lesion and of each overlap."""
    true_labels, true_count = lesions(truth)
    predicted_labels, predicted_count = lesions(prediction)
    both = truth & prediction
    keys = true_labels[both].astype(np.int64) * (predicted_count + 1) + predicted_labels[both]
    pairs, shared = np.unique(keys, return_counts=True)
    return Overlaps(
        truth=np.bincount(true_labels[truth], minlength=true_count + 1)[1:],
        prediction=np.bincount(predicted_labels[prediction], minlength=predicted_count + 1)[1:],
        pair_truth=pairs // (predicted_count + 1) - 1,
        pair_prediction=pairs % (predicted_count + 1) - 1,
        pair_shared=shared,
    )


def surface_distances(
    truth: Mask, prediction: Mask, spacing: tuple[float, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distances in mm from each surface voxel of the truth to the prediction's surface, and the other way round.

    A surface voxel is a voxel of the mask with one of its six face neighbours outside (or outside the image).
    These are the distances of ``grand_challenge_metrics.stats`` up to the last digit; that module transforms the
    whole volume twice (28 s and 2.4 GB for 500 lesions all over a body of 400x400x326 voxels, cut to the union), a
    search tree of the surface voxels takes 2.3 s. Its Dice is rounded to float32.

    Parameters
    ----------
    truth, prediction : ndarray of bool, (z, y, x)
    spacing : tuple of float
        In mm, x, y, z.

    Returns
    -------
    tuple of ndarray, (surface voxels of the truth,) and (surface voxels of the prediction,)
        Infinite where the other mask is empty.
    """
    true_surface, predicted_surface = _surface(truth, spacing), _surface(prediction, spacing)
    if not len(true_surface) or not len(predicted_surface):
        return np.full(len(true_surface), np.inf), np.full(len(predicted_surface), np.inf)
    return KDTree(predicted_surface).query(true_surface)[0], KDTree(true_surface).query(predicted_surface)[0]


def hausdorff_percentile(to_prediction: NDArray[np.float64], to_truth: NDArray[np.float64]) -> float:
    """95 % Hausdorff distance in mm: the larger of both directed percentiles, NaN if a mask is empty.

    The percentile is the order statistic ``floor(0.95 (n - 1))`` without interpolation, as in
    ``grand_challenge_metrics.stats.percentile_hausdorff_distance``.
    """
    if not to_prediction.size or not to_truth.size:
        return math.nan
    return max(
        float(np.sort(distances)[int((distances.size - 1) * HAUSDORFF_PERCENTILE)])
        for distances in (to_prediction, to_truth)
    )


def surface_dice(to_prediction: NDArray[np.float64], to_truth: NDArray[np.float64], tolerance_mm: float) -> float:
    """Share of both surfaces' voxels within the tolerance of the other one (Nikolov et al. 2018, by voxels)."""
    distances = np.concatenate([to_prediction, to_truth])
    if not distances.size:
        return math.nan
    return float(np.count_nonzero(distances <= tolerance_mm + _ROUNDING_MM) / distances.size)


def lesion_f1(found: int, false: int, true: int) -> float:
    """F1 of ``found`` of ``true`` lesions with ``false`` false ones; NaN without true lesions (autoPET V)."""
    return 2 * found / (found + true + false) if true else math.nan


def _surface(mask: Mask, spacing: tuple[float, ...]) -> NDArray[np.float64]:
    inside: Mask = ndimage.binary_erosion(mask, _NEIGHBOURS_6)
    places_zyx = np.argwhere(mask & ~inside).astype(np.float64)
    places_zyx *= spacing[::-1]
    return places_zyx


def dice_of(first: NDArray[np.generic], second: NDArray[np.generic]) -> float:
    """Return the Dice coefficient of two masks of one shape, bool or 0 and 1; 1 if both are empty."""
    total = np.count_nonzero(first) + np.count_nonzero(second)
    return 2 * np.count_nonzero(np.logical_and(first, second)) / total if total else 1.0


def _dice(overlaps: Overlaps, rules: Rules) -> float:
    true, predicted = int(overlaps.truth.sum()), int(overlaps.prediction.sum())
    if not true:
        return rules.dice_truth_empty if predicted else rules.dice_both_empty
    return 2 * int(overlaps.pair_shared.sum()) / (true + predicted)


def _untouched_ml(sizes: Counts, touched: Counts, voxel_ml: float, *, empty: float) -> float:
    """Return the volume of the lesions that none of the other mask touches; ``empty`` without any lesion."""
    return int(np.delete(sizes, np.unique(touched)).sum()) * voxel_ml if sizes.size else empty
