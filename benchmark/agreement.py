"""How far masks of a reduced precision agree with those of float32."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from algorithm.inference.memory import reuse_freed_memory
from algorithm.inference.progress import Progress
from algorithm.job import InferenceSettings, Segmenter
from algorithm.weights import load_checkpoint
from benchmark.process import Answer, Measure
from evaluation.scoring.metrics import dice_of


def agreement(
    weights: str,
    cases: Sequence[tuple[str, str, str]],
    precisions: Sequence[str],
    device: str,
    flips: int,
    reference: str | None = None,
) -> Measure:
    """Return a task that segments cases (name, CT, PET) in float32 and in other precisions.

    The answer: by precision and case the Dice of the mask with that in float32 of the device ``reference``; None
    is the same device.
    """
    reuse_freed_memory()
    checkpoint = load_checkpoint(Path(weights))

    def mask_in(precision: str, ct: str, pet: str, where: str = device) -> NDArray[np.uint8]:
        segmenter = Segmenter([checkpoint], where, precision)
        progress = Progress(logging.DEBUG)
        return segmenter.segment(Path(ct), Path(pet), InferenceSettings(flips=flips), progress=progress).mask

    def measure() -> Answer:
        dice: dict[str, dict[str, float]] = {precision: {} for precision in precisions}
        for name, ct, pet in cases:
            expected = mask_in("float32", ct, pet, reference or device)
            for precision in precisions:
                dice[precision][name] = dice_of(expected, mask_in(precision, ct, pet))
        return dice

    return measure
