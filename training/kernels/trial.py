"""Trying a convolution on input whose right answers are known in closed form."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import get_args

import torch
from torch import Tensor

from training.kernels.convolution import Convolution, Part, Route, convolve, gradients

TOLERANCE = 0.02
"""Of a value plus the root mean square of all; bfloat16 rounds to 0.002 of a value, and sums are float32."""

_LEVELS = (1.0, 2.0, -0.5)
"""Powers of two: products of them are exact in bfloat16. Unlike signs, but a sum of them seldom cancels."""

_SPOILT = 2**20
"""At most this many numbers in one block; large buffers are made of fresh pages anyway, or are input or output."""

_REPEATED = 2**20
"""Up to so many numbers of input a convolution is tried twice; what depends on chance shows in small features."""

_POSITIONS = 6
"""Along x and along y, where output and input gradient are compared; along z all are."""


class Trial:
    """A convolution of products of vectors, one for each axis: all that it computes is known in closed form.

    The input is ``a[n, c] u[n, i] v[n, j] w[n, k]``, and so is the incoming gradient; the weight and the bias are
    random. A kernel goes through all its work, and what it must return costs three small matrix products.
    """

    def __init__(self, convolution: Convolution) -> None:
        self.convolution = convolution
        random = torch.Generator().manual_seed(0)  # not torch's own, on which the run's dropout rests
        batch = convolution.shape[0]
        out = convolution.weight[0]
        self.input = [_levels(batch, size, random) for size in convolution.shape[1:]]
        self.gradient = [_levels(batch, size, random) for size in (out, *convolution.output_sides)]
        scale = 1 / math.sqrt(math.prod(convolution.weight[1:]))
        self.weight = (torch.randn(convolution.weight, generator=random) * scale).bfloat16()
        self.bias = _levels(1, out, random)[0].bfloat16() if convolution.bias else None
        layout = torch.channels_last_3d if convolution.channels_last else torch.contiguous_format
        self.x = _product(self.input).bfloat16().contiguous(memory_format=layout)
        self.weight = self.weight.contiguous(memory_format=layout)
        self.incoming = _product(self.gradient).bfloat16().contiguous(memory_format=layout)
        self.expected = self._expected()

    def wrong_parts(self, route: Route) -> set[Part]:
        """Return what a route computes wrongly, or differently each time, or cannot compute here at all.

        What bfloat16 cannot be trusted with (:attr:`Convolution.overhung`) counts as wrong and is not computed.
        """
        try:
            first = self._compute(route)
            second = self._compute(route) if self.x.numel() <= _REPEATED else first
        except RuntimeError:  # of oneDNN: "does not support bf16 backward on the platform"
            if route != "bfloat16":
                raise
            return set(get_args(Part))
        wrong: set[Part] = {"weight gradient"} if route == "bfloat16" and self.convolution.overhung else set()
        for part, one, other, expected in zip(_PARTS, first, second, self.expected, strict=True):
            if one is None or other is None:
                continue
            right = torch.equal(one, other) and math.isfinite(one.sum(dtype=torch.float32))
            if not right or not _alike(_compared(part, one), expected):
                wrong.add(part)
        return wrong

    def _compute(self, route: Route) -> list[Tensor | None]:
        """Return the output and the gradients of input, weight and bias, as training makes them."""
        convolution = self.convolution
        spoil_freed_memory(each.numel() for each in (self.x, self.weight, self.incoming))
        if route != "bfloat16":
            output = convolve(route, convolution, self.x, self.weight, self.bias)
            wanted = [True, True, convolution.bias]
            return [output, *gradients(route, convolution, self.incoming, self.x, self.weight, wanted)]
        x, weight = self.x.detach().requires_grad_(), self.weight.detach().requires_grad_()
        bias = None if self.bias is None else self.bias.detach().requires_grad_()
        with torch.enable_grad():
            output = torch.conv3d(x, weight, bias, convolution.stride, convolution.padding)
        leaves = [x] if convolution.overhung else [each for each in (x, weight, bias) if each is not None]
        found = torch.autograd.grad(output, leaves, self.incoming)
        return [output.detach(), *found, *[None] * (3 - len(leaves))]

    def _expected(self) -> list[Tensor]:
        """Return the right values of what :func:`_compared` keeps."""
        convolution, weight = self.convolution, self.weight.float()
        (a, *along), (h, *back) = self.input, self.gradient
        taps = [
            _taps(*sizes)
            for sizes in zip(
                convolution.shape[2:],
                convolution.output_sides,
                convolution.weight[2:],
                convolution.stride,
                convolution.padding,
                strict=True,
            )
        ]
        forth = [torch.einsum("tij,ni->ntj", tap, each) for tap, each in zip(taps, along, strict=True)]
        returned = [torch.einsum("tij,nj->nti", tap, each) for tap, each in zip(taps, back, strict=True)]
        sums = [torch.einsum("ntj,nj->nt", each, other) for each, other in zip(forth, back, strict=True)]
        spread = "nmxyz,nxi,nyj,nzk->nmijk"
        outward = torch.einsum("mcxyz,nc->nmxyz", weight, a)
        output = torch.einsum(spread, outward, _few(forth[0]), _few(forth[1]), forth[2])
        if self.bias is not None:
            output = output + self.bias.float()[:, None, None, None]
        inward = torch.einsum("cmxyz,nc->nmxyz", weight, h)
        return [
            output,
            torch.einsum(spread, inward, _few(returned[0]), _few(returned[1]), returned[2]),
            torch.einsum("no,nc,nx,ny,nz->ocxyz", h, a, *sums),
            torch.einsum("no,n,n,n->o", h, *(each.sum(1) for each in back)),
        ]


_PARTS: tuple[Part, ...] = ("output", "input gradient", "weight gradient", "weight gradient")
"""Of output, input's, weight's and bias's gradient."""


