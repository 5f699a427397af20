"""The reports of a cross-validation: every patient's scores, and their summary by method."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from algorithm.cases import Case
from evaluation.scoring.metrics import Scores
from evaluation.scoring.score import summarise as summarise_values
from evaluation.scoring.score import write_text
from training.fold_scores import Row, file_name
from training.held_back import list_text

REPORTED = {"dice": "Dice", "hd95_mm": "HD95 mm", "fpv_ml": "FPV ml", "fnv_ml": "FNV ml"}


def write_reports(rows: Sequence[Row], out: Path) -> None:
    """Write every patient's scores as CSV and JSON, and the summary as Markdown."""
    text = io.StringIO()
    names = [field.name for field in dataclasses.fields(Scores)]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", "patient", "fold", "method", *names])
    for row in rows:
        writer.writerow([row.case, row.patient, row.fold, row.method, *dataclasses.astuple(row.scores)])
    cases = [{**dataclasses.asdict(row), "scores": _finite(row.scores)} for row in rows]
    contents = {
        "scores.csv": text.getvalue(),
        "scores.json": json.dumps({"summary": summarise(rows), "cases": cases}, indent=2) + "\n",
        "table.md": table(rows) + "\n",
    }
    for name, content in contents.items():
        write_text(out / name, content)


def write_case_list(cases: Sequence[Case], path: Path) -> None:
    """Write all cases that were held back once, under their masks' names, as ``evaluation`` takes ``--cases``."""
    named = [dataclasses.replace(case, name=file_name(case.name)) for case in cases if case.truth is not None]
    write_text(path, list_text(sorted(named, key=lambda case: case.name), path.parent))


def summarise(rows: Iterable[Row]) -> dict[str, dict[str, dict[str, float]]]:
    """Return mean, median and standard deviation of each reported score by method, over the cases that have it."""
    by_method: dict[str, list[Scores]] = {}
    for row in rows:
        by_method.setdefault(row.method, []).append(row.scores)
    return {
        method: {name: summarise_values([getattr(score, name) for score in scores]) for name in REPORTED}
        for method, scores in by_method.items()
    }


def table(rows: Sequence[Row]) -> str:
    """Return the summary as a Markdown table: mean (median, standard deviation)."""
    lines = [
        "| Method | " + " | ".join(f"{heading}: mean (median, SD)" for heading in REPORTED.values()) + " |",
        "| --- " * (len(REPORTED) + 1) + "|",
    ]
    methods = summarise(rows)
    for method, scores in methods.items():
        cells = [_cell(each, len(rows) // len(methods)) for each in scores.values()]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(figures: Mapping[str, float], cases: int) -> str:
    """Return mean, median and standard deviation, and of how many cases if not of all."""
    text = f"{figures['mean']:.3f} ({figures['median']:.3f}, {figures['std']:.3f})"
    return text if figures["count"] == cases else f"{text}, n={figures['count']:.0f}"


def _finite(scores: Scores) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in dataclasses.asdict(scores).items()}
