"""A run names the cases that it held back, and other programs take its lists; patients are known by any name."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.cases import find_cases, list_cases, read_study
from algorithm.errors import OutputError, UsageError
from algorithm.images import write_mask
from evaluation.__main__ import main as evaluation
from test.support.data_sets import write_autopet, write_autopet_iii, write_hecktor_2022
from test.support.trees import SPACING, write_tree
from training.held_back import write_lists
from training.options import DataOptions
from training.parallel import Processes
from training.preparation import PreparedData, prepare, split_patients
from training.splits import Split


def prepared(tmp_path: Path, *folders: Path) -> PreparedData:
    data = DataOptions(cases=folders, cache=tmp_path / "cache", out=tmp_path / "run")
    return prepare(data, spacing=SPACING, workers=1, processes=Processes())


def test_the_lists_name_the_cases_that_were_held_back(tmp_path: Path) -> None:
    root = write_autopet(tmp_path / "set", tmp_path / "scratch", 3)
    data = prepared(tmp_path, root)
    first, second, third = sorted({case.patient for case in data.datasets[0].cases})

    written = write_lists(data, Split((second,), (third,), (first,)), tmp_path / "run")

    assert {role: count for role, (_, count) in written.items()} == {"validation": 1, "test": 2}
    cases = {case.name: case for case in find_cases(root).cases}
    for role, patient in (("validation", third), ("test", first)):
        listed = list_cases(tmp_path / "run" / f"{role}.csv")
        assert {case.patient for case in listed} == {patient}
        for case in listed:
            assert [path.resolve() for path in case.files] == [path.resolve() for path in cases[case.name].files]


def test_nothing_held_back_leaves_no_list(tmp_path: Path) -> None:
    data = prepared(tmp_path, write_tree(tmp_path / "set", "a", "b"))
    assert write_lists(data, split_patients(data, "all", 0), tmp_path / "run") == {}
    assert not (tmp_path / "run").exists()


def test_somebodys_list_is_left_as_it_is(tmp_path: Path) -> None:
    data = prepared(tmp_path, write_tree(tmp_path / "set", "a", "b"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run/test.csv").write_text("case,ct,pet\n")
    with pytest.raises(OutputError, match=r"test.csv is there already and is not a list of cases"):
        write_lists(data, Split(("a",), (), ("b",)), tmp_path / "run")


def test_hecktor_is_scored_on_the_pet_s_grid_from_tree_and_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels 1 and 2 on the CT's finer grid: the truth itself, brought onto the PET's, scores 1."""
    root = write_hecktor_2022(tmp_path / "set", tmp_path / "scratch", 2)
    data = prepared(tmp_path, root)
    write_lists(data, Split((), (), tuple(case.patient for case in data.datasets[0].cases)), tmp_path / "run")
    for case in find_cases(root).cases:
        study = read_study(case)
        assert set(np.unique(sitk.GetArrayViewFromImage(sitk.ReadImage(case.truth)))) == {0, 1, 2}
        (tmp_path / "masks").mkdir(exist_ok=True)
        write_mask(sitk.GetArrayFromImage(study.seg), study.pet, tmp_path / f"masks/{case.name}.nii.gz")
    (tmp_path / "masks/CHUM-002.nii.gz").unlink()

    for source in (root, tmp_path / "run/test.csv"):
        words = ["score", "--cases", str(source), "--prediction", str(tmp_path / "masks"), "--edition", "V"]
        assert evaluation(words) == 0, capsys.readouterr().err
        rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines() if line.startswith("CHUM")]
        assert rows == [["CHUM-001", "1.0000"], ["CHUM-002", "0.0000"]]


def test_another_word_for_the_grid_is_refused(tmp_path: Path) -> None:
    for name in ("c", "p", "t"):
        (tmp_path / f"{name}.nii.gz").touch()
    (tmp_path / "cases.csv").write_text("case,ct,pet,truth,truth_grid\na,c.nii.gz,p.nii.gz,t.nii.gz,ct\n")
    with pytest.raises(UsageError, match=r"has ct as the truth_grid of a; give own"):
        list_cases(tmp_path / "cases.csv")


def test_one_patient_of_autopet_under_both_names_is_found(tmp_path: Path) -> None:
    one = write_tree(tmp_path / "FDG-PET-CT-Lesions", "PETCT_0011f3deaf")
    other = write_autopet_iii(tmp_path / "three", tmp_path / "scratch", 1)
    for path in sorted(other.rglob("fdg_*")):
        path.rename(path.with_name(path.name.replace("fdg_1000000000", "fdg_0011f3deaf")))
    with pytest.raises(UsageError, match=r"hold a patient fdg_0011f3deaf; give each patient once"):
        prepared(tmp_path, one, other)


@pytest.mark.parametrize(
    ("flat", "said"),
    [(True, "the studies lie in no patient's folder"), (False, None)],
)
def test_studies_without_patients_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, flat: bool, said: str | None
) -> None:
    root = write_tree(tmp_path / "set", "a", "b")
    if flat:
        for study in sorted(root.glob("*/study")):
            study.rename(root / f"{study.parent.name}_study")
    with caplog.at_level(logging.INFO):
        prepared(tmp_path, root)
    assert ("each case counts as one" in caplog.text) is (said is not None)
    assert (said or "") in caplog.text
