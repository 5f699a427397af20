"""How probable it is that a voxel near a scribble is wrong as the scribbled ones are.

A scribble lies in an error of the mask. Its own voxels are certain; how far the error reaches is not said.
:func:`look_around` measures, for the voxels around that have the same label, a few plain quantities, and
:func:`log_odds` adds them up: a logistic regression, fitted by ``python -m evaluation.interactive.fit``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from algorithm.postprocessing import CONNECTIVITY, voxel_volume_ml

Volume = NDArray[np.float32]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

REACH_MM = 30.0
"""Nothing further than this from a scribble is changed."""

SMOOTHING_MM = 4.0
"""The width of PET's noise."""

FEATURES = (
    "distance",  # to the scribble, mm
    "slice distance",  # across axial slices, mm: scribbles lie in the slice where the error is largest
    "depth",  # distance to the nearest voxel that has the scribble's label already, mm
    "arrival",  # of a front from the scribble that is slow where PET, CT and probability differ from there, mm
    "probability",  # log odds that the network gave the scribble's label
    "distance within depth",  # the distance, but at most the scribble's depth
    "scribble's depth",  # log(1 + d) of its deepest voxel: how far from the border the error reaches
    "distance by depth",  # the product of the two
    "crowd 5",  # share of the scribble's label within about 5, 10 and 20 mm: hollows fill, bumps go
    "crowd 10",
    "crowd 20",
    "crowd 20 gained",  # against that at the scribble
    "uptake",  # log2 of the smoothed SUV against that at the scribble; hotter counts for tumour
    "CT",  # difference of the smoothed HU from those at the scribble, in 100 HU, either way
)

_LOGIT_MOST = 6.0
_SUV_LEAST = 0.1  # below, noise of an empty background would dominate the logarithm
_HU_RANGE = (-200.0, 300.0)  # fat to bone; beyond, differences say nothing about tumour
_CROWDS_MM = (5.0, 10.0, 20.0)
_LATEST_MM = 60.0  # arrival of a front that is late or never comes
_CONTRAST = 2.0  # of a missed lesion to what is around it; less is muscle beside fat
_HOTTEST = 90  # percentile of a line's SUV, which may begin at the rim, and of a touched piece's, for its noise
_BLOCKED = 1e-4  # speed outside the voxels in question; the front's equation needs some
_SLOWED_BY = (0.25, 1.0, 0.5)  # per unit of log odds, doubling of SUV, 100 HU: times as slow


@dataclass(frozen=True)
class Surroundings:
    """A scribble and the part of the case around it; arrays are z, y, x.

    Attributes
    ----------
    scribble : bool array
    wrong : bool array
        Voxels that do not have the scribble's label.
    distance_mm : float array
        To the scribble.
    probability : float32 array
        Of the scribble's label.
    sign : float
        1 for tumour, -1 for background.
    suv, ct : float32 array
    spacing_zyx : float array, (3,)
        mm.
    """

    scribble: Bools
    wrong: Bools
    distance_mm: Floats
    probability: Volume
    sign: float
    suv: Volume
    ct: Volume
    spacing_zyx: Floats

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel."""
        return voxel_volume_ml(self.spacing_zyx.tolist())


def look_around(around: Surroundings, asked: Bools) -> Floats:
    """Measure :data:`FEATURES` for some voxels.

    Parameters
    ----------
    around : Surroundings
    asked : bool array, z, y, x

    Returns
    -------
    float array, (voxels asked, features)
    """
    at = around.scribble
    own = np.flatnonzero(at & around.wrong)  # scribbled voxels that were right already tell nothing
    depth = _depth(around)
    deepest = float(depth.flat[own].max())
    logit = _logit(around.probability)
    sigma = SMOOTHING_MM / around.spacing_zyx
    uptake = ndimage.gaussian_filter(_log_suv(around.suv), sigma, truncate=3)
    hounsfield = ndimage.gaussian_filter(np.clip(around.ct, *_HU_RANGE) / 100, sigma, truncate=3)
    crowds = [_crowd(around, radius) for radius in _CROWDS_MM]
    distance = around.distance_mm[asked]
    log_depth = np.log1p(deepest)
    slices = np.flatnonzero(at.any(axis=(1, 2)))
    across = np.abs(np.arange(at.shape[0])[:, None] - slices).min(axis=1) * around.spacing_zyx[0]
    columns = (
        distance,
        across[np.nonzero(asked)[0]],
        depth[asked],
        _arrival(around, own, logit)[asked],
        logit[asked],
        np.minimum(distance, deepest),
        np.full(distance.shape, log_depth),
        distance * log_depth,
        *(crowd[asked] for crowd in crowds),
        (crowds[-1] - np.median(crowds[-1].flat[own]))[asked],
        around.sign * (uptake - np.median(uptake.flat[own]))[asked],
        np.abs(hounsfield - np.median(hounsfield.flat[own]))[asked],
    )
    return np.column_stack(columns).astype(np.float64)


def log_odds(features: Floats, weights: Sequence[float]) -> Floats:
    """Return the log odds that voxels are wrong, at most 6 either way.

    Parameters
    ----------
    features : float array, (n, features)
        From :func:`look_around`.
    weights : sequence of float
        One per feature, then the constant.
    """
    odds: Floats = np.clip(features @ np.array(weights[:-1]) + weights[-1], -_LOGIT_MOST, _LOGIT_MOST)
    return odds


def standing_out(around: Surroundings, asked: Bools) -> Bools:
    """Return what stands out of its surroundings in the PET as the scribble does: a lesion that was missed.

    That is what lies above half way between the surroundings' SUV and the scribble's, the usual
    background-corrected threshold of a lesion in PET, and hangs together with the scribble. Where it touches the
    mask, it is a missed part of what it touches, and the threshold is no lower than that one's.

    Parameters
    ----------
    around : Surroundings
        Of a tumour scribble.
    asked : bool array, z, y, x

    Returns
    -------
    bool array, z, y, x
        Nothing if the scribble hardly stands out, or if what does goes on beyond the reach, as an organ would.
    """
    own = around.scribble & around.wrong  # scribbled voxels that were right already tell nothing
    here, elsewhere = float(np.percentile(around.suv[own], _HOTTEST)), float(np.median(around.suv[asked]))
    if here < _CONTRAST * elsewhere:
        return np.zeros_like(asked)
    region = connected((asked & (around.suv >= (here + elsewhere) / 2)) | own, own)
    touched = connected(~around.wrong, ndimage.binary_dilation(region, CONNECTIVITY) & ~around.wrong)
    if touched.any():
        border = (float(np.percentile(around.suv[touched], _HOTTEST)) + elsewhere) / 2
        region = connected((region & (around.suv >= border)) | own, own)
    distance = ndimage.distance_transform_edt(~own, sampling=around.spacing_zyx)
    beyond = distance[region].max() > REACH_MM - around.spacing_zyx.max()
    return np.zeros_like(region) if beyond else region


def connected(voxels: Bools, seeds: Bools) -> Bools:
    """Return the pieces of a set of voxels, z, y, x, that hold some of the seeds."""
    labels, count = ndimage.label(voxels, CONNECTIVITY)
    kept = np.zeros(count + 1, dtype=bool)
    kept[labels[seeds]] = True
    kept[0] = False
    pieces: Bools = kept[labels]
    return pieces


def _depth(around: Surroundings) -> Floats:
    """Return the distance to the scribble's label in mm; the reach where it is further or nowhere."""
    if around.wrong.all():
        return np.full(around.wrong.shape, REACH_MM)
    depth: Floats = ndimage.distance_transform_edt(around.wrong, sampling=around.spacing_zyx)
    return np.minimum(depth, REACH_MM)


