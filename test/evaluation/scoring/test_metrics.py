"""The measures equal a plain transcription of the published rules, on random pairs and on every corner case."""

from __future__ import annotations

import math

import numpy as np
import pytest
from grand_challenge_metrics.stats import hausdorff_distance_measures
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evaluation.scoring.editions import RULES
from evaluation.scoring.metrics import METRICS, count_overlaps, crop_to_union, dice_of, measure
from test.support import plain_metrics

SHAPE = (5, 6, 7)
SPACINGS = [(1.0, 1.0, 1.0), (2.03642, 2.03642, 3.0), (4.07283, 4.07283, 2.0), (0.5, 2.5, 7.25)]
EDITIONS = sorted(plain_metrics.EDITIONS)


def voxels(*places: tuple[int, int, int]) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    for place in places:
        mask[place] = 1
    return mask


EMPTY = voxels()
FULL = np.ones(SHAPE, np.uint8)
ONE = voxels((2, 3, 3))
CORNER_CASES = {
    "both empty": (EMPTY, EMPTY),
    "truth empty": (EMPTY, voxels((0, 0, 0), (4, 5, 6))),
    "prediction empty": (voxels((0, 0, 0), (4, 5, 6)), EMPTY),
    "one voxel, the same": (ONE, ONE),
    "one voxel, beside it": (ONE, voxels((2, 3, 4))),
    "one voxel each, far apart": (voxels((0, 0, 0)), voxels((4, 5, 6))),
    "everything": (FULL, FULL),
    "everything against one voxel": (ONE, FULL),
    "touching by face": (voxels((1, 1, 1), (1, 1, 2)), voxels((1, 1, 2), (1, 1, 3))),
    "touching by edge": (voxels((1, 1, 1), (1, 2, 2)), voxels((1, 2, 2), (2, 3, 2))),
    "touching by corner": (voxels((1, 1, 1), (2, 2, 2)), voxels((2, 2, 2), (3, 3, 3))),
    "one prediction over two lesions": (voxels((2, 2, 1), (2, 2, 3)), voxels((2, 2, 1), (2, 2, 2), (2, 2, 3))),
    "two predictions in one lesion": (voxels((2, 2, 1), (2, 2, 2), (2, 2, 3)), voxels((2, 2, 1), (2, 2, 3))),
    "IoU just at the threshold": (
        voxels(*((2, 2, x) for x in range(5)), *((2, 3, x) for x in range(5))),
        voxels((2, 2, 0)),
    ),
    "IoU just below the threshold": (
        voxels(*((2, 2, x) for x in range(6)), *((2, 3, x) for x in range(5))),
        voxels((2, 2, 0)),
    ),
}

masks = st.one_of(
    arrays(np.uint8, SHAPE, elements=st.integers(0, 1)),  # half full: few, large components
    arrays(np.uint8, SHAPE, elements=st.just(1), fill=st.just(0)),  # sparse
    st.lists(st.tuples(*(st.integers(0, side - 1) for side in SHAPE)), max_size=12).map(lambda p: voxels(*p)),
)


def check_against_plain(edition: str, truth: np.ndarray, prediction: np.ndarray, spacing, other_spacing) -> None:
    """Compare all measures, volumes with headers that differ; the product is given the one that the rules name."""
    rules = RULES[edition]
    used = spacing if rules.voxel_volume_from == "truth" else other_spacing
    scores = measure(truth, prediction, used, rules)
    expected = plain_metrics.EDITIONS[edition](truth, prediction, spacing, other_spacing)
    expected |= plain_metrics.detection(truth, prediction)
    for name, value in expected.items():
        assert same(getattr(scores, name), value), name  # to the last digit
    for name, value in plain_metrics.surface_measures(truth, prediction, used, 4.0).items():
        assert getattr(scores, name) == pytest.approx(value, nan_ok=True, rel=1e-12), name
    assert scores.truth_ml == int(truth.sum()) * plain_metrics.voxel_ml(used)
    assert scores.prediction_ml == int(prediction.sum()) * plain_metrics.voxel_ml(used)


def same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


@pytest.mark.parametrize("edition", EDITIONS)
@pytest.mark.parametrize("name", CORNER_CASES)
@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
def test_corner_cases_equal_the_published_rules(edition, name, spacing):
    check_against_plain(edition, *CORNER_CASES[name], spacing, SPACINGS[1])


@pytest.mark.parametrize("edition", EDITIONS)
@settings(max_examples=200, deadline=None)
@given(truth=masks, prediction=masks, spacing=st.sampled_from(SPACINGS), other_spacing=st.sampled_from(SPACINGS))
def test_200_random_pairs_equal_the_published_rules(edition, truth, prediction, spacing, other_spacing):
    check_against_plain(edition, truth, prediction, spacing, other_spacing)


@settings(max_examples=100, deadline=None)
@given(truth=masks, prediction=masks, spacing=st.sampled_from(SPACINGS))
def test_hd95_is_that_of_grand_challenge_metrics(truth, prediction, spacing):
    if not truth.any() or not prediction.any():
        return
    theirs = hausdorff_distance_measures(truth, prediction, voxelspacing=spacing[::-1], connectivity=1)
    ours = measure(truth, prediction, spacing, RULES["paper"]).hd95_mm
    assert ours == pytest.approx(theirs.percentile_distance, rel=1e-12)


