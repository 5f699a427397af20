"""A convolution by all that a kernel is chosen by, and the routes by which its parts can be computed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from algorithm.errors import InstallationError

Part = Literal["output", "input gradient", "weight gradient"]
"""What a convolution computes; the bias's gradient goes with the weight's."""

Route = Literal["bfloat16", "float32", "float32 without oneDNN"]
"""Ways to compute a part, fastest first."""

Triple = tuple[int, int, int]


class KernelError(InstallationError):
    """No kernel on this machine computes a convolution, or the whole network's gradients, rightly."""


@dataclass(frozen=True)
class Convolution:
    """All that a kernel is chosen by.

    Attributes
    ----------
    shape : tuple of int
        Of the input, (B, C, H, W, D).
    weight : tuple of int
        Shape of the weight, (C', C, kernel x, y, z).
    bias : bool
    stride, padding : tuple of int
        Along x, y, z.
    channels_last : bool
        Memory layout of the input.
    threads : int
        By which oneDNN divides the work.
    """

    shape: tuple[int, ...]
    weight: tuple[int, ...]
    bias: bool
    stride: Triple
    padding: Triple
    channels_last: bool
    threads: int

    def __str__(self) -> str:
        out, into, *kernel = self.weight
        return (
            f"{by(kernel)} stride {by(self.stride)} from {into} to {out} channels on {self.shape[0]} x "
            f"{by(self.shape[2:])} voxels"
        )

    @property
    def overhung(self) -> bool:
        """Whether a side of the features is shorter than the kernel, which then hangs over both their ends.

        Of such, oneDNN's bfloat16 (torch 2.13, AVX-512) adds memory that it never wrote to the gradients of some
        weights, and once wrote beyond its buffer: no trial can tell, since zeros may lie there when it is tried,
        and none is safe. Features so small cost nothing in float32.
        """
        return any(side < kernel for side, kernel in zip(self.shape[2:], self.weight[2:], strict=True))

    @property
    def output_sides(self) -> Triple:
        """Sides of the output along x, y, z."""
        sides = zip(self.shape[2:], self.weight[2:], self.stride, self.padding, strict=True)
        x, y, z = ((side + 2 * pad - kernel) // step + 1 for side, kernel, step, pad in sides)
        return x, y, z


def convolve(route: Route, convolution: Convolution, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the output by a route; arguments and result are bfloat16."""
    with _computing(route) as dtype:
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        result = torch.conv3d(x, weight, bias, convolution.stride, convolution.padding)
    return result.to(torch.bfloat16)


def gradients(
    route: Route, convolution: Convolution, gradient: Tensor, x: Tensor, weight: Tensor, wanted: list[bool]
) -> list[Tensor | None]:
    """Return which of the gradients of input, weight and bias are wanted, by a route; all are bfloat16."""
    with _computing(route) as dtype:
        found = torch.ops.aten.convolution_backward(
            gradient.to(dtype),
            x.to(dtype),
            weight.to(dtype),
            [convolution.weight[0]],
            convolution.stride,
            convolution.padding,
            (1, 1, 1),
            False,
            (0, 0, 0),
            1,
            wanted,
        )
    return [None if each is None else each.to(torch.bfloat16) for each in found]


@contextlib.contextmanager
def _computing(route: Route) -> Iterator[torch.dtype]:
    """Set oneDNN up for a route and give the type that it computes in."""
    with without_onednn() if route == "float32 without oneDNN" else contextlib.nullcontext():
        yield torch.bfloat16 if route == "bfloat16" else torch.float32


@contextlib.contextmanager
def without_onednn() -> Iterator[None]:
    """Leave convolutions on the CPU to torch's own kernels; ``mkldnn.flags`` does the same but warns of GPUs."""
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before


class Rerouted(torch.autograd.Function):
    """A convolution whose parts take different routes."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        convolution: Convolution,
        routes: dict[Part, Route],
    ) -> Tensor:
        """Return the output."""
        ctx.save_for_backward(x, weight)
        ctx.convolution, ctx.routes = convolution, routes
        return convolve(routes.get("output", "bfloat16"), convolution, x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *incoming: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of input, weight and bias."""
        (gradient,) = incoming
        x, weight = ctx.saved_tensors
        of_input, of_weight, of_bias = ctx.needs_input_grad[:3]

        def found(part: Part, wanted: list[bool]) -> list[Tensor | None]:
            route = ctx.routes.get(part, "bfloat16")
            return gradients(route, ctx.convolution, gradient, x, weight, wanted)

        to_x, _, _ = found("input gradient", [of_input, False, False]) if of_input else (None, None, None)
        _, to_weight, to_bias = found("weight gradient", [False, of_weight, of_bias])
        return to_x, to_weight, to_bias, None, None


def by(sides: Sequence[int]) -> str:
    """Write sides as 64x64x32."""
    return "x".join(map(str, sides))
