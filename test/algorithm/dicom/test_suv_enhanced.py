"""What enhanced multi-frame PETs say in words of their own: the time of correction."""

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
    with pytest.raises(InvalidImageError, match="within a day before .* for the acquisition"):
        _reckon(tmp_path, _corrected_to("20250101100000", acquired="20250102110000"))
