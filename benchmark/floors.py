"""What one forward pass cannot avoid: its arithmetic, and the bytes of its feature maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from algorithm.weights import Checkpoint
from benchmark.process import Answer, Measure
from benchmark.subjects import default_checkpoint, plain_network


@dataclass(frozen=True)
class Work:
    """Of one window.

    Attributes
    ----------
    flop : int
        Floating-point operations of convolutions and matrix products; a multiplication with its addition is two.
    elements : int
        Parameters, both inputs and the output once, each convolution's output twice (written and read).
    """

    flop: int
    elements: int


def work(weights: str | None, patch: list[int]) -> Measure:
    """Return a task that counts the :class:`Work` of one window."""
    checkpoint = default_checkpoint(weights)

    def measure() -> Answer:
        counted = count_work(checkpoint, patch)
        return {"flop": counted.flop, "elements": counted.elements}

    return measure


def count_work(checkpoint: Checkpoint, patch: list[int]) -> Work:
    """Count on tensors without content, along the plain network, which does nothing but what is published.

    Attention projections are convolutions there, so they count as feature maps; normalisations, activations,
    interpolations, attention matrices and the weighting do not, since all of them could be fused with a neighbour.
    """
    network = plain_network(checkpoint, "meta")
    image = torch.empty((1, 1, *patch), device="meta")
    with FlopCounterMode(display=False) as flops, _FeatureMaps() as maps:
        finest = network(image, image)[0]
    parameters = sum(value.numel() for value in network.parameters.values())
    return Work(flops.get_total_flops(), parameters + 2 * image.numel() + finest.numel() + 2 * maps.elements)


class _FeatureMaps(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's class has no types
    """Adds up the size of all outputs of convolutions."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default:
            self.elements += result.numel()
        return result
