"""``python -m training mistakes``: where a network errs on cases, for a training to look there more often.

What a network is sure of and wrong about comes up seldom where crops are drawn evenly (hard negatives:
Felzenszwalb et al., "Object detection with discriminatively trained part-based models", PAMI 2010, section 4; here
missed lesions as well). The cases belong to training: to mine validation cases would make them training cases.
"""

from __future__ import annotations

import argparse
import logging
import sys

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from tqdm import tqdm

from algorithm.cases import find_cases
from algorithm.description import Description
from algorithm.errors import MissingInputError, UsageError
from algorithm.inference.predictor import Predictor
from algorithm.job import Segmenter
from algorithm.outputs import check_free
from algorithm.postprocessing import lesions
from algorithm.weights import Checkpoint, load_checkpoint
from training.cache import CachedCase, Spacing, build_cache
from training.mistakes import MISTAKES, Mistakes, Place, write_mistakes
from training.options import MistakesOptions, parsed_as
from training.preparation import check_names
from training.validation import segment_cached

LEAST_ML = 0.5
"""Smaller pieces are noise, and a lesion's frayed edge."""

log = logging.getLogger(__name__)


def main(args: argparse.Namespace) -> int:
    """Segment the cases, write where the masks are wrong, and say how often."""
    options = parsed_as(MistakesOptions, args)
    checkpoint = load_checkpoint(options.weights)
    spacing = _grid_of(checkpoint)
    check_free(options.out, MISTAKES)
    cases: list[CachedCase] = []
    datasets = [find_cases(folder, options.layout) for folder in options.cases]
    check_names(options.cases, datasets)
    for found in datasets:
        cache = build_cache(found.cases, options.cache, spacing, progress=False, workers=options.workers)
        for skipped in (*found.skipped, *cache.skipped):
            log.warning("skipped %s: %s", skipped.name, skipped.reason)
        cases += cache.cases
    if not cases:
        folders = ", ".join(map(str, options.cases))
        raise MissingInputError(f"none of the cases in {folders} is usable; the reasons are listed above")
    predictor = Segmenter([checkpoint], options.device).predictor
    bar = tqdm(cases, "looking", unit="case", file=sys.stdout, disable=not log.isEnabledFor(logging.INFO))
    mistakes = {case.name: find_mistakes(predictor, case, checkpoint.description) for case in bar}
    write_mistakes(mistakes, checkpoint, options.out)
    log.info(
        "%d cases: %d lesions missed, %d pieces called falsely, of %g ml and more each; listed in %s",
        len(cases),
        sum(len(each.missed) for each in mistakes.values()),
        sum(len(each.false) for each in mistakes.values()),
        LEAST_ML,
        options.out,
    )
    return 0


def find_mistakes(predictor: Predictor, case: CachedCase, how: Description) -> Mistakes:
    """Segment a case as a validation does, and compare with its contours."""
    mask = segment_cached(predictor, case, how)
    truth = np.array(case.seg().transpose(2, 1, 0))
    least = LEAST_ML * 1000 / float(np.prod(case.spacing))
    return Mistakes(case.sha256, untouched(truth, mask, least), untouched(mask, truth, least))


def untouched(pieces: NDArray[np.uint8], other: NDArray[np.uint8], least_voxels: float) -> tuple[Place, ...]:
    """Return, of each piece of a mask that shares no voxel with another mask, the voxel nearest to its centroid.

    Parameters
    ----------
    pieces, other : uint8 array, z, y, x
    least_voxels : float
        Smaller pieces are left out.
    """
    labels, _ = lesions(pieces)
    touched = set(np.unique(labels[other > 0]))
    places = []
    for label, box in enumerate(ndimage.find_objects(labels), 1):
        if label in touched:
            continue
        voxels = np.argwhere(labels[box] == label)
        if len(voxels) >= least_voxels:
            nearest = voxels[((voxels - voxels.mean(0)) ** 2).sum(1).argmin()]
            z, y, x = (int(at) + side.start for at, side in zip(nearest, box, strict=True))
            places.append((x, y, z))
    return tuple(places)


def _grid_of(checkpoint: Checkpoint) -> Spacing:
    how = checkpoint.description
    if how.spacing is None or how.orientation != Description.orientation:
        raise UsageError(
            f"{checkpoint.path} has no grid on which training cuts crops; give a checkpoint of "
            "`python -m training fit`"
        )
    return how.spacing
