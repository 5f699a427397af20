"""Tuning for checkpoints: in which number formats, and windows to try on.

How ways of computing are tried is :mod:`algorithm.inference.tuner`'s; :mod:`algorithm.tuning_file` keeps the
choice.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from algorithm.description import Description
from algorithm.images import AIR_HU
from algorithm.inference.budget import Budget
from algorithm.inference.device import choose_dtype
from algorithm.inference.execution import Execution
from algorithm.inference.passes import NetworkInput
from algorithm.inference.tuner import Tuned, Tuner
from algorithm.job import Segmenter
from algorithm.preprocessing import body_mask, normalise

_SEED = 0
_TISSUES = (
    # centre and half axes in x, y, z as shares of half a side, HU, SUV; later ones lie over earlier ones
    ((0.0, 0.0, 0.0), (0.85, 0.7, 9.0), 40.0, 1.0),  # trunk
    ((-0.4, -0.1, -0.5), (0.25, 0.4, 0.6), -800.0, 0.4),  # lungs
    ((0.4, -0.1, -0.5), (0.25, 0.4, 0.6), -800.0, 0.4),
    ((-0.3, 0.0, 0.6), (0.45, 0.45, 0.4), 60.0, 2.2),  # liver
    ((0.0, 0.5, 0.0), (0.12, 0.12, 9.0), 400.0, 1.5),  # spine
)
_LESIONS = (
    ((-0.4, 0.0, -0.4), 0.1, 8.0),
    ((0.1, -0.2, -0.1), 0.15, 12.0),
    ((0.4, 0.2, 0.3), 0.2, 5.0),
    ((-0.1, 0.5, 0.5), 0.12, 3.5),
)  # centre, radius, SUV
_NOISE_HU, _NOISE_SUV = 25.0, 0.15


def tune(segmenter: Segmenter, before: Execution, seconds: float, *, repeatable: bool = False) -> Tuned:
    """Try which way of computing windows is fastest for a segmenter; it goes on as before until told otherwise.

    Parameters
    ----------
    segmenter : Segmenter
        Its kernels are warm.
    before : Execution
        What :meth:`algorithm.job.Segmenter.warm_up` returned.
    seconds : float
        At most so long; see :class:`algorithm.inference.tuner.Tuner`.
    repeatable : bool
        Leave out what may give other last digits in another process.
    """
    return Tuner(
        segmenter.predictor,
        before,
        [trial_input(each) for each in segmenter.descriptions],
        dtypes_of(segmenter),
        Budget(time.monotonic() + seconds),
        repeatable=repeatable,
    ).tune()


def allowed_dtypes(device: torch.device) -> tuple[torch.dtype, ...]:
    """Return the types that a device computes in, that of ``--precision auto`` first.

    Any checkpoint may be computed in them; which of its levels then are is what it proved, see
    :func:`algorithm.inference.execution.place`.
    """
    allowed = [choose_dtype("auto", device)]
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        allowed.append(torch.bfloat16)
    return tuple(dict.fromkeys([*allowed, torch.float32]))


def dtypes_of(segmenter: Segmenter) -> tuple[torch.dtype, ...]:
    """Return the types that a segmenter may compute in; the one that was asked for, where one was."""
    if segmenter.precision != "auto":
        return (segmenter.predictor.execution.dtype,)
    return allowed_dtypes(segmenter.device)


def trial_input(description: Description) -> NetworkInput:
    """Return two windows, one half over the other, of a synthetic trunk with lesions, as a network takes them.

    It is no patient, and agreement on it no proof for patients, but it has what the network reacts to: tissues,
    air, noise and uptake. A window of air would agree in any type.
    """
    x, y, z = description.patch
    hu, suv = _trunk((x, y, z + z // 2))
    body = body_mask(suv.transpose(2, 1, 0), hu.transpose(2, 1, 0)).transpose(2, 1, 0)
    ct, pet = normalise(hu, description.ct, body), normalise(suv, description.pet, body)
    return NetworkInput(torch.from_numpy(ct), torch.from_numpy(pet), description.patch, overlap=0.5)


def _trunk(size: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return HU and SUV, float32, x, y, z; the same every time."""
    grid = np.meshgrid(*(np.linspace(-1, 1, side, dtype=np.float32) for side in size), indexing="ij")
    hu, suv = np.full(grid[0].shape, AIR_HU, np.float32), np.zeros(grid[0].shape, np.float32)
    for centre, axes, tissue_hu, tissue_suv in _TISSUES:
        inside = _ellipsoid(grid, centre, axes)
        hu[inside], suv[inside] = tissue_hu, tissue_suv
    for centre, radius, lesion_suv in _LESIONS:
        inside = _ellipsoid(grid, centre, (radius, radius, radius))
        hu[inside], suv[inside] = 50.0, lesion_suv
    rng = np.random.default_rng(_SEED)
    hu += _NOISE_HU * rng.standard_normal(hu.shape, dtype=np.float32)
    suv *= 1 + _NOISE_SUV * rng.standard_normal(suv.shape, dtype=np.float32)
    return hu, np.maximum(suv, 0, out=suv)


def _ellipsoid(
    grid: Sequence[NDArray[np.float32]], centre: Sequence[float], axes: Sequence[float]
) -> NDArray[np.bool_]:
    distance = sum(((along - c) / axis) ** 2 for along, c, axis in zip(grid, centre, axes, strict=True))
    return np.asarray(distance < 1)