def spoil_freed_memory(sizes: Iterable[int]) -> None:
    """Leave NaN where the next buffers will lie: a kernel that reads what it never wrote would find zeros there.

    Parameters
    ----------
    sizes : iterable of int
        How many numbers the buffers may hold, beside the small ones.
    """
    sizes = (*(2**power for power in range(6, 16)), *(min(size, _SPOILT) for size in sizes))
    blocks = [torch.full((size,), math.nan) for size in sizes]
    del blocks


def _levels(batch: int, size: int, random: torch.Generator) -> Tensor:
    return torch.tensor(_LEVELS)[torch.randint(len(_LEVELS), (batch, size), generator=random)]


def _product(vectors: list[Tensor]) -> Tensor:
    """Return the outer product of (B, C), (B, H), (B, W) and (B, D)."""
    a, u, v, w = vectors
    plane = (v[:, :, None] * w[:, None]).bfloat16()
    return (a[:, :, None] * u[:, None]).bfloat16()[..., None, None] * plane[:, None, None]


def _taps(inside: int, outside: int, kernel: int, stride: int, padding: int) -> Tensor:
    """Return, (kernel, inside, outside), which input voxel each tap reads for which output voxel."""
    tap, i, j = torch.meshgrid(*map(torch.arange, (kernel, inside, outside)), indexing="ij")
    return (i == j * stride + tap - padding).float()


def _positions(size: int) -> Tensor:
    """Return a few indices of an axis, both ends among them."""
    return torch.linspace(0, size - 1, min(size, _POSITIONS)).round().long()


def _few(read: Tensor) -> Tensor:
    return read[:, :, _positions(read.shape[2])]


def _compared(part: Part, value: Tensor) -> Tensor:
    """Return what is compared of a result: every channel of a few rows; of the weight's gradient all."""
    if part == "weight gradient":
        return value.float()
    x, y = (_positions(size) for size in value.shape[2:4])
    return value[:, :, x][:, :, :, y].float()


def _alike(got: Tensor, expected: Tensor) -> bool:
    allowed = TOLERANCE * (expected.abs() + expected.square().mean().sqrt())
    return bool(((got - expected).abs() <= allowed).all())
