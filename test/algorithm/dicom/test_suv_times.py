"""Times of injection and scan that anonymisers, time zones and clocks made odd: refused or noted, never silent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from algorithm.dicom.reckoning import Reckoning, SuvOverrides
from algorithm.dicom.series import find_series
from algorithm.dicom.suv import reckon
from algorithm.dicom.times import mean_activity_time_s
from algorithm.errors import InvalidImageError, UsageError
from test.support.dicom import Edit, Maker, edit_all, tracer_of

HALF_LIFE_S = 6586.2
AS_GIVEN = 70_000 / 368.08e6
PLAIN = AS_GIVEN * 2 ** (3600 / HALF_LIFE_S)
DUMMY = {"RadiopharmaceuticalStartDateTime": None, "RadiopharmaceuticalStartTime": "000000"}
ZIRCONIUM_S = 282_240.0


def _reckon(
    folder: Path, edit: Edit | None = None, overrides: SuvOverrides | None = None, *, slices: int = 4
) -> tuple[np.ndarray, Reckoning]:
    Maker(spacing=(3.0, 4.0, 5.0)).pet(folder, np.ones((slices, 5, 6), np.int16), edit=edit)
    return reckon(find_series(folder).series[0], overrides)


def _both(*edits: Edit) -> Edit:
    def edit(dataset: Dataset, index: int) -> None:
        for one in edits:
            one(dataset, index)

    return edit


def _scan_at(clock: str, **more: object) -> Edit:
    return edit_all(AcquisitionTime=clock, SeriesTime=clock, **more)


NO_TIME_OF_ITS_OWN = r"injection must have a time of its own, got .* --injection-time"


@pytest.mark.parametrize(
    "edit",
    [
        _scan_at("000000", **DUMMY),
        _scan_at("000000", RadiopharmaceuticalStartDateTime="20250101000000", RadiopharmaceuticalStartTime=""),
        _scan_at("000000", FrameReferenceTime="900000", **DUMMY),
        edit_all(RadiopharmaceuticalStartDateTime="20250101110000", RadiopharmaceuticalStartTime="110000"),
        edit_all(RadiopharmaceuticalStartDateTime=None, RadiopharmaceuticalStartTime="110000"),
        edit_all(**DUMMY),
        edit_all(RadiopharmaceuticalStartDateTime="20250101000000.00", RadiopharmaceuticalStartTime=None),
        _scan_at("000000", DecayCorrection="NONE", CorrectedImage=["ATTN"], **DUMMY),
    ],
    ids=["all 0", "all 0, dated", "all 0, late bed", "same, dated", "same", "injection 0", "dated 0", "NONE"],
)
def test_dummy_times_are_refused(tmp_path, edit):
    with pytest.raises(InvalidImageError, match=NO_TIME_OF_ITS_OWN):
        _reckon(tmp_path, edit)


def test_the_user_knows_better_than_dummy_times(tmp_path):
    factors, reckoning = _reckon(tmp_path, edit_all(**DUMMY), SuvOverrides(injection_time="10:00"))
    np.testing.assert_allclose(factors, PLAIN, rtol=1e-6)
    assert not reckoning.notes


def test_a_user_may_give_the_moment_of_the_scan(tmp_path):
    factors, reckoning = _reckon(tmp_path, None, SuvOverrides(injection_time="11:00"))
    np.testing.assert_allclose(factors, AS_GIVEN, rtol=1e-6)
    assert "0.0 min from the injection, 2025-01-01 11:00:00, to" in reckoning.notes[0]


def test_admin_needs_no_times(tmp_path):
    edit = _scan_at("000000", DecayCorrection="ADMIN", **DUMMY)
    factors, reckoning = _reckon(tmp_path, edit)
    np.testing.assert_allclose(factors, AS_GIVEN, rtol=1e-9)
    assert not reckoning.notes


def test_an_uncorrected_frame_may_begin_with_the_injection(tmp_path):
    begin = {"RadiopharmaceuticalStartDateTime": "20250101110000"}
    edit = edit_all(DecayCorrection="NONE", CorrectedImage=["ATTN"], RadiopharmaceuticalStartTime=None, **begin)
    assert "less than 5 min" in _reckon(tmp_path, edit)[1].notes[0]


def test_an_injection_at_midnight_is_noted(tmp_path):
    _, reckoning = _reckon(tmp_path, _scan_at("010000", **DUMMY))
    assert "RadiopharmaceuticalStartTime is exactly 00:00:00" in " ".join(reckoning.notes)


@pytest.mark.parametrize(
    ("clock", "said"),
    [
        ("105600", "4.0 min from the injection, 2025-01-01 10:56:00, to the time that the PET is corrected to"),
        ("105500", ""),
        ("034200", ""),
        ("033900", "more than 4 half-lives"),
    ],
)
def test_odd_waits_are_noted(tmp_path, clock, said):
    edit = edit_all(RadiopharmaceuticalStartDateTime=None, RadiopharmaceuticalStartTime=clock)
    _, reckoning = _reckon(tmp_path, edit)
    assert bool(reckoning.notes) == bool(said)
    for note in reckoning.notes:
        assert said in note
        assert "2025-01-01 11:00:00" in note
        assert "--injection-time" in note


def _tracer(half_life_s: float, **more: object) -> Edit:
    """A tracer without a code, of frames without a time."""

    def edit(dataset: Dataset, index: int) -> None:
        del tracer_of(dataset).RadionuclideCodeSequence
        edit_all(RadionuclideHalfLife=str(half_life_s), FrameReferenceTime=None, **more)(dataset, index)

    return edit


def _water(clock: str) -> Edit:
    return _tracer(122.24, RadiopharmaceuticalStartDateTime=None, RadiopharmaceuticalStartTime=clock)


def test_nothing_is_left_after_ten_half_lives(tmp_path):
    with pytest.raises(
        InvalidImageError, match=r"within 10 half-lives \(0\.34 h\) before the PET, got .*10:39:00"
    ):
        _reckon(tmp_path, _water("103900"))


def test_short_lived_tracers_are_scanned_at_once(tmp_path):
    _, reckoning = _reckon(tmp_path, _water("105900"))
    assert reckoning.notes[0].startswith("1.0 min from the injection")


@pytest.mark.parametrize("by_user", [False, True])
def test_zirconium_four_days_after_the_injection(tmp_path, by_user):
    given = "" if by_user else "20241228100000"
    edit = _tracer(ZIRCONIUM_S, RadiopharmaceuticalStartDateTime=given, RadiopharmaceuticalStartTime="100000")
    overrides = SuvOverrides(injection_time="2024-12-28T10:00") if by_user else None
    factors, reckoning = _reckon(tmp_path, edit, overrides)
    np.testing.assert_allclose(factors, AS_GIVEN * 2 ** ((4 * 86400 + 3600) / ZIRCONIUM_S), rtol=1e-6)
    assert not reckoning.notes


def test_zirconium_too_has_its_limit(tmp_path):
    edit = _tracer(
        ZIRCONIUM_S, RadiopharmaceuticalStartDateTime="20241128100000", RadiopharmaceuticalStartTime=None
    )
    with pytest.raises(InvalidImageError, match=r"within 10 half-lives \(784 h\) before the PET"):
        _reckon(tmp_path, edit)


def test_a_time_without_a_date_is_a_guess_for_zirconium(tmp_path):
    _, reckoning = _reckon(tmp_path, _tracer(ZIRCONIUM_S, RadiopharmaceuticalStartDateTime=None))
    assert "the injection has no date" in reckoning.notes[0]
    assert "2025-01-01 10:00:00" in reckoning.notes[0]


@pytest.mark.parametrize("start", ["20250101090000+0000", "20250101090000.00+0000"])
def test_local_time_goes_before_a_time_zone_that_cannot_be_converted(tmp_path, start):
    factors, reckoning = _reckon(tmp_path, edit_all(RadiopharmaceuticalStartDateTime=start))
    np.testing.assert_allclose(factors, PLAIN, rtol=1e-6)
    assert reckoning.injected_at == "2025-01-01 10:00:00"
    assert reckoning.notes[0] == (
        "the injection is taken as given at 2025-01-01 10:00:00 by RadiopharmaceuticalStartTime; by "
        "RadiopharmaceuticalStartDateTime it would be 2025-01-01 09:00:00, and SUVs "
        f"{2 ** (3600 / HALF_LIFE_S):.3f} times as high"
    )


def test_local_time_of_a_time_zone_beyond_midnight(tmp_path):
    edit = _scan_at(
        "003000", RadiopharmaceuticalStartDateTime="20241231223000+0000", RadiopharmaceuticalStartTime="233000"
    )
    factors, reckoning = _reckon(tmp_path, edit)
    np.testing.assert_allclose(factors, PLAIN, rtol=1e-6)
    assert reckoning.injected_at == "2024-12-31 23:30:00"


def test_times_of_injection_that_differ_are_noted(tmp_path):
    _, reckoning = _reckon(tmp_path, edit_all(RadiopharmaceuticalStartDateTime="20250101090000"))
    assert reckoning.injected_at == "2025-01-01 09:00:00"
    assert "by RadiopharmaceuticalStartTime it would be 2025-01-01 10:00:00, and SUVs 0.685" in reckoning.notes[0]


@pytest.mark.parametrize("start", ["20250101100059", "20250101100000+0100"])
def test_times_of_injection_that_agree_are_not(tmp_path, start):
    assert not _reckon(tmp_path, edit_all(RadiopharmaceuticalStartDateTime=start))[1].notes


def test_a_time_zone_alone_is_noted(tmp_path):
    edit = edit_all(RadiopharmaceuticalStartDateTime="20250101100000+0000", RadiopharmaceuticalStartTime=None)
    factors, reckoning = _reckon(tmp_path, edit)
    np.testing.assert_allclose(factors, PLAIN, rtol=1e-6)
    assert "names a time zone and the PET none" in reckoning.notes[0]


@pytest.mark.parametrize("value", ["09:58Z", "09:58+01:00", "2025-01-01T09:58+01:00", "2025-01-01T09:58Z"])
def test_an_injection_time_with_a_time_zone_is_refused(value):
    with pytest.raises(
        UsageError, match=r"--injection-time must be of the form .* in the scanner's local time, got"
    ):
        SuvOverrides(injection_time=value)


def _ges_scan(value: str) -> Edit:
    def edit(dataset: Dataset, _: int) -> None:
        dataset.add_new(0x0009_0010, "LO", "GEMS_PETD_01")
        dataset.add_new(0x0009_100D, "DT", value)

    return edit


@pytest.mark.parametrize("gone", [{}, dict.fromkeys(("StudyDate", "SeriesDate", "AcquisitionDate"))])
def test_ges_scan_time_of_other_dates_is_left_out(tmp_path, gone):
    factors, reckoning = _reckon(tmp_path, _both(edit_all(**gone), _ges_scan("20230615110000.00")))
    np.testing.assert_allclose(factors, PLAIN, rtol=1e-6)
    assert "(0009,100D) was left out" in reckoning.notes[0]
    assert "2023" not in " ".join(reckoning.sentences())


def _per_bed(series_time: str, *, frame_s: float = 0.0) -> Edit:
    """Four beds of five slices, three minutes each, whose frame times are counted from each bed's own start."""

    def edit(dataset: Dataset, index: int) -> None:
        bed = index // 5
        dataset.AcquisitionTime, dataset.SeriesTime = f"11{3 * bed:02d}00", series_time
        dataset.FrameReferenceTime = f"{(mean_activity_time_s(HALF_LIFE_S, 300) + frame_s * bed) * 1000:.3f}"

    return edit


