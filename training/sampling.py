"""Training batches as a pure function of seed and step: nothing to save, nothing to lose."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from monai.transforms import Compose
from numpy.typing import NDArray
from torch import Tensor

from algorithm.description import Description
from algorithm.images import AIR_HU
from algorithm.preprocessing import normalise
from training.augmentation import build_augmentation, draw_misalignment, draw_turning
from training.cache import CachedCase
from training.mistakes import Place
from training.organ_maps import UNKNOWN
from training.recipe import Augmentation

NO_UPTAKE_SUV = 0.0
_TISSUE_HU = -300.0
PREFETCHED_BATCHES = 2


class Batch(NamedTuple):
    """Crops, each (B, 1, H, W, D) along x, y, z: normalised float32 images, uint8 contours and organs."""

    ct: Tensor
    pet: Tensor
    seg: Tensor
    organs: Tensor


@dataclass(frozen=True)
class Source:
    """Training cases of one data set.

    Attributes
    ----------
    cases : tuple of CachedCase
    share : float
        Of the crops that they give.
    missed, false : tuple of (CachedCase, Place)
        Places in these cases where another network erred: missed lesions, and pieces that are none.
    """

    cases: tuple[CachedCase, ...]
    share: float
    missed: tuple[tuple[CachedCase, Place], ...] = ()
    false: tuple[tuple[CachedCase, Place], ...] = ()


class CropSampler:
    """Draws crops, alternately around a tumour and around background (released training code: 1:1).

    The n-th crop of a training depends on nothing but the seed and n, so that a resumed run sees the crops that it
    would have seen, and several processes share out the batch of one.

    Parameters
    ----------
    sources : sequence of Source
        A source is drawn by its share, then a case of it evenly. Tumour-free cases give background only.
    description : Description
        Patch and normalisation.
    augmentation : Augmentation
    seed : int
    mistaken : float
        Share of the crops of a source with such places that are cut around a missed lesion in place of any lesion,
        or around a false piece in place of any background.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        description: Description,
        augmentation: Augmentation,
        seed: int,
        mistaken: float = 0.0,
    ) -> None:
        self.sources = tuple(source for source in sources if source.cases and source.share > 0)
        with_tumour = (
            replace(source, cases=tuple(case for case in source.cases if case.tumour_ml > 0))
            for source in self.sources
        )
        self.mistaken = mistaken
        self.with_tumour = tuple(source for source in with_tumour if source.cases)
        self.description = description
        self.augmentation = augmentation
        self.threads = threading.local()  # MONAI's transforms hold their random state
        self.seed = seed

    def batch(self, numbers: range) -> Batch:
        """Return the crops of these numbers."""
        crops = [self.crop(number) for number in numbers]
        return Batch(*(torch.stack(tensors) for tensors in zip(*crops, strict=True)))

    def crop(self, number: int) -> Batch:
        """Return the crop of this number, each tensor (1, H, W, D)."""
        rng = np.random.default_rng([self.seed, number])
        around_tumour = number % 2 == 0
        case, centre = self.draw_centre(number, rng)
        patch = self.description.patch
        start = _draw_start(centre, case.size, patch, rng)
        turning = draw_turning(self.augmentation, rng)
        field = self.augmentation.field(patch) if turning else patch
        margin = [(side - inner) // 2 for side, inner in zip(field, patch, strict=True)]
        start = tuple(first - extra for first, extra in zip(start, margin, strict=True))
        shift = draw_misalignment(self.augmentation, rng)
        ct_start = tuple(first + offset for first, offset in zip(start, shift, strict=True))
        ct = cut(case.ct(), ct_start, field, AIR_HU).astype(np.float32)
        pet = cut(case.pet(), start, field, NO_UPTAKE_SUV).astype(np.float32)
        seg = cut(case.seg(), start, field, 0)
        known = case.organs()
        organs = np.full(field, UNKNOWN, np.uint8) if known is None else cut(known, start, field, 0)
        if not around_tumour and rng.random() < self.augmentation.tumour_free:
            clear_tumour(ct, pet, seg, None if known is None else organs)
        transform = self._transform(turning)
        transform.set_random_state(seed=int(rng.integers(2**32)))
        out = transform(
            {
                "ct": torch.from_numpy(normalise(ct, self.description.ct, None))[None],
                "pet": torch.from_numpy(normalise(pet, self.description.pet, None))[None],
                "seg": torch.from_numpy(seg)[None],
                "organs": torch.from_numpy(organs)[None],
            }
        )
        labels = (out[name].to(torch.uint8).contiguous() for name in ("seg", "organs"))
        return Batch(out["ct"].contiguous(), out["pet"].contiguous(), *labels)

    def _transform(self, turning: bool) -> Compose:
        """Return this thread's own transforms."""
        if not hasattr(self.threads, "transforms"):
            self.threads.transforms = {
                turns: build_augmentation(self.augmentation, self.description.patch, turning=turns)
                for turns in (False, True)
            }
        return self.threads.transforms[turning]

    def draw_centre(self, number: int, rng: np.random.Generator) -> tuple[CachedCase, NDArray[np.int32]]:
        """Draw the case that gives the crop of this number, and the voxel (x, y, z) around which it is cut."""
        around_tumour = number % 2 == 0
        sources = self.with_tumour if around_tumour else self.sources
        shares = np.array([source.share for source in sources])
        source = sources[rng.choice(len(sources), p=shares / shares.sum())]
        mistakes = source.missed if around_tumour else source.false
        if mistakes and rng.random() < self.mistaken:
            case, place = mistakes[rng.integers(len(mistakes))]
            return case, np.array(place, np.int32)
        case = source.cases[rng.integers(len(source.cases))]
        points = case.tumour_points() if around_tumour else case.background_points()
        return case, points[rng.integers(len(points))]


def cut(
    volume: NDArray[np.generic], start: tuple[int, ...], size: tuple[int, ...], fill: float
) -> NDArray[np.generic]:
    """Copy a box out of a volume; what lies outside the volume is filled."""
    inner = tuple(slice(max(first, 0), max(first + side, 0)) for first, side in zip(start, size, strict=True))
    part = volume[inner]
    before = [max(-first, 0) for first in start]
    box = np.full(size, fill, dtype=volume.dtype)
    box[tuple(slice(at, at + side) for at, side in zip(before, part.shape, strict=True))] = part
    return box


def clear_tumour(
    ct: NDArray[np.float32],
    pet: NDArray[np.float32],
    seg: NDArray[np.generic],
    organs: NDArray[np.generic] | None = None,
    least: int = 8,
) -> None:
    """Leave of a crop (x, y, z; HU, SUV) the largest part of the body that holds no tumour, in place.

    What lies beyond a plane beside the tumour becomes air, without organs where those are known: of a crop around
    a sarcoma the other leg stays, or the leg above or below it. Nothing changes where less than ``least`` voxels
    would be left on every side.
    """
    if not seg.any():
        return
    tissue = ct > _TISSUE_HU
    best, most = None, 0
    for axis in range(3):
        there = np.flatnonzero(seg.any(tuple(other for other in range(3) if other != axis)))
        for side in (slice(0, int(there[0])), slice(int(there[-1]) + 1, seg.shape[axis])):
            part = tuple(side if each == axis else slice(None) for each in range(3))
            voxels = int(tissue[part].sum())
            if side.stop - side.start >= least and voxels > most:
                best, most = part, voxels
    if best is None:
        return
    for volume, outside in ((ct, AIR_HU), (pet, NO_UPTAKE_SUV), (seg, 0), (organs, 0)):
        if volume is None:
            continue
        kept = volume[best].copy()
        volume.fill(outside)
        volume[best] = kept


def prefetch(sampler: CropSampler, batches: Iterable[range], threads: int = 1) -> Iterator[Batch]:
    """Yield the batches of these crop numbers in their order, prepared ahead in background threads.

    Threads, not worker processes: nothing in shared memory. Each computes on one core, so that on a CPU a single
    one leaves the cores to the network.
    """
    ahead = threads + PREFETCHED_BATCHES
    with ThreadPoolExecutor(threads, "crops", initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting: deque[Future[Batch]] = deque()
        try:
            for numbers in batches:
                waiting.append(pool.submit(sampler.batch, numbers))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _draw_start(
    centre: NDArray[np.int32], size: tuple[int, ...], patch: tuple[int, ...], rng: np.random.Generator
) -> tuple[int, ...]:
    """Draw where a crop begins: its centre within a quarter of the patch around the given voxel.

    As at inference, the crop then lies inside the volume, or the volume inside the crop.
    """
    start = []
    for middle, extent, side in zip(centre, size, patch, strict=True):
        jitter = int(rng.integers(-(side // 4), side // 4 + 1))
        low, high = sorted((0, extent - side))
        start.append(min(max(int(middle) - side // 2 + jitter, low), high))
    return tuple(start)
