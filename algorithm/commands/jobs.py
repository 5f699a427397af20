"""Grand-challenge jobs: ``run`` does one, ``serve`` one whenever it is asked."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable

from algorithm import server
from algorithm.callcache import CallCache
from algorithm.commands.common import check_options, check_results, segmenter_of, settings_of, tell, tell_tumour
from algorithm.images import write_mask
from algorithm.inference.budget import process_start
from algorithm.inference.progress import Progress
from algorithm.job import Segmenter
from algorithm.picture import write_picture
from algorithm.report import write_json, write_report
from algorithm.sockets import Edition, find_job

_log = logging.getLogger(__name__)

_CONTAINER_START_S = 20.0  # of the edition's limit: what passes before this process starts and after it ends


def run(args: argparse.Namespace) -> int:
    """Do one grand-challenge job: ``/input`` to ``/output``."""
    check_options(args)
    do_job(args, lambda: segmenter_of(args), process_start())
    return 0


def do_job(args: argparse.Namespace, segmenter: Callable[[], Segmenter], started: float) -> None:
    """Do the job that lies in the input folder now.

    Parameters
    ----------
    args : argparse.Namespace
        The options of ``run``.
    segmenter : callable
        Loads the weights, or returns those loaded already; not asked before the job was found in order.
    started : float
        Moment from which the time limit counts, on the clock of ``time.monotonic``.
    """
    edition = Edition.named(args.edition) if args.edition else None
    job = find_job(args.input, args.output, edition)
    _log.info("AutoPET %s: CT %s, PET %s", job.edition.value, job.ct, job.pet)
    check_results(args.report, args.picture, job.mask, (job.ct, job.pet))
    limit = job.edition.time_limit_s - _CONTAINER_START_S if args.time_limit is None else args.time_limit
    result = segmenter().segment(
        job.ct,
        job.pet,
        settings_of(args, limit),
        edition=job.edition.value,
        started=started,
        progress=Progress(bar=True),
        scribbles=job.scribbles,
        cache=CallCache(args.cache) if job.edition.interactive else None,
    )
    write_mask(result.mask, result.pair.pet, job.mask, protect=(job.ct, job.pet), instead_of=job.earlier)
    for path, value in job.extras.items():
        write_json(path, value)
    if args.picture is not None:
        write_picture(args.picture, result.pair.pet, result.mask)
        tell(f"picture: {args.picture}")
    if args.report is not None:
        write_report(args.report, result.report)
        tell(f"report: {args.report}")
    tell(f"mask: {job.mask}")
    tell_tumour(result)


def serve(args: argparse.Namespace) -> int:
    """Do jobs as grand-challenge's invoke API asks for them, with weights loaded and kernels warm."""
    check_options(args)

    def load() -> server.Job:
        segmenter = segmenter_of(args)
        segmenter.warm_up()
        return lambda called: do_job(args, lambda: segmenter, called)

    return server.serve(load, args.host, args.port)
