"""What a synthetic body is made of: its tissues, its grid, its landmarks, and the shapes that draw it.

Arrays are z, y, x. z grows towards the head, y towards the back and x towards the patient's left (the LPS
frame), all in millimetres from the centre of the first voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline

from algorithm.errors import InvalidImageError
from algorithm.postprocessing import voxel_volume_ml

Bool = NDArray[np.bool_]
Float = NDArray[np.float32]
Labels = NDArray[np.uint8]
Points = NDArray[np.float64]

ANGLES = 180
"""Directions in which a trunk's outline is known: one per two degrees, from the left side over the back."""


class Tissue(IntEnum):
    """What a voxel is made of; 1 to 10 are the labels of the organ maps."""

    AIR = 0
    SPLEEN = 1
    KIDNEY = 2
    LIVER = 3
    BLADDER = 4
    LUNG = 5
    BRAIN = 6
    HEART = 7
    STOMACH = 8
    PROSTATE = 9
    GLAND = 10
    SKIN = 11
    FAT = 12
    MUSCLE = 13
    VISCERAL_FAT = 14
    CORTEX = 15
    MARROW = 16
    YELLOW_MARROW = 17
    DISC = 18
    AIRWAY = 19
    BLOOD = 20
    OESOPHAGUS = 21
    SMALL_BOWEL = 22
    COLON = 23
    BOWEL_GAS = 24
    URETER = 25
    FLUID = 26


@dataclass(frozen=True)
class Grid:
    """A regular grid of voxels: shape and spacing in mm, both z, y, x."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in ml."""
        return voxel_volume_ml(self.spacing)

    def axes(self, box: tuple[slice, ...] = (slice(None),) * 3) -> tuple[Float, Float, Float]:
        """Coordinates in mm of the voxels of ``box``, shaped to broadcast as z, y, x."""
        z, y, x = (
            (np.arange(size, dtype=np.float32) * np.float32(step))[part]
            for size, step, part in zip(self.shape, self.spacing, box, strict=True)
        )
        return z[:, None, None], y[None, :, None], x[None, None, :]

    def box(self, centre: Sequence[float], radius: float) -> tuple[slice, slice, slice]:
        """Return the smallest box of voxels that holds a ball, cut at the grid's edge."""
        low = [max(0, int(np.ceil((c - radius) / s))) for c, s in zip(centre, self.spacing, strict=True)]
        high = [
            max(a, min(n, int((c + radius) / s) + 1))
            for a, n, c, s in zip(low, self.shape, centre, self.spacing, strict=True)
        ]
        return slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])

    def noise(self, length: float | tuple[float, float, float], rng: np.random.Generator) -> Float:
        """Smooth Gaussian noise of mean 0 and variance 1 whose correlation falls off over ``length`` mm.

        One length, or one for each of z, y, x. The noise is drawn on a grid of that step and interpolated axis by
        axis, which is far cheaper than filtering white noise.
        """
        lengths = (length,) * 3 if isinstance(length, (int, float)) else length
        weights = []
        for size, step, apart in zip(self.shape, self.spacing, lengths, strict=True):
            nodes = np.arange(-1, int(np.ceil(size * step / apart)) + 2) * apart
            distance = (np.arange(size)[:, None] * step - nodes[None, :]) / (0.6 * apart)
            weight = np.exp(-0.5 * distance**2)
            weights.append((weight / np.sqrt((weight**2).sum(1, keepdims=True))).astype(np.float32))
        field = rng.standard_normal([w.shape[1] for w in weights], dtype=np.float32)
        for axis, weight in enumerate(weights):
            field = np.moveaxis(np.tensordot(weight, field, axes=(1, axis)), 0, axis)
        return np.ascontiguousarray(field)


@dataclass(frozen=True)
class Landmarks:
    """Where things lie, in mm of the grid; lengths scale with the distance from hip to lung apex.

    Attributes
    ----------
    scale : float
        Distance from hip to apex over 520 mm, a typical adult's.
    hip, apex, lung_base, skull_base, vertex : float
        Heights (z) of the femoral heads, of the tips and of the lower ends of the lungs, of the lower end of the
        brain and of the top of the head.
    centre : tuple of float
        Axis of the trunk (y, x).
    head : tuple of float
        Axis of the head (y, x).
    half_width, front, back : float
        Reach of the lungs from the trunk's axis to the side, to the front and to the back.
    spine : tuple of arrays
        Heights and y positions that the centres of the vertebral bodies follow.
    """

    scale: float
    hip: float
    apex: float
    lung_base: float
    skull_base: float
    vertex: float
    centre: tuple[float, float]
    head: tuple[float, float]
    half_width: float
    front: float
    back: float
    spine: tuple[Points, Points]

    def spine_y(self, z: ArrayLike) -> Points:
        """Return the y position of the vertebral bodies' centres at the heights ``z``."""
        return np.asarray(np.interp(np.asarray(z), *self.spine))


