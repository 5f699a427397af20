"""One forward pass of one window: the plain network, or the product's."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor

from algorithm.inference.device import precision_of
from algorithm.inference.execution import Execution, place
from algorithm.inference.memory import reuse_freed_memory
from algorithm.network.h2aseg import tumour_probability
from algorithm.weights import Checkpoint, build_network
from benchmark.machine import synchronise
from benchmark.process import Answer, Measure
from benchmark.subjects import default_checkpoint, plain_network
from test.support.plain_network import reference_inputs

Network = Callable[[Tensor, Tensor], Tensor]


def forward(
    kind: str, weights: str | None, patch: list[int], precision: str, device: str, reuse: bool, save: str
) -> Measure:
    """Return a task that times one pass; one pass has gone before, and its probability lies in ``save`` (.npy).

    Parameters
    ----------
    kind : str
        ``plain``: all five heads, under autocast where the precision is reduced, as the published code computes.
        ``product``: the finest head; taking the input to the network's type and layout counts.
    weights : str or None
        Checkpoint; None for the built-in one, or reference parameters where there is none.
    patch : three ints
    precision, device : str
    reuse : bool
        Let glibc keep freed memory instead of giving it back and asking again.
    save : str
    """
    if reuse:
        reuse_freed_memory()
    checkpoint, dtype = default_checkpoint(weights), getattr(torch, precision)
    build = {"plain": plain, "product": product}[kind]
    network = build(checkpoint, dtype, device)
    ct, pet = (image.to(device) for image in reference_inputs(1, tuple(patch), seed=0))

    @torch.inference_mode()
    def run() -> Tensor:
        logits = network(ct, pet)
        synchronise(device)
        return logits

    np.save(save, tumour_probability(run().float()).cpu().numpy())

    def measure() -> Answer:
        began = time.perf_counter()
        run()
        return {"seconds": time.perf_counter() - began}

    return measure


def plain(checkpoint: Checkpoint, dtype: torch.dtype, device: str) -> Network:
    """Return the plain network's finest logits as a function of CT and PET."""
    network = plain_network(checkpoint, device)

    def finest(ct: Tensor, pet: Tensor) -> Tensor:
        with autocast(device, dtype):
            return network(ct, pet)[0]

    return finest


def product(checkpoint: Checkpoint, dtype: torch.dtype, device: str) -> Network:
    """Return the product's finest logits as a function of CT and PET, computed as its predictor does."""
    how = Execution.fastest(torch.device(device), dtype)
    proved = precision_of(dtype) in checkpoint.description.precision.allowed
    network = place(build_network(checkpoint), how.device, dtype, everywhere=proved)

    def finest(ct: Tensor, pet: Tensor) -> Tensor:
        with how.computing():
            return network.finest(how.to_device(ct), how.to_device(pet))

    return finest


def autocast(device: str, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Return torch's automatic choice of type; nothing for float32."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device, dtype=dtype)
