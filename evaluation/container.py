"""Scoring as a grand-challenge evaluation container: ``/input/predictions.json`` to ``/output/metrics.json``.

The platform writes one entry per job into ``predictions.json``: its primary key ``pk``, its ``status``, and its
``inputs`` and ``outputs``, each with an ``interface`` (``slug``, ``relative_path``) and, for images, an ``image``
whose ``name`` is that of the file uploaded to the archive. The mask of a job lies at
``/input/<pk>/output/<relative_path>/<uuid>.mha``. The truth comes as a tarball that the platform unpacks.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from algorithm.errors import MissingInputError, UsageError
from evaluation.scoring.editions import DEFAULT_EDITION, RULES
from evaluation.scoring.metrics import SURFACE_TOLERANCE_MM
from evaluation.scoring.pairs import IMAGE_SUFFIXES, Pair, case_name, masks_in, read_table, tracer
from evaluation.scoring.score import check_tolerance, report, score_aloud, summary_text, to_json, write_text

INPUT_FOLDER = Path("/input")
OUTPUT_FOLDER = Path("/output")
TRUTH_FOLDER = Path("/opt/ml/input/data/ground_truth")
CASES_FILE = "cases.csv"
MASK_SLUGS = ("automated-petct-lesion-segmentation", "tumor-lesion-segmentation")

_CHANNEL = re.compile(r"_000\d$")


@dataclass(frozen=True)
class Job:
    """One algorithm job: its key, the uploaded names of its input images, and its mask (None: it has none)."""

    pk: str
    image_names: tuple[str, ...]
    mask: Path | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; the platform gives none, so the edition can also come from the environment."""
    parser.add_argument("--input", type=Path, default=INPUT_FOLDER, help="default: %(default)s")
    parser.add_argument("--truth", type=Path, default=TRUTH_FOLDER, help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=OUTPUT_FOLDER, help="default: %(default)s")
    parser.add_argument(
        "--edition",
        default=os.environ.get("H2ASEG_EDITION", DEFAULT_EDITION),
        help=f"whose rules apply: {', '.join(RULES)} (default: H2ASEG_EDITION, else {DEFAULT_EDITION})",
    )
    parser.add_argument("--tolerance", type=float, default=SURFACE_TOLERANCE_MM, metavar="MM", help="surface Dice")


def main(args: argparse.Namespace) -> int:
    """Score every job of the phase and write ``metrics.json``."""
    if args.edition not in RULES:
        raise UsageError(f"the edition must be one of {', '.join(RULES)}, got {args.edition!r}")
    check_tolerance(args.tolerance)
    pairs = find_pairs(read_jobs(args.input), args.truth)
    results = score_aloud(pairs, RULES[args.edition], tolerance_mm=args.tolerance)
    content = report(results, pairs, args.edition)
    print(summary_text(content))
    write_text(args.output / "metrics.json", to_json(content))
    return 0


def read_jobs(folder: Path) -> list[Job]:
    """Read ``predictions.json`` and find the mask of each job.

    Raises
    ------
    MissingInputError
        The file is missing or is not a list of jobs, or a job has several masks.
    """
    path = folder / "predictions.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MissingInputError(f"cannot read the list of jobs {path}: {error.strerror}") from error
    except ValueError as error:
        raise MissingInputError(f"the list of jobs {path} is not JSON: {error}") from error
    try:
        return [_job(entry, folder) for entry in entries]
    except (AttributeError, KeyError, TypeError) as error:
        raise MissingInputError(f"{path} is not grand-challenge's list of jobs: {error!r}") from error


def find_pairs(jobs: Sequence[Job], truth_folder: Path) -> list[Pair]:
    """Match each job to its truth by the name of its CT or PET; the truths define the cases.

    The truth ``NAME.mha`` belongs to a job with an input image called ``NAME``, with any image suffix and with or
    without nnU-Net's channel ``_0000`` or ``_0001``. A ``cases.csv`` among the truths overrides this: its column
    ``case`` holds the input image's name, ``truth`` the file, ``subset`` the subset.

    Raises
    ------
    MissingInputError
        There is no truth, a job has none, or two jobs have the same.
    """
    truths, subsets = _truths(truth_folder)
    masks: dict[str, Path | None] = {}
    for job in jobs:
        case = next((name for name in _names(job) if name in truths), None)
        if case is None:
            images = ", ".join(job.image_names) or "none"
            raise MissingInputError(
                f"no truth in {truth_folder} for job {job.pk}, whose images are {images}; name the truth after "
                f"the CT or PET, or list it in {CASES_FILE}"
            )
        if case in masks:
            raise MissingInputError(
                f"several jobs belong to the truth of {case}, one is {job.pk}; give each its own"
            )
        masks[case] = job.mask
    return [Pair(case, path, masks.get(case), subsets[case]) for case, path in sorted(truths.items())]


def _truths(folder: Path) -> tuple[dict[str, Path], dict[str, str | None]]:
    """Return file and subset by case; a tarball of one folder is entered."""
    content = sorted(folder.iterdir()) if folder.is_dir() else []
    if len(content) == 1 and content[0].is_dir():
        return _truths(content[0])
    truths = masks_in(folder) if content else {}
    subsets = {case: tracer(case) for case in truths}
    if (folder / CASES_FILE).is_file():
        rows = {case_name(row["case"]): row for row in read_table(folder / CASES_FILE)}
        truths = {case: folder / (row["truth"] or truths.get(case, case)) for case, row in rows.items()}
        subsets = {case: row["subset"] or tracer(case) for case, row in rows.items()}
    absent = next((name for name, path in truths.items() if not path.is_file()), None)
    if absent is not None:
        raise MissingInputError(f"{CASES_FILE} lists {absent}, whose truth is not in {folder}")
    if not truths:
        raise MissingInputError(f"no truth in {folder} (looked for {', '.join(IMAGE_SUFFIXES)})")
    return truths, subsets


def _job(entry: Mapping[str, Any], folder: Path) -> Job:
    names = tuple(value["image"]["name"] for value in entry["inputs"] if value.get("image"))
    images = [value["interface"] for value in entry["outputs"] if value.get("image")]
    masks = [interface for interface in images if interface["slug"] in MASK_SLUGS] or images
    if not masks:
        return Job(entry["pk"], names, None)
    place = folder / entry["pk"] / "output" / masks[0]["relative_path"]
    files = sorted(path for path in place.glob("*") if path.name.endswith(IMAGE_SUFFIXES))
    if len(files) > 1:
        raise MissingInputError(f"expected one mask in {place}, found {', '.join(path.name for path in files)}")
    return Job(entry["pk"], names, files[0] if files else None)


def _names(job: Job) -> list[str]:
    names = [case_name(name) for name in job.image_names]
    return names + [_CHANNEL.sub("", name) for name in names]
