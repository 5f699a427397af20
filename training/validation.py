"""Scoring whole volumes while training: never crops around tumours, which hide false positives."""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Sequence
from functools import partial

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray

from algorithm.description import Description
from algorithm.inference.device import choose_dtype
from algorithm.inference.precision import Precision
from algorithm.inference.predictor import Predictor
from algorithm.inference.progress import Progress
from algorithm.network.h2aseg import H2ASeg
from algorithm.preprocessing import prepare_on_grid
from algorithm.segmentation import EnsembleCase, mask_on, prepare_case, segment_prepared
from evaluation.scoring.editions import RULES
from evaluation.scoring.metrics import Scores, measure
from training.cache import CachedCase

_PAPER = RULES["paper"]
_SILENT = Progress(logging.DEBUG)


def validate(
    network: H2ASeg,
    cases: Sequence[CachedCase],
    description: Description,
    device: torch.device,
    precision: Precision = "auto",
) -> list[Scores]:
    """Segment each case as the product does, without flips, on the network's grid, and score it.

    Parameters
    ----------
    network : H2ASeg
        In eval mode, on the CPU.
    cases : sequence of CachedCase
    description : Description
        Its patch, overlap, normalisation and threshold apply.
    device : torch.device
    precision : {"auto", "float32", "bfloat16", "float16"}

    Returns
    -------
    list of Scores
        By the paper's rules: Dice and FNV are NaN for a tumour-free case. Surfaces are not measured.
    """
    predictor = Predictor([network], device, choose_dtype(precision, device))
    return [_score(predictor, case, description) for case in cases]


def choosing(cases: Sequence[CachedCase]) -> list[bool]:
    """Tell of each case whether it counts when the best checkpoint is chosen.

    Synthetic bodies do not where a patient's case has a tumour: they are easier, and there may be many of them.
    """
    patients = any(case.tumour_ml > 0 and not case.synthetic for case in cases)
    return [not (patients and case.synthetic) for case in cases]


def mean_scores(scores: Sequence[Scores]) -> dict[str, float]:
    """Return the means by name, over the cases for which a score is defined; a score without such is left out."""
    columns = {name: [getattr(score, name) for score in scores] for name in ("dice", "fpv_ml", "fnv_ml")}
    defined = {name: [value for value in values if not math.isnan(value)] for name, values in columns.items()}
    return {name: statistics.fmean(values) for name, values in defined.items() if values}


def tell(cases: Sequence[CachedCase], scores: Sequence[Scores]) -> str:
    """Return the mean scores as a text; where patients alone choose, those of synthetic bodies apart."""
    synthetic = sum(case.synthetic for case in cases)
    of = f"{len(cases)} ({synthetic} synthetic)" if synthetic else str(len(cases))
    counted = choosing(cases)
    if all(counted):
        return f"validation of {of}: {_tell(scores)}"
    patients, bodies = (
        [s for s, counts in zip(scores, counted, strict=True) if counts is who] for who in (True, False)
    )
    return f"validation of {of}: {_tell(patients)} (patients); {_tell(bodies)} (synthetic)"


def _tell(scores: Sequence[Scores]) -> str:
    mean = mean_scores(scores)
    forms = {"dice": "Dice {:.4f}", "fpv_ml": "FPV {:.2f} ml", "fnv_ml": "FNV {:.2f} ml"}
    return ", ".join(form.format(mean[name]) for name, form in forms.items() if name in mean)


def prepare_cached(case: CachedCase, description: Description) -> tuple[EnsembleCase, sitk.Image]:
    """Return a case as the network takes it, and its PET on the network's grid."""
    ct = np.array(case.ct().transpose(2, 1, 0), np.float32)
    pet = sitk.GetImageFromArray(np.array(case.pet().transpose(2, 1, 0), np.float32))
    pet.SetSpacing(case.spacing)
    return prepare_case([description], partial(prepare_on_grid, ct, pet)), pet


def segment_cached(predictor: Predictor, case: CachedCase, description: Description) -> NDArray[np.uint8]:
    """Return the mask, uint8 z, y, x on the network's grid, as the product makes it, without flips."""
    prepared, pet = prepare_cached(case, description)
    probability = segment_prepared(predictor, prepared, flips=1, progress=_SILENT).probability
    return mask_on(probability, prepared.prepared.grid, pet, description)


def _score(predictor: Predictor, case: CachedCase, description: Description) -> Scores:
    mask = segment_cached(predictor, case, description)
    return measure(case.seg().transpose(2, 1, 0), mask, case.spacing, _PAPER, surfaces=False)
