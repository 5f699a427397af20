"""Ranking several submissions as the AutoPET editions do: figures over cases, ranks, weights, subsets, ties.

The table :data:`SCHEMES` holds what the editions' evaluation pages say:

* I, II: one ranking per metric over the means of all cases; the weighted mean of the three ranks orders the
  submissions; equal ones are ordered by Dice.
* III ("updated ranking" of 2024): the means and the ranks are taken within every subset of tracer and centre; the
  ranks are averaged over the subsets, then over the metrics with the weights of I.
* IV, task 1: three metrics at the last of 11 predictions and three areas under the curve; each figure is averaged
  within the subsets of tracer and centre, then over the subsets.
* V: the areas of Dice and of DMM (lesion F1) over 6 predictions, half each, over all cases.

Where the pages are silent: equal values share the best rank and the next ones are skipped (1, 2, 2, 4), as
challengeR does by default; a figure that is defined for no case ranks behind all defined ones; submissions that
stay equal share their final rank.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from algorithm.errors import UsageError
from evaluation.scoring.curves import area_under_curve
from evaluation.scoring.metrics import METRICS

Curve = Mapping[str, Sequence[float]]
"""One case: metric (a field of :class:`evaluation.scoring.metrics.Scores`) to its values by interaction step."""

Cases = Mapping[str, Curve]
"""One submission: the name of a case to its curve."""

Number = Fraction | float
Reading = Literal["last", "area"]
SubsetRule = Literal["pooled", "averaged", "ranked"]


@dataclass(frozen=True)
class Measure:
    """One thing that is ranked.

    Attributes
    ----------
    label : str
        As the edition calls it.
    metric : str
        Field of :class:`evaluation.scoring.metrics.Scores`; its :class:`~evaluation.scoring.metrics.Metric` says
        which way is better.
    reading : str
        ``last``: the value after the last interaction (the only one of editions I to III). ``area``: the area
        under the curve over all steps.
    weight : float
        In the mean of the ranks; an edition's weights add up to 1.
    """

    label: str
    metric: str
    reading: Reading
    weight: float

    def of_case(self, curve: Curve, last_step: int) -> float:
        """Return one case's value; NaN where it is not defined."""
        values = curve[self.metric]
        return values[-1] if self.reading == "last" else area_under_curve(values, last_step)


@dataclass(frozen=True)
class Scheme:
    """How one edition ranks.

    Attributes
    ----------
    measures : tuple of Measure
    subsets : str
        ``pooled``: figures over all cases alike. ``averaged``: a figure is the mean over the subsets' means.
        ``ranked``: ranks are taken within each subset, then averaged.
    last_step : int
        K: predictions 0..K are scored; 0: one prediction, without interaction.
    tie_break : str or None
        Label of the measure that orders submissions of equal mean rank.
    """

    measures: tuple[Measure, ...]
    subsets: SubsetRule = "pooled"
    last_step: int = 0
    tie_break: str | None = None


_BY_VOLUMES = (
    Measure("Dice", "dice", "last", 0.5),
    Measure("FPV", "fpv_ml", "last", 0.25),
    Measure("FNV", "fnv_ml", "last", 0.25),
)
SCHEMES: dict[str, Scheme] = {
    "I": Scheme(_BY_VOLUMES, tie_break="Dice"),
    "II": Scheme(_BY_VOLUMES, tie_break="Dice"),
    "III": Scheme(_BY_VOLUMES, subsets="ranked"),
    "IV": Scheme(
        (
            Measure("DSC last", "dice", "last", 0.25),
            Measure("FPV last", "fpv_ml", "last", 0.125),
            Measure("FNV last", "fnv_ml", "last", 0.125),
            Measure("AUC-DSC", "dice", "area", 0.25),
            Measure("AUC-FPV", "fpv_ml", "area", 0.125),
            Measure("AUC-FNV", "fnv_ml", "area", 0.125),
        ),
        subsets="averaged",
        last_step=10,
    ),
    "V": Scheme(
        (Measure("AUC-Dice", "dice", "area", 0.5), Measure("AUC-DMM", "lesion_f1", "area", 0.5)),
        last_step=5,
    ),
}


