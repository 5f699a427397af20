from __future__ import annotations

import csv
import dataclasses
import logging
import math
import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.cases import find_cases
from algorithm.description import Agreement, Postprocessing, PrecisionProof, read_description
from algorithm.job import InferenceSettings, Segmenter
from algorithm.postprocessing import clean_mask
from algorithm.weights import load_checkpoint
from evaluation.scoring.editions import RULES
from evaluation.scoring.metrics import measure
from training.__main__ import main
from training.cleanup import (
    CURVE_COLUMNS,
    LEAST_ML,
    LEAST_SUV_MAX,
    RANKS_ALIKE,
    THRESHOLDS,
    Choice,
    Ranked,
    _write_choice,
    choose,
    pieces_of,
    rank_choices,
    take_apart,
)
from training.studies import read_studies

SPACING = (4.0, 4.0, 3.0)
VOXEL_ML = 0.048


def case(seed: int, *, tumour: bool = True):
    """Blobs of probability, a warm background, and a truth that some of the blobs are."""
    rng = np.random.default_rng(seed)
    shape = (20, 24, 28)
    z, y, x = np.indices(shape)
    probability, truth = np.zeros(shape, np.float32), np.zeros(shape, np.uint8)
    suv = rng.uniform(0.5, 1.5, shape).astype(np.float32)
    for number in range(7):
        centre, radius = rng.uniform(3, 17, 3), rng.uniform(1, 4)
        ball = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < radius**2
        probability[ball] = rng.uniform(0.2, 1.0)
        suv[ball] += rng.uniform(0, 4)
        if tumour and number % 2:
            truth[ball] = 1
    return probability.astype(np.float16), suv, truth


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("tumour", [True, False])
@pytest.mark.parametrize("floor", [0.0, 2.5])
def test_figures_are_those_of_the_cleaned_mask(seed, tumour, floor):
    probability, suv, truth = case(seed, tumour=tumour)
    for threshold in THRESHOLDS:
        pieces = pieces_of(probability > threshold, suv, truth, VOXEL_ML, floor)
        for least_ml in LEAST_ML:
            for least_suv_max in LEAST_SUV_MAX:
                got = pieces.scores(least_ml, least_suv_max)
                how = Postprocessing(least_ml, floor, least_suv_max)
                mask = clean_mask((probability > threshold).astype(np.uint8), suv, SPACING, how)
                wanted = measure(truth, mask, SPACING, RULES["II"], surfaces=False)
                for name, value in got.items():
                    assert value == pytest.approx(getattr(wanted, name), nan_ok=True), (threshold, least_ml, name)


def test_the_best_takes_away_what_is_false_and_leaves_what_is_true():
    shape = (20, 20, 20)
    probability, truth = np.zeros(shape, np.float16), np.zeros(shape, np.uint8)
    suv = np.ones(shape, np.float32)
    probability[4:9, 4:9, 4:9] = 0.95
    truth[4:9, 4:9, 4:9] = 1
    suv[4:9, 4:9, 4:9] = 5.0
    probability[14:18, 14:18, 14:18] = 0.97  # as sure, as large, but cold
    cases = [{each: pieces_of(probability > each, suv, truth, VOXEL_ML) for each in THRESHOLDS}]
    ranked = rank_choices(cases)

    assert ranked[0].choice == dataclasses.replace(
        ranked[0].choice, threshold=0.5, minimum_lesion_ml=0.0, minimum_suv_max=1.5
    )
    assert (ranked[0].dice, ranked[0].fpv_ml, ranked[0].fnv_ml) == (1.0, 0.0, 0.0)
    assert len(ranked) == len(THRESHOLDS) * len(LEAST_ML) * len(LEAST_SUV_MAX)


@pytest.mark.parametrize(("behind", "chosen"), [(0.5, 0.3), (1.0, 0.3), (1.1, 1.0)])
def test_of_those_that_rank_alike_the_one_that_takes_away_least_is_chosen(behind, chosen):
    ranked = [
        Ranked(Choice(threshold, least_ml, 2.5), 0.7, 4.0, 3.0, mean_rank, rank)
        for rank, (threshold, least_ml, mean_rank) in enumerate(
            [(0.4, 1.0, 33.0), (0.5, 0.3, 33.0 + behind), (0.6, 0.3, 33.0 + behind), (0.5, 0.0, 40.0)], start=1
        )
    ]
    assert choose(ranked).choice == Choice(0.5 if chosen < 1 else 0.4, chosen, 2.5)


def test_a_false_lesion_in_a_tumour_free_case_costs_dice_as_in_edition_2():
    probability, suv, truth = case(0, tumour=False)
    pieces = pieces_of(probability > 0.5, suv, truth, VOXEL_ML)
    called, cleaned = pieces.scores(0.0, 0.0), pieces.scores(1e6, 0.0)
    assert (called["dice"], called["fnv_ml"], cleaned["fnv_ml"]) == (0.0, 0.0, 0.0)
    assert called["fpv_ml"] > cleaned["fpv_ml"] == 0
    assert math.isnan(cleaned["dice"])


def test_cleaning_by_suv_max_keeps_a_lesion_with_one_hot_voxel():
    mask, suv = np.zeros((6, 6, 6), np.uint8), np.ones((6, 6, 6), np.float32)
    mask[1:3, 1:3, 1:3] = mask[4:6, 4:6, 4:6] = 1
    suv[1, 1, 1] = 3.0
    cleaned = clean_mask(mask, suv, SPACING, Postprocessing(minimum_suv_max=2.5))
    assert cleaned[1:3, 1:3, 1:3].all()
    assert cleaned.sum() == 8


