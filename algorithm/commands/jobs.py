"""Grand-challenge jobs: ``run`` does one, ``serve`` one whenever it is asked."""

from __future__ import annotations

import argparse
import itertools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from algorithm import server
from algorithm.callcache import CallCache
from algorithm.commands.common import check_options, check_results, segmenter_of, settings_of, tell, tell_tumour
from algorithm.commands.tuning import tune_before_health
from algorithm.empty import empty_result
from algorithm.errors import InstallationError, MissingInputError, UnreadableImageError, UsageError, UserError
from algorithm.files import claimed
from algorithm.images import write_mask
from algorithm.inference.budget import process_start, seconds_since_start
from algorithm.inference.progress import Progress
from algorithm.job import Result, Segmenter
from algorithm.outputs import MASK, PICTURE, RUN_REPORT, SOCKET_VALUE, Kind, check_free, remove_earlier
from algorithm.picture import write_picture
from algorithm.refusals import as_user_error
from algorithm.report import write_json, write_report
from algorithm.sockets import DATA_CENTRIC_FILE, Edition, Job, find_job

_log = logging.getLogger(__name__)

_CONTAINER_START_S = 20.0  # of the edition's limit: what passes before this process starts and after it ends
_NEVER_EMPTY = (MissingInputError, UnreadableImageError, InstallationError)  # what --on-error does not cover


def run(args: argparse.Namespace) -> int:
    """Do one grand-challenge job: ``/input`` to ``/output``."""
    do_job(args, lambda: segmenter_of(args), process_start())
    return 0


def do_job(args: argparse.Namespace, segmenter: Callable[[], Segmenter], started: float) -> None:
    """Do the job that lies in the input folder now.

    What an earlier job left does not outlive this one's failure. An interactive edition's masks, which are of the
    same case, stay until the new one takes their place; all else goes before the work.

    Parameters
    ----------
    args : argparse.Namespace
        The options of ``run``.
    segmenter : callable
        Loads the weights, or returns those loaded already; not asked before the job was found in order.
    started : float
        Moment from which the time limit counts, on the clock of ``time.monotonic``.
    """
    with claimed(args.output), _nothing_stale(_results_of(args)):
        check_options(args)
        job = find_job(args.input, args.output, Edition.named(args.edition) if args.edition else None)
        _log.info("AutoPET %s: CT %s, PET %s", job.edition.value, job.ct, job.pet)
        check_results(args.report, args.picture, job.mask, (job.ct, job.pet))
        _check_sockets(args, job)
        kept = {*job.earlier, job.mask} if job.edition.interactive else set()
        remove_earlier({path: kind for path, kind in _results_of(args).items() if path not in kept})
        result = _segmented(args, job, segmenter(), started)
        _write(args, job, result)
    tell(f"mask: {job.mask}")
    for note in [result.report.notes[0]] if result.report.error else []:
        tell(note)
    tell_tumour(result)


def serve(args: argparse.Namespace) -> int:
    """Do jobs as grand-challenge's invoke API asks for them, with weights loaded, kernels warm and windows tuned.

    The platform starts a server for a job and counts its time limit from there, so the first job pays for all that
    passed until the server was ready. What passes between then and the call is not ours.
    """
    check_options(args)

    def load() -> server.Job:
        segmenter = segmenter_of(args)
        tune_before_health(args, segmenter)
        owed = itertools.chain([seconds_since_start()], itertools.repeat(0.0))
        return lambda began: do_job(args, lambda: segmenter, began - next(owed))

    return server.serve(load, args.host, args.port)


def _segmented(args: argparse.Namespace, job: Job, segmenter: Segmenter, started: float) -> Result:
    """Segment the job's case; where that fails and ``--on-error empty-mask`` is given, return an empty mask."""
    limit = job.edition.time_limit_s - _CONTAINER_START_S if args.time_limit is None else args.time_limit
    settings = settings_of(args, limit)
    try:
        return segmenter.segment(
            job.ct,
            job.pet,
            settings,
            edition=job.edition.value,
            started=started,
            progress=Progress(bar=True),
            scribbles=job.scribbles,
            cache=CallCache(args.cache) if job.edition.interactive else None,
        )
    except Exception as error:
        known = error if isinstance(error, UserError) else as_user_error(error)
        if args.on_error == "fail" or isinstance(known, _NEVER_EMPTY):
            raise
        return empty_result(job.ct, job.pet, segmenter, error, edition=job.edition.value)


def _write(args: argparse.Namespace, job: Job, result: Result) -> None:
    """Write all results of a job, the mask first."""
    write_mask(
        result.mask,
        result.pair.pet,
        job.mask,
        protect=(job.ct, job.pet),
        instead_of=[path for path in job.earlier if path.exists()],
        staging=args.output,
    )
    for path, value in job.extras.items():
        write_json(path, value, SOCKET_VALUE)
    if args.picture is not None:
        write_picture(args.picture, result.pair.pet, result.mask)
    if args.report is not None:
        write_report(args.report, result.report)
    for what, written in (("picture", args.picture), ("report", args.report)):
        if written is not None:
            tell(f"{what}: {written}")


def _results_of(args: argparse.Namespace) -> dict[Path, Kind]:
    """Return where a job, of whatever edition, leaves its results: the places, and what is there by now."""
    folders = {args.output / edition.mask_folder for edition in Edition}
    places = {path: MASK for folder in sorted(folders) for path in sorted(folder.glob("*.mha"))}
    places[args.output / DATA_CENTRIC_FILE] = SOCKET_VALUE
    asked = ((args.report, RUN_REPORT), (args.picture, PICTURE))
    return places | {path: kind for path, kind in asked if path is not None}


@contextmanager
def _nothing_stale(places: dict[Path, Kind]) -> Iterator[None]:
    """Where the block fails, remove those results that were there before it and still are."""
    before = {path: identity for path in places if (identity := _identity(path)) is not None}
    try:
        yield
    except BaseException:  # also where the platform or the user stops it
        with suppress(Exception):  # what went wrong first is what counts
            remove_earlier({path: places[path] for path, was in before.items() if _identity(path) == was})
        raise


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _check_sockets(args: argparse.Namespace, job: Job) -> None:
    """Raise for a report or picture among the inputs or the results, and for what has a result's name."""
    for path in job.extras:
        check_free(path, SOCKET_VALUE)
    images = (args.output / "images").resolve()
    for option, path in (("--report", args.report), ("--picture", args.picture)):
        if path is None:
            continue
        place = path.resolve()
        if place.is_relative_to(images) or place in {extra.resolve() for extra in job.extras}:
            raise UsageError(
                f"{option} {path} lies where the platform expects this job's results alone; choose another folder"
            )
        if place.is_relative_to(args.input.resolve()):
            raise UsageError(f"{option} {path} lies in the input folder; choose another folder")
