"""Where and in which number format a network computes: the names that users give, and what they mean here."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from algorithm.errors import DeviceError
from algorithm.inference.precision import PRECISIONS


def choose_device(name: str, *, require_gpu: bool = False, gpu: int | None = None) -> torch.device:
    """Return the device of that name; ``auto`` is a GPU where there is one, else the CPU.

    Parameters
    ----------
    name : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    require_gpu : bool
        Refuse the CPU.
    gpu : int or None
        Which GPU ``auto`` and ``cuda`` mean: a process of several has one of its own. None: torch's current one.

    Raises
    ------
    DeviceError
        There is no such device, or a GPU is required and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and gpu is not None:
        name = f"cuda:{gpu}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"the device must be auto, cpu, cuda or cuda:N, got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"the device must be auto, cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError("no usable GPU was found; start the container with --gpus all, or use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"there is no GPU {device.index}; this machine has {torch.cuda.device_count()}")
    if device.type == "cpu" and require_gpu:
        raise DeviceError(
            "a GPU is required (--require-gpu) but none was found; start the container with --gpus all"
        )
    return device


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the type that inference computes in.

    ``auto`` is float16 on a GPU, bfloat16 on a CPU that is faster in it, else float32.

    Raises
    ------
    DeviceError
        The device cannot compute in the type asked for.
    """
    if precision == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(False):
        raise DeviceError("this GPU does not compute in bfloat16; use --precision float16, float32 or auto")
    if precision == "auto":
        if device.type == "cuda":
            return torch.float16
        return torch.bfloat16 if is_faster_in_bfloat16() else torch.float32
    if precision == "float16" and device.type == "cpu":
        raise DeviceError("float16 needs a GPU; use --precision bfloat16, float32 or auto on a CPU")
    return dtype_of(precision)


def is_faster_in_bfloat16() -> bool:
    """Tell whether this CPU computes windows faster in bfloat16 than in float32.

    It does with AMX, and AMD's do with AVX-512's instructions for bfloat16. Intel's without AMX, such as virtual
    machines that hide it, have these instructions too, but multiply half as fast by them as in float32. Measured
    there: products of 2048x2048 matrices on one core at 79 GFLOP/s against 155, a window of 96x64x64 on two in
    0.77 s against 0.64 (on an AMD EPYC 0.23 s against 0.36). Other CPUs emulate bfloat16.
    """
    if torch.cpu._is_amx_tile_supported():
        return True
    return torch.cpu._is_avx512_bf16_supported() and processor_fields().get("vendor_id") == "AuthenticAMD"


def dtype_of(precision: str) -> torch.dtype:
    """Return torch's type of a precision's name other than ``auto``; raises ValueError for any other."""
    if precision not in PRECISIONS or precision == "auto":
        raise ValueError(f"the precision must be one of {', '.join(PRECISIONS[1:])}, got {precision!r}")
    dtype: torch.dtype = getattr(torch, precision)
    return dtype


def precision_of(dtype: torch.dtype) -> str:
    """Return the name of a type: ``float32`` and so on."""
    return str(dtype).removeprefix("torch.")


def device_name(device: torch.device) -> str:
    """Return the GPU's model, or ``cpu``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def processor_fields() -> dict[str, str]:
    """Return the fields of the first processor in ``/proc/cpuinfo``; none where there is no such file."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def processor_name() -> str:
    """Return the processor's model where Linux tells it, else its architecture."""
    return processor_fields().get("model name") or platform.processor() or platform.machine()


def peak_memory_mib(device: torch.device) -> float | None:
    """Return the most device memory that was in use since :func:`forget_peak_memory`; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None


def forget_peak_memory(device: torch.device) -> None:
    """Start measuring the peak of the device's memory anew, so that each case reports its own."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