@pytest.fixture
def checkpoint(trained, tmp_path):
    """A copy of the trained checkpoint, to write to."""
    path = tmp_path / "w" / "last.json"
    path.parent.mkdir()
    for suffix in (".json", ".safetensors"):
        shutil.copy(trained.with_suffix(suffix), path.with_suffix(suffix))
    return path


def test_the_masks_that_are_ranked_are_the_products(tree, checkpoint):
    loaded = load_checkpoint(checkpoint)
    case, study = next(read_studies(tree, None))
    suv = sitk.GetArrayFromImage(sitk.ReadImage(str(case.pet)))
    floor = Postprocessing(suv_floor=float(np.percentile(suv, 99)))
    loaded = dataclasses.replace(loaded, description=dataclasses.replace(loaded.description, postprocessing=floor))
    (pieces,) = take_apart(loaded, [(case, study)], 1, "cpu")
    for threshold in THRESHOLDS:
        described = dataclasses.replace(loaded.description, threshold=threshold)
        product = Segmenter([dataclasses.replace(loaded, description=described)], "cpu")
        mask = product.segment(case.ct, case.pet, InferenceSettings(flips=1)).mask
        assert pieces[threshold].overlaps.prediction.sum() == mask.sum()
    assert pieces[0.5].overlaps.prediction.sum() > 0


def test_a_proof_of_other_masks_is_said_to_be_old(checkpoint, caplog):
    loaded = load_checkpoint(checkpoint)
    proof = PrecisionProof(9.0, bfloat16=Agreement(2, 0.999, 0.999))
    described = dataclasses.replace(loaded.description, threshold=0.5, precision=proof)
    loaded = dataclasses.replace(loaded, description=described)
    unproved = dataclasses.replace(loaded, description=dataclasses.replace(described, precision=PrecisionProof()))
    with caplog.at_level(logging.INFO, "training"):
        _write_choice(loaded, Choice(0.5, 0.0, 0.0))  # as it was
        _write_choice(unproved, Choice(0.3, 0.0, 0.0))
        assert "training precision" not in caplog.text
        for other in (Choice(0.3, 0.0, 0.0), Choice(0.5, 1.0, 0.0)):
            caplog.clear()
            _write_choice(loaded, other)
            assert "run `python -m training precision` again" in caplog.text


def test_the_command_writes_curve_and_choice(tree, checkpoint, tmp_path, capsys):
    path = checkpoint
    before = path.read_text()
    arguments = ["cleanup", "--weights", str(path), "--cases", str(tree), "--out", str(tmp_path / "curve.csv")]
    assert main([*arguments, "--device", "cpu"]) == 0
    assert path.read_text() == before
    assert main([*arguments, "--device", "cpu", "--write"]) == 0

    with (tmp_path / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == CURVE_COLUMNS
    assert rows[0]["rank"] == "1"
    assert not math.isnan(float(rows[0]["dice"]))
    after = read_description(path)
    alike = [row for row in rows if float(row["mean_rank"]) <= float(rows[0]["mean_rank"]) + RANKS_ALIKE]
    chosen = min(alike, key=lambda row: (float(row["minimum_lesion_ml"]), float(row["minimum_suv_max"])))
    assert after.threshold == float(chosen["threshold"])
    assert after.postprocessing.minimum_lesion_ml == float(chosen["minimum_lesion_ml"])
    assert after.postprocessing.minimum_suv_max == float(chosen["minimum_suv_max"])
    assert "on 5 cases" in capsys.readouterr().out


def test_a_damaged_case_is_named_and_the_others_choose(tree, checkpoint, tmp_path, capsys):
    root = tmp_path / "tree"
    shutil.copytree(tree, root)
    damaged = find_cases(root).cases[1].pet
    damaged.write_bytes(damaged.read_bytes()[:400])
    arguments = ["--weights", str(checkpoint), "--cases", str(root), "--out", str(tmp_path / "curve.csv")]
    assert main(["cleanup", *arguments, "--device", "cpu"]) == 0
    told = capsys.readouterr()
    assert "on 4 cases" in told.out
    assert f"skipped {find_cases(root).cases[1].name}: " in told.out + told.err


def test_cases_without_a_tumour_cannot_choose(tree, checkpoint, tmp_path, capsys):
    root = tmp_path / "tree"
    shutil.copytree(tree, root)
    for each in find_cases(root).cases:
        seg = sitk.ReadImage(str(each.truth))
        sitk.WriteImage(seg * 0, str(each.truth))
    arguments = ["--weights", str(checkpoint), "--cases", str(root), "--out", str(tmp_path / "curve.csv")]
    before = checkpoint.read_text()
    assert main(["cleanup", *arguments, "--device", "cpu", "--write"]) == 2
    assert f"no case in {root} holds a tumour" in capsys.readouterr().err
    assert checkpoint.read_text() == before


def test_a_foreign_file_is_not_replaced(tree, trained, tmp_path, capsys):
    (tmp_path / "curve.csv").write_text("my notes\n")
    assert (
        main(["cleanup", "--weights", str(trained), "--cases", str(tree), "--out", str(tmp_path / "curve.csv")])
        == 2
    )
    assert (tmp_path / "curve.csv").read_text() == "my notes\n"
    assert capsys.readouterr().err.count("\n") == 1


def test_weights_and_cases_must_pair(tree, trained, tmp_path, capsys):
    weights = ["--weights", str(trained)] * 2
    code = main(["cleanup", *weights, *["--cases", str(tree)] * 3, "--out", str(tmp_path / "curve.csv")])
    assert code == 2
    assert "give one --weights" in capsys.readouterr().err
