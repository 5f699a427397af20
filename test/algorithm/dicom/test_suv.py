"""Every rule from stored value to SUVbw, from headers reckoned by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from algorithm.dicom.reckoning import Reckoning, SuvOverrides
from algorithm.dicom.series import find_series
from algorithm.dicom.suv import reckon
from algorithm.dicom.times import mean_activity_time_s
from algorithm.errors import InvalidImageError, UsageError, UserError
from test.support.dicom import Maker, edit_all, tracer_of

PLAIN = 70_000 / (368.08e6 * 2 ** (-3600 / 6586.2))
"""SUVbw of 1 Bq/ml: 70 kg, 368.08 MBq of F-18 an hour before the time of correction."""

AS_GIVEN = 70_000 / 368.08e6
LAMBDA = math.log(2) / 6586.2


def _reckon(folder: Path, edit=None, overrides=None, **options) -> tuple[np.ndarray, Reckoning]:
    Maker(spacing=(3.0, 4.0, 5.0)).pet(folder, np.ones((4, 5, 6), np.int16), edit=edit, **options)
    return reckon(find_series(folder).series[0], overrides)


def _private(element: int, value: object, vr: str, *, creator: str = "", block: int = 0x10):
    def edit(dataset: Dataset, _: int) -> None:
        group = element >> 16
        if creator:
            dataset.add_new(group << 16 | block, "LO", creator)
        dataset.add_new(group << 16 | block << 8 | (element & 0xFF), vr, value)

    return edit


def _both(*edits):
    def edit(dataset: Dataset, index: int) -> None:
        for one in edits:
            one(dataset, index)

    return edit


def test_bqml_start(tmp_path):
    factors, reckoning = _reckon(tmp_path)
    np.testing.assert_allclose(factors, PLAIN, rtol=1e-6)
    assert reckoning.decay_least == pytest.approx(2 ** (-3600 / 6586.2), rel=1e-6)
    assert reckoning.corrected_to_first == "2025-01-01 11:00:00"
    assert not reckoning.notes


def test_every_slice_keeps_its_slope(tmp_path):
    factors, reckoning = _reckon(tmp_path, slopes=[1.0, 2.0, 3.0, 0.5])
    np.testing.assert_allclose(factors, np.array([1.0, 2.0, 3.0, 0.5]) * PLAIN, rtol=1e-6)
    assert (reckoning.slope_least, reckoning.slope_most) == (0.5, 3.0)
    assert reckoning.factor_most == pytest.approx(3 * PLAIN, rel=1e-6)


W, H = 70.0, 175.0
MALE = {
    "LBM": 1.10 * W - 120 * (W / H) ** 2,  # 57.8
    "LBMJAMES128": 1.10 * W - 128 * (W / H) ** 2,  # 56.52
    "LBMJANMA": 9270 * W / (6680 + 216 * W / 1.75**2),  # 55.86
    "IBW": 48.0 + 1.06 * (H - 152),  # 72.38
}
FEMALE = {
    "LBM": 1.07 * W - 148 * (W / H) ** 2,  # 51.22
    "LBMJAMES128": 1.07 * W - 148 * (W / H) ** 2,
    "LBMJANMA": 9270 * W / (8780 + 244 * W / 1.75**2),  # 45.2
    "IBW": 45.5 + 0.91 * (H - 152),  # 66.43
}


@pytest.mark.parametrize("suv_type", ["", "BW", None])
def test_gml_by_weight_is_suvbw_and_needs_nothing_else(tmp_path, suv_type):
    gone = {"PatientWeight": None, "RadionuclideTotalDose": None, "RadiopharmaceuticalStartDateTime": None}
    factors, _ = _reckon(tmp_path, edit_all(Units="GML", SUVType=suv_type, **gone))
    np.testing.assert_array_equal(factors, 1.0)


@pytest.mark.parametrize("suv_type", MALE)
@pytest.mark.parametrize("sex", ["M", "F", "O"])
def test_gml_by_other_normalisations(tmp_path, suv_type, sex):
    expected = {"M": MALE[suv_type], "F": FEMALE[suv_type], "O": (MALE[suv_type] + FEMALE[suv_type]) / 2}[sex]
    factors, reckoning = _reckon(tmp_path, edit_all(Units="GML", SUVType=suv_type, PatientSex=sex))
    np.testing.assert_allclose(factors, W / expected, rtol=1e-9)
    assert suv_type in reckoning.units
    assert reckoning.sex == sex


def test_the_formulas_give_what_a_calculator_gives():
    assert MALE["LBM"] == pytest.approx(57.8)
    assert MALE["LBMJAMES128"] == pytest.approx(56.52)
    assert FEMALE["LBM"] == pytest.approx(51.22)
    assert MALE["IBW"] == pytest.approx(72.38)


def test_height_in_cm_is_seen(tmp_path):
    factors, reckoning = _reckon(tmp_path, edit_all(Units="GML", SUVType="LBM", PatientSize="175"))
    np.testing.assert_allclose(factors, W / 57.8, rtol=1e-9)
    assert "taken as cm" in reckoning.notes[0]


def test_cm2ml_is_body_surface(tmp_path):
    factors, _ = _reckon(tmp_path, edit_all(Units="CM2ML", SUVType="BSA"))
    surface = 0.007184 * 175**0.725 * 70**0.425  # 1.848 m^2
    np.testing.assert_allclose(factors, 70 * 1000 / (surface * 1e4), rtol=1e-9)


@pytest.mark.parametrize(
    ("creator", "block"), [("Philips PET Private Group", 0x10), ("Philips PET Private Group", 0x12), ("", 0x10)]
)
def test_cnts_with_philips_suv_factor(tmp_path, creator, block):
    edit = _both(edit_all(Units="CNTS"), _private(0x7053_0000, "0.0005", "DS", creator=creator, block=block))
    factors, reckoning = _reckon(tmp_path, edit)
    np.testing.assert_allclose(factors, 0.0005)
    assert "(7053,1000)" in reckoning.rule


@pytest.mark.parametrize("first", ["0", None])
def test_cnts_with_philips_activity_factor(tmp_path, first):
    edits = [edit_all(Units="CNTS"), _private(0x7053_0009, "2.5", "DS", creator="Philips PET Private Group")]
    if first is not None:
        edits.append(_private(0x7053_0000, first, "DS"))
    factors, reckoning = _reckon(tmp_path, _both(*edits))
    np.testing.assert_allclose(factors, 2.5 * PLAIN, rtol=1e-6)
    assert "(7053,1009)" in reckoning.rule


def test_cnts_of_unknown_representation_is_read_as_text(tmp_path):
    edit = _both(edit_all(Units="CNTS"), _private(0x7053_0000, b"0.0005", "UN"))
    np.testing.assert_allclose(_reckon(tmp_path, edit)[0], 0.0005)


def test_cnts_of_another_vendors_block_is_not_philips(tmp_path):
    edit = _both(edit_all(Units="CNTS"), _private(0x7053_0000, "0.0005", "DS", creator="SOMEBODY ELSE"))
    with pytest.raises(InvalidImageError, match=r"without Philips' private factors"):
        _reckon(tmp_path, edit)


def test_cps_with_dcal_is_per_voxel(tmp_path):
    edit = edit_all(Units="CPS", CorrectedImage=["ATTN", "DECY", "DCAL"])
    np.testing.assert_allclose(_reckon(tmp_path, edit)[0], PLAIN / 0.06, rtol=1e-6)  # 3 x 4 x 5 mm


def test_cps_with_a_calibration_factor(tmp_path):
    edit = edit_all(Units="CPS", DoseCalibrationFactor="39140")
    np.testing.assert_allclose(_reckon(tmp_path, edit)[0], PLAIN * 39140, rtol=1e-6)


@pytest.mark.parametrize("weight", ["70000", "70"])
def test_weight_in_grams_is_seen(tmp_path, weight):
    factors, reckoning = _reckon(tmp_path, edit_all(PatientWeight=weight))
    np.testing.assert_allclose(factors, PLAIN, rtol=1e-6)
    assert bool(reckoning.notes) == (weight == "70000")


def test_dose_in_mbq_is_seen(tmp_path):
    factors, reckoning = _reckon(tmp_path, edit_all(RadionuclideTotalDose="368.08"))
    np.testing.assert_allclose(factors, PLAIN, rtol=1e-6)
    assert "taken as MBq" in reckoning.notes[0]


CODES = {
    ("77004003", "SCT", "^18^Fluorine"): 6586.2,
    ("C-111A1", "SRT", "18F"): 6586.2,
    ("C-131A3", "SRT", "^68^Gallium"): 4057.0,
    ("C-105A1", "SRT", "^11^Carbon"): 1223.0,
    ("C-107A1", "SRT", "^13^Nitrogen"): 598.0,
    ("C-128A2", "SRT", "^68^Germanium"): 23400000.0,
    ("local", "99X", "F-18"): 6586.2,
    ("local", "99X", "Gallium 68"): 4057.0,
}


@pytest.mark.parametrize(("code", "seconds"), CODES.items(), ids=lambda value: str(value))
def test_a_missing_half_life_comes_from_the_nuclide(tmp_path, code, seconds):
    def edit(dataset: Dataset, _: int) -> None:
        tracer = tracer_of(dataset)
        tracer.RadionuclideHalfLife = ""
        item = tracer.RadionuclideCodeSequence[0]
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code

    _, reckoning = _reckon(tmp_path, edit)
    assert reckoning.half_life_s == seconds
    assert "RadionuclideHalfLife is missing" in reckoning.notes[0]


def test_admin_takes_the_dose_as_given_and_no_times(tmp_path):
    edit = edit_all(
        DecayCorrection="ADMIN",
        RadiopharmaceuticalStartDateTime=None,
        RadiopharmaceuticalStartTime=None,
        AcquisitionTime=None,
        RadionuclideHalfLife=None,
    )
    factors, reckoning = _reckon(tmp_path, edit)
    np.testing.assert_allclose(factors, AS_GIVEN, rtol=1e-9)
    assert reckoning.dose_used_mbq_most == pytest.approx(368.08)


def test_none_corrects_every_slice_back_to_the_injection(tmp_path):
    def edit(dataset: Dataset, index: int) -> None:
        dataset.DecayCorrection, dataset.CorrectedImage = "NONE", ["ATTN", "NORM"]
        dataset.AcquisitionTime = f"11{5 * index:02d}00"

    factors, _ = _reckon(tmp_path, edit)
    during = LAMBDA * 300 / (1 - math.exp(-LAMBDA * 300))
    expected = [AS_GIVEN * during * math.exp(LAMBDA * (3600 + 300 * index)) for index in range(4)]
    np.testing.assert_allclose(factors, expected, rtol=1e-9)


def test_start_by_each_slices_own_times(tmp_path):
    """Beds acquired one after the other, all corrected to 11:00, by frame times that say so."""

    def edit(dataset: Dataset, index: int) -> None:
        dataset.AcquisitionTime = f"11{5 * index:02d}00.250000"
        dataset.SeriesTime = "120000"  # changed by a later reconstruction
        dataset.FrameReferenceTime = f"{(mean_activity_time_s(6586.2, 300) + 300 * index + 0.25) * 1000:.3f}"

    factors, reckoning = _reckon(tmp_path, edit)
    np.testing.assert_allclose(factors, PLAIN, rtol=1e-6)
    assert reckoning.corrected_to_source.startswith("AcquisitionTime + T_ave")


def test_half_a_series_gives_the_same(tmp_path):
    """What is left of the series does not matter: nothing is asked of the first slice."""

    def edit(dataset: Dataset, index: int) -> None:
        dataset.AcquisitionTime = f"11{10 + 5 * index:02d}00"
        dataset.FrameReferenceTime = f"{(mean_activity_time_s(6586.2, 300) + 600 + 300 * index) * 1000:.3f}"

    np.testing.assert_allclose(_reckon(tmp_path, edit)[0], PLAIN, rtol=1e-6)


@pytest.mark.parametrize("creator", ["GEMS_PETD_01", ""])
def test_start_by_ges_private_scan_time(tmp_path, creator):
    edit = _both(
        edit_all(AcquisitionTime="113000"),
        _private(0x0009_000D, "20250101110000.00", "DT", creator=creator),
    )
    factors, reckoning = _reckon(tmp_path, edit)
    np.testing.assert_allclose(factors, PLAIN, rtol=1e-9)
    assert "GE's private" in reckoning.corrected_to_source
    note = " ".join(reckoning.notes)
    assert "11:30:00" in note  # what the slices' own times would give
    assert f"{2 ** (1800 / 6586.2):.3f} times" in note


@pytest.mark.parametrize("missing", ["FrameReferenceTime", "ActualFrameDuration"])
@pytest.mark.parametrize(("series_time", "minutes"), [("105500", 55), ("113000", 60)])
def test_start_by_qibas_order_without_frame_times(tmp_path, missing, series_time, minutes):
    """SeriesTime if not later than the first AcquisitionTime (11:00), else that."""
    edit = edit_all(**{missing: None}, SeriesTime=series_time)
    factors, reckoning = _reckon(tmp_path, edit)
    np.testing.assert_allclose(factors, AS_GIVEN * 2 ** (minutes * 60 / 6586.2), rtol=1e-9)
    assert "Time" in reckoning.corrected_to_source


def test_a_frame_reference_time_of_zero_was_not_filled_in(tmp_path):
    _, reckoning = _reckon(tmp_path, edit_all(FrameReferenceTime="0.0"))
    assert reckoning.corrected_to_source == "SeriesTime"


def test_rules_that_differ_by_more_than_a_minute_are_said(tmp_path):
    _, reckoning = _reckon(tmp_path, edit_all(SeriesTime="105000"))
    assert "by SeriesTime it would be 2025-01-01 10:50:00, and SUVs 0.939 times" in reckoning.notes[0]


def test_start_time_without_a_date(tmp_path):
    np.testing.assert_allclose(
        _reckon(tmp_path, edit_all(RadiopharmaceuticalStartDateTime=None))[0], PLAIN, rtol=1e-6
    )


def test_start_time_before_midnight(tmp_path):
    edit = edit_all(
        RadiopharmaceuticalStartDateTime=None,
        RadiopharmaceuticalStartTime="233000.500",
        AcquisitionTime="003000.500",
        SeriesTime="003000.500",
    )
    factors, reckoning = _reckon(tmp_path, edit)
    np.testing.assert_allclose(factors, PLAIN, rtol=1e-6)
    assert reckoning.injected_at == "2024-12-31 23:30:00.500"


@pytest.mark.parametrize("clock", ["110005", "120500"], ids=["clocks that differ", "an hour mistyped"])
def test_a_start_after_the_scan_that_no_midnight_explains(tmp_path, clock):
    edit = edit_all(RadiopharmaceuticalStartDateTime=None, RadiopharmaceuticalStartTime=clock)

    with pytest.raises(UserError, match=r"within a day before the PET, got 2025-01-01 .*--injection-time"):
        _reckon(tmp_path, edit)


def test_dates_taken_away_by_anonymisation(tmp_path):
    gone = dict.fromkeys(("StudyDate", "SeriesDate", "AcquisitionDate"))
    np.testing.assert_allclose(_reckon(tmp_path, edit_all(**gone))[0], PLAIN, rtol=1e-6)


@pytest.mark.parametrize("dummy", ["00010101", "99991231", "19000101"])
def test_dates_that_anonymisers_put_there(tmp_path, dummy):
    gone = dict.fromkeys(("StudyDate", "SeriesDate", "AcquisitionDate"), dummy)
    gone |= {"RadiopharmaceuticalStartDateTime": None}
    np.testing.assert_allclose(_reckon(tmp_path, edit_all(**gone))[0], PLAIN, rtol=1e-6)


def test_a_start_that_anonymisers_put_there_is_asked_for(tmp_path):
    dummy = edit_all(
        RadiopharmaceuticalStartDateTime="00010101010101.000000+0000", RadiopharmaceuticalStartTime=None
    )
    with pytest.raises(UserError, match="--injection-time"):
        _reckon(tmp_path, dummy)


@pytest.mark.parametrize(
    "absurd", [{"FrameReferenceTime": "-62135596800000000"}, {"ActualFrameDuration": 2**31 - 1}]
)
def test_frame_times_of_no_scan_are_left_to_the_next_rule(tmp_path, absurd):
    np.testing.assert_allclose(_reckon(tmp_path, edit_all(**absurd))[0], PLAIN, rtol=1e-6)


def test_a_zone_of_more_than_a_day_is_none(tmp_path):
    edit = edit_all(RadiopharmaceuticalStartDateTime="20250101100000.00+9900", TimezoneOffsetFromUTC="+0100")
    np.testing.assert_allclose(_reckon(tmp_path, edit)[0], PLAIN, rtol=1e-6)


def test_start_date_time_with_a_time_zone(tmp_path):
    edit = edit_all(RadiopharmaceuticalStartDateTime="20250101090000.00+0000", TimezoneOffsetFromUTC="+0100")
    np.testing.assert_allclose(_reckon(tmp_path, edit)[0], PLAIN, rtol=1e-6)


@pytest.mark.parametrize(
    ("gone", "overrides", "said"),
    [
        ({"PatientWeight": None}, {"weight_kg": 70}, "weight 70 kg, the header has none"),
        ({"PatientWeight": "50"}, {"weight_kg": 70}, "the header has 50"),
        ({"RadionuclideTotalDose": None}, {"dose_mbq": 368.08}, "dose 368.08 MBq, the header has none"),
        ({"RadionuclideHalfLife": "100"}, {"half_life_s": 6586.2}, "half-life 6586.2 s, the header has 100"),
        (
            {"RadiopharmaceuticalStartDateTime": None, "RadiopharmaceuticalStartTime": None},
            {"injection_time": "10:00"},
            "injection at 2025-01-01 10:00:00, the header has none",
        ),
        (
            {"RadiopharmaceuticalStartDateTime": "20250102100000"},
            {"injection_time": "2025-01-01T10:00:00"},
            "the header has 2025-01-02 10:00:00",
        ),
    ],
)
def test_overrides_supply_what_is_missing_and_are_said(tmp_path, gone, overrides, said):
    factors, reckoning = _reckon(tmp_path, edit_all(**gone), SuvOverrides(**overrides))
    np.testing.assert_allclose(factors, PLAIN, rtol=1e-6)
    assert said in " ".join(reckoning.overrides)
    assert any("Given by the user" in sentence and said in sentence for sentence in reckoning.sentences())


def test_everything_by_the_user(tmp_path):
    def edit(dataset: Dataset, _: int) -> None:
        del dataset.RadiopharmaceuticalInformationSequence
        del dataset.PatientWeight

    overrides = SuvOverrides(weight_kg=70, dose_mbq=368.08, injection_time="10:00", half_life_s=6586.2)
    np.testing.assert_allclose(_reckon(tmp_path, edit, overrides)[0], PLAIN, rtol=1e-6)


def test_what_was_given_in_vain_is_said(tmp_path):
    overrides = SuvOverrides(weight_kg=70, half_life_s=6586.2)
    _, reckoning = _reckon(tmp_path, edit_all(Units="GML"), overrides)
    assert len(reckoning.notes) == 2
    assert "the weight was given but is not needed" in reckoning.notes[0]


def test_a_duration_that_breaks_the_rules_of_its_representation_is_read(tmp_path):
    def edit(dataset: Dataset, _: int) -> None:
        dataset["ActualFrameDuration"] = RawDataElement(
            Tag("ActualFrameDuration"), "IS", 8, b"300000.0", 0, False, True
        )

    np.testing.assert_allclose(_reckon(tmp_path, edit)[0], PLAIN, rtol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"weight_kg": 0},
        {"weight_kg": float("nan")},
        {"dose_mbq": -1},
        {"half_life_s": 0},
        {"injection_time": "10h"},
        {"injection_time": "2025-01-01"},
    ],
)
def test_overrides_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UsageError, match=f"--{next(iter(wrong)).replace('_', '-')} must"):
        SuvOverrides(**wrong)


def test_an_empty_correction_list_with_a_named_method_counts(tmp_path):
    edit = edit_all(CorrectedImage=None, AttenuationCorrectionMethod="measured,, 0.096000 cm-1,")
    np.testing.assert_allclose(_reckon(tmp_path, edit)[0], PLAIN, rtol=1e-6)


def test_the_reckoning_is_json_and_says_what_was_used(tmp_path):
    _, reckoning = _reckon(tmp_path)
    stored = json.loads(json.dumps(reckoning.as_dict()))
    assert stored["units"] == "BQML"
    assert stored["dose_used_mbq_most"] == pytest.approx(368.08 * 2 ** (-3600 / 6586.2), rel=1e-6)
    told = " ".join(reckoning.sentences())
    for part in ("BQML", "weight 70 kg", "368.08 MBq of F-18", "2025-01-01 10:00:00", "6586.2 s", "252 MBq"):
        assert part in told


def test_mean_activity_time_is_half_the_frame_for_a_slow_decay():
    assert mean_activity_time_s(1e9, 300) == pytest.approx(150, abs=1e-3)
    times = np.linspace(0, 300, 300001)
    mean = np.exp(-LAMBDA * times).mean()
    assert mean_activity_time_s(6586.2, 300) == pytest.approx(-math.log(mean) / LAMBDA, abs=1e-3)
