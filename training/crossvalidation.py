"""``python -m training crossvalidate``: train k folds, segment each patient by the network that never saw them."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import itertools
import json
import logging
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray

import algorithm
import evaluation
from algorithm.description import read_description
from algorithm.errors import UsageError
from algorithm.images import write_mask
from algorithm.inference.progress import Progress
from algorithm.job import InferenceSettings, Segmenter
from algorithm.weights import load_checkpoint
from evaluation.handover.bundle import folder_sha256
from evaluation.scoring.editions import RULES
from evaluation.scoring.metrics import Scores, measure
from evaluation.scoring.score import csv_text, write_text
from evaluation.scoring.score import summarise as spread
from training import fit
from training.datasets import Case, Study, read_study
from training.parallel import Processes, leave_processes
from training.preparation import Material, stored_folds
from training.settings import Precision
from training.splits import Split, fold_split, read_split
from training.yardsticks import YARDSTICKS, Threshold

REPORTED = {"dice": "Dice", "hd95_mm": "HD95 mm", "fpv_ml": "FPV ml", "fnv_ml": "FNV ml"}

_SILENT = Progress(logging.DEBUG)


@dataclass(frozen=True)
class Row:
    """The scores of one method on one held-back case."""

    case: str
    patient: str
    fold: int
    method: str
    scores: Scores


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m training crossvalidate``."""
    parser.add_argument("--folds", type=int, default=5, metavar="K", help="(%(default)s)")
    parser.add_argument(
        "--flips",
        type=int,
        nargs="+",
        choices=range(1, 9),
        default=(1, 8),
        metavar="N",
        help="flips averaged, one table row each (1 8)",
    )
    fit.add_training_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Run all folds, then write ``scores.csv``, ``scores.json``, ``table.md`` and ``cases.csv``."""
    device, processes = fit.start(args)
    say = fit.speaker(processes)
    deadline = time.monotonic() + args.time_budget
    rows: list[Row] = []
    held: list[Case] = []
    try:
        material = fit.gather_material(args, processes, say)
        start = args.init
        if start and not start.is_dir():
            _check_start(start, material.datasets[0].folder)
        for fold, split in enumerate(folds_of(material, args.folds, args.seed)):
            say(f"fold {fold} of {args.folds}: {len(split.test)} patients held back")
            folder = args.out / f"fold_{fold}"
            args.time_budget = deadline - time.monotonic()
            if start and start.is_dir():
                args.init = _start_of_fold(start, fold, split)
            name = f"{args.out.resolve().name}-fold-{fold}"
            run = fit.fit(args, name, material, split, folder, device, processes, say)
            if not run.finished:
                return 0
            cases = held_back(material, split)
            held += cases
            rows += score_fold(fold, run.checkpoint, cases, args.flips, device, args.precision, say, processes)
        if processes.is_first:
            write_reports(rows, args.out)
            write_case_list(held, material.datasets[0].folder, args.out / "cases.csv")
            say(f"\n{table(rows)}\n\nevery patient: {args.out / 'scores.csv'}")
    finally:
        leave_processes()
    return 0


def folds_of(material: Material, folds: int, seed: int) -> list[Split]:
    """Return the folds of the first data folder; all patients of the other folders train in each.

    An nnU-Net ``splits_final.json`` in the first folder is used if it has this many folds.
    """
    dataset, cache = material.datasets[0], material.caches[0]
    splits = stored_folds(dataset, cache)
    if len(splits) != folds:
        patients = {case.patient for case in cache.cases}
        splits = [fold_split(patients, fold, folds, seed) for fold in range(folds)]
    others = tuple(sorted({case.patient for other in material.caches[1:] for case in other.cases}))
    return [Split(train=split.train + others, test=split.test) for split in splits]


def held_back(material: Material, split: Split) -> list[Case]:
    """Return the usable cases of the first data folder whose patients are held back."""
    usable = {case.name for case in material.caches[0].of(split.test)}
    return [case for case in material.datasets[0].cases if case.name in usable]


def score_fold(
    fold: int,
    checkpoint: Path,
    cases: Sequence[Case],
    flips: Sequence[int],
    device: torch.device,
    precision: Precision,
    say: Callable[[str], None],
    processes: Processes | None = None,
) -> list[Row]:
    """Segment and score the held-back cases, and the yardsticks on them; finished scores are read again.

    The processes share the cases; all get all the rows. Masks of all folds are written to
    ``masks/METHOD/CASE.nii.gz`` beside the folds' folders, on the PET's own grid.
    """
    stored = checkpoint.parent / "scores.json"
    key = {
        "sha256": read_description(checkpoint).sha256,
        "code": [folder_sha256(Path(package.__path__[0])) for package in (algorithm, evaluation)],
        "precision": precision,
        "flips": list(flips),
        "cases": [case.name for case in cases],
    }
    if stored.is_file():
        content = json.loads(stored.read_text(encoding="utf-8"))
        if content["key"] == key:
            return [Row(**{**row, "scores": Scores(**row["scores"])}) for row in content["rows"]]
    processes = processes or Processes()
    processes.wait()  # none may find the scores that another is about to write
    segmenter = Segmenter([load_checkpoint(checkpoint)], device.type, precision)
    rows: list[Row] = []
    for case in processes.own(cases):
        study = read_study(case)
        masks = {name: _threshold(study, rule) for name, rule in YARDSTICKS.items()}
        for count in flips:
            settings = InferenceSettings(flips=count)
            masks[_method(count)] = segmenter.segment(case.ct, case.pet, settings, progress=_SILENT).mask
        for name, mask in masks.items():
            write_mask(
                mask, study.pet, checkpoint.parent.parent / "masks" / _slug(name) / f"{_slug(case.name)}.nii.gz"
            )
        rows += [Row(case.name, case.patient, fold, name, _score(study, mask)) for name, mask in masks.items()]
    rows = sorted(processes.gather(rows), key=lambda row: key["cases"].index(row.case))
    for name, scored in itertools.groupby(rows, key=lambda row: row.case):
        say(f"  {name}: Dice " + ", ".join(f"{row.method} {row.scores.dice:.3f}" for row in scored))
    if processes.is_first:
        content = {"key": key, "rows": [dataclasses.asdict(row) for row in rows]}
        write_text(stored, json.dumps(content, indent=1))
    return rows


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


def write_case_list(cases: Sequence[Case], data: Path, path: Path) -> None:
    """Write whose contours lie where, as ``--cases`` of ``evaluation score`` and ``compare``.

    Parameters
    ----------
    cases : sequence of Case
        All that were held back once.
    data : Path
        Folder of the data set: ``--truth``.
    path : Path
        CSV file.
    """
    rows = [(_slug(case.name), case.seg.relative_to(data).as_posix()) for case in cases]
    write_text(path, csv_text([("case", "truth"), *sorted(rows)]))


def summarise(rows: Iterable[Row]) -> dict[str, dict[str, dict[str, float]]]:
    """Return mean, median and standard deviation of each reported score by method, over the cases that have it."""
    by_method: dict[str, list[Scores]] = {}
    for row in rows:
        by_method.setdefault(row.method, []).append(row.scores)
    return {
        method: {name: spread([getattr(score, name) for score in scores]) for name in REPORTED}
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


def _slug(name: str) -> str:
    """Return a name that a file may have: ``network, 8 flips`` becomes ``network_8_flips``."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("_")


