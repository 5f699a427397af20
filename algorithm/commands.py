"""What the commands of ``python -m algorithm`` do; see :mod:`algorithm.__main__` for their options."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from algorithm import __version__, server
from algorithm.callcache import CallCache
from algorithm.description import read_description
from algorithm.errors import InstallationError, OutputError, UsageError
from algorithm.files import check_writable
from algorithm.images import check_mask_path, write_mask
from algorithm.inference.augmentation import MOST_FLIPS
from algorithm.inference.budget import Budget, process_start
from algorithm.inference.device import choose_device, choose_dtype, precision_of
from algorithm.inference.memory import host_limit_bytes, reuse_freed_memory
from algorithm.inference.passes import NetworkInput
from algorithm.inference.precision import PRECISIONS
from algorithm.inference.predictor import Predictor
from algorithm.inference.progress import Progress
from algorithm.job import InferenceSettings, Result, Segmenter
from algorithm.picture import write_picture
from algorithm.released import import_released
from algorithm.report import write_json, write_report
from algorithm.sockets import Edition, find_job
from algorithm.weights import Checkpoint, build_network, find_checkpoints, load_checkpoint

_log = logging.getLogger(__name__)

MASK_NAME = "tumour.nii.gz"
REPORT_NAME = "report.json"
PICTURE_NAME = "picture.png"

_CONTAINER_START_S = 20.0  # of the edition's limit: what passes before this process starts and after it ends
_SILENT = Progress(logging.DEBUG)


def run(args: argparse.Namespace) -> int:
    """Do one grand-challenge job: ``/input`` to ``/output``."""
    _check_options(args)
    do_job(args, lambda: _segmenter(args), process_start())
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
    _check_results(args.report, args.picture, job.mask, (job.ct, job.pet))
    limit = job.edition.time_limit_s - _CONTAINER_START_S if args.time_limit is None else args.time_limit
    result = segmenter().segment(
        job.ct,
        job.pet,
        _settings(args, limit),
        edition=job.edition.value,
        started=started,
        progress=Progress(bar=True),
        scribbles=job.scribbles,
        cache=CallCache(args.cache) if job.edition.interactive else None,
    )
    write_mask(result.mask, result.pair.pet, job.mask, protect=(job.ct, job.pet), instead_of=job.earlier)
    for path, value in job.extras.items():
        write_json(path, value)
    _finish(result, job.mask, args.report, args.picture)


def serve(args: argparse.Namespace) -> int:
    """Do jobs as grand-challenge's invoke API asks for them, with weights loaded and kernels warm."""
    _check_options(args)

    def load() -> server.Job:
        segmenter = _segmenter(args)
        segmenter.warm_up()
        return lambda called: do_job(args, lambda: segmenter, called)

    return server.serve(load, args.host, args.port)


def predict(args: argparse.Namespace) -> int:
    """Segment a CT and a PET file; mask, report and picture go into a folder."""
    _check_options(args)
    mask = args.output / MASK_NAME
    check_mask_path(mask, protect=(args.ct, args.pet))
    report, picture = args.report or args.output / REPORT_NAME, args.picture or args.output / PICTURE_NAME
    _check_results(report, picture, mask, (args.ct, args.pet))
    settings = _settings(args, args.time_limit)
    result = _segmenter(args).segment(
        args.ct, args.pet, settings, started=process_start(), progress=Progress(bar=True)
    )
    write_mask(result.mask, result.pair.pet, mask, protect=(args.ct, args.pet))
    _finish(result, mask, report, picture)
    return 0


def preflight(args: argparse.Namespace) -> int:
    """Say what a run would find: version, device, memory, weights; raises the error that the run would end in.

    Where an image or its archive is named, that is checked instead, as grand-challenge would.
    """
    if args.image is not None:
        return _preflight_image(args)
    device = choose_device(args.device)
    dtype = choose_dtype("auto", device)
    limit = host_limit_bytes()
    _tell(f"h2aseg {__version__}, torch {torch.__version__}, python {sys.version.split()[0]}")
    _tell(f"device: {device}, computing in {precision_of(dtype)}")
    _tell(f"host memory: {'unknown' if limit is None else f'{limit / 2**30:.1f} GiB'}")
    for checkpoint in _checkpoints(args.weights):
        how = checkpoint.description
        air = torch.zeros(how.patch)
        window = NetworkInput(air, air, how.patch, how.overlap)
        predictor = Predictor([build_network(checkpoint)], device, dtype)
        # The first pass through a GPU loads its kernels; the second is timed.
        seconds = [
            predictor.predict([window], Budget(), flips=1, progress=_SILENT).seconds_per_pass for _ in range(2)
        ]
        _tell(f"one window through {how.name}: {seconds[-1]:.2f} s")
    _tell("ready")
    return 0


