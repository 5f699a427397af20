"""Tumour probability of a whole volume: windows, flips and checkpoints, within a budget of time and memory.

Arrays are x, y, z. One float32 probability and one weight volume are all that is accumulated, whatever the number
of flips and checkpoints.
"""

from __future__ import annotations

import copy
import itertools
import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from algorithm.errors import DeviceError, ResourceError
from algorithm.inference.augmentation import Flip, flip_order
from algorithm.inference.budget import Budget
from algorithm.inference.windows import Start, importance_map, plan_windows
from algorithm.network.h2aseg import H2ASeg, tumour_probability

Say = Callable[[str], None]

_COARSER_OVERLAPS = (0.25, 0.0)  # tried in this order when one pass does not fit the budget
_SAFETY = 1.1  # a further pass may take this much longer than the slowest one so far
_TELLING_WINDOWS = 4  # after so many, their mean time tells how long the pass will take
_BAR_S, _BAR_IN_LOG_S = 0.2, 10.0  # between two states of the progress bar
_LARGEST_BATCH = 8  # windows at a time on a GPU; a CPU is fastest with one


@dataclass(frozen=True)
class Member:
    """One checkpoint of an ensemble with the case as that checkpoint wants it.

    Attributes
    ----------
    network : H2ASeg
        float32, on the CPU, in eval mode; it is not changed.
    ct, pet : float32 Tensor, x, y, z
        On the CPU, normalised; no side smaller than the patch. Members may share them.
    patch : three ints
    overlap : float
    """

    network: H2ASeg
    ct: Tensor
    pet: Tensor
    patch: tuple[int, int, int]
    overlap: float


@dataclass(frozen=True)
class Prediction:
    """What came out, and what was done for it.

    Attributes
    ----------
    probability : float32 array, x, y, z
    windows : int
        Per pass over all members.
    passes, passes_planned : int
        Flips times checkpoints.
    seconds_per_pass : float
        Of the slowest pass; on a GPU without a time limit, the first one's includes loading the kernels.
    stopped_because : str
    notes : tuple of str
        What was done otherwise than asked, one sentence each.
    """

    probability: NDArray[np.float32]
    windows: int
    passes: int
    passes_planned: int
    seconds_per_pass: float
    stopped_because: str
    notes: tuple[str, ...]


class TooSlowError(Exception):
    """A pass does not fit the budget.

    Parameters
    ----------
    factor : float
        Time that it needs over time that is left.
    """

    def __init__(self, factor: float) -> None:
        super().__init__(
            f"one pass takes {factor:.1f} times the time that is left"
            if factor > 1
            else "no time is left for a pass"
        )


def place(network: H2ASeg, device: torch.device, dtype: torch.dtype) -> H2ASeg:
    """Return a copy of a network where and how it will compute.

    On a CPU the parameters of the finest decoder level are cast: it moves the most bytes, and nothing follows that
    would blow its rounding up. Everything before stays in float32, because the scores of the attention reach
    thousands, and what is rounded off decides which voxels attend to one another. On a GPU all stay in float32 and
    autocast chooses what is safe in float16; the attention leaves it for the same reason.
    """
    placed = copy.deepcopy(network)
    if device.type == "cuda":
        return placed.to(device)
    for part in placed.finest_level():
        part.to(dtype=dtype)
    placed.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return placed


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the type to compute in.

    ``auto`` is float16 on a GPU, bfloat16 on a CPU that multiplies it natively, else float32.

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
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if native else torch.float32
    if precision == "float16" and device.type == "cpu":
        raise DeviceError("float16 needs a GPU; use --precision bfloat16, float32 or auto on a CPU")
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]