# Edition; Dice with both empty; Dice and FNV with the truth empty; FPV with the prediction empty.
EMPTY_MASKS = [
    ("I", math.nan, 0.0, 0.0, 0.0),
    ("II", math.nan, 0.0, 0.0, 0.0),
    ("III", math.nan, math.nan, math.nan, 0.0),
    ("IV", math.nan, math.nan, math.nan, 0.0),
    ("V", 1.0, 0.0, math.nan, 0.0),
    ("paper", math.nan, math.nan, math.nan, 0.0),
]


@pytest.mark.parametrize(("edition", "both", "truth", "fnv", "fpv"), EMPTY_MASKS)
def test_empty_masks_by_edition(edition, both, truth, fnv, fpv):
    rules = RULES[edition]
    assert same(measure(EMPTY, EMPTY, SPACINGS[0], rules).dice, both)
    assert same(measure(EMPTY, ONE, SPACINGS[0], rules).dice, truth)
    assert same(measure(EMPTY, ONE, SPACINGS[0], rules).fnv_ml, fnv)
    assert same(measure(ONE, EMPTY, SPACINGS[0], rules).fpv_ml, fpv)
    assert measure(EMPTY, ONE, SPACINGS[1], rules).fpv_ml == plain_metrics.voxel_ml(SPACINGS[1])


def test_components_touch_by_face_and_edge_but_not_by_corner():
    for beside, components in (((2, 3, 4), 1), ((2, 4, 4), 1), ((3, 4, 4), 2)):
        overlaps = count_overlaps(voxels((2, 3, 3), beside).astype(bool), EMPTY.astype(bool))
        assert overlaps.truth.size == components
        assert overlaps.truth.sum() == 2


def test_a_lesion_may_have_several_matches_and_counts_once():
    scores = measure(*CORNER_CASES["two predictions in one lesion"], SPACINGS[0], RULES["V"])
    assert (scores.found_lesions, scores.false_lesions, scores.lesion_f1) == (1, 0, 1.0)
    scores = measure(*CORNER_CASES["one prediction over two lesions"], SPACINGS[0], RULES["V"])
    assert (scores.found_lesions, scores.false_lesions, scores.lesion_f1) == (2, 0, 1.0)


def test_an_overlap_below_the_iou_threshold_is_no_false_positive_volume_but_a_false_lesion():
    scores = measure(*CORNER_CASES["IoU just below the threshold"], SPACINGS[0], RULES["V"])
    assert (scores.fpv_ml, scores.fnv_ml) == (0.0, 0.0)
    assert (scores.found_lesions, scores.false_lesions) == (0, 1)


def test_surface_dice_honours_spacing_and_tolerance():
    truth, prediction = voxels((1, 1, 1)), voxels((1, 1, 2))
    wide, narrow = (5.0, 1.0, 1.0), (4.0, 1.0, 1.0)  # they lie one voxel apart in x
    assert measure(truth, prediction, wide, RULES["III"]).surface_dice == 0.0
    assert measure(truth, prediction, narrow, RULES["III"]).surface_dice == 1.0
    assert measure(truth, prediction, wide, RULES["III"], tolerance_mm=5.0).surface_dice == 1.0
    assert measure(truth, prediction, wide, RULES["III"]).hd95_mm == 5.0


@settings(max_examples=50, deadline=None)
@given(truth=masks, prediction=masks)
def test_cropping_loses_nothing(truth, prediction):
    small = crop_to_union(truth, prediction)
    assert [part.sum() for part in small] == [truth.sum(), prediction.sum()]
    assert (small[0] & small[1]).sum() == (truth & prediction).sum()
    padded = [np.pad(mask, 3) for mask in (truth, prediction)]
    before, after = (measure(*pair, SPACINGS[1], RULES["III"]) for pair in ((truth, prediction), padded))
    assert all(same(getattr(before, name), getattr(after, name)) for name in METRICS)


@settings(max_examples=50, deadline=None)
@given(truth=masks, prediction=masks)
def test_swapping_the_masks_swaps_the_errors(truth, prediction):
    there, back = (measure(*pair, SPACINGS[1], RULES["I"]) for pair in ((truth, prediction), (prediction, truth)))
    assert same(there.dice, back.dice)
    assert (there.fpv_ml, there.fnv_ml) == (back.fnv_ml, back.fpv_ml)
    assert same(there.hd95_mm, back.hd95_mm)
    assert same(there.lesion_sensitivity, back.lesion_precision)


@pytest.mark.parametrize("shapes", [((2, 2, 2), (2, 2, 3)), ((2, 2), (2, 2))])
def test_masks_must_fit_each_other(shapes):
    with pytest.raises(ValueError, match="3-D and of one shape"):
        measure(*(np.zeros(shape, np.uint8) for shape in shapes), SPACINGS[0], RULES["III"])


def test_the_dice_of_two_masks():
    masks = [np.array(each, np.uint8) for each in ([1, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0])]
    assert dice_of(masks[0], masks[1]) == 2 / 5
    assert dice_of(masks[0], masks[2]) == 0
    assert dice_of(masks[2], masks[2]) == 1


def test_dice_of_empty_masks_is_one():
    empty = np.zeros((2, 2, 2), bool)
    assert dice_of(empty, empty) == 1
    assert dice_of(empty, ~empty) == 0
