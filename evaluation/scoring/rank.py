"""Rank several submissions as an edition of the challenge does."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from algorithm.cases import read_table
from algorithm.errors import UsageError
from evaluation import outputs
from evaluation.scoring import hecktor
from evaluation.scoring.compare import parse_methods
from evaluation.scoring.editions import DEFAULT_EDITION
from evaluation.scoring.metrics import METRICS
from evaluation.scoring.ranking import SCHEMES, Cases, Standing, pooled_lesion_f1, rank_submissions, scheme_of
from evaluation.scoring.score import csv_text, to_json, write_text
from evaluation.scoring.submissions import COUNTS, choose_cases, read_submission

HECKTOR = "HECKTOR"
EDITIONS = (*SCHEMES, HECKTOR)

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m evaluation rank``."""
    parser.add_argument(
        "--prediction",
        action="append",
        required=True,
        metavar="NAME=PATH",
        help="A submission: the CSV of 'score --csv' (with a column step for IV and V), or a folder of masks (of "
        "the folders step_0, step_1, ... for IV and V). Give it once per submission.",
    )
    parser.add_argument(
        "--edition",
        default=DEFAULT_EDITION,
        metavar="EDITION",
        help=f"Whose rules apply: {', '.join(EDITIONS)} (of 2022; folders only).",
    )
    parser.add_argument("--truth", type=Path, metavar="T", help="Folder of true masks, for folders of masks.")
    parser.add_argument(
        "--cases",
        type=Path,
        metavar="CSV",
        help="Rank on the cases of this list only; III and IV need tracer and centre, V may have data_set.",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="Write figures and ranks, subset by subset.")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="Write one row per submission.")


def main(args: argparse.Namespace) -> int:
    """Rank, print the table and write the files asked for."""
    if args.edition not in EDITIONS:
        raise UsageError(f"the edition must be one of {', '.join(EDITIONS)}, got {args.edition!r}")
    paths = parse_methods(args.prediction)
    inputs = [*paths.values(), args.truth, args.cases]
    outputs.make_way([(args.json, outputs.RANKS_JSON), (args.csv, outputs.RANKS_CSV)], inputs)
    if args.edition == HECKTOR:
        standings, extra = _rank_hecktor(paths, args.truth, args.cases)
    else:
        standings, extra = _rank_edition(paths, args)
    metrics = _metrics_of(args.edition)
    print(f"\n{to_text(standings, metrics)}", flush=True)
    for line in _extra_lines(extra):
        print(line)
    if args.json:
        write_text(args.json, to_json(report(standings, args.edition, extra)), outputs.RANKS_JSON)
    if args.csv:
        write_text(args.csv, to_csv(standings), outputs.RANKS_CSV)
    return 0


def to_text(standings: Sequence[Standing], metrics: Mapping[str, str]) -> str:
    """Return the table, and one per subset: each measure's figure with its rank in brackets.

    Parameters
    ----------
    standings : sequence of Standing
    metrics : mapping
        Label of each measure to the metric whose decimals it is shown with.
    """

    def cells(pairs: Mapping[str, tuple[float, float]]) -> list[str]:
        return [f"{METRICS[metrics[label]].text(value)} ({rank:.4g})" for label, (value, rank) in pairs.items()]

    rows = [["Rank", "Submission", "Mean rank", *metrics]]
    for one in standings:
        pairs = {label: (one.values[label], one.ranks[label]) for label in metrics}
        rows.append([str(one.final_rank), one.name, f"{one.mean_rank:.4g}", *cells(pairs)])
    blocks = [_aligned(rows)]
    for subset in standings[0].by_subset:
        rows = [["Submission", *metrics], *([one.name, *cells(one.by_subset[subset])] for one in standings)]
        blocks.append(f"Within {subset}:\n{_aligned(rows)}")
    return "\n\n".join(blocks)


def to_csv(standings: Sequence[Standing]) -> str:
    """Return one row per submission, with full precision; NaN is an empty cell."""
    labels = list(standings[0].values)
    headings = [
        "submission",
        "rank",
        "mean_rank",
        *(cell for label in labels for cell in (label, f"{label} rank")),
    ]
    rows: list[Sequence[Any]] = [headings]
    for one in standings:
        pairs = (cell for label in labels for cell in (one.values[label], one.ranks[label]))
        rows.append([one.name, one.final_rank, one.mean_rank, *pairs])
    return csv_text(rows)


