"""Compare several folders of predictions on the same cases: the tables of an ablation or of rival methods."""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from algorithm.errors import UsageError
from evaluation import outputs
from evaluation.scoring.editions import RULES
from evaluation.scoring.metrics import METRICS
from evaluation.scoring.pairs import find_pairs
from evaluation.scoring.score import (
    CaseScore,
    add_scoring_arguments,
    check_tolerance,
    columns,
    csv_text,
    score_pairs,
    write_text,
)

DEFAULT_METRICS = ("dice", "hd95_mm", "fpv_ml", "fnv_ml", "surface_dice", "lesion_f1")
CONFIDENCE = 0.95
RESAMPLES = 10_000

HEADINGS = ("Metric", "Method", "n", "Mean", "95 % CI", "Median", "SD", "Difference", "95 % CI", "p", "p (Holm)")

Values = NDArray[np.float64]
Interval = tuple[float, float]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Line:
    """One method's figures for one metric.

    Attributes
    ----------
    metric, method : str
    count : int
        Cases where the metric is defined.
    mean, median, std : float
        ``std`` with n - 1.
    interval : tuple of float
        Bootstrap confidence interval of the mean.
    difference : float
        Mean of method minus reference over the cases where both are defined; NaN for the reference itself.
    difference_interval : tuple of float
        Bootstrap confidence interval of that mean.
    p, p_holm : float
        Two-sided Wilcoxon signed-rank test on the same pairs, as it is and after Holm's correction over all
        methods of this metric.
    """

    metric: str
    method: str
    count: int
    mean: float
    interval: Interval
    median: float
    std: float
    difference: float
    difference_interval: Interval
    p: float
    p_holm: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m evaluation compare``."""
    parser.add_argument(
        "--truth",
        type=Path,
        metavar="T",
        help="Folder of true masks. Not needed where the cases of --cases bring their truth.",
    )
    parser.add_argument(
        "--prediction",
        action="append",
        required=True,
        metavar="NAME=FOLDER",
        help="A method and its folder of masks. Give it once per method.",
    )
    parser.add_argument(
        "--reference", metavar="NAME", help="Method that the others are tested against; the first if left out."
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        choices=METRICS,
        default=DEFAULT_METRICS,
        metavar="METRIC",
        help=f"Of {', '.join(METRICS)}.",
    )
    add_scoring_arguments(parser)
    parser.add_argument("--seed", type=int, default=0, help="Seed of the bootstrap.")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="Write the table as Markdown.")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="Write the table as CSV with full precision.")
    parser.add_argument(
        "--latex", type=Path, metavar="FILE", help="Write the table as a LaTeX tabular for booktabs."
    )


def main(args: argparse.Namespace) -> int:
    """Score every method, print the comparison as Markdown and write the files asked for."""
    check_tolerance(args.tolerance)
    folders = parse_methods(args.prediction)
    reference = args.reference or next(iter(folders))
    if reference not in folders:
        raise UsageError(f"--reference must be one of {', '.join(folders)}, got {reference}")
    if args.seed < 0:
        raise UsageError(f"--seed must not be negative, got {args.seed}")
    tables = (
        (args.markdown, outputs.COMPARISON_MARKDOWN, to_markdown),
        (args.csv, outputs.COMPARISON_CSV, to_csv),
        (args.latex, outputs.COMPARISON_LATEX, to_latex),
    )
    outputs.make_way([(path, kind) for path, kind, _ in tables], [args.truth, args.cases, *folders.values()])
    scored: dict[str, list[CaseScore]] = {}
    rules, surfaces = RULES[args.edition], not {"hd95_mm", "surface_dice"}.isdisjoint(args.metrics)
    for method, folder in folders.items():
        pairs, _ = find_pairs(args.truth, folder, args.cases)
        scored[method] = list(score_pairs(pairs, rules, tolerance_mm=args.tolerance, surfaces=surfaces))
        missing = [pair.case for pair in pairs if pair.prediction is None]
        note = f"; missing, counted {rules.missing}: {', '.join(missing)}" if missing else ""
        log.info("Scored %s: %d cases%s", method, len(scored[method]), note)

    lines = compare(scored, reference, args.metrics, seed=args.seed)
    print(f"\n{to_markdown(lines)}\n{caption(reference, args.edition, args.seed)}")
    for path, kind, render in tables:
        if path:
            write_text(path, render(lines), kind)
    return 0


def parse_methods(texts: Sequence[str]) -> dict[str, Path]:
    """Read ``NAME=FOLDER`` options.

    Raises
    ------
    UsageError
        One has another form, or a name comes twice.
    """
    methods: dict[str, Path] = {}
    for text in texts:
        name, separator, folder = text.partition("=")
        if not (name and separator and folder):
            raise UsageError(f"--prediction must be NAME=FOLDER, got {text!r}")
        if name in methods:
            raise UsageError(f"--prediction names {name} twice; give each method its own name")
        methods[name] = Path(folder)
    return methods


def compare(
    scored: dict[str, list[CaseScore]], reference: str, metrics: Sequence[str], *, seed: int = 0
) -> list[Line]:
    """Compare methods with a reference, metric by metric; differences are over the cases that both have.

    Parameters
    ----------
    scored : dict
        Method to its case scores.
    reference : str
        One of the methods.
    metrics : sequence of str
        Keys of :data:`evaluation.scoring.metrics.METRICS`.
    seed : int
        Of the bootstrap, which resamples cases; every interval draws the same cases.
    """
    lines = []
    for metric in metrics:
        values = {
            method: dict(zip((result.case for result in results), columns(results)[metric], strict=True))
            for method, results in scored.items()
        }
        differences = {
            method: _differences(cases, values[reference])
            for method, cases in values.items()
            if method != reference
        }
        raw = {method: wilcoxon_p(difference) for method, difference in differences.items()}
        corrected = dict(zip(raw, holm(list(raw.values())), strict=True))
        for method, cases in values.items():
            defined = _defined(list(cases.values()))
            difference = differences.get(method, np.empty(0))
            lines.append(
                Line(
                    metric=metric,
                    method=method,
                    count=defined.size,
                    mean=_mean(defined),
                    interval=bootstrap_interval(defined, seed),
                    median=float(np.median(defined)) if defined.size else math.nan,
                    std=float(defined.std(ddof=1)) if defined.size > 1 else math.nan,
                    difference=_mean(difference),
                    difference_interval=bootstrap_interval(difference, seed),
                    p=raw.get(method, math.nan),
                    p_holm=corrected.get(method, math.nan),
                )
            )
    return lines


def wilcoxon_p(differences: Values) -> float:
    """Two-sided p of the Wilcoxon signed-rank test; 1 if nothing differs, NaN without pairs."""
    if not differences.size:
        return math.nan
    return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction; NaN stays NaN and does not count as a test."""
    tested = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    corrected = [math.nan] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(tested):
        highest = max(highest, min(1.0, p * (len(tested) - rank)))
        corrected[index] = highest
    return corrected


