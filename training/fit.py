"""``python -m training fit``: train one network."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import torch

from algorithm.cases import Layout
from algorithm.description import Normalisation
from algorithm.errors import UsageError
from algorithm.inference.memory import host_limit_bytes, reuse_freed_memory
from algorithm.network.architecture import Architecture
from algorithm.weights import load_checkpoint
from training.augmentation import Augmentation
from training.loop import Plan, Run, Trainer
from training.parallel import Processes, choose_device, join_processes, leave_processes
from training.preparation import Material, describe, gather, parse_normalisation, split_material
from training.settings import Optimiser, Precision, Settings
from training.splits import Split, write_split

LEARNING_RATES: dict[Optimiser, float] = {"adamw": Settings.learning_rate, "released": 1e-4}
"""Unless --learning-rate says otherwise."""

_WORKER_BYTES = 3 * 10**9


def _default_workers() -> int:
    """Return how many processes preprocess: at most four, one per core, and half of the memory."""
    limit = host_limit_bytes() or 4 * _WORKER_BYTES
    return max(1, min(4, os.cpu_count() or 1, limit // (2 * _WORKER_BYTES)))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m training fit``."""
    add_training_arguments(parser)
    parser.add_argument("--name", help="name of the checkpoint (default: the run folder's name)")
    parser.add_argument(
        "--split",
        default="paper",
        metavar="RULE",
        help="paper: 60/20/20 of the patients in sorted order, tracers apart (default); all: everybody trains; "
        "fold:K/N: all but fold K of N; or a JSON file with the lists train, validation and test",
    )


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that fitting and cross-validation share."""
    standard, gentle = Settings(), Augmentation()

    add = parser.add_argument_group("data").add_argument
    add("--data", type=Path, action="append", required=True, metavar="DIR", help="folder of cases; repeatable")
    add("--layout", choices=get_args(Layout), help="of the data folders (default: recognised)")
    add("--share", type=float, nargs="+", metavar="S", help="of the crops, one per --data (default: by cases)")
    add("--cache", type=Path, required=True, metavar="DIR", help="where preprocessed cases are kept")
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the run")

    add = parser.add_argument_group("network").add_argument
    add("--spacing", type=float, nargs=3, default=(2.03642, 2.03642, 3.0), metavar="MM", help="x y z (AutoPET's)")
    add("--patch", type=int, nargs=3, default=(128, 128, 64), metavar="N", help="voxels x y z (128 128 64)")
    add("--channels", type=int, nargs=5, default=Architecture.channels, metavar="C", help="(8 16 32 64 128)")
    add("--dropout", type=float, default=Architecture.dropout, metavar="P", help="of channels (%(default)s)")
    add("--without", choices=("mcsa", "tamw"), action="append", default=[], help="leave a module out; repeatable")
    add("--ct-normalisation", metavar="HOW", help="clip-scale:LOW:HIGH or z-score-stored:LOW:HIGH:MEAN:STD")
    add("--pet-normalisation", metavar="HOW", help="the same (default of both: measured in the training tumours)")
    add("--init", type=Path, metavar="FILE", help="start from the parameters of this checkpoint (its .json)")
    add("--overlap", type=float, default=0.5, metavar="SHARE", help="of windows at inference (%(default)s)")

    add = parser.add_argument_group("optimisation").add_argument
    add("--steps", type=int, default=standard.steps, metavar="N", help="in all (%(default)s)")
    add("--steps-per-epoch", type=int, default=standard.steps_per_epoch, metavar="N", help="(%(default)s)")
    add(
        "--batch",
        type=int,
        default=standard.batch,
        metavar="N",
        help="crops per step, all processes (%(default)s)",
    )
    add("--optimiser", choices=get_args(Optimiser), default=standard.optimiser, help="(%(default)s)")
    rates = ", ".join(f"{optimiser}: {rate:g}" for optimiser, rate in LEARNING_RATES.items())
    add("--learning-rate", type=float, metavar="LR", help=f"({rates})")
    add("--weight-decay", type=float, default=standard.weight_decay, metavar="W", help="(%(default)s)")
    add("--warm-up", type=int, default=standard.warm_up, metavar="STEPS", help="of adamw (%(default)s)")
    add(
        "--clip-norm",
        type=float,
        default=standard.clip_norm,
        metavar="N",
        help="of the gradient, 0: none (%(default)s)",
    )
    add("--ema-decay", type=float, default=standard.ema_decay, metavar="D", help="of the average (%(default)s)")
    add("--seed", type=int, default=standard.seed, metavar="N", help="(%(default)s)")

    add = parser.add_argument_group("augmentation").add_argument
    add("--augment", type=float, default=gentle.probability, metavar="P", help="probability of each (%(default)s)")
    add("--rotation", type=float, default=gentle.rotation_deg, metavar="DEG", help="about z (%(default)s)")
    add("--scaling", type=float, default=gentle.scaling, metavar="SHARE", help="of the size (%(default)s)")
    add("--flip", type=float, default=gentle.flip, metavar="P", help="probability per axis (%(default)s)")
    add("--gamma", type=float, default=gentle.gamma, metavar="G", help="largest exponent (%(default)s)")
    add("--brightness", type=float, default=gentle.brightness, metavar="SHARE", help="(%(default)s)")
    add("--noise", type=float, default=gentle.noise, metavar="SD", help="of normalised values (%(default)s)")
    add("--misalignment", type=int, default=0, metavar="VOXELS", help="of CT against PET (%(default)s)")
    add("--drop-modality", type=float, default=0.0, metavar="P", help="blank CT or PET (%(default)s)")

    add = parser.add_argument_group("running").add_argument
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(%(default)s)")
    add("--precision", choices=get_args(Precision), default="auto", help="auto: bfloat16 where hardware has it")
    add("--threads", type=int, metavar="N", help="of the processor (default: all)")
    add(
        "--workers",
        type=int,
        default=_default_workers(),
        metavar="N",
        help="that preprocess, 3 GB each (%(default)s)",
    )
    add("--crop-threads", type=int, metavar="N", help="that augment (default: 1 beside a CPU, 8 beside a GPU)")
    add("--save-every", type=int, default=250, metavar="STEPS", help="what a kill can cost (%(default)s)")
    add("--validate-every", type=int, metavar="EPOCHS", help="(default: up to ten times in a run)")
    add("--time-budget", type=float, default=math.inf, metavar="SECONDS", help="then stop cleanly (default: none)")


def main(args: argparse.Namespace) -> int:
    """Prepare the data, train, and print where the checkpoint is."""
    device, processes = start(args)
    say = speaker(processes)
    deadline = time.monotonic() + args.time_budget
    try:
        material = gather_material(args, processes, say)
        split = split_material(material, args.split, args.seed)
        args.time_budget = deadline - time.monotonic()
        name = args.name or args.out.resolve().name
        run = fit(args, name, material, split, args.out, device, processes, say)
        say(f"weights: {run.checkpoint}")
    finally:
        leave_processes()
    return 0


def start(args: argparse.Namespace) -> tuple[torch.device, Processes]:
    """Check the options, then set up memory, threads, device and the process group.

    Raises
    ------
    UsageError
        An option makes no sense: said now, and not after hours of preprocessing.
    """
    for name in ("save_every", "validate_every", "crop_threads", "workers", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    settings_of(args)
    reuse_freed_memory()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = choose_device(args.device)
    torch.backends.cudnn.benchmark = True  # every step has the same shapes
    return device, join_processes(device)


def speaker(processes: Processes) -> Callable[[str], None]:
    """Return how this process talks: the first on stdout, the others not at all."""
    return (lambda line: print(line, flush=True)) if processes.is_first else (lambda line: None)


def gather_material(args: argparse.Namespace, processes: Processes, say: Callable[[str], None]) -> Material:
    """Find and preprocess the cases that the options name."""
    return gather(
        args.data,
        layout=args.layout,
        shares=args.share,
        cache_folder=args.cache,
        spacing=tuple(args.spacing),
        workers=args.workers,
        processes=processes,
        say=say,
    )


def fit(
    args: argparse.Namespace,
    name: str,
    material: Material,
    split: Split,
    out: Path,
    device: torch.device,
    processes: Processes,
    say: Callable[[str], None],
) -> Run:
    """Train on one split, or go on where a run in this folder stopped."""
    settings, plan = settings_of(args), _plan(args, out, device)
    out.mkdir(parents=True, exist_ok=True)
    training_cases = material.cases(split.train)
    validation_cases = material.cases(split.validation)
    say(f"{len(training_cases)} training, {len(validation_cases)} validation cases; split in {out / 'split.json'}")
    initial = load_checkpoint(args.init) if args.init else None
    description = describe(
        name,
        _architecture(args),
        tuple(args.patch),
        tuple(args.spacing),
        training_cases,
        ct=_normalisation(args.ct_normalisation, initial.description.ct if initial else None),
        pet=_normalisation(args.pet_normalisation, initial.description.pet if initial else None),
        overlap=args.overlap,
        provenance={"data": material.names(split.train), "settings": dataclasses.asdict(settings)},
    )
    trainer = Trainer(
        description, settings, material.sources(split.train), validation_cases, device, processes, initial
    )
    if trainer.resume(out):
        say(f"resumed at step {trainer.progress.step} of {settings.steps}")
    if processes.is_first:
        write_split(split, out / "split.json")
    return trainer.fit(plan, say)


def settings_of(args: argparse.Namespace) -> Settings:
    """Return the options as settings.

    Raises
    ------
    UsageError
        A value makes no sense.
    """
    rate = LEARNING_RATES[args.optimiser] if args.learning_rate is None else args.learning_rate
    try:
        return Settings(
            steps=args.steps,
            steps_per_epoch=args.steps_per_epoch,
            batch=args.batch,
            optimiser=args.optimiser,
            learning_rate=rate,
            weight_decay=args.weight_decay,
            warm_up=args.warm_up,
            clip_norm=args.clip_norm,
            ema_decay=args.ema_decay,
            seed=args.seed,
            precision=args.precision,
            augmentation=Augmentation(
                probability=args.augment,
                rotation_deg=args.rotation,
                scaling=args.scaling,
                flip=args.flip,
                gamma=args.gamma,
                brightness=args.brightness,
                noise=args.noise,
                misalignment_voxels=args.misalignment,
                drop_modality=args.drop_modality,
            ),
        )
    except ValueError as error:
        raise UsageError(f"an option makes no sense: {error}") from error


def _architecture(args: argparse.Namespace) -> Architecture:
    return Architecture(
        channels=tuple(args.channels),
        mcsa="mcsa" not in args.without,
        tamw="tamw" not in args.without,
        dropout=args.dropout,
    )


def _normalisation(given: str | None, initial: Normalisation | None) -> Normalisation | None:
    return parse_normalisation(given) if given else initial


def _plan(args: argparse.Namespace, out: Path, device: torch.device) -> Plan:
    epochs = args.steps // args.steps_per_epoch
    return Plan(
        out,
        save_every=args.save_every,
        validate_every=args.validate_every or max(1, math.ceil(epochs / 10)),
        time_budget=args.time_budget,
        crop_threads=args.crop_threads or (1 if device.type == "cpu" else min(8, os.cpu_count() or 1)),
    )
