"""Scoring of HECKTOR 2022: the aggregated Dice of primary tumours and lymph nodes.

Source: V. Andrearczyk et al., "Overview of the HECKTOR Challenge at MICCAI 2022" (doi
10.1007/978-3-031-27420-6_1), evaluation of task 1, and the organisers' notebook
``evaluate_segmentation2022.ipynb`` (voreille/hecktor).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from algorithm.errors import GeometryError, InvalidImageError, UsageError
from algorithm.images import read_image, same_geometry
from algorithm.postprocessing import voxel_volume_ml
from evaluation.scoring.pairs import Pair, find_pairs
from evaluation.scoring.ranking import Standing, ranks_of

LABELS = {"GTVp": 1, "GTVn": 2}
SPACING_TOLERANCE_MM = 1e-6


@dataclass(frozen=True)
class Overlap:
    """One patient's volumes of one class, in ml.

    Attributes
    ----------
    shared_ml : float
        v |T and P|, with the voxel volume v of the truth's grid.
    total_ml : float
        v (|T| + |P|).
    """

    shared_ml: float
    total_ml: float


def aggregated_dice(patients: Iterable[Mapping[str, Overlap]]) -> dict[str, float]:
    """Return each class's Dice aggregated over all patients, and the mean of both classes, which ranks.

    ``DSCagg = 2 sum v |T and P| / sum v (|T| + |P|)``: one ratio of sums, so a patient without a class needs no
    rule of its own.

    Returns
    -------
    dict
        ``GTVp``, ``GTVn`` and ``mean``. A class that neither truth nor prediction shows in any patient is NaN, and
        so is the mean then.
    """
    listed = list(patients)
    result = {}
    for name in LABELS:
        total = math.fsum(patient[name].total_ml for patient in listed)
        shared = math.fsum(patient[name].shared_ml for patient in listed)
        result[name] = 2 * shared / total if total else math.nan
    result["mean"] = sum(result.values()) / len(LABELS)
    return result


def overlaps(truth: sitk.Image, prediction: sitk.Image) -> dict[str, Overlap]:
    """Measure one patient; both images hold labels and lie on the same grid."""
    true_labels, predicted_labels = (sitk.GetArrayViewFromImage(image) for image in (truth, prediction))
    voxel_ml = voxel_volume_ml(truth.GetSpacing())
    result = {}
    for name, label in LABELS.items():
        true, predicted = true_labels == label, predicted_labels == label
        shared = np.count_nonzero(true & predicted)
        total = np.count_nonzero(true) + np.count_nonzero(predicted)
        result[name] = Overlap(int(shared) * voxel_ml, int(total) * voxel_ml)
    return result


def onto_truth(prediction: sitk.Image, truth: sitk.Image) -> sitk.Image:
    """Bring a prediction onto the truth's grid by nearest neighbour, background where it does not reach.

    HECKTOR's predictions may cover another part of space than the truth, but must have its voxel size.

    Raises
    ------
    GeometryError
        The spacings differ by more than 1e-6 mm.
    """
    pairs = list(zip(prediction.GetSpacing(), truth.GetSpacing(), strict=True))
    if any(abs(ours - theirs) > SPACING_TOLERANCE_MM for ours, theirs in pairs):
        ours_text, theirs_text = (
            " x ".join(f"{side:.7g}" for side in sides) for sides in zip(*pairs, strict=True)
        )
        raise GeometryError(
            f"a HECKTOR prediction must have the truth's spacing, got {ours_text} mm for {theirs_text} mm; "
            "resample it to the CT's voxel size"
        )
    if same_geometry(prediction, truth):
        return prediction
    same_voxels = sitk.Image(prediction)
    same_voxels.SetSpacing(truth.GetSpacing())
    return sitk.Resample(same_voxels, truth, sitk.Transform(), sitk.sitkNearestNeighbor, 0)


def read_labels(path: Path) -> sitk.Image:
    """Read a label image, uint8 with 0 background, 1 GTVp, 2 GTVn.

    Raises
    ------
    InvalidImageError
        There is another value.
    UserError
        The file cannot be read, see :func:`algorithm.images.read_image`.
    """
    image = read_image(path, "label image")
    values = np.unique(sitk.GetArrayViewFromImage(image))
    strange = values[~np.isin(values, (0, *LABELS.values()))]
    if strange.size:
        raise InvalidImageError(
            f"HECKTOR's labels are 0 (background), 1 (GTVp) and 2 (GTVn), got {strange[0]:g} in {path}; "
            "relabel the image"
        )
    return sitk.Cast(image, sitk.sitkUInt8)


def score_patient(pair: Pair) -> dict[str, Overlap]:
    """Measure the files of one patient; a missing prediction counts as an empty one.

    Raises
    ------
    GeometryError
        The prediction has another spacing than the truth; the message names the file.
    UserError
        A file cannot be read, see :func:`read_labels`.
    """
    truth = read_labels(pair.truth)
    if pair.prediction is None:
        return overlaps(truth, truth * 0)
    try:
        return overlaps(truth, onto_truth(read_labels(pair.prediction), truth))
    except GeometryError as error:
        raise GeometryError(f"{pair.prediction}: {error}") from error


def score_folder(truth: Path, prediction: Path) -> tuple[dict[str, float], list[str]]:
    """Score a folder of predictions against a folder of truths, matched by name.

    Returns
    -------
    tuple of dict and list of str
        :func:`aggregated_dice`, and the patients without a prediction.

    Raises
    ------
    UsageError
        These are files, not folders.
    UserError
        See :func:`evaluation.scoring.pairs.find_pairs` and :func:`score_patient`.
    """
    if truth.is_file() and prediction.is_file():
        raise UsageError(
            f"HECKTOR scores a whole cohort, got the files {truth} and {prediction}; give two folders"
        )
    pairs, _ = find_pairs(truth, prediction)
    missing = [pair.case for pair in pairs if pair.prediction is None]
    return aggregated_dice(score_patient(pair) for pair in pairs), missing


def rank_by_mean(scores: Mapping[str, Mapping[str, float]]) -> list[Standing]:
    """Rank submissions by the mean aggregated Dice; equal ones share a rank, an undefined mean ranks last.

    Parameters
    ----------
    scores : mapping
        Submission to its :func:`aggregated_dice`.

    Returns
    -------
    list of Standing
        Best first. ``mean_rank`` is the rank of the mean, the only one that counts.
    """
    columns = {label: [score[label] for score in scores.values()] for label in (*LABELS, "mean")}
    ranks = {label: ranks_of(column, higher_is_better=True) for label, column in columns.items()}
    standings = [
        Standing(
            name,
            values={label: column[index] for label, column in columns.items()},
            ranks={label: float(column[index]) for label, column in ranks.items()},
            by_subset={},
            mean_rank=float(ranks["mean"][index]),
            final_rank=ranks["mean"][index],
        )
        for index, name in enumerate(scores)
    ]
    return sorted(standings, key=lambda standing: standing.final_rank)
