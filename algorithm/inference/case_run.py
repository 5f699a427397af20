"""One case's passes: what is learned about time, memory and number format on the way ends with the case."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from algorithm.errors import InvalidImageError
from algorithm.inference.augmentation import MOST_FLIPS, Flip, flip_order
from algorithm.inference.budget import Budget, TooSlowError
from algorithm.inference.execution import Execution, is_out_of_memory
from algorithm.inference.focus import Focus
from algorithm.inference.passes import Network, NetworkInput, Observer, Pass, Sums
from algorithm.inference.progress import Progress
from algorithm.inference.windows import Start, plan_windows

_COARSER_OVERLAPS = (0.25, 0.0)  # tried in this order when one pass does not fit the budget
_SAFETY = 1.1  # a further pass may take this much longer than the slowest one so far

NetworksIn = Callable[[Execution], Sequence[Network]]
"""Returns the networks of an ensemble placed for an execution."""

_Member = tuple[Network, NetworkInput, Sequence[Start]]


@dataclass(frozen=True)
class Prediction:
    """What came out, and what was done for it.

    Attributes
    ----------
    probability : float32 array, x, y, z
    windows : int
        Of the first pass, over all networks.
    flip_windows : int
        Of each further flip, over all networks; 0 where none was needed or asked for.
    passes, passes_planned : int
        Flips times networks.
    seconds_per_pass : float
        Of the slowest pass; on a GPU without a time limit, the first one's includes loading the kernels.
    stopped_because : str
    execution : Execution
        How the last pass was computed.
    notes : tuple of str
        What was done otherwise than asked, one sentence each.
    """

    probability: NDArray[np.float32]
    windows: int
    flip_windows: int
    passes: int
    passes_planned: int
    seconds_per_pass: float
    stopped_because: str
    execution: Execution
    notes: tuple[str, ...]


@dataclass
class _Done:
    """What was done so far, and how long it took."""

    passes: int = 0
    slowest_s: float = 0.0
    slowest_window_s: float = 0.0

    def count(self, seconds: float, windows: int) -> None:
        """Count a pass."""
        self.passes += 1
        self.slowest_s = max(self.slowest_s, seconds)
        self.slowest_window_s = max(self.slowest_window_s, seconds / max(windows, 1))


class CaseRun:
    """Averages the tumour probability of one case over windows, flips and networks.

    Parameters
    ----------
    networks_in : NetworksIn
    inputs : sequence of NetworkInput
        One per network, on the CPU, all with the same axes to flip along.
    execution : Execution
        What is tried first.
    budget : Budget
    flips : int or None
        None: as many of those along the networks' axes as the budget allows.
    focus : Focus or None
        Which windows the flips after the first take; None: all.
    progress : Progress
    observer : Observer or None
        Of the windows.
    window_s : sequence of float
        How long a window of each network takes, where that is known already; else it is timed.
    """

    def __init__(
        self,
        networks_in: NetworksIn,
        inputs: Sequence[NetworkInput],
        execution: Execution,
        budget: Budget,
        *,
        flips: int | None,
        focus: Focus | None,
        progress: Progress,
        observer: Observer | None,
        window_s: Sequence[float] = (),
    ) -> None:
        self._networks_in = networks_in
        self._networks = networks_in(execution)
        self._asked = inputs
        self._inputs = inputs
        self._how = execution
        self._budget = budget
        self._flips = flip_order(MOST_FLIPS if flips is None else flips, inputs[0].flip_axes)
        self._fixed = flips is not None
        self._focus = focus
        self._progress = progress
        self._observer = observer
        self._window_s = tuple(window_s)
        self._notes: list[str] = []
        self._done = _Done()

    def predict(self) -> Prediction:
        """Run as many passes as are asked for and fit; the first flip of every network always runs.

        Raises
        ------
        TooSlowError
            Not even those fit the budget.
        ResourceError
            The device's memory does not hold one window.
        InvalidImageError
            The network's answer is not finite even in float32.
        """
        self._fit_to_time()
        while True:
            try:
                prediction = self._average()
                return replace(prediction, notes=(*prediction.notes, *self._widened_steps()))
            except FloatingPointError:
                finite = False
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                finite = True
            # Here, because what the error's traceback holds is not free before.
            if finite:
                self._take_less_memory()
            else:
                self._compute_in_float32()
                self._window_s = ()
                self._fit_to_time()

    def _average(self) -> Prediction:
        """Do the passes, the first flip of every network before any other."""
        inputs = self._stored()
        plans = [self._windows(each) for each in inputs]
        sums = Sums.empty(inputs[0].ct.shape, self._how.store)
        self._done = _Done()
        for network, volumes, windows in zip(self._networks, inputs, plans, strict=True):
            one = Pass(network, volumes, windows, self._flips[0], self._how, self._observer)
            if not self._add(one, sums, needed=True):
                raise FloatingPointError
        further, stopped = self._flips[1:], "all flips were done"
        focused = self._focused(sums, inputs) if further and self._focus is not None else plans
        if any(focused):
            members = list(zip(self._networks, inputs, focused, strict=True))
            stopped = self._add_further(further, members, sums) or stopped
        elif further:
            self._done.passes = self._planned
            stopped = "no flip was needed, every voxel being decided"
        return Prediction(
            probability=sums.mean(),
            windows=sum(map(len, plans)),
            flip_windows=sum(map(len, focused)) if further else 0,
            passes=self._done.passes,
            passes_planned=self._planned,
            seconds_per_pass=self._done.slowest_s,
            stopped_because=stopped,
            execution=self._how,
            notes=tuple(self._notes),
        )

    def _focused(self, sums: Sums, inputs: Sequence[NetworkInput]) -> list[tuple[Start, ...]]:
        """Return the windows of further flips by network; what was averaged is settled."""
        assert self._focus is not None
        undecided = self._focus.undecided(sums.settle())
        covers: dict[tuple[tuple[int, int, int], float], tuple[Start, ...]] = {}
        for each in inputs:
            if (each.patch, each.overlap) not in covers:
                starts = self._focus.windows(undecided, each.patch, each.overlap)
                covers[each.patch, each.overlap] = tuple(filter(self._is_wanted, starts))
        windows = [covers[each.patch, each.overlap] for each in inputs]
        self._progress.say(f"each flip takes {sum(map(len, windows))} windows, where voxels are undecided")
        return windows

    def _add_further(self, flips: Sequence[Flip], members: Sequence[_Member], sums: Sums) -> str | None:
        """Add further passes while they fit; return why they ended before the last."""
        for index, (flip, (network, volumes, windows)) in enumerate(itertools.product(flips, members)):
            cost = self._done.slowest_window_s * len(windows)
            if not self._fixed and not self._budget.allows(cost * _SAFETY):
                return f"a further pass of {cost:.1f} s would not fit the {self._budget.remaining_s:.1f} s left"
            if index == 0 and self._focus is not None:
                sums.weigh_as((each.patch, starts) for _, each, starts in members)
            number = self._done.passes + 1
            try:
                finite = self._add(Pass(network, volumes, windows, flip, self._how, self._observer), sums)
            except (RuntimeError, TooSlowError) as error:
                if not (isinstance(error, TooSlowError) or is_out_of_memory(error)):
                    raise
                what = "time" if isinstance(error, TooSlowError) else "device memory"
                stopped = f"pass {number} ran out of {what}; what was averaged until then is kept"
                self._note(stopped)
                return stopped
            if not finite:
                self._note(f"windows of pass {number} were left out, not being finite in {self._how.dtype}")
        return None

    def _add(self, one: Pass, sums: Sums, *, needed: bool = False) -> bool:
        """Do one pass and tell whether all its windows were finite."""
        began, number = time.monotonic(), self._done.passes + 1
        on_cpu = self._how.device.type == "cpu"
        with self._progress.bar_of(f"pass {number}", len(one.windows), worth_it=on_cpu) as bar:
            finite = one.add_to(sums, self._budget, bar, needed=needed)
        seconds = time.monotonic() - began
        self._done.count(seconds, len(one.windows))
        self._progress.say(f"pass {number} of {self._planned} took {seconds:.1f} s")
        return finite

    @property
    def _planned(self) -> int:
        return len(self._flips) * len(self._networks)

    def _fit_to_time(self) -> None:
        """Time a window and enlarge the steps until one pass fits; say how long it will take.

        Without a limit nothing is timed: the two batches would be a tenth of a body on a CPU, a third on a GPU.
        """
        self._inputs = self._asked
        if math.isinf(self._budget.deadline):
            return
        if not self._budget.allows(0.0):
            raise TooSlowError(0.0, self._window_s)
        seconds = self._window_s or [self._time_window(number) for number in range(len(self._networks))]

        def cost(inputs: Sequence[NetworkInput]) -> float:
            counts = [len(self._windows(each)) for each in inputs]
            return sum(count * each for count, each in zip(counts, seconds, strict=True)) * _SAFETY

        for overlap in (None, *_COARSER_OVERLAPS):
            if overlap is not None:
                self._inputs = [replace(each, overlap=min(each.overlap, overlap)) for each in self._asked]
            if self._budget.allows(cost(self._inputs)):
                took = cost(self._inputs) / _SAFETY
                self._progress.say(f"one pass will take about {took:.0f} s on {self._how.device.type}")
                return
        raise TooSlowError(cost(self._inputs) / max(self._budget.remaining_s, 1.0), seconds)

    def _time_window(self, number: int) -> float:
        while True:
            network, volumes = self._networks[number], self._inputs[number]
            try:
                return Pass(network, volumes, (), (), self._how).seconds_per_window()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            self._take_less_memory()

    def _windows(self, volumes: NetworkInput) -> tuple[Start, ...]:
        windows = plan_windows(volumes.ct.shape, volumes.patch, volumes.overlap)
        return tuple(filter(self._is_wanted, windows))

    def _is_wanted(self, start: Start) -> bool:
        return self._observer is None or self._observer.wants(start)

    def _stored(self) -> Sequence[NetworkInput]:
        """Return the inputs with their volumes where the sums are, each once however many networks share it."""
        stored: dict[int, Tensor] = {}
        for volume in (volume for each in self._inputs for volume in (each.ct, each.pet)):
            if volume.data_ptr() not in stored:
                stored[volume.data_ptr()] = volume.to(self._how.store)
        return [
            replace(each, ct=stored[each.ct.data_ptr()], pet=stored[each.pet.data_ptr()]) for each in self._inputs
        ]

    def _compute_in_float32(self) -> None:
        """Fall back to float32, for this case alone; InvalidImageError if it is that already."""
        if self._how.dtype == torch.float32:
            raise InvalidImageError(
                "the network gave values that are not finite in float32; check the weights and the images"
            )
        self._note(f"the network gave values that are not finite in {self._how.dtype}; float32 is used instead")
        self._how = replace(self._how, dtype=torch.float32, cuda_graph=False)  # which is of the other type
        self._networks = self._networks_in(self._how)

    def _take_less_memory(self) -> None:
        self._how, note = self._how.with_less_memory()
        self._networks = self._networks_in(self._how)
        self._how.release_memory()
        self._note(note)

    def _widened_steps(self) -> list[str]:
        """Say so if windows were made to overlap less than asked."""
        least = min(each.overlap for each in self._inputs)
        if all(asked.overlap == done.overlap for asked, done in zip(self._asked, self._inputs, strict=True)):
            return []
        return [f"windows overlap by {least:.0%} only, so that one pass fits the time limit"]

    def _note(self, sentence: str) -> None:
        self._notes.append(sentence)
        self._progress.say(sentence)
