"""A whole case from files to mask in memory: the product, as :class:`algorithm.job.Segmenter` does it."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np

from algorithm.inference.memory import reuse_freed_memory
from algorithm.inference.progress import Progress
from algorithm.job import InferenceSettings, Segmenter
from algorithm.weights import load_checkpoint
from benchmark.process import MIB, Answer, Measure, peak_host_mib


def product(
    weights: str,
    ct: str,
    pet: str,
    flips: int,
    precision: str,
    device: str,
    box: bool,
    save: str,
    checkpoints: int = 1,
) -> Measure:
    """Return a task that segments a case with ``checkpoints`` copies of a checkpoint; the mask goes to ``save``.

    The answer: seconds in all and for the passes alone, windows per pass, passes, peak memory of this process and
    above the pair's float32 arrays, and of the device.
    """
    reuse_freed_memory()
    ensemble = [load_checkpoint(Path(weights))] * checkpoints
    settings = InferenceSettings(flips=flips, whole_volume=not box)

    def measure() -> Answer:
        began = time.perf_counter()
        segmenter = Segmenter(ensemble, device, precision)
        result = segmenter.segment(Path(ct), Path(pet), settings, progress=Progress(logging.DEBUG))
        seconds = time.perf_counter() - began
        np.save(save, result.mask)
        inputs_mib = 2 * 4 * result.mask.size / MIB
        return {
            "seconds": seconds,
            "predict_s": result.report.seconds["predict"],
            "windows": result.report.windows // checkpoints,
            "passes": result.report.passes,
            "host_mib": peak_host_mib(),
            "above_inputs_mib": peak_host_mib() - inputs_mib,
            "device_mib": result.report.peak_device_memory_mib,
        }

    return measure
