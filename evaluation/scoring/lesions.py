"""``python -m evaluation lesions``: lesions found by size, and healthy organs called tumour."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from algorithm.cases import WHERE_CASES_LIE, Case, list_cases
from algorithm.errors import GeometryError, InvalidImageError, MissingInputError
from algorithm.images import (
    foreign_label,
    geometry_text,
    other_geometry_text,
    read_image,
    read_mask,
    same_geometry,
)
from algorithm.postprocessing import lesions, voxel_volume_ml
from evaluation import outputs
from evaluation.scoring.metrics import LESION_IOU, Mask, count_overlaps
from evaluation.scoring.pairs import predictions_in
from evaluation.scoring.score import csv_text, summarise, to_json, write_text
from evaluation.scoring.truths import read_truth

SIZES_ML = (0.0, 1.0, 5.0, 20.0)
"""Lower ends of the size classes of lesions, in ml; the last one is open."""

ORGANS = {
    1: "spleen", 2: "kidneys", 3: "liver", 4: "bladder", 5: "lungs", 6: "brain", 7: "heart", 8: "stomach",
    9: "prostate", 10: "head glands",
}  # fmt: skip
"""Labels of an organ map, as the organ maps of MIC-DKFZ/autopet-3-submission have them."""

HOT_ORGANS = ("brain", "heart", "kidneys", "bladder")
"""Whose normal uptake is as high as a tumour's: a network that calls one of them does not know a body. Counted are
all voxels in them outside the truth, those of a predicted lesion that also touches a true one too."""

ELSEWHERE = "elsewhere"
REACH_MM = 10.0
"""A false positive belongs to the nearest organ this near: PET blurs an organ's uptake over its edge."""

CALLED_ML = 1.0
"""Above this volume, an organ counts as called tumour."""


@dataclass(frozen=True)
class TrueLesion:
    """One true lesion: its volume, its best IoU with a predicted one."""

    volume_ml: float
    iou: float

    @property
    def touched(self) -> bool:
        """Whether the prediction has a voxel in it (what counts for the FNV)."""
        return self.iou > 0