def _start_of_fold(earlier: Path, fold: int, split: Split) -> Path:
    """Return where an earlier cross-validation left a fold; UsageError if it held back other patients."""
    folder = earlier / f"fold_{fold}"
    if set(read_split(folder / "split.json").test) != set(split.test):
        raise UsageError(
            f"{folder} held back other patients than this run does; repeat its --data, --folds and --seed, or "
            "start from a checkpoint"
        )
    return folder / "last.json"


def _check_start(checkpoint: Path, data: Path) -> None:
    """Raise UsageError for a checkpoint that was trained on the patients that it would be tested on.

    Those that it started from count as well.
    """
    known: set[str] = set()
    ancestor: Mapping[str, Any] | None = read_description(checkpoint).provenance
    while ancestor:
        known |= {each["name"] for each in ancestor.get("data") or ()}
        ancestor = ancestor.get("initial")
    if data.resolve().name in known:
        raise UsageError(
            f"the network in {checkpoint} was trained on a data set called {data.resolve().name}, on which it "
            "would be tested; start from one that never saw it"
        )


def _method(flips: int) -> str:
    return "network" if flips == 1 else f"network, {flips} flips"


def _threshold(study: Study, rule: Threshold) -> NDArray[np.uint8]:
    suv = sitk.GetArrayViewFromImage(study.pet)
    called: NDArray[np.bool_] = suv >= rule(suv, sitk.GetArrayViewFromImage(study.seg) > 0)
    return called.astype(np.uint8)


def _score(study: Study, mask: NDArray[np.uint8]) -> Scores:
    return measure(sitk.GetArrayViewFromImage(study.seg), mask, study.pet.GetSpacing(), RULES["paper"])


def _cell(figures: Mapping[str, float], cases: int) -> str:
    """Return mean, median and standard deviation, and of how many cases if not of all."""
    text = f"{figures['mean']:.3f} ({figures['median']:.3f}, {figures['std']:.3f})"
    return text if figures["count"] == cases else f"{text}, n={figures['count']:.0f}"


def _finite(scores: Scores) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in dataclasses.asdict(scores).items()}
