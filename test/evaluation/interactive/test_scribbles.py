from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from evaluation.interactive.scribbles import (
    KINDS,
    boundary_walk,
    centreline,
    clicks,
    draw,
    largest_component,
    random_line,
)

Plane = NDArray[np.bool_]


def drawn(*rows: str) -> Plane:
    """Read a mask from text, # being inside."""
    return np.array([[sign == "#" for sign in row] for row in rows])


def places(points: NDArray[np.int64]) -> list[tuple[int, int]]:
    return [(int(y), int(x)) for y, x in points]


def is_walk(points: NDArray[np.int64]) -> bool:
    """Tell whether every point is an 8-neighbour of the one before."""
    return bool((np.abs(np.diff(points, axis=0)).max(axis=1) == 1).all()) if len(points) > 1 else True


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_centreline_of_a_thin_bar_loses_a_tenth_at_both_ends(rng: np.random.Generator) -> None:
    bar = drawn(*["." * 24, "." + "#" * 20 + "...", "." * 24])

    assert sorted(places(centreline(bar, rng))) == [(1, x) for x in range(3, 19)]


def test_centreline_of_a_short_bar_is_kept_whole(rng: np.random.Generator) -> None:
    bar = drawn("." * 12, "." + "#" * 10 + ".", "." * 12)

    assert sorted(places(centreline(bar, rng))) == [(1, x) for x in range(1, 11)]


def test_centreline_runs_in_the_middle(rng: np.random.Generator) -> None:
    bar = np.zeros((11, 60), dtype=bool)
    bar[2:9, 3:57] = True
    line = centreline(bar, rng)

    assert (np.abs(line[:, 0] - 5) <= 1).all()
    assert np.ptp(line[:, 1]) >= 35
    assert is_walk(line)


def test_centreline_takes_the_longest_way_and_no_side_branch(rng: np.random.Generator) -> None:
    tee = np.zeros((16, 40), dtype=bool)
    tee[2, 2:38] = True
    tee[2:8, 20] = True
    line = centreline(tee, rng)

    assert (line[:, 0] == 2).all()
    assert len(line) == 36 - 2 * 3


def test_centreline_of_a_ring_goes_half_around(rng: np.random.Generator) -> None:
    y, x = np.mgrid[:41, :41]
    radius = np.hypot(y - 20, x - 20)
    line = centreline((radius > 13) & (radius < 17), rng)

    assert is_walk(line)
    assert (np.abs(np.hypot(line[:, 0] - 20, line[:, 1] - 20) - 15) < 1.6).all()
    ends = np.hypot(*(line[0] - line[-1]))
    assert ends > 15  # a tenth cut off at both ends of half a ring of radius 15


@pytest.mark.parametrize("shape", [("#",), ("##",), ("##", "##"), ("#.", ".#")])
@pytest.mark.parametrize("kind", KINDS)
def test_the_smallest_components_have_a_scribble(
    kind: str, shape: tuple[str, ...], rng: np.random.Generator
) -> None:
    component = np.pad(drawn(*shape), 1)
    points = KINDS[kind](component, rng)

    assert len(points) >= 1
    assert component[points[:, 0], points[:, 1]].all()


def test_random_line_is_straight_and_clipped_to_the_component() -> None:
    horseshoe = drawn("#######", "#.....#", "#.....#")
    lengths = set()
    for seed in range(40):
        line = random_line(horseshoe, np.random.default_rng(seed))
        assert horseshoe[line[:, 0], line[:, 1]].all()
        direction = line[-1] - line[0]
        offsets = (line - line[0]) @ np.array([-direction[1], direction[0]])
        assert (np.abs(offsets) <= max(1e-9, np.hypot(*direction))).all()  # within a voxel of the straight line
        lengths.add(len(line))
    assert len(lengths) > 3


def test_boundary_walk_is_a_fifth_of_the_inner_boundary() -> None:
    square = np.zeros((14, 14), dtype=bool)
    square[2:12, 2:12] = True  # 36 voxels of inner boundary
    starts = set()
    for seed in range(30):
        walk = boundary_walk(square, np.random.default_rng(seed))
        assert len(walk) == 7
        assert is_walk(walk)
        assert (square & ~ndimage.binary_erosion(square))[walk[:, 0], walk[:, 1]].all()
        starts.add(places(walk)[0])
    assert len(starts) > 10


