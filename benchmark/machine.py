"""The machine: what it is, and how fast it multiplies and copies."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from importlib import metadata

import torch
import torch.nn.functional as F

from algorithm.inference.device import processor_fields, processor_name
from algorithm.inference.memory import reuse_freed_memory
from benchmark.process import Answer, Measure

_INSTRUCTION_SETS = (
    "avx2",
    "avx512f",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_bf16",
    "asimd",
    "bf16",
    "sve",
)
_MATRIX_SIDE = {"cpu": 2048, "cuda": 8192}
_CONVOLUTION = {"cpu": (128, 32), "cuda": (256, 64)}  # channels in and out, side
_COPY_BYTES = {"cpu": 2**28, "cuda": 2**31}
_ATTEMPTS = 5


def describe() -> Measure:
    """Return a task that describes the machine, property by property.

    ``cuda`` tells whether it has a GPU, ``threads`` how many torch computes with on the CPU.
    """

    def measure() -> Answer:
        cpu = processor_fields()
        flags = set(cpu.get("flags", cpu.get("Features", "")).split())
        gpus = [
            torch.cuda.get_device_name(index)
            for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
        ]
        return {
            "cuda": bool(gpus),
            "threads": torch.get_num_threads(),
            "CPU": processor_name(),
            "cores": f"{len(os.sched_getaffinity(0))}, of which torch uses {torch.get_num_threads()}",
            "instruction sets": ", ".join(name for name in _INSTRUCTION_SETS if name in flags) or "unknown",
            "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
            "GPU": ", ".join(gpus) or "no GPU here: GPU rows not measured",
            "software": f"Python {platform.python_version()}, torch {torch.__version__}, "
            f"MONAI {metadata.version('monai')}, {' '.join(platform.libc_ver())}, {platform.system()}",
        }

    return measure


def peaks(device: str, precision: str) -> Measure:
    """Return a task that measures the best arithmetic in FLOP/s and the best copy in byte/s.

    Arithmetic is a large square matrix product or a large 3x3x3 convolution, whichever is faster: they come from
    different libraries. Best of several: a floor must not be raised by whatever else the machine does. A copy
    counts both what it reads and what it writes.
    """
    reuse_freed_memory()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32  # as convolutions in float32 do
    side, count = _MATRIX_SIDE[device], _COPY_BYTES[device]
    dtype = getattr(torch, precision)
    matrix, other = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    channels, edge = _CONVOLUTION[device]
    layout = torch.channels_last_3d if device == "cpu" else torch.contiguous_format
    volume, kernels = (
        torch.randn(shape, device=device).to(dtype, memory_format=layout)
        for shape in ((1, channels, edge, edge, edge), (channels, channels, 3, 3, 3))
    )
    convolution_flop = 2 * kernels.numel() * edge**3
    source = torch.ones(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def measure() -> Answer:
        product = 2 * side**3 / _best_seconds(lambda: matrix @ other, device)
        convolution = convolution_flop / _best_seconds(lambda: F.conv3d(volume, kernels, padding=1), device)
        return {
            "flop_per_s": max(product, convolution),
            "byte_per_s": 2 * count / _best_seconds(lambda: target.copy_(source), device),
        }

    return measure


def synchronise(device: str) -> None:
    """Wait until the device has done all it was asked to."""
    if device == "cuda":
        torch.cuda.synchronize()


def _best_seconds(work: Callable[[], object], device: str) -> float:
    seconds = []
    for _ in range(_ATTEMPTS):
        synchronise(device)
        began = time.perf_counter()
        work()
        synchronise(device)
        seconds.append(time.perf_counter() - began)
    return min(seconds)
