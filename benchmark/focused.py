"""What flips cost, and what they change, where they matter alone and over all windows."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from algorithm.inference.memory import reuse_freed_memory
from algorithm.inference.progress import Progress
from algorithm.job import InferenceSettings, Result, Segmenter
from algorithm.postprocessing import lesions
from algorithm.weights import load_checkpoint
from benchmark.process import Answer, Measure
from evaluation.scoring.metrics import dice_of


def focused(weights: str, ct: str, pet: str, device: str, precision: str, flips: int) -> Measure:
    """Return a task that segments a case without flips, with flips where they matter, and everywhere.

    The answer: windows of the first pass and of each further flip, seconds of each way's passes, Dice of the
    other masks with that of all windows, and of its lesions how many the focused mask holds and how many it has
    beside them.
    """
    reuse_freed_memory()
    segmenter = Segmenter([load_checkpoint(Path(weights))], device, precision)

    def segment(settings: InferenceSettings) -> Result:
        return segmenter.segment(Path(ct), Path(pet), settings, progress=Progress(logging.DEBUG))

    def measure() -> Answer:
        alone = segment(InferenceSettings(flips=1))
        where, everywhere = (segment(InferenceSettings(flips=flips, everywhere=each)) for each in (False, True))
        found, count = _touched(everywhere.mask, where.mask)
        touched, focused_count = _touched(where.mask, everywhere.mask)
        ways = {"identity": alone, "focused": where, "everywhere": everywhere}
        return {
            "windows": where.report.windows,
            "flip_windows": where.report.flip_windows,
            "seconds": {name: way.report.seconds["predict"] for name, way in ways.items()},
            "dice": dice_of(where.mask, everywhere.mask),
            "identity_dice": dice_of(alone.mask, everywhere.mask),
            "lesions": count,
            "found": found,
            "extra": focused_count - touched,
        }

    return measure


def _touched(mask: NDArray[np.uint8], other: NDArray[np.uint8]) -> tuple[int, int]:
    """Return how many lesions of a mask another one touches, and how many there are."""
    labels, count = lesions(mask)
    return len(np.unique(labels[(other > 0) & (labels > 0)])), count
