"""A whole body built around an organ map: outline, fat, muscle, bone, vessels, airways and bowel.

The organ maps name ten organs and nothing else. Everything here is derived from where those organs lie, from
textbook proportions and from chance, so that two bodies from one organ map differ in build, posture and bowel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from synthesis.body import (
    ANGLES,
    Bool,
    Float,
    Grid,
    Labels,
    Landmarks,
    Phantom,
    Points,
    Tissue,
    Tubes,
    column,
    extent,
    find_landmarks,
    paint_balls,
    spline,
)
from synthesis.skeleton import paint_bones, ribs

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


def _polar(grid: Grid, centre: tuple[float, float]) -> tuple[Float, NDArray[np.intp]]:
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


def _cavity(organs: Labels, grid: Grid, marks: Landmarks, heights: Points) -> Points:
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
    radius, direction = _polar(grid, marks.centre)
    slices, rows, columns = np.nonzero(np.isin(organs, TRUNK_ORGANS))
    hull = np.zeros((len(heights), ANGLES))
    np.maximum.at(hull, (slices, direction[rows, columns]), radius[rows, columns])
    reach = (max(1, round(9 / grid.spacing[0])) * 2 + 1, 7)
    hull = ndimage.maximum_filter(hull, reach, mode=("nearest", "wrap"))
    both = np.maximum(hull + 3, template)
    return np.asarray(ndimage.gaussian_filter(both, (10 / grid.spacing[0], 3), mode=("nearest", "wrap")))


def _trunk(
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
class _Part:
    """A column of ellipses (see `synthesis.body.column`) with fat of a thickness in mm around its muscle."""

    knots: list[tuple[float, float, float, float, float]]
    fat: float
    limb: bool = False
    arm: bool = False


def _head_and_limbs(
    marks: Landmarks, skin: Points, heights: Points, fat: float, rng: np.random.Generator
) -> list[_Part]:
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
    parts = [_Part(neck, 5), _Part(face, 4)]
    thigh = rng.uniform(0.58, 0.68) * w + fat
    arm = rng.uniform(36, 46) + 0.4 * fat
    raised = rng.random() < 0.75
    lift = rng.uniform(-15, 15, 2)
    for i, side in enumerate((-1, 1)):
        leg = [
            (marks.hip - 420 * k, y + 8, x + side * (0.62 * w + 8), 0.72 * thigh, 0.72 * thigh),
            (marks.hip - 200 * k, y + 10, x + side * (0.66 * w + 8), 0.94 * thigh, 0.90 * thigh),
            (marks.hip - 30 * k, y + 12, x + side * 0.66 * w, 1.05 * thigh, 0.92 * thigh),
        ]
        parts.append(_Part(leg, fat, limb=True))
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
        parts.append(_Part(knots, 0.5 * fat, limb=True, arm=True))
    return parts


def _colon(marks: Landmarks, rng: np.random.Generator) -> Points:
    """Waypoints of the colon, caecum to rectum."""
    y, x = marks.centre
    k, w, f = marks.scale, marks.half_width, marks.front
    spine = float(marks.spine_y(marks.hip + 30))
    path = [
        (marks.hip + 55 * k, y - 0.1 * f, x - 0.58 * w),
        (marks.hip + 120 * k, y + 0.05 * f, x - 0.68 * w),
        (marks.hip + 205 * k, y - 0.05 * f, x - 0.70 * w),
        (marks.hip + 215 * k, y - 0.45 * f, x - 0.50 * w),
        (marks.hip + rng.uniform(110, 195) * k, y - 0.65 * f, x - 0.05 * w),
        (marks.hip + 225 * k, y - 0.40 * f, x + 0.50 * w),
        (marks.hip + 255 * k, y + 0.05 * f, x + 0.72 * w),
        (marks.hip + 160 * k, y + 0.15 * f, x + 0.72 * w),
        (marks.hip + 75 * k, y - 0.05 * f, x + 0.62 * w),
        (marks.hip + 50 * k, y - 0.25 * f, x + 0.30 * w),
        (marks.hip + rng.uniform(45, 95) * k, y - 0.05 * f, x - rng.uniform(-0.2, 0.35) * w),
        (marks.hip + 30 * k, spine - 38, x),
        (marks.hip - 15 * k, spine - 24, x),
        (marks.hip - 55 * k, spine - 22, x),
    ]
    return spline(np.array(path) + rng.normal(0, 7, (len(path), 3)), 5)


def _small_bowel(marks: Landmarks, rng: np.random.Generator) -> Points:
    """Waypoints of the small bowel: the duodenum's C, then a walk through the middle of the abdomen."""
    y, x = marks.centre
    k, w, f = marks.scale, marks.half_width, marks.front
    top = marks.hip + 235 * k
    duodenum = [
        (top, y - 0.1 * f, x - 0.20 * w),
        (top - 25, y + 0.1 * f, x - 0.36 * w),
        (top - 75, y + 0.15 * f, x - 0.32 * w),
        (top - 80, y + 0.1 * f, x),
        (top - 45, y - 0.05 * f, x + 0.22 * w),
    ]
    place = np.array(duodenum[-1])
    walk = []
    middle = np.array([marks.hip + 105 * k, y - 0.25 * f, x])
    size = np.array([75 * k, 0.42 * f, 0.45 * w])
    for _ in range(int(rng.integers(34, 52))):
        step = rng.normal(0, 30, 3) * (1, 0.7, 1.1)
        pull = 0.35 * (middle - place) * (np.abs(place - middle) / size).clip(0, 2)
        place = np.clip(place + step + pull, middle - 1.1 * size, middle + 1.1 * size)
        walk.append(place)
    return spline(np.concatenate([duodenum, walk]), 5)


