from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from skimage.graph import MCP_Geometric

from algorithm.guidance.evidence import REACH_MM, Surroundings
from algorithm.guidance.pieces import cut, join, path
from algorithm.postprocessing import lesions

SHAPE = (5, 9, 40)
SPACING_ZYX = np.array([3.0, 4.0, 4.0])
Bools = NDArray[np.bool_]


def empty() -> Bools:
    return np.zeros(SHAPE, dtype=bool)


def bar(x_from: int, x_to: int, half_width: int = 1) -> Bools:
    voxels = empty()
    voxels[2, 4 - half_width : 5 + half_width, x_from:x_to] = True
    return voxels


def around(scribble: Bools, wrong: Bools, suv: NDArray[np.float32] | None = None) -> Surroundings:
    plain = np.full(SHAPE, 0.5, np.float32)
    return Surroundings(
        scribble=scribble,
        wrong=wrong,
        distance_mm=ndimage.distance_transform_edt(~scribble, sampling=SPACING_ZYX),
        probability=plain,
        sign=1.0,
        suv=plain if suv is None else suv,
        ct=plain,
        spacing_zyx=SPACING_ZYX,
    )


def count(mask: Bools) -> int:
    return lesions(mask)[1]


def test_a_cut_takes_its_splinters_with_it() -> None:
    here = around(bar(33, 36, 0), bar(0, 39))
    removed = bar(32, 37)

    assert np.array_equal(cut(here, removed, np.zeros(SHAPE), empty()), bar(32, 39))


def test_what_a_cut_may_not_take_stays_joined() -> None:
    odds = np.zeros(SHAPE)
    odds[2, 3] = -3.0  # the least wrong row is kept, and it alone
    here = around(bar(33, 36, 0), bar(0, 39))
    tumour_point = empty()
    tumour_point[2, 5, 38] = True
    result = cut(here, bar(32, 37), odds, tumour_point)
    left = bar(0, 39) & ~result

    assert count(left) == 1
    assert left[2, 3, 32:37].all()
    assert not (result & bar(37, 39)).any()
    assert not left[here.scribble].any()


def test_what_goes_on_beyond_the_reach_stays_joined() -> None:
    reach = int(REACH_MM / SPACING_ZYX[2])
    here = around(bar(20, 21, 0), bar(0, 20 + reach + 3))
    removed = bar(14, 20 + reach + 1) & (here.distance_mm <= REACH_MM)
    result = cut(here, removed, np.zeros(SHAPE), empty())

    assert count(bar(0, 20 + reach + 3) & ~removed) == 2
    assert count(bar(0, 20 + reach + 3) & ~result) == 1
    assert (here.distance_mm[result] <= REACH_MM).all()


def test_what_is_larger_than_the_cut_is_a_piece_of_its_own() -> None:
    here = around(bar(20, 21, 0), bar(0, 40))
    removed = bar(19, 22)

    assert np.array_equal(cut(here, removed, np.zeros(SHAPE), empty()), removed)


@pytest.mark.parametrize(("x", "goes"), [(14, False), (10, True)], ids=["flank", "core"])
def test_a_line_on_the_flank_leaves_the_core(x: int, goes: bool) -> None:
    whole = bar(8, 16)
    suv = np.where(bar(8, 13), 9.0, 3.0).astype(np.float32)
    here = around(bar(x, x + 1, 0), whole, suv)
    result = cut(here, whole, np.zeros(SHAPE), empty())

    assert np.array_equal(result, whole if goes else bar(13, 16))


def test_a_grown_piece_is_joined_over_the_most_probable_voxels() -> None:
    mask, grown = bar(0, 10), bar(12, 18)
    odds = np.full(SHAPE, -4.0)
    odds[2, 5] = 1.0
    here = around(bar(14, 16, 0), ~mask)
    result = join(here, grown, empty(), here.wrong, odds)

    assert count(mask | result) == 1
    added = result & ~grown
    assert added.sum() == 2
    assert added[2, 5, 10:12].all()


def test_no_way_leads_over_what_is_not_in_question() -> None:
    mask, grown = bar(0, 10), bar(12, 18)
    here = around(bar(14, 16, 0), ~mask)
    asked = here.wrong.copy()
    asked[:, :, 11] = False  # nearer to background points

    assert np.array_equal(join(here, grown, empty(), asked, np.zeros(SHAPE)), grown)


def test_lesions_of_their_own_stay_alone() -> None:
    mask, grown, hot = bar(0, 10), bar(12, 18), bar(14, 16)
    for masked, lesion in ((mask, hot), (empty(), empty())):
        here = around(bar(14, 16, 0), ~masked)
        assert np.array_equal(join(here, grown, lesion, here.wrong, np.zeros(SHAPE)), grown)


def test_the_way_costs_what_scikit_image_s_does(rng: np.random.Generator) -> None:
    steps = [step for step in np.ndindex(3, 3, 3) if 0 < sum(abs(each - 1) for each in step) < 3]
    for _ in range(20):
        surprise = rng.normal(scale=3, size=(6, 7, 8))
        allowed = rng.random(surprise.shape) < 0.8
        start, end = np.zeros((2, *allowed.shape), dtype=bool)
        start[0, 0, :3] = end[5, 6, 5:] = True
        way = path(start, end, allowed & ~start & ~end, surprise, SPACING_ZYX)
        cost = 0.1 + np.logaddexp(0, surprise)
        cost[~(allowed | start | end)] = -1  # MCP never goes there
        offsets = [[each - 1 for each in step] for step in steps]
        oracle = MCP_Geometric(cost, offsets=offsets, sampling=tuple(SPACING_ZYX.tolist()))
        best = oracle.find_costs(np.argwhere(start))[0][end].min()
        only = np.where(way | start | end, cost, -1)
        along = MCP_Geometric(only, offsets=offsets, sampling=tuple(SPACING_ZYX.tolist()))
        assert along.find_costs(np.argwhere(start))[0][end].min() == pytest.approx(best)
        assert np.isfinite(best)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)
