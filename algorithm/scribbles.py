"""The points that a reader of the interactive editions puts on tumour and on background.

Two forms are in use: grand-challenge's ``{"points": [{"point": [x, y, z], "name": "tumor"}, ...]}`` and the
organisers' ``{"tumor": [[x, y, z], ...], "background": [...]}``. Points are voxel indices x, y, z of the PET.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from algorithm.errors import MissingInputError
from algorithm.jsonfile import JSON

MOST_POINTS = 100_000
"""More are refused: six scribbles have some hundreds."""

_TYPE = "Multiple points"  # grand-challenge's name of the form
_KINDS = {"tumor": True, "tumour": True, "background": False}


def _no_points() -> NDArray[np.int64]:
    return np.empty((0, 3), np.int64)


@dataclass(frozen=True)
class Scribbles:
    """What was said to be tumour and what background.

    Attributes
    ----------
    tumour, background : int64 array, points by x, y, z
        Voxel indices in the order in which they came; each voxel once.
    notes : tuple of str
        What was left out and why, one sentence each.
    """

    tumour: NDArray[np.int64] = field(default_factory=_no_points)
    background: NDArray[np.int64] = field(default_factory=_no_points)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.tumour) + len(self.background)

    def within(self, size: Sequence[int]) -> Scribbles:
        """Return those that an image of this size (x, y, z) has and that do not contradict one another.

        A point outside the image is left out, and so is a voxel that is said to be both.
        """
        tumour, background = (points[_inside(points, size)] for points in (self.tumour, self.background))
        notes = list(self.notes)
        outside = len(self) - len(tumour) - len(background)
        if outside:
            notes.append(f"{outside} of {len(self)} scribbled points lie outside the image and were left out")
        of_tumour, of_background = (set(map(tuple, points.tolist())) for points in (tumour, background))
        both = of_tumour & of_background
        if both:
            notes.append(f"{len(both)} voxels were scribbled as tumour and as background and count as neither")
            tumour, background = (_without(points, both) for points in (tumour, background))
        return Scribbles(tumour, background, tuple(notes))


def parse_scribbles(content: JSON, source: str) -> Scribbles:
    """Read the content of ``lesion-clicks.json``; nothing, an empty object and an empty list hold no points.

    Neither does an object of grand-challenge's ``type`` without a list of points; a list that is null is empty.

    Parameters
    ----------
    content : JSON
    source : str
        Where it comes from, for the errors.

    Raises
    ------
    MissingInputError
        It has neither form, or more points than :data:`MOST_POINTS`.
    """
    if content in (None, [], {}):
        return Scribbles()
    named = isinstance(content, dict) and content.get("type") == _TYPE
    if not isinstance(content, dict) or not (named or any(key in content for key in ("points", *_KINDS))):
        raise _malformed(source, content)
    points: dict[bool, list[tuple[int, int, int]]] = {True: [], False: []}
    for entry in _listed(content.get("points"), source):
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise _malformed(source, entry)
        kind = _KINDS.get(str(entry["name"]).strip().lower())
        if kind is None:
            raise MissingInputError(
                f"{source} names a point {str(entry['name'])[:40]!r}, but points are tumor or background; "
                "correct it"
            )
        points[kind].append(_point(entry.get("point"), source))
    for name, kind in _KINDS.items():
        points[kind].extend(_point(each, source) for each in _listed(content.get(name), source))
    return Scribbles(_once(points[True]), _once(points[False]))


def _listed(value: JSON, source: str) -> list[JSON]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise _malformed(source, value)
    if len(value) > MOST_POINTS:
        raise MissingInputError(
            f"{source} has {len(value)} points, but at most {MOST_POINTS} are taken; thin them out"
        )
    return value


def _point(value: JSON, source: str) -> tuple[int, int, int]:
    if (
        not isinstance(value, list)
        or len(value) != 3
        or not all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in value)
        or not all(abs(each) < 2**31 for each in value)  # type: ignore[arg-type]
    ):
        raise _malformed(source, value)
    x, y, z = (round(each) for each in value)  # type: ignore[arg-type]
    return x, y, z


def _once(points: Iterable[tuple[int, int, int]]) -> NDArray[np.int64]:
    return np.array(list(dict.fromkeys(points)), np.int64).reshape(-1, 3)


def _inside(points: NDArray[np.int64], size: Sequence[int]) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = np.all((points >= 0) & (points < np.asarray(size)), axis=1)
    return inside


def _without(points: NDArray[np.int64], voxels: set[tuple[int, ...]]) -> NDArray[np.int64]:
    return points[[tuple(point) not in voxels for point in points.tolist()]]


def _malformed(source: str, got: JSON) -> MissingInputError:
    return MissingInputError(
        f"{source} must hold points as {{'points': [{{'point': [x, y, z], 'name': 'tumor' or 'background'}}]}}, "
        f"got {str(got)[:60]!r}; correct it or leave it out"
    )
