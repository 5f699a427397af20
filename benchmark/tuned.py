"""What tuning comes to on a device, and a whole body in the ways that differ by what a GPU alone has."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from algorithm.errors import UserError
from algorithm.inference.memory import reuse_freed_memory
from algorithm.inference.progress import Progress
from algorithm.inference.tuning import Tuning
from algorithm.job import InferenceSettings, Segmenter
from algorithm.tuning import tune
from algorithm.weights import load_checkpoint
from benchmark.device_memory import compared
from benchmark.process import Answer, Measure

_FLIPS = 4  # so that the passes take long enough to be told apart


def trials(weights: str, device: str, seconds: float) -> Measure:
    """Return a task that tunes for so many seconds; it answers with what was tried, and the choice."""
    reuse_freed_memory()
    segmenter = Segmenter([load_checkpoint(Path(weights))], device)

    def measure() -> Answer:
        tuned = tune(segmenter, segmenter.warm_up(), seconds)
        return {
            "choice": dataclasses.asdict(tuned.choice),
            "complete": tuned.complete,
            "trials": [
                {
                    "way": str(each.tuning),
                    "seconds": each.seconds,
                    "difference": each.difference,
                    "verdict": each.verdict,
                    "chosen": each.tuning == tuned.choice,
                }
                for each in tuned.trials
            ],
        }

    return measure


def ways(
    weights: str,
    ct: str,
    pet: str,
    precision: str,
    device: str,
    tuning: dict[str, Any] | None,
    switches: Sequence[dict[str, Any]],
) -> Measure:
    """Return a task whose calls segment a case, kernels warm, by a tuning with the switches set in turn.

    Without a tuning it is the way before any, in ``precision``.

    An answer: seconds for the passes, and how the mask compares with the first: Dice, voxels that differ.
    ``failed`` is there alone where the device or a library does not do it.
    """
    reuse_freed_memory()
    segmenter = Segmenter([load_checkpoint(Path(weights))], device, precision)
    chosen = Tuning(**tuning) if tuning else segmenter.predictor.execution.tuning
    remaining, first = iter(switches), np.zeros(0, np.uint8)

    def measure() -> Answer:
        nonlocal first
        how = dataclasses.replace(chosen, **next(remaining))
        settings = InferenceSettings(flips=_FLIPS)
        try:
            segmenter.predictor.use(how)
            segmenter.warm_up()
            result = segmenter.segment(Path(ct), Path(pet), settings, progress=Progress(logging.DEBUG))
        except (RuntimeError, UserError) as error:
            return {"failed": str(error).partition("\n")[0]}
        first = result.mask if not first.size else first
        return {"predict_s": result.report.seconds["predict"], **compared(result.mask, first)}

    return measure
