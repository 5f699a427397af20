"""Whether a checkpoint was trained, told from its parameters alone.

What a description says of the training can be copied beside any weights, so the parameters themselves are asked.
Convolution kernels of a network that has seen images are smooth: neighbouring taps of a 3x3x3 kernel resemble one
another, because neighbouring voxels do. Where every value was drawn by itself, whatever the distribution and its
scale, their correlation is 0 up to chance, one over the root of the number of pairs. Measured: 0.44 for the
weights of this repository, 0.0006 for the same network as it is initialised, 0.00001 for normally distributed
noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from algorithm.preflight.findings import RefusedError
from algorithm.weights import Checkpoint

LEAST_CORRELATION = 0.01
"""Of neighbouring taps: a fortieth of what was measured, and many times chance."""

_STANDARD_DEVIATIONS = 6.0  # above chance, for networks so small that chance alone reaches the other bound
_SPATIAL_AXES = (2, 3, 4)  # of a kernel: out, in, x, y, z
_NAMES_SHOWN = 3


def check_trained(checkpoint: Checkpoint) -> str:
    """Return what tells that a checkpoint was trained.

    Raises
    ------
    RefusedError
        A weight is the same everywhere (zeros among them), the parameters show no structure, or the
        description does not say what they were trained on.
    """
    constant = [name for name, value in checkpoint.state.items() if value.ndim > 1 and _is_constant(value)]
    name = checkpoint.path.stem
    if constant:
        value = float(checkpoint.state[constant[0]].flatten()[0])
        raise RefusedError(
            f"{name} has {len(constant)} weights that are {value:g} throughout ({_few(constant)}); "
            "put trained weights into the image"
        )
    correlation, chance = kernel_correlation(checkpoint.state)
    if correlation < max(LEAST_CORRELATION, _STANDARD_DEVIATIONS * chance):
        raise RefusedError(
            f"{name} holds random numbers: neighbouring taps of its kernels correlate by {correlation:.4f}, and "
            f"trained ones do by more than {LEAST_CORRELATION:g}; put trained weights into the image"
        )
    if not checkpoint.description.provenance:
        raise RefusedError(f"the provenance in {name}.json is empty; say there what the weights were trained on")
    return f"neighbouring taps correlate by {correlation:.2f} (random: 0 +- {chance:.4f})"


def kernel_correlation(state: Mapping[str, Tensor]) -> tuple[float, float]:
    """Return the correlation of neighbouring taps over all 3-D kernels, and its standard deviation for noise.

    Parameters
    ----------
    state : mapping of str to Tensor
        Kernels have five axes: output channels, input channels, x, y, z.

    Returns
    -------
    correlation, chance : float
        0 and infinity where there is no kernel with neighbours.
    """
    total, pairs = 0.0, 0
    for value in state.values():
        if value.ndim != 5:
            continue
        kernel = value.float()
        kernel = kernel - kernel.mean()
        spread = float(kernel.square().mean())
        if spread == 0:
            continue
        for axis in _SPATIAL_AXES:
            steps = kernel.shape[axis] - 1
            product = kernel.narrow(axis, 0, steps) * kernel.narrow(axis, 1, steps)
            total += float(product.sum()) / spread
            pairs += product.numel()
    return (total / pairs, 1 / math.sqrt(pairs)) if pairs else (0.0, math.inf)


def _is_constant(value: Tensor) -> bool:
    return bool((value == value.flatten()[0]).all()) and value.numel() > 1


def _few(names: list[str]) -> str:
    return ", ".join(names[:_NAMES_SHOWN] + ["..."] * (len(names) > _NAMES_SHOWN))
