"""The published rules of each AutoPET edition, written down plainly and slowly.

They are the oracle of evaluation.scoring.metrics.

Nothing here is shared with the product. Components are found by flood fill, every component is compared with the
whole volume, distances are taken between all pairs of surface voxels.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[Any]
Spacing = tuple[float, ...]

NEIGHBOURS_18 = [step for step in itertools.product((-1, 0, 1), repeat=3) if 0 < sum(map(abs, step)) <= 2]
NEIGHBOURS_6 = [step for step in itertools.product((-1, 0, 1), repeat=3) if sum(map(abs, step)) == 1]


def flood_fill(mask: Mask) -> tuple[Mask, int]:
    """Number the components of voxels that touch by a face or an edge."""
    labels = np.zeros(mask.shape, int)
    count = 0
    for start in map(tuple, np.argwhere(mask)):
        if labels[start]:
            continue
        count += 1
        labels[start] = count
        waiting = [start]
        while waiting:
            place = waiting.pop()
            for step in NEIGHBOURS_18:
                beside = tuple(a + b for a, b in zip(place, step, strict=True))
                inside = all(0 <= a < side for a, side in zip(beside, mask.shape, strict=True))
                if inside and mask[beside] and not labels[beside]:
                    labels[beside] = count
                    waiting.append(beside)
    return labels, count


def untouched_voxels(labels: Mask, count: int, other: Mask) -> int:
    """Visit each component over the whole volume; sum the sizes of those without a voxel in the other mask."""
    total = 0
    for number in range(1, count + 1):
        component = np.isin(labels, number)
        if (component * other).sum() == 0:
            total += int(component.sum())
    return total


def voxel_ml(spacing: Spacing) -> float:
    return spacing[0] * spacing[1] * spacing[2] / 1000


def overlap_dice(truth: Mask, prediction: Mask) -> float:
    return float(2 * (truth * prediction).sum() / (truth.sum() + prediction.sum()))


def false_positive_ml(truth: Mask, prediction: Mask, spacing: Spacing) -> float:
    return untouched_voxels(*flood_fill(prediction), truth) * voxel_ml(spacing)


def false_negative_ml(truth: Mask, prediction: Mask, spacing: Spacing) -> float:
    return untouched_voxels(*flood_fill(truth), prediction) * voxel_ml(spacing)


def edition_1_and_2(
    truth: Mask, prediction: Mask, truth_spacing: Spacing, prediction_spacing: Spacing
) -> dict[str, float]:
    """No empty mask is treated apart: 0 / 0 is NaN, and no component has a volume of 0."""
    both_empty = truth.sum() + prediction.sum() == 0
    return {
        "dice": math.nan if both_empty else overlap_dice(truth, prediction),
        "fpv_ml": false_positive_ml(truth, prediction, prediction_spacing),
        "fnv_ml": false_negative_ml(truth, prediction, prediction_spacing),
    }


def edition_3(
    truth: Mask, prediction: Mask, truth_spacing: Spacing, prediction_spacing: Spacing
) -> dict[str, float]:
    """Without tumour only FPV counts; the truth's header gives the volume."""
    empty = truth.sum() == 0
    return {
        "dice": math.nan if empty else overlap_dice(truth, prediction),
        "fpv_ml": 0.0 if prediction.sum() == 0 else false_positive_ml(truth, prediction, truth_spacing),
        "fnv_ml": math.nan if empty else false_negative_ml(truth, prediction, truth_spacing),
    }


def edition_4(
    truth: Mask, prediction: Mask, truth_spacing: Spacing, prediction_spacing: Spacing
) -> dict[str, float]:
    """As III, but the second call of the reader, on the prediction, is the one that sets the volume."""
    return edition_3(truth, prediction, prediction_spacing, truth_spacing)


def edition_5(
    truth: Mask, prediction: Mask, truth_spacing: Spacing, prediction_spacing: Spacing
) -> dict[str, float]:
    """Dice of the interaction loop and lesion F1 of the detection metric at an IoU of 0.1."""
    both_empty = truth.sum() + prediction.sum() == 0
    return {
        "dice": 1.0 if both_empty else overlap_dice(truth, prediction),
        "lesion_f1": detection(truth, prediction)["lesion_f1"],
    }


EDITIONS = {"I": edition_1_and_2, "II": edition_1_and_2, "III": edition_3, "IV": edition_4, "V": edition_5}


def detection(truth: Mask, prediction: Mask) -> dict[str, float]:
    """Match every pair of lesions; one lesion may have several matches."""
    true_labels, true_count = flood_fill(truth)
    predicted_labels, predicted_count = flood_fill(prediction)
    found, matching = set(), set()
    for t, p in itertools.product(range(1, true_count + 1), range(1, predicted_count + 1)):
        shared = ((true_labels == t) & (predicted_labels == p)).sum()
        union = ((true_labels == t) | (predicted_labels == p)).sum()
        if shared / union >= 0.1:
            found.add(t)
            matching.add(p)
    tp, fn, fp = len(found), true_count - len(found), predicted_count - len(matching)
    return {
        "lesion_sensitivity": tp / true_count if true_count else math.nan,
        "lesion_precision": len(matching) / predicted_count if predicted_count else math.nan,
        "lesion_f1": math.nan if true_count == 0 else 0.0 if tp == 0 else 2 * tp / (2 * tp + fp + fn),
    }


def surface(mask: Mask, spacing: Spacing) -> Mask:
    """Places in mm (z, y, x) of the voxels with a face neighbour outside the mask or the image."""
    padded = np.pad(mask, 1)
    places = [
        place
        for place in np.argwhere(mask)
        if not all(padded[tuple(place + 1 + np.array(step))] for step in NEIGHBOURS_6)
    ]
    return np.array(places, float).reshape(-1, 3) * spacing[::-1]


def surface_measures(truth: Mask, prediction: Mask, spacing: Spacing, tolerance_mm: float) -> dict[str, float]:
    """HD95 without interpolation and surface Dice from all pairwise distances."""
    a, b = surface(truth, spacing), surface(prediction, spacing)
    if not len(a) and not len(b):
        return {"hd95_mm": math.nan, "surface_dice": math.nan}
    if not len(a) or not len(b):
        return {"hd95_mm": math.nan, "surface_dice": 0.0}
    distances = np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=2))
    there, back = np.sort(distances.min(axis=1)), np.sort(distances.min(axis=0))
    near = sum((d <= tolerance_mm + 1e-6).sum() for d in (there, back))
    return {
        "hd95_mm": max(d[int((len(d) - 1) * 0.95)] for d in (there, back)),
        "surface_dice": near / (len(a) + len(b)),
    }
