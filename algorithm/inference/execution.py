"""How a case is computed on a device, and what is left to try where the device's memory is too small for it."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from algorithm.errors import ResourceError
from algorithm.network.h2aseg import H2ASeg

_LARGEST_BATCH = 8  # windows at a time on a GPU; a CPU is fastest with one


@dataclass(frozen=True)
class Execution:
    """How the windows of a case are computed.

    Attributes
    ----------
    device : torch.device
    dtype : torch.dtype
        From :func:`algorithm.inference.device.choose_dtype`.
    batch : int
        Windows at a time.
    store : torch.device
        Where the volumes and the sums lie.
    """

    device: torch.device
    dtype: torch.dtype
    batch: int
    store: torch.device

    @classmethod
    def fastest(cls, device: torch.device, dtype: torch.dtype) -> Execution:
        """Return what is tried first."""
        return cls(device, dtype, batch=_LARGEST_BATCH if device.type == "cuda" else 1, store=device)

    def with_less_memory(self) -> tuple[Execution, str]:
        """Return the next step down in device memory, and the sentence that says so; ResourceError after the last.

        First fewer windows at a time, down to one, then the host's memory for the volumes and the sums.
        """
        if self.batch > 1:
            batch = self.batch // 2
            note = f"the device's memory is too small; {batch} windows at a time are used"
            return replace(self, batch=batch), note
        if self.store.type != "cpu":
            note = "the device's memory is too small for the volume; the host accumulates the probability"
            return replace(self, store=torch.device("cpu")), note
        raise ResourceError("the device's memory does not hold one window; free the device, or use --device cpu")

    def release_memory(self) -> None:
        """Give the device's unused memory back, so that smaller blocks can be made of it."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def to_device(self, x: Tensor) -> Tensor:
        """Return windows ``(N, 1, H, W, D)`` where and in the layout in which the network takes them."""
        if self.device.type == "cuda":
            return x.to(self.device)
        return x.to(memory_format=torch.channels_last_3d)

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which the network computes."""
        if self.device.type != "cuda":
            return nullcontext()
        if self.dtype == torch.float32:  # cuDNN would round the factors of its products to 10 bits
            return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        return torch.autocast("cuda", dtype=self.dtype)

    def synchronise(self) -> None:
        """Wait until the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def place(network: H2ASeg, device: torch.device, dtype: torch.dtype, *, everywhere: bool = False) -> H2ASeg:
    """Return a copy of a network where and how it will compute.

    ``everywhere`` is for checkpoints that proved all their levels in this type
    (:class:`algorithm.description.PrecisionProof`): on a CPU all parameters are cast, on a GPU the attention
    follows autocast as the rest does.

    For any other, on a CPU the parameters of the finest decoder level alone are cast: it moves the most bytes, and
    nothing follows that would blow its rounding up. Everything before stays in float32, because the scores of an
    attention trained without a limit reach thousands, and what is rounded off decides which voxels attend to one
    another. With everything but the attention in bfloat16, masks of low uptake differ visibly from those in
    float32. On a GPU all stay in float32 and autocast chooses what is safe in float16; the attention leaves it for
    the same reason.

    The network is not compiled: ``torch.compile`` took 296 s for a window of 64x64x32 on two CPU cores, longer
    than AutoPET's limit, and made it slower (0.32 s against 0.23 s at the time, 0.10 s since); it would also need
    a compiler in the image.
    """
    placed = copy.deepcopy(network)
    if device.type == "cuda":
        for attention in placed.attentions().values():
            attention.follows_autocast = everywhere
        return placed.to(device)
    for part in [placed] if everywhere else placed.finest_level():
        part.to(dtype=dtype)
    placed.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return placed


def is_out_of_memory(error: BaseException) -> bool:
    """Tell errors for want of device memory, which cuDNN has its own words for, from all others."""
    telling = ("out of memory", "ALLOC_FAILED", "unable to find an engine")
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in telling)
