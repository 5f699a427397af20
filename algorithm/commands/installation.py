"""Whether all is there and in order: ``preflight`` for the machine or an image, ``weights`` for checkpoints."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys

import torch

from algorithm import __version__
from algorithm.commands.common import checkpoints_at, tell
from algorithm.description import Normalisation, Postprocessing, check_ensemble, read_description
from algorithm.errors import InstallationError, OutputError
from algorithm.inference.augmentation import flip_order
from algorithm.inference.budget import Budget
from algorithm.inference.device import choose_device, choose_dtype, precision_of
from algorithm.inference.memory import host_limit_bytes
from algorithm.inference.passes import NetworkInput
from algorithm.inference.progress import Progress
from algorithm.job import Segmenter
from algorithm.outputs import is_one_of
from algorithm.released import import_released

_SILENT = Progress(logging.DEBUG)


def preflight(args: argparse.Namespace) -> int:
    """Say what a run would find: version, device, memory, weights; raises the error that the run would end in.

    Where an image or its archive is named, that is checked instead, as grand-challenge would.
    """
    if args.image is not None:
        return _preflight_image(args)
    device = choose_device(args.device)
    dtype = choose_dtype("auto", device)
    limit = host_limit_bytes()
    tell(f"h2aseg {__version__}, torch {torch.__version__}, python {sys.version.split()[0]}")
    tell(f"device: {device}, computing in {precision_of(dtype)}")
    tell(f"host memory: {'unknown' if limit is None else f'{limit / 2**30:.1f} GiB'}")
    checkpoints = checkpoints_at(args.weights)
    check_ensemble([each.description for each in checkpoints])
    for checkpoint in checkpoints:
        how = checkpoint.description
        air = torch.zeros(how.patch)
        window = NetworkInput(air, air, how.patch, how.overlap)
        predictor = Segmenter([checkpoint], args.device).predictor
        # The first pass through a GPU loads its kernels; the second is timed.
        seconds = [
            predictor.predict([window], Budget(), flips=1, progress=_SILENT).seconds_per_pass for _ in range(2)
        ]
        tell(f"one window through {how.name}: {seconds[-1]:.2f} s")
    tell("ready")
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
        if is_one_of(target, [args.description, args.source]):
            raise OutputError(f"{target} is what the checkpoint is made from; choose another --out")
        path = import_released(args.source, read_description(args.description), args.out)
        tell(f"wrote {path} and {path.with_suffix('.safetensors').name}")
        return 0
    for checkpoint in checkpoints_at(args.path):
        description = checkpoint.description
        count = sum(value.numel() for value in checkpoint.state.values())
        tell(f"  patch {description.patch}, spacing {description.spacing} mm, {count:,} parameters")
        tell(f"  CT {_told(description.ct)}; PET {_told(description.pet)}")
        tell(f"  windows overlap by {description.overlap:.0%}, threshold {description.threshold:g}")
        along = ", ".join(description.flip_axes) or "no axis"
        tell(f"  flips along {along}: {len(flip_order(axes=description.flip_dimensions))} passes at most")
        tell(f"  clean-up: {_told(description.postprocessing)}")
        allowed = " and ".join(description.precision.allowed) or "float32 alone"
        tell(f"  number formats proved in all levels: {allowed}")
        plain = {
            key: value for key, value in description.provenance.items() if not isinstance(value, (dict, list))
        }
        for key, value in plain.items():
            tell(f"  {key}: {value}")
        rest = ", ".join(key for key in description.provenance if key not in plain)
        if rest:
            tell(f"  provenance in {checkpoint.path.name} has besides: {rest}")
    return 0


def _told(settings: Normalisation | Postprocessing) -> str:
    """Return the settings that are made, in words."""
    made = {key: value for key, value in dataclasses.asdict(settings).items() if value is not None}
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in made.items())
