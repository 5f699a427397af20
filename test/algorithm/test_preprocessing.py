from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from algorithm.description import Normalisation
from algorithm.images import AIR_HU, PetCt
from algorithm.preprocessing import body_mask, matter_mask, normalise, prepare, resample, restore
from test.support.checkpoints import describe
from test.support.phantom import make_torso

SIZE = (24, 20, 16)
SPACING = (3.0, 4.0, 5.0)
FLIPPED = (1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0)
ORIENTATIONS = ["LPS", "LAS", "RAI", "PSL", "SRP"]


def values(seed: int, shape: tuple[int, ...] = (5, 6, 7)) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(2, 5, shape).astype(np.float32)


def image_of(
    array: NDArray[np.generic], direction: tuple[float, ...] = FLIPPED, spacing: tuple[float, ...] = SPACING
) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin((-70.5, 33.25, 810.0))
    image.SetDirection(direction)
    return image


def oriented(array: NDArray[np.generic], orientation: str) -> sitk.Image:
    """Return an image of these voxels whose axes point to the named sides of the patient."""
    direction = sitk.DICOMOrientImageFilter().GetDirectionCosinesFromOrientation(orientation)
    return image_of(array, direction)


def pair_of(ct: sitk.Image, pet: sitk.Image) -> PetCt:
    return PetCt(ct=ct, pet=pet, ct_path=Path("ct"), pet_path=Path("pet"), ct_resampled=False)


class TestNormalise:
    @given(seed=st.integers(0, 1000), low=st.floats(-5, 1), width=st.floats(0.5, 10))
    def test_clip_scale(self, seed: int, low: float, width: float) -> None:
        x = values(seed)

        out = normalise(x, Normalisation("clip-scale", low=low, high=low + width), None)

        np.testing.assert_allclose(out, (np.clip(x, low, low + width) - low) / width, atol=1e-5)
        assert out.dtype == np.float32

    @pytest.mark.parametrize(("low", "high"), [(None, None), (-1.0, 4.0), (0.0, None), (None, 4.0)])
    def test_z_score_of_the_volume(self, low: float | None, high: float | None) -> None:
        x = values(1)
        clipped = x if low is None and high is None else np.clip(x, low, high)

        out = normalise(x, Normalisation("z-score-volume", low=low, high=high), None)

        np.testing.assert_allclose(out, (clipped - clipped.mean()) / clipped.std(), atol=1e-5)

    def test_z_score_inside_the_body(self) -> None:
        x = values(2)
        body = np.random.default_rng(2).random(x.shape) < 0.4

        out = normalise(x, Normalisation("z-score-body"), body)

        np.testing.assert_allclose(out, (x - x[body].mean()) / x[body].std(), atol=1e-5)

    def test_z_score_with_stored_statistics(self) -> None:
        x = values(3)

        out = normalise(x, Normalisation("z-score-stored", low=-2.0, high=6.0, mean=1.5, std=3.0), None)

        np.testing.assert_allclose(out, (np.clip(x, -2, 6) - 1.5) / 3, atol=1e-6)

    def test_kinds_that_measure_nothing_take_any_part(self) -> None:
        x = values(4)
        for how in (Normalisation("clip-scale", 0, 3), Normalisation("z-score-stored", 0, 3, 1, 2)):
            np.testing.assert_array_equal(normalise(x, how, None)[:2], normalise(x[:2], how, None))

    @pytest.mark.parametrize("kind", ["z-score-volume", "z-score-body"])
    def test_constant_volume_becomes_zero(self, kind: str) -> None:
        x = np.full((3, 4, 5), 7, np.float32)

        assert not normalise(x, Normalisation(kind), np.ones(x.shape, bool)).any()

    def test_the_input_is_left_alone(self) -> None:
        x = values(5)
        before = x.copy()

        for how in (Normalisation("z-score-volume"), Normalisation("clip-scale", 0, 1)):
            normalise(x, how, None)

        np.testing.assert_array_equal(x, before)

    def test_empty_body_is_the_volume_and_none_is_an_error(self) -> None:
        x = values(6)
        how = Normalisation("z-score-body")

        np.testing.assert_array_equal(
            normalise(x, how, np.zeros(x.shape, bool)), normalise(x, Normalisation("z-score-volume"), None)
        )
        with pytest.raises(ValueError, match="z-score-body needs the body mask"):
            normalise(x, how, None)


