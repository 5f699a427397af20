from __future__ import annotations

import base64
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from algorithm.clinic.pictures import Outline, Picture, Upright, _outline, fused_slice, projections
from algorithm.lesions import number_lesions
from test.support.clinic_case import synthetic_case


def pixels(picture: Picture, tmp_path: Path) -> NDArray[np.uint8]:
    path = tmp_path / "picture.png"
    path.write_bytes(base64.b64decode(picture.png.removeprefix("data:image/png;base64,")))
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def painted(outline: Outline, shape: tuple[int, int], step: tuple[float, float]) -> NDArray[np.bool_]:
    """Paint an outline's area back onto pixels."""
    found = np.zeros(shape, bool)
    for x, y, width in re.findall(r"M([\d.e-]+) ([\d.e-]+)h([\d.e-]+)v", outline.area):
        row, column = round(float(y) / step[1]), round(float(x) / step[0])
        found[row, column : column + round(float(width) / step[0])] = True
    return found


def edges(outline: Outline) -> float:
    """Length of all lines of a path."""
    return sum(float(each) for each in re.findall(r"[hv]([\d.]+)", outline.path))


def test_outline_of_one_pixel_by_hand() -> None:
    outline = _outline(3, np.array([[5, 2]]), (2.0, 3.0))

    assert outline.number == 3
    assert outline.box == (4.0, 15.0, 6.0, 18.0)
    assert sorted(re.findall(r"M[^M]+", outline.path)) == ["M4 15h2", "M4 15v3", "M4 18h2", "M6 15v3"]
    assert outline.area == "M4 15h2v3H4z"


@pytest.mark.parametrize("seed", range(5))
def test_outlines_enclose_exactly_the_pixels(seed: int) -> None:
    inside = np.random.default_rng(seed).random((9, 12)) < 0.4
    spots = np.argwhere(inside)

    outline = _outline(1, np.concatenate([spots, spots]), (2.0, 3.0))

    np.testing.assert_array_equal(painted(outline, inside.shape, (2.0, 3.0)), inside)
    framed = np.pad(inside, 1)
    length = 2.0 * (framed[1:] != framed[:-1]).sum() + 3.0 * (framed[:, 1:] != framed[:, :-1]).sum()
    assert edges(outline) == pytest.approx(length)


@pytest.mark.parametrize("orientation", ["LPS", "RAI", "SPL"])
def test_projections_do_not_depend_on_how_the_grid_is_stored(tmp_path: Path, orientation: str) -> None:
    _, pet, mask = synthetic_case()
    labels, _ = number_lesions(mask)
    image = sitk.GetImageFromArray(labels)
    image.CopyInformation(pet)
    turned = sitk.GetArrayFromImage(sitk.DICOMOrient(image, orientation))

    expected = projections(Upright.of(pet, labels))
    found = projections(Upright.of(sitk.DICOMOrient(pet, orientation), turned))

    assert found == expected


def test_projections_show_the_patient_upright_right_on_the_left(tmp_path: Path) -> None:
    _, pet, mask = synthetic_case()
    labels, _ = number_lesions(mask)
    case = Upright.of(pet, labels)

    coronal, sagittal = projections(case)

    rows, columns, depths = case.box[0], case.box[2], case.box[1]
    suv = sitk.GetArrayFromImage(pet)[rows, depths, columns]
    for picture, axis in ((coronal, 1), (sagittal, 2)):
        expected = 255 - np.clip(suv.max(axis=axis) / 10 * 255, 0, 255).round()[::-1]
        np.testing.assert_allclose(pixels(picture, tmp_path), expected, atol=1)
        assert [each.number for each in picture.outlines] == [1, 2, 3, 4]
    assert coronal.height_mm == pytest.approx(60 * 3)
    assert coronal.width_mm == pytest.approx((columns.stop - columns.start) * 4)
    found = painted(coronal.outlines[0], (60, columns.stop - columns.start), (4.0, 3.0))
    np.testing.assert_array_equal(found, (labels == 1).any(axis=1)[::-1, columns])


def test_fused_slice_lies_where_the_lesion_is_largest(tmp_path: Path) -> None:
    ct, pet, mask = synthetic_case()
    labels, _ = number_lesions(mask)
    case = Upright.of(pet, labels)

    picture = fused_slice(case, ct, 1)

    assert picture.slice_mm == pytest.approx(-700.25 + 40 * 3)
    assert (picture.width_mm, picture.height_mm) == (240, 180)
    colours = pixels(picture, tmp_path).astype(int)
    outline = next(each for each in picture.outlines if each.number == 1)
    x, y = (outline.box[0] + outline.box[2]) / 2, (outline.box[1] + outline.box[3]) / 2
    hot = colours[round(y / 180 * colours.shape[0]), round(x / 240 * colours.shape[1])]
    assert hot[0] == 255 or hot.min() > 180  # SUV 12 is white in hot iron, over grey
    assert np.abs(np.diff(colours[2, 2])).max() == 0  # air is neither red nor blue


def test_fused_slice_grows_with_the_lesion() -> None:
    ct, pet, mask = synthetic_case()
    mask[30, 8:42, 10:54] = 1
    case = Upright.of(pet, number_lesions(mask)[0])

    picture = fused_slice(case, ct, 1)

    assert picture.width_mm >= 44 * 4 + 80
    assert picture.width_mm / picture.height_mm == pytest.approx(4 / 3, rel=0.02)


def test_a_finer_ct_on_its_own_grid_lands_in_the_same_place(tmp_path: Path) -> None:
    ct, pet, mask = synthetic_case()
    hu = sitk.GetArrayFromImage(ct)
    hu[40, 30:34, 30:34] = 1000
    marked = sitk.GetImageFromArray(hu)
    marked.CopyInformation(ct)
    grid = sitk.Image([140, 120, 90], sitk.sitkInt16)
    grid.SetSpacing((2.0, 2.0, 2.0))
    grid.SetOrigin((-130.0, -110.0, -705.0))
    finer = sitk.Resample(marked, grid, sitk.Transform(), sitk.sitkLinear, -1024)
    case = Upright.of(pet, number_lesions(mask)[0])

    coarse, fine = (pixels(fused_slice(case, each, 1), tmp_path).astype(int) for each in (marked, finer))

    assert np.abs(coarse - fine).mean() < 6
    assert np.abs(coarse - fine)[100:, 100:].mean() < 6


def test_without_a_lesion_there_are_projections_without_outlines() -> None:
    _, pet, mask = synthetic_case()

    coronal, _ = projections(Upright.of(pet, np.zeros(mask.shape, np.int32)))

    assert coronal.outlines == ()


def test_an_empty_pet_is_shown_whole() -> None:
    pet = sitk.Image([6, 5, 4], sitk.sitkFloat32)

    coronal, _ = projections(Upright.of(pet, np.zeros((4, 5, 6), np.int32)))

    assert (coronal.width_mm, coronal.height_mm) == (6, 4)
