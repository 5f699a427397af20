"""The start of a run: try its convolutions, and prove that this machine's gradients are those of float32."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import itertools
import logging
import os
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from algorithm.network.architecture import STRIDE, Architecture
from algorithm.network.h2aseg import H2ASeg
from training.device import training_layout
from training.kernels.convolution import Convolution, KernelError, by, without_onednn
from training.kernels.routing import Kernels
from training.kernels.trial import spoil_freed_memory

log = logging.getLogger(__name__)

LEAST_LIKENESS = 0.99
"""Of each weight's gradient with that of float32: their cosine times the ratio of their lengths, 1 where equal."""

LEAST_LIKENESS_ROUNDED = 0.3
"""The same for narrower types. What they round away is blown up by every normalisation on the way, above all in
weights whose gradients are small; a wrong kernel gives 0 or NaN."""

LEAST_LIKENESS_OF_ALL = 0.9
"""Of all gradients as one vector."""

_DRAWS = 5
"""A gradient that rounding spoils for one random network is right for another; a wrong kernel's never is."""

_DEEPEST_VOXELS = 8
"""Of the crop at the deepest level, where normalising fewer leaves little but rounding."""

_ALL, _OTHERS = "all parameters together", "biases and slopes"
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
) -> AbstractContextManager[object]:
    """Return what to enter around each forward pass so that its gradients are right on this machine.

    Which kernels it takes, and how they were found, is logged once in a process.

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

    Raises
    ------
    KernelError
        They cannot be made right.
    """
    before = _proof.cache_info().misses
    proof = _proof(architecture, patch, batch, dtype, device, torch.get_num_threads())
    if _proof.cache_info().misses > before:
        for line in proof.report:
            log.info(line)
    return proof.kernels if proof.kernels.routes else contextlib.nullcontext()


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
    name, likeness = prove_gradients(kernels, architecture, crop, device)
    of_run = {_enlarged(each, batch, crop, patch) for each in kernels.routes}
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
        f"gradients are those of float32 (least alike, {likeness:.2f}: {name}); "
        f"found in {time.perf_counter() - start:.1f} s"
    )
    return Proof(kernels, tuple(lines))


def _enlarged(
    convolution: Convolution, batch: int, crop: tuple[int, int, int], patch: tuple[int, int, int]
) -> Convolution:
    """Return the convolution of a batch of patches that is this one of the crop: each level is a share of both."""
    _, channels, *sides = convolution.shape
    enlarged = (side * whole // part for side, whole, part in zip(sides, patch, crop, strict=True))
    return dataclasses.replace(convolution, shape=(batch, channels, *enlarged))


_proof = functools.cache(lambda *key: prove(*key[:-1]))


def prove_gradients(
    kernels: Kernels, architecture: Architecture, crop: tuple[int, int, int], device: torch.device
) -> tuple[str, float]:
    """Compare all gradients of random networks on a crop with those of float32 on the CPU.

    Returns
    -------
    tuple of str and float
        The parameter whose gradient is least alike, and how alike it is: 1 is equal.

    Raises
    ------
    KernelError
        A gradient is not finite, or is another than that of float32.
    """
    rounded = kernels.dtype is not None or device.type == "cuda"  # where float32 may be TF32
    least = LEAST_LIKENESS_ROUNDED if rounded else LEAST_LIKENESS
    best: dict[str, float] = {}
    for seed in range(_DRAWS):
        for name, likeness in _likenesses(kernels, architecture, crop, device, seed).items():
            best[name] = max(likeness, best.get(name, -1.0))
        lacking = {
            name: found - (LEAST_LIKENESS_OF_ALL if name == _ALL else least) for name, found in best.items()
        }
        if min(lacking.values()) >= 0:
            break
    name = min(best, key=lambda name: lacking[name])
    if lacking[name] < 0:
        raise KernelError(
            "this machine's gradients are not those of float32 "
            f"(likeness {best[name]:.2f} of {name}, 1 is equal); "
            f"{_way_out(kernels.dtype)}"
        )
    name = min(best, key=lambda name: best[name])
    return name, best[name]


def _likenesses(
    kernels: Kernels, architecture: Architecture, crop: tuple[int, int, int], device: torch.device, seed: int
) -> dict[str, float]:
    """Return how alike the gradients are to those of float32: each weight's, the others' and all together."""
    with torch.random.fork_rng(devices=[]):  # the run's own numbers stay what they were
        torch.manual_seed(seed)
        network = H2ASeg(dataclasses.replace(architecture, dropout=0.0)).train()
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2, 1, 1, *(side // 8 for side in crop), generator=random)
    ct, pet = (F.interpolate(image, scale_factor=8, mode="trilinear") for image in coarse)
    truth = (pet > 0.7).to(torch.uint8)
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
    weights = [name for name, value in expected.items() if value.ndim > 1]
    groups = {name: [name] for name in weights} | {_ALL: list(expected)}
    groups[_OTHERS] = [name for name in expected if name not in groups]
    return {name: _likeness(_joined(got, group), _joined(expected, group)) for name, group in groups.items()}


def _gradients(
    kernels: Kernels, network: H2ASeg, ct: Tensor, pet: Tensor, truth: Tensor, device: torch.device
) -> dict[str, Tensor]:
    """Return the loss's gradients by parameter, on the CPU, as a training step makes them."""
    layout = training_layout(device)
    network.to(device, memory_format=layout)  # type: ignore[call-overload]
    images = (image.to(device, memory_format=layout) for image in (ct, pet))
    spoil_freed_memory(2**power for power in range(16, 21))
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
    unit, y, z = architecture.patch_unit
    for x in itertools.count(unit, unit):
        if x * y * z >= _DEEPEST_VOXELS * STRIDE**3:
            return x, y, z
    raise AssertionError("numbers never end")


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
    return "give --precision float32, or set ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 and start again"


def _joined(values: dict[str, Tensor], names: list[str]) -> Tensor:
    return torch.cat([values[name].flatten() for name in names])


def _likeness(one: Tensor, other: Tensor) -> float:
    return float(one @ other / torch.maximum(one @ one, other @ other))
