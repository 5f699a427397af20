"""A whole body built around an organ map: outline, fat, muscle, bone, vessels, airways and bowel.

The organ maps name ten organs and nothing else. Everything here is derived from where those organs lie, from
textbook proportions and from chance, so that two bodies from one organ map differ in build, posture and bowel.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from synthesis.body import (
    Bool,
    Grid,
    Labels,
    Landmarks,
    Phantom,
    Points,
    Tissue,
    column,
    find_landmarks,
    paint_balls,
    spline,
)
from synthesis.outline import cavity_outline, head_and_limbs, polar, trunk_outline
from synthesis.skeleton import paint_bones, ribs
from synthesis.tubes import paint_tubes, soft_tubes


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
    InvalidImageError
        When the map has neither lungs nor liver.
    """
    marks = find_landmarks(organs, grid)
    heights = grid.axes()[0][:, 0, 0].astype(float)
    radius, direction = polar(grid, marks.centre)
    cavity = cavity_outline(organs, grid, marks, heights)
    belly = float(np.clip(rng.lognormal(np.log(19), 0.5), 5, 50))
    muscle, skin = trunk_outline(cavity, marks, heights, belly, rng)
    k = marks.scale

    def within(outline: Points, low: float, high: float) -> Bool:
        inside = radius[None] < outline.astype(np.float32)[:, direction]
        inside[(heights < low) | (heights > high)] = False
        return inside

    body = within(skin, marks.hip - 85 * k, marks.apex + 55 * k)
    flesh = within(muscle, marks.hip - 85 * k, marks.apex + 55 * k)
    limb, arm = np.zeros(grid.shape, bool), np.zeros(grid.shape, bool)
    parts = head_and_limbs(marks, skin, heights, belly * rng.uniform(0.4, 0.8), rng)
    for part in parts:
        box, field = column(grid, part.knots)
        widest = max(knot[3] for knot in part.knots)
        if part.limb:
            limb[box] |= (field < 1) & ~body[box]
        if part.arm:
            arm[box] |= (field < 1) & ~body[box]
        body[box] |= field < 1
        flesh[box] |= field < 1 - min(0.5, part.fat / widest)

    tissue = np.where(body, np.uint8(Tissue.FAT), np.uint8(Tissue.AIR))
    fascia = np.abs(grid.noise((90, 24, 24), rng)) < 0.07
    tissue[flesh & ~fascia] = Tissue.MUSCLE
    _fill_cavity(tissue, within(cavity, marks.hip - 60 * k, marks.apex + 30 * k), grid, marks)
    _paint_head(tissue, organs, grid)
    tubes = soft_tubes(organs, grid, marks, rng)
    paint_tubes(tissue, tubes, grid, rng)
    _paint_airway(tissue, grid, marks)
    arms = [spline([knot[:3] for knot in part.knots], 6) for part in parts if part.arm]
    paint_bones(tissue, grid, marks, ribs(cavity, marks, heights, rng), arms)
    surface = body & ~ndimage.binary_erosion(body, border_value=1)
    tissue[surface & np.isin(tissue, (Tissue.FAT, Tissue.MUSCLE))] = Tissue.SKIN
    tissue[organs > 0] = organs[organs > 0]
    tubes.nearest[tissue != np.where(tubes.nearest >= 0, tubes.kinds[tubes.nearest], 0)] = -1
    return Phantom(grid, tissue, tubes, marks, limb, arm, _table(grid, body))
