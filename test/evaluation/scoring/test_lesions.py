from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.cases import Case
from algorithm.errors import GeometryError, InvalidImageError
from evaluation.__main__ import main
from evaluation.scoring.editions import RULES
from evaluation.scoring.lesions import (
    ELSEWHERE,
    by_size,
    false_positives,
    inspect_case,
    report,
    size_table,
    volume_by_organ,
)
from evaluation.scoring.score import score_pair

SHAPE = (12, 20, 20)
SPACING = (5.0, 5.0, 4.0)
VOXEL_ML = 0.1


def write(path: Path, volume: np.ndarray, spacing: tuple[float, ...] = SPACING) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(volume.astype(np.uint8))
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))
    return path


def box(*parts: slice) -> np.ndarray:
    volume = np.zeros(SHAPE, bool)
    volume[parts] = True
    return volume


SMALL = box(slice(1, 2), slice(1, 3), slice(1, 3))  # 0.4 ml
MEDIUM = box(slice(1, 4), slice(8, 11), slice(1, 4))  # 2.7 ml
LARGE = box(slice(6, 11), slice(8, 16), slice(1, 8))  # 28 ml
BRAIN = box(slice(8, 12), slice(0, 4), slice(12, 18))
SPILL = box(slice(8, 12), slice(0, 5), slice(12, 18))  # the brain and one row beside it
STRAY = box(slice(0, 2), slice(16, 19), slice(15, 18))  # near no organ


@pytest.fixture
def case(tmp_path: Path) -> Case:
    study = tmp_path / "cases" / "synthetic_0" / "study"
    for name in ("CTres", "SUV"):
        write(study / f"{name}.nii.gz", np.zeros(SHAPE))
    truth = write(study / "SEG.nii.gz", SMALL | MEDIUM | LARGE)
    write(study / "organs.nii.gz", 6 * BRAIN)
    return Case("synthetic_0_study", study / "CTres.nii.gz", study / "SUV.nii.gz", truth, True)


@pytest.fixture
def prediction(tmp_path: Path) -> Path:
    one_voxel = box(slice(6, 7), slice(8, 9), slice(1, 2))
    return write(tmp_path / "masks" / "synthetic_0_study.mha", MEDIUM | one_voxel | SPILL | STRAY)


def test_lesions_are_found_by_size(case: Case, prediction: Path) -> None:
    found = inspect_case(case, prediction)
    volumes = sorted((round(each.volume_ml, 3), each.touched, round(each.iou, 4)) for each in found.lesions)
    assert volumes == [(0.4, False, 0.0), (2.7, True, 1.0), (28.0, True, round(1 / 280, 4))]
    assert [len(own) for _, _, own in by_size([found])] == [1, 1, 0, 1, 2]
    assert "| above 1 ml | 2 | 1.000 (2) | 0.500 (1) |" in size_table([found])


def test_size_classes_are_told_apart(case: Case, prediction: Path) -> None:
    sizes = report([inspect_case(case, prediction)])["sizes"]
    ends = [(each["from_ml"], each["to_ml"]) for each in sizes]  # type: ignore[attr-defined]
    assert ends == [(0, 1), (1, 5), (5, 20), (20, None), (1, None)]


def test_false_positives_fall_to_the_nearest_organ(case: Case, prediction: Path) -> None:
    found = inspect_case(case, prediction)
    assert found.by_organ is not None
    assert found.by_organ["brain"] == pytest.approx(SPILL.sum() * VOXEL_ML)
    assert found.by_organ[ELSEWHERE] == pytest.approx(STRAY.sum() * VOXEL_ML)
    assert sum(found.by_organ.values()) == pytest.approx(found.fpv_ml)


def test_false_positives_are_the_fpvs_of_the_scores(case: Case, prediction: Path) -> None:
    assert case.truth is not None
    scores = score_pair(case.truth, prediction, RULES["III"])
    assert inspect_case(case, prediction).fpv_ml == pytest.approx(scores.fpv_ml)


