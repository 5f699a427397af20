"""``python -m training resampling``: what a coarse grid costs, to choose the spacing by measurement."""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import SimpleITK as sitk
from tqdm import tqdm

from algorithm.cases import Layout, find_cases, read_study
from algorithm.errors import MissingInputError, UsageError, UserError
from algorithm.preprocessing import restore
from training.cache import Spacing, resample_contours


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m training resampling``."""
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="AutoPET, nnU-Net raw or HECKTOR")
    parser.add_argument("--layout", choices=get_args(Layout), help="of the data folder (default: recognised)")
    parser.add_argument(
        "--spacing",
        type=float,
        nargs=3,
        action="append",
        required=True,
        metavar=("X", "Y", "Z"),
        help="in mm; give it once per grid",
    )


def main(args: argparse.Namespace) -> int:
    """Print, for each grid, how far contours that go there and back agree with themselves."""
    grids: list[Spacing] = [tuple(spacing) for spacing in args.spacing]
    for grid in grids:
        if min(grid) <= 0:
            raise UsageError(f"--spacing must be above 0 mm, got {' '.join(f'{step:g}' for step in grid)}")
    values: dict[Spacing, dict[str, float]] = {grid: {} for grid in grids}
    for case in tqdm(find_cases(args.data, args.layout).cases, unit="case", file=sys.stdout):
        try:
            study = read_study(case)
        except UserError as error:
            print(f"skipped {case.name}: {error}")
            continue
        if sitk.GetArrayViewFromImage(study.seg).any():
            for grid in grids:
                values[grid][case.name] = there_and_back(study.seg, grid)
    if not values[grids[0]]:
        raise MissingInputError(f"no case in {args.data} holds a tumour; name a folder with contours")
    print("| Grid (mm) | Cases | Dice, mean | Median | Least |\n| --- | --- | --- | --- | --- |")
    for grid, dice in values.items():
        worst = min(dice, key=lambda name: dice[name])
        mean, median = statistics.fmean(dice.values()), statistics.median(dice.values())
        sides = "x".join(f"{step:g}" for step in grid)
        print(f"| {sides} | {len(dice)} | {mean:.3f} | {median:.3f} | {dice[worst]:.3f} ({worst}) |")
    return 0


def there_and_back(seg: sitk.Image, spacing: Spacing) -> float:
    """Return the Dice of contours with what training on a grid makes of them, brought back as inference does.

    Parameters
    ----------
    seg : SimpleITK.Image
        uint8, 0 and 1, not empty.
    spacing : three floats
        In mm, x, y, z.
    """
    coarse, grid = resample_contours(seg, spacing)
    probability = np.ascontiguousarray(coarse.transpose(2, 1, 0), np.float32)
    back = np.concatenate(list(restore(probability, grid, seg))) > 0.5
    truth = sitk.GetArrayViewFromImage(seg) > 0
    return float(2 * (back & truth).sum() / (int(back.sum()) + int(truth.sum())))
