"""A cohort of DICOM studies: trees of many patients, jobs with DICOM sockets, tables that name folders."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from algorithm.__main__ import main
from algorithm.cases import list_cases
from algorithm.job import Segmenter
from algorithm.results import NAMES
from test.support.checkpoints import write_checkpoint
from test.support.dicom import edit_all
from test.support.studies import write_study
from test.support.trees import write_tree

QUICK = ("--device", "cpu", "--precision", "float32", "--flips", "1", "--no-html")
PATIENTS = ("anna", "bert", "carl")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("tree"), *PATIENTS)


@pytest.fixture
def cohort(checkpoint):
    def call(cases: Path, out: Path, *more: object) -> int:
        return main(
            [str(each) for each in ("predict", "--cases", cases, out, "--weights", checkpoint, *QUICK, *more)]
        )

    return call


@pytest.fixture
def segmented(monkeypatch) -> list[str]:
    """The CTs that were segmented."""
    seen: list[str] = []
    segment = Segmenter.segment

    def noted(self, ct, pet, *arguments, **options):
        seen.append(ct.parent.parent.name)
        return segment(self, ct, pet, *arguments, **options)

    monkeypatch.setattr(Segmenter, "segment", noted)
    return seen


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def without_seconds(path: Path) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows(path)]


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def with_other_study(source: str, target: str) -> None:
    import pydicom

    dataset = pydicom.dcmread(source)
    dataset.StudyInstanceUID += ".1"
    dataset.save_as(target)


class TestDicomTree:
    def test_every_study_is_a_case(self, cohort, tmp_path) -> None:
        tree = tmp_path / "tree"
        for patient in ("p1", "p2"):
            write_study(tree / patient / "study", patient)
        write_study(tree / "p3" / "without_weight", "p3", pet_edit=edit_all(PatientWeight=None))
        shutil.copytree(tree / "p1/study/ct", tree / "p4/only_ct", copy_function=with_other_study)
        (tree / "p1" / "readme.txt").write_text("not DICOM")

        assert cohort(tree, tmp_path / "out") == 4

        table = rows(tmp_path / "out" / "cohort.csv")
        assert [(row["case"], row["status"]) for row in table] == [
            ("p1_study", "done"),
            ("p2_study", "done"),
            ("p3_without_weight", "failed"),
        ]
        assert "give the weight with --weight-kg" in table[2]["notes"]
        assert names_in(tmp_path / "out" / "p1_study") == {*NAMES, "case.json"} - {"report.html"}

    @pytest.mark.parametrize("where", ["out", "."], ids=["among the patients", "beside the slices"])
    def test_results_may_lie_in_the_tree(self, cohort, tmp_path, segmented, where) -> None:
        for patient in ("p1", "p2"):
            write_study(tmp_path / patient, patient)
        assert cohort(tmp_path, tmp_path / where) == 0
        segmented.clear()

        assert cohort(tmp_path, tmp_path / where) == 0

        assert segmented == []
        assert [row["case"] for row in rows(tmp_path / where / "cohort.csv")] == ["p1", "p2"]

    def test_a_job_with_dicom_sockets_is_one_case(self, tmp_path) -> None:
        write_study(tmp_path / "job" / "images")

        (case,) = list_cases(tmp_path)

        assert (case.name, case.ct, case.pet) == ("job", tmp_path / "job/images/ct", tmp_path / "job/images/pet")

    def test_a_table_may_name_folders(self, cohort, tmp_path) -> None:
        write_study(tmp_path / "study")
        (tmp_path / "cases.csv").write_text("case,ct,pet\nx,study,study\n")

        assert cohort(tmp_path / "cases.csv", tmp_path / "out", "--no-dicom-seg") == 0

        assert names_in(tmp_path / "out" / "x") == {"tumour.nii.gz", "picture.png", "report.json", "case.json"}