@dataclass(frozen=True)
class Standing:
    """Where one submission stands.

    Attributes
    ----------
    name : str
    values : dict
        Label of each measure to its figure: the mean over all cases, or over the subsets' means; NaN: not defined.
    ranks : dict
        Label to rank, 1 is best; in III the mean of the ranks within the subsets.
    by_subset : dict
        Subset to label to (figure, rank); the rank is that within the subset. Empty for ``pooled`` schemes.
    mean_rank : float
        Weighted mean of ``ranks``.
    final_rank : int
    """

    name: str
    values: dict[str, float]
    ranks: dict[str, float]
    by_subset: dict[str, dict[str, tuple[float, int]]]
    mean_rank: float
    final_rank: int


def rank_submissions(
    submissions: Mapping[str, Cases], edition: str, subset_of: Mapping[str, str] | None = None
) -> list[Standing]:
    """Rank submissions by an edition's rules.

    Parameters
    ----------
    submissions : mapping
        Name to cases; all have the same cases with as many steps as the edition has.
    edition : str
        A key of :data:`SCHEMES`.
    subset_of : mapping, optional
        Case to its subset (tracer and centre); needed where the edition has subsets (III, IV).

    Returns
    -------
    list of Standing
        Best first, equal ones in the order given.

    Raises
    ------
    UsageError
        The edition is unknown, there is nothing to rank, the submissions differ in their cases, a case has no
        subset or another number of steps.
    """
    scheme = scheme_of(edition)
    check_comparable(submissions, edition)
    cases = list(next(iter(submissions.values())))
    groups = {"": cases} if scheme.subsets == "pooled" else group_by(cases, subset_of or {}, edition)
    columns = {measure.label: _rank_measure(measure, scheme, submissions, groups) for measure in scheme.measures}

    mean_ranks = [
        sum((Fraction(m.weight) * columns[m.label].ranks[index] for m in scheme.measures), Fraction(0))
        for index in range(len(submissions))
    ]
    ties = [0] * len(submissions)
    if scheme.tie_break:
        ties = ranks_of(columns[scheme.tie_break].values, higher_is_better=True)
    final = _competition_ranks(list(zip(mean_ranks, ties, strict=True)))
    standings = [
        Standing(
            name,
            values={label: float(column.values[index]) for label, column in columns.items()},
            ranks={label: float(column.ranks[index]) for label, column in columns.items()},
            by_subset={}
            if scheme.subsets == "pooled"
            else {
                group: {label: column.by_subset[group][index] for label, column in columns.items()}
                for group in groups
            },
            mean_rank=float(mean_ranks[index]),
            final_rank=final[index],
        )
        for index, name in enumerate(submissions)
    ]
    return sorted(standings, key=lambda standing: standing.final_rank)


def scheme_of(edition: str) -> Scheme:
    """Return an edition's scheme; UsageError for an edition that does not rank by one."""
    if edition not in SCHEMES:
        raise UsageError(f"the edition must be one of {', '.join(SCHEMES)}, got {edition!r}")
    return SCHEMES[edition]


def ranks_of(values: Sequence[Number], *, higher_is_better: bool) -> list[int]:
    """Rank figures, 1 is best; equal ones share the best rank (1, 2, 2, 4), NaN ranks behind all others."""
    sign = -1 if higher_is_better else 1
    return _competition_ranks([math.inf if math.isnan(value) else sign * value for value in values])


def mean_defined(values: Iterable[Number]) -> Number:
    """Return the mean of the values that are not NaN, as an exact fraction; NaN if there is none.

    Exact, because rounding would part submissions that are equal: means of means round by their order.
    """
    defined = [Fraction(value) for value in values if not math.isnan(value)]
    return sum(defined, Fraction(0)) / len(defined) if defined else math.nan


