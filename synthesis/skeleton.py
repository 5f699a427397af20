"""Bones of a synthetic body: spine, ribs, shoulder girdle, pelvis, thighs, arms and skull."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from synthesis.body import (
    ANGLES,
    Float,
    Grid,
    Labels,
    Landmarks,
    Points,
    Tissue,
    column,
    paint_balls,
    sheet,
    spline,
)


def ribs(cavity: Points, marks: Landmarks, heights: Points, rng: np.random.Generator) -> Points:
    """Centres of balls along twelve pairs of ribs on the surface of the thorax."""
    floor = marks.lung_base - 12
    period = (marks.apex - 12 - floor) / 11
    drop = rng.uniform(0.55, 0.75)
    balls = []
    for rib in range(12):
        turn = np.linspace(0.10, 0.93 if rib < 7 else 0.93 - 0.13 * (rib - 6), 46)
        for side in (-1, 1):
            angle = np.pi / 2 - side * turn * np.pi
            direction = ((angle / (2 * np.pi)) % 1 * ANGLES).astype(int) % ANGLES
            fall = (
                drop
                * 150
                * marks.scale
                * np.sin(np.clip(turn, 0, 0.8) * np.pi / 1.6) ** 1.5
                * min(1, 0.45 + rib / 9)
            )
            height = marks.apex + 8 - rib * period - fall
            row = np.clip(np.searchsorted(heights, height), 0, len(heights) - 1)
            radius = cavity[row, direction] + 6
            balls.append(
                np.stack(
                    [height, marks.centre[0] + radius * np.sin(angle), marks.centre[1] + radius * np.cos(angle)], 1
                )
            )
    dense = [spline(curve, 4.5) for curve in balls]
    return np.concatenate(dense)


def _pelvis(marks: Landmarks) -> list[tuple[Points, float]]:
    """Balls (centres, radius) of sacrum, iliac wings, acetabula, pubic and sitting bones."""
    x, k = marks.centre[1], marks.scale
    mid = marks.centre[0]
    sacrum = [
        (z, float(marks.spine_y(z)) + 2, x) for z in (marks.hip + 110 * k, marks.hip + 60 * k, marks.hip + 5)
    ]
    parts = [(spline(sacrum, 6), 19.0)]
    back = float(marks.spine_y(marks.hip + 80 * k)) + 8
    front = mid - 0.50 * marks.front
    socket = mid - 0.02 * marks.front
    for side in (-1, 1):
        wing = [
            (marks.hip + 132 * k, back - 6, x + side * 58),
            (marks.hip + 108 * k, front + 6, x + side * 122),
            (marks.hip + 26 * k, socket - 12, x + side * 92),
            (marks.hip + 50 * k, back - 8, x + side * 46),
        ]
        bowed = sheet(wing)
        bowed[:, 2] += side * 10 * np.sin(np.pi * np.clip((bowed[:, 0] - marks.hip) / (132 * k), 0, 1))
        pubis = [
            (marks.hip + 4 * k, socket - 18, x + side * 70),
            (marks.hip - 8 * k, front - 4, x + side * 38),
            (marks.hip - 20 * k, front + 2, x + side * 8),
        ]
        ischium = [
            (marks.hip + 4 * k, socket + 20, x + side * 72),
            (marks.hip - 38 * k, socket + 32, x + side * 62),
            (marks.hip - 62 * k, socket + 16, x + side * 46),
            (marks.hip - 35 * k, front + 14, x + side * 16),
        ]
        cup = [(marks.hip + 16 * k, socket + d, x + side * 76) for d in (-16, 0, 16)]
        parts += [(bowed, 6.5), (spline(pubis, 5), 8.0), (spline(ischium, 5), 10.0), (np.array(cup), 15.0)]
    return parts


def _girdles(marks: Landmarks) -> list[tuple[Points, float]]:
    """Balls (centres, radius) of the sternum, clavicles, shoulder blades and femurs."""
    x, k = marks.centre[1], marks.scale
    socket = marks.centre[0] - 0.02 * marks.front
    parts: list[tuple[Points, float]] = []
    breast = marks.centre[0] - marks.front - 4
    manubrium = marks.apex - 45 * k
    plate = sheet(
        [
            (manubrium, breast + 18, x - 18),
            (manubrium, breast + 18, x + 18),
            (marks.lung_base + 85, breast, x + 12),
            (marks.lung_base + 85, breast, x - 12),
        ]
    )
    parts.append((plate, 7.0))
    for side in (-1, 1):
        head = (marks.hip + 4 * k, socket, x + side * 86)
        trochanter = (marks.hip - 14 * k, socket + 6, x + side * 126)
        shaft = [
            trochanter,
            (marks.hip - 60 * k, socket, x + side * 120),
            (marks.hip - 420 * k, socket - 5, x + side * 92),
            (marks.hip - 900 * k, socket, x + side * 84),
        ]
        clavicle = [
            (manubrium + 8, breast + 20, x + side * 22),
            (marks.apex - 12 * k, breast + 40, x + side * 0.62 * marks.half_width),
            (marks.apex - 12 * k, marks.centre[0] + 0.2 * marks.back, x + side * 1.1 * marks.half_width),
        ]
        blade = sheet(
            [
                (marks.apex - 25 * k, marks.centre[0] + 0.85 * marks.back, x + side * 0.62 * marks.half_width),
                (marks.apex - 20 * k, marks.centre[0] + 0.35 * marks.back, x + side * 1.12 * marks.half_width),
                (marks.apex - 150 * k, marks.centre[0] + 1.02 * marks.back, x + side * 0.82 * marks.half_width),
                (marks.apex - 140 * k, marks.centre[0] + 1.12 * marks.back, x + side * 0.66 * marks.half_width),
            ]
        )
        parts += [
            (np.array([head]), 24.0),
            (spline([head, trochanter], 6), 15.0),
            (spline(shaft, 6), 14.5),
            (spline(clavicle, 4), 6.5),
            (blade, 5.0),
        ]
    return parts


def _jaws(marks: Landmarks) -> list[tuple[Points, float]]:
    """Balls (centres, radius) of the jaws and of the skull's base."""
    (y, x), base = marks.head, marks.skull_base
    jaw = [
        (base - 5, y - 18, x - 50),
        (base - 45, y - 34, x - 46),
        (base - 66, y - 70, x - 28),
        (base - 70, y - 84, x),
        (base - 66, y - 70, x + 28),
        (base - 45, y - 34, x + 46),
        (base - 5, y - 18, x + 50),
    ]
    palate = [(base - 34, y - 45, x - 26), (base - 34, y - 76, x), (base - 34, y - 45, x + 26)]
    floor = sheet(
        [(base, y - 45, x - 34), (base, y - 45, x + 34), (base - 6, y + 30, x + 34), (base - 6, y + 30, x - 34)]
    )
    return [(spline(jaw, 4), 7.0), (spline(palate, 4), 6.5), (floor, 5.0)]


