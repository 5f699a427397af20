"""``predict`` and ``suv`` on DICOM: what they write, and what they refuse."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from algorithm.__main__ import main
from algorithm.results import NAMES
from test.support.checkpoints import write_checkpoint
from test.support.cohorts import dates_in
from test.support.dicom import Maker, edit_all, uid
from test.support.studies import write_study

QUICK = ("--device", "cpu", "--precision", "float32", "--flips", "1")
NO_PAGE = ("--no-html",)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture
def predict(checkpoint):
    def call(*arguments: object) -> int:
        return main(["predict", *map(str, arguments), "--weights", str(checkpoint), *QUICK])

    return call


def voxels(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(path))


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


@pytest.fixture(scope="module")
def result(study: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("result")
    assert main(["predict", str(study), str(out), "--weights", str(checkpoint), *QUICK]) == 0
    return out


class TestStudy:
    def test_everything_is_written(self, result: Path) -> None:
        assert names_in(result) == set(NAMES)
        mask, report = sitk.ReadImage(result / "tumour.nii.gz"), json.loads((result / "report.json").read_text())
        assert mask.GetSize() == (40, 32, 20)
        assert mask.GetSpacing() == pytest.approx((5, 5, 6))
        assert mask.GetOrigin() == pytest.approx((-100, -80, -60))
        volume = sitk.GetArrayFromImage(mask).sum() * 0.15
        assert report["totals"]["mtv_ml"] == report["total_volume_ml"] == pytest.approx(volume)
        assert report["totals"]["suv_max"] == pytest.approx(8, abs=1e-3)
        keys = {"suv_peak", "mtv_ml", "tlg_g", "longest_diameter_mm", "hottest_mm"}
        assert all(keys <= set(lesion) for lesion in report["lesions"])
        assert report["series"]["pet"] == {
            "uid": uid("study", "pet"),
            "number": "3",
            "description": "synthetic pet",
            "slices": 20,
        }
        assert report["series"]["ct"]["slices"] == 40
        assert (report["suv"]["units"], report["suv"]["weight_kg"], report["suv"]["dose_mbq"]) == (
            "BQML",
            70,
            368.08,
        )
        assert "the CT was resampled onto the PET's grid" in report["notes"]

    def test_the_segmentation_is_the_mask(self, result: Path, study: Path) -> None:
        """Read with pydicom alone: each frame where its PET instance lies, together the mask voxel for voxel."""
        segmentation = pydicom.dcmread(result / "tumour.seg.dcm")
        pet = {each.SOPInstanceUID: each for each in map(pydicom.dcmread, (study / "pet").iterdir())}
        image = sitk.ReadImage(result / "tumour.nii.gz")
        seen = np.zeros(image.GetSize()[::-1], np.uint8)
        frames = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
        for frame, groups in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
            position = groups.PlanePositionSequence[0].ImagePositionPatient
            source = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
            assert list(position) == list(pet[source].ImagePositionPatient)
            seen[image.TransformPhysicalPointToIndex([float(each) for each in position])[2]] |= frame
        np.testing.assert_array_equal(seen, sitk.GetArrayFromImage(image))
        assert segmentation.PatientName == "Phantom^study"

    def test_the_page_names_patient_series_and_suv(self, result: Path) -> None:
        page = (result / "report.html").read_text(encoding="utf-8")
        for part in ("Phantom^study", "P-study", "synthetic pet", "Units are BQML", "Weights"):
            assert part in page

    def test_files_give_the_same_mask(self, predict, result: Path, study: Path, tmp_path: Path) -> None:
        """PET by ``suv``, CT by GDCM's reader."""
        assert main(["suv", str(study), str(tmp_path / "pet.mha")]) == 0
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(study / "ct")))
        sitk.WriteImage(reader.Execute(), tmp_path / "ct.mha")

        for number, pair in enumerate(
            ((tmp_path / "ct.mha", tmp_path / "pet.mha"), (study / "ct", tmp_path / "pet.mha"))
        ):
            assert predict(*pair, tmp_path / str(number), *NO_PAGE) == 0
            assert names_in(tmp_path / str(number)) == {"tumour.nii.gz", "picture.png", "report.json"}
            np.testing.assert_array_equal(
                voxels(tmp_path / str(number) / "tumour.nii.gz"), voxels(result / "tumour.nii.gz")
            )

        assert predict(tmp_path / "ct.mha", study / "pet", tmp_path / "2", *NO_PAGE) == 0
        assert names_in(tmp_path / "2") == {"tumour.nii.gz", "tumour.seg.dcm", "picture.png", "report.json"}
        assert set(json.loads((tmp_path / "2" / "report.json").read_text())["series"]) == {"pet"}

    def test_a_job_with_dicom_sockets(
        self, result: Path, study: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shutil.copytree(study, tmp_path / "input" / "images")
        places = ("--input", str(tmp_path / "input"), "--output", str(tmp_path / "output"))

        assert main(["run", *places, "--weights", str(checkpoint), *QUICK]) == 0

        mask = tmp_path / "output/images/automated-petct-lesion-segmentation/ct.mha"
        np.testing.assert_array_equal(voxels(mask), voxels(result / "tumour.nii.gz"))
        assert capsys.readouterr().err == ""

    def test_anonymous(self, predict, study: Path, tmp_path: Path) -> None:
        assert predict(study, tmp_path, "--anonymous", "--no-viewer") == 0

        assert names_in(tmp_path) == set(NAMES) - {"tumour.seg.dcm"}
        for name in ("report.html", "report.json"):
            text = (tmp_path / name).read_text(encoding="utf-8")
            assert not any(part in text for part in ("Phantom", "P-study", str(study), "1990"))

    def test_anonymous_tells_no_series_and_no_date(self, predict, tmp_path: Path) -> None:
        study = write_study(tmp_path / "study", pet_edit=edit_all(SeriesDescription="PET DOE"))
        other = edit_all(SeriesDescription='NAC "DOE" (2)', CorrectedImage=["DECY"])
        Maker(study="study", spacing=(6.0, 5.0, 5.0)).pet(
            study / "nac", np.ones((20, 4, 4)), series="nac", edit=other
        )

        assert predict(study, tmp_path / "out", "--anonymous", "--no-viewer") == 0

        for name in ("report.html", "report.json"):
            text = (tmp_path / "out" / name).read_text(encoding="utf-8")
            assert "10:00:00" in text  # of the injection: times of day stay
            assert "not taken: series 3 (20 slices, not corrected for attenuation)" in text
            assert not any(part in text for part in ("DOE", "2025-01-01", "UID", uid("study", "pet")))

    @pytest.mark.parametrize("start", ["20250101100000", "20250101", "20250101T25", "2025010110+0100"])
    def test_no_date_is_left_where_the_injection_is_given(self, predict, tmp_path: Path, start: str) -> None:
        study = write_study(tmp_path / "study", pet_edit=edit_all(RadiopharmaceuticalStartDateTime=start))

        assert predict(study, tmp_path / "out", "--anonymous", "--no-viewer", "--injection-time", "10:00") == 0

        for name in ("report.html", "report.json"):
            text = (tmp_path / "out" / name).read_text(encoding="utf-8")
            assert "injection at 10:00:00, the header has 10:00:00" in text
            assert "2025-01-01" not in text
            assert dates_in(text) == []

    def test_an_anonymous_page_says_once_what_is_odd_by_its_date(self, predict, tmp_path: Path) -> None:
        early = edit_all(RadiopharmaceuticalStartTime="105800", RadiopharmaceuticalStartDateTime="20250101105800")
        study = write_study(tmp_path / "study", pet_edit=early)

        assert predict(study, tmp_path / "out", "--anonymous", "--no-viewer") == 0

        page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
        assert page.count("are less than 5 min") == 1
        assert "2025-01-01" not in page

    def test_what_is_odd_about_the_pet_is_said_once(
        self, predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        study = write_study(
            tmp_path / "study", pet_edit=edit_all(RadionuclideTotalDose="368.08", NumberOfSlices=40)
        )

        assert predict(study, tmp_path / "out", "--no-viewer") == 0

        notes = "; ".join(json.loads((tmp_path / "out" / "report.json").read_text())["notes"])
        page, said = (tmp_path / "out" / "report.html").read_text(encoding="utf-8"), capsys.readouterr().out
        for odd in ("taken as MBq", "announces 40 slices (NumberOfSlices), 20 are here"):
            assert [text.count(odd) for text in (notes, page, said)] == [1, 1, 1]

    @pytest.mark.parametrize("given", ["the folder", "."])
    def test_anonymous_names_no_file_of_a_nested_export(
        self, predict, study: Path, tmp_path: Path, given: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        export = Path(shutil.copytree(study, tmp_path / "export"))
        (export / "DOE_JOHN").mkdir()
        (export / "DOE_JOHN" / "IM0001").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 400)
        monkeypatch.chdir(export)

        assert predict(Path() if given == "." else export, tmp_path / "out", "--anonymous", *NO_PAGE) == 0

        text = (tmp_path / "out" / "report.json").read_text(encoding="utf-8")
        assert "damaged DICOM files left out: 1" in text
        assert not any(part in text for part in ("DOE", "IM0001", "PET2", str(export)))

    def test_without_a_lesion_there_is_no_segmentation(self, study: Path, tmp_path: Path) -> None:
        nothing = write_checkpoint(tmp_path / "weights", threshold=0.999999)

        out = tmp_path / "out"
        assert main(["predict", str(study), str(out), "--weights", str(nothing), *QUICK, "--no-viewer"]) == 0

        report = json.loads((out / "report.json").read_text())
        assert report["totals"] == {
            "lesions": 0, "mtv_ml": 0, "tlg_g": 0, "suv_max": None, "suv_peak": None, "dmax_mm": None,
        }  # fmt: skip
        assert "no lesion was found, and DICOM has no segmentation without one" in report["notes"]
        assert names_in(out) == set(NAMES) - {"tumour.seg.dcm"}


class TestASegmentationThatCannotBe:
    """A PET without a frame of reference can be segmented, but nothing can refer to it."""

    @pytest.fixture
    def adrift(self, tmp_path: Path) -> Path:
        return write_study(tmp_path / "adrift", pet_edit=edit_all(FrameOfReferenceUID=None))

    def test_is_told_in_the_report_where_none_was_asked_for(self, predict, adrift: Path, tmp_path: Path) -> None:
        assert predict(adrift, tmp_path / "out", *NO_PAGE) == 0

        assert names_in(tmp_path / "out") == {"tumour.nii.gz", "picture.png", "report.json"}
        notes = json.loads((tmp_path / "out" / "report.json").read_text())["notes"]
        assert any(note.startswith("no DICOM SEG was written: ") for note in notes)

    def test_is_a_mistake_where_one_was(self, predict, adrift: Path, tmp_path: Path, capsys) -> None:
        assert predict(adrift, tmp_path / "out", "--dicom-seg", *NO_PAGE) == 2

        assert "FrameOfReferenceUID" in capsys.readouterr().err


class TestEarlierResults:
    def test_go_when_a_case_fails(self, predict, study: Path, tmp_path: Path) -> None:
        assert predict(study, tmp_path / "out", *NO_PAGE) == 0
        (tmp_path / "out" / "notes.txt").write_text("somebody's")
        bad = write_study(tmp_path / "bad", pet_edit=edit_all(Units="PROPCPS"))

        assert predict(bad, tmp_path / "out", *NO_PAGE) == 2

        assert names_in(tmp_path / "out") == {"notes.txt"}

    def test_go_where_they_are_not_wanted_again(self, predict, study: Path, tmp_path: Path) -> None:
        assert predict(study, tmp_path, "--no-viewer") == 0
        assert predict(study, tmp_path, "--no-html", "--no-dicom-seg") == 0

        assert names_in(tmp_path) == {"tumour.nii.gz", "picture.png", "report.json"}

    @pytest.mark.parametrize("mistake", [("--overlap", "2"), ("--require-gpu",)])
    def test_go_where_nothing_could_begin(self, predict, study: Path, tmp_path: Path, mistake) -> None:
        """Whoever ignores the exit code must not take them for this study's."""
        assert predict(study, tmp_path, *NO_PAGE) == 0

        assert predict(study, tmp_path, *mistake) in (2, 3)

        assert names_in(tmp_path) == set()

    def test_go_where_the_study_is_misspelt(self, predict, study: Path, tmp_path: Path) -> None:
        assert predict(study, tmp_path, *NO_PAGE) == 0

        assert predict(study.with_name("no such study"), tmp_path) == 2

        assert names_in(tmp_path) == set()

    def test_somebody_elses_file_of_that_name_stays(self, predict, study: Path, tmp_path: Path, capsys) -> None:
        (tmp_path / "tumour.nii.gz").write_bytes(b"drawn by hand")

        assert predict(study, tmp_path, *NO_PAGE) == 2

        assert "is there already and is not a tumour mask that this software wrote" in capsys.readouterr().err
        assert (tmp_path / "tumour.nii.gz").read_bytes() == b"drawn by hand"

    def test_beside_the_study_they_do_not_disturb_it(self, predict, study: Path, tmp_path: Path) -> None:
        copy = Path(shutil.copytree(study, tmp_path / "study"))
        for _ in range(2):
            assert predict(copy, copy, *NO_PAGE) == 0
        assert json.loads((copy / "report.json").read_text())["series"]["pet"]["slices"] == 20


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "part"),
        [
            (("STUDY",), "got 1 path(s)"),
            (("STUDY", "STUDY", "OUT", "OUT"), "got 4 path(s)"),
            (("nowhere", "OUT"), "there is no study folder nowhere"),
            (("FILE", "OUT"), "the first must be a study's folder of DICOM files, got the file "),
            (("SLICE", "STUDY", "OUT"), "is one DICOM file, mostly one slice of many; give the folder"),
            (("STUDY", "OUT", "--pet-series", "1.2.3"), "no PET series has the UID 1.2.3 of --pet-series"),
            (("STUDY", "OUT", "--weight-kg", "0"), "--weight-kg must lie between 0.5 and 700, got 0"),
            (("FILE", "FILE", "OUT", "--dose-mbq", "300"), "are for DICOM, got the file "),
            (("FILE", "FILE", "OUT", "--ct-series", "1.2"), "--ct-series is for DICOM, got the file "),
            (("STUDY", "FILE", "OUT", "--dicom-seg"), "--dicom-seg needs the PET's DICOM files to refer to"),
            (("OUT", "OUT"), "there is no study folder "),
        ],
    )
    def test_one_sentence(self, predict, study, tmp_path, capsys, arguments, part) -> None:
        (tmp_path / "image.mha").write_bytes(b"no image")
        places = {
            "STUDY": study,
            "FILE": tmp_path / "image.mha",
            "SLICE": next((study / "ct").iterdir()),
            "OUT": tmp_path / "out",
        }

        assert predict(*(places.get(each, each) for each in arguments)) == 2

        error = capsys.readouterr().err
        assert part in error
        assert error.startswith("Error: ")
        assert error.count("\n") == 1
        assert not (tmp_path / "out").exists()

    def test_without_highdicom(self, predict, study, tmp_path, capsys, monkeypatch) -> None:
        monkeypatch.setitem(sys.modules, "highdicom", None)

        assert predict(study, tmp_path / "out") == 3

        assert "run `pip install -r requirements-clinic.txt` or add --no-dicom-seg" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
        assert predict(study, tmp_path / "out", "--no-dicom-seg", *NO_PAGE) == 0

    def test_a_time_limit_leaves_no_time_for_a_page(self, predict, study, tmp_path) -> None:
        assert predict(study, tmp_path / "hurried", "--time-limit", "600", "--no-dicom-seg") == 0
        assert predict(study, tmp_path / "asked", "--time-limit", "600", "--html", "--no-viewer") == 0

        assert "report.html" not in names_in(tmp_path / "hurried")
        assert "report.html" in names_in(tmp_path / "asked")

    def test_without_jinja2_there_is_no_page(self, predict, study, tmp_path, monkeypatch) -> None:
        monkeypatch.setitem(sys.modules, "jinja2", None)

        assert predict(study, tmp_path, "--no-dicom-seg") == 0

        assert names_in(tmp_path) == {"tumour.nii.gz", "picture.png", "report.json"}

    def test_a_ct_elsewhere_in_space_is_taken_if_it_has_its_own_folder(self, predict, tmp_path, capsys) -> None:
        write_study(tmp_path / "study", ct_frame="other")

        assert predict(tmp_path / "study", tmp_path / "out") == 2
        assert "no CT shares the FrameOfReferenceUID" in capsys.readouterr().err
        assert predict(tmp_path / "study/ct", tmp_path / "study/pet", tmp_path / "out", *NO_PAGE) == 0
        notes = json.loads((tmp_path / "out" / "report.json").read_text())["notes"]
        assert any("different FrameOfReferenceUIDs" in note for note in notes)


