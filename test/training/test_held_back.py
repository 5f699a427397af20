"""A run names the cases that it held back, and other programs take its lists; patients are known by any name."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.cases import find_cases, list_cases, read_study
from algorithm.errors import OutputError, UsageError
from algorithm.images import write_mask
from algorithm.network.architecture import Architecture
from evaluation.__main__ import main as evaluation
from test.support.data_sets import write_autopet, write_autopet_iii, write_hecktor_2022
from test.support.trees import SPACING, write_tree
from training.held_back import write_lists
from training.options import DataOptions
from training.parallel import Processes
from training.preparation import PreparedData, describe, prepare, split_patients, stored_folds
from training.score_tables import write_case_list
from training.splits import Split, write_split


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


@pytest.mark.parametrize("linked", ["run", "set"])
def test_a_list_is_right_behind_a_link(tmp_path: Path, linked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tree(tmp_path / "disk/deep" / "set", "a", "b")
    (tmp_path / "disk/deep/run").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in ("run", "set"):
        if name == linked:
            Path(name).symlink_to(tmp_path / "disk/deep" / name)
        else:
            (tmp_path / "disk/deep" / name).rename(name)
    data = prepared(tmp_path, Path("set"))
    write_lists(data, Split(("a",), ("b",)), Path("run"))
    (listed,) = list_cases(Path("run/validation.csv"))
    assert [path.resolve() for path in listed.files] == [
        path.resolve() for path in find_cases(Path("set")).cases[1].files
    ]


def test_an_earlier_list_of_a_role_without_cases_goes(tmp_path: Path) -> None:
    data = prepared(tmp_path, write_tree(tmp_path / "set", "a", "b"))
    write_lists(data, Split(("a",), (), ("b",)), tmp_path / "run")
    assert (tmp_path / "run/test.csv").is_file()
    write_lists(data, Split(("a", "b")), tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_patients_without_a_role_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = prepared(tmp_path, write_tree(tmp_path / "set", "a", "b"), write_tree(tmp_path / "more", "c"))
    write_split(Split(("a",), ("c",), ("z",)), tmp_path / "split.json")
    split_patients(data, str(tmp_path / "split.json"), 0)
    assert f"1 patients have no role in {tmp_path / 'split.json'} and are left out: b" in caplog.messages
    assert f"1 names in {tmp_path / 'split.json'} are not among the patients: z" in caplog.messages

    folds = [{"train": ["a_study"], "val": ["x_study"]}, {"train": ["a_study"], "val": ["x_study"]}]
    (tmp_path / "set/splits_final.json").write_text(json.dumps(folds))
    caplog.clear()
    assert stored_folds(data.datasets[0], data.caches[0], 3) == []
    assert caplog.messages == []
    assert len(stored_folds(data.datasets[0], data.caches[0], 2)) == 2
    assert any("1 cases have no role in" in line and line.endswith(": b_study") for line in caplog.messages)
    assert any(line.endswith("are not among the cases: x_study") for line in caplog.messages)


def test_hecktor_is_scored_on_the_pet_s_grid_from_tree_and_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels 1 and 2 on the CT's finer grid: the truth itself, brought onto the PET's, scores 1."""
    root = write_hecktor_2022(tmp_path / "set", tmp_path / "scratch", 2)
    data = prepared(tmp_path, root)
    write_lists(data, Split((), (), tuple(case.patient for case in data.datasets[0].cases)), tmp_path / "run")
    write_case_list(data.datasets[0].cases, tmp_path / "cv/cases.csv")
    for case in find_cases(root).cases:
        study = read_study(case)
        assert set(np.unique(sitk.GetArrayViewFromImage(sitk.ReadImage(case.truth)))) == {0, 1, 2}
        (tmp_path / "masks").mkdir(exist_ok=True)
        write_mask(sitk.GetArrayFromImage(study.seg), study.pet, tmp_path / f"masks/{case.name}.nii.gz")
    (tmp_path / "masks/CHUM-002.nii.gz").unlink()

    with_truth = [str(tmp_path / "cv/cases.csv"), "--truth", str(root)]
    for source in ([str(root)], [str(tmp_path / "run/test.csv")], [str(tmp_path / "cv/cases.csv")], with_truth):
        words = ["score", "--cases", *source, "--prediction", str(tmp_path / "masks"), "--edition", "V"]
        assert evaluation(words) == 0, capsys.readouterr().err
        rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines() if line.startswith("CHUM")]
        assert rows == [["CHUM-001", "1.0000"], ["CHUM-002", "0.0000"]]