class Predictor:
    """Averages the tumour probability over windows, flips and checkpoints.

    Every prediction of a voxel counts by its place in its window. Members with equal windows so count alike; one
    with smaller windows or more overlap predicts a voxel more often and counts more.

    Parameters
    ----------
    device : torch.device
    dtype : torch.dtype
        From :func:`choose_dtype`.
    flips : int or None
        None: as many of the eight as the budget allows.
    say : callable
        Takes one line of progress.
    bar : bool
        Show a progress bar on stdout while a CPU works on a pass.
    """

    def __init__(
        self, device: torch.device, dtype: torch.dtype, flips: int | None, say: Say, *, bar: bool = False
    ) -> None:
        self.device = device
        self.dtype = dtype
        self.flips = flip_order() if flips is None else flip_order(flips)
        self.fixed = flips is not None
        self.say = say
        self.bar = bar and device.type == "cpu"
        self.batch = _LARGEST_BATCH if device.type == "cuda" else 1
        self.store = device
        self.notes: list[str] = []
        self.finite = torch.ones((), dtype=torch.bool, device=device)

    def predict(self, members: Sequence[Member], budget: Budget) -> Prediction:
        """Run as many passes as are asked for and fit; the first flip of every member always runs.

        Raises
        ------
        TooSlowError
            Not even those fit the budget.
        ResourceError
            The device's memory does not hold one window.
        DeviceError
            The network's answer is not finite even in float32.
        """
        placed = self._fit_to_time(self._place(members), budget)
        while True:
            try:
                prediction = self._average(placed, budget)
                return replace(prediction, notes=(*prediction.notes, *_widened_steps(members, placed)))
            except FloatingPointError as error:
                if self.dtype == torch.float32:
                    raise DeviceError(
                        "the network gave values that are not finite in float32; check the weights and the images"
                    ) from error
                self._note(f"the network gave values that are not finite in {self.dtype}; float32 is used instead")
                self.dtype = torch.float32
                placed = self._fit_to_time(self._place(members), budget)
                continue
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
            self._retreat()  # here, because what the error's traceback holds is not free before

    def _place(self, members: Sequence[Member]) -> Sequence[Member]:
        """Return the members with their networks where they compute; the volumes move when they are needed."""
        try:
            return [replace(member, network=place(member.network, self.device, self.dtype)) for member in members]
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            raise ResourceError(
                "the device's memory does not hold the network; free the device, or use --device cpu"
            ) from error

    def _average(self, members: Sequence[Member], budget: Budget) -> Prediction:
        """Do the passes; the sums and weights belong together at any moment, so any of them can be the last."""
        self.finite = torch.ones((), dtype=torch.bool, device=self.device)
        members = self._with_volumes_stored(members)
        plans = [plan_windows(member.ct.shape, member.patch, member.overlap) for member in members]
        total = torch.zeros(members[0].ct.shape, device=self.store)
        weight = torch.zeros_like(total)
        planned = list(itertools.product(self.flips, zip(members, plans, strict=True)))
        slowest, done, stopped = 0.0, 0, "all flips were done"
        for flip, (member, plan) in planned:
            if done >= len(members) and not self.fixed and not budget.allows(slowest * _SAFETY):
                stopped = f"a further pass of {slowest:.1f} s would not fit the {budget.remaining_s:.1f} s left"
                break
            began = time.monotonic()
            try:
                with self._progress(f"pass {done + 1}", len(plan)) as bar:
                    self._pass(member, plan, flip, total, weight, budget, bar)
                    self._synchronise()
            except (RuntimeError, TooSlowError) as error:
                known = isinstance(error, TooSlowError) or _is_out_of_memory(error)
                if done < len(members) or not known:
                    raise
                what = "time" if isinstance(error, TooSlowError) else "device memory"
                stopped = f"pass {done + 1} ran out of {what}; what was averaged until then is kept"
                self._note(stopped)
                break
            slowest = max(slowest, time.monotonic() - began)
            if not bool(self.finite):
                if done < len(members):
                    raise FloatingPointError
                self._note(f"windows of pass {done + 1} were left out, not being finite in {self.dtype}")
                self.finite.fill_(True)
            done += 1
            self.say(f"pass {done} of {len(planned)} took {time.monotonic() - began:.1f} s")
        total /= weight.clamp_min_(torch.finfo(torch.float32).tiny)
        return Prediction(
            probability=total.cpu().numpy(),
            windows=sum(len(plan) for plan in plans),
            passes=done,
            passes_planned=len(planned),
            seconds_per_pass=slowest,
            stopped_because=stopped,
            notes=tuple(self.notes),
        )

    @torch.inference_mode()
    def _pass(
        self,
        member: Member,
        plan: Sequence[Start],
        flip: Flip,
        total: Tensor,
        weight: Tensor,
        budget: Budget,
        bar: tqdm[NoReturn],
    ) -> None:
        """Add one pass over all windows to the sum and the weights; TooSlowError when it will not end in time.

        Windows with a value that is not finite are left out of both.
        """
        began = time.monotonic()
        importance = torch.from_numpy(importance_map(member.patch)).to(self.store)
        for first in range(0, len(plan), self.batch):
            starts = plan[first : first + self.batch]
            probability, finite = self.probability(member, starts, flip)
            probability, finite = probability.to(self.store, torch.float32), finite.to(self.store)
            for start, window, usable in zip(starts, probability, finite, strict=True):
                here, share = _window(start, member.patch), importance * usable
                total[here].addcmul_(window, share)
                weight[here] += share
            bar.update(len(starts))
            done = first + len(starts)
            if done >= _TELLING_WINDOWS:
                self._synchronise()
                seconds_to_go = (time.monotonic() - began) / done * (len(plan) - done)
                if not budget.allows(seconds_to_go):
                    raise TooSlowError(seconds_to_go / max(budget.remaining_s, 1.0))

    def probability(self, member: Member, starts: Sequence[Start], flip: Flip) -> tuple[Tensor, Tensor]:
        """Segment some windows, each seen mirrored along some axes.

        Returns
        -------
        tuple of Tensor
            The tumour probability, (N, H, W, D), 0 in windows where a value is not finite; and in which windows
            all are, (N,).
        """
        axes = [axis + 2 for axis in flip]
        ct, pet = (
            torch.stack([volume[_window(start, member.patch)] for start in starts])[:, None]
            for volume in (member.ct, member.pet)
        )
        with self._autocast():
            logits = member.network.finest(self._to_device(ct.flip(axes)), self._to_device(pet.flip(axes)))
        # Of the logits, because an infinite one gives a probability of 0 or 1.
        finite = torch.isfinite(logits).flatten(1).all(1)
        self.finite &= finite.all()
        probability = tumour_probability(logits).flip(axes)[:, 0]
        return torch.where(finite[:, None, None, None], probability, 0), finite

    def _with_volumes_stored(self, members: Sequence[Member]) -> Sequence[Member]:
        """Move the volumes to where the sums are, each once however many members share it."""
        stored: dict[int, Tensor] = {}
        for volume in (volume for member in members for volume in (member.ct, member.pet)):
            if volume.data_ptr() not in stored:
                stored[volume.data_ptr()] = volume.to(self.store)
        return [
            replace(member, ct=stored[member.ct.data_ptr()], pet=stored[member.pet.data_ptr()])
            for member in members
        ]

    def _progress(self, what: str, windows: int) -> tqdm[NoReturn]:
        """Return a bar that counts windows; seldom redrawn where it goes into a log."""
        interval = _BAR_S if sys.stdout.isatty() else _BAR_IN_LOG_S
        return tqdm(
            desc=what,
            total=windows,
            unit="window",
            file=sys.stdout,
            mininterval=interval,
            leave=False,
            disable=not self.bar,
        )

    def _to_device(self, x: Tensor) -> Tensor:
        if self.device.type == "cuda":
            return x.to(self.device)
        return x.to(memory_format=torch.channels_last_3d)

    def _autocast(self) -> AbstractContextManager[object]:
        if self.device.type != "cuda":
            return nullcontext()
        if self.dtype == torch.float32:  # cuDNN would round the factors of its products to 10 bits
            return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        return torch.autocast("cuda", dtype=self.dtype)

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @torch.inference_mode()
    def _fit_to_time(self, members: Sequence[Member], budget: Budget) -> Sequence[Member]:
        """Time a window and enlarge the steps until one pass fits; say how long it will take.

        A GPU without a limit is not timed: its two batches would take as long as a third of a body.
        """
        if self.device.type == "cuda" and math.isinf(budget.deadline):
            return members
        seconds = [self._time_window(member) for member in members]

        def cost(candidates: Sequence[Member]) -> float:
            counts = [len(plan_windows(m.ct.shape, m.patch, m.overlap)) for m in candidates]
            return sum(count * each for count, each in zip(counts, seconds, strict=True)) * _SAFETY

        candidates = members
        for overlap in (None, *_COARSER_OVERLAPS):
            if overlap is not None:
                candidates = [replace(member, overlap=min(member.overlap, overlap)) for member in members]
            if budget.allows(cost(candidates)):
                self.say(f"one pass will take about {cost(candidates) / _SAFETY:.0f} s on {self.device.type}")
                return candidates
        raise TooSlowError(cost(candidates) / max(budget.remaining_s, 1.0))

    def _time_window(self, member: Member) -> float:
        """Return the seconds per window, after one to warm up."""
        start: Start = (0, 0, 0)
        while True:
            try:
                self.probability(member, [start] * self.batch, ())
                self._synchronise()
                began = time.monotonic()
                self.probability(member, [start] * self.batch, ())
                self._synchronise()
                return (time.monotonic() - began) / self.batch
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
            self._retreat()

    def _retreat(self) -> None:
        """Take the next step down the memory ladder, or give up."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.batch > 1:
            self.batch //= 2
            self._note(f"the device's memory is too small; {self.batch} windows at a time are used")
        elif self.store.type != "cpu":
            self.store = torch.device("cpu")
            self._note("the device's memory is too small for the volume; the host accumulates the probability")
        else:
            raise ResourceError(
                "the device's memory does not hold one window; free the device, or use --device cpu"
            ) from None

    def _note(self, sentence: str) -> None:
        self.notes.append(sentence)
        self.say(sentence)


def _widened_steps(members: Sequence[Member], placed: Sequence[Member]) -> list[str]:
    """Say so if windows were made to overlap less than asked."""
    least = min(member.overlap for member in placed)
    if all(asked.overlap == done.overlap for asked, done in zip(members, placed, strict=True)):
        return []
    return [f"windows overlap by {least:.0%} only, so that one pass fits the time limit"]


def _is_out_of_memory(error: RuntimeError | TooSlowError) -> bool:
    """Tell errors for want of device memory, which cuDNN has its own words for, from all others."""
    telling = ("out of memory", "ALLOC_FAILED", "unable to find an engine")
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in telling)


def _window(start: Start, patch: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(first, first + side) for first, side in zip(start, patch, strict=True))