def _vessels(marks: Landmarks, rng: np.random.Generator) -> list[tuple[Points, float]]:
    """Curves and radii in mm of the great vessels that the organ map lacks."""
    x = marks.centre[1]
    k = marks.scale
    fork = marks.hip + 125 * k
    levels = np.linspace(marks.apex - 95 * k, fork, 7)
    aorta = [(z, float(marks.spine_y(z)) - 30, x + 14 - 6 * i / 6) for i, z in enumerate(levels)]
    levels = np.linspace(marks.lung_base + 40, fork - 8, 5)
    cava = [(z, float(marks.spine_y(z)) - 30, x - 20) for z in levels]
    lumen = rng.uniform(0.9, 1.2)
    vessels = [(spline(aorta, 4), 11.0 * lumen), (spline(cava, 4), 11.0)]
    neck_y = float(marks.spine_y(marks.apex + 60 * k)) - 28
    for side in (-1, 1):
        root = float(marks.spine_y(fork)) - 30
        groin = marks.centre[0] - 0.72 * marks.front
        iliac = [
            (fork, root, x + side * 5),
            (marks.hip + 75 * k, root + 8, x + side * 38),
            (marks.hip + 35 * k, marks.centre[0] - 0.2 * marks.front, x + side * 62),
            (marks.hip - 5 * k, groin, x + side * 74),
            (marks.hip - 90 * k, groin + 12, x + side * 84),
            (marks.hip - 240 * k, groin + 30, x + side * 88),
        ]
        carotid = [
            (marks.apex - 35 * k, neck_y + 12, x + side * 22),
            (marks.apex + 40 * k, neck_y, marks.head[1] + side * 28),
            (marks.skull_base - 15, marks.head[0] - 14, marks.head[1] + side * 30),
        ]
        vessels += [(spline(iliac, 4), 7.0), (spline(carotid, 4), 6.5)]
    return vessels