def _crowd(around: Surroundings, radius_mm: float) -> Volume:
    right = (~around.wrong).astype(np.float32)
    crowd: Volume = ndimage.gaussian_filter(right, radius_mm / around.spacing_zyx, truncate=3)
    return crowd


def _arrival(around: Surroundings, own: NDArray[np.intp], logit: Volume) -> Volume:
    """Return when a front from the scribble arrives (fast marching), in mm of unhindered way."""
    differences = (
        np.maximum(np.median(logit.flat[own]) - logit, 0),
        np.abs(_log_suv(around.suv) - np.median(_log_suv(around.suv).flat[own])),
        np.abs(np.clip(around.ct, *_HU_RANGE) - np.median(np.clip(around.ct.flat[own], *_HU_RANGE))) / 100,
    )
    slowness = 1 + sum(weight * each for weight, each in zip(_SLOWED_BY, differences, strict=True))
    speed = sitk.GetImageFromArray(np.where(around.wrong, 1 / slowness, _BLOCKED).astype(np.float32))
    speed.SetSpacing(around.spacing_zyx[::-1].tolist())
    starts = np.column_stack(np.unravel_index(own, around.wrong.shape))[:, ::-1].tolist()
    front: Volume = sitk.GetArrayFromImage(sitk.FastMarching(speed, starts, 1.0, _LATEST_MM))
    arrival: Volume = np.minimum(front, np.float32(_LATEST_MM))
    return arrival


def _logit(probability: Volume) -> Volume:
    limit = 1 / (1 + np.exp(_LOGIT_MOST))
    clipped = np.clip(probability, limit, 1 - limit)
    logit: Volume = np.log(clipped / (1 - clipped))
    return logit


def _log_suv(suv: Volume) -> Volume:
    log: Volume = np.log2(np.maximum(suv, np.float32(_SUV_LEAST)))
    return log


@dataclass(frozen=True)
class Weights:
    """Of the features in the order of :data:`FEATURES`, the constant last, for tumour and background scribbles."""

    tumour: tuple[float, ...]
    background: tuple[float, ...]

    def of(self, *, tumour: bool) -> tuple[float, ...]:
        """Return those for one kind of scribble."""
        return self.tumour if tumour else self.background


# By python -m evaluation.interactive.fit; docs/interactive.md says on which cases.
# fmt: off
FITTED = Weights(
    tumour=(
        0.0462, 0.0323, -0.0483, -0.0666, -0.021, 0.0256, 1.27, -0.013,
        8.28, -3.19, 2.98, -1.4, 0.849, -0.413, -2.42,
    ),
    background=(
        0.00586, 0.0106, -0.116, -0.0229, 0.0778, -0.127, 2.31, -0.012,
        1.8, 6.55, -7.93, 6.79, 0.14, -0.281, -0.199,
    ),
)
# fmt: on
