"""Which PET and which CT of a folder are taken, and what is said about it."""

from __future__ import annotations

import builtins
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom.fileset
import pytest
import SimpleITK as sitk

from algorithm.dicom.series import LOCALISER, PROJECTION, find_series
from algorithm.dicom.study import read_ct, read_pet, read_study
from algorithm.errors import InstallationError, MissingInputError
from algorithm.images import same_geometry
from algorithm.reading import grid_of
from test.support.dicom import CORONAL, FEET_FIRST, Maker, edit_all, oblique, uid
from test.support.studies import write_study

PET = np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4)
CT = (np.arange(8 * 6 * 5, dtype=np.int16) - 100).reshape(8, 6, 5)


def _study(folder: Path, maker: Maker | None = None) -> Maker:
    maker = maker or Maker()
    maker.pet(folder / "a" / "pet", PET)
    maker.ct(folder / "b" / "deep" / "ct", CT)
    return maker


def test_a_nested_folder_with_other_files_among_it(tmp_path):
    _study(tmp_path)
    (tmp_path / "a" / "notes.txt").write_text("no DICOM")
    (tmp_path / "a" / "pet" / "empty.dcm").touch()
    (tmp_path / "README").write_bytes(b"\0" * 200)
    study = read_study(tmp_path)
    assert study.pet.GetSize() == (4, 5, 6)
    assert study.ct.GetSize() == (5, 6, 8)
    assert [path.name for path in study.pet_series.paths] == [f"IM{n:04d}.dcm" for n in range(6, 0, -1)]
    assert study.patient.name == "Phantom^study"
    assert study.patient.birth_date == "1990-01-31"
    assert study.patient.study_date == "2025-01-01"
    assert study.notes == ("files that are no DICOM images left out: 3",)


def test_dicomdir_is_no_image(tmp_path):
    _study(tmp_path)
    file_set = pydicom.fileset.FileSet()
    file_set.add(next((tmp_path / "a" / "pet").iterdir()))
    file_set.write(tmp_path / "media")
    shutil.move(tmp_path / "media" / "DICOMDIR", tmp_path / "DICOMDIR")
    shutil.rmtree(tmp_path / "media")
    assert len(find_series(tmp_path).series) == 2


def test_enhanced_multi_frame_studies(tmp_path):
    maker = Maker(orientation=oblique())
    maker.enhanced(tmp_path / "pet.dcm", "PT", PET, [1.0] * 6, order=[5, 3, 1, 0, 2, 4])
    maker.enhanced(tmp_path / "ct.dcm", "CT", CT, [1.0] * 8, intercept=-24.0)
    study = read_study(tmp_path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(study.ct), CT - 24)
    assert study.reckoning.corrected_to_source == "DecayCorrectionDateTime"
    assert [piece.frame for piece in study.pet_series.slices] == [3, 2, 4, 1, 5, 0]
    assert len(study.pet_series.paths) == 1


def test_the_corrected_pet_is_taken(tmp_path):
    maker = _study(tmp_path)
    plain = edit_all(CorrectedImage=["DECY", "NORM"])
    maker.pet(tmp_path / "nac", np.concatenate([PET, PET]), series="NAC", edit=plain)
    study = read_study(tmp_path)
    assert study.pet_series.description == "synthetic pet"
    assert "not corrected for attenuation" in study.notes[0]


def test_the_same_when_both_have_one_uid(tmp_path):
    maker = _study(tmp_path)
    maker.pet(tmp_path / "nac", PET, series="pet", edit=_renamed(CorrectedImage=["DECY", "NORM"]))
    assert read_study(tmp_path).pet.GetSize() == (4, 5, 6)


def _renamed(**elements):
    inner = edit_all(**elements)

    def edit(dataset, index):
        inner(dataset, index)
        dataset.SOPInstanceUID = uid("renamed", dataset.SOPInstanceUID)

    return edit


def test_the_ct_with_the_most_slices_is_taken_and_said(tmp_path):
    maker = _study(tmp_path)
    thin = Maker(spacing=(1.5, 2.0, 2.0), origin=(-42.0, -32.0, 100.0))
    thin.ct(tmp_path / "thin", np.zeros((20, 12, 12), np.int16), series="thin", number=7)
    study = read_study(tmp_path)
    assert study.ct.GetSize()[2] == 20
    assert "the CT is series 7" in " ".join(study.notes)
    assert maker.study == "study"