def _ureters(organs: Labels, grid: Grid, marks: Landmarks) -> list[Points]:
    """Curves from each renal pelvis to the bladder; none where kidney or bladder is missing."""
    bladder = extent(organs, Tissue.BLADDER, grid)
    if bladder is None:
        return []
    where = np.argwhere(organs == Tissue.KIDNEY) * grid.spacing
    curves = []
    for side in (-1, 1):
        kidney = where[(where[:, 2] - marks.centre[1]) * side > 0]
        if len(kidney) * grid.voxel_ml < 20:
            continue
        middle = kidney.mean(0)
        inner = np.percentile((kidney[:, 2] - marks.centre[1]) * side, 8)
        curves.append(
            spline(
                [
                    (middle[0], middle[1] - 4, marks.centre[1] + side * (inner + 2)),
                    (middle[0] - 45, middle[1] - 22, marks.centre[1] + side * (inner - 2)),
                    (
                        marks.hip + 110 * marks.scale,
                        float(marks.spine_y(marks.hip + 110)) - 32,
                        marks.centre[1] + side * 38,
                    ),
                    (marks.hip + 50 * marks.scale, bladder[1, 1] + 38, marks.centre[1] + side * 52),
                    (bladder[1, 0], bladder[1, 1] + 18, bladder[1, 2] + side * 18),
                ],
                2,
            )
        )
    return curves


def _soft_tubes(organs: Labels, grid: Grid, marks: Landmarks, rng: np.random.Generator) -> Tubes:
    """Bowel, vessels, oesophagus and ureters of one body."""
    parts: list[tuple[Points, Points, Tissue]] = []

    def add(points: Points, radius: float, kind: Tissue, ripple: float = 0.0) -> None:
        wave = ndimage.gaussian_filter1d(rng.standard_normal(len(points)), 4, mode="nearest")
        wave *= ripple / max(float(wave.std()), 1e-6)
        parts.append((points, radius * np.exp(np.clip(wave, -0.7, 0.7)), kind))

    add(_small_bowel(marks, rng), 11.5, Tissue.SMALL_BOWEL, 0.12)
    add(_colon(marks, rng), rng.uniform(15, 22), Tissue.COLON, 0.2)
    levels = np.linspace(marks.skull_base - 75 * marks.scale, marks.lung_base + 45, 6)
    gullet = [(z, float(marks.spine_y(z)) - 27, marks.centre[1] + 4) for z in levels]
    add(spline(gullet, 4), 7.5, Tissue.OESOPHAGUS)
    for points, radius in _vessels(marks, rng):
        add(points, radius, Tissue.BLOOD)
    for points in _ureters(organs, grid, marks):
        add(points, 3.0, Tissue.URETER)
    points = np.concatenate([p for p, _, _ in parts])
    radii = np.maximum(np.concatenate([r for _, r, _ in parts]), 0.6 * max(grid.spacing))
    kinds = np.concatenate([np.full(len(p), kind, np.uint8) for p, _, kind in parts])
    return Tubes(points, radii, kinds, paint_balls(grid, points, radii))


def _paint_head(tissue: Labels, organs: Labels, grid: Grid) -> None:
    """Scalp, skull and fluid around the brain, by distance from it."""
    where = ndimage.find_objects((organs == Tissue.BRAIN).astype(np.uint8))
    if not where:
        return
    pad = [int(np.ceil(18 / s)) for s in grid.spacing]
    box = tuple(
        slice(max(0, part.start - p), min(n, part.stop + p))
        for part, p, n in zip(where[0], pad, grid.shape, strict=True)
    )
    distance = ndimage.distance_transform_edt(organs[box] != Tissue.BRAIN, sampling=grid.spacing)
    part = tissue[box]
    part[(distance <= 15) & (part == Tissue.AIR)] = Tissue.FAT
    part[(distance <= 9.5)] = Tissue.CORTEX
    part[(distance <= 3.5)] = Tissue.FLUID


