from __future__ import annotations

import time

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from algorithm import lesions as module
from algorithm.lesions import PEAK_RADIUS_MM, in_words, measure_burden, number_lesions
from algorithm.postprocessing import lesions as labelled
from test.support.plain_lesions import measure_lesions

SPACING = (2.0, 3.0, 4.0)  # x, y, z


def pet_of(suv: NDArray[np.float32], spacing: tuple[float, ...] = SPACING) -> sitk.Image:
    image = sitk.GetImageFromArray(suv.astype(np.float32))
    image.SetSpacing(spacing)
    return image


def random_pair(seed: int, density: float = 0.15) -> tuple[NDArray[np.uint8], sitk.Image]:
    rng = np.random.default_rng(seed)
    mask = (rng.random((7, 8, 9)) < density).astype(np.uint8)
    pet = pet_of(rng.gamma(2, 2, mask.shape))
    pet.SetOrigin((-30.0, 12.5, 400.0))
    pet.SetDirection((0.8, 0.6, 0.0, -0.6, 0.8, 0.0, 0.0, 0.0, 1.0))
    return mask, pet


def plain_peak(voxels: NDArray[np.int_], suv: NDArray[np.float32], spacing: tuple[float, ...]) -> float:
    """The largest mean over all voxels whose centres lie within 6.2035 mm of one of the lesion's."""
    everywhere = np.argwhere(np.ones(suv.shape, bool))
    means = []
    for voxel in voxels:
        distances = np.linalg.norm((everywhere - voxel) * spacing[::-1], axis=1)
        means.append(suv[tuple(everywhere[distances <= 6.2035].T)].mean(dtype=np.float64))
    return float(max(means))


def plain_diameter(voxels: NDArray[np.int_], spacing: tuple[float, ...]) -> float:
    """The largest of all distances between all corners of all voxels."""
    steps = np.argwhere(np.ones((2, 2, 2), bool))
    corners = (voxels[:, None] + steps).reshape(-1, 3) * spacing[::-1]
    return float(np.linalg.norm(corners[:, None] - corners, axis=2).max())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_numbered_as_the_components_are_by_falling_size(seed: int, density: float) -> None:
    mask = (np.random.default_rng(seed).random((5, 6, 7)) < density).astype(np.uint8)

    labels, count = number_lesions(mask)

    theirs, their_count = labelled(mask)
    assert count == their_count
    np.testing.assert_array_equal(labels > 0, mask > 0)
    assert len(np.unique(np.stack([labels[mask > 0], theirs[mask > 0]]), axis=1).T) == count  # one to one
    sizes = np.bincount(labels.reshape(-1))[1:]
    assert (np.diff(sizes) <= 0).all()
    firsts = [int(np.argmax(labels.reshape(-1) == each)) for each in range(1, count + 1)]
    assert all(a < b for a, b, tie in zip(firsts, firsts[1:], np.diff(sizes) == 0, strict=False) if tie)


def test_many_voxels_are_numbered_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    mask, _ = random_pair(3)
    few = number_lesions(mask)
    monkeypatch.setattr(module, "_MANY_VOXELS", 1)

    many = number_lesions(mask)

    np.testing.assert_array_equal(few[0], many[0])
    assert few[1] == many[1]


@pytest.mark.parametrize("seed", range(6))
def test_every_measure_equals_its_plain_transcription(seed: int) -> None:
    mask, pet = random_pair(seed)
    suv = sitk.GetArrayFromImage(pet)

    burden = measure_burden(mask, pet)

    assert len(burden.lesions) > 5
    for lesion in burden.lesions:
        voxels = np.argwhere(burden.labels == lesion.number)
        values = suv[tuple(voxels.T)].astype(np.float64)
        hottest = voxels[values.argmax()]
        assert lesion.volume_ml == lesion.mtv_ml == pytest.approx(len(voxels) * 0.024)
        assert lesion.suv_max == values.max()
        assert lesion.suv_mean == pytest.approx(values.mean())
        assert lesion.tlg_g == pytest.approx(values.sum() * 0.024)
        assert lesion.suv_peak == pytest.approx(plain_peak(voxels, suv, SPACING))
        assert lesion.longest_diameter_mm == pytest.approx(plain_diameter(voxels, SPACING))
        assert lesion.hottest_mm == pytest.approx(
            pet.TransformIndexToPhysicalPoint([int(v) for v in hottest[::-1]])
        )
        centre = voxels.mean(axis=0)[::-1].tolist()
        assert lesion.centroid_mm == pytest.approx(pet.TransformContinuousIndexToPhysicalPoint(centre))
    centroids = np.array([each.centroid_mm for each in burden.lesions])
    assert burden.totals.dmax_mm == pytest.approx(np.linalg.norm(centroids[:, None] - centroids, axis=2).max())
    assert burden.totals.mtv_ml == pytest.approx(mask.sum() * 0.024)
    assert burden.totals.tlg_g == pytest.approx(suv[mask > 0].sum(dtype=np.float64) * 0.024)
    assert burden.totals.suv_max == suv[mask > 0].max()
    assert burden.totals.suv_peak == max(each.suv_peak for each in burden.lesions)


def test_what_the_run_report_measured_before_is_measured_alike() -> None:
    mask, pet = random_pair(11)

    before, now = measure_lesions(mask, pet), measure_burden(mask, pet).lesions

    for old, new in zip(before, now, strict=True):
        assert new.volume_ml == pytest.approx(old.volume_ml)
        assert new.suv_max == pytest.approx(old.suv_max)
        assert new.suv_mean == pytest.approx(old.suv_mean)
        assert new.centroid_mm == pytest.approx(old.centroid_mm)


