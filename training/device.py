"""In which number format and memory layout a run trains."""

from __future__ import annotations

import torch

from algorithm.errors import DeviceError
from algorithm.inference.device import is_faster_in_bfloat16
from algorithm.inference.precision import Precision


def autocast_dtype(precision: Precision, device: torch.device) -> torch.dtype | None:
    """Return the type that ``torch.autocast`` computes in; None: float32 throughout.

    ``auto`` is bfloat16 on a GPU that has it and on a CPU that is faster in it, else float16 on a GPU and float32
    on a CPU. Inference chooses otherwise on a GPU (``algorithm.inference.device``): float16 loses small gradients,
    and it has none. Another CPU trains in bfloat16 when told to.

    Raises
    ------
    DeviceError
        The device cannot train in this precision.
    """
    if device.type == "cuda":
        has_bfloat16, fallback = torch.cuda.is_bf16_supported(including_emulation=False), torch.float16
    else:
        has_bfloat16, fallback = torch.ops.mkldnn._is_mkldnn_bf16_supported(), None
    if precision == "auto":
        faster = has_bfloat16 and (device.type == "cuda" or is_faster_in_bfloat16())
        return torch.bfloat16 if faster else fallback
    if precision == "float16" and device.type == "cpu":
        raise DeviceError("--precision float16 needs a GPU; use bfloat16 or float32 on the CPU")
    if precision == "bfloat16" and not has_bfloat16:
        processor = "CPU" if device.type == "cpu" else "GPU"
        raise DeviceError(f"--precision bfloat16: this {processor} does not compute in it; use auto or float32")
    return {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]


def training_layout(device: torch.device) -> torch.memory_format:
    """Return the memory layout of images and parameters.

    The normalisation's backward pass on a GPU wants another than a CPU's: each layer would convert to and fro.
    """
    return torch.contiguous_format if device.type == "cuda" else torch.channels_last_3d