def test_an_organ_called_together_with_a_lesion_is_seen(case: Case, tmp_path: Path) -> None:
    """One predicted lesion from the true one to the brain is no false positive, yet the brain is called."""
    bridge = LARGE | BRAIN | box(slice(8, 11), slice(3, 9), slice(6, 13))
    found = inspect_case(case, write(tmp_path / "bridge.mha", bridge))
    assert found.fpv_ml == 0
    assert found.hot_organs_ml == pytest.approx(BRAIN.sum() * VOXEL_ML)


def test_reach_is_in_millimetres() -> None:
    organs = np.zeros(SHAPE, np.uint8)
    organs[:, 0, 0] = 4
    within, beyond = box(slice(3, 4), slice(0, 1), slice(2, 3)), box(slice(3, 4), slice(0, 1), slice(3, 4))
    assert volume_by_organ(within, organs, SPACING)["bladder"] == pytest.approx(VOXEL_ML)
    assert volume_by_organ(beyond, organs, SPACING)[ELSEWHERE] == pytest.approx(VOXEL_ML)


def test_nothing_called_gives_nothing() -> None:
    nothing = np.zeros(SHAPE, bool)
    assert not false_positives(LARGE, nothing).any()
    assert sum(volume_by_organ(nothing, BRAIN.astype(np.uint8), SPACING).values()) == 0


def test_without_organ_map_there_is_only_the_total(
    case: Case, prediction: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert case.truth is not None
    case.truth.with_name("organs.nii.gz").unlink()
    assert main(["lesions", "--input", str(tmp_path / "cases"), "--prediction", str(prediction.parent)]) == 0
    out = capsys.readouterr().out
    assert "| all | " in out
    assert "brain" not in out


def test_command_line(case: Case, prediction: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, table = tmp_path / "lesions.json", tmp_path / "lesions.csv"
    arguments = ["--input", str(tmp_path / "cases"), "--prediction", str(prediction.parent)]
    assert main(["lesions", *arguments, "--json", str(report), "--csv", str(table)]) == 0
    out = capsys.readouterr().out
    assert "| brain | 12.00 | 12.00 | 12.00 | 1 of 1 |" in out
    assert "| inside brain, heart, kidneys, bladder, all that is called | 9.60 | 9.60 | 9.60 | 1 of 1 |" in out
    content = json.loads(report.read_text())
    assert [each["lesions"] for each in content["sizes"]] == [1, 1, 0, 1, 2]
    assert content["cases"][0]["fpv_by_organ_ml"]["brain"] == pytest.approx(12.0)
    assert content["cases"][0]["hot_organs_ml"] == pytest.approx(BRAIN.sum() * VOXEL_ML)
    assert len(table.read_text().splitlines()) == 1 + 3


def test_an_organ_map_on_another_grid_is_refused(case: Case, prediction: Path) -> None:
    assert case.truth is not None
    write(case.truth.with_name("organs.nii.gz"), BRAIN, (5, 5, 5))
    with pytest.raises(GeometryError, match=r"but the truth .* resample it"):
        inspect_case(case, prediction)


def test_an_organ_map_with_other_labels_is_refused(case: Case, prediction: Path) -> None:
    assert case.truth is not None
    write(case.truth.with_name("organs.nii.gz"), 11 * BRAIN)
    with pytest.raises(InvalidImageError, match="labels 0 to 10 only"):
        inspect_case(case, prediction)


def test_a_case_without_mask_is_named(
    case: Case, prediction: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prediction.unlink()
    assert main(["lesions", "--input", str(tmp_path / "cases"), "--prediction", str(prediction.parent)]) == 2
    assert "has no mask of synthetic_0_study" in capsys.readouterr().err


def test_a_cohort_s_results_hold_the_masks(case, prediction, tmp_path, capsys):
    results = write(tmp_path / "results" / case.name / "tumour.nii.gz", LARGE).parents[1]
    assert main(["lesions", "--cases", str(tmp_path / "cases"), "--prediction", str(results)]) == 0
    assert "| above 20 ml | 1 | 1.000 (1) | 1.000 (1) |" in capsys.readouterr().out


def test_the_list_of_cases_has_one_name(case, prediction, tmp_path, capsys):
    tables = []
    for option in ("--cases", "--input"):  # the second is what the first was called
        assert main(["lesions", option, str(tmp_path / "cases"), "--prediction", str(prediction.parent)]) == 0
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1] != ""
