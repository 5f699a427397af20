"""Covers: every wanted voxel is seen well within a window, by no more windows than a regular tiling takes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from algorithm.inference.cover import cover
from algorithm.inference.windows import plan_axes, plan_windows

Three = tuple[int, int, int]


@st.composite
def tasks(draw: st.DrawFn) -> tuple[NDArray[np.bool_], Three, Three]:
    """Draw some wanted voxels of a volume, a patch that fits it, and a margin."""
    patch = draw(st.tuples(*[st.integers(1, 20)] * 3))
    size = tuple(side + draw(st.integers(0, 25)) for side in patch)
    margin = tuple(draw(st.integers(0, side // 4)) for side in patch)
    share = draw(st.sampled_from([0.0, 0.0005, 0.01, 0.3, 1.0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return rng.random(size) < share, patch, margin


def inner(start: Three, patch: Three, margin: Three, size: Three) -> tuple[slice, ...]:
    return tuple(
        slice(0 if first == 0 else first + edge, extent if first + side == extent else first + side - edge)
        for first, side, edge, extent in zip(start, patch, margin, size, strict=True)
    )


@settings(max_examples=150, deadline=None)
@given(tasks())
def test_every_wanted_voxel_is_held_by_few_windows(task: tuple[NDArray[np.bool_], Three, Three]) -> None:
    wanted, patch, margin = task
    size = wanted.shape

    anywhere = plan_axes(size, patch, overlap=0.99)

    starts = cover(wanted, patch, margin, anywhere)

    held = np.zeros(size, bool)
    for start in starts:
        assert all(0 <= first <= extent - side for first, side, extent in zip(start, patch, size, strict=True))
        part = inner(start, patch, margin, size)
        assert wanted[part].any()
        held[part] = True
    assert held[wanted].all()
    assert len(set(starts)) == len(starts)
    assert list(starts) == sorted(starts)
    tiles = [
        math.ceil((extent - side) / (side - 2 * edge)) + 1
        for extent, side, edge in zip(size, patch, margin, strict=True)
    ]
    assert len(starts) <= math.prod(tiles)
    assert starts == cover(wanted.copy(), patch, margin, anywhere)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_all_voxels_take_the_whole_plan(overlap: float) -> None:
    size, patch = (100, 70, 90), (32, 32, 16)

    margin = [int(side * overlap / 2) for side in patch]
    starts = cover(np.ones(size, bool), patch, margin, plan_axes(size, patch, overlap))

    assert starts == plan_windows(size, patch, overlap)


def test_a_window_lies_freely_where_two_voxels_fit_one() -> None:
    wanted = np.zeros((64, 64, 64), bool)
    wanted[25, 30, 30] = wanted[39, 30, 30] = True  # in two windows of a plan with steps of 16

    (start,) = cover(wanted, (32, 32, 32), (8, 8, 8), [range(33)] * 3)

    assert start[0] + 8 <= 25
    assert start[0] + 24 > 39


def test_corners_need_a_window_each() -> None:
    wanted = np.zeros((64, 64, 64), bool)
    wanted[::63, ::63, ::63] = True

    starts = cover(wanted, (32, 32, 32), (8, 8, 8), [range(33)] * 3)

    assert set(starts) == set(itertools.product((0, 32), repeat=3))


def test_nothing_wanted_needs_nothing() -> None:
    assert cover(np.zeros((40, 40, 40), bool), (32, 32, 32), (8, 8, 8), [range(9)] * 3) == ()
