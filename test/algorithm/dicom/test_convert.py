"""A DICOM folder to one SUV image."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.dicom.convert import convert
from algorithm.dicom.reckoning import SuvOverrides
from algorithm.errors import InvalidImageError, OutputError
from test.support.dicom import FEET_FIRST, Maker, edit_all

PET = np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha", ".nrrd", ".NII.GZ", ".Mha"])
def test_the_image_has_the_suvs_and_the_place(tmp_path, suffix):
    maker = Maker(orientation=FEET_FIRST)
    maker.pet(tmp_path / "in", PET, slopes=2.0, edit=edit_all(Units="GML"))
    told: list[str] = []
    pet = convert(tmp_path / "in", tmp_path / f"suv{suffix}", say=told.append)
    written = (tmp_path / f"suv{suffix}").rename(tmp_path / f"suv{suffix.lower()}")
    image = sitk.ReadImage(str(written))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), PET * 2.0)
    np.testing.assert_allclose(image.GetOrigin(), pet.image.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(image.GetDirection(), np.diag([-1, 1, -1]).ravel(), atol=1e-6)
    assert told[0].startswith('PET series 3 "synthetic pet" (6 slices')
    assert "Units are GML: values are SUVbw already." in told
    assert "SUVbw 0 to 238" in told[-1]


def test_overrides_reach_the_reckoning(tmp_path):
    Maker().pet(tmp_path / "in", PET, edit=edit_all(PatientWeight=None))
    told: list[str] = []
    convert(tmp_path / "in", tmp_path / "suv.mha", SuvOverrides(weight_kg=70), told.append)
    assert "Given by the user: weight 70 kg, the header has none." in told


def test_nothing_is_overwritten(tmp_path):
    Maker().pet(tmp_path / "in", PET)
    (tmp_path / "suv.mha").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        convert(tmp_path / "in", tmp_path / "suv.mha")
    assert (tmp_path / "suv.mha").read_text() == "mine"


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"got suv\.png"):
        convert(tmp_path, tmp_path / "suv.png")


def test_a_pet_that_cannot_be_converted_leaves_no_file(tmp_path):
    Maker().pet(tmp_path / "in", PET, edit=edit_all(Units="CNTS"))
    with pytest.raises(InvalidImageError):
        convert(tmp_path / "in", tmp_path / "suv.mha")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