class TestResample:
    def test_own_spacing_and_orientation_change_nothing(self) -> None:
        image = image_of(values(0, SIZE[::-1]))

        same = resample(image, None, orientation=None)

        assert same.GetDirection() == image.GetDirection()
        np.testing.assert_array_equal(sitk.GetArrayFromImage(same), sitk.GetArrayFromImage(image))

    @pytest.mark.parametrize("orientation", ORIENTATIONS)
    def test_axes_are_turned_and_voxels_stay_in_place(self, orientation: str) -> None:
        array = values(0, SIZE[::-1])
        image = oriented(array, orientation)

        turned = resample(image, None)

        np.testing.assert_allclose(np.reshape(turned.GetDirection(), (3, 3)), np.eye(3), atol=1e-12)
        for index in [(0, 0, 0), (3, 5, 7), (23, 19, 15)]:
            there = turned.TransformPhysicalPointToIndex(image.TransformIndexToPhysicalPoint(index))
            assert turned[there] == image[index]

    @settings(max_examples=50, deadline=None)
    @given(
        spacing=st.tuples(*[st.floats(1.0, 12.0)] * 3),
        direction=st.sampled_from(list(itertools.product((1.0, -1.0), repeat=3))),
    )
    def test_outer_corner_stays_and_nothing_is_lost(
        self, spacing: tuple[float, float, float], direction: tuple[float, ...]
    ) -> None:
        image = image_of(values(0, SIZE[::-1]), tuple(np.diag(direction).ravel()))

        new = resample(image, spacing, orientation=None)

        corner = [part.TransformContinuousIndexToPhysicalPoint((-0.5, -0.5, -0.5)) for part in (image, new)]
        np.testing.assert_allclose(corner[0], corner[1], atol=1e-6)
        assert new.GetDirection() == image.GetDirection()
        for old_side, old, side, step in zip(SIZE, SPACING, new.GetSize(), new.GetSpacing(), strict=True):
            assert side * step >= old_side * old - 2e-3 * step or math.isclose(step, old, abs_tol=1e-4)
            assert (side - 1) * step < old_side * old

    @pytest.mark.parametrize("orientation", ORIENTATIONS)
    def test_a_ramp_survives(self, orientation: str) -> None:
        """Linear interpolation gives a linear function of space back exactly, wherever it has neighbours."""
        image = oriented(values(0, SIZE[::-1]), orientation)
        slope = np.array([0.5, -0.25, 0.125])

        def ramp(grid: sitk.Image) -> NDArray[np.float32]:
            x, y, z = np.meshgrid(*(np.arange(side) for side in grid.GetSize()), indexing="ij")
            direction = np.reshape(grid.GetDirection(), (3, 3)) * grid.GetSpacing()
            places = np.array([x, y, z]).reshape(3, -1).T @ direction.T + grid.GetOrigin()
            return (places @ slope).reshape(x.shape).transpose(2, 1, 0).astype(np.float32)

        filled = sitk.GetImageFromArray(ramp(image))
        filled.CopyInformation(image)

        new = resample(filled, (2.5, 6.0, 4.0))

        inner = (slice(2, -2),) * 3
        np.testing.assert_allclose(sitk.GetArrayFromImage(new)[inner], ramp(new)[inner], atol=1e-3)

    def test_nearest_neighbour_keeps_labels_and_pixel_type(self) -> None:
        labels = np.random.default_rng(0).integers(0, 4, SIZE[::-1], np.uint8)

        new = resample(image_of(labels), (2.0, 2.0, 2.0), linear=False)

        assert new.GetPixelID() == sitk.sitkUInt8
        assert set(np.unique(sitk.GetArrayFromImage(new))) <= {0, 1, 2, 3}

    def test_outside_is_filled_as_told(self) -> None:
        image = image_of(np.full(SIZE[::-1], 40, np.float32))

        new = sitk.GetArrayFromImage(resample(image, (3.0, 4.0, 7.0), orientation=None, outside=AIR_HU))

        assert set(np.unique(new)) == {40.0, AIR_HU}
        assert (new[:-1] == 40).all()


