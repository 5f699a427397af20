"""Scoring as a grand-challenge evaluation container: ``/input/predictions.json`` to ``/output/metrics.json``.

The platform writes one entry per job into ``predictions.json``: its primary key ``pk``, its ``status``, how long
it took (``exec_duration`` or ``invoke_duration``, ISO 8601 or null), and its ``inputs`` and ``outputs`` as socket
values (:mod:`algorithm.socket_values`). The mask of a job lies at
``/input/<pk>/output/<relative_path>/<uuid>.mha``. The truth comes as a tarball that the platform unpacks.
"""

from __future__ import annotations

import argparse
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from algorithm.cases import IMAGE_SUFFIXES, case_name, is_image, masks_in, read_table
from algorithm.errors import MissingInputError, UsageError
from algorithm.jsonfile import JSON, read_json
from algorithm.server import PORT, Job, serve
from algorithm.socket_values import SocketValue, check_inside, read_socket_values
from algorithm.sockets import Edition
from evaluation.outputs import METRICS, make_way
from evaluation.scoring.crosscheck import cross_check
from evaluation.scoring.editions import DEFAULT_EDITION, RULES
from evaluation.scoring.metrics import SURFACE_TOLERANCE_MM
from evaluation.scoring.pairs import Pair, named_pair, pair_of_row
from evaluation.scoring.score import (
    check_tolerance,
    report,
    score_with_table,
    summarise,
    summary_text,
    to_json,
    write_text,
)

INPUT_FOLDER = Path("/input")
OUTPUT_FOLDER = Path("/output")
TRUTH_FOLDER = Path("/opt/ml/input/data/ground_truth")
METRICS_FILE = "metrics.json"
CASES_FILE = "cases.csv"
MASK_SLUGS = ("automated-petct-lesion-segmentation", "tumor-lesion-segmentation")
SUCCEEDED = "Succeeded"

_CHANNEL = re.compile(r"_000\d$")
_DURATION = re.compile(
    r"(?P<sign>-)?P(?:(?P<days>\d+(?:\.\d+)?)D)?"
    r"(?:T(?:(?P<hours>\d+(?:\.\d+)?)H)?(?:(?P<minutes>\d+(?:\.\d+)?)M)?(?:(?P<seconds>\d+(?:\.\d+)?)S)?)?"
)
_SECONDS = {"days": 86400.0, "hours": 3600.0, "minutes": 60.0, "seconds": 1.0}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AlgorithmJob:
    """One job of the algorithm that is evaluated.

    Attributes
    ----------
    pk : str
    status : str
        As the platform words it.
    image_names : tuple of str
        Under which its input images were uploaded.
    mask : Path or None
        None: it has none, or it did not succeed.
    seconds : float
        How long it took; NaN where the platform does not say.
    """

    pk: str
    status: str
    image_names: tuple[str, ...]
    mask: Path | None
    seconds: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``container``; the platform gives none, so all can come from the environment."""
    parser.add_argument(
        "--input", type=Path, default=INPUT_FOLDER, metavar="DIR", help="Folder with predictions.json."
    )
    parser.add_argument("--truth", type=Path, default=TRUTH_FOLDER, metavar="DIR", help="Folder with the truths.")
    parser.add_argument("--output", type=Path, default=OUTPUT_FOLDER, metavar="DIR", help="For metrics.json.")
    parser.add_argument(
        "--edition",
        default=DEFAULT_EDITION,
        metavar="NAME",
        help=f"Whose rules apply: {', '.join(RULES)}.",
    )
    parser.add_argument(
        "--tolerance", type=float, default=SURFACE_TOLERANCE_MM, metavar="MM", help="Of the surface Dice."
    )


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``serve``: those of ``container``, and where to listen."""
    add_arguments(parser)
    parser.add_argument("--host", default="0.0.0.0", metavar="NAME", help="Address to listen at.")
    parser.add_argument("--port", type=int, default=PORT, metavar="N", help="Port to listen at.")


def main(args: argparse.Namespace) -> int:
    """Score every job of the phase and write ``metrics.json``."""
    _check(args)
    evaluate(args.input, args.truth, args.output, args.edition, args.tolerance)
    return 0


