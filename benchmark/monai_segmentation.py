"""The same case by MONAI's ``sliding_window_inference`` over the plain network, as the published form is run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from numpy.typing import NDArray
from torch import Tensor

from algorithm.images import read_pet_ct
from algorithm.inference.augmentation import Flip, flip_order
from algorithm.inference.windows import cut_box, fit_box, paste_box
from algorithm.network.h2aseg import tumour_probability
from algorithm.preprocessing import prepare
from algorithm.segmentation import mask_on
from algorithm.weights import load_checkpoint
from benchmark.forward import Network, plain
from benchmark.machine import synchronise
from benchmark.process import MIB, Answer, Measure, peak_host_mib

_BATCH = {"cpu": 1, "cuda": 8}  # windows at a time, as the product takes them


def monai(
    weights: str,
    ct: str,
    pet: str,
    flips: int,
    precision: str,
    device: str,
    box: bool,
    save: str,
    only: int | None,
) -> Measure:
    """Return a task like :func:`benchmark.segmentation.product`; ``only``: compute so many windows.

    Reading, preparing and the mask are the product's, so that only the passes differ. Windows are mirrored where
    they lie and tumour probabilities are averaged, as in the product. With ``only``, MONAI gets zeros for the
    windows beyond, and the time that the network would have taken for them is added: the mean of those computed,
    the first batch left out. MONAI's own work and memory are measured in full.
    """
    checkpoint = load_checkpoint(Path(weights))
    how = checkpoint.description

    def measure() -> Answer:
        began = time.perf_counter()
        pair = read_pet_ct(Path(ct), Path(pet))
        case = prepare(pair, how)
        x, y, z = case.ct.shape
        part = case.body if box else (slice(0, x), slice(0, y), slice(0, z))
        part = fit_box(part, case.ct.shape, how.patch)
        modalities = ((case.ct, case.ct_outside), (case.pet, case.pet_outside))
        images = np.stack([cut_box(volume, part, how.patch, outside) for volume, outside in modalities])
        prepared = time.perf_counter()
        windows = _Windows(plain(checkpoint, getattr(torch, precision), device), device, only)
        mirrored = flip_order(flips, how.flip_dimensions)
        probability = _average(images, windows, how.patch, how.overlap, mirrored)
        predicted = time.perf_counter()
        whole = paste_box(probability, part, case.ct.shape)
        whole[~case.matter] = 0
        mask = mask_on(whole, case.grid, pair.pet, how)
        ended = time.perf_counter()
        np.save(save, mask)
        return {
            "seconds": ended - began + windows.skipped_s,
            "predict_s": predicted - prepared + windows.skipped_s,
            "windows": windows.seen // len(mirrored),
            "computed": windows.computed,
            "passes": len(mirrored),
            "host_mib": peak_host_mib(),
            "above_inputs_mib": peak_host_mib() - 2 * 4 * mask.size / MIB,
            "device_mib": torch.cuda.max_memory_allocated() / MIB if device == "cuda" else None,
        }

    return measure


class _Windows:
    """The network as MONAI's predictor: counts windows, and after so many gives zeros."""

    def __init__(self, network: Network, device: str, only: int | None) -> None:
        self.network = network
        self.device = device
        self.only = only
        self.flip: Flip = ()
        self.seen = 0
        self.computed = 0
        self._seconds_per_window: list[float] = []

    def __call__(self, images: Tensor) -> Tensor:
        """Map (N, 2, H, W, D), CT and PET, to the tumour probability (N, 1, H, W, D)."""
        self.seen += len(images)
        if self.only is not None and self.computed >= self.only:
            return torch.zeros_like(images[:, :1])
        began = time.perf_counter()
        axes = [axis + 2 for axis in self.flip]
        images = images.flip(axes)
        probability = tumour_probability(self.network(images[:, :1], images[:, 1:])).float().flip(axes)
        synchronise(self.device)
        self._seconds_per_window.append((time.perf_counter() - began) / len(images))
        self.computed += len(images)
        return probability

    @property
    def skipped_s(self) -> float:
        """Seconds that the network would have taken for the windows not computed."""
        return (self.seen - self.computed) * statistics.mean(
            self._seconds_per_window[1:] or self._seconds_per_window
        )


@torch.inference_mode()
def _average(
    images: NDArray[np.float32], windows: _Windows, patch: tuple[int, ...], overlap: float, flips: Sequence[Flip]
) -> NDArray[np.float32]:
    """Return the tumour probability (x, y, z) of CT and PET (2, x, y, z), averaged over the flips."""
    inputs = torch.from_numpy(images)[None].to(windows.device)
    total = torch.zeros_like(inputs[0, 0])
    for windows.flip in flips:
        total += sliding_window_inference(
            inputs, patch, _BATCH[windows.device], windows, overlap, mode="gaussian", sigma_scale=0.125
        )[0, 0]
    return (total / len(flips)).cpu().numpy()
