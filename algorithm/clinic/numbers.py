"""Where the lesions' numbers stand in a picture: beside the lesion, not over another number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from algorithm.clinic.pictures import Outline

_DIGIT = 0.62  # width of a digit over the height of the text
_DIRECTIONS = 16
_RINGS = 6

_Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Number:
    """A lesion's number in a picture; lengths in mm.

    Attributes
    ----------
    number : int
    x, y : float
        Middle of the text.
    leader : four floats or None
        A line from the lesion to the text where they are apart: x, y, x, y.
    """

    number: int
    x: float
    y: float
    leader: tuple[float, float, float, float] | None


def place_numbers(
    outlines: Sequence[Outline], width_mm: float, height_mm: float, text_mm: float, *, most: int
) -> list[Number]:
    """Find a place for each lesion's number, as near to it as can be without covering a number or an outline.

    Parameters
    ----------
    outlines : sequence of Outline
        Those that come first choose first.
    width_mm, height_mm : float
        Of the picture; numbers stay inside.
    text_mm : float
        Height of the text.
    most : int
        How many numbers are placed; beyond, a picture is too full to be read.
    """
    lesions = np.array([each.box for each in outlines]).reshape(-1, 4)
    taken: list[_Box] = []
    numbers = []
    for outline in outlines[:most]:
        spots = [
            spot
            for spot in _spots(outline, text_mm)
            if _inside(_frame(outline, spot, text_mm), width_mm, height_mm)
        ]
        free = [spot for spot in spots if not _hits(_frame(outline, spot, text_mm), taken)]
        clear = [spot for spot in free if not _hits(_frame(outline, spot, text_mm), lesions)]
        if not free:
            continue
        x, y = (clear or free)[0]
        taken.append(_frame(outline, (x, y), text_mm))
        numbers.append(Number(outline.number, x, y, _leader(outline, x, y, text_mm)))
    return numbers


def _spots(outline: Outline, text_mm: float) -> list[tuple[float, float]]:
    """Return places around a lesion, the nearest first; in a ring, the upper right first."""
    left, top, right, bottom = outline.box
    half_width, half_height = (right - left) / 2, (bottom - top) / 2
    spots = []
    for ring in range(_RINGS):
        away = text_mm * (0.8 + 0.9 * ring)
        for turn in range(_DIRECTIONS):
            side = (turn + 1) // 2 * (1 if turn % 2 else -1)
            angle = math.pi * (0.25 + 2 * side / _DIRECTIONS)
            across, up = math.cos(angle), math.sin(angle)
            longer = max(abs(across), abs(up))  # from the circle out to the square
            x = left + half_width + across / longer * (half_width + away)
            y = top + half_height - up / longer * (half_height + away)
            spots.append((x, y))
    return spots


def _frame(outline: Outline, spot: tuple[float, float], text_mm: float) -> _Box:
    """Return what the number covers there: left, top, right, bottom."""
    half = (len(str(outline.number)) * _DIGIT + 0.3) * text_mm / 2
    return spot[0] - half, spot[1] - text_mm / 2, spot[0] + half, spot[1] + text_mm / 2


def _inside(box: _Box, width: float, height: float) -> bool:
    return box[0] >= 0 and box[1] >= 0 and box[2] <= width and box[3] <= height


def _hits(box: _Box, others: Sequence[_Box] | np.ndarray) -> bool:
    """Return whether the box overlaps one of the others."""
    if len(others) == 0:
        return False
    left, top, right, bottom = np.asarray(others).T
    return bool(((box[0] < right) & (box[2] > left) & (box[1] < bottom) & (box[3] > top)).any())


def _leader(outline: Outline, x: float, y: float, text_mm: float) -> tuple[float, float, float, float] | None:
    """Return the line from the lesion's nearest edge to the text, or None where they all but touch."""
    left, top, right, bottom = outline.box
    near_x, near_y = min(max(x, left), right), min(max(y, top), bottom)
    away = math.hypot(x - near_x, y - near_y)
    if away < 1.3 * text_mm:
        return None
    share = (away - 0.7 * text_mm) / away
    return near_x, near_y, near_x + (x - near_x) * share, near_y + (y - near_y) * share
