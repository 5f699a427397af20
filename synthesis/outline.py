"""Where a body ends: the outlines of its cavity, trunk, head and limbs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from synthesis.body import (
    ANGLES,
    Float,
    Grid,
    Labels,
    Landmarks,
    Points,
    Tissue,
)

TRUNK_ORGANS = (
    Tissue.SPLEEN,
    Tissue.KIDNEY,
    Tissue.LIVER,
    Tissue.BLADDER,
    Tissue.LUNG,
    Tissue.HEART,
    Tissue.STOMACH,
    Tissue.PROSTATE,
)


def polar(grid: Grid, centre: tuple[float, float]) -> tuple[Float, NDArray[np.intp]]:
    """Distance from the trunk's axis in mm and direction (0 to ANGLES - 1), both y, x."""
    _, y, x = grid.axes()
    dy, dx = y[0] - centre[0], x[0] - centre[1]
    direction = np.floor((np.arctan2(dy, dx) / (2 * np.pi)) % 1 * ANGLES).astype(np.intp)
    return np.hypot(dy, dx), np.minimum(direction, ANGLES - 1)


def _superellipse(side: Points, front: Points, back: Points, power: float = 2.5) -> Points:
    """Radius (height, direction) of an oval with different depths to the front and to the back."""
    angle = (np.arange(ANGLES) + 0.5) * 2 * np.pi / ANGLES
    cosine, sine = np.abs(np.cos(angle)), np.sin(angle)
    depth = np.where(sine > 0, back[:, None], front[:, None])
    return np.asarray(((cosine / side[:, None]) ** power + (np.abs(sine) / depth) ** power) ** (-1 / power))


def cavity_outline(organs: Labels, grid: Grid, marks: Landmarks, heights: Points) -> Points:
    """Radius (height, direction) of thorax, abdomen and pelvis inside their walls: a smooth hull of the organs."""
    k, width = marks.scale, marks.half_width
    knots = np.array(
        [
            (marks.hip - 70 * k, 0.30, 0.35, 0.45),
            (marks.hip - 20 * k, 0.52, 0.62, 0.68),
            (marks.hip + 40 * k, 0.60, 0.72, 0.72),
            (marks.hip + 130 * k, 0.80, 0.82, 0.55),
            (marks.hip + 210 * k, 0.87, 0.90, 0.55),
            (marks.lung_base, 0.93, 0.95, 0.80),
            (marks.apex - 110 * k, 0.80, 0.80, 0.85),
            (marks.apex - 40 * k, 0.62, 0.52, 0.75),
            (marks.apex, 0.42, 0.38, 0.60),
            (marks.apex + 40 * k, 0.25, 0.28, 0.40),
        ]
    )
    knots = knots[np.argsort(knots[:, 0])]
    side, front, back = (np.interp(heights, knots[:, 0], knots[:, column]) for column in (1, 2, 3))
    template = _superellipse(side * width, front * marks.front, back * marks.back)
    radius, direction = polar(grid, marks.centre)
    slices, rows, columns = np.nonzero(np.isin(organs, TRUNK_ORGANS))
    hull = np.zeros((len(heights), ANGLES))
    np.maximum.at(hull, (slices, direction[rows, columns]), radius[rows, columns])
    reach = (max(1, round(9 / grid.spacing[0])) * 2 + 1, 7)
    hull = ndimage.maximum_filter(hull, reach, mode=("nearest", "wrap"))
    both = np.maximum(hull + 3, template)
    return np.asarray(ndimage.gaussian_filter(both, (10 / grid.spacing[0], 3), mode=("nearest", "wrap")))


