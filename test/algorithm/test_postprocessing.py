from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from algorithm.description import Postprocessing
from algorithm.lesions import measure_burden
from algorithm.postprocessing import clean_mask, lesions, voxel_volume_ml

SPACING = (2.0, 3.0, 4.0)
VOXEL_ML = 0.024


def random_case(seed: int, density: float) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    mask = (rng.random((6, 7, 8)) < density).astype(np.uint8)
    return mask, rng.gamma(2, 2, mask.shape).astype(np.float32)


def test_a_voxel_is_measured_by_its_sides() -> None:
    assert voxel_volume_ml(SPACING) == voxel_volume_ml(SPACING[::-1]) == VOXEL_ML


@pytest.mark.parametrize(
    ("second", "count"),
    [((1, 1, 2), 1), ((1, 2, 2), 1), ((2, 2, 2), 2), ((1, 1, 3), 2)],
    ids=["face", "edge", "corner", "gap"],
)
def test_lesions_touch_by_face_or_edge(second: tuple[int, int, int], count: int) -> None:
    mask = np.zeros((4, 4, 4), np.uint8)
    mask[1, 1, 1] = mask[second] = 1

    labels, found = lesions(mask)

    assert found == count
    assert labels.max() == count
    np.testing.assert_array_equal(labels > 0, mask > 0)


def test_no_lesion() -> None:
    mask = np.zeros((3, 3, 3), np.uint8)

    assert lesions(mask)[1] == 0
    assert measure_burden(mask, sitk.GetImageFromArray(mask.astype(np.float32))).lesions == ()
    assert not clean_mask(mask, mask.astype(np.float32), SPACING, Postprocessing(1.0, 1.0)).any()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    density=st.floats(0.0, 0.5),
    smallest=st.sampled_from([0.0, 1, 2, 2.5, 5]),
    floor=st.sampled_from([0.0, 1, 3]),
)
def test_cleaning_equals_visiting_each_lesion(seed: int, density: float, smallest: float, floor: float) -> None:
    mask, suv = random_case(seed, density)
    before = mask.copy()
    expected = mask.astype(bool)
    if floor:
        expected &= suv >= floor
    labels, count = lesions(expected)
    for number in range(1, count + 1):
        if (labels == number).sum() < smallest:
            expected[labels == number] = False

    cleaned = clean_mask(mask, suv, SPACING, Postprocessing(smallest * VOXEL_ML * 0.999, floor))

    np.testing.assert_array_equal(cleaned, expected)
    assert cleaned.dtype == np.uint8
    np.testing.assert_array_equal(mask, before)


def test_volume_is_taken_after_the_floor() -> None:
    mask = np.ones((1, 1, 4), np.uint8)
    suv = np.array([[[5, 1, 5, 5]]], np.float32)

    cleaned = clean_mask(mask, suv, SPACING, Postprocessing(minimum_lesion_ml=1.5 * VOXEL_ML, suv_floor=2))

    assert cleaned.tolist() == [[[0, 0, 1, 1]]]


def test_nothing_is_removed_by_default() -> None:
    mask, suv = random_case(1, 0.3)

    np.testing.assert_array_equal(clean_mask(mask, suv, SPACING, Postprocessing()), mask)


def test_measures_of_two_lesions() -> None:
    mask = np.zeros((5, 6, 7), np.uint8)
    mask[0, 0, 0] = 1
    mask[3, 2, 4:6] = 1
    suv = np.full(mask.shape, 0.5, np.float32)
    suv[0, 0, 0], suv[3, 2, 4], suv[3, 2, 5] = 9, 4, 7
    pet = sitk.GetImageFromArray(suv)
    pet.SetSpacing(SPACING)
    pet.SetOrigin((100, 200, 300))
    pet.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, 1))

    larger, smaller = measure_burden(mask, pet).lesions

    assert larger.volume_ml == pytest.approx(2 * VOXEL_ML)
    assert (larger.suv_max, larger.suv_mean) == (7, 5.5)
    assert larger.centroid_mm == pytest.approx((100 + 4.5 * 2, 200 - 2 * 3, 300 + 3 * 4))
    assert smaller.volume_ml == pytest.approx(VOXEL_ML)
    assert (smaller.suv_max, smaller.suv_mean) == (9, 9)
    assert smaller.centroid_mm == (100, 200, 300)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), density=st.floats(0.01, 0.4))
def test_measures_equal_visiting_each_lesion(seed: int, density: float) -> None:
    mask, suv = random_case(seed, density)
    pet = sitk.GetImageFromArray(suv)
    pet.SetSpacing(SPACING)
    labels, count = lesions(mask)

    measured = measure_burden(mask, pet).lesions

    expected = sorted(
        ((labels == n).sum() * VOXEL_ML, suv[labels == n].max(), suv[labels == n].mean())
        for n in range(1, count + 1)
    )
    found = sorted((each.volume_ml, each.suv_max, each.suv_mean) for each in measured)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert [each.volume_ml for each in measured] == sorted((each.volume_ml for each in measured), reverse=True)
