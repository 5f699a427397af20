"""What enhanced multi-frame PETs say in words of their own: the time of correction, and units by codes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from algorithm.dicom.reckoning import Reckoning, SuvOverrides
from algorithm.dicom.series import find_series
from algorithm.dicom.suv import reckon
from algorithm.errors import InvalidImageError
from test.support.dicom import Maker, tracer_of

AS_GIVEN = 70_000 / 368.08e6
PLAIN = AS_GIVEN * 2 ** (3600 / 6586.2)
W, H = 70.0, 175.0


def _reckon(
    folder: Path, edit: Callable[[Dataset], None], overrides: SuvOverrides | None = None
) -> tuple[np.ndarray, Reckoning]:
    Maker().enhanced(folder / "pet.dcm", "PT", np.ones((4, 5, 6), np.int16), [1.0] * 4, edit=edit)
    return reckon(find_series(folder).series[0], overrides)


def _corrected_to(moment: str, *, acquired: str = "20250101110000") -> Callable[[Dataset], None]:
    def edit(dataset: Dataset) -> None:
        del dataset.AcquisitionDate, dataset.AcquisitionTime  # classic elements, which would go before the frames'
        dataset.DecayCorrectionDateTime = moment
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            frame.FrameContentSequence[0].FrameAcquisitionDateTime = acquired

    return edit


def test_corrected_to_the_acquisition(tmp_path):
    factors, reckoning = _reckon(tmp_path, _corrected_to("20250101110000"))
    np.testing.assert_allclose(factors, PLAIN, rtol=1e-9)
    assert reckoning.decay_correction == "START"


@pytest.mark.parametrize("overrides", [None, SuvOverrides(injection_time="10:00")])
def test_corrected_to_the_injection(tmp_path, overrides):
    factors, reckoning = _reckon(tmp_path, _corrected_to("20250101100000"), overrides)
    np.testing.assert_allclose(factors, AS_GIVEN, rtol=1e-9)
    assert (reckoning.decay_correction, reckoning.decay_least) == ("ADMIN", 1.0)
    assert reckoning.corrected_to_first == reckoning.injected_at == "2025-01-01 10:00:00"
    assert not reckoning.notes


def test_injection_correction_and_acquisition_at_one_time_are_dummies(tmp_path):
    def edit(dataset: Dataset) -> None:
        tracer_of(dataset).RadiopharmaceuticalStartDateTime = "20250101110000"
        tracer_of(dataset).RadiopharmaceuticalStartTime = "110000"

    with pytest.raises(InvalidImageError, match="injection must have a time of its own"):
        _reckon(tmp_path, edit)


def test_an_injection_a_day_before_the_acquisition_cannot_be(tmp_path):
    with pytest.raises(InvalidImageError, match=r"within a day before .* for the acquisition"):
        _reckon(tmp_path, _corrected_to("20250101100000", acquired="20250102110000"))


def _units(code: str, keyword: str = "CodeValue") -> Callable[[Dataset], None]:
    def edit(dataset: Dataset) -> None:
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            unit = frame.RealWorldValueMappingSequence[0].MeasurementUnitsCodeSequence[0]
            del unit.CodeValue
            setattr(unit, keyword, code)

    return edit


@pytest.mark.parametrize("keyword", ["CodeValue", "LongCodeValue"])
@pytest.mark.parametrize(
    ("code", "lean"),
    [
        ("g/ml{SUVlbm}", 1.10 * W - 120 * (W / H) ** 2),
        ("g/ml{SUVlbm(James128)}", 1.10 * W - 128 * (W / H) ** 2),
        ("g/ml{SUVlbm(Janma)}", 9270 * W / (6680 + 216 * W / 1.75**2)),
    ],
)
def test_lean_body_masses_of_cid_85(tmp_path, code, lean, keyword):
    """Longer than 16 characters, a code belongs into LongCodeValue (PS3.3, 8.1); not all heed it."""
    np.testing.assert_allclose(_reckon(tmp_path, _units(code, keyword))[0], W / lean, rtol=1e-9)


@pytest.mark.parametrize("code", ["mg/min/ml", "BQML"])
def test_another_unit_is_refused_by_its_name(tmp_path, code):
    with pytest.raises(InvalidImageError, match=f"Units must be BQML, .* got {code} in"):
        _reckon(tmp_path, _units(code))
