"""Where a run trains, and in which number format."""

from __future__ import annotations

import os

import torch

from algorithm.errors import DeviceError
from algorithm.network.architecture import STRIDE
from training.recipe import Precision


def choose_device(name: str) -> torch.device:
    """Return the device by its name; ``auto``: this process's GPU where there is one, else the CPU.

    Raises
    ------
    DeviceError
        The device is not there.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DeviceError(f"--device {name}: no CUDA device is there; use --device cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def autocast_dtype(precision: Precision, device: torch.device, patch: tuple[int, int, int]) -> torch.dtype | None:
    """Return the type that ``torch.autocast`` computes in; None: float32 throughout.

    ``auto`` is bfloat16 where the hardware has it, else float16 on a GPU and float32 on a CPU.

    Raises
    ------
    DeviceError
        The device cannot train in this precision.
    """
    if device.type == "cuda":
        has_bfloat16, fallback = torch.cuda.is_bf16_supported(including_emulation=False), torch.float16
    else:
        # oneDNN 3 gives wrong bfloat16 weight gradients, NaN among them, for features of two voxels along x.
        has_bfloat16 = torch.ops.mkldnn._is_mkldnn_bf16_supported() and patch[0] // STRIDE > 2
        fallback = None
    if precision == "auto":
        return torch.bfloat16 if has_bfloat16 else fallback
    if precision == "float16" and device.type == "cpu":
        raise DeviceError("--precision float16 needs a GPU; use bfloat16 or float32 on the CPU")
    if precision == "bfloat16" and not has_bfloat16 and device.type == "cpu":
        raise DeviceError(
            f"--precision bfloat16 needs a CPU that computes in it and a patch of at least {3 * STRIDE} voxels "
            f"along x, got {patch[0]}; use float32"
        )
    return {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