def test_a_thin_ct_of_a_part_is_not_taken(tmp_path):
    _study(tmp_path)
    Maker(spacing=(0.2, 2.0, 2.0)).ct(tmp_path / "thin", np.zeros((40, 4, 4), np.int16), series="thin chest")
    assert read_study(tmp_path).ct.GetSize()[2] == 8


def test_a_ct_of_another_frame_of_reference_is_not_taken(tmp_path):
    _study(tmp_path)
    Maker(frame_of_reference="before").ct(tmp_path / "old", np.zeros((30, 4, 4), np.int16), series="old")
    assert read_study(tmp_path).ct.GetSize()[2] == 8


def test_a_pet_with_a_partner_goes_before_one_without(tmp_path):
    _study(tmp_path)
    lonely = Maker(frame_of_reference="elsewhere")
    lonely.pet(tmp_path / "lonely", np.ones((30, 4, 4), np.int16), series="brain")
    assert read_study(tmp_path).pet.GetSize()[2] == 6


def test_a_localiser_and_a_mip_are_no_candidates(tmp_path):
    maker = _study(tmp_path)
    scout = edit_all(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    mip = edit_all(ImageType=["DERIVED", "SECONDARY", "MIP"])
    wide = np.zeros((40, 4, 4), np.int16)
    Maker(orientation=CORONAL).ct(tmp_path / "scout", wide, series="ct", edit=_of(scout, "scout"))
    maker.ct(tmp_path / "ct mip", wide, series="ct mip", edit=mip)
    maker.pet(
        tmp_path / "pet mip", wide, series="pet mip", edit=edit_all(SeriesType=["WHOLE BODY", "REPROJECTION"])
    )
    maker.pet(tmp_path / "named", wide, series="named", edit=edit_all(SeriesDescription="PET MIP 360"))
    study = read_study(tmp_path)
    assert (study.pet.GetSize()[2], study.ct.GetSize()[2]) == (6, 8)
    kinds = [one.kind for one in find_series(tmp_path).series]
    assert kinds.count(LOCALISER) == 1
    assert kinds.count(PROJECTION) == 3


def test_a_localiser_that_says_late_how_it_lies_is_passed_over(tmp_path):
    _study(tmp_path)

    def edit(dataset, index):
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        dataset.SOPInstanceUID = uid("late", str(index))
        if index == 0:
            del dataset.ImageOrientationPatient

    Maker(orientation=CORONAL).ct(tmp_path / "scout", np.zeros((4, 4, 4), np.int16), series="scout", edit=edit)

    assert read_study(tmp_path).ct.GetSize()[2] == 8


def _of(edit, name):
    def both(dataset, index):
        edit(dataset, index)
        dataset.SOPInstanceUID = uid(name, str(index))

    return both


def test_a_coronal_reformat_is_passed_over(tmp_path):
    _study(tmp_path)
    Maker(orientation=CORONAL).ct(tmp_path / "coronal", np.zeros((40, 4, 4), np.int16), series="coronal")
    assert read_study(tmp_path).ct.GetSize()[2] == 8


def test_a_series_with_missing_slices_is_passed_over(tmp_path):
    maker = _study(tmp_path)
    paths = maker.ct(tmp_path / "gap", np.zeros((20, 4, 4), np.int16), series="gap")
    paths[7].unlink()
    assert read_study(tmp_path).ct.GetSize()[2] == 8


def test_copies_of_slices_are_left_out(tmp_path):
    _study(tmp_path)
    first = sorted((tmp_path / "a" / "pet").iterdir())[0]
    shutil.copy(first, tmp_path / "again.dcm")
    study = read_study(tmp_path)
    assert study.pet.GetSize()[2] == 6
    assert "copies of slices left out: 1" in study.notes


def test_copies_under_another_uid_are_left_out_too(tmp_path):
    maker = _study(tmp_path)
    maker.pet(tmp_path / "again", PET, edit=_renamed())
    assert read_study(tmp_path).pet.GetSize()[2] == 6


def test_a_tilt_that_only_the_header_names_is_said(tmp_path):
    maker = Maker()
    maker.ct(tmp_path, CT, edit=edit_all(GantryDetectorTilt=15))
    assert "gantry tilt of 15 degrees" in " ".join(read_ct(tmp_path).notes)


def test_two_equal_pets_are_listed_and_named_by_uid(tmp_path):
    maker = _study(tmp_path)
    maker.pet(tmp_path / "other", PET * 2, series="TrueX", number=9)
    with pytest.raises(MissingInputError) as caught:
        read_study(tmp_path)
    for part in (
        "2 PET series fit equally well",
        'series 3 "synthetic pet" (6 slices',
        'series 9 "synthetic TrueX"',
    ):
        assert part in str(caught.value)
    assert "--pet-series" in str(caught.value)
    assert uid("study", "TrueX") in str(caught.value)
    chosen = read_study(tmp_path, pet_series=uid("study", "TrueX"))
    assert chosen.pet_series.number == "9"


def test_a_ct_of_another_space_can_be_named(tmp_path):
    maker = Maker()
    maker.pet(tmp_path / "pet", PET)
    Maker(frame_of_reference="other").ct(tmp_path / "ct", CT)
    with pytest.raises(MissingInputError, match="no CT shares the FrameOfReferenceUID"):
        read_study(tmp_path)
    study = read_study(tmp_path, ct_series=uid("study", "ct"))
    assert "different FrameOfReferenceUIDs" in study.notes[-1]


def test_missing_frames_of_reference_are_said(tmp_path):
    maker = Maker()
    maker.pet(tmp_path / "pet", PET, edit=edit_all(FrameOfReferenceUID=None))
    maker.ct(tmp_path / "ct", CT)
    assert "no FrameOfReferenceUID" in read_study(tmp_path).notes[-1]


def test_one_series_folders(tmp_path):
    maker = Maker(orientation=FEET_FIRST)
    maker.pet(tmp_path / "pet", PET)
    maker.ct(tmp_path / "ct", CT)
    assert read_pet(tmp_path / "pet").image.GetSize() == (4, 5, 6)
    assert read_ct(tmp_path / "ct").image.GetDirection()[8] == -1


def test_without_pydicom_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    _study(tmp_path)
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "pydicom":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InstallationError, match=r"pip install -r requirements-clinic\.txt"):
        read_study(tmp_path)