def _paint_gas(tissue: Labels, tubes: Tubes, grid: Grid, rng: np.random.Generator) -> None:
    """Gas in stretches of the bowel, in the half of the lumen that faces the front."""
    along = ndimage.gaussian_filter1d(rng.standard_normal(len(tubes.points)), 5, mode="nearest")
    along /= along.std()
    gassy = along > np.where(tubes.kinds == Tissue.COLON, 0.5, 1.7)
    voxels = np.argwhere(np.isin(tissue, (Tissue.COLON, Tissue.SMALL_BOWEL)) & (tubes.nearest >= 0))
    ball = tubes.nearest[tuple(voxels.T)]
    offset = voxels * grid.spacing - tubes.points[ball]
    ratio = np.linalg.norm(offset, axis=1) / tubes.radii[ball]
    gas = gassy[ball] & (ratio < 0.72) & (offset[:, 1] < 0.25 * tubes.radii[ball])
    tissue[tuple(voxels[gas].T)] = Tissue.BOWEL_GAS


def _paint_airway(tissue: Labels, grid: Grid, marks: Landmarks) -> None:
    """Nose, sinuses, throat, windpipe and main bronchi."""
    (head_y, head_x), base, k = marks.head, marks.skull_base, marks.scale
    carina = marks.apex - 78 * k
    trunk_y = float(marks.spine_y(carina)) - 42
    throat = spline(
        [
            (base - 12, head_y - 34, head_x),
            (base - 50, head_y - 26, head_x),
            (marks.apex + 50 * k, float(marks.spine_y(marks.apex + 50 * k)) - 36, (head_x + marks.centre[1]) / 2),
            (marks.apex - 20 * k, float(marks.spine_y(marks.apex - 20 * k)) - 42, marks.centre[1]),
            (carina, trunk_y, marks.centre[1]),
        ],
        4,
    )
    parts = [(throat, 8.0)]
    for side in (-1, 1):
        bronchus = spline(
            [(carina, trunk_y, marks.centre[1]), (carina - 32, trunk_y + 4, marks.centre[1] + side * 38)], 4
        )
        parts += [(bronchus, 6.5), (np.array([(base - 14, head_y - 68, head_x + side * 25)]), 15.0)]
    nose = spline([(base - 10, head_y - 90, head_x), (base - 10, head_y - 45, head_x)], 4)
    parts.append((nose, 9.0))
    points = np.concatenate([p for p, _ in parts])
    radii = np.concatenate([np.full(len(p), r) for p, r in parts])
    tissue[(paint_balls(grid, points, radii) >= 0) & (tissue != Tissue.AIR)] = Tissue.AIRWAY


def _table(grid: Grid, body: Bool) -> Bool:
    """Cross-section (y, x) of a shallow curved table under the body."""
    _, y, x = grid.axes()
    trunk = body.any(0)
    rows, columns = np.nonzero(trunk)
    back = (rows.max() + 1) * grid.spacing[1]
    middle = columns.mean() * grid.spacing[2]
    surface = back + 6 - 0.00045 * (x[0] - middle) ** 2 + 4
    slab = (y[0] > surface) & (y[0] < surface + 8) & (np.abs(x[0] - middle) < 215)
    return np.asarray(slab & ~trunk)


def _fill_cavity(tissue: Labels, inside: Bool, grid: Grid, marks: Landmarks) -> None:
    """Put fat between the organs, and the muscles that line the cavity: chest wall, back and psoas."""
    z, y, x = grid.axes()
    k, away = marks.scale, np.abs(x - marks.centre[1])
    spine_y = marks.spine_y(z[:, 0, 0]).astype(np.float32)[:, None, None]
    chest_wall = (z > marks.lung_base + 20) & (away > 55)
    paraspinal = (y > spine_y + 4) & (away < 60) & (z > marks.hip + 60 * k)
    psoas = ((away - 42) / 17) ** 2 + ((y - spine_y + 2) / 20) ** 2 < 1
    psoas = psoas & (z < marks.lung_base + 20) & (z > marks.hip + 40 * k)
    tissue[inside] = Tissue.VISCERAL_FAT
    tissue[inside & (chest_wall | paraspinal | psoas)] = Tissue.MUSCLE


