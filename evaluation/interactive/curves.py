"""The areas under the interactive editions' curves, and how the curves behave from step to step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.interactive.loop import Played

RANKED = {"V": ("dice", "lesion_f1"), "IV": ("dice", "fpv_ml", "fnv_ml")}
"""What each edition takes the area of: V Dice and DMM (the lesion F1 at IoU >= 0.1), IV Dice, FPV and FNV."""

FALL = 0.005
"""A step whose Dice is lower than the step before by more than this is counted as a fall."""


@dataclass(frozen=True)
class Curve:
    """One metric over all cases.

    Attributes
    ----------
    means : tuple of float
        Per step the mean over the cases where the metric is defined; NaN where there is none.
    area : float
        Mean over the cases of :func:`area`; cases without one do not count.
    falls : int
        Steps from one prediction to the next, of all cases, in which the value fell by more than :data:`FALL`.
    moves : int
        All such steps in which both values are defined.
    """

    means: tuple[float, ...]
    area: float
    falls: int
    moves: int


def area(values: Sequence[float]) -> float:
    """Return the area under one case's curve: the trapezoid rule with steps of 1, so at most 5 over V's six steps.

    NaN if the metric is not defined at some step: autoPET V's lesion F1 of a case without tumour.
    """
    return float(np.trapezoid(np.asarray(values, dtype=np.float64), dx=1.0))


def curve(played: Sequence[Played], metric: str) -> Curve:
    """Summarise one field of :class:`evaluation.metrics.Scores` over cases of equally many steps."""
    table = np.array([each.values(metric) for each in played], dtype=np.float64)
    moves = np.diff(table, axis=1)
    return Curve(
        means=tuple(_mean(column) for column in table.T),
        area=_mean([area(row) for row in table]),
        falls=int(np.count_nonzero(moves < -FALL)),
        moves=int(np.count_nonzero(~np.isnan(moves))),
    )


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan
