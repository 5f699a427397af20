from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from algorithm.description import Normalisation, Postprocessing
from algorithm.job import InferenceSettings, Segmenter
from algorithm.weights import build_network, load_checkpoint
from evaluation.scoring.metrics import Scores
from test.support.checkpoints import write_checkpoint
from test.support.trees import SPACING, write_tree
from training import validation
from training.cache import CachedCase


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "data", "a") / "a" / "study"


@pytest.fixture
def case(study: Path, tmp_path: Path) -> CachedCase:
    """The study as a cache keeps it, not cut to the patient."""
    for name, file in (("ct", "CTres"), ("pet", "SUV"), ("seg", "SEG")):
        values = sitk.GetArrayFromImage(sitk.ReadImage(str(study / f"{file}.nii.gz")))
        np.save(tmp_path / f"{name}.npy", values.transpose(2, 1, 0))
    return CachedCase("a/study", "a", tmp_path, values.shape[::-1], SPACING, 1.0, "")


def test_validation_finds_what_the_product_finds(
    study: Path, case: CachedCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load_checkpoint(
        write_checkpoint(
            tmp_path,
            spacing=SPACING,
            pet=Normalisation("clip-scale", 0.0, 10.0),
            postprocessing=Postprocessing(minimum_lesion_ml=1.0, suv_floor=0.9),
        )
    )
    masks: list[np.ndarray] = []
    measure = validation.measure

    def recorded(truth: np.ndarray, mask: np.ndarray, *arguments: Any, **options: Any) -> Scores:
        masks.append(mask)
        return measure(truth, mask, *arguments, **options)

    monkeypatch.setattr(validation, "measure", recorded)
    network = build_network(checkpoint)

    (scores,) = validation.validate(network, [case], checkpoint.description, torch.device("cpu"), "float32")

    segmenter = Segmenter([checkpoint], "cpu", "float32")
    product = segmenter.segment(study / "CTres.nii.gz", study / "SUV.nii.gz", InferenceSettings(flips=1))
    assert 0.01 < product.mask.mean() < 0.5
    np.testing.assert_array_equal(masks[0], product.mask)
    truth = sitk.GetArrayFromImage(sitk.ReadImage(str(study / "SEG.nii.gz")))
    overlap = 2 * (truth & product.mask).sum() / (truth.sum() + product.mask.sum())
    assert scores.dice == pytest.approx(overlap)


def scored(*dice: float) -> list[Scores]:
    names = [field.name for field in dataclasses.fields(Scores)]
    return [Scores(**(dict.fromkeys(names, 1.0) | {"dice": value})) for value in dice]


@pytest.mark.parametrize(
    ("tumour_ml", "synthetic", "counted"),
    [
        ((5.0, 5.0, 5.0), (False, True, True), [True, False, False]),
        ((0.0, 5.0, 5.0), (False, True, True), [True, True, True]),
        ((5.0, 5.0), (False, False), [True, True]),
        ((5.0, 5.0), (True, True), [True, True]),
    ],
)
def test_patients_choose_where_one_has_a_tumour(
    case: CachedCase, tumour_ml: tuple[float, ...], synthetic: tuple[bool, ...], counted: list[bool]
) -> None:
    pairs = zip(tumour_ml, synthetic, strict=True)
    cases = [dataclasses.replace(case, tumour_ml=volume, synthetic=made) for volume, made in pairs]
    assert validation.choosing(cases) == counted


def test_both_means_are_told(case: CachedCase) -> None:
    cases = [dataclasses.replace(case, synthetic=made) for made in (False, True, True)]
    assert validation.tell(cases, scored(0.2, 0.8, 0.6)) == (
        "validation of 3 (2 synthetic): Dice 0.2000, FPV 1.00 ml, FNV 1.00 ml (patients); "
        "Dice 0.7000, FPV 1.00 ml, FNV 1.00 ml (synthetic)"
    )
    assert validation.tell(cases[:1], scored(0.2)) == "validation of 1: Dice 0.2000, FPV 1.00 ml, FNV 1.00 ml"
    assert validation.mean_scores(scored(math.nan)).keys() == {"fpv_ml", "fnv_ml"}