def _paint_tubes(tissue: Labels, tubes: Tubes, grid: Grid, rng: np.random.Generator) -> None:
    """Bowel where the cavity has room for it; vessels, oesophagus and ureters anywhere in the body."""
    kinds = np.where(tubes.nearest >= 0, tubes.kinds[tubes.nearest], 0).astype(np.uint8)
    bowel = np.isin(kinds, (Tissue.SMALL_BOWEL, Tissue.COLON))
    place = (kinds > 0) & (tissue != Tissue.AIR) & (~bowel | (tissue == Tissue.VISCERAL_FAT))
    tissue[place] = kinds[place]
    _paint_gas(tissue, tubes, grid, rng)


def build_phantom(organs: Labels, grid: Grid, rng: np.random.Generator) -> Phantom:
    """Build one body around an organ map.

    Parameters
    ----------
    organs : uint8 array z, y, x
        Organ map in the LPS frame, labels 0 to 10.
    grid : Grid
        Its grid; it must leave room for the body around the organs, what does not fit is cut off.
    rng : numpy.random.Generator
        Source of every random choice.

    Raises
    ------
    ValueError
        When the map has neither lungs nor liver.
    """
    marks = find_landmarks(organs, grid)
    heights = grid.axes()[0][:, 0, 0].astype(float)
    radius, direction = _polar(grid, marks.centre)
    cavity = _cavity(organs, grid, marks, heights)
    belly = float(np.clip(rng.lognormal(np.log(19), 0.5), 5, 50))
    muscle, skin = _trunk(cavity, marks, heights, belly, rng)
    k = marks.scale

    def within(outline: Points, low: float, high: float) -> Bool:
        inside = radius[None] < outline.astype(np.float32)[:, direction]
        inside[(heights < low) | (heights > high)] = False
        return inside

    body = within(skin, marks.hip - 85 * k, marks.apex + 55 * k)
    flesh = within(muscle, marks.hip - 85 * k, marks.apex + 55 * k)
    limb = np.zeros(grid.shape, bool)
    parts = _head_and_limbs(marks, skin, heights, belly * rng.uniform(0.4, 0.8), rng)
    for part in parts:
        box, field = column(grid, part.knots)
        widest = max(knot[3] for knot in part.knots)
        if part.limb:
            limb[box] |= (field < 1) & ~body[box]
        body[box] |= field < 1
        flesh[box] |= field < 1 - min(0.5, part.fat / widest)

    tissue = np.where(body, np.uint8(Tissue.FAT), np.uint8(Tissue.AIR))
    fascia = np.abs(grid.noise((90, 24, 24), rng)) < 0.07
    tissue[flesh & ~fascia] = Tissue.MUSCLE
    _fill_cavity(tissue, within(cavity, marks.hip - 60 * k, marks.apex + 30 * k), grid, marks)
    _paint_head(tissue, organs, grid)
    tubes = _soft_tubes(organs, grid, marks, rng)
    _paint_tubes(tissue, tubes, grid, rng)
    _paint_airway(tissue, grid, marks)
    arms = [spline([knot[:3] for knot in part.knots], 6) for part in parts if part.arm]
    paint_bones(tissue, grid, marks, ribs(cavity, marks, heights, rng), arms)
    surface = body & ~ndimage.binary_erosion(body, border_value=1)
    tissue[surface & np.isin(tissue, (Tissue.FAT, Tissue.MUSCLE))] = Tissue.SKIN
    tissue[organs > 0] = organs[organs > 0]
    tubes.nearest[tissue != np.where(tubes.nearest >= 0, tubes.kinds[tubes.nearest], 0)] = -1
    return Phantom(grid, tissue, tubes, marks, limb, _table(grid, body))