def trunk_outline(
    cavity: Points, marks: Landmarks, heights: Points, belly: float, rng: np.random.Generator
) -> tuple[Points, Points]:
    """Radii (height, direction) of muscles and skin around the cavity; ``belly`` is the fat's thickness in mm."""
    k, width = marks.scale, marks.half_width
    shoulder = rng.uniform(1.22, 1.38)
    hips = rng.uniform(1.12, 1.26)
    knots = np.array(
        [
            (marks.hip - 90 * k, 0.95 * hips, 0.60, 0.85),
            (marks.hip - 20 * k, hips, 0.80, 1.15),
            (marks.hip + 60 * k, 0.96 * hips, 0.86, 1.12),
            (marks.hip + 130 * k, 1.02, 0.92, 1.02),
            (marks.hip + 210 * k, 0.98, 0.95, 1.00),
            (marks.lung_base, 1.00, 1.00, 1.00),
            (marks.apex - 140 * k, 1.08, 0.90, 1.05),
            (marks.apex - 60 * k, shoulder, 0.72, 1.12),
            (marks.apex - 20 * k, 0.95 * shoulder, 0.60, 1.08),
            (marks.apex + 10 * k, 0.80, 0.48, 0.98),
            (marks.apex + 35 * k, 0.52, 0.42, 0.80),
            (marks.apex + 60 * k, 0.36, 0.36, 0.60),
        ]
    )
    knots = knots[np.argsort(knots[:, 0])]
    side, front, back = (np.interp(heights, knots[:, 0], knots[:, column]) for column in (1, 2, 3))
    template = _superellipse(side * width, front * marks.front, back * marks.back)
    angle = (np.arange(ANGLES) + 0.5) * 2 * np.pi / ANGLES
    lateral, posterior = np.cos(angle) ** 2, np.clip(np.sin(angle), 0, 1) ** 2
    anterior = np.clip(-np.sin(angle), 0, 1) ** 2
    wall = 22 * lateral + 14 * anterior + 34 * posterior
    muscle = np.maximum(cavity + wall, template)
    along = np.interp(
        heights,
        [
            marks.hip - 60 * k,
            marks.hip + 40 * k,
            marks.hip + 160 * k,
            marks.lung_base + 60,
            marks.apex - 60,
            marks.apex,
        ],
        [1.3, 1.2, 1.0, 0.55, 0.4, 0.2],
    )
    ripple = ndimage.gaussian_filter(rng.standard_normal(muscle.shape), (12, 12), mode=("nearest", "wrap"))
    ripple *= 0.2 / max(float(ripple.std()), 1e-6)
    fat = 3 + belly * along[:, None] * (0.9 * lateral + 1.0 * anterior + 0.8 * posterior) * (1 + ripple)
    if rng.random() < 0.4:
        fat += _breasts(heights, angle, marks, rng)
    smooth = (8 / max(float(heights[1] - heights[0]), 0.5), 3)
    muscle = ndimage.gaussian_filter(muscle, smooth, mode=("nearest", "wrap"))
    skin = muscle + ndimage.gaussian_filter(fat, smooth, mode=("nearest", "wrap"))
    taper = np.interp(heights, [marks.hip - 90 * k, marks.hip - 30 * k], [0.68, 1.0])[:, None]
    return muscle * taper, skin * taper


def _breasts(heights: Points, angle: Points, marks: Landmarks, rng: np.random.Generator) -> Points:
    """Extra thickness (height, direction) of two breasts."""
    size = rng.uniform(12, 45)
    height = np.exp(-0.5 * ((heights - (marks.apex - 170 * marks.scale)) / (38 * marks.scale)) ** 2)
    both = sum(np.exp(-0.5 * ((angle - side) / 0.32) ** 2) for side in (1.27 * np.pi, 1.73 * np.pi))
    return np.asarray(size * height[:, None] * np.asarray(both)[None, :])


@dataclass(frozen=True)
class Part:
    """A column of ellipses (see `synthesis.body.column`) with fat of a thickness in mm around its muscle."""

    knots: list[tuple[float, float, float, float, float]]
    fat: float
    limb: bool = False
    arm: bool = False


