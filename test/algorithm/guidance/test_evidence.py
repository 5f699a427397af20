from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from algorithm.guidance.evidence import (
    FEATURES,
    FITTED,
    REACH_MM,
    Surroundings,
    log_odds,
    look_around,
    standing_out,
)

SPACING_ZYX = np.array([3.0, 4.0, 4.0])


@pytest.fixture
def slab() -> Surroundings:
    """A tumour scribble of three voxels, five voxels beside the mask, in tissue without any contrast."""
    shape = (9, 21, 30)
    scribble = np.zeros(shape, dtype=bool)
    scribble[4, 9:12, 12] = True
    wrong = np.ones(shape, dtype=bool)
    wrong[:, :, :8] = False
    return Surroundings(
        scribble=scribble,
        wrong=wrong,
        distance_mm=ndimage.distance_transform_edt(~scribble, sampling=SPACING_ZYX),
        probability=np.full(shape, 0.3, np.float32),
        sign=1.0,
        suv=np.full(shape, 4.0, np.float32),
        ct=np.full(shape, 40.0, np.float32),
        spacing_zyx=SPACING_ZYX,
    )


def feature(around: Surroundings, name: str, place: tuple[int, int, int]) -> float:
    asked = np.zeros(around.wrong.shape, dtype=bool)
    asked[place] = True
    return float(look_around(around, asked)[0, FEATURES.index(name)])


def test_distances_are_in_mm(slab: Surroundings) -> None:
    assert feature(slab, "distance", (4, 10, 15)) == pytest.approx(12.0)
    assert feature(slab, "distance", (6, 10, 12)) == pytest.approx(6.0)
    assert feature(slab, "slice distance", (6, 10, 15)) == pytest.approx(6.0)
    assert feature(slab, "depth", (4, 10, 9)) == pytest.approx(8.0)
    assert feature(slab, "scribble's depth", (0, 0, 20)) == pytest.approx(np.log(1 + 20.0))
    assert feature(slab, "distance within depth", (4, 10, 14)) == pytest.approx(8.0)
    assert feature(slab, "distance within depth", (4, 10, 20)) == pytest.approx(20.0)


def test_a_front_through_even_tissue_arrives_with_the_distance(slab: Surroundings) -> None:
    assert feature(slab, "arrival", (4, 10, 15)) == pytest.approx(12.0, rel=0.05)


@pytest.mark.parametrize("what", ["probability", "suv", "ct"])
def test_a_front_is_slow_where_the_images_differ(slab: Surroundings, what: str) -> None:
    volume = getattr(slab, what).copy()
    volume[:, :, 13:] = {"probability": 0.02, "suv": 1.0, "ct": -90.0}[what]
    slow = feature(replace(slab, **{what: volume}), "arrival", (4, 10, 16))

    assert slow > 1.3 * feature(slab, "arrival", (4, 10, 16))


def test_a_front_does_not_pass_through_what_is_right_already(slab: Surroundings) -> None:
    wrong = slab.wrong.copy()
    wrong[:, :, 14] = False

    assert feature(replace(slab, wrong=wrong), "arrival", (4, 10, 16)) == 60.0


def test_crowds_tell_hollows_from_bumps(slab: Surroundings) -> None:
    assert feature(slab, "crowd 10", (4, 10, 8)) > 0.3
    assert feature(slab, "crowd 10", (4, 10, 25)) < 0.01
    assert feature(slab, "crowd 20 gained", (4, 10, 8)) > 0
    assert feature(slab, "crowd 20 gained", (4, 10, 16)) < 0


def test_hotter_counts_for_tumour_and_against_background(slab: Surroundings) -> None:
    suv = slab.suv.copy()
    suv[:, :, 16:] = 16.0
    hot = replace(slab, suv=suv)

    assert feature(hot, "uptake", (4, 10, 22)) == pytest.approx(2.0, abs=0.05)
    assert feature(replace(hot, sign=-1.0), "uptake", (4, 10, 22)) == pytest.approx(-2.0, abs=0.05)


def test_a_mask_without_the_label_is_as_deep_as_the_reach(slab: Surroundings) -> None:
    alone = replace(slab, wrong=np.ones_like(slab.wrong))

    assert feature(alone, "depth", (4, 10, 9)) == REACH_MM
    assert feature(alone, "crowd 20", (4, 10, 9)) == 0.0


def test_log_odds_are_a_weighted_sum() -> None:
    features = np.random.default_rng(1).normal(size=(50, len(FEATURES)))
    weights = np.random.default_rng(2).normal(size=len(FEATURES) + 1)
    expected = [sum(w * f for w, f in zip(weights, [*row, 1.0], strict=True)) for row in features]

    assert log_odds(features, weights) == pytest.approx(np.clip(expected, -6, 6))


def test_there_is_a_fitted_weight_for_every_feature_and_the_constant() -> None:
    for weights in (FITTED.tumour, FITTED.background):
        assert len(weights) == len(FEATURES) + 1
        assert np.isfinite(weights).all()
        assert np.any(weights)


def test_a_missed_lesion_stands_out_to_half_of_its_contrast(slab: Surroundings) -> None:
    suv = np.ones_like(slab.suv)
    suv[2:7, 7:14, 10:16] = 4.0
    suv[3:6, 8:13, 11:15] = 9.0  # half way between 1 and 9 is 5
    region = standing_out(replace(slab, suv=suv), slab.wrong)

    np.testing.assert_array_equal(region, suv == 9.0)


def test_what_hardly_stands_out_or_goes_on_beyond_reach_does_not_grow(slab: Surroundings) -> None:
    faint = np.ones_like(slab.suv)
    faint[3:6, 8:13, 11:15] = 1.9
    organ = np.ones_like(slab.suv)
    organ[:, 8:13, 8:] = 9.0

    assert not standing_out(replace(slab, suv=faint), slab.wrong).any()
    assert not standing_out(replace(slab, suv=organ), slab.wrong & (slab.distance_mm <= REACH_MM)).any()