def test_nothing_of_the_package_imports_pydicom_before_it_is_used():
    code = "import sys, algorithm.dicom.convert; sys.exit('pydicom' in sys.modules or 'gdcm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_links_to_folders_are_followed_and_none_twice(tmp_path):
    write_study(tmp_path / "elsewhere")
    study = tmp_path / "study"
    study.mkdir()
    for name in ("ct", "pet"):
        (study / name).symlink_to(tmp_path / "elsewhere" / name)
    (tmp_path / "elsewhere" / "pet" / "up").symlink_to(study)

    read = read_study(study)

    assert [len(series.slices) for series in (read.pet_series, read.ct_series)] == [20, 40]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into any folder")
def test_a_folder_that_cannot_be_looked_into_is_named(tmp_path):
    write_study(tmp_path)
    (tmp_path / "ct").chmod(0)
    try:
        with pytest.raises(MissingInputError, match=r"cannot look into .*ct: .*; make it readable"):
            read_study(tmp_path)
    finally:
        (tmp_path / "ct").chmod(0o755)


def test_a_strange_character_set_says_nothing_of_its_own(tmp_path, recwarn, caplog):
    write_study(tmp_path, pet_edit=edit_all(SpecificCharacterSet="ISO_IR 999", PatientName="Phantom"))
    recwarn.clear()
    caplog.clear()

    assert read_study(tmp_path).patient.name == "Phantom"
    assert not [str(each.message) for each in recwarn if "encoding" in str(each.message)]
    assert not caplog.records


@pytest.mark.parametrize("orientation", [FEET_FIRST, oblique()])
def test_the_grid_of_a_pet_is_known_without_its_suv(tmp_path, orientation):
    maker = Maker(orientation=orientation, spacing=(6.0, 5.0, 4.0), origin=(-100.0, -80.0, -60.0))
    write_study(tmp_path / "whole", maker=maker)
    write_study(tmp_path / "broken", maker=maker, pet_edit=edit_all(PatientWeight=None))

    whole, grid = read_pet(tmp_path / "whole" / "pet").image, grid_of(tmp_path / "broken" / "pet")

    assert same_geometry(whole, grid)
    assert grid.GetSize() == whole.GetSize()
    assert not sitk.GetArrayViewFromImage(grid).any()
