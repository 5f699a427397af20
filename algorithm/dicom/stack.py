"""From loose slices to a stack: sorted, without copies, evenly spaced, straight; or why they make none."""

from __future__ import annotations

import hashlib
import math
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from algorithm.dicom.headers import Header, number, numbers, pydicom_module, text

_SAME_PLACE_MM = 0.01
_UNEVEN = 0.1  # of the distance between slices: what headers round off, and what one slice more or less is not
_UNEVEN_MM = 0.05
_DRIFT = 0.2  # of a pixel, over the whole stack
_COSINE_TOLERANCE = 1e-3
_TILT_DEGREES = 0.5


@dataclass(frozen=True)
class Slice:
    """One slice: a classic object or one frame of an enhanced one.

    Attributes
    ----------
    path : Path
        Its file.
    frame : int
        From 0, within the file.
    header : pydicom.Dataset
        Its elements, flat.
    position : tuple of float
        ImagePositionPatient (0020,0032), mm, patient space (x, y, z; LPS); empty where there is none.
    """

    path: Path
    frame: int
    header: Header = field(repr=False, compare=False)
    position: tuple[float, ...] = ()

    @property
    def instance_uid(self) -> str:
        """SOPInstanceUID (0008,0018) of the object that the slice is in."""
        return text(self.header, "SOPInstanceUID")

    @property
    def moment(self) -> tuple[str, ...]:
        """What tells frames in time (or of a gated cycle) apart."""
        return tuple(text(self.header, keyword) for keyword in _MOMENT)


_MOMENT = (
    "AcquisitionDate",
    "AcquisitionTime",
    "AcquisitionDateTime",
    "FrameReferenceTime",
    "TemporalPositionIdentifier",
    "TriggerTime",
)


def stacked(slices: list[Slice], orientation: tuple[float, ...]) -> tuple[tuple[Slice, ...], str, tuple[str, ...]]:
    """Sort slices of one orientation along their normal and judge them.

    Parameters
    ----------
    slices : list of Slice
        With positions.
    orientation : tuple of float
        ImageOrientationPatient (0020,0037).

    Returns
    -------
    slices : tuple of Slice
        By position along the normal, copies left out.
    problem : str
        Why they make no volume (several frames in time, different slices in one place, missing or unevenly spaced
        slices, gantry tilt, one slice only); empty where they do. Source: PS3.3 C.7.6.2.1.1, the plane of an
        image. notes : tuple of str
        Copies left out, a tilt that the header names and the positions do not show.
    """
    rows, columns = np.array(orientation[:3]), np.array(orientation[3:])
    normal = np.cross(rows, columns)
    skewed = abs(rows @ columns) > _COSINE_TOLERANCE or abs(np.linalg.norm(normal) - 1) > _COSINE_TOLERANCE
    ordered = sorted(slices, key=lambda one: (float(normal @ one.position), str(one.path), one.frame))
    if skewed:
        return (
            tuple(ordered),
            f"its rows and columns are not perpendicular (ImageOrientationPatient {orientation})",
            (),
        )
    ordered, copies, problem = _one_per_place(ordered, normal)
    notes = [f"copies of slices left out: {copies}"] if copies else []
    if not problem:
        along = np.array([normal @ one.position for one in ordered])
        problem = _spacing_problem(ordered, along) or _tilt_problem(ordered, normal, along)
    tilt = number(ordered[0].header, "GantryDetectorTilt") or 0.0
    if not problem and abs(tilt) > _TILT_DEGREES:
        notes.append(
            f"the header names a gantry tilt of {tilt:g} degrees; slices were taken as they lie, one straight "
            "above the other"
        )
    return tuple(ordered), problem, tuple(notes)


def slice_step(slices: tuple[Slice, ...], normal: NDArray[np.float64]) -> float:
    """Return the mean distance in mm of neighbouring slices along the normal."""
    ends = normal @ np.array(slices[-1].position) - normal @ np.array(slices[0].position)
    return float(ends) / (len(slices) - 1)


def _one_per_place(ordered: list[Slice], normal: NDArray[np.float64]) -> tuple[list[Slice], int, str]:
    """Leave copies out; name what else shares a place."""
    places: list[list[Slice]] = []
    last = -math.inf
    for one in ordered:
        along = float(normal @ one.position)
        if along - last > _SAME_PLACE_MM:
            places.append([])
            last = along
        places[-1].append(one)
    unique = [_without_repeats(place) for place in places]
    frames = min(len(place) for place in unique)
    if frames > 1 and all(len({one.moment for one in place}) == len(place) for place in unique):
        problem = f"it is dynamic or gated, with {frames} frames at each position"
        return ordered, 0, problem
    kept: list[Slice] = []
    for place in unique:
        if len(place) > 1 and len({_fingerprint(one) for one in place}) > 1:
            first, second = place[:2]
            return ordered, 0, f"two different slices lie in one place: {first.path} and {second.path}"
        kept.append(place[0])
    return kept, len(ordered) - len(kept), ""


def _without_repeats(place: list[Slice]) -> list[Slice]:
    """Keep the first of several files with the same SOPInstanceUID and scaling."""
    first: dict[tuple[object, ...], Slice] = {}
    for one in place:
        first.setdefault((one.instance_uid, one.frame, text(one.header, "RescaleSlope")), one)
    return list(first.values())


def _fingerprint(one: Slice) -> str:
    """Hash the pixels and the scaling of a slice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stored = pydicom_module().dcmread(one.path, specific_tags=["PixelData"], force=True)
    digest = hashlib.sha256(getattr(stored, "PixelData", b"") or b"")
    for keyword in ("RescaleSlope", "RescaleIntercept", "Units"):
        digest.update(text(one.header, keyword).encode())
    digest.update(str(one.frame).encode())
    return digest.hexdigest()


def _spacing_problem(ordered: list[Slice], along: NDArray[np.float64]) -> str:
    if len(ordered) < 2:
        return "it has one slice only"
    gaps = np.diff(along)
    usual = float(np.median(gaps))
    even = np.linspace(along[0], along[-1], len(along))
    if np.abs(along - even).max() <= max(_UNEVEN * usual, _UNEVEN_MM):
        return ""
    widest = int(np.argmax(gaps))
    multiples = gaps / usual
    whole = np.abs(multiples - np.round(multiples)).max() <= 2 * _UNEVEN
    missing = int(np.round(multiples - 1).sum())
    place = (
        f"between {ordered[widest].path.name} ({along[widest]:.2f} mm) and {ordered[widest + 1].path.name} "
        f"({along[widest + 1]:.2f} mm)"
    )
    if whole and missing > 0:
        return f"{missing} slice{'s are' if missing > 1 else ' is'} missing, as {place}"
    return f"its slices are unevenly spaced, {gaps.min():.2f} to {gaps.max():.2f} mm, the widest gap {place}"


def _tilt_problem(ordered: list[Slice], normal: NDArray[np.float64], along: NDArray[np.float64]) -> str:
    """Name a stack that is sheared: its slices drift sideways from one to the next."""
    places = np.array([one.position for one in ordered])
    sideways = places - places[0] - np.outer(along - along[0], normal)
    drift = np.linalg.norm(sideways, axis=1)
    pixel = min(numbers(ordered[0].header, "PixelSpacing", 2) or (1.0,))
    if drift.max() <= _DRIFT * pixel:
        return ""
    degrees = math.degrees(math.atan2(drift[-1], along[-1] - along[0]))
    return (
        f"its slices are shifted sideways by up to {drift.max():.1f} mm, as by a gantry tilt of {degrees:.1f} "
        "degrees"
    )
