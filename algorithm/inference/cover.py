"""Few windows that show some voxels of a volume well within their faces. Arrays are x, y, z."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from algorithm.inference.windows import Start

_Counts = NDArray[np.int64]
_Place = tuple[int, int, int]


def cover(
    wanted: NDArray[np.bool_], patch: Sequence[int], margin: Sequence[int], starts: Sequence[Sequence[int]]
) -> tuple[Start, ...]:
    """Return the first voxels of windows whose inner parts hold every wanted voxel, as few as are found.

    A window's inner part ends a margin before its faces, but reaches to those that lie in the volume's. Windows
    are chosen greedily in two ways, the one that holds most of what is left: of all windows, or of those that hold
    the first voxel that is left. What turns out not to be needed is left out, and the shorter of both lists is
    taken, or the tiles of a tiling where they are fewer.

    Parameters
    ----------
    wanted : bool array
        No side smaller than the patch's.
    patch, margin : three ints
        Each margin at most a quarter of its side.
    starts : three sequences of ints
        Where windows may begin along each axis, in ascending order, from 0 to the last place in the volume; inner
        parts of neighbours must leave no gap.
    """
    if not wanted.any():
        return ()
    axes = [_Axis.of(*each) for each in zip(wanted.shape, patch, margin, starts, strict=True)]
    counts = _counts_of(wanted, axes)
    tiles = [(x, y, z) for x, y, z in itertools.product(*(axis.tiles() for axis in axes))]
    tried = [_chosen(counts, axes, sweeping=False), _chosen(counts, axes, sweeping=True), tiles]
    fewest = min((_needed(places, counts, axes) for places in tried), key=len)
    return tuple(sorted(_start_of(place, axes) for place in fewest))


@dataclass(frozen=True)
class _Axis:
    """The places that windows can take along one axis; between two neighbouring edges lies a cell.

    Attributes
    ----------
    starts : int array
        First voxel by place.
    edges : int array
        Where a window's inner part begins or ends; the first voxel of each cell, and the volume's end.
    first, last : int array
        By place, the first cell of the inner part, and the first behind it.
    """

    starts: NDArray[np.int64]
    edges: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]

    @classmethod
    def of(cls, extent: int, side: int, margin: int, places: Sequence[int]) -> _Axis:
        starts = np.array(places, np.int64)
        end = extent - side
        inner = np.where(starts == 0, 0, starts + margin), np.where(starts == end, extent, starts + side - margin)
        edges = np.unique(np.concatenate(inner))
        first, last = (np.searchsorted(edges, each) for each in inner)
        return cls(starts, edges, first, last)

    def inner(self, place: int) -> slice:
        """Return the cells of a place's inner part."""
        return slice(int(self.first[place]), int(self.last[place]))

    def tiles(self) -> list[int]:
        """Return places whose inner parts hold the whole axis, each as far on as leaves no gap."""
        places, end = [0], len(self.edges) - 1
        while self.last[places[-1]] < end:
            places.append(int(np.flatnonzero(self.first <= self.last[places[-1]])[-1]))
        return places


def _counts_of(wanted: NDArray[np.bool_], axes: Sequence[_Axis]) -> _Counts:
    """Return how many wanted voxels lie in each cell."""
    counts: _Counts = wanted.view(np.uint8)
    for number in (2, 1, 0):
        counts = np.add.reduceat(counts, axes[number].edges[:-1], axis=number, dtype=np.int64)
    return counts


def _chosen(counts: _Counts, axes: Sequence[_Axis], *, sweeping: bool) -> list[_Place]:
    """Choose windows until their inner parts hold all; when sweeping, each holds the first voxel that is left."""
    left, places = counts.copy(), []
    while left.any():
        held = _held(left, axes)
        if sweeping:
            z, y, x = np.argwhere(left.transpose(2, 1, 0))[0]
            for number, cell in enumerate((x, y, z)):
                outside = (axes[number].first > cell) | (axes[number].last <= cell)
                held[(slice(None),) * number + (outside,)] = 0
        x, y, z = np.unravel_index(held.argmax(), held.shape)
        places.append((int(x), int(y), int(z)))
        left[_cells_of(places[-1], axes)] = 0
    return places


def _held(left: _Counts, axes: Sequence[_Axis]) -> _Counts:
    """Return how many of the voxels that are left lie in the inner part of the window at each place."""
    held = left
    for number, axis in enumerate(axes):
        until = np.insert(held.cumsum(number), 0, 0, axis=number)
        held = until.take(axis.last, number) - until.take(axis.first, number)
    return held


def _needed(places: Sequence[_Place], counts: _Counts, axes: Sequence[_Axis]) -> list[_Place]:
    """Leave out, the latest first, the windows without which every wanted voxel is held all the same."""
    times = np.zeros(counts.shape, np.int64)
    for place in places:
        times[_cells_of(place, axes)] += 1
    needed = []
    for place in reversed(places):
        cells = _cells_of(place, axes)
        if ((times[cells] == 1) & (counts[cells] > 0)).any():
            needed.append(place)
        else:
            times[cells] -= 1
    return needed


def _cells_of(place: _Place, axes: Sequence[_Axis]) -> tuple[slice, ...]:
    return tuple(axis.inner(each) for axis, each in zip(axes, place, strict=True))


def _start_of(place: _Place, axes: Sequence[_Axis]) -> Start:
    x, y, z = (int(axis.starts[each]) for axis, each in zip(axes, place, strict=True))
    return x, y, z
