"""Score masks against the truth: single files or folders, matched by name or by a table."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from algorithm.errors import GeometryError, UsageError
from algorithm.files import written_whole
from algorithm.images import geometry_text, other_geometry_text, read_mask, same_geometry
from algorithm.outputs import Kind, written_as
from evaluation import outputs
from evaluation.scoring.editions import DEFAULT_EDITION, RULES, Rules
from evaluation.scoring.metrics import METRICS, SURFACE_TOLERANCE_MM, Scores, lesion_f1, measure
from evaluation.scoring.pairs import Pair, find_pairs
from evaluation.scoring.truths import read_truth

NO_SUBSET = "no subset"
"""Where the cases without a subset are averaged, so that none is left out of what an edition ranks."""


@dataclass(frozen=True)
class CaseScore:
    """What one case counts as; ``missing`` says that no prediction was there."""

    case: str
    subset: str | None
    missing: bool
    scores: Scores
    synthetic: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m evaluation score``."""
    parser.add_argument(
        "--prediction", type=Path, required=True, metavar="P", help="Mask to score, or folder of masks."
    )
    parser.add_argument(
        "--truth",
        type=Path,
        metavar="T",
        help="True mask, or folder of them. Not needed where the cases of --cases bring their truth.",
    )
    add_scoring_arguments(parser)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="Write results and aggregates as metrics.json has them."
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="Write one row per case.")


