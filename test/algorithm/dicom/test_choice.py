"""Which of several PETs and CTs is taken by how much of the body they cover."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from algorithm.dicom.study import read_pet, read_study
from algorithm.errors import InvalidImageError
from test.support.dicom import CORONAL, FEET_FIRST, Maker, oblique, uid


def _pet(folder: Path, slices: int, *, step: float = 3.0, foot: float = 100.0, number: int = 3) -> list[Path]:
    maker = Maker(spacing=(step, 4.0, 5.0), origin=(-40.0, -30.0, foot))
    return maker.pet(folder, np.full((slices, 6, 7), 1000, np.int16), series=folder.name, number=number)


def _ct(folder: Path, maker: Maker, slices: int, side: int, number: int = 2) -> None:
    maker.ct(folder, np.full((slices, side, side), 40, np.int16), series=folder.name, number=number)


class TestPet:
    def test_a_head_does_not_stand_in_for_a_damaged_whole_body(self, tmp_path) -> None:
        _pet(tmp_path / "wb", 60)[30].unlink()
        _pet(tmp_path / "head", 20, foot=220.0, number=5)
        _ct(tmp_path / "ct", Maker(), 60, 7)

        with pytest.raises(InvalidImageError) as caught:
            read_study(tmp_path)

        sentence = re.sub(r", UID [\d.]+", "", str(caught.value))
        assert sentence.startswith('series 3 "synthetic wb" (59 slices) cannot be used: 1 slice is missing')
        assert 'it covers 177 mm, and series 5 "synthetic head" (20 slices) only 57 mm' in sentence
        assert "--pet-series" in sentence
        assert read_study(tmp_path, pet_series=uid("study", "head")).pet_series.number == "5"
        with pytest.raises(InvalidImageError, match="cannot be used: 1 slice is missing"):
            read_pet(tmp_path)

    def test_a_damaged_copy_of_the_same_height_is_passed_over(self, tmp_path) -> None:
        _pet(tmp_path / "again", 62)[30].unlink()
        _pet(tmp_path / "wb", 60, number=5)

        assert read_pet(tmp_path).series.number == "5"

    def test_a_whole_body_goes_before_a_head_of_more_slices(self, tmp_path) -> None:
        _pet(tmp_path / "wb", 60)
        _pet(tmp_path / "head", 70, step=1.0, number=5)
        _ct(tmp_path / "ct", Maker(), 60, 7)

        assert read_study(tmp_path).pet_series.number == "3"

    def test_among_those_of_one_height_the_slices_decide(self, tmp_path) -> None:
        _pet(tmp_path / "thick", 60)
        _pet(tmp_path / "thin", 112, step=1.5, number=5)  # 166.5 of 177 mm

        assert read_pet(tmp_path).series.number == "5"


class TestCt:
    def test_a_spine_of_the_same_height_is_not_taken(self, tmp_path) -> None:
        maker = Maker(spacing=(3.0, 4.0, 4.0), origin=(-200.0, -200.0, 100.0))
        maker.pet(tmp_path / "pet", np.full((20, 100, 100), 1000, np.int16))
        _ct(tmp_path / "ac", maker, 20, 100)
        _ct(tmp_path / "spine", Maker(spacing=(1.5, 1.0, 1.0), origin=(-50.0, 0.0, 100.0)), 39, 100, number=8)

        assert read_study(tmp_path).ct_series.number == "2"

    @pytest.mark.parametrize("orientation", [FEET_FIRST, oblique()], ids=["feet first", "oblique"])
    def test_a_smaller_field_of_view_is_fine_and_more_slices_are_preferred(self, tmp_path, orientation) -> None:
        """500 mm of the PET's 700, as most scanners have it; one CT is a little shorter than the other."""
        place = {"orientation": orientation}
        pet = Maker(spacing=(5.0, 7.0, 7.0), origin=(0.0, 0.0, 0.0), **place)
        rows, columns = np.array(orientation[:3]), np.array(orientation[3:])
        corner = tuple(100.0 * rows + 100.0 * columns)
        pet.pet(tmp_path / "pet", np.full((20, 100, 100), 1000, np.int16))
        _ct(tmp_path / "ac", Maker(spacing=(5.0, 5.0, 5.0), origin=corner, **place), 20, 100)
        _ct(tmp_path / "thin", Maker(spacing=(2.5, 5.0, 5.0), origin=corner, **place), 37, 100, number=8)

        assert read_study(tmp_path).ct_series.number == "8"

    def test_a_reformat_covers_nothing(self, tmp_path) -> None:
        maker = Maker()
        maker.pet(tmp_path / "pet", np.full((20, 6, 7), 1000, np.int16))
        _ct(tmp_path / "part", maker, 15, 7)
        _ct(tmp_path / "coronal", Maker(orientation=CORONAL, origin=(-40.0, -30.0, 160.0)), 40, 40, number=8)

        assert read_study(tmp_path).ct_series.number == "2"