class TestRestore:
    @pytest.mark.parametrize("spacing", [None, (2.0, 2.0, 2.0), (4.5, 5.5, 6.5)])
    @pytest.mark.parametrize("orientation", ORIENTATIONS)
    def test_a_known_box_comes_back_in_place(
        self, orientation: str, spacing: tuple[float, float, float] | None
    ) -> None:
        suv = np.ones(SIZE[::-1], np.float32)
        box = (slice(4, 11), slice(6, 14), slice(5, 17))  # z, y, x
        suv[box] = 9
        pet = oriented(suv, orientation)
        ct = oriented(np.full_like(suv, 30), orientation)
        prepared = prepare(
            pair_of(ct, pet), describe(spacing=spacing, pet=Normalisation("clip-scale", low=1.0, high=9.0))
        )

        slabs = list(restore(prepared.pet, prepared.grid, pet))

        restored = np.concatenate(slabs)
        assert restored.shape == suv.shape
        found = restored > 0.5
        voxels = 7 * 8 * 12
        assert found.sum() == pytest.approx(voxels, rel=0 if spacing is None else 0.3)
        centre = [np.mean(axis) for axis in np.nonzero(found)]
        np.testing.assert_allclose(centre, [7, 9.5, 10.5], atol=1e-9 if spacing is None else 0.7)
        core = tuple(slice(part.start + 2, part.stop - 2) for part in box)
        assert found[core].all()

    @pytest.mark.parametrize(
        "direction", [FLIPPED, (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0), (0, 0, 1.0, 1.0, 0, 0, 0, 1.0, 0)]
    )
    def test_slabs_equal_the_whole(self, direction: tuple[float, ...], monkeypatch: pytest.MonkeyPatch) -> None:
        pet = image_of(values(1, SIZE[::-1]), direction)
        grid = resample(pet, (5.0, 5.0, 5.0))
        probability = np.random.default_rng(0).random(grid.GetSize()).astype(np.float32)
        whole = list(restore(probability, grid, pet))

        monkeypatch.setattr("algorithm.preprocessing._SLAB_VOXELS", 3 * SIZE[0] * SIZE[1])
        slabs = list(restore(probability, grid, pet))

        assert [len(slab) for slab in slabs] == [3, 3, 3, 3, 3, 1]
        np.testing.assert_allclose(np.concatenate(slabs), whole[0], atol=1e-6)


class TestPrepare:
    def test_network_axes_are_x_y_z_of_the_patient(self) -> None:
        suv = np.zeros(SIZE[::-1], np.float32)
        suv[2, 3, 5] = 4  # z, y, x; the y axis points to the front
        pet = image_of(suv)
        ct = image_of(np.full_like(suv, 30))

        prepared = prepare(
            pair_of(ct, pet), describe(spacing=None, pet=Normalisation("clip-scale", low=0.0, high=4.0))
        )

        assert prepared.pet.shape == prepared.ct.shape == SIZE
        assert np.argwhere(prepared.pet == 1).tolist() == [[5, SIZE[1] - 1 - 3, 2]]
        assert prepared.pet.flags.c_contiguous
        assert prepared.pet.dtype == prepared.ct.dtype == np.float32

    def test_outside_is_air_without_uptake(self) -> None:
        ct = image_of(np.full(SIZE[::-1], 50, np.float32))
        pet = image_of(np.full(SIZE[::-1], 3, np.float32))
        how = {"ct": Normalisation("clip-scale", low=-300.0, high=300.0), "pet": Normalisation("z-score-volume")}

        prepared = prepare(pair_of(ct, pet), describe(spacing=None, **how))

        assert prepared.ct_outside == 0  # air, although the volume holds none
        assert prepared.pet_outside == prepared.pet.min()

    def test_orientation_null_leaves_axes(self) -> None:
        suv = np.zeros(SIZE[::-1], np.float32)
        suv[2, 3, 5] = 4
        pair = pair_of(image_of(np.full_like(suv, 30)), image_of(suv))

        prepared = prepare(
            pair, describe(spacing=None, orientation=None, pet=Normalisation("clip-scale", low=0.0, high=4.0))
        )

        assert np.argwhere(prepared.pet == 1).tolist() == [[5, 3, 2]]

    def test_box_holds_the_torso_and_little_else(self) -> None:
        torso = make_torso()
        pair = pair_of(sitk.Cast(torso.ct, sitk.sitkFloat32), torso.pet)

        prepared = prepare(pair, describe(spacing=(4.0, 4.0, 4.0)))

        truth = sitk.GetArrayFromImage(resample(torso.truth, (4.0, 4.0, 4.0), linear=False)).transpose(2, 1, 0)
        outside = np.ones(truth.shape, bool)
        outside[prepared.body] = False
        assert truth.any()
        assert not truth[outside].any()
        assert outside.mean() > 0.2
        body_suv = prepared.pet[prepared.body]
        assert body_suv.max() == prepared.pet.max()