def pooled_lesion_f1(
    found: Sequence[float], missed: Sequence[float], false: Sequence[float], data_sets: Sequence[str]
) -> float:
    """Aggregate lesion F1 of autoPET V: counts pooled within each data set, then the mean over the data sets.

    ``2 sum TP / (2 sum TP + sum FP + sum FN)``; a data set without any lesion, true or predicted, has none and is
    skipped (``metrics.py`` of autoPET V: DMM of a whole data set). V reports it beside the ranking, which takes
    the mean over cases of each case's own F1.

    Parameters
    ----------
    found, missed, false : sequence of float, (number of cases,)
        TP, FN and FP of each case; NaN counts as 0.
    data_sets : sequence of str, (number of cases,)
        Each case's data set.

    Returns
    -------
    float
        NaN if no data set has a lesion.
    """
    pooled: dict[str, list[float]] = {}
    for counts in zip(data_sets, found, missed, false, strict=True):
        sums = pooled.setdefault(counts[0], [0.0, 0.0, 0.0])
        for index, count in enumerate(counts[1:]):
            sums[index] += 0.0 if math.isnan(count) else count
    return float(
        mean_defined(2 * tp / (2 * tp + fp + fn) if tp or fp or fn else math.nan for tp, fn, fp in pooled.values())
    )


def check_comparable(submissions: Mapping[str, Cases], edition: str) -> None:
    """Raise UsageError unless all submissions have the same cases, each with a value for every step."""
    if not submissions:
        raise UsageError("there is no submission to rank; give at least one")
    steps = scheme_of(edition).last_step + 1
    first, *others = submissions
    if not submissions[first]:
        raise UsageError(f"the submission {first} has no case; give at least one")
    for name in others:
        for has, lacks in ((first, name), (name, first)):
            missing = sorted(set(submissions[has]) - set(submissions[lacks]))
            if missing:
                raise UsageError(
                    f"the submission {lacks} lacks {len(missing)} of the cases of {has} ({_some(missing)}); "
                    "submissions are ranked on the same cases only"
                )
    for name, cases in submissions.items():
        for case, curve in cases.items():
            for measure in scheme_of(edition).measures:
                if len(curve[measure.metric]) != steps:
                    raise UsageError(
                        f"the case {case} of {name} has {len(curve[measure.metric])} predictions, but edition "
                        f"{edition} scores {steps}; give every case as many"
                    )


def group_by(cases: Sequence[str], subset_of: Mapping[str, str], edition: str) -> dict[str, list[str]]:
    """Sort cases into their subsets, by the subsets' names; UsageError if a case has none."""
    missing = sorted(set(cases) - set(subset_of))
    if missing:
        raise UsageError(
            f"edition {edition} ranks by subsets of tracer and centre, but {len(missing)} cases have none "
            f"({_some(missing)}); give a table with the columns case, tracer and centre (--cases)"
        )
    groups: dict[str, list[str]] = {subset: [] for subset in sorted({subset_of[case] for case in cases})}
    for case in cases:
        groups[subset_of[case]].append(case)
    return groups


@dataclass(frozen=True)
class _Column:
    """One measure of all submissions, in exact fractions."""

    values: list[Number]
    ranks: list[Fraction]
    by_subset: dict[str, list[tuple[float, int]]]


def _rank_measure(
    measure: Measure, scheme: Scheme, submissions: Mapping[str, Cases], groups: Mapping[str, Sequence[str]]
) -> _Column:
    """Average one measure within the groups of cases and over them, and rank it as the scheme says."""
    higher = bool(METRICS[measure.metric].higher_is_better)
    means = {
        group: [
            mean_defined(measure.of_case(submission[case], scheme.last_step) for case in cases)
            for submission in submissions.values()
        ]
        for group, cases in groups.items()
    }
    inside = {group: ranks_of(column, higher_is_better=higher) for group, column in means.items()}
    values = [mean_defined(row) for row in zip(*means.values(), strict=True)]
    if scheme.subsets == "ranked":
        ranks = [Fraction(sum(row), len(row)) for row in zip(*inside.values(), strict=True)]
    else:
        ranks = [Fraction(rank) for rank in ranks_of(values, higher_is_better=higher)]
    by_subset = {group: list(zip(map(float, means[group]), inside[group], strict=True)) for group in groups}
    return _Column(values, ranks, by_subset)


def _competition_ranks(keys: Sequence[Number] | Sequence[tuple[Fraction, int]]) -> list[int]:
    """Return 1 + the number of smaller keys, for each key."""
    ordered = sorted(keys)
    return [1 + bisect_left(ordered, key) for key in keys]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
