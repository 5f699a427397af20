"""Editing a mask by scribbles: each in its turn changes what is around it, and every point keeps its label."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse import csgraph
from scipy.spatial import KDTree

from algorithm.guidance.evidence import (
    FITTED,
    REACH_MM,
    Floats,
    Surroundings,
    Weights,
    connected,
    log_odds,
    look_around,
    standing_out,
)
from algorithm.guidance.pieces import cut, join, seen
from algorithm.scribbles import Scribbles

MOST_STROKES = 40
"""Of lines or clicks after these, only the points themselves are set; the editions give 5 lines or 20 clicks."""

_SAME_STROKE_MM = 10.0  # points of one line that was clipped to a hollow error may lie so far apart
_LEAST_LOG_ODDS = -0.2  # on the tuning cases 0 gave less Dice, -0.4 no more but twice the falls
_SMOOTHING_VOXELS = 0.7  # of the log odds: ragged borders are noise

Mask = NDArray[np.uint8]
Points = NDArray[np.int64]
Bools = NDArray[np.bool_]
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Guided:
    """A mask that follows the scribbles.

    Attributes
    ----------
    mask : uint8 array, z, y, x
        A new array.
    notes : tuple of str
        What was left out and why, those of the reading first.
    """

    mask: Mask
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Stroke:
    """One line or click: its label and its points, (n, 3), x, y, z, in any order."""

    tumour: bool
    points: Points

    @property
    def places(self) -> tuple[NDArray[np.int64], ...]:
        """The points as an index into arrays z, y, x."""
        return self.points[:, 2], self.points[:, 1], self.points[:, 0]


@dataclass(frozen=True)
class Case:
    """What a mask was made from; float32 arrays z, y, x, and the spacing in mm, x, y, z."""

    probability: NDArray[np.float32]
    suv: NDArray[np.float32]
    ct: NDArray[np.float32]
    spacing_xyz: Floats


def guide(
    mask: Mask,
    probability: NDArray[np.float32],
    suv: NDArray[np.float32],
    ct: NDArray[np.float32],
    spacing: Sequence[float],
    scribbles: Scribbles,
    weights: Weights = FITTED,
) -> Guided:
    """Correct a mask by all scribbles so far.

    Every tumour point is tumour and every background point background in the result; nothing further than
    :data:`~algorithm.guidance.evidence.REACH_MM` from a point changes. The scribbles are played back in the order
    in which a reader must have drawn them, each in what the earlier ones left wrong, so that a call with one more
    scribble builds on the mask of the call before.

    Parameters
    ----------
    mask : uint8 array, z, y, x
        The network's, 0 and 1; it is not changed.
    probability : float32 array, z, y, x
        Of tumour.
    suv, ct : float32 array, z, y, x
        SUV and HU.
    spacing : three floats, x, y, z
        mm.
    scribbles : Scribbles
        All points so far. Those outside the image and voxels of both kinds are left out, with a note.
    weights : Weights, optional
        Others than the fitted ones, for the fit itself.

    Returns
    -------
    Guided
    """
    within = scribbles.within(mask.shape[::-1])
    spacing_xyz = np.array(spacing, dtype=np.float64)
    guided, notes = mask.copy(), list(within.notes)
    strokes = [
        [Stroke(tumour, part) for part in _lines(points, spacing_xyz)]
        for tumour, points in ((True, within.tumour), (False, within.background))
    ]
    count = sum(map(len, strokes))
    if count > MOST_STROKES:
        notes.append(
            f"{count} lines and clicks are more than {MOST_STROKES}: of those after them only the voxels were set"
        )
    case = Case(probability, suv, ct, spacing_xyz)
    done: list[Stroke] = []
    for stroke in itertools.islice(_in_turn(strokes, guided), MOST_STROKES):
        edit(guided, stroke, done, case, weights)
        done.append(stroke)
        _set_points(guided, done)
    _set_points(guided, itertools.chain.from_iterable(strokes))
    return Guided(guided, tuple(notes))


def _lines(points: Points, spacing_xyz: Floats) -> list[Points]:
    """Part points into lines and clicks: what comes one after the other in a slice and hangs together.

    The order within a line tells nothing: the organisers write its points by x, then y, not along the line.
    """
    slices = np.split(points, np.flatnonzero(np.diff(points[:, 2])) + 1) if len(points) else []
    lines = []
    for run in slices:
        near = KDTree(run * spacing_xyz).query_pairs(_SAME_STROKE_MM, output_type="ndarray")
        graph = sparse.csr_array((np.ones(len(near)), tuple(near.T)), shape=(len(run), len(run)))
        numbers = csgraph.connected_components(graph, directed=False)[1]
        firsts = np.unique(numbers, return_index=True)[1]
        lines += [run[numbers == numbers[first]] for first in np.sort(firsts)]
    return lines


def _in_turn(strokes: Sequence[list[Stroke]], mask: Mask) -> Iterator[Stroke]:
    """Yield the strokes of both kinds in the order of their drawing, judged by the mask as it is when asked.

    The order within a kind is the file's; between the kinds it is lost in the organisers' form. A stroke was drawn
    in an error: of the two kinds' next ones, the one that more of the mask contradicts came first.
    """
    waiting = [list(each) for each in strokes]
    while any(waiting):
        queue = max((each for each in waiting if each), key=lambda each: _contradicted(each[0], mask))
        yield queue.pop(0)


def _contradicted(stroke: Stroke, mask: Mask) -> float:
    return float(np.mean(mask[stroke.places] != stroke.tumour))


def _set_points(mask: Mask, strokes: Iterable[Stroke]) -> None:
    for stroke in strokes:
        mask[stroke.places] = stroke.tumour


def edit(mask: Mask, stroke: Stroke, earlier: Sequence[Stroke], case: Case, weights: Weights) -> None:
    """Give the stroke's label to what is wrong around it, in place.

    Parameters
    ----------
    mask : uint8 array, z, y, x
    stroke : Stroke
    earlier : sequence of Stroke
        Nothing that lies nearer to one of the other label is changed.
    case : Case
    weights : Weights
    """
    if not _contradicted(stroke, mask):
        return
    box, here = surround(mask, stroke, case)
    opposite = _marked([each for each in earlier if each.tumour != stroke.tumour], here, box)
    asked = in_question(here, opposite)
    odds = np.zeros(asked.shape)
    odds[asked] = log_odds(look_around(here, asked), weights.of(tumour=stroke.tumour))
    share = ndimage.gaussian_filter(asked.astype(np.float64), _SMOOTHING_VOXELS)
    odds = ndimage.gaussian_filter(odds, _SMOOTHING_VOXELS) / np.maximum(share, 1e-3)
    wrong = connected(asked & ((odds > _LEAST_LOG_ODDS) | here.scribble), here.scribble)
    if stroke.tumour:
        lesion = standing_out(here, asked)
        wrong = join(here, seen(here, wrong | lesion, lesion, asked), lesion, asked, odds)
    else:
        wrong = cut(here, wrong, odds, opposite)
    mask[box][wrong] = stroke.tumour


def surround(mask: Mask, stroke: Stroke, case: Case) -> tuple[Box, Surroundings]:
    """Return the box within reach of a stroke, z, y, x, and the case inside it."""
    spacing_zyx = case.spacing_xyz[::-1]
    places = np.column_stack(stroke.places)
    margin = np.ceil(REACH_MM / spacing_zyx).astype(int)
    first, last = np.maximum(places.min(axis=0) - margin, 0), places.max(axis=0) + margin
    z, y, x = (slice(int(low), int(high) + 1) for low, high in zip(first, last, strict=True))
    box = z, y, x
    wrong = mask[box] != stroke.tumour
    scribble = np.zeros(wrong.shape, dtype=bool)
    scribble[tuple((places - first).T)] = True
    return box, Surroundings(
        scribble=scribble,
        wrong=wrong,
        distance_mm=ndimage.distance_transform_edt(~scribble, sampling=spacing_zyx),
        probability=case.probability[box] if stroke.tumour else 1 - case.probability[box],
        sign=1.0 if stroke.tumour else -1.0,
        suv=case.suv[box],
        ct=case.ct[box],
        spacing_zyx=spacing_zyx,
    )


def in_question(here: Surroundings, opposite: Bools) -> Bools:
    """Return the voxels with the wrong label that a stroke may change.

    They hang together with the stroke, lie within reach and nearer to it than to the opposite strokes' points.
    """
    asked = here.wrong & (here.distance_mm <= REACH_MM)
    if opposite.any():
        asked &= here.distance_mm < ndimage.distance_transform_edt(~opposite, sampling=here.spacing_zyx)
    return connected(asked, here.scribble)


def _marked(strokes: Sequence[Stroke], here: Surroundings, box: Box) -> Bools:
    """Return where the points of some strokes lie inside the box."""
    marked = np.zeros(here.wrong.shape, dtype=bool)
    for stroke in strokes:
        places = np.column_stack(stroke.places) - [side.start for side in box]
        marked[tuple(places[((places >= 0) & (places < marked.shape)).all(axis=1)].T)] = True
    return marked
