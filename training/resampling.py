"""``python -m training resampling``: what a coarse grid costs, to choose the spacing by measurement."""

from __future__ import annotations

import argparse
import logging
import statistics
import sys

import numpy as np
import SimpleITK as sitk
from tqdm import tqdm

from algorithm.errors import MissingInputError
from algorithm.preprocessing import restore
from training.cache import Spacing, resample_contours
from training.options import ResamplingOptions, parsed_as
from training.studies import read_studies

log = logging.getLogger(__name__)


def main(args: argparse.Namespace) -> int:
    """Print, for each grid, how far contours agree with themselves after training's and inference's resampling."""
    options = parsed_as(ResamplingOptions, args)
    values: dict[Spacing, dict[str, float]] = {grid: {} for grid in options.spacing}
    studies = read_studies(options.cases, options.layout)
    for case, study in tqdm(studies, unit="case", file=sys.stdout, disable=not log.isEnabledFor(logging.INFO)):
        if sitk.GetArrayViewFromImage(study.seg).any():
            for grid in options.spacing:
                values[grid][case.name] = round_trip_dice(study.seg, grid)
    if not values[options.spacing[0]]:
        raise MissingInputError(f"no case in {options.cases} holds a tumour; name a folder with contours")
    print("| Grid (mm) | Cases | Dice, mean | Median | Least |\n| --- | --- | --- | --- | --- |")
    for grid, dice in values.items():
        worst = min(dice, key=lambda name: dice[name])
        mean, median = statistics.fmean(dice.values()), statistics.median(dice.values())
        sides = "x".join(f"{step:g}" for step in grid)
        print(f"| {sides} | {len(dice)} | {mean:.3f} | {median:.3f} | {dice[worst]:.3f} ({worst}) |")
    return 0


def round_trip_dice(seg: sitk.Image, spacing: Spacing) -> float:
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