def head_and_limbs(
    marks: Landmarks, skin: Points, heights: Points, fat: float, rng: np.random.Generator
) -> list[Part]:
    """Neck, face, legs and arms; the arms are raised in three bodies of four. ``fat`` is that of a thigh in mm."""
    (y, x), k, w = marks.centre, marks.scale, marks.half_width
    head_y, head_x = marks.head
    base = marks.skull_base
    neck_y = float(marks.spine_y(marks.apex + 50 * k)) - 18
    girth = rng.uniform(54, 70)
    neck = [
        (marks.apex - 20, float(marks.spine_y(marks.apex)) - 8, x, girth, girth + 8),
        (marks.apex + 50 * k, neck_y, (x + head_x) / 2, girth - 4, girth),
        (base - 30, head_y - 6, head_x, girth, girth),
        (base, head_y - 4, head_x, girth + 4, girth),
    ]
    face: list[tuple[float, float, float, float, float]] = [
        (base - 84, head_y - 62, head_x, 34, 36),
        (base - 60, head_y - 42, head_x, 58, 58),
        (base - 20, head_y - 22, head_x, 84, 70),
        (base + 25, head_y - 10, head_x, 95, 74),
        (base + 60, head_y - 4, head_x, 90, 76),
    ]
    parts = [Part(neck, 5), Part(face, 4)]
    thigh = rng.uniform(0.58, 0.68) * w + fat
    arm = rng.uniform(36, 46) + 0.4 * fat
    raised = rng.random() < 0.75
    lift = rng.uniform(-15, 15, 2)
    for i, side in enumerate((-1, 1)):
        leg = [
            (marks.hip - 900 * k, y + 4, x + side * (0.52 * w + 8), 0.36 * thigh, 0.36 * thigh),
            (marks.hip - 560 * k, y + 14, x + side * (0.56 * w + 8), 0.60 * thigh, 0.58 * thigh),
            (marks.hip - 420 * k, y + 8, x + side * (0.62 * w + 8), 0.72 * thigh, 0.72 * thigh),
            (marks.hip - 200 * k, y + 10, x + side * (0.66 * w + 8), 0.94 * thigh, 0.90 * thigh),
            (marks.hip - 30 * k, y + 12, x + side * 0.66 * w, 1.05 * thigh, 0.92 * thigh),
        ]
        parts.append(Part(leg, fat, limb=True))
        if raised:
            knots = [
                (marks.apex - 85 * k, y + 0.35 * marks.back, x + side * 1.12 * w, 0.9 * arm, 0.9 * arm),
                (marks.apex + 10 * k, y + 0.1 * marks.back + lift[i], x + side * 1.28 * w, 1.15 * arm, 1.15 * arm),
                (marks.apex + 150 * k, y - 10 + lift[i], x + side * (1.38 * w + 12), arm, 0.95 * arm),
                (marks.apex + 250 * k, y - 20 + lift[i], x + side * (1.30 * w + 12), 0.85 * arm, arm),
                (marks.apex + 330 * k, y - 30 + lift[i], x + side * 0.75 * w, 0.8 * arm, 1.3 * arm),
            ]
        else:
            levels = [marks.apex - 45 * k, marks.apex - 180 * k, marks.apex - 300 * k, marks.hip - 10]
            aside = np.maximum(skin[:, :4].max(1), skin[:, ANGLES // 2 - 2 : ANGLES // 2 + 2].max(1))
            shoulder, upper, elbow, wrist = np.interp(levels, heights, aside)
            knots = [
                (marks.hip - 150 * k, y - 35, x + side * (wrist + 0.7 * arm), 0.4 * arm, 0.75 * arm),
                (marks.hip - 90 * k, y - 35, x + side * (wrist + 0.7 * arm), 0.5 * arm, 0.7 * arm),
                (marks.hip - 10 * k, y - 30, x + side * (wrist + 0.8 * arm), 0.66 * arm, 0.66 * arm),
                (marks.apex - 300 * k, y + 10, x + side * (elbow + arm + 4), 0.9 * arm, 0.9 * arm),
                (marks.apex - 180 * k, y + 18, x + side * (upper + arm - 2), arm, arm),
                (marks.apex - 45 * k, y + 20, x + side * (shoulder - 0.35 * arm), 1.2 * arm, 1.2 * arm),
            ]
        parts.append(Part(knots, 0.5 * fat, limb=True, arm=True))
    return parts
