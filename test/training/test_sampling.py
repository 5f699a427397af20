from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from algorithm.cases import find_cases
from algorithm.images import AIR_HU
from test.support.training_runs import (
    PATCH,
    STILL,
    assert_identical,
)
from test.support.trees import SPACING, write_tree
from training.augmentation import DropModalityd, build_augmentation
from training.cache import build_cache
from training.recipe import Augmentation
from training.sampling import NO_UPTAKE_SUV, CropSampler, Source, clear_tumour, cut, prefetch


def test_crops_are_alternately_centred_on_tumour_and_background(cases, description):
    sampler = CropSampler([Source(cases, 1.0)], description, STILL, seed=3)
    batch = sampler.batch(range(20))

    assert batch.ct.shape == batch.pet.shape == batch.seg.shape == (20, 1, *PATCH)
    assert (batch.ct.dtype, batch.pet.dtype, batch.seg.dtype) == (torch.float32, torch.float32, torch.uint8)
    assert (batch.seg[::2].sum((1, 2, 3, 4)) > 0).all()


def test_a_source_without_tumours_gives_background_alone(cases, description):
    free = tuple(case for case in cases if case.tumour_ml == 0)
    marked = tuple(case for case in cases if case.tumour_ml > 0)
    sampler = CropSampler([Source(marked, 1.0), Source(free, 9.0)], description, STILL, seed=0)

    drawn = [sampler.draw_centre(number, np.random.default_rng(number))[0].name for number in range(40)]

    assert set(drawn[::2]) <= {case.name for case in marked}
    assert {case.name for case in free} <= set(drawn[1::2])


def test_a_crop_is_cut_from_the_normalised_volume(cases, description):
    sampler = CropSampler([Source(cases[:1], 1.0)], description, STILL, seed=0)
    ct, pet, seg, _ = (part[0].numpy() for part in sampler.crop(4))
    case = cases[0]
    places = [
        (x, y, z)
        for x in range(case.size[0] - PATCH[0] + 1)
        for y in range(case.size[1] - PATCH[1] + 1)
        for z in range(case.size[2] - PATCH[2] + 1)
        if np.array_equal(cut(case.seg(), (x, y, z), PATCH, 0), seg)
        and np.allclose(cut(case.pet(), (x, y, z), PATCH, 0) / 10, pet, atol=1e-6)
        and np.allclose((cut(case.ct(), (x, y, z), PATCH, 0) + 1024.0) / 2024, ct, atol=1e-6)
    ]
    assert len(places) == 1


def test_crops_are_mirrored_along_the_axes_asked_for_alone():
    how = dataclasses.replace(STILL, flip=1.0, flip_axes=("z",))
    part = torch.arange(24.0).reshape(1, 2, 3, 4)
    crop = dict.fromkeys(("ct", "pet", "seg", "organs"), part)

    changed = build_augmentation(how, (2, 3, 4), turning=False)(crop)

    assert all(torch.equal(torch.as_tensor(changed[key]), part.flip(3)) for key in crop)
    assert dataclasses.replace(how, flip=0.0).mirrored == ()


def test_a_crop_depends_on_its_number_and_the_seed_alone(cases, description):
    def sampler(seed):
        return CropSampler([Source(cases, 1.0)], description, Augmentation(probability=1, drop_modality=0.5), seed)

    once, again = sampler(1), sampler(1)
    again.crop(99)
    assert_identical(once.crop(7), again.crop(7))
    assert not torch.equal(once.crop(7)[1], once.crop(8)[1])
    assert not torch.equal(once.crop(7)[1], sampler(2).crop(7)[1])


@pytest.mark.parametrize("threads", [1, 3])
def test_background_threads_change_nothing(cases, description, threads):
    sampler = CropSampler([Source(cases, 1.0)], description, Augmentation(), seed=1)
    numbers = [range(2 * step, 2 * step + 2) for step in range(8)]
    cores = torch.get_num_threads()
    ahead = list(prefetch(sampler, numbers, threads))

    assert_identical(ahead, [sampler.batch(each) for each in numbers])
    assert torch.get_num_threads() == cores


def test_sources_are_drawn_by_their_shares(cases, description):
    with_tumour = tuple(case for case in cases if case.tumour_ml > 0)
    marked = dataclasses.replace(with_tumour[1], name="marked")
    sampler = CropSampler([Source(with_tumour[:1], 3.0), Source((marked,), 1.0)], description, STILL, seed=0)
    drawn = [sampler.draw_centre(number, np.random.default_rng(number))[0].name for number in range(400)]

    assert 0.19 < drawn.count("marked") / 400 < 0.31


def test_a_small_volume_lies_whole_inside_its_crops(tmp_path, description):
    root = write_tree(tmp_path / "data", "small", shape=(12, 20, 24))
    (case,) = build_cache(find_cases(root).cases, tmp_path / "cache", SPACING, progress=False).cases
    sampler = CropSampler([Source((case,), 1.0)], description, STILL, seed=0)
    batch = sampler.batch(range(6))

    assert (batch.seg.sum((1, 2, 3, 4)) == int(case.seg().sum())).all()
    assert (batch.ct.flatten(1).amin(1) == 0).all()  # padded with air, not with the middle of the CT's range


