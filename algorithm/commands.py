"""What the commands of ``python -m algorithm`` do; see :mod:`algorithm.__main__` for their options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from algorithm import __version__
from algorithm.description import read_description
from algorithm.errors import OutputError, UsageError
from algorithm.files import check_writable
from algorithm.images import check_mask_path, write_mask
from algorithm.inference.augmentation import MOST_FLIPS
from algorithm.inference.budget import Budget
from algorithm.inference.memory import host_limit_bytes, reuse_freed_memory
from algorithm.inference.predictor import Member, Predictor, choose_dtype
from algorithm.job import Result, Settings, choose_device, segment
from algorithm.report import write_json, write_picture, write_report
from algorithm.sockets import Edition, find_job
from algorithm.weights import Checkpoint, build_network, find_checkpoints, import_released, load_checkpoint

MASK_NAME = "tumour.nii.gz"
REPORT_NAME = "report.json"
PICTURE_NAME = "picture.png"

_CONTAINER_START_S = 20.0  # of the edition's limit: what passes before this process starts and after it ends


def run(args: argparse.Namespace) -> int:
    """Do one grand-challenge job: ``/input`` to ``/output``."""
    _check_options(args)
    edition = Edition.named(args.edition) if args.edition else None
    job = find_job(args.input, args.output, edition)
    say(f"AutoPET {job.edition.value}: CT {job.ct}, PET {job.pet}")
    _check_results(args.report, args.picture, job.mask, (job.ct, job.pet))
    limit = job.edition.time_limit_s - _CONTAINER_START_S if args.time_limit is None else args.time_limit
    settings = _settings(args, limit)
    checkpoints, named = _checkpoints(args.weights), job.edition.value
    result = segment(job.ct, job.pet, checkpoints, settings, edition=named, say=say, bar=True)
    write_mask(result.mask, result.pair.pet, job.mask, protect=(job.ct, job.pet))
    for path, value in job.extras.items():
        write_json(path, value)
    _finish(result, job.mask, args.report, args.picture)
    return 0


def predict(args: argparse.Namespace) -> int:
    """Segment a CT and a PET file; mask, report and picture go into a folder."""
    _check_options(args)
    mask = args.output / MASK_NAME
    check_mask_path(mask, protect=(args.ct, args.pet))
    report, picture = args.report or args.output / REPORT_NAME, args.picture or args.output / PICTURE_NAME
    _check_results(report, picture, mask, (args.ct, args.pet))
    settings = _settings(args, args.time_limit)
    result = segment(args.ct, args.pet, _checkpoints(args.weights), settings, say=say, bar=True)
    write_mask(result.mask, result.pair.pet, mask, protect=(args.ct, args.pet))
    _finish(result, mask, report, picture)
    return 0


def preflight(args: argparse.Namespace) -> int:
    """Say what a run would find: version, device, memory, weights; raises the error that the run would end in."""
    device = choose_device(args.device)
    dtype = choose_dtype("auto", device)
    limit = host_limit_bytes()
    say(f"h2aseg {__version__}, torch {torch.__version__}, python {sys.version.split()[0]}")
    say(f"device: {device}, computing in {str(dtype).removeprefix('torch.')}")
    say(f"host memory: {'unknown' if limit is None else f'{limit / 2**30:.1f} GiB'}")
    for checkpoint in _checkpoints(args.weights):
        how = checkpoint.description
        air = torch.zeros(how.patch)
        window = Member(build_network(checkpoint), air, air, how.patch, how.overlap)
        predictor = Predictor(device, dtype, 1, lambda line: None)
        predictor.predict([window], Budget())  # the first pass through a GPU loads its kernels
        prediction = predictor.predict([window], Budget())
        say(f"one window through {how.name}: {prediction.seconds_per_pass:.2f} s")
    say("ready")
    return 0


def weights(args: argparse.Namespace) -> int:
    """Import a checkpoint of the authors' code, or verify checkpoints."""
    if args.action == "import":
        target = args.out / f"{args.source.stem}.json"
        if target.exists() and not args.force:
            raise OutputError(f"{target} exists already; add --force to replace it, or choose another --out")
        path = import_released(args.source, read_description(args.description), args.out)
        say(f"wrote {path} and {path.with_suffix('.safetensors').name}")
        return 0
    for checkpoint in _checkpoints(args.path):
        description = checkpoint.description
        count = sum(value.numel() for value in checkpoint.state.values())
        say(f"  patch {description.patch}, spacing {description.spacing} mm, {count:,} parameters")
        say(f"  CT {description.ct}")
        say(f"  PET {description.pet}")
        for key, value in description.provenance.items():
            say(f"  {key}: {value}")
    return 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": run,
    "predict": predict,
    "preflight": preflight,
    "weights": weights,
}


def say(line: str) -> None:
    """Print one line of progress at once."""
    print(line, flush=True)


def _check_options(args: argparse.Namespace) -> None:
    """Raise UsageError for an option whose value makes no sense."""
    if args.flips is not None and not 1 <= args.flips <= MOST_FLIPS:
        raise UsageError(f"--flips must lie between 1 (no mirroring) and {MOST_FLIPS}, got {args.flips}")
    if args.overlap is not None and not 0 <= args.overlap < 1:
        raise UsageError(f"--overlap must be at least 0 and below 1, got {args.overlap:g}")
    if args.time_limit is not None and not args.time_limit > 0:
        raise UsageError(f"--time-limit must be a positive number of seconds, got {args.time_limit:g}")
    if args.precision not in ("auto", "float32", "bfloat16", "float16"):
        raise UsageError(f"--precision must be auto, float32, bfloat16 or float16, got {args.precision!r}")


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


def _settings(args: argparse.Namespace, time_limit_s: float | None) -> Settings:
    reuse_freed_memory()
    return Settings(
        device=args.device,
        precision=args.precision,
        flips=args.flips,
        overlap=args.overlap,
        time_limit_s=time_limit_s,
        require_gpu=args.require_gpu,
        whole_volume=args.whole_volume,
    )


def _checkpoints(where: Path | None) -> list[Checkpoint]:
    checkpoints = [load_checkpoint(path) for path in find_checkpoints(where)]
    for each in checkpoints:
        say(f"weights {each.description.name}: {each.path} (sha256 {each.description.sha256[:12]}...)")
    return checkpoints


def _finish(result: Result, mask: Path, report: Path | None, picture: Path | None) -> None:
    """Write what was asked for besides the mask, and end with where things are."""
    if picture is not None:
        write_picture(picture, result.pair.pet, result.mask)
        say(f"picture: {picture}")
    if report is not None:
        write_report(report, result.report)
        say(f"report: {report}")
    count = len(result.lesions)
    say(f"mask: {mask}")
    say(f"tumour: {result.report.total_volume_ml:.2f} ml in {count} lesion{'' if count == 1 else 's'}")