@dataclass(frozen=True)
class Findings:
    """What was found and what was wrongly called in one case.

    Attributes
    ----------
    case : str
    lesions : tuple of TrueLesion
    fpv_ml : float
        Volume of the predicted lesions that touch no true one.
    by_organ : dict of str to float, or None
        The same volume by organ; None without an organ map.
    hot_organs_ml : float or None
        Volume called tumour inside :data:`HOT_ORGANS` and outside the truth.
    """

    case: str
    lesions: tuple[TrueLesion, ...]
    fpv_ml: float
    by_organ: dict[str, float] | None
    hot_organs_ml: float | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m evaluation lesions``."""
    parser.add_argument(
        "--cases",
        "--input",
        type=Path,
        required=True,
        metavar="CASES",
        help=f"Cases with truth: {WHERE_CASES_LIE}.",
    )
    parser.add_argument(
        "--prediction",
        type=Path,
        required=True,
        metavar="DIR",
        help="Folder of masks named after the cases, or of a cohort's results.",
    )
    parser.add_argument(
        "--organs",
        default="organs.nii.gz",
        metavar="NAME",
        help="Name of the organ map beside each truth. Cases without one give no organs.",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="Write everything.")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="Write one row per lesion.")


def main(args: argparse.Namespace) -> int:
    """Print both tables and write the files asked for."""
    places = [(args.json, outputs.LESIONS_JSON), (args.csv, outputs.LESIONS_CSV)]
    outputs.make_way(places, [args.cases, args.prediction])
    cases = [case for case in list_cases(args.cases) if case.truth is not None]
    if not cases:
        raise MissingInputError(
            f"no case in {args.cases} has a truth; give cases with SEG.nii.gz or a truth column"
        )
    if not args.prediction.is_dir():
        raise MissingInputError(f"the folder of masks {args.prediction} does not exist; segment the cases first")
    masks = predictions_in(args.prediction)
    missing = [case.name for case in cases if case.name not in masks]
    if missing:
        raise MissingInputError(f"{args.prediction} has no mask of {', '.join(missing)}; segment these cases too")
    findings = [inspect_case(case, masks[case.name], args.organs) for case in cases]
    print(size_table(findings))
    print(f"\n{organ_table(findings)}")
    if args.json:
        write_text(args.json, to_json(report(findings)), outputs.LESIONS_JSON)
    if args.csv:
        rows = [[found.case, each.volume_ml, each.iou] for found in findings for each in found.lesions]
        write_text(args.csv, csv_text([["case", "volume_ml", "iou"], *rows]), outputs.LESIONS_CSV)
    return 0


def inspect_case(case: Case, prediction_path: Path, organs_name: str = "organs.nii.gz") -> Findings:
    """Compare one mask with its truth, lesion by lesion and organ by organ.

    Raises
    ------
    GeometryError
        Mask or organ map have another grid than the truth.
    InvalidImageError
        The organ map has an unknown label.
    """
    assert case.truth is not None
    prediction_image = read_mask(prediction_path)
    truth_image = read_truth(case.truth, prediction_image, on_own_grid=case.truth_on_own_grid)
    _check_grid(prediction_image, prediction_path, truth_image, case.truth)
    truth = sitk.GetArrayViewFromImage(truth_image).astype(bool)
    prediction = sitk.GetArrayViewFromImage(prediction_image).astype(bool)
    spacing = truth_image.GetSpacing()
    overlaps = count_overlaps(truth, prediction)
    iou = np.zeros(overlaps.truth.size)
    np.maximum.at(iou, overlaps.pair_truth, overlaps.pair_iou)
    voxel_ml = voxel_volume_ml(spacing)
    false = false_positives(truth, prediction)
    organs = _read_organs(case.truth.with_name(organs_name), truth_image, case.truth)
    hot = None if organs is None else np.isin(organs, [key for key, name in ORGANS.items() if name in HOT_ORGANS])
    return Findings(
        case.name,
        tuple(TrueLesion(float(n) * voxel_ml, float(i)) for n, i in zip(overlaps.truth, iou, strict=True)),
        float(np.count_nonzero(false)) * voxel_ml,
        None if organs is None else volume_by_organ(false, organs, spacing),
        None if hot is None else float(np.count_nonzero(hot & prediction & ~truth)) * voxel_ml,
    )


def false_positives(truth: Mask, prediction: Mask) -> Mask:
    """Return the predicted lesions (18-connected) that touch no true one: the voxels that make the FPV."""
    labels, count = lesions(prediction)
    untouched = np.ones(count + 1, bool)
    untouched[0] = False
    untouched[np.unique(labels[truth])] = False
    result: Mask = untouched[labels]
    return result


def volume_by_organ(false: Mask, organs: NDArray[np.integer], spacing: Sequence[float]) -> dict[str, float]:
    """Return the volume in ml of a mask by the organ that its voxels lie in, or else nearest to.

    Parameters
    ----------
    false : ndarray of bool, (z, y, x)
    organs : ndarray of int, (z, y, x)
        Labels 0 and those of :data:`ORGANS`.
    spacing : sequence of float
        In mm, x, y, z.

    Returns
    -------
    dict of str to float
        By organ, and :data:`ELSEWHERE` for voxels more than :data:`REACH_MM` from any.
    """
    voxel_ml = voxel_volume_ml(spacing)
    labels = organs[false]
    outside = labels == 0
    if outside.any() and organs.any():
        free, sampling = organs == 0, spacing[::-1]
        distance, nearest = ndimage.distance_transform_edt(free, sampling=sampling, return_indices=True)
        near = organs[tuple(axis[false] for axis in nearest)]
        labels = np.where(outside & (distance[false] <= REACH_MM), near, labels)
    counts = np.bincount(labels, minlength=max(ORGANS) + 1)
    volumes = {name: float(counts[label]) * voxel_ml for label, name in ORGANS.items()}
    return {**volumes, ELSEWHERE: float(counts[0]) * voxel_ml}


def report(findings: Sequence[Findings]) -> dict[str, object]:
    """Return everything as one dictionary: lesions found by size, false positive volume by organ, every case."""
    return {
        "iou": LESION_IOU,
        "sizes": [
            {
                "from_ml": low,
                "to_ml": None if high == np.inf else high,
                "lesions": len(own),
                "touched": _touched(own),
                "matched": _matched(own),
            }
            for low, high, own in by_size(findings)
        ],
        "fpv_ml": summarise([found.fpv_ml for found in findings]),
        "cases": [
            {
                "case": found.case,
                "fpv_ml": found.fpv_ml,
                "fpv_by_organ_ml": found.by_organ,
                "hot_organs_ml": found.hot_organs_ml,
                "lesions": [{"volume_ml": each.volume_ml, "iou": each.iou} for each in found.lesions],
            }
            for found in findings
        ],
    }


def by_size(findings: Iterable[Findings]) -> list[tuple[float, float, list[TrueLesion]]]:
    """Return the lesions of all cases by size class (ends in ml), then those of all above 1 ml."""
    every = [lesion for found in findings for lesion in found.lesions]
    classes = [*zip(SIZES_ML, (*SIZES_ML[1:], np.inf), strict=True), (SIZES_ML[1], np.inf)]
    return [(low, high, [each for each in every if low < each.volume_ml <= high]) for low, high in classes]


def size_table(findings: Sequence[Findings]) -> str:
    """Return the sensitivity by lesion size as a Markdown table."""
    lines = [f"| Lesion volume | Lesions | Touched | IoU of at least {LESION_IOU} |", "| --- | --- | --- | --- |"]
    for low, high, own in by_size(findings):
        name = f"above {low:g} ml" if high == np.inf else f"{low:g} to {high:g} ml"
        cells = (_share(count, len(own)) for count in (_touched(own), _matched(own)))
        lines.append(f"| {name} | {len(own)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def organ_table(findings: Sequence[Findings]) -> str:
    """Return the false positive volume by organ as a Markdown table; the total alone without organ maps."""
    lines = [
        f"| False positives in | Mean ml | Median ml | Most ml | Cases above {CALLED_ML:g} ml |",
        "| --- | --- | --- | --- | --- |",
    ]
    mapped = [found.by_organ for found in findings if found.by_organ is not None]
    if mapped:
        names = (*ORGANS.values(), ELSEWHERE)
        lines += [_organ_row(name, [volumes[name] for volumes in mapped]) for name in names]
    lines.append(_organ_row("all", [found.fpv_ml for found in findings]))
    hot = [found.hot_organs_ml for found in findings if found.hot_organs_ml is not None]
    if hot:
        lines.append(_organ_row(f"inside {', '.join(HOT_ORGANS)}, all that is called", hot))
    return "\n".join(lines)


def _organ_row(name: str, volumes: Sequence[float]) -> str:
    each = summarise(volumes)
    called = sum(volume > CALLED_ML for volume in volumes)
    return (
        f"| {name} | {each['mean']:.2f} | {each['median']:.2f} | {each['max']:.2f} | {called} of {len(volumes)} |"
    )


def _read_organs(path: Path, truth: sitk.Image, truth_path: Path) -> NDArray[np.uint8] | None:
    if not path.is_file():
        return None
    image = read_image(path, "organ map")
    _check_grid(image, path, truth, truth_path)
    if foreign_label(image, max(ORGANS)) is not None:
        raise InvalidImageError(f"the organ map {path} must have the labels 0 to {max(ORGANS)} only; correct it")
    organs: NDArray[np.uint8] = sitk.GetArrayViewFromImage(image).astype(np.uint8)
    return organs


def _check_grid(image: sitk.Image, path: Path, truth: sitk.Image, truth_path: Path) -> None:
    if not same_geometry(truth, image):
        raise GeometryError(
            f"{path} has {geometry_text(image)}, but the truth {truth_path} has "
            f"{other_geometry_text(truth, image)}; resample it"
        )


def _touched(own: Sequence[TrueLesion]) -> int:
    return sum(each.touched for each in own)


def _matched(own: Sequence[TrueLesion]) -> int:
    return sum(each.iou >= LESION_IOU for each in own)


def _share(count: int, of: int) -> str:
    return f"{count / of:.3f} ({count})" if of else "-"
