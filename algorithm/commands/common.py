"""What several commands share: options to settings, weights, and what is told at the end."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from algorithm.commands.tuning import check_tuning, use_tuning_file
from algorithm.errors import UsageError
from algorithm.files import is_same_file
from algorithm.inference.memory import reuse_freed_memory
from algorithm.inference.precision import PRECISIONS
from algorithm.job import InferenceSettings, Result, Segmenter
from algorithm.options import check_passes
from algorithm.outputs import MASK, PICTURE, RUN_REPORT, check_free
from algorithm.weights import Checkpoint, find_checkpoints, load_checkpoint

_log = logging.getLogger(__name__)


def tell(line: str) -> None:
    """Print one line of a command's results; progress goes to the log, which can be turned down."""
    print(line, flush=True)


def tell_tumour(result: Result) -> None:
    """Print the last line of a case: how much tumour was found."""
    count = len(result.lesions)
    tell(f"tumour: {result.report.total_volume_ml:.2f} ml in {count} lesion{'' if count == 1 else 's'}")


def check_options(args: argparse.Namespace) -> None:
    """Raise UsageError for an option of the inference whose value makes no sense."""
    check_passes(args.flips, args.overlap)
    if args.time_limit is not None and not args.time_limit > 0:
        raise UsageError(f"--time-limit must be a positive number of seconds, got {args.time_limit:g}")
    if args.precision not in PRECISIONS:
        *others, last = PRECISIONS
        raise UsageError(f"--precision must be {', '.join(others)} or {last}, got {args.precision!r}")
    check_tuning(args)


def check_results(report: Path | None, picture: Path | None, mask: Path, inputs: Sequence[Path]) -> None:
    """Raise where a result could not be written, or would overwrite anything but an earlier one of its kind."""
    taken = {mask.resolve()}
    for option, path in (("--report", report), ("--picture", picture)):
        if path is None:
            continue
        if any(is_same_file(path, each) for each in inputs):
            raise UsageError(f"{option} {path} would overwrite an input image; choose another name")
        if path.resolve() in taken:
            raise UsageError(f"{option} {path} is the name of another result; choose another name")
        taken.add(path.resolve())
    for result, kind in ((mask, MASK), (report, RUN_REPORT), (picture, PICTURE)):
        if result is not None:
            check_free(result, kind)
    if picture is not None and picture.suffix.lower() != ".png":
        raise UsageError(f"--picture must be named .png, got {picture}")


def settings_of(args: argparse.Namespace, time_limit_s: float | None) -> InferenceSettings:
    """Return how to segment, by the options of the inference."""
    return InferenceSettings(
        flips=args.flips,
        everywhere=args.everywhere,
        overlap=args.overlap,
        time_limit_s=time_limit_s,
        whole_volume=args.whole_volume,
        no_checks=tuple(args.no_checks or ()),
    )


def segmenter_of(args: argparse.Namespace, device: str | None = None) -> Segmenter:
    """Load the weights onto a device, that of the options where none is named; computing as ``--tuning`` says."""
    reuse_freed_memory()
    segmenter = Segmenter(
        checkpoints_at(args.weights), device or args.device, args.precision, require_gpu=args.require_gpu
    )
    use_tuning_file(args, segmenter)
    return segmenter


def checkpoints_at(where: Path | None) -> list[Checkpoint]:
    """Load the checkpoints of a path, or those that a run uses."""
    checkpoints = [load_checkpoint(path) for path in find_checkpoints(where)]
    for each in checkpoints:
        how = each.description
        _log.info("weights %s: %s (sha256 %s...)", how.name, each.path, how.sha256[:12])
    return checkpoints
