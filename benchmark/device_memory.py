"""The device's memory: what windows at a time take of it, and what becomes of a case where there is less of it."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from algorithm.errors import ResourceError
from algorithm.inference.budget import Budget
from algorithm.inference.device import forget_peak_memory, peak_memory_mib
from algorithm.inference.memory import reuse_freed_memory
from algorithm.inference.passes import NetworkInput
from algorithm.inference.progress import Progress
from algorithm.job import InferenceSettings, Segmenter
from algorithm.weights import load_checkpoint
from benchmark.process import MIB, Answer, Measure
from evaluation.scoring.metrics import dice_of

_ROUNDS = 3  # batches that are timed in a row, since a GPU is told of two more than are done
_LEAST_WINDOWS = 12  # in a row: fewer are over too soon to be timed


def ladder(weights: str, precision: str, device: str, batches: Sequence[int]) -> Measure:
    """Return a task whose calls compute with the batches in turn, each as many windows at a time.

    An answer: seconds per window, the device's peak in MiB, in use and taken by the allocator (None on a CPU), and
    the windows at a time that were used in the end, which are fewer where the memory did not hold them.
    """
    reuse_freed_memory()
    segmenter = Segmenter([load_checkpoint(Path(weights))], device, precision)
    predictor, patch = segmenter.predictor, segmenter.descriptions[0].patch
    before, remaining = predictor.execution.tuning, iter(batches)

    def measure() -> Answer:
        batch = next(remaining)
        predictor.execution.release_memory()
        forget_peak_memory(segmenter.device)
        predictor.use(dataclasses.replace(before, batch=batch))
        segmenter.warm_up()
        windows = max(_ROUNDS * batch, _LEAST_WINDOWS)
        image = torch.rand((patch[0] * windows, *patch[1:]), generator=torch.Generator().manual_seed(0))
        volume = NetworkInput(image, image, patch, overlap=0.0)
        done = predictor.predict([volume], Budget(), flips=1, progress=Progress(logging.DEBUG))
        return {
            "window_s": done.seconds_per_pass / done.windows,
            "used_mib": peak_memory_mib(segmenter.device),
            "taken_mib": taken_mib(segmenter.device),
            "batch": done.execution.batch,
        }

    return measure


def capped(
    weights: str, ct: str, pet: str, precision: str, device: str, shares: Sequence[float | None]
) -> Measure:
    """Return a task whose calls segment a case, one flip, with shares of the device memory that the first took.

    The first share is None: no cap. An answer: the cap and the peak in MiB, seconds for the passes, what was done
    otherwise (sentences), and how the mask compares with the first: Dice, voxels that differ. ``refused`` is there
    alone with the cap where the case did not fit.
    """
    reuse_freed_memory()
    segmenter = Segmenter([load_checkpoint(Path(weights))], device, precision)
    remaining, first_mask, first_mib = iter(shares), np.zeros(0, np.uint8), 0.0

    def measure() -> Answer:
        nonlocal first_mask, first_mib
        share, cap_mib = next(remaining), None
        segmenter.predictor.execution.release_memory()
        if share is not None:
            cap_mib = share * first_mib
            cap(segmenter.device, cap_mib)
        try:
            settings = InferenceSettings(flips=1)
            result = segmenter.segment(Path(ct), Path(pet), settings, progress=Progress(logging.DEBUG))
        except ResourceError as error:
            return {"cap_mib": cap_mib, "refused": str(error)}
        taken = taken_mib(segmenter.device)
        if share is None:
            first_mask, first_mib = result.mask, taken or 0.0
        return {
            "cap_mib": cap_mib,
            "taken_mib": taken,
            "predict_s": result.report.seconds["predict"],
            "notes": list(result.report.notes),
            **compared(result.mask, first_mask),
        }

    return measure


def compared(mask: NDArray[np.uint8], first: NDArray[np.uint8]) -> Answer:
    """Return Dice and the number of voxels that differ."""
    return {"dice": dice_of(mask, first), "differing": int((mask != first).sum(dtype=np.int64))}


def cap(device: torch.device, mib: float) -> None:
    """Let this process take no more than so much of a GPU's memory, CUDA's own not counted."""
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, mib * MIB / total), device.index)


def taken_mib(device: torch.device) -> float | None:
    """Return the most that the allocator took of a GPU since the peak was forgotten; None on a CPU."""
    return torch.cuda.max_memory_reserved(device) / MIB if device.type == "cuda" else None