def report(standings: Sequence[Standing], edition: str, extra: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the content of the JSON file."""
    weights = {m.label: m.weight for m in SCHEMES[edition].measures} if edition in SCHEMES else {"mean": 1.0}
    return {
        "edition": edition,
        "weights": weights,
        "submissions": [
            {
                "submission": one.name,
                "rank": one.final_rank,
                "mean_rank": one.mean_rank,
                "values": one.values,
                "ranks": one.ranks,
                "subsets": {
                    subset: {label: {"value": value, "rank": rank} for label, (value, rank) in pairs.items()}
                    for subset, pairs in one.by_subset.items()
                },
                **extra.get(one.name, {}),
            }
            for one in standings
        ],
    }


def _rank_edition(
    paths: Mapping[str, Path], args: argparse.Namespace
) -> tuple[list[Standing], dict[str, dict[str, Any]]]:
    """Read and rank the submissions of an AutoPET edition; V's pooled F1 is the extra."""
    scheme = scheme_of(args.edition)
    by_subset = scheme.subsets != "pooled"
    if by_subset and args.cases is None:
        raise UsageError(
            f"edition {args.edition} ranks by subsets of tracer and centre; give a table with the columns case, "
            "tracer and centre (--cases)"
        )
    listed = read_table(args.cases, ("tracer", "centre") if by_subset else ()) if args.cases else None
    submissions: dict[str, Cases] = {}
    for name, path in paths.items():
        cases = read_submission(path, args.edition, args.truth)
        submissions[name] = cases if listed is None else choose_cases(name, cases, listed)
        log.info("Read %s: %d cases from %s", name, len(submissions[name]), path)
    subsets = (
        {case: f"{row['tracer']}, {row['centre']}" for case, row in (listed or {}).items()} if by_subset else {}
    )
    standings = rank_submissions(submissions, args.edition, subsets)
    extra: dict[str, dict[str, Any]] = {}
    if args.edition == "V":
        data_sets = {case: row["data_set"] for case, row in (listed or {}).items()}
        for name, cases in submissions.items():
            if all(count in curve for curve in cases.values() for count in COUNTS):
                extra[name] = {"pooled_lesion_f1": _pooled_f1(cases, data_sets)}
    return standings, extra


def _pooled_f1(cases: Cases, data_sets: Mapping[str, str]) -> float:
    """Return V's aggregate lesion F1 at the last step; cases without a data set form one."""
    true, found, false = ([curve[name][-1] for curve in cases.values()] for name in COUNTS)
    missed = [all_of - some for all_of, some in zip(true, found, strict=True)]
    return pooled_lesion_f1(found, missed, false, [data_sets.get(case, "") for case in cases])


def _rank_hecktor(
    paths: Mapping[str, Path], truth: Path | None, cases: Path | None
) -> tuple[list[Standing], dict[str, dict[str, Any]]]:
    """Score and rank folders of HECKTOR's label images; the missing patients are the extra."""
    if truth is None or cases is not None:
        raise UsageError("HECKTOR ranks folders of label images on all patients; give --truth, and no --cases")
    scores, extra = {}, {}
    for name, path in paths.items():
        scores[name], missing = hecktor.score_folder(truth, path)
        extra[name] = {"missing": missing}
        log.info("Scored %s", name)
    return hecktor.rank_by_mean(scores), extra


def _metrics_of(edition: str) -> dict[str, str]:
    if edition == HECKTOR:
        return dict.fromkeys((*hecktor.LABELS, "mean"), "dice")
    return {measure.label: measure.metric for measure in SCHEMES[edition].measures}


def _extra_lines(extra: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = []
    for name, content in extra.items():
        if "pooled_lesion_f1" in content:
            f1 = METRICS["lesion_f1"].text(content["pooled_lesion_f1"])
            lines.append(f"Lesion F1 pooled per data set at the last step, {name}: {f1}")
        if content.get("missing"):
            lines.append(f"Missing, counted as-empty, {name}: {', '.join(content['missing'])}")
    return lines


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
