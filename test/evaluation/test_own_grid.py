"""HECKTOR's truths, with two labels on the CT's finer grid, serve every command that compares with a truth."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from numpy.typing import NDArray

from algorithm.cases import Case, list_cases, read_study
from algorithm.errors import GeometryError, InvalidImageError, UserError
from algorithm.images import read_image, write_mask
from algorithm.inference.predictor import Predictor
from evaluation.__main__ import main
from evaluation.figures.emphasis import measure_case
from evaluation.figures.pictures import read_errors
from evaluation.handover.bundle import SegmentedCase
from evaluation.handover.make import make_bundle
from evaluation.handover.manifest import read_manifest
from evaluation.handover.verify import verify
from evaluation.interactive.fit import _truth
from evaluation.interactive.loop import play
from test.support.bundles import SETTINGS, forge, threshold, verdict
from test.support.checkpoints import describe, random_network, write_checkpoint
from test.support.data_sets import write_hecktor_2022


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of two patients, and ``masks`` that are their truths on the PET's grid."""
    top = tmp_path_factory.mktemp("made")
    for case in list_cases(write_hecktor_2022(top / "tree", top / "scratch", 2)):
        study = read_study(case)
        write_mask(sitk.GetArrayFromImage(study.seg), study.pet, top / "masks" / f"{case.name}.nii.gz")
    return top


@pytest.fixture
def case(made: Path) -> Case:
    return list_cases(made / "tree")[0]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("weights"))


def mask_of(case: Case) -> NDArray[np.bool_]:
    return sitk.GetArrayFromImage(read_study(case).seg) > 0


def test_lesions_and_pictures_take_the_tree(made: Path, tmp_path: Path) -> None:
    words = ["--cases", str(made / "tree"), "--prediction", str(made / "masks")]
    assert main(["lesions", *words, "--json", str(tmp_path / "lesions.json")]) == 0
    cases = json.loads((tmp_path / "lesions.json").read_text())["cases"]
    assert [[each["iou"] for each in found["lesions"]] for found in cases] == [[1.0], [1.0]]
    assert main(["pictures", *words, "--out", str(tmp_path)]) == 0
    assert (tmp_path / "CHUM-002.png").is_file()


def test_a_picture_of_the_truth_itself_shows_no_error(made: Path, case: Case) -> None:
    mask = made / "masks" / f"{case.name}.nii.gz"
    assert case.truth is not None
    errors = read_errors(case.pet, case.truth, mask, truth_on_own_grid=True)
    assert set(np.unique(errors.errors)) == {0, 1}


def test_the_loop_draws_and_scores_on_the_pet_s_grid(case: Case) -> None:
    right = mask_of(case)
    played = play(case, lambda *_: right.astype(np.uint8), edition="V", kind="random", steps=2, seed=0)
    assert played.values("dice") == [1.0, 1.0]
    np.testing.assert_array_equal(_truth(case), right)


def test_emphasis_finds_the_windows_with_tumour(case: Case) -> None:
    predictor = Predictor([random_network()], torch.device("cpu"), torch.float32)
    assert measure_case(case, predictor, describe()).windows > 0


def test_a_bundle_of_the_tree_is_made_and_verified(
    made: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree, bundle = made / "tree", tmp_path / "bundle"
    make_bundle(list_cases(tree), tree, [weights], SETTINGS, bundle, predict=threshold)
    assert [case.truth_on_own_grid for case in read_manifest(bundle).cases] == [True, True]
    results = json.loads((bundle / "metrics.json").read_text())["results"]
    assert [result["dice"] for result in results] == [1.0, 1.0]
    assert verify(bundle, tree, predict=threshold) == 0, verdict(capsys)


def test_a_list_beside_folders_of_masks_says_it_too(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cases.csv").write_text("case,truth_grid\nCHUM-001,own\n")
    words = ["--truth", str(made / "tree/labelsTr"), "--prediction", str(made / "masks")]
    assert main(["score", *words, "--cases", str(tmp_path / "cases.csv")]) == 0, capsys.readouterr().err
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines() if line.startswith("CHUM-001 ")]
    assert rows == [["CHUM-001", "1.0000"]]


@pytest.mark.parametrize("grid", ["of the PET", "finer"])
def test_a_truth_that_cannot_be_scored_is_told_before_the_inference(
    case: Case, weights: Path, tmp_path: Path, grid: str
) -> None:
    def fail(*_: object) -> SegmentedCase:
        raise AssertionError("the inference ran")

    assert case.truth is not None
    truth = sitk.ReadImage(str(case.truth)) > 0
    error: type[UserError] = GeometryError
    if grid == "of the PET":
        pet, error = read_image(case.pet, "PET"), InvalidImageError
        truth = 2 * sitk.Resample(truth, pet, sitk.Transform(), sitk.sitkNearestNeighbor)
    sitk.WriteImage(truth, str(tmp_path / "truth.nii.gz"))
    wrong = dataclasses.replace(case, truth=tmp_path / "truth.nii.gz", truth_on_own_grid=False)
    with pytest.raises(error):
        make_bundle([wrong], Path("/"), [weights], SETTINGS, tmp_path / "bundle", predict=fail)
    assert not (tmp_path / "bundle").exists()


def test_a_manifest_from_before_own_grids_is_read(made: Path, case: Case, weights: Path, tmp_path: Path) -> None:
    tree, bundle = made / "tree", tmp_path / "bundle"
    plain = dataclasses.replace(case, truth=None, truth_on_own_grid=False)
    make_bundle([plain], tree, [weights], SETTINGS, bundle, predict=threshold)
    forge(bundle / "manifest.json", lambda content: content["cases"][0].pop("truth_on_own_grid"))
    assert not read_manifest(bundle).cases[0].truth_on_own_grid
    assert verify(bundle, tree, predict=threshold) == 0