def add_scoring_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that say how cases are matched and scored."""
    parser.add_argument("--edition", choices=RULES, default=DEFAULT_EDITION, help="Whose rules apply.")
    parser.add_argument(
        "--cases",
        type=Path,
        metavar="LIST_OR_TREE",
        help="Without --truth, cases with their truth: a CSV, or a tree of studies in any layout. With it, a CSV "
        "of the cases to score: case, and any of truth and prediction (paths inside the two folders or beside the "
        "list; by name where left out) and subset (by the prefix fdg_ or psma_ where left out).",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=SURFACE_TOLERANCE_MM,
        metavar="MM",
        help="Distance that the surface Dice forgives, in mm.",
    )


def main(args: argparse.Namespace) -> int:
    """Score, print the table and write the files asked for."""
    check_tolerance(args.tolerance)
    inputs = (args.truth, args.prediction, args.cases)
    outputs.make_way([(args.json, outputs.METRICS), (args.csv, outputs.SCORES)], inputs)
    pairs, unknown = find_pairs(args.truth, args.prediction, args.cases)
    results = score_with_table(pairs, RULES[args.edition], tolerance_mm=args.tolerance)
    content = report(results, pairs, args.edition)
    print(summary_text(content))
    if unknown:
        names = ", ".join(str(path.relative_to(args.prediction)) for path in unknown)
        print(f"Not scored, no truth of that name: {names}")
    if args.json:
        write_text(args.json, to_json(content), outputs.METRICS)
    if args.csv:
        write_text(args.csv, to_csv(results, args.edition), outputs.SCORES)
    return 0


def check_tolerance(tolerance_mm: float) -> None:
    """Raise UsageError unless the tolerance is a length."""
    if not 0 <= tolerance_mm < math.inf:
        raise UsageError(f"--tolerance must be a length in mm that is not negative, got {tolerance_mm}")


def score_with_table(pairs: Sequence[Pair], rules: Rules, *, tolerance_mm: float) -> list[CaseScore]:
    """Score the cases and print a table that grows by a row per case and ends with the statistics."""
    statistics = ("mean", "median", "std")
    width = max(len(label) for label in (*statistics, *(pair.case for pair in pairs)))

    def show(label: str, cells: Iterable[str]) -> None:
        padded = (f"{cell:>{len(metric.heading)}}" for cell, metric in zip(cells, METRICS.values(), strict=True))
        print("  ".join((f"{label:<{width}}", *padded)), flush=True)

    show("Case", (metric.heading for metric in METRICS.values()))
    results = []
    for result in score_pairs(pairs, rules, tolerance_mm=tolerance_mm):
        results.append(result)
        show(result.case, (metric.text(getattr(result.scores, name)) for name, metric in METRICS.items()))
    summaries = {name: summarise(values) for name, values in columns(results).items()}
    for statistic in statistics:
        show(statistic, (metric.text(summaries[name][statistic]) for name, metric in METRICS.items()))
    return results


def score_pairs(
    pairs: Iterable[Pair], rules: Rules, *, tolerance_mm: float = SURFACE_TOLERANCE_MM, surfaces: bool = True
) -> Iterator[CaseScore]:
    """Score case by case, in order; see :func:`score_pair`. Missing cases that do not count are left out."""
    for pair in pairs:
        if pair.prediction is None and rules.missing == "left-out":
            continue
        scores = score_pair(
            pair.truth,
            pair.prediction,
            rules,
            tolerance_mm=tolerance_mm,
            truth_on_own_grid=pair.truth_on_own_grid,
            surfaces=surfaces,
        )
        yield CaseScore(pair.case, pair.subset, pair.prediction is None, scores, pair.synthetic)


def score_pair(
    truth_path: Path,
    prediction_path: Path | None,
    rules: Rules,
    *,
    tolerance_mm: float = SURFACE_TOLERANCE_MM,
    truth_on_own_grid: bool = False,
    surfaces: bool = True,
) -> Scores:
    """Score one pair of files; a prediction of None counts as the rules say.

    ``truth_on_own_grid``: the truth's labels, all of them tumour, are brought onto the prediction's grid first.
    ``surfaces``: see :func:`evaluation.scoring.metrics.measure`.

    Raises
    ------
    GeometryError
        The prediction has another grid than the truth.
    UserError
        A mask cannot be read, see :func:`algorithm.images.read_mask`.
    """
    predicted = None if prediction_path is None else read_mask(prediction_path)
    grid = truth_path if predicted is None else predicted
    truth = read_truth(truth_path, grid, on_own_grid=truth_on_own_grid)
    prediction = truth * 0 if predicted is None else predicted
    if not same_geometry(truth, prediction):
        raise GeometryError(
            f"the prediction {prediction_path} has {geometry_text(prediction)}, but the truth {truth_path} has "
            f"{other_geometry_text(truth, prediction)}; resample the prediction to the truth's grid"
        )
    header = truth if rules.voxel_volume_from == "truth" else prediction
    scores = measure(
        sitk.GetArrayViewFromImage(truth),
        sitk.GetArrayViewFromImage(prediction),
        header.GetSpacing(),
        rules,
        tolerance_mm=tolerance_mm,
        surfaces=surfaces,
    )
    if prediction_path is None and rules.missing == "as-zero":
        return dataclasses.replace(scores, dice=0.0, lesion_f1=0.0)
    return scores


def report(results: Sequence[CaseScore], pairs: Sequence[Pair], edition: str) -> dict[str, Any]:
    """Return the content of ``metrics.json``: ``results`` case by case, ``aggregates``, and what was missing."""
    return {
        "edition": edition,
        "results": [
            {
                "case": result.case,
                "subset": result.subset,
                "missing": result.missing,
                "synthetic": result.synthetic,
                **vars(result.scores),
            }
            for result in results
        ],
        "aggregates": aggregate(results, RULES[edition]),
        "missing": [pair.case for pair in pairs if pair.prediction is None],
        "missing_counted": RULES[edition].missing,
    }


def aggregate(results: Sequence[CaseScore], rules: Rules) -> dict[str, Any]:
    """Summarise all cases, each subset, and what the edition ranks.

    Returns
    -------
    dict
        Per metric the mean, median, standard deviation (n - 1), minimum, maximum and the ``count`` of cases where
        it is defined. ``lesions``: detection over the lesions of all cases together. ``subsets``: the means and
        ``cases`` of every subset; where some cases have none, they are one (:data:`NO_SUBSET`). ``ranking``: per
        ranked metric the ``value`` and the ``weight``; for editions that rank an area under the curve also
        ``auc``, the trapezoid over all steps. An algorithm that ignores clicks returns the same mask at every
        step, so its area is the value times the number of steps. Where there are patients, synthetic cases are
        in neither ``subsets`` nor ``ranking``.
    """
    content: dict[str, Any] = {name: summarise(values) for name, values in columns(results).items()}
    content["lesions"] = _pooled_lesions(results)
    content["subsets"] = {}
    ranked = ranked_of(results)
    named = any(result.subset for result in ranked)
    for subset in sorted({result.subset or NO_SUBSET for result in ranked} if named else ()):
        members = [result for result in ranked if (result.subset or NO_SUBSET) == subset]
        means = {name: summarise(values)["mean"] for name, values in columns(members).items()}
        content["subsets"][subset] = {"cases": len(members), **means}
    content["ranking"] = {}
    for name, weight in rules.ranked.items():
        value = summarise(columns(ranked)[name])["mean"]
        if rules.by_subset and content["subsets"]:
            value = summarise([means[name] for means in content["subsets"].values()])["mean"]
        content["ranking"][name] = {"value": value, "weight": weight}
        if rules.last_step:
            content["ranking"][name]["auc"] = value * rules.last_step
    return content


def ranked_of(results: Sequence[CaseScore]) -> Sequence[CaseScore]:
    """Return the cases that are ranked: those of patients, or all where there are none."""
    return [result for result in results if not result.synthetic] or results


def columns(results: Sequence[CaseScore]) -> dict[str, list[float]]:
    """Return each metric's values over the cases, in order."""
    return {name: [getattr(result.scores, name) for result in results] for name in METRICS}


