"""The rankings' definitions, written down plainly and slowly: the oracle of the rankings and of HECKTOR's score.

Nothing here is shared with the product. Sums are exact fractions, ranks are counted by comparing every submission
with every other one, None stands for "not defined". A cohort is ``submissions[name][case][metric] = [value per
step]``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from numpy.typing import NDArray

Cohort = Mapping[str, Mapping[str, Mapping[str, list[float]]]]
Subsets = Mapping[str, str]

LOWER_IS_BETTER = {"fpv_ml", "fnv_ml"}


def exact(value: float) -> Fraction | None:
    return None if math.isnan(value) else Fraction(value)


def trapezoid(values: list[float]) -> Fraction | None:
    """Sum of the trapezia between neighbouring steps, each one step wide."""
    total = Fraction(0)
    for left, right in itertools.pairwise(values):
        if math.isnan(left) or math.isnan(right):
            return None
        total += (Fraction(left) + Fraction(right)) / 2
    return total


def mean(values: list[Fraction | None]) -> Fraction | None:
    total, count = Fraction(0), 0
    for value in values:
        if value is not None:
            total += value
            count += 1
    return total / count if count else None


def rank(values: list[Fraction | None], metric: str) -> list[int]:
    """One more than the number of strictly better values; whatever is defined is better than what is not."""

    def better(a: Fraction | None, b: Fraction | None) -> bool:
        if a is None or b is None:
            return a is not None and b is None
        return a < b if metric in LOWER_IS_BETTER else a > b

    return [1 + sum(better(other, value) for other in values) for value in values]


def final_ranks(mean_ranks: list[Fraction]) -> list[int]:
    return [1 + sum(other < one for other in mean_ranks) for one in mean_ranks]


def last(values: list[float]) -> Fraction | None:
    return exact(values[len(values) - 1])


def figures(
    submissions: Cohort, cases: list[str], metric: str, reading: Callable[[list[float]], Fraction | None]
) -> list[Fraction | None]:
    """One figure per submission: the mean over cases."""
    return [mean([reading(submission[case][metric]) for case in cases]) for submission in submissions.values()]


def editions_1_and_2(submissions: Cohort) -> dict[str, Any]:
    cases = list(next(iter(submissions.values())))
    dice = figures(submissions, cases, "dice", last)
    dice_ranks = rank(dice, "dice")
    fpv_ranks = rank(figures(submissions, cases, "fpv_ml", last), "fpv_ml")
    fnv_ranks = rank(figures(submissions, cases, "fnv_ml", last), "fnv_ml")
    mean_ranks = [
        Fraction(1, 2) * a + Fraction(1, 4) * b + Fraction(1, 4) * c
        for a, b, c in zip(dice_ranks, fpv_ranks, fnv_ranks, strict=True)
    ]
    final = []
    for index, own in enumerate(mean_ranks):
        ahead = 0
        for other, theirs in enumerate(mean_ranks):
            tie_won = theirs == own and dice_ranks[other] < dice_ranks[index]
            ahead += theirs < own or tie_won
        final.append(1 + ahead)
    return {"mean_ranks": mean_ranks, "final": final, "values": {"Dice": dice}}


def edition_3(submissions: Cohort, subset_of: Subsets) -> dict[str, Any]:
    """Average in a subset, rank in the subset, average the ranks over subsets, weigh."""
    mean_ranks = [Fraction(0)] * len(submissions)
    values = {}
    for metric, label, weight in (("dice", "Dice", 2), ("fpv_ml", "FPV", 1), ("fnv_ml", "FNV", 1)):
        sums, subset_figures = [0] * len(submissions), []
        subsets = set(subset_of.values())
        for subset in subsets:
            cases = [case for case in subset_of if subset_of[case] == subset]
            column = figures(submissions, cases, metric, last)
            subset_figures.append(column)
            for index, one in enumerate(rank(column, metric)):
                sums[index] += one
        for index, total in enumerate(sums):
            mean_ranks[index] += Fraction(weight, 4) * Fraction(total, len(subsets))
        values[label] = [mean([column[i] for column in subset_figures]) for i in range(len(submissions))]
    return {"mean_ranks": mean_ranks, "final": final_ranks(mean_ranks), "values": values}


def edition_4(submissions: Cohort, subset_of: Subsets) -> dict[str, Any]:
    """Average in a subset, average over subsets, rank, weigh."""
    mean_ranks = [Fraction(0)] * len(submissions)
    values = {}
    for metric, name, eighths in (("dice", "DSC", 2), ("fpv_ml", "FPV", 1), ("fnv_ml", "FNV", 1)):
        for reading, label in ((last, f"{name} last"), (trapezoid, f"AUC-{name}")):
            subset_figures = []
            for subset in set(subset_of.values()):
                cases = [case for case in subset_of if subset_of[case] == subset]
                subset_figures.append(figures(submissions, cases, metric, reading))
            values[label] = [mean([column[i] for column in subset_figures]) for i in range(len(submissions))]
            for index, one in enumerate(rank(values[label], metric)):
                mean_ranks[index] += Fraction(eighths, 8) * one
    return {"mean_ranks": mean_ranks, "final": final_ranks(mean_ranks), "values": values}


def edition_5(submissions: Cohort) -> dict[str, Any]:
    cases = list(next(iter(submissions.values())))
    dice = figures(submissions, cases, "dice", trapezoid)
    dmm = figures(submissions, cases, "lesion_f1", trapezoid)
    mean_ranks = [Fraction(a + b, 2) for a, b in zip(rank(dice, "dice"), rank(dmm, "lesion_f1"), strict=True)]
    return {
        "mean_ranks": mean_ranks,
        "final": final_ranks(mean_ranks),
        "values": {"AUC-Dice": dice, "AUC-DMM": dmm},
    }


def pooled_f1(cases: list[tuple[str, int, int, int]]) -> Fraction | None:
    """``cases``: data set, TP, FN, FP."""
    per_data_set = []
    for data_set in {case[0] for case in cases}:
        tp = sum(case[1] for case in cases if case[0] == data_set)
        fn = sum(case[2] for case in cases if case[0] == data_set)
        fp = sum(case[3] for case in cases if case[0] == data_set)
        bottom = 2 * tp + fp + fn
        per_data_set.append(Fraction(2 * tp, bottom) if bottom else None)
    return mean(per_data_set)


def hecktor(patients: list[tuple[NDArray[Any], NDArray[Any], tuple[float, float, float]]]) -> dict[str, float]:
    """Voxel by voxel: truth, prediction (z, y, x) and spacing of each patient."""
    result = {}
    for name, label in (("GTVp", 1), ("GTVn", 2)):
        above = below = 0.0
        for truth, prediction, spacing in patients:
            v = spacing[0] * spacing[1] * spacing[2]
            for true, predicted in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True):
                above += v * (true == label and predicted == label)
                below += v * ((true == label) + (predicted == label))
        result[name] = 2 * above / below if below else math.nan
    result["mean"] = (result["GTVp"] + result["GTVn"]) / 2
    return result