@dataclass(frozen=True)
class Tubes:
    """Curves with a thickness (bowel, vessels, ureters), sampled densely as balls.

    Attributes
    ----------
    points : float array (n, 3)
        Centres in mm, z, y, x.
    radii : float array (n,)
        Radii in mm.
    kinds : uint8 array (n,)
        The `Tissue` of each ball.
    nearest : int32 array z, y, x
        Which ball a voxel belongs to, -1 outside all of them.
    """

    points: Points
    radii: NDArray[np.float64]
    kinds: Labels
    nearest: NDArray[np.int32]


@dataclass(frozen=True)
class Phantom:
    """A body as a map of tissues, with what its uptake and its lesions need to know.

    Attributes
    ----------
    grid : Grid
    tissue : uint8 array z, y, x
        `Tissue` of every voxel.
    tubes : Tubes
        Bowel, vessels and ureters.
    landmarks : Landmarks
    limb, arm : bool arrays z, y, x
        Arms and legs; arms alone.
    table : bool array y, x
        Cross-section of the patient table.
    """

    grid: Grid
    tissue: Labels
    tubes: Tubes
    landmarks: Landmarks
    limb: Bool
    arm: Bool
    table: Bool


def extent(organs: Labels, label: int, grid: Grid) -> Points | None:
    """Lowest, mean and highest position (rows) along z, y, x (columns) of an organ in mm; None without one."""
    where = np.argwhere(organs == label)
    if len(where) * grid.voxel_ml < 1:
        return None
    low, high = np.percentile(where, [0.5, 99.5], axis=0)
    return np.asarray(np.stack([low, where.mean(0), high]) * grid.spacing)


def find_landmarks(organs: Labels, grid: Grid) -> Landmarks:
    """Read the landmarks off an organ map; what is missing is placed by typical distances from what is there.

    Parameters
    ----------
    organs : uint8 array z, y, x
        Organ map in the LPS frame.
    grid : Grid

    Raises
    ------
    InvalidImageError
        When the map has hardly any lung or liver, and so no trunk to build.
    """
    lungs = extent(organs, Tissue.LUNG, grid)
    if lungs is None:
        lungs = extent(organs, Tissue.LIVER, grid)
        if lungs is None:
            raise InvalidImageError(
                "the organ map holds less than 1 ml of lungs (5) and of liver (3); give one that covers the trunk"
            )
        lungs[2, 0] += 150
    bladder = extent(organs, Tissue.BLADDER, grid)
    brain = extent(organs, Tissue.BRAIN, grid)
    kidneys = extent(organs, Tissue.KIDNEY, grid)
    apex, base = lungs[2, 0], lungs[0, 0]
    hip = bladder[1, 0] if bladder is not None else apex - 520
    hip = float(np.clip(hip, apex - 620, apex - 330))
    scale = (apex - hip) / 520
    centre = (float(lungs[0, 1] + lungs[2, 1]) / 2, float(lungs[0, 2] + lungs[2, 2]) / 2)
    thoracic = lungs[2, 1] - 40
    lumbar = kidneys[1, 1] - 8 if kidneys is not None else thoracic - 5
    sacrum = max(lumbar + 15, bladder[1, 1] + 62 if bladder is not None else lumbar + 15)
    if brain is not None:
        skull_base, vertex = brain[0, 0], brain[2, 0] + 12
        head = (float(brain[1, 1]), float(brain[1, 2]))
    else:
        skull_base, vertex = apex + 138 * scale, apex + 285 * scale
        head = (float(thoracic) - 55, centre[1])
    heights = np.array(
        [hip - 30, hip + 45, hip + 120, hip + 210, base + 80, apex - 30, skull_base - 40, skull_base + 10]
    )
    depths = np.array(
        [sacrum + 2, sacrum + 12, lumbar + 2, lumbar, thoracic, thoracic - 12, head[0] + 10, head[0] + 14]
    )
    order = np.argsort(heights)
    return Landmarks(
        scale=float(scale),
        hip=hip,
        apex=float(apex),
        lung_base=float(base),
        skull_base=float(skull_base),
        vertex=float(vertex),
        centre=centre,
        head=head,
        half_width=float(lungs[2, 2] - lungs[0, 2]) / 2,
        front=centre[0] - float(lungs[0, 1]),
        back=float(lungs[2, 1]) - centre[0],
        spine=(heights[order], depths[order]),
    )


