"""Pieces of a mask around a scribble: what a cut leaves over goes with it or stays joined, what grows is joined.

Pieces of a few voxels are no lesions, but count as false ones; so an edit shall not make any.
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from algorithm.guidance.evidence import REACH_MM, SMOOTHING_MM, Bools, Floats, Surroundings, connected
from algorithm.postprocessing import CONNECTIVITY

_SPLINTER_ML = 1.0  # a cut's leftover of less is none of its own, however little was cut
_BORDER = 0.42  # of SUVmax above the background; published fixed thresholds for lesions in PET are 40 to 42 %
_FLANK = 0.7  # likewise; on synthetic scenes 0.6 cut more lesions, 0.8 left more false pieces
_SEEN, _UNSEEN_MM = 1.15, 10.0  # on synthetic scenes 1.25 and more cut short more lesions that are faint
_SURPRISE_LEAST = 0.1  # per mm of a path; else ways through what is certain would cost nothing and wander

# Half of the 18 neighbours; the other half are the same steps backwards.
_STEPS = [step for step in itertools.product((-1, 0, 1), repeat=3) if step > (0, 0, 0) and 0 in step]


def cut(here: Surroundings, removed: Bools, odds: Floats, tumour_points: Bools) -> Bools:
    """Return what a background scribble removes, given what is wrong by its voxels alone.

    Where the scribble lies on the flank of what would go, the core stays. Where a piece of the mask is cut, the
    largest part stays, and so does one that is larger than what was cut off. Smaller ones would count as
    lesions of their own: those that lie wholly within reach and hold no tumour point go as well, and the others
    stay joined to the largest by a path through the cut.

    Parameters
    ----------
    here : Surroundings
        Of the background scribble.
    removed : bool array, z, y, x
    odds : float array, z, y, x
        Log odds that the voxels are wrong; the path takes the least wrong ones.
    tumour_points : bool array, z, y, x
    """
    result = np.zeros_like(removed)
    stays = (here.distance_mm > REACH_MM) | tumour_points
    labels, _ = ndimage.label(here.wrong, CONNECTIVITY)
    for number in np.unique(labels[removed]):
        piece = labels == number
        taken = removed & piece & ~_core(here, piece, removed)
        allowed = taken & ~here.scribble
        largest, *rest = _by_size(piece & ~taken)
        small = max(float(np.count_nonzero(taken)), _SPLINTER_ML / here.voxel_ml)
        for part in rest:
            if np.count_nonzero(part) >= small:
                continue
            if (part & stays).any():
                taken &= ~path(part, largest, allowed, odds, here.spacing_zyx)
            else:
                taken |= part
        result |= taken
    return result


def _by_size(voxels: Bools) -> list[Bools]:
    """Return the connected parts of a set of voxels, the largest first; the empty set has one, itself."""
    labels, count = ndimage.label(voxels, CONNECTIVITY)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    return [labels == number for number in np.argsort(-sizes, kind="stable") + 1] or [voxels]


def _core(here: Surroundings, piece: Bools, removed: Bools) -> Bools:
    """Return what stays of a piece though it would go: what is hotter than the scribble, if that is nowhere hot.

    A fixed share of the maximal SUV above the background's is the usual border of a lesion in PET. A scribble far
    below the maximum lies on the flank and says that the border is wrong, not the lesion.
    """
    suv = np.where(removed & piece, here.suv, 0)
    scribbled = float(np.where(piece & here.scribble, here.suv, 0).max())
    background = here.suv[~here.wrong & (here.distance_mm <= REACH_MM)]
    outside = float(np.median(background)) if background.size else 0.0
    contrast = float(suv.max()) - outside
    if scribbled - outside >= _FLANK * contrast:
        return np.zeros_like(piece)
    hot = piece & (here.suv >= outside + _BORDER * contrast) & (here.suv > scribbled)
    return connected(hot, hot & (suv == suv.max()))


def seen(here: Surroundings, grown: Bools, lesion: Bools, asked: Bools) -> Bools:
    """Return what a tumour scribble grew without what nothing speaks for.

    Around a scribble that is hardly hotter than its surroundings, pieces that neither touch the mask nor stand out
    would fill the reach; they end near it.

    Parameters
    ----------
    here : Surroundings
        Of the tumour scribble.
    grown : bool array, z, y, x
    lesion : bool array, z, y, x
        The part of it that stands out.
    asked : bool array, z, y, x
        The surroundings.
    """
    own = here.scribble & here.wrong
    smooth = ndimage.gaussian_filter(here.suv, SMOOTHING_MM / here.spacing_zyx, truncate=3)
    if np.median(smooth[own]) > _SEEN * np.median(here.suv[asked]):
        return grown
    alone = grown & ~connected(grown | ~here.wrong, lesion | ~here.wrong)
    distance = ndimage.distance_transform_edt(~own, sampling=here.spacing_zyx)
    kept: Bools = grown & ~(alone & (distance > _UNSEEN_MM))
    return kept


def join(here: Surroundings, grown: Bools, lesion: Bools, asked: Bools, odds: Floats) -> Bools:
    """Return what a tumour scribble grew, and a path to the mask for each piece that does not touch it.

    A missed part of a lesion is the usual reason for such a piece. What stands out of its surroundings is a lesion
    of its own.

    Parameters
    ----------
    here : Surroundings
        Of the tumour scribble.
    grown : bool array, z, y, x
    lesion : bool array, z, y, x
        The part of it that stands out; a piece with such a part is not joined.
    asked : bool array, z, y, x
        Where the path may run.
    odds : float array, z, y, x
        Log odds that the voxels are wrong, so tumour; the path takes the most probable ones.
    """
    mask = ~here.wrong
    labels, _ = ndimage.label(mask | grown, CONNECTIVITY)
    result = grown.copy()
    for number in np.setdiff1d(labels[grown], np.append(labels[mask | lesion], 0)):
        result |= path(labels == number, mask, asked, -odds, here.spacing_zyx)
    return result


def path(start: Bools, end: Bools, allowed: Bools, surprise: Floats, spacing_zyx: Floats) -> Bools:
    """Return the cheapest way from one set of voxels to another, 18-connected, without its ends.

    Parameters
    ----------
    start, end, allowed : bool array, z, y, x
        The way runs over allowed voxels.
    surprise : float array, z, y, x
        Log odds against a voxel; the cost of 1 mm there is the negative logarithm of its probability.
    spacing_zyx : float array, (3,)
        mm.

    Returns
    -------
    bool array, z, y, x
        Nothing where there is no way.
    """
    near = ndimage.binary_dilation(allowed, CONNECTIVITY)
    places = np.flatnonzero(allowed | (near & (start | end)))
    number = np.full(allowed.shape, -1)
    number.flat[places] = np.arange(len(places))
    cost = _SURPRISE_LEAST + np.logaddexp(0, surprise.flat[places])
    rows, columns, costs = [], [], []
    for step in _STEPS:
        one = number[tuple(slice(max(0, -each), -each if each > 0 else None) for each in step)]
        other = number[tuple(slice(max(0, each), each if each < 0 else None) for each in step)]
        both = (one >= 0) & (other >= 0)
        rows.append(one[both])
        columns.append(other[both])
        length = float(np.linalg.norm(np.array(step) * spacing_zyx))
        costs.append(length * (cost[one[both]] + cost[other[both]]) / 2)
    edges = np.concatenate(costs), (np.concatenate(rows), np.concatenate(columns))
    graph = sparse.csr_array(edges, shape=(len(places), len(places)))
    way = np.zeros(allowed.shape, dtype=bool)
    sources, targets = (np.flatnonzero(each.flat[places]) for each in (start, end))
    if not len(sources) or not len(targets):
        return way
    distance, before, _ = csgraph.dijkstra(
        graph, directed=False, indices=sources, return_predecessors=True, min_only=True
    )
    at = int(targets[distance[targets].argmin()])
    while np.isfinite(distance[at]) and before[at] >= 0:
        way.flat[places[at]] = True
        at = int(before[at])
    return way & allowed
