"""Bowel, vessels, oesophagus and ureters: curves with a thickness."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from synthesis.body import (
    Grid,
    Labels,
    Landmarks,
    Points,
    Tissue,
    Tubes,
    extent,
    paint_balls,
    spline,
)


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
    position = np.array(duodenum[-1])
    walk = []
    middle = np.array([marks.hip + 105 * k, y - 0.25 * f, x])
    size = np.array([75 * k, 0.42 * f, 0.45 * w])
    for _ in range(int(rng.integers(34, 52))):
        step = rng.normal(0, 30, 3) * (1, 0.7, 1.1)
        pull = 0.35 * (middle - position) * (np.abs(position - middle) / size).clip(0, 2)
        position = np.clip(position + step + pull, middle - 1.1 * size, middle + 1.1 * size)
        walk.append(position)
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
            (marks.hip - 420 * k, marks.centre[0] + 30, x + side * 88),
            (marks.hip - 700 * k, marks.centre[0] + 20, x + side * 86),
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


def soft_tubes(organs: Labels, grid: Grid, marks: Landmarks, rng: np.random.Generator) -> Tubes:
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


def paint_tubes(tissue: Labels, tubes: Tubes, grid: Grid, rng: np.random.Generator) -> None:
    """Bowel where the cavity has room for it; vessels, oesophagus and ureters anywhere in the body."""
    kinds = np.where(tubes.nearest >= 0, tubes.kinds[tubes.nearest], 0).astype(np.uint8)
    bowel = np.isin(kinds, (Tissue.SMALL_BOWEL, Tissue.COLON))
    painted = (kinds > 0) & (tissue != Tissue.AIR) & (~bowel | (tissue == Tissue.VISCERAL_FAT))
    tissue[painted] = kinds[painted]
    _paint_gas(tissue, tubes, grid, rng)
