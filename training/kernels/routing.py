"""Sending each convolution of a forward pass, and its gradients, to a kernel that is right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import torch
from torch import Tensor
from torch.nn.modules.utils import _triple
from torch.overrides import TorchFunctionMode

from training.kernels.convolution import Convolution, KernelError, Part, Rerouted, Route, Triple
from training.kernels.trial import Trial


class Kernels(TorchFunctionMode):
    """Routes every three-dimensional bfloat16 convolution on the CPU inside its ``with`` block.

    A convolution that it has not met is tried first. Gradients take the same routes, wherever ``backward`` is
    called.

    Parameters
    ----------
    dtype : torch.dtype or None
        What ``torch.autocast`` computes in; only bfloat16 is routed.
    """

    def __init__(self, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.dtype = dtype
        self.routes: dict[Convolution, dict[Part, Route]] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute a torch function, a convolution by its routes."""
        if func is torch.conv3d and self.dtype is torch.bfloat16 and args[0].device.type == "cpu":
            return self._convolve(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _convolve(
        self,
        func: Callable[..., Any],
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | Triple = 1,
        padding: int | Triple = 0,
        dilation: int | Triple = 1,
        groups: int = 1,
    ) -> Tensor:
        if _triple(dilation) != (1, 1, 1) or groups != 1:
            raise NotImplementedError("convolutions with dilation or groups cannot be tried yet")
        convolution = Convolution(
            tuple(x.shape),
            tuple(weight.shape),
            bias is not None,
            _triple(stride),
            _triple(padding),
            x.is_contiguous(memory_format=torch.channels_last_3d),
            torch.get_num_threads(),
        )
        result: Tensor
        routes = self.route(convolution)
        if not routes:
            result = func(x, weight, bias, stride, padding)
            return result
        cast = [None if each is None else each.to(torch.bfloat16) for each in (x, weight, bias)]
        with torch.autocast("cpu", enabled=False):
            result = Rerouted.apply(*cast, convolution, routes)  # type: ignore[no-untyped-call]
        return result

    def route(self, convolution: Convolution) -> dict[Part, Route]:
        """Return the parts that must not be left to oneDNN's bfloat16, and how to compute them.

        Raises
        ------
        KernelError
            No route computes them rightly.
        """
        if convolution not in self.routes:
            self.routes[convolution] = choose_routes(convolution)
        return self.routes[convolution]


def choose_routes(convolution: Convolution) -> dict[Part, Route]:
    """Try a convolution in bfloat16 and return a slower, right route for each part that is wrong or never tried.

    Raises
    ------
    KernelError
        No route computes a part rightly.
    """
    routes: dict[Part, Route] = {}
    with torch.no_grad(), torch.autocast("cpu", enabled=False):  # where the first pass of a network meets it
        trial = Trial(convolution)
        fastest, *slower = get_args(Route)
        wrong = trial.wrong_parts(fastest)
        for route in slower:
            if wrong:
                still = trial.wrong_parts(route)
                routes |= dict.fromkeys(wrong - still, route)
                wrong &= still
    if wrong:
        raise KernelError(
            f"no kernel on this machine computes the {' and the '.join(sorted(wrong))} of the convolution "
            f"{convolution} rightly; train on another machine, or install another version of torch"
        )
    return routes
