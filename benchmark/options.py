"""The options of ``python -m benchmark``."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from benchmark.history import HISTORY
from benchmark.parts import PARTS

RESULTS = Path(__file__).resolve().parent / "RESULTS.md"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "parts",
        nargs="*",
        type=_part,
        metavar="PART",
        help=f"What to measure, of {', '.join(PARTS)}; all if left out, but for gpu where there is none.",
    )
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FILE", help="The tables' file, Markdown.")
    _add_what(parser.add_argument_group("what is measured"))
    _add_body(parser.add_argument_group("the body"))
    _add_parts(parser.add_argument_group("single parts"))


def _add_what(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--weights",
        type=_absolute,
        metavar="FILE",
        help="Checkpoint to measure with; the built-in one if left out, or random parameters where there is none.",
    )
    add("--device", choices=("cpu", "cuda"), help="Where to compute; both where there is a GPU if left out.")
    add(
        "--precision",
        nargs="+",
        choices=("float32", "bfloat16", "float16"),
        help="What to compute in; all that the device can if left out.",
    )
    add(
        "--repetitions",
        type=_positive,
        default=5,
        metavar="N",
        help="How often patch, startup, serving and neighbour are timed.",
    )
    add(
        "--setting",
        nargs="+",
        choices=("default", "released"),
        default=["default"],
        help="For body, startup, growth, deadline, serving and neighbour (the first named): the checkpoint's own "
        "patch and spacing, or the release's patch on the image's own grid.",
    )


def _add_body(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    sides = ("X", "Y", "Z")
    add("--size", type=_positive, nargs=3, default=[400, 400, 326], metavar=sides, help="Voxels of the body.")
    add(
        "--spacing",
        type=float,
        nargs=3,
        default=[2.04, 2.04, 3.0],
        metavar=sides,
        help="Voxel size in mm, of a body made without an anatomy.",
    )
    add(
        "--anatomies",
        type=_absolute,
        metavar="DIR",
        help="Folder of STUDY/organs.nii.gz to make the body from; the one beside the checkout if left out.",
    )


def _add_parts(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--patch",
        type=_positive,
        nargs=3,
        metavar=("X", "Y", "Z"),
        help="Voxels of the window of patch; the release's and the checkpoint's if left out.",
    )
    add("--record", action="store_true", help="Add what patch and gpu measure to the history of figures.")
    add("--history", type=Path, default=HISTORY, metavar="FILE", help="The history of figures, CSV.")
    add(
        "--minutes",
        type=_minutes,
        default=9.5,
        metavar="M",
        help="For gpu, in all; what does not fit is left out and named in its tables.",
    )
    add("--flips", type=int, choices=range(1, 9), default=8, help="Passes of body, agreement and flips.")
    add(
        "--bodies",
        type=_absolute,
        metavar="DIR",
        help="Synthetic bodies for flips, a tree of `python -m synthesis`; the body alone if left out.",
    )
    add(
        "--windows",
        type=_positive,
        metavar="N",
        help="Compute so many windows by MONAI and extrapolate; all if left out.",
    )
    add(
        "--cases",
        type=_absolute,
        help="Pairs for agreement, a folder or CSV; the real patients beside the checkout if left out.",
    )
    add("--time-limit", type=float, default=60.0, metavar="S", help="Seconds that deadline gives.")
    add(
        "--growing-flips",
        type=int,
        nargs="+",
        choices=range(1, 9),
        default=[1, 2, 4, 8],
        metavar="N",
        help="Numbers of flips that growth tries.",
    )
    add(
        "--growing-checkpoints",
        type=_positive,
        nargs="+",
        default=[1, 2],
        metavar="N",
        help="Sizes of the ensemble that growth tries.",
    )
    add("--lesions", type=_positive, default=500, metavar="N", help="Lesions in each mask of scoring.")


def _absolute(path: str) -> str:
    return str(Path(path).absolute())


def _part(name: str) -> str:
    if name not in PARTS:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(PARTS)}, got {name!r}")
    return name


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes < math.inf:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return minutes


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number
