"""``python -m synthesis``: its options and what it does."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import get_args

from algorithm.errors import UsageError
from synthesis.scan import SPACING
from synthesis.study import split_anatomies, synthesise_many
from synthesis.uptake import Tracer

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m synthesis``."""
    add = parser.add_argument
    add("--anatomy", type=Path, required=True, metavar="DIR", help="Folder of organ maps, STUDY/organs.nii.gz.")
    add("--out", type=Path, required=True, metavar="DIR", help="Folder for the bodies.")
    add("--count", type=int, default=60, metavar="N", help="Make so many bodies.")
    add("--seed", type=int, default=0, metavar="N", help="Seed of every random choice.")
    add("--spacing", type=float, nargs=3, default=SPACING, metavar=("X", "Y", "Z"), help="Spacing in mm.")
    add("--tumour-free", type=float, default=1 / 3, metavar="SHARE", help="Share of bodies without lesions.")
    add("--tracer", choices=get_args(Tracer), help="Tracer. By default as each anatomy's name says.")
    add(
        "--subset",
        choices=("all", "train", "held-out"),
        default="all",
        help="Take all anatomies, those for training, or those that are held out of it.",
    )
    add("--held-out", type=int, default=12, metavar="N", help="Hold so many anatomies out for evaluation.")


def main(args: argparse.Namespace) -> int:
    """Write synthetic bodies as the command line asks."""
    training, held_out = split_anatomies(args.anatomy, args.held_out if args.subset != "all" else 0)
    maps = held_out if args.subset == "held-out" else training
    if not maps:
        raise UsageError(
            "--subset held-out takes the anatomies that --held-out holds out, got 0; ask for at least 1"
        )
    folders = synthesise_many(
        maps,
        args.out,
        args.count,
        args.seed,
        spacing=tuple(args.spacing),
        tumour_free=args.tumour_free,
        tracer=args.tracer,
        progress=log.isEnabledFor(logging.INFO),
    )
    log.info("%d synthetic bodies from %d anatomies in %s", len(folders), len(maps), args.out)
    return 0