@pytest.mark.parametrize(
    ("series_time", "source"), [("110000", "SeriesTime"), ("120000", "the first Acquisition")]
)
def test_all_slices_are_corrected_to_one_time(tmp_path, series_time, source):
    factors, reckoning = _reckon(tmp_path, _per_bed(series_time), slices=20)
    np.testing.assert_allclose(factors, PLAIN, rtol=1e-6)
    spread, apart = reckoning.notes
    assert "slice spreads from 2025-01-01 11:00:00 to 2025-01-01 11:09:00" in spread
    assert f"{source}" in spread
    assert "corrected to 2025-01-01 11:00:00 by" in apart
    assert "it would be 2025-01-01 11:09:00, and SUVs 1.058 times as high" in apart


def test_frame_times_that_agree_go_before_the_series(tmp_path):
    factors, reckoning = _reckon(tmp_path, _per_bed("110000", frame_s=180.0), slices=20)
    np.testing.assert_allclose(factors, PLAIN, rtol=1e-6)
    assert not reckoning.notes


def test_ges_scan_times_that_spread_are_noted(tmp_path):
    def edit(dataset: Dataset, index: int) -> None:
        _ges_scan(f"2025010111{3 * index:02d}00")(dataset, index)

    _, reckoning = _reckon(tmp_path, edit)
    assert "to times from 2025-01-01 11:00:00 to 2025-01-01 11:09:00 by GE's" in reckoning.notes[0]
    assert "corrected to 2025-01-01 11:09:00 by GE's" in reckoning.notes[1]


