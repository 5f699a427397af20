from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data.utils import compute_importance_map, dense_patch_slices

from algorithm.inference.augmentation import flip_order
from algorithm.inference.windows import cut_box, fit_box, importance_map, paste_box, plan_windows

Three = tuple[int, int, int]

threes = st.tuples(*[st.integers(1, 40)] * 3)


def monai_plan(size: Three, patch: Three, overlap: float) -> set[Three]:
    """Return the first voxels of the windows of MONAI's ``sliding_window_inference``."""
    steps = [
        side if side == extent else max(1, int(side * (1 - overlap)))
        for side, extent in zip(patch, size, strict=True)
    ]
    slices = dense_patch_slices(size, patch, steps)
    return {(x.start, y.start, z.start) for x, y, z in slices}


@pytest.mark.parametrize(
    ("size", "patch", "overlap", "count"),
    [
        ((64, 64, 32), (64, 64, 32), 0.5, 1),
        ((65, 64, 32), (64, 64, 32), 0.5, 2),
        ((128, 64, 32), (64, 64, 32), 0.0, 2),
        ((128, 64, 32), (64, 64, 32), 0.5, 3),
        ((400, 400, 326), (128, 128, 64), 0.25, 112),
        ((400, 400, 326), (128, 128, 64), 0.5, 360),
    ],
)
def test_plan_equals_monai(size: Three, patch: Three, overlap: float, count: int) -> None:
    plan = plan_windows(size, patch, overlap)

    assert set(plan) == monai_plan(size, patch, overlap)
    assert len(plan) == count


@settings(max_examples=200, deadline=None)
@given(patch=threes, extra=threes, overlap=st.floats(0, 0.95))
def test_any_plan_equals_monai_and_covers(patch: Three, extra: Three, overlap: float) -> None:
    size = tuple(side + more - 1 for side, more in zip(patch, extra, strict=True))

    plan = plan_windows(size, patch, overlap)

    assert len(plan) == len(set(plan))
    assert set(plan) == monai_plan(size, patch, overlap)
    for axis in range(3):
        covered = {first + step for first in {start[axis] for start in plan} for step in range(patch[axis])}
        assert covered == set(range(size[axis]))


def test_volume_smaller_than_the_patch_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"volume \(9, 8, 8\) must be at least as large as the patch \(8, 16, 8\)"
    ):
        plan_windows((9, 8, 8), (8, 16, 8), 0.5)


@pytest.mark.parametrize("patch", [(128, 128, 64), (64, 64, 32), (16, 48, 32), (5, 7, 1)])
def test_importance_equals_monai(patch: Three) -> None:
    ours = importance_map(patch)

    theirs = compute_importance_map(patch, mode="gaussian", sigma_scale=0.125).numpy()
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), size=threes, patch=threes)
def test_fitted_box_holds_the_box_and_a_patch(data: st.DataObject, size: Three, patch: Three) -> None:
    starts = [data.draw(st.integers(0, extent - 1)) for extent in size]
    box = [slice(a, data.draw(st.integers(a + 1, extent))) for a, extent in zip(starts, size, strict=True)]

    fitted = fit_box(box, size, patch)

    for before, after, extent, side in zip(box, fitted, size, patch, strict=True):
        assert 0 <= after.start <= before.start
        assert before.stop <= after.stop <= extent
        assert after.stop - after.start == max(before.stop - before.start, min(side, extent))


@settings(max_examples=100, deadline=None)
@given(data=st.data(), size=threes, patch=threes, seed=st.integers(0, 1000))
def test_cut_and_paste(data: st.DataObject, size: Three, patch: Three, seed: int) -> None:
    volume = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    starts = [data.draw(st.integers(0, extent - 1)) for extent in size]
    box = tuple(slice(a, data.draw(st.integers(a + 1, extent))) for a, extent in zip(starts, size, strict=True))

    part = cut_box(volume, box, patch, outside=9.0)

    inside = volume[box]
    assert part.shape == tuple(max(a, b) for a, b in zip(inside.shape, patch, strict=True))
    assert np.count_nonzero(part == 9.0) == part.size - inside.size
    expected = np.zeros_like(volume)
    expected[box] = inside
    np.testing.assert_array_equal(paste_box(part, box, size), expected)


def test_flips_are_all_different_and_begin_with_none() -> None:
    flips = flip_order()

    assert flips[0] == ()
    assert len(set(flips)) == 8
    assert all(flip_order(count) == flips[:count] for count in range(1, 9))


def test_flips_along_some_axes_are_all_of_those_and_no_others() -> None:
    assert flip_order(8, [0]) == flip_order(2, [0]) == ((), (0,))
    assert flip_order(8, []) == ((),)
    assert set(flip_order(8, [0, 2])) == {(), (0,), (2,), (0, 2)}
    assert flip_order(1, [0, 2]) == ((),)


@pytest.mark.parametrize("count", [0, 9, -1])
def test_impossible_flips(count: int) -> None:
    with pytest.raises(ValueError, match=f"between 1 .* and 8, got {count}"):
        flip_order(count)
