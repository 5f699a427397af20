"""Windows as the predictor computes them, one after the other, with all that it does around them."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from algorithm.inference.budget import Budget
from algorithm.inference.memory import reuse_freed_memory
from algorithm.inference.passes import NetworkInput
from algorithm.inference.progress import Progress
from algorithm.job import Segmenter
from algorithm.weights import load_checkpoint
from benchmark.process import Answer, Measure


def windows(weights: str, precision: str, device: str, count: int) -> Measure:
    """Return a task that computes a row of windows by the product; it answers with the seconds of one.

    Parameters
    ----------
    weights, precision, device : str
    count : int
        Windows in the row.
    """
    reuse_freed_memory()
    segmenter = Segmenter([load_checkpoint(Path(weights))], device, precision)
    segmenter.warm_up()
    patch = segmenter.descriptions[0].patch
    image = torch.rand((patch[0] * count, *patch[1:]), generator=torch.Generator().manual_seed(0))
    inputs = [NetworkInput(image, image, patch, overlap=0.0)]

    def measure() -> Answer:
        done = segmenter.predictor.predict(inputs, Budget(), flips=1, progress=Progress(logging.DEBUG))
        return {"seconds": done.seconds_per_pass / done.windows}

    return measure