def test_cut_fills_what_lies_outside():
    volume = np.arange(24).reshape(2, 3, 4)

    np.testing.assert_array_equal(cut(volume, (-1, 1, 2), (3, 2, 4), -5)[0], np.full((2, 4), -5))
    np.testing.assert_array_equal(cut(volume, (-1, 1, 2), (3, 2, 4), -5)[1], [[6, 7, -5, -5], [10, 11, -5, -5]])
    np.testing.assert_array_equal(cut(volume, (9, 9, 9), (1, 1, 1), 7), [[[7]]])


def test_turning_a_crop_brings_in_no_empty_corners(cases, description):
    how = dataclasses.replace(STILL, probability=1, rotation_deg=30, scaling=0.2)
    field = how.field(PATCH)

    assert all(outer >= inner and (outer - inner) % 2 == 0 for outer, inner in zip(field, PATCH, strict=True))
    assert math.hypot(*(side / 2 for side in PATCH[:2])) <= field[0] / 2 / 1.2 * math.sqrt(2)
    assert STILL.field(PATCH) == PATCH


def test_rotation_is_in_degrees_and_about_z(cases, description):
    how = dataclasses.replace(STILL, probability=1, rotation_deg=5)
    sampler = CropSampler([Source(cases, 1.0)], description, how, seed=0)
    still = CropSampler([Source(cases, 1.0)], description, STILL, seed=0)
    turned, kept = sampler.batch(range(8)), still.batch(range(8))

    # A body that is a cylinder along z keeps its profile in z; five degrees move few voxels, five radians many.
    assert (turned.seg.sum((2, 3)) - kept.seg.sum((2, 3)).float()).abs().max() <= 12
    assert not torch.equal(turned.pet, kept.pet)


def test_misalignment_moves_the_ct_alone(cases, description):
    how = dataclasses.replace(STILL, probability=1, misalignment_voxels=3)
    moved = CropSampler([Source(cases, 1.0)], description, how, seed=0).batch(range(6))
    still = CropSampler([Source(cases, 1.0)], description, STILL, seed=0).batch(range(6))

    assert torch.equal(moved.pet, still.pet)
    assert torch.equal(moved.seg, still.seg)
    assert not torch.equal(moved.ct, still.ct)


def test_one_modality_at_most_is_dropped():
    drop = DropModalityd(("ct", "pet"), 0.5)
    blank = []
    for seed in range(200):
        drop.set_random_state(seed=seed)
        out = drop({"ct": torch.arange(8.0), "pet": torch.arange(8.0), "seg": torch.arange(8.0)})
        blank.append([key for key in out if bool((out[key] == 0).all())])

    counts = [sum(names == [key] for names in blank) for key in ("ct", "pet")]
    assert all(30 < count < 70 for count in counts)
    assert sum(counts) + blank.count([]) == 200


def test_the_other_leg_stays_where_a_crop_is_cleared_of_tumour():
    ct, pet, seg = np.full((20, 16, 12), AIR_HU), np.zeros((20, 16, 12)), np.zeros((20, 16, 12), np.uint8)
    ct[2:8, 4:12], ct[12:19, 4:12] = 40.0, 50.0
    pet[ct > 0] = 0.7
    seg[4:6, 6:9, 3:9] = 1
    pet[seg > 0] = 6.0
    organs = np.where(ct > 0, 3, 0).astype(np.uint8)
    clear_tumour(ct, pet, seg, organs)

    assert not seg.any()
    assert (organs[12:19, 4:12] == 3).all()
    assert not organs[ct == AIR_HU].any()
    assert pet.max() == 0.7
    assert (ct[12:19, 4:12] == 50).all()
    assert (ct[:6] == AIR_HU).all()
    assert (pet[:6] == NO_UPTAKE_SUV).all()


def test_a_crop_that_is_all_tumour_stays_as_it_is():
    ct, pet, seg = np.full((8, 8, 8), 40.0), np.full((8, 8, 8), 5.0), np.ones((8, 8, 8), np.uint8)
    clear_tumour(ct, pet, seg)
    assert seg.all()
    assert (pet == 5).all()


def test_crops_around_background_are_cleared_as_often_as_asked(cases, description):
    how = dataclasses.replace(STILL, tumour_free=1.0)
    marked = tuple(case for case in cases if case.tumour_ml > 0)
    crops = CropSampler([Source(marked, 1.0)], description, how, seed=2).batch(range(12))
    plain = CropSampler([Source(marked, 1.0)], description, STILL, seed=2).batch(range(12))

    tumour, before = crops.seg.sum((1, 2, 3, 4)), plain.seg.sum((1, 2, 3, 4))
    assert (tumour[::2] > 0).all()
    assert (tumour[1::2] == 0).sum() > (before[1::2] == 0).sum()
