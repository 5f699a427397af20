"""Letters for pictures: a plain stroke font, drawn with smooth edges into an array of pixels.

A picture needs a title and some labels; no library that draws text is in the image.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]
Colour = tuple[int, int, int]

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_BASELINE, _TOP = 4, 16  # in units of the strokes; lower case is 12 high, descenders reach 0
_CAP_HEIGHT = _TOP - _BASELINE
_GAP = 4.5  # between two letters
_SPACE = 5.0
_PEN = 1.7  # width of a stroke
_ROUND = 0.276  # of a curve's tangents: makes a circle of four points
_STEPS = 8  # straight pieces between two points of a curve

# One stroke per word: "-" straight lines, "~" a curve, "o" a closed curve; then points, each x and y in base 36.
_STROKES = {
    "a": "o4c084488 -8c84",
    "b": "-0g04 o4c084488",
    "c": "~8a4c084486",
    "d": "o4c084488 -8g84",
    "e": "-0888 ~884c084486",
    "f": "~7g4g2d -2d24 -0c6c",
    "g": "o4c084488 -8c82 ~824001",
    "h": "-0g04 ~084c88 -8884",
    "i": "-1c14 -1g1g",
    "j": "-3c32 ~321000 -3g3g",
    "k": "-0g04 -7c07 -2984",
    "l": "-0g07 ~071434",
    "m": "-0c04 ~083c68 -6864 ~689cc8 -c8c4",
    "n": "-0c04 ~084c88 -8884",
    "o": "o4c084488",
    "p": "-0c00 o4c084488",
    "q": "o4c084488 -8c80",
    "r": "-0c04 ~084c6b",
    "s": "~7b4c1a48764405",
    "t": "-2g27 ~274464 -0c6c",
    "u": "-0c08 ~084488 -8c84",
    "v": "-0c448c",
    "w": "-0c346c94cc",
    "x": "-0c84 -8c04",
    "y": "-0c44 -8c20",
    "z": "-0c8c0484",
    "A": "-045ga4 -2888",
    "B": "-0g04 -0g5g ~5g8d5a -5a0a ~5a9754 -5404",
    "C": "~9d5g0a5497",
    "D": "-0g04 -0g4g ~4g9a44 -4404",
    "E": "-8g0g0484 -0a6a",
    "F": "-8g0g04 -0a6a",
    "G": "~9d5g0a5497 -979a5a",
    "H": "-0g04 -9g94 -0a9a",
    "I": "-1g14",
    "J": "-6g68 ~683406",
    "K": "-0g04 -8g09 -3b84",
    "L": "-0g0474",
    "M": "-040g58aga4",
    "N": "-040g949g",
    "O": "o5g0a54aa",
    "P": "-040g5g ~5g9c59 -5909",
    "Q": "o5g0a54aa -67a3",
    "R": "-040g5g ~5g9c59 -5909 -5994",
    "S": "~8e5g1d5a975406",
    "T": "-0gag -5g54",
    "U": "-0g09 ~0954a9 -a9ag",
    "V": "-0g54ag",
    "W": "-0g346g94cg",
    "X": "-0g94 -9g04",
    "Y": "-0g5aag -5a54",
    "Z": "-0g9g0494",
    "0": "o4g0a448a",
    "1": "-1d4g44",
    "2": "~0d4g8c6804 -0484",
    "3": "~0e4g8d4a ~4a874406",
    "4": "-646g0888",
    "5": "-7g1g0a ~0a4c884405",
    "6": "~7g2d08 o4c084488",
    "7": "-0g8g34",
    "8": "o4g1d4a7d o4a074487",
    "9": "o4g0c488c ~8c7814",
    ".": "-1414",
    ",": "-1402",
    ":": "-1414 -1a1a",
    "-": "-0868",
    "+": "-0888 -4c44",
    "/": "-047g",
    "(": "~4h1a43",
    ")": "~0h3a03",
}


def text_width(text: str, cap_height: float) -> int:
    """Return the width of a line in pixels; ``cap_height`` is that of a capital letter."""
    units = sum(_width_of(letter) + _GAP for letter in text) - _GAP
    return int(np.ceil(units * cap_height / _CAP_HEIGHT)) if text else 0


def draw_text(
    pixels: NDArray[np.uint8], text: str, left: float, baseline: float, cap_height: float, colour: Colour
) -> None:
    """Draw a line of text; what would lie outside the picture is left out.

    Parameters
    ----------
    pixels : uint8 array, (rows, columns, 3)
        Changed in place.
    text : str
        Letters, digits and ``.,:-+/()`` are drawn; anything else as a space.
    left, baseline : float
        Where it begins and on which row the letters stand.
    cap_height : float
        Height of a capital letter in pixels.
    colour : three ints
    """
    scale = cap_height / _CAP_HEIGHT
    for letter in text:
        for stroke in _STROKES.get(letter, "").split():
            line = [(left + x * scale, baseline - (y - _BASELINE) * scale) for x, y in _points_of(stroke)]
            draw_line(pixels, line, _PEN * scale, colour)
        left += (_width_of(letter) + _GAP) * scale


def draw_line(pixels: NDArray[np.uint8], points: list[Point], width: float, colour: Colour) -> None:
    """Draw straight lines from point to point (x, y in pixels) with round ends and smooth edges, in place."""
    half = width / 2 + 0.5  # the edge fades over one pixel
    xs, ys = [x for x, _ in points], [y for _, y in points]
    first_row, first_column = max(0, int(min(ys) - half - 1)), max(0, int(min(xs) - half - 1))
    part = pixels[first_row : int(max(ys) + half + 2), first_column : int(max(xs) + half + 2)]
    if not part.size:
        return
    rows, columns = np.mgrid[first_row : first_row + part.shape[0], first_column : first_column + part.shape[1]]
    nearest = np.full(part.shape[:2], np.inf)
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        along, across = x1 - x0, y1 - y0
        length2 = along**2 + across**2
        share = ((columns - x0) * along + (rows - y0) * across) / length2 if length2 else np.zeros(rows.shape)
        share = share.clip(0, 1)
        nearest = np.minimum(nearest, np.hypot(columns - x0 - share * along, rows - y0 - share * across))
    ink = (half - nearest).clip(0, 1)[..., None]
    part[:] = np.rint(part * (1 - ink) + np.array(colour) * ink).astype(np.uint8)


def _width_of(letter: str) -> float:
    strokes = _STROKES.get(letter)
    return _SPACE if strokes is None else max(x for stroke in strokes.split() for x, _ in _corners_of(stroke))


def _corners_of(stroke: str) -> list[Point]:
    numbers = [_DIGITS.index(digit) for digit in stroke[1:]]
    return [(float(x), float(y)) for x, y in zip(numbers[::2], numbers[1::2], strict=True)]


def _points_of(stroke: str) -> list[Point]:
    """Return a stroke as straight pieces, in its own units."""
    corners = _corners_of(stroke)
    if stroke[0] == "-":
        return corners
    closed = stroke[0] == "o"
    around = [corners[-1], *corners, corners[0], corners[1]] if closed else [corners[0], *corners, corners[-1]]
    points = [around[1]]
    for before, start, end, after in zip(around, around[1:], around[2:], around[3:], strict=False):
        leaving = start[0] + (end[0] - before[0]) * _ROUND, start[1] + (end[1] - before[1]) * _ROUND
        arriving = end[0] - (after[0] - start[0]) * _ROUND, end[1] - (after[1] - start[1]) * _ROUND
        points += [_bezier(start, leaving, arriving, end, step / _STEPS) for step in range(1, _STEPS + 1)]
    return points


def _bezier(a: Point, b: Point, c: Point, d: Point, t: float) -> Point:
    weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
    x, y = (sum(w * p[axis] for w, p in zip(weights, (a, b, c, d), strict=True)) for axis in (0, 1))
    return x, y