def serve_evaluation(args: argparse.Namespace) -> int:
    """Score a phase whenever the platform asks."""
    _check(args)

    def job(called: float) -> None:
        evaluate(args.input, args.truth, args.output, args.edition, args.tolerance)

    def load() -> Job:
        return job

    return serve(load, args.host, args.port)


def evaluate(folder: Path, truth: Path, output: Path, edition: str, tolerance_mm: float) -> None:
    """Score the jobs in a folder and write ``metrics.json``.

    Raises
    ------
    UserError
        The list of jobs, the truth or a mask is not what it should be; nothing is written then.
    """
    make_way([(output / METRICS_FILE, METRICS)])
    jobs = read_jobs(folder)
    pairs = find_pairs(jobs, truth)
    results = score_with_table(pairs, RULES[edition], tolerance_mm=tolerance_mm)
    content = {
        **report(results, pairs, edition),
        "jobs": summarise_jobs(jobs, edition),
        "cross_check": cross_check(pairs, results),
    }
    print(summary_text(content))
    for line in _job_lines(content["jobs"]):
        print(line)
    write_text(output / METRICS_FILE, to_json(content), METRICS)


def read_jobs(folder: Path) -> list[AlgorithmJob]:
    """Read ``predictions.json`` and find the mask of each job.

    Raises
    ------
    MissingInputError
        The file is missing or is not a list of jobs, or a job has several masks.
    """
    path = folder / "predictions.json"
    entries = read_json(path, "the list of jobs")
    if not isinstance(entries, list):
        raise _malformed(path, "it is not a list")
    jobs = [_read_job(entry, folder, path) for entry in entries]
    keys = [job.pk for job in jobs]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise _malformed(path, f"it has several jobs with the key {twice}")
    return jobs


def find_pairs(jobs: Sequence[AlgorithmJob], truth_folder: Path) -> list[Pair]:
    """Match each job to its truth by the name of its CT or PET; the truths define the cases.

    The truth ``NAME.mha`` belongs to a job with an input image called ``NAME``, with any image suffix and with or
    without nnU-Net's channel ``_0000`` or ``_0001``. A ``cases.csv`` among the truths overrides this: its column
    ``case`` holds the input image's name, ``truth`` the file; ``subset``, ``tracer``, ``centre``, ``truth_grid``
    and ``synthetic`` are what they are in any list of cases.

    Raises
    ------
    MissingInputError
        There is no truth, a job has none, or two jobs have the same.
    """
    truths = _truths(truth_folder)
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
    return [replace(pair, prediction=masks.get(case)) for case, pair in sorted(truths.items())]


def summarise_jobs(jobs: Sequence[AlgorithmJob], edition: str) -> dict[str, Any]:
    """Return how the jobs went: those that failed, and the run time.

    Returns
    -------
    dict
        ``count``; ``failed``: key and status of each that did not succeed; ``seconds``: the run time's statistics;
        ``limit_s``: the edition's limit, None where it has none; ``over_limit``: the keys of those above it.
    """
    limit = Edition(edition).time_limit_s if edition in Edition.__members__ else None
    return {
        "count": len(jobs),
        "failed": [{"pk": job.pk, "status": job.status} for job in jobs if job.status != SUCCEEDED],
        "seconds": summarise([job.seconds for job in jobs]),
        "limit_s": limit,
        "over_limit": [job.pk for job in jobs if limit is not None and job.seconds > limit],
    }


def duration_s(text: str) -> float:
    """Return the seconds of an ISO 8601 duration such as ``P0DT00H01M15.5S``; raises ValueError for any other."""
    match = _DURATION.fullmatch(text)
    if match is None or text.endswith(("P", "T")):
        raise ValueError(f"{text!r} is not a duration of ISO 8601")
    seconds = sum(factor * float(match.group(name) or 0) for name, factor in _SECONDS.items())
    return -seconds if match.group("sign") else seconds


def _check(args: argparse.Namespace) -> None:
    if args.edition not in RULES:
        raise UsageError(f"the edition must be one of {', '.join(RULES)}, got {args.edition!r}")
    check_tolerance(args.tolerance)