def bootstrap_interval(values: Values, seed: int) -> Interval:
    """Percentile bootstrap interval of the mean at 95 %; NaN for fewer than two values."""
    if values.size < 2:
        return math.nan, math.nan
    interval = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=100,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def caption(reference: str, edition: str, seed: int) -> str:
    """Say in one sentence how the table was made."""
    return (
        f"Rules of edition {edition}; means over each method's own n cases, differences and two-sided Wilcoxon "
        f"signed-rank tests against {reference} over the cases that both have, p corrected after Holm within a "
        f"metric; percentile bootstrap intervals of means ({RESAMPLES} resamples, seed {seed})."
    )


def to_markdown(lines: Sequence[Line]) -> str:
    """Return the table in GitHub's Markdown."""
    rows = [HEADINGS, ["---"] * 2 + ["---:"] * (len(HEADINGS) - 2), *(_cells(line) for line in lines)]
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |\n" for row in rows)


def to_latex(lines: Sequence[Line]) -> str:
    """Return the table as a tabular for the package booktabs."""
    rows = [" & ".join(_escape_latex(cell) for cell in row) + r" \\" for row in (HEADINGS, *map(_cells, lines))]
    alignment = "ll" + "r" * (len(HEADINGS) - 2)
    content = [rf"\begin{{tabular}}{{{alignment}}}", r"\toprule", rows[0], r"\midrule", *rows[1:], r"\bottomrule"]
    return "\n".join([*content, r"\end{tabular}"]) + "\n"


def to_csv(lines: Sequence[Line]) -> str:
    """Return the table with full precision; NaN is an empty cell."""
    headings = ["metric", "method", "n", "mean", "mean_low", "mean_high", "median", "std"]
    headings += ["difference", "difference_low", "difference_high", "p", "p_holm"]
    rows: list[list[Any]] = []
    for line in lines:
        own = [line.metric, line.method, line.count, line.mean, *line.interval, line.median, line.std]
        rows.append([*own, line.difference, *line.difference_interval, line.p, line.p_holm])
    return csv_text([headings, *rows])


def _cells(line: Line) -> list[str]:
    metric = METRICS[line.metric]
    return [
        metric.heading,
        line.method,
        str(line.count),
        metric.text(line.mean),
        _interval_text(line.metric, line.interval),
        metric.text(line.median),
        metric.text(line.std),
        metric.text(line.difference),
        _interval_text(line.metric, line.difference_interval),
        _p_text(line.p),
        _p_text(line.p_holm),
    ]


def _interval_text(metric: str, interval: Interval) -> str:
    return "-" if math.isnan(interval[0]) else " to ".join(METRICS[metric].text(end) for end in interval)


def _p_text(p: float) -> str:
    if math.isnan(p):
        return "-"
    return "<0.0001" if p < 0.0001 else f"{p:.4f}"


def _escape_latex(cell: str) -> str:
    special = {"\\": r"\textbackslash{}", "<": "$<$", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}
    return "".join(special.get(mark, f"\\{mark}" if mark in "&%$#_{}" else mark) for mark in cell)


def _differences(cases: dict[str, float], reference: dict[str, float]) -> Values:
    return _defined([value - reference[case] for case, value in cases.items() if case in reference])


def _defined(values: Sequence[float]) -> Values:
    array = np.array(values, dtype=np.float64)
    return array[~np.isnan(array)]


def _mean(values: Values) -> float:
    return float(values.mean()) if values.size else math.nan
