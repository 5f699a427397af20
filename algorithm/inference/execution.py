"""How a case is computed on a device, and what is left to try where the device's memory is too small for it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from algorithm.errors import ResourceError
from algorithm.inference.device import dtype_of, precision_of
from algorithm.inference.tuning import Tuning
from algorithm.network.h2aseg import H2ASeg

_GPU_BATCH = 8  # windows at a time before anything was tried; a CPU begins with one
_AHEAD = 2  # batches that a GPU is told of before an earlier one is waited for


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
    channels_last, threads, cudnn_benchmark, cuda_graph
        As :class:`algorithm.inference.tuning.Tuning` has them.
    """

    device: torch.device
    dtype: torch.dtype
    batch: int
    store: torch.device
    channels_last: bool = True
    threads: int | None = None
    cudnn_benchmark: bool = False
    cuda_graph: bool = False

    @classmethod
    def fastest(cls, device: torch.device, dtype: torch.dtype) -> Execution:
        """Return what is tried first."""
        on_gpu = device.type == "cuda"
        return cls(device, dtype, _GPU_BATCH if on_gpu else 1, store=device, channels_last=not on_gpu)

    @classmethod
    def tuned(cls, device: torch.device, tuning: Tuning) -> Execution:
        """Return what a tuning says."""
        return cls(
            device,
            dtype_of(tuning.precision),
            tuning.batch,
            device,
            tuning.channels_last,
            tuning.threads,
            tuning.cudnn_benchmark,
            tuning.cuda_graph,
        )

    @property
    def tuning(self) -> Tuning:
        """The same as a tuning; on a CPU with the threads that there are now where none are named."""
        threads = self.threads or (None if self.device.type == "cuda" else torch.get_num_threads())
        return Tuning(
            precision_of(self.dtype),
            self.batch,
            self.channels_last,
            threads,
            self.cudnn_benchmark,
            self.cuda_graph,
        )

    def with_less_memory(self) -> tuple[Execution, str]:
        """Return the next step down in device memory, and the sentence that says so; ResourceError after the last.

        First without what takes memory for speed alone, then fewer windows at a time, down to one, then the host's
        memory for the volumes and the sums.
        """
        if self.cuda_graph or self.cudnn_benchmark:
            note = "the device's memory is too small; CUDA graph and cuDNN's benchmark are not used"
            return replace(self, cuda_graph=False, cudnn_benchmark=False), note
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

    @property
    def ahead(self) -> int:
        """How many batches may be under way at once; a CPU does one after the other."""
        return _AHEAD if self.device.type == "cuda" else 0

    def to_device(self, x: Tensor) -> Tensor:
        """Return windows ``(N, 1, H, W, D)`` where and in the layout in which the network takes them.

        From the host to a GPU they go through pinned memory, so that the copy waits for nothing.
        """
        layout = torch.channels_last_3d if self.channels_last else torch.contiguous_format
        if self.device.type != "cuda":
            return x.to(memory_format=layout)
        if x.device.type == "cpu":
            x = x.pin_memory()
        return x.to(self.device, non_blocking=True, memory_format=layout)

    def to_store(self, x: Tensor) -> Tensor:
        """Return a batch's result where the sums are; from a GPU to the host it is there when its mark is."""
        return x.to(self.store, non_blocking=True)

    def mark(self) -> torch.cuda.Event | None:
        """Return what can be waited for until all that the device was told by now is done; None on a CPU."""
        if self.device.type != "cuda":
            return None
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        return event

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Set up what the network computes in.

        On a GPU float32 means float32: cuDNN would round the factors of its products to 10 bits. In a narrower
        type autocast chooses what is safe; products add up in float32.
        """
        if self.device.type != "cuda":
            yield
            return
        exact = self.dtype == torch.float32
        benchmark = self.cudnn_benchmark or torch.backends.cudnn.benchmark  # training's validation has it on
        narrower = torch.float16 if exact else self.dtype
        with (
            torch.backends.cudnn.flags(enabled=True, benchmark=benchmark, allow_tf32=not exact),
            # Without autocast's cache, which a graph would read after it is gone.
            torch.autocast("cuda", dtype=narrower, enabled=not exact, cache_enabled=False),
        ):
            yield

    def synchronise(self) -> None:
        """Wait until the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def place(network: H2ASeg, device: torch.device, dtype: torch.dtype, *, everywhere: bool = False) -> H2ASeg:
    """Return a copy of a network where and how it will compute.

    ``everywhere`` is for checkpoints that proved all their levels in this type
    (:class:`algorithm.description.PrecisionProof`): on a CPU all parameters are cast but those of
    :meth:`algorithm.network.h2aseg.H2ASeg.exact_parts`, on a GPU the attention follows autocast as the rest does.

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
    if everywhere:
        for kept, given in zip(placed.exact_parts(), network.exact_parts(), strict=True):
            kept.float().load_state_dict(given.state_dict())
    placed.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return placed


def is_out_of_memory(error: BaseException) -> bool:
    """Tell errors for want of device memory, which cuDNN has its own words for, from all others."""
    telling = ("out of memory", "ALLOC_FAILED", "unable to find an engine")
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in telling)
