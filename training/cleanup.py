"""``python -m training cleanup``: chooses the mask's threshold and clean-up on validation cases.

Every combination of threshold, least lesion volume and least SUVmax is scored on every case as if it had been
submitted, and the combinations are ranked as AutoPET I and II rank submissions: half by Dice, a quarter each by
the volumes of false positives and false negatives; of those that rank alike the one that takes away least is
chosen. What chose cannot judge: the cases belong to validation.
Synthetic cases count as patients do: leave out of the list what shall not choose.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import itertools
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from algorithm.cases import Case, Study
from algorithm.description import Postprocessing, PrecisionProof
from algorithm.errors import MissingInputError, UsageError
from algorithm.files import written_whole
from algorithm.inference.progress import Progress
from algorithm.job import Segmenter
from algorithm.outputs import check_free, text_kind
from algorithm.postprocessing import lesions, voxel_volume_ml
from algorithm.restoration import exceeding
from algorithm.segmentation import segment_prepared
from algorithm.weights import Checkpoint, describe_again, load_checkpoint
from evaluation.scoring.editions import RULES
from evaluation.scoring.metrics import Overlaps, count_overlaps, crop_to_union
from evaluation.scoring.ranking import rank_submissions
from training.options import CleanupOptions, parsed_as
from training.studies import prepare_study, read_studies

log = logging.getLogger(__name__)

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
LEAST_ML = (0.0, 0.3, 0.5, 1.0)
LEAST_SUV_MAX = (0.0, 1.5, 2.0, 2.5, 3.0)
CURVE_COLUMNS = (
    *("threshold", "minimum_lesion_ml", "minimum_suv_max"),
    *("dice", "fpv_ml", "fnv_ml", "mean_rank", "rank"),
)
CURVE = text_kind("a clean-up curve", ",".join(CURVE_COLUMNS))

RANKS_ALIKE = 1.0
"""Mean ranks, of up to 140, that differ by no more are the same: so little hangs on which cases were there."""

_SILENT = Progress(logging.DEBUG)
_EDITION = "II"
_RULES = RULES[_EDITION]


@dataclass(frozen=True, order=True)
class Choice:
    """One combination: a threshold and what is then taken away."""

    threshold: float
    minimum_lesion_ml: float
    minimum_suv_max: float


@dataclass(frozen=True)
class Ranked:
    """A combination with its mean figures over the cases (NaN-free ones of each) and its place."""

    choice: Choice
    dice: float
    fpv_ml: float
    fnv_ml: float
    mean_rank: float
    rank: int


@dataclass(frozen=True)
class Pieces:
    """The lesions of one case at one threshold: voxel counts and overlaps, and each predicted one's SUVmax."""

    overlaps: Overlaps
    suv_max: NDArray[np.float32]
    voxel_ml: float

    def scores(self, least_ml: float, least_suv_max: float) -> dict[str, float]:
        """Return Dice, FPV and FNV of what a clean-up leaves; without a tumour as the edition's rules say."""
        o = self.overlaps
        kept = (o.prediction * self.voxel_ml >= least_ml) & (self.suv_max >= least_suv_max)
        pairs = kept[o.pair_prediction]
        touching, touched = np.zeros(len(o.prediction), bool), np.zeros(len(o.truth), bool)
        touching[o.pair_prediction] = True
        touched[o.pair_truth[pairs]] = True
        false_ml = float(o.prediction[kept & ~touching].sum()) * self.voxel_ml
        if not len(o.truth):
            dice = _RULES.dice_truth_empty if kept.any() else _RULES.dice_both_empty
            return {"dice": dice, "fpv_ml": false_ml, "fnv_ml": _RULES.fnv_truth_empty}
        both, sizes = 2 * int(o.pair_shared[pairs].sum()), int(o.truth.sum() + o.prediction[kept].sum())
        missed_ml = float(o.truth[~touched].sum()) * self.voxel_ml
        return {"dice": both / sizes, "fpv_ml": false_ml, "fnv_ml": missed_ml}


def pieces_of(
    called: NDArray[np.bool_], suv: NDArray[np.float32], truth: NDArray[np.uint8], voxel_ml: float,
    suv_floor: float = 0.0,
) -> Pieces:  # fmt: skip
    """Find the lesions of what a threshold calls, none of a lower SUV; arrays are z, y, x on the PET's grid."""
    if suv_floor > 0:
        called = called & (suv >= suv_floor)
    labels, count = lesions(called)
    highest = ndimage.maximum(suv, labels, np.arange(1, count + 1)) if count else []
    overlaps = count_overlaps(*crop_to_union(truth, called))
    return Pieces(overlaps, np.asarray(highest, np.float32), voxel_ml)


