"""``--tuning`` and ``--tune-s``: take a tuning from its file, or find one before the first job."""

from __future__ import annotations

import argparse
import logging
import math
import time

from algorithm.errors import MissingInputError, UsageError
from algorithm.inference.device import dtype_of
from algorithm.inference.tuner import WINDOWS_BEFORE_TRIALS
from algorithm.job import Segmenter
from algorithm.outputs import check_free
from algorithm.tuning import dtypes_of, tune
from algorithm.tuning_file import KIND, read_tuning, write_tuning

_SHARE_OF_LIMIT = 0.2  # of a time limit that is named: the first job pays for what tuning takes

_log = logging.getLogger(__name__)


def check_tuning(args: argparse.Namespace) -> None:
    """Raise UserError for an option of tuning that makes no sense, before anything is loaded."""
    tune_s = getattr(args, "tune_s", None)
    if tune_s is not None and not 0 <= tune_s < math.inf:
        raise UsageError(f"--tune-s must be a number of seconds, 0 for no tuning, got {tune_s:g}")
    if args.tuning is None or args.tuning.exists():
        return
    if tune_s is None:
        raise MissingInputError(
            f"there is no tuning {args.tuning}; `serve --tuning` with this name makes it, or leave --tuning out"
        )
    if tune_s == 0:
        raise UsageError(f"there is no tuning {args.tuning}, and --tune-s 0 makes none; leave one of the two out")
    check_free(args.tuning, KIND)


def use_tuning_file(args: argparse.Namespace, segmenter: Segmenter) -> bool:
    """Compute as the file of ``--tuning`` says; False where none is named, or none is there yet.

    Raises
    ------
    UserError
        The file is not for this device and these checkpoints, or contradicts ``--precision``.
    """
    if args.tuning is None or not args.tuning.exists():
        return False
    tuning = read_tuning(args.tuning, segmenter.device, segmenter.descriptions)
    if dtype_of(tuning.precision) not in dtypes_of(segmenter):
        why = f"--precision {args.precision}" if args.precision != "auto" else "the checkpoint"
        raise UsageError(
            f"the tuning {args.tuning} computes in {tuning.precision}, which {why} does not allow; use another "
            "tuning, or none"
        )
    segmenter.predictor.use(tuning)
    _log.info("tuning %s: %s", args.tuning, tuning)
    return True


def tune_before_health(args: argparse.Namespace, segmenter: Segmenter) -> None:
    """Warm up, find the fastest way where it is not fixed yet, and use it from now on.

    With ``--tuning`` the choice is written, so that later runs can repeat it. Where windows take so long that not
    even the way before tuning can be compared and timed in the time, all stays as it is.
    """
    fixed = args.tuning is not None and args.tuning.exists()
    before = segmenter.warm_up()
    if fixed or args.tune_s == 0:
        return
    seconds = min(args.tune_s, math.inf if args.time_limit is None else _SHARE_OF_LIMIT * args.time_limit)
    began = time.monotonic()
    segmenter.warm_up()
    least_s = WINDOWS_BEFORE_TRIALS * (time.monotonic() - began)
    if least_s > seconds:
        _log.info(
            "tuning would take %.0f s, more than the %g s that there are for it: none is done", least_s, seconds
        )
        return
    _log.info("trying at most %g s which way of computing windows is fastest here", seconds)
    tuned = tune(segmenter, before, seconds, repeatable=args.tuning is not None)
    for line in tuned.table():
        _log.info(line)
    ended = "all was tried" if tuned.complete else "the time was up"
    _log.info("tuning: %s (%.1f s, %s)", tuned.choice, tuned.seconds, ended)
    segmenter.predictor.use(tuned.choice)
    if args.tuning is not None:
        write_tuning(args.tuning, tuned.choice, segmenter.device, segmenter.descriptions)
    segmenter.warm_up()
