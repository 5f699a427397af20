"""One pass of a network over the windows of a volume, and the sums that passes add up to. Arrays are x, y, z."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from algorithm.inference.augmentation import EVERY_AXIS, Flip
from algorithm.inference.budget import Budget, TooSlowError
from algorithm.inference.execution import Execution
from algorithm.inference.windows import Start, importance_map
from algorithm.network.h2aseg import tumour_probability
from algorithm.network.weighting import Gains

_TELLING_WINDOWS = 4  # after so many, their mean time tells how long the pass will take


class Network(Protocol):
    """What segments windows: :class:`algorithm.network.h2aseg.H2ASeg`, or the same as a CUDA graph."""

    def finest(self, ct: Tensor, pet: Tensor, gains: list[Gains] | None = None) -> Tensor:
        """Return the logits (N, 2, H, W, D) of windows (N, 1, H, W, D); append TAMW's gains to a list given."""


@dataclass(frozen=True)
class NetworkInput:
    """A case as one network takes it.

    Attributes
    ----------
    ct, pet : float32 Tensor, x, y, z
        Normalised; no side smaller than the patch. Inputs of several networks may share them.
    patch : three ints
    overlap : float
        Of neighbouring windows, 0 to below 1.
    flip_axes : tuple of int
        Along which flips may mirror: 0, 1, 2 for x, y, z.
    """

    ct: Tensor
    pet: Tensor
    patch: tuple[int, int, int]
    overlap: float
    flip_axes: tuple[int, ...] = EVERY_AXIS


class Observer(Protocol):
    """Looks on while windows are computed.

    A pass that is begun anew, for want of memory, shows its windows again; the last time counts.
    """

    def wants(self, start: Start) -> bool:
        """Tell whether a window, by its first voxel, is to be computed at all."""

    def see(self, start: Start, probability: Tensor, gains: Sequence[Gains]) -> None:
        """Take a window's tumour probability (H, W, D) and TAMW's gains (1, channels) of levels 4 to 1."""


@dataclass(frozen=True)
class Sums:
    """What the passes add to: every prediction of a voxel counts by its place in its window.

    They belong together at any moment, also in the midst of a pass, so that any window can be the last.

    Attributes
    ----------
    total : float32 Tensor, x, y, z
        Of the tumour probability times its weight.
    weight : float32 Tensor, x, y, z
    """

    total: Tensor
    weight: Tensor

    @classmethod
    def empty(cls, shape: Sequence[int], store: torch.device) -> Sums:
        """Return the sums of no pass."""
        return cls(torch.zeros(tuple(shape), device=store), torch.zeros(tuple(shape), device=store))

    def settle(self) -> Tensor:
        """Return the mean probability, 0 where no window came; from now on it counts once, as the total it is."""
        self.total.div_(self.weight.clamp_min_(torch.finfo(torch.float32).tiny))
        self.weight.fill_(1)
        return self.total

    def weigh_as(self, plans: Iterable[tuple[Sequence[int], Sequence[Start]]]) -> None:
        """Give a settled mean the weight that the windows of plans (patch and starts) will bring, 1 elsewhere.

        So the mean counts as one pass over those windows, and each further pass over them as another one.
        """
        self.weight.zero_()
        for patch, starts in plans:
            importance = torch.from_numpy(importance_map(patch)).to(self.weight.device)
            for start in starts:
                self.weight[_voxels_of(start, patch)] += importance
        self.weight.masked_fill_(self.weight == 0, 1)
        self.total.mul_(self.weight)

    def mean(self) -> NDArray[np.float32]:
        """Return the mean probability on the host, 0 where no window came."""
        mean: NDArray[np.float32] = self.settle().cpu().numpy()
        return mean


@dataclass(frozen=True)
class _Batch:
    """Windows that were computed, or on a GPU are about to be.

    Attributes
    ----------
    starts : sequence of Start
    probability : float32 Tensor, (N, H, W, D)
        Where the sums are.
    finite : bool Tensor, (N,)
        Likewise.
    done : torch.cuda.Event or None
    """

    starts: Sequence[Start]
    probability: Tensor
    finite: Tensor
    done: torch.cuda.Event | None

    def awaited(self) -> _Batch:
        """Return the same when it is computed."""
        if self.done is not None:
            self.done.synchronize()
        return self