UNTIMED = {"FrameReferenceTime": 0}
"""Frames without a time of their own: SeriesTime or the first AcquisitionTime, 11:00, must do."""


@pytest.mark.parametrize(("series_time", "ratio"), [("100600", "1.406"), ("105000", "1.065")])
def test_an_early_series_time_is_noted(tmp_path, series_time, ratio):
    factors, reckoning = _reckon(tmp_path, edit_all(SeriesTime=series_time, **UNTIMED))
    minutes = int(series_time[2:4])
    np.testing.assert_allclose(factors, AS_GIVEN * 2 ** (minutes * 60 / HALF_LIFE_S), rtol=1e-6)
    (note,) = reckoning.notes
    assert f"corrected to 2025-01-01 10:{minutes:02d}:00 by SeriesTime" in note
    assert f"by the first AcquisitionTime it would be 2025-01-01 11:00:00, and SUVs {ratio} times as high" in note


@pytest.mark.parametrize("series_time", ["105900", "110000", "113000"])
def test_a_series_time_that_fits_or_cannot_be_is_not_noted(tmp_path, series_time):
    assert not _reckon(tmp_path, edit_all(SeriesTime=series_time, **UNTIMED))[1].notes


def test_a_series_time_before_the_injection_is_left_out(tmp_path):
    factors, reckoning = _reckon(tmp_path, edit_all(SeriesTime="093000", **UNTIMED))
    np.testing.assert_allclose(factors, PLAIN, rtol=1e-6)
    assert reckoning.corrected_to_source == "the first AcquisitionTime"
    assert reckoning.notes == (
        "SeriesTime 2025-01-01 09:30:00 was left out: it lies before the injection, 2025-01-01 10:00:00",
    )


