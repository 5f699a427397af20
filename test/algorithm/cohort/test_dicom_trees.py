"""A cohort of DICOM studies: trees of many patients, jobs with DICOM sockets, tables that name folders."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from algorithm.cases import list_cases
from algorithm.errors import MissingInputError
from algorithm.results import NAMES
from test.support.cohorts import dates_in, names_in, rows
from test.support.dicom import Edit, edit_all, write
from test.support.studies import write_study

QUICK = ("--device", "cpu", "--precision", "float32", "--flips", "1", "--no-html")
PATIENTS = ("anna", "bert", "carl")


def with_other_study(source: str, target: str) -> None:
    import pydicom

    dataset = pydicom.dcmread(source)
    dataset.StudyInstanceUID += ".1"
    dataset.save_as(target)


def _in_second(**elements: object) -> Edit:
    """Set elements of the second slice alone."""
    edit = edit_all(**elements)
    return lambda dataset, index: edit(dataset, index) if index == 1 else None


def write_report(path: Path) -> None:
    """Write a structured report of the scanner's dose, as lies beside a study's slices."""
    from pydicom.dataset import Dataset

    dataset = Dataset()
    dataset.Modality, dataset.SOPClassUID = "SR", "1.2.840.10008.5.1.4.1.1.88.67"
    dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2", "1.2.4"
    write(dataset, path)


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

    def test_studies_in_one_folder_fail_alone(self, cohort, tmp_path, capsys) -> None:
        tree = tmp_path / "tree"
        write_study(tree / "p1" / "study", "p1")
        for study in ("first", "second"):
            write_study(tmp_path / study, study)
            for kind in ("ct", "pet"):
                shutil.copytree(tmp_path / study / kind, tree / "p2" / f"{study}_{kind}")

        assert cohort(tree, tmp_path / "out") == 4

        table = rows(tmp_path / "out" / "cohort.csv")
        assert [(row["case"], row["status"]) for row in table] == [("p1_study", "done"), ("p2", "failed")]
        assert "holds PETs of several studies" in table[1]["notes"]

    def test_what_is_odd_about_a_pet_stands_in_the_table(self, cohort, tmp_path, capsys) -> None:
        write_study(tmp_path / "tree" / "p1", "p1", pet_edit=edit_all(RadionuclideTotalDose="368.08"))

        assert cohort(tmp_path / "tree", tmp_path / "out") == 0

        assert "taken as MBq" in rows(tmp_path / "out" / "cohort.csv")[0]["notes"]
        assert capsys.readouterr().out.count("taken as MBq") == 1

    def test_reasons_of_an_anonymous_cohort_name_nobody(self, cohort, tmp_path, capsys) -> None:
        tree = tmp_path / "tree"
        write_study(tree / "p1", "DOE1", pet_edit=edit_all(PatientID="ID-4711"))
        write_study(tree / "p2", "DOE2", pet_edit=_in_second(PatientID="ID-4711"))
        write_study(tree / "p3", "DOE3", pet_edit=edit_all(Units="PROPCNTS"))
        write_study(tree / "p4", "DOE4", pet_edit=_in_second(RadiopharmaceuticalStartDateTime="20250101093000"))
        write_study(tree / "p5" / "DOE, JOHN", "DOE5", pet_edit=_in_second(RescaleSlope=0))
        gap = write_study(tree / "p6", "DOE6") / "pet"
        for index, path in enumerate(sorted(gap.iterdir())):
            path.rename(gap / f"DOE {index:03d}")
        (gap / "DOE 010").unlink()
        (tree / "p8").mkdir()
        linked = write_study(tmp_path / "DOE8", "DOE8", pet_edit=_in_second(RescaleSlope=0))
        (tree / "p8" / "DOE").symlink_to(linked)

        no_time = edit_all(RadiopharmaceuticalStartDateTime="20250101", RadiopharmaceuticalStartTime=None)
        write_study(tree / "p7", "DOE7", pet_edit=no_time)

        assert cohort(tree, tmp_path / "out", "--anonymous") == 4

        table = rows(tmp_path / "out" / "cohort.csv")
        assert [row["status"] for row in table] == ["failed"] * 8
        notes = [row["notes"] for row in table]
        assert "two PatientIDs, one in the PET series 3 (20 slices) and another in the CT series 2 (" in notes[0]
        assert "PatientID must be the same in all slices, got 2 different ones in series 3 (20 sl" in notes[1]
        assert "got PROPCNTS in series 3 (20 slices); export" in notes[2]
        assert "got 093000 and 100000 in series 3" in notes[3]
        for note in (notes[4], notes[7]):
            assert "RescaleSlope must be above 0, got 0 in …; export the PET again" in note
        assert "1 slice is missing, as between … (-12.00 mm) and … (0.00 mm)" in notes[5]
        assert "must be a time, got …; give" in notes[6]
        written = [path.read_text() for path in (tmp_path / "out").rglob("*") if path.suffix in (".csv", ".json")]
        for text in (*written, capsys.readouterr().out):
            assert not any(part in text for part in ("ID-4711", "P-DOE"))
        assert not any(part in text for text in notes for part in ("DOE", "2025", "UID"))
        assert not any(dates_in(text) for text in written)

    def test_a_long_path_of_an_anonymous_cohort_names_nobody(self, cohort, tmp_path) -> None:
        deep = tmp_path.joinpath("DOE", *("1.2.840." + "1" * 56,) * 3)
        write_study(deep, "DOE1", pet_edit=_in_second(RescaleSlope=0))
        listed = tmp_path / "cases.csv"
        (deep / "ct.mha").write_bytes(b"no image")
        listed.write_text(f"case,ct,pet\nfirst,{deep}/ct,{deep}/pet\nsecond,{deep}/ct.mha,{deep}/ct.mha\n")

        assert cohort(listed, tmp_path / "out", "--anonymous") == 4

        for note in (row["notes"] for row in rows(tmp_path / "out" / "cohort.csv")):
            assert "…" in note
            assert not any(part in note for part in ("DOE", "1.2.840", "1111"))

    def test_names_that_are_not_utf_8_cost_no_table(self, cohort, tmp_path, capsys) -> None:
        study = write_study(tmp_path / "tree" / "p1", "p1", pet_edit=_in_second(RescaleSlope=0))
        for path in sorted((study / "pet").iterdir()):
            path.rename(os.fsdecode(os.fsencode(path) + b"\xe4"))

        assert cohort(tmp_path / "tree", tmp_path / "out", "--quiet") == 4

        capsys.readouterr()  # what pytest cannot hand from process to process
        assert "\\udce4" in rows(tmp_path / "out" / "cohort.csv")[0]["notes"]

    @pytest.mark.parametrize("name", ["CT.{}", "z.{}", "{}"], ids=["CT first", "CT last", "by UID"])
    def test_a_pet_among_the_slices_of_the_ct_is_found(self, tmp_path, name) -> None:
        for patient in PATIENTS:
            study = write_study(tmp_path / "apart" / patient, patient)
            (tmp_path / "tree" / patient).mkdir(parents=True)
            for number, path in enumerate(sorted((study / "ct").iterdir())):
                path.rename(tmp_path / "tree" / patient / name.format(f"{number:03d}"))
            for number, path in enumerate(sorted((study / "pet").iterdir())):
                path.rename(
                    tmp_path / "tree" / patient / (f"PT.{number:03d}" if "." in name else f"0{number:03d}")
                )
            write_report(tmp_path / "tree" / patient / "SR.001")

        assert [case.name for case in list_cases(tmp_path / "tree")] == list(PATIENTS)

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


class TestWhereStudiesLie:
    """No patient of a tree is passed over in silence; each case has its own folder."""

    def test_links_to_folders_are_followed_once(self, tmp_path) -> None:
        tree = tmp_path / "tree"
        write_study(tree / "p1", "p1")
        write_study(tmp_path / "store" / "p2", "p2")
        (tree / "p2").symlink_to(tmp_path / "store" / "p2")
        (tree / "a_link").symlink_to(tree / "p1")
        (tmp_path / "store" / "p2" / "up").symlink_to(tree)

        cases = list_cases(tree)

        assert [(case.name, case.pet) for case in cases] == [("p1", tree / "p1"), ("p2", tree / "p2")]

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may look into any folder")
    def test_a_linked_folder_that_cannot_be_looked_into_is_named(self, tmp_path) -> None:
        write_study(tmp_path / "tree" / "p1", "p1")
        locked = write_study(tmp_path / "store" / "p2", "p2")
        (tmp_path / "tree" / "p2").symlink_to(locked)
        locked.chmod(0)
        try:
            with pytest.raises(MissingInputError, match=r"cannot look into .*p2: .*; make it readable"):
                list_cases(tmp_path / "tree")
        finally:
            locked.chmod(0o755)

    def test_a_study_exported_twice_is_two_cases_beside_the_others(self, tmp_path, caplog) -> None:
        caplog.set_level("INFO")
        for site, patient in (("north", "p1"), ("north", "p1_copy"), ("south", "p1"), ("north", "p2")):
            write_study(tmp_path / site / patient, patient.removesuffix("_copy"))
        shutil.copytree(tmp_path / "north" / "p1" / "ct", tmp_path / "north" / "p1_ct")

        cases = list_cases(tmp_path)

        names = ["north_p1", "north_p1_copy", "north_p2", "south_p1"]
        assert [(case.name, case.ct, case.pet) for case in cases] == [
            (name, *[tmp_path / name.replace("_", "/", 1)] * 2) for name in names
        ]
        assert "left out north_p1_ct: no PET series" in caplog.text
        assert caplog.text.count("hold one and the same study") == 1
        assert all(name.replace("_", "/", 1) in caplog.text for name in names if "p1" in name)

    def test_copies_in_the_folder_of_one_patient_stay_one_case(self, tmp_path) -> None:
        for copy in ("first", "second"):
            write_study(tmp_path / "p1" / copy, "p1")
        shutil.copytree(tmp_path / "p1/first/ct", tmp_path / "p1/before", copy_function=with_other_study)
        write_study(tmp_path / "p2", "p2")

        assert [case.name for case in list_cases(tmp_path)] == ["p1", "p2"]

    @pytest.mark.parametrize("below", ["", "series"], ids=["a study's folder", "a series' in a study's"])
    def test_a_ct_of_another_study_beside_the_pet_is_found(self, cohort, tmp_path, caplog, below) -> None:
        caplog.set_level("INFO")
        tree = tmp_path / "tree"
        for patient in ("p1", "p2"):
            study = write_study(tmp_path / patient, patient)
            shutil.copytree(study / "pet", tree / patient / "pet" / below)
            shutil.copytree(study / "ct", tree / patient / "ct" / below, copy_function=with_other_study)

        assert [case.name for case in list_cases(tree)] == ["p1", "p2"]
        assert "left out" not in caplog.text
        assert cohort(tree, tmp_path / "out") == 0

    def test_a_ct_beside_several_pets_is_lent_to_none(self, tmp_path) -> None:
        for patient in ("p1", "p2"):
            write_study(tmp_path / patient, patient)
            shutil.rmtree(tmp_path / patient / "ct")
        write_study(tmp_path / "p3", "p3")
        shutil.rmtree(tmp_path / "p3" / "pet")

        assert [case.name for case in list_cases(tmp_path)] == ["p1_pet", "p2_pet"]