class TestSuv:
    @pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
    def test_formats(self, study: Path, tmp_path: Path, suffix: str) -> None:
        out = tmp_path / f"suv{suffix}"

        assert main(["suv", str(study), str(out)]) == 0

        values = voxels(out)
        assert (values.min(), values.max()) == (0, pytest.approx(8, abs=1e-3))

    def test_what_a_header_lacks_is_supplied_and_said(self, tmp_path, capsys) -> None:
        study = write_study(tmp_path / "study", pet_edit=edit_all(PatientWeight=None), ct=False)

        assert main(["suv", str(study), str(tmp_path / "a.mha")]) == 2
        assert "give the weight with --weight-kg" in capsys.readouterr().err
        assert main(["suv", str(study), str(tmp_path / "a.mha"), "--weight-kg", "35"]) == 0

        assert voxels(tmp_path / "a.mha").max() == pytest.approx(4, abs=1e-3)
        out = capsys.readouterr().out
        assert "Given by the user: weight 35 kg, the header has none." in out
        assert "Dose 368.08 MBq of F-18 at 2025-01-01 10:00:00" in out

    def test_nothing_is_overwritten(self, study, tmp_path, capsys) -> None:
        (tmp_path / "a.mha").write_text("somebody's")

        assert main(["suv", str(study), str(tmp_path / "a.mha")]) == 2
        assert "exists already" in capsys.readouterr().err
        assert (tmp_path / "a.mha").read_text() == "somebody's"


def test_overrides_reach_the_report(predict, study, tmp_path) -> None:
    assert predict(study, tmp_path, "--weight-kg", "35", "--injection-time", "09:00", *NO_PAGE) == 0

    suv = json.loads((tmp_path / "report.json").read_text())["suv"]
    assert suv["weight_kg"] == 35
    assert len(suv["overrides"]) == 2