def test_where_frame_times_and_series_time_agree_late_slices_say_nothing(tmp_path):
    """Half a series: its first AcquisitionTime is that of a later bed."""
    frame_ms = f"{(mean_activity_time_s(HALF_LIFE_S, 300) + 600) * 1000:.3f}"
    factors, reckoning = _reckon(tmp_path, edit_all(AcquisitionTime="111000", FrameReferenceTime=frame_ms))
    np.testing.assert_allclose(factors, PLAIN, rtol=1e-6)
    assert not reckoning.notes


def test_without_acquisition_times_a_series_time_before_the_injection_is_refused(tmp_path):
    edit = edit_all(SeriesTime="093000", AcquisitionTime=None, RadiopharmaceuticalStartTime=None)
    with pytest.raises(InvalidImageError, match="injection must lie within a day before the PET, got"):
        _reckon(tmp_path, edit)


def _decay_factor(waited_s: float) -> str:
    """What a frame of 300 s has that begins so long after the time of correction."""
    during = np.log(2) / HALF_LIFE_S * 300
    return f"{2 ** (waited_s / HALF_LIFE_S) * during / -np.expm1(-during):.5f}"


def test_a_decay_factor_that_contradicts_the_time_of_correction_is_noted(tmp_path):
    edit = edit_all(SeriesTime="100600", DecayFactor=_decay_factor(0), **UNTIMED)
    factors, reckoning = _reckon(tmp_path, edit)
    np.testing.assert_allclose(factors, AS_GIVEN * 2 ** (360 / HALF_LIFE_S), rtol=1e-6)
    assert reckoning.notes[1] == (
        "DecayFactor is 1.0159 in the slice acquired at 2025-01-01 11:00:00, where the time that it is taken as "
        "corrected to, 2025-01-01 10:06:00 by SeriesTime, gives 1.4287; if DecayFactor is right, SUVs are 1.406 "
        "times as high"
    )


@pytest.mark.parametrize("stored", [_decay_factor(0), _decay_factor(150), "1.0", "0", "", None])
def test_a_decay_factor_that_agrees_or_was_not_filled_in_is_not_noted(tmp_path, stored):
    assert not _reckon(tmp_path, edit_all(DecayFactor=stored))[1].notes


def test_decay_factors_of_several_beds(tmp_path):
    def beds(dataset: Dataset, index: int) -> None:
        _per_bed("110000", frame_s=180.0)(dataset, index)
        dataset.DecayFactor = _decay_factor(180 * (index // 5))

    def last_is_wrong(dataset: Dataset, index: int) -> None:
        beds(dataset, index)
        if index == 19:
            dataset.DecayFactor = _decay_factor(0)

    assert not _reckon(tmp_path / "right", beds, slices=20)[1].notes
    (note,) = _reckon(tmp_path / "wrong", last_is_wrong, slices=20)[1].notes
    assert "DecayFactor is 1.0159 in the slice acquired at 2025-01-01 11:09:00, where" in note


@pytest.mark.parametrize("decay_correction", ["ADMIN", "NONE"])
def test_a_decay_factor_says_nothing_of_other_corrections(tmp_path, decay_correction):
    corrected = ["ATTN", "DECY"] if decay_correction == "ADMIN" else ["ATTN"]
    edit = edit_all(DecayCorrection=decay_correction, CorrectedImage=corrected, DecayFactor="3")
    assert not _reckon(tmp_path, edit)[1].notes