def summarise(values: Sequence[float]) -> dict[str, float]:
    """Return mean, median, standard deviation, minimum, maximum and count of the values that are not NaN."""
    defined = np.array([value for value in values if not math.isnan(value)], dtype=np.float64)
    if not defined.size:
        return {**dict.fromkeys(("mean", "median", "std", "min", "max"), math.nan), "count": 0}
    return {
        "mean": float(defined.mean()),
        "median": float(np.median(defined)),
        "std": float(defined.std(ddof=1)) if defined.size > 1 else math.nan,
        "min": float(defined.min()),
        "max": float(defined.max()),
        "count": int(defined.size),
    }


def summary_text(content: dict[str, Any]) -> str:
    """Return what the edition ranks, the subsets and the missing cases of a :func:`report` in lines of text."""
    synthetic = [result["synthetic"] for result in content["results"]]
    apart = f", of them {sum(synthetic)} synthetic, not ranked" if any(synthetic) and not all(synthetic) else ""
    lines = [f"Edition {content['edition']}, cases scored: {len(synthetic)}{apart}"]
    for name, ranked in content["aggregates"]["ranking"].items():
        details = [f"{METRICS[name].heading} {METRICS[name].text(ranked['value'])}"]
        if ranked["weight"] is not None:
            details.append(f"weight {ranked['weight']}")
        if "auc" in ranked:
            details.append(f"area under the curve of an unchanging mask {METRICS[name].text(ranked['auc'])}")
        lines.append(f"Ranked: {', '.join(details)}")
    for subset, means in content["aggregates"]["subsets"].items():
        values = ", ".join(f"{metric.heading} {metric.text(means[name])}" for name, metric in METRICS.items())
        lines.append(f"Subset {subset} ({means['cases']} cases): {values}")
    if content["missing"]:
        lines.append(f"Missing, counted {content['missing_counted']}: {', '.join(content['missing'])}")
    return "\n".join(lines)


def to_json(content: Any) -> str:
    """Return the content as JSON, NaN and infinities as null."""
    return json.dumps(_without_nan(content), indent=2, allow_nan=False) + "\n"


def to_csv(results: Sequence[CaseScore], edition: str) -> str:
    """Return one line per case under a line of headings, the edition last; NaN is an empty cell."""
    figures = [field.name for field in dataclasses.fields(Scores)]
    headings = ["case", "subset", "missing", "synthetic", *figures, "edition"]
    rows = (
        [r.case, r.subset or "", int(r.missing), int(r.synthetic), *dataclasses.astuple(r.scores), edition]
        for r in results
    )
    return csv_text([headings, *rows])


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Return rows as CSV with full precision; NaN is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        ["" if isinstance(cell, float) and math.isnan(cell) else cell for cell in row] for row in rows
    )
    return text.getvalue()


def write_text(path: Path, text: str, kind: Kind | None = None) -> None:
    """Write a text file whole; its folder is made if need be.

    Raises
    ------
    OutputError
        It cannot be written, or what lies there is no earlier file of its kind (if that is named).
    """
    with written_as(path, kind) if kind else written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _pooled_lesions(results: Sequence[CaseScore]) -> dict[str, float]:
    true, predicted, found, false = (
        sum(getattr(result.scores, name) for result in results)
        for name in ("truth_lesions", "prediction_lesions", "found_lesions", "false_lesions")
    )
    return {
        "truth": true,
        "prediction": predicted,
        "sensitivity": found / true if true else math.nan,
        "precision": (predicted - false) / predicted if predicted else math.nan,
        "f1": lesion_f1(found, false, true),
    }


def _without_nan(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
