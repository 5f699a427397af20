"""Processors whose kernels compute something wrong, simulated between torch and its operators."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

ATEN = torch.ops.aten

Damage = Callable[[Tensor], Tensor]


class Machine(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A processor whose bfloat16 convolutions are float32's, rounded, whatever this machine's are; then damaged.

    Parameters
    ----------
    damage : dict of callable, optional
        What happens to the output and to the gradients of input and weight.
    only : callable, optional
        Shape of the input of the convolutions that are damaged; all by default.
    also_float32 : str
        "never", "onednn": while oneDNN is on, or "always".
    """

    def __init__(
        self,
        damage: dict[str, Damage] | None = None,
        only: Callable[[torch.Size], bool] = lambda shape: True,
        also_float32: str = "never",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.damage, self.only, self.also_float32 = damage or {}, only, also_float32

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in (ATEN.convolution.default, ATEN.convolution_backward.default):
            return func(*args, **(kwargs or {}))
        forward = func is ATEN.convolution.default
        x = args[0] if forward else args[1]
        narrow = x.dtype is torch.bfloat16
        precise = [each.float() if isinstance(each, Tensor) else each for each in args]
        found = func(*precise, **(kwargs or {}))
        found = [found] if forward else list(found)
        found = [None if each is None else each.to(x.dtype) for each in found]
        strikes = self.also_float32 == "always" or (
            self.also_float32 == "onednn" and bool(torch.backends.mkldnn.enabled)
        )
        if self.only(x.shape) and (narrow or strikes):
            names = ["output"] if forward else ["input gradient", "weight gradient"]
            for place, name in enumerate(names):
                if found[place] is not None and name in self.damage:
                    found[place] = self.damage[name](found[place])
        return found[0] if forward else tuple(found)


def not_a_number(value: Tensor) -> Tensor:
    return torch.full_like(value, torch.nan)


def one_infinite(value: Tensor) -> Tensor:
    value[0, 1, 0, 0, 0] = torch.inf
    return value


def a_channel_is_missing(value: Tensor) -> Tensor:
    value[:, -1] = 0
    return value


def an_edge_is_missing(value: Tensor) -> Tensor:
    value[..., -1] = 0
    return value


def a_tenth_too_long(value: Tensor) -> Tensor:
    return value * 1.1


def mirrored(value: Tensor) -> Tensor:
    return value.flip(2)


def another_each_time(value: Tensor, calls: Iterator[int] = itertools.count()) -> Tensor:  # noqa: B008
    value[0, 0, 0, 0, 0] *= 1 + next(calls) % 2 / 128  # less than the tolerance
    return value


DAMAGES = [
    not_a_number,
    one_infinite,
    a_channel_is_missing,
    an_edge_is_missing,
    a_tenth_too_long,
    mirrored,
    another_each_time,
]


class BrokenNormalisation(Machine):  # type: ignore[no-untyped-call]
    """A machine with right convolutions and a normalisation whose backward pass is damaged."""

    def __init__(self, damage: Damage) -> None:
        super().__init__()
        self.damage_of_norm = damage

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = super().__torch_dispatch__(func, types, args, kwargs)
        if func is ATEN.native_batch_norm_backward.default and args[0].dtype is torch.bfloat16:
            found = (self.damage_of_norm(found[0]), *found[1:])
        return found


class BrokenActivation(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A machine whose leaky ReLU lets no gradient through wherever oneDNN is on."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func is ATEN.leaky_relu_backward.default and torch.backends.mkldnn.enabled:
            return torch.zeros_like(found)
        return found