def test_peak_of_one_hot_voxel_by_hand() -> None:
    """Of 4 mm: the centre, 6 by a face (4 mm) and 12 by an edge (5.66 mm) are in, corners (6.93 mm) are not."""
    suv = np.zeros((7, 7, 7), np.float32)
    suv[3, 3, 3] = 19.0
    mask = (suv > 0).astype(np.uint8)

    (lesion,) = measure_burden(mask, pet_of(suv, (4.0, 4.0, 4.0))).lesions

    assert pytest.approx(1000) == 4 / 3 * np.pi * PEAK_RADIUS_MM**3
    assert lesion.suv_peak == pytest.approx(1.0)
    assert lesion.suv_max == 19


def test_peak_at_the_image_border_leaves_out_what_lies_outside() -> None:
    suv = np.full((3, 3, 3), 2.0, np.float32)
    mask = np.zeros(suv.shape, np.uint8)
    mask[0, 0, 0] = 1

    (lesion,) = measure_burden(mask, pet_of(suv, (4.0, 4.0, 4.0))).lesions

    assert lesion.suv_peak == pytest.approx(2.0)


def test_peak_may_lie_off_the_hottest_voxel() -> None:
    """The sphere that maximises the mean is not the one around SUVmax."""
    suv = np.ones((9, 9, 20), np.float32)
    suv[4, 4, 3] = 12.0
    suv[2:7, 2:7, 12:17] = 8.0
    mask = np.zeros(suv.shape, np.uint8)
    mask[4, 4, 3:15] = 1

    (lesion,) = measure_burden(mask, pet_of(suv, (4.0, 4.0, 4.0))).lesions

    assert lesion.suv_max == 12
    assert lesion.suv_peak == pytest.approx(8.0)


def test_diameter_of_a_box_by_hand() -> None:
    mask = np.zeros((6, 6, 6), np.uint8)
    mask[1:3, 1:5, 1:4] = 1

    (lesion,) = measure_burden(mask, pet_of(np.ones(mask.shape))).lesions

    assert lesion.longest_diameter_mm == pytest.approx(np.sqrt((3 * 2) ** 2 + (4 * 3) ** 2 + (2 * 4) ** 2))


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_diameter_of_many_points_is_that_of_all_pairs(dimensions: int) -> None:
    rng = np.random.default_rng(dimensions)
    points = rng.normal(size=(900, dimensions)) @ rng.normal(size=(dimensions, 3)) * 40

    farthest = module._largest_distance(points)

    assert farthest == pytest.approx(np.linalg.norm(points[:, None] - points, axis=2).max())


def test_no_lesion_has_no_maximum() -> None:
    burden = measure_burden(np.zeros((3, 3, 3), np.uint8), pet_of(np.ones((3, 3, 3))))

    assert burden.lesions == ()
    assert burden.totals == module.Totals(0, 0.0, 0.0, None, None, None)


def test_one_lesion_has_no_distance() -> None:
    mask = np.zeros((3, 3, 3), np.uint8)
    mask[1, 1, 1] = 1

    assert measure_burden(mask, pet_of(np.ones((3, 3, 3)))).totals.dmax_mm is None


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"mask and PET must have the same size"):
        measure_burden(np.zeros((3, 3, 3), np.uint8), pet_of(np.ones((3, 3, 4))))


@pytest.mark.slow
def test_a_body_with_500_lesions_takes_less_than_one_and_a_half_seconds() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((326, 400, 400), np.uint8)
    ball = np.square(np.indices((13, 13, 13)) - 6).sum(axis=0)
    places = [(z, y, x) for z in range(20, 300, 15) for y in range(60, 340, 15) for x in range(60, 340, 15)]
    for place in rng.permutation(len(places))[:500]:
        z, y, x = places[place]
        mask[z : z + 13, y : y + 13, x : x + 13] |= ball < rng.uniform(1.5, 6.5) ** 2
    pet = pet_of(rng.random(mask.shape, dtype=np.float32) * 8, (2.04, 2.04, 3.0))
    seconds = []
    for _ in range(3):
        started = time.process_time()
        burden = measure_burden(mask, pet)
        seconds.append(time.process_time() - started)

    assert len(burden.lesions) == 500
    assert min(seconds) < 1.5


def test_peak_is_that_of_an_ibsi_compliant_program() -> None:
    """Of MIRP 2.7.0 (github.com/oncoray/mirp): loc_peak_glob of these very images, written as NIfTI."""
    mask = np.zeros((16, 20, 22), np.uint8)
    mask[5:10, 6:13, 7:14] = 1
    mask[8:12, 9:15, 4:9] = 1
    suv = np.random.default_rng(5).gamma(2, 2, mask.shape).astype(np.float32)

    (lesion,) = measure_burden(mask, pet_of(suv, (2.04, 2.5, 3.27))).lesions

    assert lesion.suv_peak == pytest.approx(4.9330845, rel=1e-6)
    assert lesion.volume_ml == pytest.approx(5.82027285721, rel=1e-6)  # its morph_vol_approx


@pytest.mark.parametrize(
    ("amount", "text"), [(0.0, "0.0"), (0.0038, "< 0.01"), (0.024, "0.02"), (0.96, "0.96"), (31.38, "31.4")]
)
def test_no_volume_is_told_as_none(amount: float, text: str) -> None:
    assert in_words(amount) == text
