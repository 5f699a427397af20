"""A way to compute windows, of the several that give the same answer: what tuning chooses and a file keeps."""

from __future__ import annotations

from dataclasses import dataclass

from algorithm.inference.precision import PRECISIONS

MOST_WINDOWS = 256
"""At a time; more than any device is faster with."""

MOST_THREADS = 4096


@dataclass(frozen=True)
class Tuning:
    """How windows are computed on a device.

    Attributes
    ----------
    precision : str
        ``float32``, ``bfloat16`` or ``float16``.
    batch : int
        Windows at a time.
    channels_last : bool
        Channels lie beside one another in memory; else voxels do.
    threads : int or None
        That torch computes with, in the whole process; None leaves them, as on a GPU.
    cudnn_benchmark : bool
        Let cuDNN try its algorithms on each new shape. What it takes may differ from process to process, and with
        it the last digits.
    cuda_graph : bool
        Record the network's kernels once and send them to the GPU as one.
    """

    precision: str
    batch: int
    channels_last: bool
    threads: int | None = None
    cudnn_benchmark: bool = False
    cuda_graph: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS[1:]:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS[1:])}, got {self.precision!r}")
        if not 1 <= self.batch <= MOST_WINDOWS:
            raise ValueError(f"batch must lie between 1 and {MOST_WINDOWS}, got {self.batch}")
        if self.threads is not None and not 1 <= self.threads <= MOST_THREADS:
            raise ValueError(f"threads must lie between 1 and {MOST_THREADS}, got {self.threads}")

    def __str__(self) -> str:
        """Return a line for the log: ``bfloat16, 2 windows at a time, channels last, 4 threads``."""
        parts = [self.precision, f"{self.batch} window{'' if self.batch == 1 else 's'} at a time"]
        parts.append("channels last" if self.channels_last else "channels first")
        if self.threads is not None:
            parts.append(f"{self.threads} thread{'' if self.threads == 1 else 's'}")
        parts += ["cuDNN's benchmark"] if self.cudnn_benchmark else []
        parts += ["CUDA graph"] if self.cuda_graph else []
        return ", ".join(parts)