class TestBodyMask:
    spacing = (4.0, 4.0, 4.0)

    def patient_and_table(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float32]]:
        _, y, x = np.indices((40, 70, 80)) * 4.0
        patient = ((y - 120) / 80) ** 2 + ((x - 160) / 120) ** 2 < 1
        lungs = ((y - 110) / 40) ** 2 + ((np.abs(x - 160) - 50) / 30) ** 2 < 1
        table = (y > 236) & (y < 250) & (x > 20) & (x < 300)
        ct = np.full(patient.shape, -1000, np.float32)
        ct[patient] = 40
        ct[lungs] = -850
        ct[table] = 200
        return patient, table, ct

    def test_patient_stays_and_table_goes(self) -> None:
        patient, table, ct = self.patient_and_table()

        body = body_mask(np.zeros_like(ct), ct, self.spacing)

        assert body.shape == ct.shape
        assert body[patient].all()
        assert not body[table].any()
        assert body.sum() < 1.5 * patient.sum()

    def test_limb_outside_the_field_of_view_of_the_ct(self) -> None:
        patient, _, ct = self.patient_and_table()
        _, y, x = np.indices(ct.shape) * 4.0
        arm = ((y - 120) / 40) ** 2 + ((x - 285) / 25) ** 2 < 1
        suv = np.where(arm | patient, 0.6, 0).astype(np.float32)
        ct[arm] = AIR_HU

        assert body_mask(suv, ct, self.spacing)[arm].all()

    def test_both_legs_stay(self) -> None:
        _, y, x = np.indices((40, 70, 100)) * 4.0
        legs = [
            ((y - 140) / 60) ** 2 + ((x - middle) / width) ** 2 < 1 for middle, width in ((100, 60), (300, 40))
        ]
        ct = np.where(legs[0] | legs[1], 40, -1000).astype(np.float32)

        body = body_mask(np.zeros_like(ct), ct, self.spacing)

        assert all(body[leg].all() for leg in legs)

    @pytest.mark.parametrize("spacing", [(2.04, 2.04, 3.0), (4.07, 4.07, 2.0), (9.0, 9.0, 12.0)])
    def test_any_spacing(self, spacing: tuple[float, float, float]) -> None:
        patient, table, ct = self.patient_and_table()
        ct, patient, table = (
            sitk.GetArrayFromImage(
                resample(image_of(each, spacing=self.spacing), spacing, linear=False, outside=fill)
            )
            for each, fill in ((ct, AIR_HU), (patient.astype(np.float32), 0), (table.astype(np.float32), 0))
        )

        body = body_mask(np.zeros_like(ct), ct, spacing)

        assert body[patient > 0].mean() > 0.999
        assert body[table > 0].mean() < 0.05

    def test_no_tissue_is_everything(self) -> None:
        ct = np.full((6, 7, 8), AIR_HU, np.float32)

        assert body_mask(np.zeros_like(ct), ct).all()

    @pytest.mark.parametrize("find", [body_mask, matter_mask])
    @pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 4), (1, 60, 60)])
    def test_tiny_images(self, find: Callable[..., NDArray[np.bool_]], shape: tuple[int, int, int]) -> None:
        body = find(np.ones(shape, np.float32), np.full(shape, 40, np.float32))

        assert body.shape == shape
        assert body.any()

    def test_matter_is_all_but_air(self) -> None:
        """A hand beside the body, by its uptake alone, and the table; what they enclose, and 16 mm around."""
        patient, table, ct = self.patient_and_table()
        _, y, x = np.indices(ct.shape) * 4.0
        hand = ((y - 20) / 12) ** 2 + ((x - 300) / 12) ** 2 < 1
        suv = np.where(hand, 0.6, 0).astype(np.float32)

        matter = matter_mask(suv, ct, self.spacing)

        assert matter[patient | table | hand].all()
        solid = (ct > -400) | hand | patient
        distance = ndimage.distance_transform_edt(~solid, self.spacing[::-1])
        assert not matter[distance > 40].any()
        assert matter[distance < 8].all()
        assert not body_mask(suv, ct, self.spacing)[hand].all()

    def test_no_tissue_leaves_everything_possible(self) -> None:
        ct = np.full((6, 7, 8), AIR_HU, np.float32)

        assert matter_mask(np.zeros_like(ct), ct).all()