def rank_choices(cases: Sequence[dict[float, Pieces]]) -> list[Ranked]:
    """Rank every combination over cases that were taken apart at every threshold; the best comes first.

    Equal ones are ordered by closeness to doing nothing: a threshold near one half, then what removes least.
    """
    choices = [Choice(*values) for values in itertools.product(THRESHOLDS, LEAST_ML, LEAST_SUV_MAX)]
    choices.sort(key=lambda c: (abs(c.threshold - 0.5), c.minimum_lesion_ml, c.minimum_suv_max))
    scored = {
        str(index): {
            str(number): {
                name: [value]
                for name, value in case[c.threshold].scores(c.minimum_lesion_ml, c.minimum_suv_max).items()
            }
            for number, case in enumerate(cases)
        }
        for index, c in enumerate(choices)
    }
    standings = rank_submissions(scored, _EDITION)
    return [
        Ranked(
            choices[int(each.name)],
            each.values["Dice"],
            each.values["FPV"],
            each.values["FNV"],
            each.mean_rank,
            each.final_rank,
        )
        for each in standings
    ]


def choose(ranked: Sequence[Ranked]) -> Ranked:
    """Return the combination to use: of those that rank like the best, the one that takes away least.

    The measures that rank are volumes and Dice, in which a small lesion hardly weighs, whoever looks for it.

    Parameters
    ----------
    ranked : sequence of Ranked
        The best first.
    """
    alike = [each for each in ranked if each.mean_rank <= ranked[0].mean_rank + RANKS_ALIKE]
    return min(alike, key=lambda each: (each.choice.minimum_lesion_ml, each.choice.minimum_suv_max))


def take_apart(
    checkpoint: Checkpoint, studies: Iterable[tuple[Case, Study]], flips: int, device: str
) -> list[dict[float, Pieces]]:
    """Return the lesions of each case at each threshold, as the product computes them."""
    how, predictor = checkpoint.description, Segmenter([checkpoint], device).predictor
    found = []
    for case, study in studies:
        prepared = prepare_study(case, study, how)
        probability = segment_prepared(predictor, prepared, flips=flips, progress=_SILENT).probability
        suv, truth = (sitk.GetArrayFromImage(image) for image in (study.pet, study.seg))
        voxel_ml = voxel_volume_ml(study.pet.GetSpacing())
        found.append(
            {
                each: pieces_of(
                    exceeding(probability, prepared.prepared.grid, study.pet, each),
                    suv, truth, voxel_ml, how.postprocessing.suv_floor,
                )
                for each in THRESHOLDS
            }
        )  # fmt: skip
        log.info("  %s", case.name)
    return found


def write_curve(ranked: Sequence[Ranked], path: Path) -> None:
    """Write every combination with its figures, the best first."""
    check_free(path, CURVE)
    with written_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(CURVE_COLUMNS)
        for each in ranked:
            figures = (each.dice, each.fpv_ml, each.fnv_ml, each.mean_rank)
            writer.writerow([*dataclasses.astuple(each.choice), *(f"{value:.4f}" for value in figures), each.rank])


def main(args: argparse.Namespace) -> int:
    """Choose, write the curve and, where asked to, the choice into the descriptions."""
    options = parsed_as(CleanupOptions, args)
    if len(options.weights) not in (1, len(options.cases)):
        raise UsageError(
            f"give one --weights, or one for each of the {len(options.cases)} --cases in their order, "
            f"got {len(options.weights)}"
        )
    check_free(options.out, CURVE)
    checkpoints = [load_checkpoint(path) for path in options.weights]
    pairs = zip(itertools.cycle(checkpoints) if len(checkpoints) == 1 else checkpoints, options.cases)  # noqa: B905
    found: list[dict[float, Pieces]] = []
    for checkpoint, folder in pairs:
        found += take_apart(checkpoint, read_studies(folder, options.layout), options.flips, options.device)
    if not any(len(case[THRESHOLDS[0]].overlaps.truth) for case in found):
        folders = ", ".join(map(str, options.cases))
        raise MissingInputError(
            f"no case in {folders} holds a tumour, and false positives alone cannot choose; add cases that do"
        )
    ranked = rank_choices(found)
    write_curve(ranked, options.out)
    best = choose(ranked)
    log.info(
        "of %d combinations on %d cases: threshold %g, lesions of at least %g ml with a SUVmax of at least %g: "
        "Dice %.4f, FPV %.2f ml, FNV %.2f ml; every one in %s",
        len(ranked), len(found), best.choice.threshold, best.choice.minimum_lesion_ml, best.choice.minimum_suv_max,
        best.dice, best.fpv_ml, best.fnv_ml, options.out,
    )  # fmt: skip
    for checkpoint in checkpoints if options.write else []:
        _write_choice(checkpoint, best.choice)
    return 0


def _write_choice(checkpoint: Checkpoint, choice: Choice) -> None:
    before = checkpoint.description
    cleaning = Postprocessing(choice.minimum_lesion_ml, before.postprocessing.suv_floor, choice.minimum_suv_max)
    describe_again(checkpoint, threshold=choice.threshold, postprocessing=cleaning)
    log.info("written to %s", checkpoint.path)
    same = (before.threshold, before.postprocessing) == (choice.threshold, cleaning)
    if not same and before.precision != PrecisionProof():
        log.info("its low precision was proved before that change: run `python -m training precision` again")