def _paint_spine(tissue: Labels, grid: Grid, marks: Landmarks) -> None:
    """Vertebral bodies with discs between them, arches, spinous processes and the canal."""
    k = marks.scale
    heights = np.linspace(marks.hip + 95 * k, marks.skull_base - 12, 16)
    known = [marks.hip + 95 * k, marks.lung_base + 30, marks.apex, marks.skull_base - 12]
    deep = np.interp(heights, known, [17, 16, 12, 10])
    wide = np.interp(heights, known, [25, 21, 16, 13])
    y = marks.spine_y(heights)
    x = np.interp(heights, [marks.apex, marks.skull_base - 12], [marks.centre[1], marks.head[1]])

    def level_by_level(back: float, along_y: Points, along_x: Points) -> tuple[tuple[slice, ...], Float]:
        return column(grid, list(zip(heights, y + back * deep, x, along_y, along_x, strict=True)))

    box, field = level_by_level(0, deep, wide)
    z = grid.axes(box)[0]
    length = np.interp(z[:, 0, 0], [marks.hip + 100 * k, marks.apex, marks.skull_base], [37 * k, 23 * k, 18 * k])
    phase = (np.cumsum(grid.spacing[0] / length) % 1)[:, None, None]
    part = tissue[box]
    solid = part != Tissue.AIR
    part[solid & (field < 1)] = Tissue.CORTEX
    part[solid & (field < 0.82)] = Tissue.MARROW
    part[solid & (field < 1) & (phase < 0.2)] = Tissue.DISC
    for back, along_y, along_x, when, inner in (
        (1.75, 0.85 * deep, 0.95 * wide, phase < 0.72, 0.8),
        (2.9, 0.8 * deep, np.full_like(deep, 4.0), phase > 0.45, 0.0),
    ):
        box, field = level_by_level(back, along_y, along_x)
        part = tissue[box]
        solid = when & (part != Tissue.AIR)
        part[solid & (field < 1)] = Tissue.CORTEX
        part[solid & (field < inner)] = Tissue.MARROW
    box, field = level_by_level(1.5, np.full_like(deep, 8.0), np.full_like(deep, 10.0))
    part = tissue[box]
    part[(field < 1) & (part != Tissue.AIR)] = Tissue.FLUID


def paint_bones(tissue: Labels, grid: Grid, marks: Landmarks, rib_balls: Points, arms: Sequence[Points]) -> None:
    """Paint the skeleton into a body, with a cortical shell, in place; the skull's vault belongs to the head.

    Parameters
    ----------
    tissue : uint8 array z, y, x
        `Tissue` of every voxel; bones stay inside the body and out of the brain.
    grid : Grid
    marks : Landmarks
    rib_balls : array (n, 3)
        From `ribs`.
    arms : sequence of arrays (n, 3)
        Axes of the arms in mm, z, y, x.
    """
    parts = [(rib_balls, 5.5), *_pelvis(marks), *_girdles(marks), *_jaws(marks), *((arm, 10.5) for arm in arms)]
    points = np.concatenate([p for p, _ in parts])
    radii = np.maximum(np.concatenate([np.full(len(p), r) for p, r in parts]), 0.62 * max(grid.spacing))
    bone = (paint_balls(grid, points, radii) >= 0) & (tissue != Tissue.AIR) & (tissue != Tissue.BRAIN)
    marrow = ndimage.binary_erosion(bone)
    tissue[bone] = Tissue.CORTEX
    tissue[marrow] = Tissue.MARROW
    z, _, x = grid.axes()
    thighs = z < marks.hip - 90 * marks.scale
    arms_too = np.abs(x - marks.centre[1]) > 1.2 * marks.half_width + 10
    tissue[marrow & (thighs | (arms_too & (z > marks.hip + 20)))] = Tissue.YELLOW_MARROW
    _paint_spine(tissue, grid, marks)
