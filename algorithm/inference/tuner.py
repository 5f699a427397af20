"""Tries on the very device which way of computing windows is fastest, of those that agree with float32's.

One thing is changed at a time, in a fixed order, and kept where it makes a window at least 5 % faster. What the
device or the library does not allow is dropped with its reason: no way that is tried can make tuning fail.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from algorithm.inference.budget import Budget
from algorithm.inference.device import precision_of
from algorithm.inference.execution import Execution, is_out_of_memory
from algorithm.inference.memory import most_windows_at_once
from algorithm.inference.passes import NetworkInput, Pass
from algorithm.inference.predictor import Predictor
from algorithm.inference.tuning import Tuning
from algorithm.inference.windows import plan_windows

MOST_DIFFERENCE = 0.02
"""Between a way's tumour probabilities and float32's: the sum of their differences over the sum of both. More than
that is no agreement."""

_BACKGROUND = (
    1e-4  # counted as tumour probability everywhere, so that there is something to compare with in any case
)
_LEAST_GAIN = 0.05
_COMPARED = 2  # windows: what a volume of one and a half patches holds at half overlap
_REPETITIONS = 3  # of which the fastest counts: whatever else the machine does makes a window slower, never faster
_WARM_UPS = 2  # the first loads kernels, the second finds them loaded
WINDOWS_BEFORE_TRIALS = 2 * _COMPARED + _WARM_UPS - 1 + _REPETITIONS
"""How many windows are computed, whatever the budget, before another way is tried; one at a time."""
_HOPELESS = 1.5  # times the best way's time in the first repetition
_BATCHES = {"cpu": (2, 4), "cuda": (16, 32, 4)}

BEFORE, INSTEAD = "the way before tuning", "taken in its place"
FASTER, SLOWER = "faster", "not faster"
TOO_FAR, NOT_FINITE, NO_MEMORY = (
    f"dropped: {reason}"
    for reason in ("too far from float32", "values that are not finite", "the device's memory does not hold it")
)


@dataclass(frozen=True)
class Trial:
    """One way that was tried.

    Attributes
    ----------
    tuning : Tuning
    seconds : float or None
        Per window of every network; None where it was not timed.
    difference : float or None
        From float32, see :data:`MOST_DIFFERENCE`; None where there was no answer to compare.
    verdict : str
        What became of it.
    """

    tuning: Tuning
    seconds: float | None
    difference: float | None
    verdict: str


@dataclass(frozen=True)
class Tuned:
    """What tuning came to.

    Attributes
    ----------
    choice : Tuning
    trials : tuple of Trial
        In their order, the way before tuning first.
    seconds : float
        That it took.
    complete : bool
        Whether all ways were tried; else the time was up, and the choice is the best of those that were.
    """

    choice: Tuning
    trials: tuple[Trial, ...]
    seconds: float
    complete: bool

    def table(self) -> list[str]:
        """Return the trials, line by line."""
        lines = [f"{'s/window':>9} {'difference':>10}  way"]
        for trial in self.trials:
            seconds = "-" if trial.seconds is None else f"{trial.seconds:.4f}"
            difference = "-" if trial.difference is None else f"{trial.difference:.1e}"
            chosen = " <- chosen" if trial.tuning == self.choice else ""
            lines.append(f"{seconds:>9} {difference:>10}  {trial.tuning}: {trial.verdict}{chosen}")
        return lines


class _TimeUpError(Exception):
    """No time is left to try a way."""


@dataclass(frozen=True)
class _Way:
    """A way of computing, ready to be tried.

    Attributes
    ----------
    how : Execution
    passes : sequence of Pass
        One per network; their windows are those that are compared.
    budget : Budget
        No batch is begun after it.
    """

    how: Execution
    passes: Sequence[Pass]
    budget: Budget

    def seconds(self) -> float:
        """Time one batch of windows of every network; return the seconds per window."""
        self._take_threads()
        began = time.monotonic()
        for each in self.passes:
            self._compute(each, 0)
        self.how.synchronise()
        return (time.monotonic() - began) / self.how.batch

    def answers(self) -> list[Tensor]:
        """Return per network the probability (windows, H, W, D) on the CPU, NaN in windows that are not finite."""
        self._take_threads()
        answers = []
        for each in self.passes:
            results = [self._compute(each, first) for first in range(0, len(each.windows), self.how.batch)]
            probability = torch.cat(
                [torch.where(finite[:, None, None, None], p, math.nan) for p, finite in results]
            )
            answers.append(probability[: len(each.windows)].cpu())
        return answers

    @torch.inference_mode()
    def _compute(self, one: Pass, first: int) -> tuple[Tensor, Tensor]:
        """Compute a full batch from a window on; windows come again where they are too few."""
        if not self.budget.allows(0):
            raise _TimeUpError
        windows = itertools.islice(itertools.cycle(one.windows), first, first + self.how.batch)
        return one.compute(list(windows))

    def _take_threads(self) -> None:
        if self.how.threads is not None:
            torch.set_num_threads(self.how.threads)


class Tuner:
    """Tunes a predictor, which computes as before until it is told to use the choice.

    Parameters
    ----------
    predictor : Predictor
    before : Execution
        The way before tuning: one that the device's memory is known to hold.
    inputs : sequence of NetworkInput
        Per network a volume like those to come, on the CPU, whose windows at half overlap are timed and compared.
    dtypes : sequence of torch.dtype
        That the checkpoints and the user allow.
    budget : Budget
        No way is begun that would hardly end within it. The way before tuning is timed, and compared with float32,
        however short it is.
    repeatable : bool
        Leave out what may give other last digits in another process: cuDNN's benchmark.
    """

    def __init__(
        self,
        predictor: Predictor,
        before: Execution,
        inputs: Sequence[NetworkInput],
        dtypes: Sequence[torch.dtype],
        budget: Budget,
        *,
        repeatable: bool = False,
    ) -> None:
        self._predictor = predictor
        self._device = before.device
        self._inputs = [
            replace(each, ct=each.ct.to(self._device), pet=each.pet.to(self._device)) for each in inputs
        ]
        self._dtypes = dtypes
        self._budget = budget
        self._repeatable = repeatable
        self._threads = torch.get_num_threads()
        self._before = before if self._device.type == "cuda" else replace(before, threads=self._threads)
        self._trials: list[Trial] = []

    def tune(self) -> Tuned:
        """Try all ways that the time allows; threads are afterwards as they were."""
        began = time.monotonic()
        choice, complete = self._before.tuning, False
        try:
            choice, complete = self._search()
        except RuntimeError as error:  # of the way before tuning, or of float32
            if not is_out_of_memory(error):
                raise
            self._before.release_memory()
        finally:
            torch.set_num_threads(self._threads)
        return Tuned(choice, tuple(self._trials), time.monotonic() - began, complete)

    def _search(self) -> tuple[Tuning, bool]:
        """Return the best way, and whether all were tried."""
        exact, first = self._references()
        best, best_s, complete = first, self._trials[-1].seconds, True
        for name, value in self._changes():
            changed = replace(best.how.tuning, **{name: value})
            if changed == best.how.tuning:
                continue
            tried = self._tried(changed, best_s or math.inf, exact)
            if tried is None:
                complete = False
                continue
            way, trial = tried
            self._trials.append(trial)
            if trial.verdict == FASTER:
                best, best_s = way, trial.seconds
        return self._confirmed(first, best).how.tuning, complete

    def _changes(self) -> Iterator[tuple[str, Any]]:
        """Yield what is changed, in this order, and to what."""
        precisions = [precision_of(dtype) for dtype in self._dtypes]
        if self._device.type == "cuda":
            values: dict[str, Sequence[Any]] = {
                "precision": precisions,
                "channels_last": (True,),
                "cudnn_benchmark": () if self._repeatable else (True,),
                "batch": _BATCHES["cuda"],
                "cuda_graph": (True,),
            }
        else:
            most = most_windows_at_once(max(math.prod(volume.patch) for volume in self._inputs))
            values = {
                "threads": sorted({max(1, self._threads // part) for part in (2, 4)}, reverse=True),
                "precision": precisions,
                "batch": [batch for batch in _BATCHES["cpu"] if batch <= most],
            }
        for name, each in values.items():
            yield from ((name, value) for value in each)

    def _references(self) -> tuple[list[Tensor], _Way]:
        """Return float32's answers, and the way before tuning, timed; float32 itself where that is too far off."""
        exact = self._way(replace(self._before, dtype=torch.float32, batch=1), Budget()).answers()
        way = self._way(self._before, Budget())
        trial = self._measured(way, math.inf, exact)
        self._trials.append(replace(trial, verdict=BEFORE) if trial.seconds is not None else trial)
        if trial.seconds is None and torch.float32 in self._dtypes and way.how.dtype != torch.float32:
            way = self._way(replace(self._before, dtype=torch.float32), Budget())
            trial = self._measured(way, math.inf, exact)
            self._trials.append(replace(trial, verdict=INSTEAD))
        return exact, way

    def _tried(self, tuning: Tuning, best_s: float, exact: Sequence[Tensor]) -> tuple[_Way, Trial] | None:
        """Try one way; None where no time is left for it."""
        how = Execution.tuned(self._device, tuning)
        windows = max(_COMPARED, tuning.batch) + _WARM_UPS * tuning.batch  # up to the first that is timed
        if math.isfinite(best_s) and not self._budget.allows(best_s * windows):
            return None
        way = _Way(how, (), self._budget)
        try:
            way = self._way(how, self._budget)
            return way, self._measured(way, best_s, exact)
        except _TimeUpError:
            return None
        except Exception as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            return way, Trial(tuning, None, None, NO_MEMORY if is_out_of_memory(error) else f"dropped: {reason}")
        finally:
            how.release_memory()

    def _measured(self, way: _Way, best_s: float, exact: Sequence[Tensor]) -> Trial:
        """Compare and time one way; it is given up after the first repetition where that is hopeless."""
        difference = _difference(way.answers(), exact)  # the first warm-up
        if not math.isfinite(difference):
            return Trial(way.how.tuning, None, None, NOT_FINITE)
        if difference > MOST_DIFFERENCE:
            return Trial(way.how.tuning, None, difference, TOO_FAR)
        for _ in range(_WARM_UPS - 1):
            way.seconds()
        seconds = way.seconds()
        for _ in range(_REPETITIONS - 1):
            if seconds > _HOPELESS * best_s or not way.budget.allows(seconds * way.how.batch):
                break
            seconds = min(seconds, way.seconds())
        faster = seconds < (1 - _LEAST_GAIN) * best_s
        return Trial(way.how.tuning, seconds, difference, FASTER if faster else SLOWER)

    def _confirmed(self, first: _Way, best: _Way) -> _Way:
        """Time the choice and the way before it in turn, as what the machine did meanwhile may have deceived."""
        if best is first:
            return first
        seconds = {True: math.inf, False: math.inf}
        expected = {trial.tuning: (trial.seconds or 0.0) * trial.tuning.batch for trial in self._trials}
        with contextlib.suppress(_TimeUpError):  # then what was timed until it came decides
            for way in (first, best) * (_WARM_UPS + _REPETITIONS):
                if self._budget.allows(expected[way.how.tuning]):
                    seconds[way is best] = min(seconds[way is best], way.seconds())
        return first if seconds[False] <= seconds[True] < math.inf else best

    def _way(self, how: Execution, budget: Budget) -> _Way:
        networks = self._predictor.networks_in(how)
        passes = [
            Pass(network, volumes, plan_windows(volumes.ct.shape, volumes.patch, 0.5), (), how)
            for network, volumes in zip(networks, self._inputs, strict=True)
        ]
        return _Way(how, passes, budget)


def _difference(answers: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """Return how far probabilities are from float32's; see :data:`MOST_DIFFERENCE`."""
    apart, both = 0.0, 0.0
    for found, wanted in zip(answers, exact, strict=True):
        apart += float((found - wanted).abs().sum(dtype=torch.float64))
        both += float((found + wanted).sum(dtype=torch.float64)) + _BACKGROUND * found.numel()
    return apart / both
