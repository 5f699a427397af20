"""What a PET says of its patient and tracer: the same in every slice, and of a human."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from algorithm.dicom.reckoning import SuvOverrides
from algorithm.dicom.series import find_series
from algorithm.dicom.suv import reckon
from algorithm.errors import InvalidImageError
from test.support.dicom import Edit, Maker, edit_all

LEAN = {"Units": "GML", "SUVType": "LBM"}


def _reckon(folder: Path, edit: Edit, overrides: SuvOverrides | None = None) -> np.ndarray:
    Maker(spacing=(3.0, 4.0, 5.0)).pet(folder, np.ones((4, 5, 6), np.int16), edit=edit)
    return reckon(find_series(folder).series[0], overrides)[0]


def _one_slice(index: int, keyword: str, value: object, **all_slices: object) -> Edit:
    """Give one slice another value."""

    def edit(dataset: Dataset, at: int) -> None:
        edit_all(**all_slices)(dataset, at)
        if at == index:
            edit_all(**{keyword: value})(dataset, at)

    return edit


INJECTED = {"injection_time": "10:00"}
DIFFERENT = [
    ("PatientWeight", "35", {}, {"weight_kg": 70}),
    ("PatientWeight", None, {}, {"weight_kg": 70}),
    ("RadionuclideTotalDose", "184040000", {}, {"dose_mbq": 368.08}),
    ("RadionuclideHalfLife", "4057", {}, {"half_life_s": 6586.2}),
    ("RadiopharmaceuticalStartDateTime", "20250101093000", {}, INJECTED),
    ("RadiopharmaceuticalStartDateTime", "20250101100040", {}, INJECTED),
    ("RadiopharmaceuticalStartTime", "093000", {"RadiopharmaceuticalStartDateTime": None}, INJECTED),
]


@pytest.mark.parametrize("index", [0, 3])
@pytest.mark.parametrize(("keyword", "value", "more", "_"), DIFFERENT)
def test_slices_that_contradict_one_another_are_refused(tmp_path, index, keyword, value, more, _):
    with pytest.raises(InvalidImageError, match=f"{keyword} must be the same in all slices, got .* and "):
        _reckon(tmp_path, _one_slice(index, keyword, value, **more))


@pytest.mark.parametrize(("keyword", "value", "more", "overrides"), DIFFERENT)
def test_not_where_the_user_says_it(tmp_path, keyword, value, more, overrides):
    factors = _reckon(tmp_path, _one_slice(0, keyword, value, **more), SuvOverrides(**overrides))
    np.testing.assert_allclose(factors, 70_000 / (368.08e6 * 2 ** (-3600 / 6586.2)), rtol=1e-6)


@pytest.mark.parametrize(
    ("keyword", "value", "more"),
    [
        ("PatientID", "somebody else", {"Units": "GML"}),
        ("StudyInstanceUID", "1.2.3", {"Units": "GML"}),
        ("PatientSize", "1.60", LEAN),
        ("PatientSex", "F", LEAN),
    ],
)
def test_slices_of_two_patients_are_refused(tmp_path, keyword, value, more):
    with pytest.raises(InvalidImageError, match=f"{keyword} must be the same in all slices") as caught:
        _reckon(tmp_path, _one_slice(3, keyword, value, **more))
    if keyword.endswith(("ID", "UID")):  # which say whose the slices are
        assert "got 2 different ones in series 3" in str(caught.value)
        assert not any(each in str(caught.value) for each in ("somebody else", "P-study", "and 1.2.3"))


@pytest.mark.parametrize(
    ("keyword", "value", "more"),
    [
        ("PatientWeight", "70.0", {}),
        ("RadionuclideTotalDose", "3.6808E8", {}),
        ("PatientWeight", "35", {"Units": "GML"}),
        ("PatientSize", "1.60", {}),
        ("RadiopharmaceuticalStartDateTime", "20250101093000", {"DecayCorrection": "ADMIN"}),
    ],
    ids=["another spelling", "another spelling of the dose", "weight unused", "size unused", "time unused"],
)
def test_what_does_not_matter_may_differ(tmp_path, keyword, value, more):
    assert len(set(_reckon(tmp_path, _one_slice(0, keyword, value, **more)))) == 1


@pytest.mark.parametrize("suv_type", ["LBM", "LBMJANMA", "IBW", "BSA"])
@pytest.mark.parametrize(
    "size", ["1750", "70", "2.6", "0.2", "5.9"], ids=["mm", "inches", "giant", "tiny", "feet"]
)
def test_no_human_has_this_height(tmp_path, suv_type, size):
    units = "CM2ML" if suv_type == "BSA" else "GML"
    with pytest.raises(
        InvalidImageError, match=r"PatientSize must be in m, 0\.3 to 2\.5, and fit the weight, got"
    ):
        _reckon(tmp_path, edit_all(Units=units, SUVType=suv_type, PatientSize=size))


@pytest.mark.parametrize(("weight", "size"), [("3.5", "0.5"), ("2", "45"), ("250", "1.75"), ("32", "1.80")])
def test_small_heavy_and_thin_patients_are_taken(tmp_path, weight, size):
    edit = edit_all(Units="GML", SUVType="LBMJANMA", PatientSize=size, PatientWeight=weight)
    assert (_reckon(tmp_path, edit) > 0).all()


def _notes(folder: Path, edit: Edit) -> tuple[str, ...]:
    Maker(spacing=(3.0, 4.0, 5.0)).pet(folder, np.ones((4, 5, 6), np.int16), edit=edit)
    return reckon(find_series(folder).series[0])[1].notes


@pytest.mark.parametrize("weight", ["0.07", "0.49", "701", "999", "7000000"])
def test_a_weight_that_no_patient_has_is_refused(tmp_path, weight):
    with pytest.raises(
        InvalidImageError, match=rf"PatientWeight must be 0\.5 to 700 kg, got {weight} .*--weight-kg"
    ):
        _reckon(tmp_path, edit_all(PatientWeight=weight))


def test_a_weight_that_no_patient_has_may_be_replaced_or_is_not_needed(tmp_path):
    edit = edit_all(PatientWeight="0.07")
    factors = _reckon(tmp_path / "given", edit, SuvOverrides(weight_kg=70))
    np.testing.assert_allclose(factors, 70_000 / (368.08e6 * 2 ** (-3600 / 6586.2)), rtol=1e-6)
    assert (_reckon(tmp_path / "suv", edit_all(PatientWeight="0.07", Units="GML")) == 1).all()


@pytest.mark.parametrize(
    ("weight", "size", "bmi"),
    [("7", "1.75", "2.3"), ("300", "1.75", "98.0"), ("7", "175", "2.3"), ("154", "1.2", "106.9")],
    ids=["a digit lost", "heavy", "in cm", "pounds"],
)
def test_a_weight_that_hardly_fits_the_height_is_noted(tmp_path, weight, size, bmi):
    (note,) = _notes(tmp_path, edit_all(PatientWeight=weight, PatientSize=size))
    assert f"PatientWeight {weight} kg and PatientSize {size} give a body mass index of {bmi} kg/m^2" in note
    assert "--weight-kg" in note


@pytest.mark.parametrize("size", ["1.75", "", None, "0", "1750"])
def test_a_weight_that_fits_or_has_no_height_is_not_noted(tmp_path, size):
    assert not _notes(tmp_path, edit_all(PatientWeight="60", PatientSize=size))


@pytest.mark.parametrize(("dose", "said"), [("10", "370"), ("60", "2220"), ("61", ""), ("368.08", "")])
def test_a_tiny_dose_may_be_in_mci(tmp_path, dose, said):
    (note,) = _notes(tmp_path, edit_all(RadionuclideTotalDose=dose))
    assert f"RadionuclideTotalDose {dose} was taken as MBq" in note
    assert note.endswith(f"; if it is in mCi, give --dose-mbq {said}") == bool(said)
