"""The start of a run: try its convolutions, and prove that this machine's gradients are those of float32."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import itertools
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from algorithm.network.architecture import STRIDE, Architecture
from algorithm.network.h2aseg import H2ASeg
from training.kernels.convolution import KernelError, by, without_onednn
from training.kernels.routing import Kernels

LEAST_COSINE = {torch.bfloat16: 0.5, torch.float16: 0.5, None: 0.99}
"""Of each weight's gradient with that of float32, by the type of the run. What bfloat16 rounds away is blown up by
every normalisation on the way, above all in weights whose gradients are small; a wrong kernel gives 0 or NaN."""

LEAST_COSINE_OF_ALL = 0.95
"""Of all gradients as one vector, whose length must not differ by more than a tenth."""

_DRAWS = 3
"""A gradient that rounding spoils for one random network is right for another; a wrong kernel's never is."""

_DEEPEST_VOXELS = 8
"""Of the crop at the deepest level, where normalising fewer leaves little but rounding."""

_OTHERS = "biases and slopes"
_LOSS_SCALE = 1024.0
"""Of float16, whose smallest gradients would vanish."""


@dataclass(frozen=True)
class Proof:
    """What is known of the gradients of a run.

    Attributes
    ----------
    kernels : Kernels
        To be entered around each forward pass.
    report : tuple of str
        Lines for the log.
    """

    kernels: Kernels
    report: tuple[str, ...]


def proven_kernels(
    architecture: Architecture,
    patch: tuple[int, int, int],
    batch: int,
    dtype: torch.dtype | None,
    device: torch.device,
    say: Callable[[str], None],
) -> Kernels:
    """Return kernels with which this machine's gradients are right; say which, and how they were found, once.

    Parameters
    ----------
    architecture : Architecture
    patch : tuple of int
        Voxels along x, y, z.
    batch : int
        Crops in this process's share of a step.
    dtype : torch.dtype or None
        What ``torch.autocast`` computes in.
    device : torch.device
    say : callable

    Raises
    ------
    KernelError
        They cannot be made right.
    """
    before = _proof.cache_info().misses
    proof = _proof(architecture, patch, batch, dtype, device, torch.get_num_threads())
    if _proof.cache_info().misses > before:
        for line in proof.report:
            say(line)
    return proof.kernels


