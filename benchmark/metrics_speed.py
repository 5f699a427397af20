"""How fast Dice, FPV and FNV are: one labelling and one count per mask against a visit of each component."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmark.process import Answer, Measure
from evaluation.scoring.editions import RULES
from evaluation.scoring.metrics import count_overlaps, crop_to_union, measure
from test.support import plain_metrics

SHAPE_ZYX = (326, 400, 400)
SPACING_XYZ = (2.03642, 2.03642, 3.0)
LESIONS = 500
SEED = 0
REPEATS = 5

Mask = NDArray[np.uint8]
Labelled = tuple[NDArray[np.int32], int]


def lesion_masks(shape: tuple[int, int, int] = SHAPE_ZYX, lesions: int = LESIONS) -> tuple[Mask, Mask]:
    """Make a truth and a prediction (z, y, x) with as many balls each; half of the prediction's overlap the truth.

    The balls (radius 2 to 5 voxels) sit in the cells of a lattice with a voxel of margin, so that none touch.
    """
    rng = np.random.default_rng(SEED)
    cells = np.argwhere(np.ones([side // 26 for side in shape], bool)) * 26
    places = rng.permutation(cells)[: lesions + lesions // 2]
    truth, prediction = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    for index, corner in enumerate(places):
        radius = int(rng.integers(2, 6))
        if index < lesions:
            _put_ball(truth, corner + 12, radius)
        if index >= lesions // 2:
            _put_ball(prediction, corner + 12 + rng.integers(-2, 3, size=3), radius)
    return truth, prediction


def visit_components(
    truth: Mask, prediction: Mask, true: Labelled, predicted: Labelled
) -> tuple[float, float, float]:
    """Return Dice, FPV and FNV (ml) as the published scripts do; ``true``, ``predicted``: labels and count."""
    voxel_ml = plain_metrics.voxel_ml(SPACING_XYZ)
    return (
        plain_metrics.overlap_dice(truth, prediction),
        plain_metrics.untouched_voxels(*predicted, truth) * voxel_ml,
        plain_metrics.untouched_voxels(*true, prediction) * voxel_ml,
    )


def scoring(lesions: int, shape: tuple[int, int, int] = SHAPE_ZYX) -> Measure:
    """Return a task that scores a pair of masks with so many lesions each, plainly and as the product does.

    The plain side is the transcription of the published scripts (:mod:`test.support.plain_metrics`) on labels that
    are given, so only the visits over the full volume are timed: all of them, nothing is extrapolated. The fast
    side is the crop and :func:`evaluation.scoring.metrics.count_overlaps`, labelling included; a second figure is
    that of :func:`evaluation.scoring.metrics.measure`, with lesions and surface distances on top.
    """
    truth, prediction = lesion_masks(shape, lesions)
    labels: list[Labelled] = [
        ndimage.label(mask, ndimage.generate_binary_structure(3, 2)) for mask in (truth, prediction)
    ]

    def measure_all() -> Answer:
        plain_s, expected = _timed(lambda: visit_components(truth, prediction, labels[0], labels[1]))
        counts = [_timed(lambda: count_overlaps(*crop_to_union(truth, prediction)))[0] for _ in range(REPEATS)]
        runs = [_timed(lambda: measure(truth, prediction, SPACING_XYZ, RULES["I"])) for _ in range(REPEATS)]
        scores = runs[0][1]
        return {
            "lesions": [count for _, count in labels],
            "plain_s": plain_s,
            "counted_s": counts,
            "all_s": [seconds for seconds, _ in runs],
            "equal": (scores.dice, scores.fpv_ml, scores.fnv_ml) == expected,
        }

    return measure_all


def _put_ball(mask: Mask, centre: NDArray[np.int64], radius: int) -> None:
    z, y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1, -radius : radius + 1]
    box = tuple(slice(place - radius, place + radius + 1) for place in centre)
    mask[box] |= (z * z + y * y + x * x <= radius * radius).astype(np.uint8)


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result