def column(
    grid: Grid, knots: Sequence[tuple[float, float, float, float, float]]
) -> tuple[tuple[slice, ...], Float]:
    """Field of a column of ellipses that is below 1 inside.

    Parameters
    ----------
    grid : Grid
    knots : sequence of (z, y, x, radius along y, radius along x)
        In mm, interpolated in between; nothing below the lowest or above the highest.

    Returns
    -------
    box : tuple of slices
        The part of the grid that the field covers.
    field : float32 array z, y, x
        Elliptic radius.
    """
    table = np.array(sorted(knots))
    z, y, x = grid.axes()
    inside = np.nonzero((z[:, 0, 0] >= table[0, 0]) & (z[:, 0, 0] <= table[-1, 0]))[0]
    if inside.size == 0:
        return (slice(0, 0),) * 3, np.zeros((0, 0, 0), np.float32)
    levels = slice(int(inside[0]), int(inside[-1]) + 1)
    at = [
        np.interp(z[levels, 0, 0], table[:, 0], table[:, i]).astype(np.float32)[:, None, None] for i in range(1, 5)
    ]
    low_y, high_y = float((at[0] - at[2]).min()), float((at[0] + at[2]).max())
    low_x, high_x = float((at[1] - at[3]).min()), float((at[1] + at[3]).max())
    rows = grid.box((0, (low_y + high_y) / 2, 0), (high_y - low_y) / 2)[1]
    columns = grid.box((0, 0, (low_x + high_x) / 2), (high_x - low_x) / 2)[2]
    field = np.sqrt(((y[:, rows] - at[0]) / at[2]) ** 2 + ((x[:, :, columns] - at[1]) / at[3]) ** 2)
    return (levels, rows, columns), field


def spline(waypoints: ArrayLike, step: float) -> Points:
    """Points about ``step`` mm apart on a smooth curve through ``waypoints`` (mm, z, y, x)."""
    through = np.asarray(waypoints, float)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(through, axis=0), axis=1) + 1e-3)])
    count = max(2, int(length[-1] / step) + 1)
    return np.asarray(CubicSpline(length, through)(np.linspace(0, length[-1], count)))


def sheet(corners: Sequence[Sequence[float]], step: float = 6.0) -> Points:
    """Fill a twisted quadrilateral (four corners in mm, in order around it) with points."""
    a, b, c, d = (np.asarray(corner, float) for corner in corners)
    rows = max(2, int(max(np.linalg.norm(d - a), np.linalg.norm(c - b)) / step))
    columns = max(2, int(max(np.linalg.norm(b - a), np.linalg.norm(c - d)) / step))
    v, u = (axis.ravel()[:, None] for axis in np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns)))
    return np.asarray((1 - u) * (1 - v) * a + u * (1 - v) * b + u * v * c + (1 - u) * v * d)


def paint_balls(grid: Grid, points: Points, radii: NDArray[np.float64]) -> NDArray[np.int32]:
    """For every voxel the ball that holds it most deeply, -1 where there is none.

    Parameters
    ----------
    grid : Grid
    points : array (n, 3)
        Centres in mm, z, y, x.
    radii : array (n,)
        Radii in mm.
    """
    nearest = np.full(grid.shape, -1, np.int32)
    closest = np.ones(grid.shape, np.float32)
    z, y, x = grid.axes()
    for i, (point, radius) in enumerate(zip(points, radii, strict=True)):
        box = grid.box(point, radius)
        a, b, c = box
        distance = ((z[a] - point[0]) ** 2 + (y[:, b] - point[1]) ** 2 + (x[:, :, c] - point[2]) ** 2) / radius**2
        closer = distance < closest[box]
        closest[box][closer] = distance[closer]
        nearest[box][closer] = i
    return nearest
