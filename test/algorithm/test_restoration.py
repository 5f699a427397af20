"""What is interpolated in boxes alone is what interpolating everything gives."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm import restoration
from algorithm.preprocessing import resample, restore
from algorithm.restoration import exceeding

SIZE = (23, 19, 17)
SPACING = (2.0, 2.5, 3.0)
ORIENTATIONS = ("LPS", "RAS", "LAI", "PSR", "ILA")
TURNED = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)


def pet_in(orientation: str) -> sitk.Image:
    """A PET whose axes lie so in the patient, its origin away from 0."""
    image = sitk.Image(SIZE, sitk.sitkFloat32)
    image.SetSpacing(SPACING)
    image.SetDirection(sitk.DICOMOrientImageFilter().GetDirectionCosinesFromOrientation(orientation))
    image.SetOrigin((-31.7, 12.3, 501.9))
    return image


def blobs(shape: tuple[int, ...], seed: int, count: int = 4) -> np.ndarray:
    """A probability that is low but for some balls, one of them at a corner."""
    generator = np.random.default_rng(seed)
    probability = generator.random(shape).astype(np.float32) * np.float32(0.3)
    places = np.indices(shape)
    for centre in [(0, 0, 0), *(generator.integers(0, shape) for _ in range(count - 1))]:
        away = sum((axis - at) ** 2 for axis, at in zip(places, centre, strict=True))
        probability[away <= 4] = 0.95
    return probability


@pytest.mark.parametrize("spacing", [(5.0, 5.0, 5.0), (1.3, 2.9, 4.1), None])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_mask_is_that_of_interpolating_everything(
    orientation: str, spacing: tuple[float, float, float] | None
) -> None:
    pet = pet_in(orientation)
    grid = resample(pet, spacing)
    for seed in range(4):
        probability = blobs(grid.GetSize(), seed)
        expected = np.concatenate(list(restore(probability, grid, pet))) > 0.5
        assert expected.any()
        np.testing.assert_array_equal(exceeding(probability, grid, pet, 0.5), expected)


def test_a_grid_that_is_rotated_against_the_pet_loses_nothing() -> None:
    pet = pet_in("LPS")
    grid = sitk.Image((14, 15, 13), sitk.sitkFloat32)
    grid.SetSpacing((4.0, 4.0, 4.5))
    grid.SetDirection(np.array(TURNED).reshape(3, 3)[:, [2, 0, 1]].ravel().tolist())
    grid.SetOrigin((-45.0, 0.0, 495.0))
    probability = blobs(grid.GetSize(), 7, count=12)
    expected = np.concatenate(list(restore(probability, grid, pet))) > 0.5
    assert expected.any()
    np.testing.assert_array_equal(exceeding(probability, grid, pet, 0.5), expected)


def test_only_what_can_be_tumour_is_interpolated(monkeypatch: pytest.MonkeyPatch) -> None:
    pet = pet_in("LPS")
    grid = resample(pet, (5.0, 5.0, 5.0))
    probability = np.zeros(grid.GetSize(), np.float32)
    asked: list[int] = []

    def counted(image: sitk.Image, like: sitk.Image, box: tuple[slice, ...]) -> np.ndarray:
        asked.append(int(np.prod([part.stop - part.start for part in box])))
        return original(image, like, box)

    original = restoration.resample_onto
    monkeypatch.setattr(restoration, "resample_onto", counted)
    assert not exceeding(probability, grid, pet, 0.5).any()
    assert not asked
    probability[4, 4, 4] = 1.0
    assert exceeding(probability, grid, pet, 0.5).any()
    assert 0 < sum(asked) < 7 * 6 * 5 < np.prod(SIZE) / 10


@pytest.mark.parametrize("axis", range(3))
def test_lines_are_told_by_their_ends(axis: int) -> None:
    mask = np.random.default_rng(axis).random((5, 6, 7)) > 0.6
    found = {tuple(each) for each in restoration._ends_of_lines(mask, axis).tolist()}
    expected = set()
    for place in itertools.product(*(range(side) for side in np.delete(mask.shape, axis))):
        on = np.flatnonzero(mask[tuple(np.insert(np.array(place, object), axis, slice(None)))])
        expected |= {tuple(np.insert(place, axis, end).tolist()) for end in on[[0, -1]]} if on.size else set()
    assert found == expected
