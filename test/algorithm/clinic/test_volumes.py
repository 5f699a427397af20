from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.clinic import volumes as module
from algorithm.clinic.pictures import Upright
from algorithm.clinic.volumes import volumes_for_viewer
from algorithm.lesions import number_lesions
from test.support.clinic_case import synthetic_case

ROOM = 10_000_000
OBLIQUE = tuple(sitk.Euler3DTransform((0, 0, 0), 0.1, -0.05, 0.2).GetMatrix())


def read(content: str, path: Path) -> sitk.Image:
    path.write_bytes(base64.b64decode(content))
    return sitk.ReadImage(str(path))


@pytest.mark.parametrize("direction", [(1, 0, 0, 0, 1, 0, 0, 0, 1), (1, 0, 0, 0, -1, 0, 0, 0, -1), OBLIQUE])
def test_volumes_lie_where_the_images_lie(tmp_path: Path, direction: tuple[float, ...]) -> None:
    ct, pet, mask = synthetic_case(direction)
    case = Upright.of(pet, number_lesions(mask)[0])

    small = volumes_for_viewer(case, ct, ROOM)

    images = [read(each, tmp_path / "a.nii.gz") for each in (small.ct, small.pet, small.lesions)]
    assert len({(each.GetSize(), each.GetOrigin(), each.GetSpacing()) for each in images}) == 1
    assert images[0].GetSpacing() == pytest.approx((3.0, 3.0, 3.0))
    for image, original, tolerance in ((images[0], ct, 8.0), (images[1], pet, 0.1)):
        back = sitk.Resample(
            original, image, sitk.Transform(), sitk.sitkLinear, -1024.0 if original is ct else 0.0
        )
        found, expected = sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(back)
        assert np.abs(found - expected.astype(float)).max() <= tolerance * 0.51
    lesions = sitk.Resample(images[2], pet, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    found, expected = sitk.GetArrayFromImage(lesions) > 0, mask > 0
    assert 2 * (found & expected).sum() / (found.sum() + expected.sum()) > 0.85


def test_the_volumes_grow_coarser_until_they_are_small() -> None:
    ct, pet, mask = synthetic_case()
    noise = sitk.GetImageFromArray(np.random.default_rng(0).normal(0, 400, mask.shape).astype(np.int16))
    noise.CopyInformation(ct)
    case = Upright.of(pet, number_lesions(mask)[0])

    small = volumes_for_viewer(case, noise, 50_000)

    assert small.voxel_mm > 3
    assert sum(len(each) for each in (small.ct, small.pet, small.lesions)) <= 50_100


def test_no_lesion_is_lost_on_a_coarse_grid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ct, pet, mask = synthetic_case()
    mask[:] = 0
    mask[5:55:7, 15:35:6, 20:44:6] = 1
    monkeypatch.setattr(module, "_MOST_VOXELS", 20_000)
    labels, count = number_lesions(mask)

    small = volumes_for_viewer(Upright.of(pet, labels), ct, ROOM)

    image = read(small.lesions, tmp_path / "a.nii.gz")
    assert sitk.GetArrayFromImage(image).sum() >= count > 20


def test_the_same_case_gives_the_same_bytes() -> None:
    ct, pet, mask = synthetic_case()
    case = Upright.of(pet, number_lesions(mask)[0])

    assert volumes_for_viewer(case, ct, ROOM) == volumes_for_viewer(case, ct, ROOM)