def _job_lines(jobs: Mapping[str, Any]) -> list[str]:
    lines = [f"Job {each['pk']} did not succeed: {each['status']}" for each in jobs["failed"]]
    seconds = jobs["seconds"]
    if seconds["count"]:
        text = f"Run time of {seconds['count']} jobs: mean {seconds['mean']:.1f} s, most {seconds['max']:.1f} s"
        if jobs["limit_s"] is not None:
            text += f"; {len(jobs['over_limit'])} over the limit of {jobs['limit_s']:.0f} s"
        lines.append(text)
    return lines


def _truths(folder: Path) -> dict[str, Pair]:
    """Return the cases as pairs that have no prediction yet; a tarball of one folder is entered."""
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    content = [path for path in entries if not path.name.startswith(".")]
    if len(content) == 1 and content[0].is_dir():
        return _truths(content[0])
    truths = masks_in(folder) if content else {}
    pairs = {case: named_pair(case, path, None) for case, path in truths.items()}
    if (folder / CASES_FILE).is_file():
        rows = {case_name(case): row for case, row in read_table(folder / CASES_FILE, others=False).items()}
        pairs = {
            case: pair_of_row(
                case, row, folder / row["truth"] if row["truth"] else truths.get(case, folder / case), None
            )
            for case, row in rows.items()
        }
    absent = next((pair.case for pair in pairs.values() if not pair.truth.is_file()), None)
    if absent is not None:
        raise MissingInputError(f"{CASES_FILE} lists {absent}, whose truth is not in {folder}")
    if not pairs:
        raise MissingInputError(f"no truth in {folder} (looked for {', '.join(IMAGE_SUFFIXES)})")
    return pairs


def _read_job(entry: JSON, folder: Path, source: Path) -> AlgorithmJob:
    pk = entry.get("pk") if isinstance(entry, Mapping) else None
    if not isinstance(entry, Mapping) or not isinstance(pk, str):
        raise _malformed(source, "an entry has no pk")
    check_inside(pk, source)
    status = entry.get("status") or SUCCEEDED  # older files say nothing of jobs that went well
    if not isinstance(entry.get("inputs"), list) or not isinstance(entry.get("outputs"), list):
        raise _malformed(source, f"job {pk} lists no inputs or no outputs")
    inputs = read_socket_values(entry["inputs"], source)
    outputs = read_socket_values(entry["outputs"], source)
    return AlgorithmJob(
        pk=pk,
        status=str(status),
        image_names=tuple(each.image_name for each in inputs if each.image_name),
        mask=_mask_of(pk, outputs, folder) if status == SUCCEEDED else None,
        seconds=_seconds_of(entry, source),
    )


def _mask_of(pk: str, outputs: Sequence[SocketValue], folder: Path) -> Path | None:
    """Return the mask of a job; its socket is the one of that name, or the only image."""
    images = [each for each in outputs if each.is_image]
    masks = [each for each in images if each.slug in MASK_SLUGS] or images
    if not masks:
        return None
    mask_folder = masks[0].path_in(folder / pk / "output")
    files = sorted(path for path in mask_folder.glob("*") if is_image(path))
    if len(files) > 1:
        raise MissingInputError(
            f"expected one mask in {mask_folder}, found {', '.join(path.name for path in files)}"
        )
    return files[0] if files else None


def _seconds_of(entry: Mapping[str, JSON], source: Path) -> float:
    for key in ("invoke_duration", "exec_duration"):
        text = entry.get(key)
        if text is not None:
            try:
                return duration_s(str(text))
            except ValueError as error:
                raise _malformed(source, f"{key}: {error}") from error
    return math.nan


def _names(job: AlgorithmJob) -> list[str]:
    names = [case_name(name) for name in job.image_names]
    return names + [_CHANNEL.sub("", name) for name in names]


def _malformed(path: Path, reason: str) -> MissingInputError:
    return MissingInputError(
        f"{path} is not grand-challenge's list of jobs: {reason}; take the file as grand-challenge writes it"
    )