def prove(
    architecture: Architecture,
    patch: tuple[int, int, int],
    batch: int,
    dtype: torch.dtype | None,
    device: torch.device,
) -> Proof:
    """Find the kernels of a run and prove its gradients; see :func:`proven_kernels`."""
    start = time.perf_counter()
    kernels = Kernels(dtype)
    crop = smallest_crop(architecture)
    name, cosine = prove_gradients(kernels, architecture, crop, device)
    of_run = {
        dataclasses.replace(
            each,
            shape=(
                batch,
                each.shape[1],
                *(s * p // c for s, p, c in zip(each.shape[2:], patch, crop, strict=True)),
            ),
        )
        for each in tuple(kernels.routes)
    }
    routes = {each: kernels.route(each) for each in sorted(of_run, key=str)}
    lines = []
    if routes:
        slow = [(each, part, route) for each, found in routes.items() for part, route in found.items()]
        verdict = "some need slower kernels:" if slow else "the fast kernels are right"
        lines.append(
            f"{describe_processor()}: {len(routes)} convolutions of {batch} x {by(patch)} voxels tried, {verdict}"
        )
        lines += [f"  {route} for the {part} of {each}" for each, part, route in slow]
    lines.append(
        f"gradients are those of float32 (least cosine {cosine:.3f}, {name}); "
        f"found in {time.perf_counter() - start:.1f} s"
    )
    return Proof(kernels, tuple(lines))


_proof = functools.cache(lambda *key: prove(*key[:-1]))


def prove_gradients(
    kernels: Kernels, architecture: Architecture, crop: tuple[int, int, int], device: torch.device
) -> tuple[str, float]:
    """Compare all gradients of random networks on a crop with those of float32 on the CPU.

    Returns
    -------
    tuple of str and float
        The parameter whose gradient is least alike, and its cosine.

    Raises
    ------
    KernelError
        A gradient is not finite, or is another than that of float32.
    """
    rounded = kernels.dtype is not None or device.type == "cuda"  # where float32 may be TF32
    least = LEAST_COSINE[torch.bfloat16 if rounded else None]
    best: dict[str, float] = {}
    for seed in range(_DRAWS):
        for name, cosine in _cosines(kernels, architecture, crop, device, seed).items():
            best[name] = max(cosine, best.get(name, -1.0))
        wrong = {name: each for name, each in best.items() if each < (least if name else LEAST_COSINE_OF_ALL)}
        if not wrong:
            name = min(best, key=lambda name: best[name])
            return name, best[name]
    name, cosine = min(wrong.items(), key=lambda item: item[1])
    whose = f"that of {name}" if name else "all together"
    raise KernelError(
        f"this machine's gradients are not those of float32, {whose} with a cosine of {cosine:.2f}; "
        f"{_way_out(kernels.dtype)}"
    )


def _cosines(
    kernels: Kernels, architecture: Architecture, crop: tuple[int, int, int], device: torch.device, seed: int
) -> dict[str, float]:
    """Return how alike each weight's gradients are; under an empty name those of all parameters together."""
    with torch.random.fork_rng(devices=[]):  # the run's own numbers stay what they were
        torch.manual_seed(seed)
        network = H2ASeg(dataclasses.replace(architecture, dropout=0.0)).train()
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2, 1, 1, *(side // 8 for side in crop), generator=random)
    ct, pet = (F.interpolate(image, scale_factor=8, mode="trilinear") for image in coarse)
    truth = (pet > pet.mean()).to(torch.uint8)
    cpu = torch.device("cpu")
    plain = device == cpu and kernels.dtype is None
    with without_onednn() if plain else contextlib.nullcontext():
        expected = _gradients(Kernels(None), copy.deepcopy(network), ct, pet, truth, cpu)
    got = _gradients(kernels, network, ct, pet, truth, device)
    spoilt = [name for name, value in got.items() if not bool(value.isfinite().all())]
    if spoilt:
        raise KernelError(
            f"on this machine {len(spoilt)} of {len(got)} gradients are not finite, among them {spoilt[0]}'s; "
            f"{_way_out(kernels.dtype)}"
        )
    together = [_joined(each) for each in (got, expected)]
    length = float(together[0].norm() / together[1].norm())
    cosines = {name: _cosine(got[name], expected[name]) for name in expected if expected[name].ndim > 1}
    others = [{name: each[name] for name in each if each[name].ndim <= 1} for each in (got, expected)]
    cosines[_OTHERS] = _cosine(*map(_joined, others))
    cosines[""] = _cosine(*together) if 0.9 < length < 1.1 else 0.0
    return cosines


def _gradients(
    kernels: Kernels, network: H2ASeg, ct: Tensor, pet: Tensor, truth: Tensor, device: torch.device
) -> dict[str, Tensor]:
    """Return the loss's gradients by parameter, on the CPU, as a training step makes them."""
    layout = torch.contiguous_format if device.type == "cuda" else torch.channels_last_3d
    network.to(device, memory_format=layout)  # type: ignore[call-overload]
    images = (image.to(device, memory_format=layout) for image in (ct, pet))
    with torch.enable_grad():
        with kernels, torch.autocast(device.type, dtype=kernels.dtype, enabled=kernels.dtype is not None):
            logits = network(*images)
        scale = _LOSS_SCALE if kernels.dtype is torch.float16 else 1.0
        target = truth.to(device)[:, 0].long()
        loss = torch.stack([F.cross_entropy(head.float(), target) for head in logits]).sum()
        (loss * scale).backward()  # type: ignore[no-untyped-call]
    found = {name: each.grad for name, each in network.named_parameters() if each.requires_grad}
    return {name: value.float().cpu() / scale for name, value in found.items() if value is not None}


def smallest_crop(architecture: Architecture) -> tuple[int, int, int]:
    """Return a small patch that the network takes, with a few voxels at its deepest level."""
    unit = [math.lcm(STRIDE, 4 * window) if architecture.mcsa else STRIDE for window in architecture.window]
    for factor in itertools.count(1):
        x, y, z = factor * unit[0], unit[1], unit[2]
        if x * y * z >= _DEEPEST_VOXELS * STRIDE**3:
            return x, y, z
    raise AssertionError("factors never end")


def describe_processor() -> str:
    """Return what of this machine's CPU decides over its kernels."""
    has = torch.cpu.get_capabilities()
    parts = [
        str(torch.backends.cpu.get_cpu_capability()),
        "bfloat16" if has.get("avx512_bf16") else "no bfloat16",
        "AMX" if has.get("amx_bf16") else "no AMX",
    ]
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return f"CPU with {', '.join(parts)}" + (f", oneDNN limited to {limit}" if limit else "")


def _way_out(dtype: torch.dtype | None) -> str:
    if dtype is None:
        return "train on another machine, or install another version of torch"
    return "give --precision float32, or set ONEDNN_MAX_CPU_ISA=AVX512_CORE and start again"


def _joined(values: dict[str, Tensor]) -> Tensor:
    return torch.cat([value.flatten() for value in values.values()])


def _cosine(one: Tensor, other: Tensor) -> float:
    return float(F.cosine_similarity(one.flatten(), other.flatten(), 0))