def _preflight_image(args: argparse.Namespace) -> int:
    try:
        from algorithm.preflight.image import check_image
    except ModuleNotFoundError as error:  # left out of the image by .dockerignore
        raise InstallationError(
            "an image is checked from the project's folder, not from inside an image"
        ) from error
    return check_image(args)


def weights(args: argparse.Namespace) -> int:
    """Import a checkpoint of the authors' code, or verify checkpoints."""
    if args.action == "import":
        target = args.out / f"{args.source.stem}.json"
        if target.exists() and not args.force:
            raise OutputError(f"{target} exists already; add --force to replace it, or choose another --out")
        path = import_released(args.source, read_description(args.description), args.out)
        _tell(f"wrote {path} and {path.with_suffix('.safetensors').name}")
        return 0
    for checkpoint in _checkpoints(args.path):
        description = checkpoint.description
        count = sum(value.numel() for value in checkpoint.state.values())
        _tell(f"  patch {description.patch}, spacing {description.spacing} mm, {count:,} parameters")
        _tell(f"  CT {description.ct}")
        _tell(f"  PET {description.pet}")
        for key, value in description.provenance.items():
            _tell(f"  {key}: {value}")
    return 0


def _tell(line: str) -> None:
    """Print one line of a command's results; progress goes to the log, which can be turned down."""
    print(line, flush=True)


def _check_options(args: argparse.Namespace) -> None:
    """Raise UsageError for an option whose value makes no sense."""
    if args.flips is not None and not 1 <= args.flips <= MOST_FLIPS:
        raise UsageError(f"--flips must lie between 1 (no mirroring) and {MOST_FLIPS}, got {args.flips}")
    if args.overlap is not None and not 0 <= args.overlap < 1:
        raise UsageError(f"--overlap must be at least 0 and below 1, got {args.overlap:g}")
    if args.time_limit is not None and not args.time_limit > 0:
        raise UsageError(f"--time-limit must be a positive number of seconds, got {args.time_limit:g}")
    if args.precision not in PRECISIONS:
        *others, last = PRECISIONS
        raise UsageError(f"--precision must be {', '.join(others)} or {last}, got {args.precision!r}")


def _check_results(report: Path | None, picture: Path | None, mask: Path, inputs: Sequence[Path]) -> None:
    """Raise where a result could not be written, or would overwrite an input image or another result."""
    for result in (mask, report, picture):
        if result is not None:
            check_writable(result)
    taken = {mask.resolve()}
    for option, path in (("--report", report), ("--picture", picture)):
        if path is None:
            continue
        if path.exists() and any(each.exists() and path.samefile(each) for each in inputs):
            raise UsageError(f"{option} {path} would overwrite an input image; choose another name")
        if path.resolve() in taken:
            raise UsageError(f"{option} {path} is the name of another result; choose another name")
        taken.add(path.resolve())
    if picture is not None and picture.suffix.lower() != ".png":
        raise UsageError(f"--picture must be named .png, got {picture}")


def _settings(args: argparse.Namespace, time_limit_s: float | None) -> InferenceSettings:
    return InferenceSettings(
        flips=args.flips,
        overlap=args.overlap,
        time_limit_s=time_limit_s,
        whole_volume=args.whole_volume,
        no_checks=tuple(args.no_checks or ()),
    )


def _segmenter(args: argparse.Namespace) -> Segmenter:
    reuse_freed_memory()
    return Segmenter(_checkpoints(args.weights), args.device, args.precision, require_gpu=args.require_gpu)


def _checkpoints(where: Path | None) -> list[Checkpoint]:
    checkpoints = [load_checkpoint(path) for path in find_checkpoints(where)]
    for each in checkpoints:
        how = each.description
        _log.info("weights %s: %s (sha256 %s...)", how.name, each.path, how.sha256[:12])
    return checkpoints


def _finish(result: Result, mask: Path, report: Path | None, picture: Path | None) -> None:
    """Write what was asked for besides the mask, and end with where things are."""
    if picture is not None:
        write_picture(picture, result.pair.pet, result.mask)
        _tell(f"picture: {picture}")
    if report is not None:
        write_report(report, result.report)
        _tell(f"report: {report}")
    count = len(result.lesions)
    _tell(f"mask: {mask}")
    _tell(f"tumour: {result.report.total_volume_ml:.2f} ml in {count} lesion{'' if count == 1 else 's'}")
