"""Real series and reference objects: expected SUVs, and the images that others made of them.

Sources: digital reference objects of Vácha et al. (oncoray/suv_computation, CC BY 4.0); STS_002 and STS_008 of
TCIA's Soft-tissue-Sarcoma as the IBSI published them (CC BY 3.0).
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.dicom.study import read_pet, read_study

OBJECTS = ("0_0", "1_0", "2_1", "2_4", "3_0", "3_1", "3_3", "4_1", "5_0")
PATIENTS = ("STS_002", "STS_008")


@pytest.fixture(scope="session")
def unpacked(real_data, tmp_path_factory):
    def unpack(name: str) -> Path:
        archive = real_data / "dicom" / name
        if not archive.is_file():
            pytest.skip(f"there is no {archive}")
        folder = tmp_path_factory.mktemp(archive.name.split(".")[0])
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        return folder

    return unpack


@pytest.mark.data
@pytest.mark.parametrize("name", OBJECTS)
def test_reference_objects_have_their_suvs(unpacked, name):
    """SUVbw in the mask: minimum 0.20, median 1.00, maximum 4.00; zero outside."""
    folder = unpacked(f"dro/DRO_{name}.tar.xz")
    pet = read_pet(folder)
    mask = sitk.ReadImage(str(next(folder.rglob("DRO_mask.nii.gz"))))
    assert mask.GetSize() == pet.image.GetSize()
    inside = sitk.GetArrayFromImage(mask) > 0
    values = sitk.GetArrayFromImage(pet.image)
    found = (values[inside].min(), np.median(values[inside]), values[inside].max())
    np.testing.assert_allclose(found, (0.20, 1.00, 4.00), atol=0.005)
    assert not values[~inside].any()


@pytest.mark.data
@pytest.mark.parametrize("name", PATIENTS)
def test_patients_equal_the_released_images(real_data, unpacked, name):
    study = read_study(unpacked(f"sts/{name}.tar.xz"))
    suv = sitk.ReadImage(str(real_data / "sts" / name / "pet-ct" / "SUV.nii.gz"))
    assert study.pet.GetSize() == suv.GetSize()
    np.testing.assert_allclose(study.pet.GetOrigin(), suv.GetOrigin(), atol=1e-3)
    np.testing.assert_allclose(study.pet.GetSpacing(), suv.GetSpacing(), atol=1e-4)
    np.testing.assert_allclose(study.pet.GetDirection(), suv.GetDirection(), atol=1e-6)
    expected = sitk.GetArrayFromImage(suv)
    apart = np.abs(sitk.GetArrayFromImage(study.pet) - expected).max()
    assert apart <= 0.001 * expected.max()

    ct = sitk.Resample(study.ct, suv, sitk.Transform(), sitk.sitkLinear, -1024.0, sitk.sitkFloat32)
    theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(real_data / "sts" / name / "pet-ct" / "CTres.nii.gz")))
    body = theirs > -500
    apart = np.abs(sitk.GetArrayFromImage(ct) - theirs)[body]
    assert (apart <= 5).mean() >= 0.99


@pytest.mark.data
@pytest.mark.parametrize("name", PATIENTS)
def test_patients_equal_what_gdcm_reads(unpacked, name):
    """GML: SimpleITK's own series reader gives SUVs and HU as well."""
    folder = unpacked(f"sts/{name}.tar.xz")
    study = read_study(folder)
    for image, series in ((study.pet, study.pet_series), (study.ct, study.ct_series)):
        reader = sitk.ImageSeriesReader()
        place = str(series.paths[0].parent)
        reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(place, series.uid))
        other = reader.Execute()
        np.testing.assert_allclose(image.GetOrigin(), other.GetOrigin(), atol=1e-3)
        np.testing.assert_allclose(image.GetSpacing(), other.GetSpacing(), atol=1e-3)
        np.testing.assert_allclose(
            sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(other), rtol=1e-5, atol=1e-6
        )
