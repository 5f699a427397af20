"""The options of ``python -m training``'s commands, made once from the command line; imports nothing slow."""

# ruff: noqa: RUF009  (option makes a field, as dataclasses.field does)
from __future__ import annotations

import argparse
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from algorithm.cases import Layout
from algorithm.errors import UsageError
from algorithm.inference.memory import host_limit_bytes
from algorithm.network.architecture import Architecture
from training.command_line import REQUIRED, Options, add_options, option, options_from
from training.recipe import LEARNING_RATES, Recipe

_WORKER_BYTES = 3 * 10**9

_NORMALISATION = "clip-scale:LOW:HIGH or z-score-stored:LOW:HIGH:MEAN:STD. By default measured in the tumours."
_CASES = (
    "Cases with truth: a folder (AutoPET, nnU-Net raw, HECKTOR) or a CSV with the columns case, ct, pet and truth."
)
_LAYOUT = "Layout of the folders. By default it is recognised."
_WORKERS = "Processes that preprocess, 3 GB each."


def _default_workers() -> int:
    """Return how many processes preprocess: at most four, one per core, and half of the memory."""
    limit = host_limit_bytes() or 4 * _WORKER_BYTES
    return max(1, min(4, os.cpu_count() or 1, limit // (2 * _WORKER_BYTES)))


_MOST = 1_000_000  # of anything that is counted
_COARSEST_MM = 100.0


def _check_count(name: str, value: int | None) -> None:
    if value is not None and not 1 <= value <= _MOST:
        raise UsageError(f"--{name.replace('_', '-')} must lie between 1 and {_MOST:,}, got {value}")


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which cases are trained on, and where what is made of them goes."""

    heading: ClassVar[str] = "data"

    cases: tuple[Path, ...] = option(
        REQUIRED, f"{_CASES} Repeatable.", "--cases", "--data", nargs=None, action="append", metavar="DIR"
    )
    layout: Layout | None = option(None, _LAYOUT)
    share: tuple[float, ...] | None = option(
        None,
        "Share of the crops that each --cases gives. By default by their numbers of cases, of all roles.",
        metavar="S",
    )
    mistakes: Path | None = option(
        None,
        "Errors of a network in these cases, from `python -m training mistakes`, to cut crops around.",
        metavar="FILE",
    )
    cache: Path = option(REQUIRED, "Folder in which preprocessed cases are kept.", metavar="DIR")
    out: Path = option(REQUIRED, "Folder of the run.", metavar="DIR")


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """What kind of network is trained, and what it starts from."""

    heading: ClassVar[str] = "network"

    spacing: tuple[float, float, float] = option(
        (2.03642, 2.03642, 3.0), "Spacing of its grid in mm along x, y and z, as AutoPET's.", metavar="MM"
    )
    patch: tuple[int, int, int] = option((128, 128, 64), "Voxels of a crop along x, y and z.", metavar="N")
    channels: tuple[int, int, int, int, int] = option(
        Architecture.channels, "Channels per stream at the five levels, finest first.", metavar="C"
    )
    dropout: float = option(Architecture.dropout, "Probability of dropping a channel.", metavar="P")
    without: tuple[Literal["mcsa", "tamw"], ...] = option(
        (), "Leave this module out. Repeatable.", nargs=None, action="append", default=None
    )
    ct_normalisation: str | None = option(None, f"How CT becomes input: {_NORMALISATION}", metavar="HOW")
    pet_normalisation: str | None = option(None, f"How PET becomes input: {_NORMALISATION}", metavar="HOW")
    init: Path | None = option(None, "Start from the parameters of this checkpoint (its .json).", metavar="FILE")
    overlap: float | None = option(
        None,
        "Share of neighbouring windows in common at inference. By default that of the start, else 0.5.",
        metavar="SHARE",
    )

    def __post_init__(self) -> None:
        if not all(0 < side <= _COARSEST_MM for side in self.spacing):
            raise UsageError(
                f"--spacing must be above 0, at most {_COARSEST_MM:g} mm, got {' '.join(map(str, self.spacing))}"
            )
        if self.overlap is not None and not 0 <= self.overlap < 1:
            raise UsageError(f"--overlap must be at least 0 and below 1, got {self.overlap:g}")
        self.architecture.check_patch(self.patch)

    @property
    def architecture(self) -> Architecture:
        """The network's shape."""
        return Architecture(
            channels=self.channels,
            mcsa="mcsa" not in self.without,
            tamw="tamw" not in self.without,
            dropout=self.dropout,
        )


@dataclass(frozen=True, kw_only=True)
class RunningOptions:
    """How a run uses the machine and its time; none of it changes what is learned."""

    heading: ClassVar[str] = "running"

    device: Literal["auto", "cpu", "cuda"] = option("auto", "Device; auto is a GPU where there is one.")
    threads: int | None = option(None, "Threads on the processor. By default all cores'.", metavar="N")
    workers: int = option(_default_workers, _WORKERS, metavar="N")
    crop_threads: int | None = option(
        None, "Threads that augment. By default 1 beside a CPU and 8 beside a GPU.", metavar="N"
    )
    save_every: int = option(250, "Steps between two states on disk: what a kill can cost.", metavar="STEPS")
    validate_every: int | None = option(
        None, "Epochs between two validations. By default there are up to ten in a run.", metavar="EPOCHS"
    )
    time_budget: float = option(
        math.inf, "Stop cleanly after so long. By default the run goes on to its end.", metavar="SECONDS"
    )

    def __post_init__(self) -> None:
        for name in ("save_every", "validate_every", "crop_threads", "workers", "threads"):
            _check_count(name, getattr(self, name))
        if not self.time_budget >= 0:
            raise UsageError(
                f"--time-budget must be a number of seconds that is not negative, got {self.time_budget:g}"
            )


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What fitting and cross-validation share."""

    data: DataOptions
    network: NetworkOptions
    recipe: Recipe
    running: RunningOptions


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """``python -m training fit``."""

    training: TrainingOptions
    name: str | None = option(None, "Name of the checkpoint. By default the run folder's.")
    split: str = option(
        "paper",
        "paper: 60/20/20 of the patients in sorted order, tracers apart; all: everybody trains; fold:K/N: all but "
        "fold K of N; or a JSON file with the lists train, validation and test.",
        metavar="RULE",
    )
    proof_cases: int = option(
        24,
        "Cases, validation cases where there are some, on which the end of the run proves low precision; 0 leaves "
        "that to `training precision`.",
        metavar="N",
    )

    def __post_init__(self) -> None:
        if self.proof_cases < 0:
            raise UsageError(f"--proof-cases must be at least 0, got {self.proof_cases}")


@dataclass(frozen=True, kw_only=True)
class CrossValidationOptions:
    """``python -m training crossvalidate``."""

    training: TrainingOptions
    folds: int = option(5, "Number of folds.", metavar="K")
    flips: tuple[int, ...] = option(
        (1, 8), "Mirrorings averaged, one row of the table each.", choices=range(1, 9), metavar="N"
    )
    blend: float = option(
        1.0, "Score each network so far on the way from --init to its end, as blend makes it.", metavar="SHARE"
    )

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise UsageError(f"--folds must be at least 2, got {self.folds}")
        if not 0 <= self.blend <= 1:
            raise UsageError(f"--blend must be 0 to 1, got {self.blend:g}")
        if self.blend < 1 and self.training.network.init is None:
            raise UsageError(f"--blend {self.blend:g} wants the checkpoint that training began with; give --init")


@dataclass(frozen=True, kw_only=True)
class ResamplingOptions:
    """``python -m training resampling``."""

    cases: Path = option(REQUIRED, _CASES, "--cases", "--data", metavar="DIR")
    layout: Layout | None = option(None, _LAYOUT)
    spacing: tuple[tuple[float, float, float], ...] = option(
        REQUIRED, "Spacing of a grid in mm. Repeatable.", nargs=3, action="append", metavar=("X", "Y", "Z")
    )

    def __post_init__(self) -> None:
        for grid in self.spacing:
            if not all(0 < step <= _COARSEST_MM for step in grid):
                got = " ".join(f"{step:g}" for step in grid)
                raise UsageError(f"--spacing must be above 0, at most {_COARSEST_MM:g} mm, got {got}")


@dataclass(frozen=True, kw_only=True)
class PrecisionOptions:
    """``python -m training precision``."""

    weights: Path = option(REQUIRED, "Checkpoint (its .json), whose description is completed.", metavar="FILE")
    cases: tuple[Path, ...] = option(
        REQUIRED, f"{_CASES} Repeatable.", "--cases", "--data", nargs=None, action="append", metavar="DIR"
    )
    layout: Layout | None = option(None, _LAYOUT)
    device: Literal["auto", "cpu", "cuda"] = option("auto", "Device; auto is a GPU where there is one.")


@dataclass(frozen=True, kw_only=True)
class CleanupOptions:
    """``python -m training cleanup``."""

    weights: tuple[Path, ...] = option(
        REQUIRED,
        "Checkpoint (its .json). Repeatable: one for all --cases, or one for each in their order, such as the "
        "folds' and the cases that they never saw.",
        nargs=None,
        action="append",
        metavar="FILE",
    )
    cases: tuple[Path, ...] = option(
        REQUIRED,
        f"{_CASES} Repeatable. Synthetic cases among them choose as patients do.",
        "--cases",
        "--data",
        nargs=None,
        action="append",
        metavar="DIR",
    )
    out: Path = option(REQUIRED, "CSV of every combination.", metavar="FILE")
    layout: Layout | None = option(None, _LAYOUT)
    flips: int = option(1, "Mirrorings averaged.", choices=range(1, 9), metavar="N")
    device: Literal["auto", "cpu", "cuda"] = option("auto", "Device; auto is a GPU where there is one.")
    write: bool = option(False, "Write the chosen ones into the descriptions of the weights.")


@dataclass(frozen=True, kw_only=True)
class MistakesOptions:
    """``python -m training mistakes``."""

    weights: Path = option(REQUIRED, "Checkpoint (its .json) whose errors are wanted.", metavar="FILE")
    cases: tuple[Path, ...] = option(
        REQUIRED, f"{_CASES} Repeatable.", "--cases", "--data", nargs=None, action="append", metavar="DIR"
    )
    cache: Path = option(REQUIRED, "Folder in which preprocessed cases are kept.", metavar="DIR")
    out: Path = option(REQUIRED, "JSON of the places.", metavar="FILE")
    layout: Layout | None = option(None, _LAYOUT)
    workers: int = option(_default_workers, _WORKERS, metavar="N")
    device: Literal["auto", "cpu", "cuda"] = option("auto", "Device; auto is a GPU where there is one.")

    def __post_init__(self) -> None:
        _check_count("workers", self.workers)


@dataclass(frozen=True, kw_only=True)
class BlendOptions:
    """``python -m training blend``."""

    first: Path = option(REQUIRED, "Checkpoint (its .json) before the last training.", metavar="FILE")
    last: tuple[Path, ...] = option(
        REQUIRED,
        "Checkpoint that was trained on from it, by --init. Repeatable: the mean of all counts.",
        nargs=None,
        action="append",
        metavar="FILE",
    )
    share: float = option(0.5, "How far from the first to the last, 0 to 1.", metavar="SHARE")
    out: Path = option(REQUIRED, "Folder of the new checkpoint.", metavar="DIR")
    name: str | None = option(None, "Name of the checkpoint. By default the folder's.")

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"--share must be 0 to 1, got {self.share}")


def add_blend(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``blend``."""
    add_options(parser, BlendOptions)


def add_fit(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``fit``."""
    add_options(parser, FitOptions)


def add_crossvalidate(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``crossvalidate``."""
    add_options(parser, CrossValidationOptions)


def add_resampling(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``resampling``."""
    add_options(parser, ResamplingOptions)


def add_mistakes(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``mistakes``."""
    add_options(parser, MistakesOptions)


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``precision``."""
    add_options(parser, PrecisionOptions)


def add_cleanup(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``cleanup``."""
    add_options(parser, CleanupOptions)


def parsed_as(kind: type[Options], parsed: argparse.Namespace) -> Options:
    """Return a command's options as their dataclass: from here on, nothing takes or changes a namespace.

    Raises
    ------
    UsageError
        A value makes no sense.
    """
    values = dict(vars(parsed))
    if "learning_rate" in values and values["learning_rate"] is None:
        values["learning_rate"] = LEARNING_RATES[values["optimiser"]]
    if kind is ResamplingOptions and isinstance(values["spacing"][0], float):  # one grid, from the environment
        values["spacing"] = [values["spacing"]]
    return options_from(kind, values)
