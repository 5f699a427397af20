"""What the organisers' simulated reader draws: a line or a click in the largest error of the last mask.

The rules are those of autoPET V's interactive loop as facts; the code is our own. Masks are z, y, x; points are
voxel indices x, y, z, as grand-challenge writes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse import csgraph
from skimage.draw import line
from skimage.morphology import skeletonize

from algorithm.preprocessing import bounding_box

Label = Literal["tumor", "background"]
Plane = NDArray[np.bool_]
Points = NDArray[np.int64]

IN_PLANE = np.array([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))], dtype=bool)
"""Eight neighbours in the axial slice, none across slices."""

_TRIMMED_LENGTH, _TRIMMED_SHARE = 10, 10  # a centre line of more voxels loses a tenth of them at both ends
_BOUNDARY_SHARE = 5  # a walk follows a fifth of the boundary


@dataclass(frozen=True)
class Scribble:
    """One line or click.

    Attributes
    ----------
    label : str
        ``tumor`` or ``background``, the names that grand-challenge's file uses.
    points : int array, (n, 3)
        x, y, z.
    """

    label: Label
    points: Points


def draw(
    truth: NDArray[np.bool_], mask: NDArray[np.bool_], kind: str, rng: np.random.Generator
) -> Scribble | None:
    """Draw a line in the largest false negative and in the largest false positive; return the longer one.

    That is the rule of the organisers' loop of July 2026 (three public copies of it): of lines as long, the false
    negative's.

    Parameters
    ----------
    truth, mask : bool array, z, y, x
    kind : str
        A key of :data:`KINDS`.
    rng : numpy Generator
        Chooses the ends of a random line and the start of a walk along the boundary.

    Returns
    -------
    Scribble or None
        None where the truth is empty or nothing is wrong.
    """
    if not truth.any():
        return None
    missed, false = (_line_in(error, kind, rng) for error in (truth & ~mask, mask & ~truth))
    if not len(missed) and not len(false):
        return None
    return Scribble("tumor", missed) if len(missed) >= len(false) else Scribble("background", false)


def _line_in(error: NDArray[np.bool_], kind: str, rng: np.random.Generator) -> Points:
    """Return a line in the largest component, (n, 3), x, y, z; of no points where there is no error."""
    plane, z = largest_component(error)
    places_yx = KINDS[kind](plane, rng) if plane.any() else np.empty((0, 2), np.int64)
    return np.column_stack([places_yx[:, 1], places_yx[:, 0], np.full(len(places_yx), z)]).astype(np.int64)


def largest_component(error: NDArray[np.bool_]) -> tuple[Plane, int]:
    """Return the largest 8-connected component of any axial slice, and that slice's index.

    Parameters
    ----------
    error : bool array, z, y, x

    Returns
    -------
    bool array, y, x
        The component; empty where there is no error. Of several as large, the first from below.
    int
        Index along z.
    """
    component = np.zeros(error.shape[1:], dtype=bool)
    if not error.any():
        return component, 0
    box = bounding_box(error)
    labels, _ = ndimage.label(error[box], IN_PLANE)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest = labels == sizes.argmax()
    z = int(largest.any(axis=(1, 2)).argmax())
    component[box[1], box[2]] = largest[z]
    return component, z + box[0].start


def centreline(component: Plane, rng: np.random.Generator) -> Points:
    """Return the skeleton's longest end-to-end path, y, x, a tenth cut off at both ends of a long one."""
    skeleton = skeletonize(component)  # type: ignore[no-untyped-call]
    places = np.argwhere(skeleton if skeleton.any() else component)  # thinning may eat the smallest shapes whole
    graph = _neighbours(places)
    ends = np.flatnonzero(np.diff(graph.indptr) <= 1)
    sources = ends if len(ends) > 1 else np.arange(len(places))
    distances, before = csgraph.dijkstra(graph, indices=sources, return_predecessors=True)
    reached = np.where(np.isfinite(distances), distances, -1.0)[:, sources]
    start, end = np.unravel_index(int(reached.argmax()), reached.shape)
    path = _followed(before[start], int(sources[end]))
    cut = len(path) // _TRIMMED_SHARE if len(path) > _TRIMMED_LENGTH else 0
    return places[path[cut : len(path) - cut]]


def random_line(component: Plane, rng: np.random.Generator) -> Points:
    """Return the straight line between two random voxels, y, x, where it lies inside the component."""
    places = np.argwhere(component)
    start, end = places[rng.integers(len(places), size=2)]
    on_line = np.column_stack(line(*start, *end)).astype(np.int64)  # type: ignore[no-untyped-call]
    return on_line[component[on_line[:, 0], on_line[:, 1]]]


def boundary_walk(component: Plane, rng: np.random.Generator) -> Points:
    """Return a walk along a fifth of the inner boundary, y, x, from a random voxel of it."""
    places = np.argwhere(component & ~ndimage.binary_erosion(component))
    wanted = max(1, round(len(places) / _BOUNDARY_SHARE))
    start = int(rng.integers(len(places)))
    steps, before = csgraph.dijkstra(_neighbours(places), indices=start, return_predecessors=True, unweighted=True)
    steps[~np.isfinite(steps)] = -1
    end = int(np.flatnonzero(steps == min(wanted - 1, steps.max()))[0])
    return places[_followed(before, end)]


KINDS: dict[str, Callable[[Plane, np.random.Generator], Points]] = {
    "centreline": centreline,
    "random": random_line,
    "boundary": boundary_walk,
}


def clicks(truth: NDArray[np.bool_], mask: NDArray[np.bool_]) -> list[Scribble]:
    """Return one tumour and one background click, as IV gives at each step, where there is something to click on.

    Our sources say how many clicks there are but not where; here each is the innermost voxel of the largest missed
    and of the largest false 2-D component, as V's lines are placed.

    Parameters
    ----------
    truth, mask : bool array, z, y, x
    """
    found: list[Scribble] = []
    if not truth.any():
        return found
    errors: tuple[tuple[Label, NDArray[np.bool_]], ...] = (("tumor", truth & ~mask), ("background", mask & ~truth))
    for label, error in errors:
        component, z = largest_component(error)
        if component.any():
            depth = ndimage.distance_transform_cdt(np.pad(component, 1), metric="taxicab")[1:-1, 1:-1]
            y, x = np.unravel_index(int(depth.argmax()), depth.shape)
            found.append(Scribble(label, np.array([[x, y, z]], dtype=np.int64)))
    return found


def _neighbours(places: Points) -> sparse.csr_array:
    """Return the graph of 8-neighbours among places (n, 2), weighted by their distance in voxels."""
    index = {(int(y), int(x)): number for number, (y, x) in enumerate(places)}
    offsets = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    edges = [
        (number, other, (dy * dy + dx * dx) ** 0.5)
        for (y, x), number in index.items()
        for dy, dx in offsets
        if (other := index.get((y + dy, x + dx))) is not None
    ]
    rows, columns, weights = zip(*edges, strict=True) if edges else ((), (), ())
    return sparse.csr_array((weights, (rows, columns)), shape=(len(places), len(places)), dtype=np.float64)


def _followed(before: NDArray[np.int32], end: int) -> list[int]:
    """Return the path to ``end`` by each node's predecessor; a negative one is the start's."""
    path = [end]
    while before[path[-1]] >= 0:
        path.append(int(before[path[-1]]))
    return path[::-1]
