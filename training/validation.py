"""Scoring whole volumes while training: never crops around tumours, which hide false positives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from algorithm.description import Description
from algorithm.images import AIR_HU
from algorithm.inference.budget import Budget
from algorithm.inference.predictor import Member, Predictor, choose_dtype
from algorithm.inference.windows import cut_box, fit_box, paste_box
from algorithm.network.h2aseg import H2ASeg
from algorithm.postprocessing import clean_mask
from algorithm.preprocessing import body_mask, bounding_box, matter_mask, normalise, value_outside
from evaluation.scoring.editions import RULES
from evaluation.scoring.metrics import Scores, measure
from training.cache import CachedCase
from training.recipe import Precision

_PAPER = RULES["paper"]


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
    precision : {"auto", "bfloat16", "float16", "float32"}

    Returns
    -------
    list of Scores
        By the paper's rules: Dice and FNV are NaN for a tumour-free case. Surfaces are not measured.
    """
    predictor = Predictor(device, choose_dtype(precision, device), flips=1, say=lambda line: None)
    return [_score(predictor, network, case, description) for case in cases]


def _score(predictor: Predictor, network: H2ASeg, case: CachedCase, description: Description) -> Scores:
    ct, pet = np.array(case.ct(), np.float32), np.array(case.pet(), np.float32)
    suv = pet.transpose(2, 1, 0)
    body = body_mask(suv, ct.transpose(2, 1, 0), case.spacing).transpose(2, 1, 0)
    matter = matter_mask(suv, ct.transpose(2, 1, 0), case.spacing)
    box = fit_box(bounding_box(body), case.size, description.patch)
    ct, pet = normalise(ct, description.ct, None), normalise(pet, description.pet, None)
    member = Member(
        network,
        torch.from_numpy(cut_box(ct, box, description.patch, value_outside(AIR_HU, description.ct, ct))),
        torch.from_numpy(cut_box(pet, box, description.patch, value_outside(0.0, description.pet, pet))),
        description.patch,
        description.overlap,
    )
    probability = predictor.predict([member], Budget()).probability
    called = (paste_box(probability, box, case.size) > description.threshold).transpose(2, 1, 0) & matter
    mask = clean_mask(called.view(np.uint8), suv, case.spacing, description.postprocessing)
    return measure(case.seg().transpose(2, 1, 0), mask, case.spacing, _PAPER, surfaces=False)