def test_boundary_walk_follows_the_hole_of_a_ring_too() -> None:
    ring = np.ones((15, 15), dtype=bool)
    ring[4:11, 4:11] = False
    inner = outer = False
    for seed in range(60):
        first = boundary_walk(np.pad(ring, 1), np.random.default_rng(seed))[0] - 1
        inner |= bool((first > 2).all() and (first < 12).all())
        outer |= bool((first == 0).any() or (first == 14).any())
    assert inner
    assert outer


def test_the_largest_component_of_any_slice_counts_by_corners_too() -> None:
    error = np.zeros((3, 6, 6), dtype=bool)
    error[0, :2, :2] = True
    error[1, [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]] = True  # a diagonal: five voxels, 8-connected
    error[2, 0, :3] = error[2, 5, :3] = True  # six voxels, but in two pieces
    component, z = largest_component(error)

    assert z == 1
    assert component.sum() == 5


def test_volume_across_slices_does_not_count() -> None:
    error = np.zeros((6, 5, 8), dtype=bool)
    error[:, 0, :2] = True  # twelve voxels, two a slice
    error[4, 3, :3] = True
    component, z = largest_component(error)

    assert (z, int(component.sum())) == (4, 3)


@pytest.mark.parametrize(
    ("missed", "false", "label"),
    [(4, 3, "tumor"), (4, 4, "tumor"), (3, 4, "background")],
    ids=["more", "tie", "less"],
)
def test_the_larger_error_decides_and_a_tie_is_tumour(
    missed: int, false: int, label: str, rng: np.random.Generator
) -> None:
    truth, mask = np.zeros((2, 3, 5, 12), dtype=bool)
    truth[0, 1, :missed] = True
    mask[2, 3, :false] = True
    scribble = draw(truth, mask, "centreline", rng)

    assert scribble is not None
    assert scribble.label == label
    assert (scribble.points[:, 2] == (0 if label == "tumor" else 2)).all()
    assert (scribble.points[:, 1] == (1 if label == "tumor" else 3)).all()


def test_the_longer_line_decides_not_the_larger_error(rng: np.random.Generator) -> None:
    truth, mask = np.zeros((2, 3, 7, 12), dtype=bool)
    truth[0, 1:6, 1:6] = True  # 25 voxels, thinned to a few
    mask[2, 3, 1:10] = True  # 9 voxels in a row
    scribble = draw(truth, mask, "centreline", rng)

    assert scribble is not None
    assert scribble.label == "background"
    assert len(scribble.points) == 9


def test_no_scribble_for_an_empty_truth_or_a_perfect_mask(rng: np.random.Generator) -> None:
    empty, some = np.zeros((2, 3, 4, 5), dtype=bool)
    some[1, 1, 1:4] = True

    assert draw(empty, some, "random", rng) is None
    assert draw(some, some, "random", rng) is None
    assert clicks(empty, some) == []
    assert clicks(some, some) == []


@pytest.mark.parametrize("kind", KINDS)
def test_scribbles_lie_in_the_error(kind: str) -> None:
    rng = np.random.default_rng(3)
    for _ in range(25):
        truth, mask = (ndimage.gaussian_filter(rng.normal(size=(2, 6, 24, 30)), (0, 1, 3, 3)) > 0.03)[:]
        scribble = draw(truth, mask, kind, rng)
        assert scribble is not None
        x, y, z = scribble.points.T
        assert (truth[z, y, x] == (scribble.label == "tumor")).all()
        assert (mask[z, y, x] != (scribble.label == "tumor")).all()


def test_clicks_lie_innermost_in_both_errors() -> None:
    truth, mask = np.zeros((2, 3, 9, 20), dtype=bool)
    truth[1, 2:7, 2:7] = True
    mask[2, 1:4, 10:13] = True
    tumour, background = clicks(truth, mask)

    assert (tumour.label, tumour.points.tolist()) == ("tumor", [[4, 4, 1]])
    assert (background.label, background.points.tolist()) == ("background", [[11, 2, 2]])