def test_a_written_list_is_scored_as_the_users_own(tmp_path: Path) -> None:
    """Tracer, centre, data set, subset and what is synthetic are kept, so that the ranked figures are the same."""
    root = write_tree(tmp_path / "set", *"abcd")
    lines = ["case,ct,pet,truth,tracer,centre,data_set,subset,synthetic"]
    cells = {"a": "fdg,LMU,one,,", "b": "fdg,UKT,one,,", "c": "psma,LMU,two,x,", "d": "fdg,LMU,two,,yes"}
    for name, rest in cells.items():
        lines.append(
            f"{name} 1,{','.join(f'{name}/study/{each}.nii.gz' for each in ('CTres', 'SUV', 'SEG'))},{rest}"
        )
    (root / "cases.csv").write_text("\n".join(lines) + "\n")
    data = prepared(tmp_path, root / "cases.csv")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/test.csv").write_text("case,ct,pet,truth,truth_grid,patient,tracer,synthetic\n")  # as it was
    write_lists(data, Split((), (), tuple(case.patient for case in data.datasets[0].cases)), tmp_path / "run")
    write_case_list(data.datasets[0].cases, tmp_path / "cv/cases.csv")

    (tmp_path / "masks").mkdir()
    for at, case in enumerate(find_cases(root / "cases.csv").cases):
        study = read_study(case)
        mask = np.roll(sitk.GetArrayFromImage(study.seg), at, axis=2)
        for name in {case.name, case.name.replace(" ", "_")}:
            write_mask(mask, study.pet, tmp_path / f"masks/{name}.nii.gz")

    aggregates = []
    for source in (root / "cases.csv", tmp_path / "run/test.csv", tmp_path / "cv/cases.csv"):
        words = ["score", "--cases", str(source), "--prediction", str(tmp_path / "masks"), "--edition", "III"]
        assert evaluation([*words, "--json", str(tmp_path / "metrics.json")]) == 0
        aggregates.append(json.loads((tmp_path / "metrics.json").read_text())["aggregates"])
    assert aggregates[0]["subsets"].keys() >= {"fdg, LMU", "fdg, UKT", "x"}
    assert aggregates[1] == aggregates[2] == aggregates[0]
    for case in list_cases(tmp_path / "run/test.csv"):
        original = next(each for each in data.datasets[0].cases if each.name == case.name)
        for field in ("tracer", "centre", "data_set", "subset", "synthetic", "patient"):
            assert getattr(case, field) == getattr(original, field)


def test_another_word_for_the_grid_is_refused(tmp_path: Path) -> None:
    for name in ("c", "p", "t"):
        (tmp_path / f"{name}.nii.gz").touch()
    (tmp_path / "cases.csv").write_text("case,ct,pet,truth,truth_grid\na,c.nii.gz,p.nii.gz,t.nii.gz,ct\n")
    with pytest.raises(UsageError, match=r"has ct as the truth_grid of a; give own"):
        list_cases(tmp_path / "cases.csv")


@pytest.mark.parametrize(("second", "said"), [("b,p", "patient p"), ("a,q", "case a")])
def test_of_two_lists_in_one_folder_each_is_named(tmp_path: Path, second: str, said: str) -> None:
    lists = [tmp_path / "one.csv", tmp_path / "two.csv"]
    for name in ("c", "p", "t"):
        (tmp_path / f"{name}.nii.gz").touch()
    for path, row in zip(lists, ("a,p", second), strict=True):
        path.write_text(f"case,patient,ct,pet,truth\n{row},c.nii.gz,p.nii.gz,t.nii.gz\n")
    with pytest.raises(UsageError, match=re.escape(f"both {lists[0]} and {lists[1]} hold a {said}")):
        prepared(tmp_path, *lists)
    assert not (tmp_path / "cache").exists()


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


@pytest.mark.parametrize("modality", ["ct", "pet"])
def test_tumours_of_one_value_give_no_normalisation(tmp_path: Path, modality: str) -> None:
    root = write_tree(tmp_path / "set", "a")
    data = prepared(tmp_path, root)
    (case,) = data.cases(["a"])
    values = case.folder / f"tumour_{modality}.npy"
    np.save(values, np.zeros_like(np.load(values)))
    with pytest.raises(
        UsageError, match=rf"no normalisation of the {modality.upper()}: .*--{modality}-normalisation"
    ):
        describe("x", Architecture(), (32, 32, 16), SPACING, data.cases(["a"]))