@dataclass(frozen=True)
class Pass:
    """A network's way over the windows of a volume, each seen mirrored along some axes.

    A GPU never waits for the host, which tells it of some batches more than are done, and waits for all of them
    once, at the end.

    Attributes
    ----------
    network : Network
        Placed for ``how``; see :func:`algorithm.inference.execution.place`.
    volumes : NetworkInput
        Where the sums are.
    windows : sequence of Start
    flip : Flip
    how : Execution
    observer : Observer or None
    """

    network: Network
    volumes: NetworkInput
    windows: Sequence[Start]
    flip: Flip
    how: Execution
    observer: Observer | None = None

    @torch.inference_mode()
    def add_to(self, sums: Sums, budget: Budget, bar: tqdm[NoReturn], *, needed: bool = False) -> bool:
        """Add all windows to the sums; those with a value that is not finite are left out.

        Parameters
        ----------
        sums : Sums
        budget : Budget
        bar : tqdm
        needed : bool
            There is no mask without this pass: once more than half done, it may take the budget's grace.

        Returns
        -------
        bool
            Whether all values of all windows were finite.

        Raises
        ------
        TooSlowError
            It would not end in time.
        """
        began = time.monotonic()
        importance = torch.from_numpy(importance_map(self.volumes.patch)).to(self.how.store)
        all_finite = torch.ones((), dtype=torch.bool, device=self.how.store)
        done = 0
        for batch in self._batches():
            all_finite &= batch.finite.all()
            for start, window, usable in zip(batch.starts, batch.probability, batch.finite, strict=True):
                here, share = _voxels_of(start, self.volumes.patch), importance * usable
                sums.total[here].addcmul_(window, share)
                sums.weight[here] += share
            bar.update(len(batch.starts))
            done += len(batch.starts)
            if done >= _TELLING_WINDOWS:
                seconds_to_go = (time.monotonic() - began) / done * (len(self.windows) - done)
                grace_s = budget.grace_s if needed and 2 * done > len(self.windows) else 0.0
                if not budget.allows(seconds_to_go - grace_s):
                    raise TooSlowError(seconds_to_go / max(budget.remaining_s, 1.0))
        self.how.synchronise()
        return bool(all_finite)

    def _batches(self) -> Iterator[_Batch]:
        """Yield the windows batch by batch, each computed, while the next ones are under way."""
        under_way: deque[_Batch] = deque()
        for first in range(0, len(self.windows), self.how.batch):
            starts = self.windows[first : first + self.how.batch]
            probability, finite = map(self.how.to_store, self.compute(starts))
            under_way.append(_Batch(starts, probability, finite, self.how.mark()))
            if len(under_way) > self.how.ahead:
                yield under_way.popleft().awaited()
        while under_way:
            yield under_way.popleft().awaited()

    def compute(self, starts: Sequence[Start]) -> tuple[Tensor, Tensor]:
        """Segment some windows.

        Returns
        -------
        tuple of Tensor
            The tumour probability, (N, H, W, D), float32, 0 in windows where a value is not finite; and in which
            windows all are, (N,).
        """
        axes = [axis + 2 for axis in self.flip]
        parts = [_voxels_of(start, self.volumes.patch) for start in starts]
        ct, pet = (
            self.how.to_device(torch.stack([volume[part] for part in parts])[:, None].flip(axes))
            for volume in (self.volumes.ct, self.volumes.pet)
        )
        gains: list[Gains] = []
        with self.how.computing():
            logits = self.network.finest(ct, pet) if self.observer is None else self.network.finest(ct, pet, gains)
        # Of the logits, because an infinite one gives a probability of 0 or 1.
        finite = torch.isfinite(logits).flatten(1).all(1)
        probability = tumour_probability(logits.float()).flip(axes)[:, 0]
        if self.observer is not None:
            for number, start in enumerate(starts):
                of_window = [Gains(*(gain[number : number + 1] for gain in level)) for level in gains]
                self.observer.see(start, probability[number], of_window)
        return torch.where(finite[:, None, None, None], probability, 0), finite

    @torch.inference_mode()
    def seconds_per_window(self) -> float:
        """Return how long a window takes; one batch warms up, another is timed."""
        starts: list[Start] = [(0, 0, 0)] * self.how.batch
        self.compute(starts)
        self.how.synchronise()
        began = time.monotonic()
        self.compute(starts)
        self.how.synchronise()
        return (time.monotonic() - began) / self.how.batch


def _voxels_of(start: Start, patch: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(first, first + side) for first, side in zip(start, patch, strict=True))
