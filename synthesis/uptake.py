"""What a healthy synthetic body looks like before a scanner sees it: tracer uptake and CT numbers.

Uptake follows typical values of FDG and of PSMA tracers, with factors drawn per patient; CT numbers are those of a
scan with or without contrast medium.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import ndimage

from synthesis.benign import add_benign, glow
from synthesis.body import Bool, Float, Grid, Phantom, Tissue, paint_balls

Tracer = Literal["fdg", "psma"]


def _around(value: float, spread: float, rng: np.random.Generator) -> float:
    """Log-normal value about a median; ``spread`` is the deviation of its logarithm, cut at twice that."""
    return float(value * np.exp(np.clip(rng.normal(0, spread), -2 * spread, 2 * spread)))


def _base_uptake(tracer: Tracer, rng: np.random.Generator) -> Float:
    """SUV of every `Tissue` in one patient."""
    table = np.full(len(Tissue), 0.02, np.float32)
    fdg = tracer == "fdg"
    blood = _around(1.75 if fdg else 1.5, 0.2, rng)
    marrow = rng.uniform(0.8, 2.5) if fdg else rng.uniform(0.4, 0.8)
    if fdg and rng.random() < 0.12:  # stimulated
        marrow = rng.uniform(2.5, 4.0)
    values = {
        Tissue.SPLEEN: _around(1.9, 0.2, rng) if fdg else rng.uniform(3.5, 8),
        Tissue.KIDNEY: rng.uniform(2.5, 4.5) if fdg else rng.uniform(32, 55),
        Tissue.LIVER: rng.uniform(1.9, 3.0) if fdg else rng.uniform(3.5, 6.5),
        Tissue.BLADDER: float(np.clip(_around(22, 0.7, rng), 5, 60))
        if fdg
        else float(np.clip(_around(25, 0.6, rng), 10, 60)),
        Tissue.LUNG: rng.uniform(0.35, 0.6),
        Tissue.BRAIN: rng.uniform(6.5, 9.5) if fdg else 0.3,
        Tissue.HEART: blood,
        Tissue.STOMACH: rng.uniform(1.3, 5.0) if fdg else rng.uniform(1.2, 3.0),
        Tissue.PROSTATE: rng.uniform(1.5, 3.0) if fdg else rng.uniform(2.0, 4.0),
        Tissue.GLAND: float(np.clip(_around(2.3, 0.4, rng), 1.2, 8)) if fdg else rng.uniform(8, 30),
        Tissue.SKIN: 0.5,
        Tissue.FAT: rng.uniform(0.2, 0.4),
        Tissue.MUSCLE: _around(0.7, 0.25, rng),
        Tissue.VISCERAL_FAT: rng.uniform(0.3, 0.6),
        Tissue.CORTEX: 0.35 * marrow + 0.3,
        Tissue.MARROW: marrow,
        Tissue.YELLOW_MARROW: 0.3 * marrow,
        Tissue.DISC: 0.6,
        Tissue.AIRWAY: 0.15,
        Tissue.BLOOD: blood,
        Tissue.OESOPHAGUS: rng.uniform(1.2, 2.5 if rng.random() < 0.85 else 5.0) if fdg else 1.2,
        Tissue.SMALL_BOWEL: rng.uniform(1.0, 2.0) if fdg else 3.0,
        Tissue.COLON: rng.uniform(1.0, 2.0) if fdg else 1.5,
        Tissue.BOWEL_GAS: 0.6,
        Tissue.URETER: 1.2,
        Tissue.FLUID: 0.6,
    }
    for tissue, value in values.items():
        table[tissue] = value
    return table


def _box(mask: Bool, grid: Grid, margin: float) -> tuple[slice, ...] | None:
    """Smallest box around a mask with a margin in mm; None for an empty mask."""
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        return None
    return tuple(
        slice(max(0, part.start - round(margin / s)), min(n, part.stop + round(margin / s)))
        for part, s, n in zip(found[0], grid.spacing, grid.shape, strict=True)
    )


def _depth(mask: Bool, grid: Grid) -> Float:
    """Depth in mm below the surface of a mask."""
    return np.asarray(ndimage.distance_transform_edt(mask, sampling=grid.spacing), np.float32)


def _heart_uptake(activity: Float, phantom: Phantom, rng: np.random.Generator) -> None:
    """FDG of the left ventricle: a horseshoe of myocardium around a cooler lumen, from invisible to very hot."""
    grid = phantom.grid
    where = np.argwhere(phantom.tissue == Tissue.HEART) * grid.spacing
    if len(where) * grid.voxel_ml < 50:
        return
    low = where[where[:, 0] < np.percentile(where[:, 0], 55)]
    centre = low.mean(0) + rng.normal((0, -6, 16), 3)
    axis = np.array((-0.45, -0.55, 0.70)) + rng.normal(0, 0.08, 3)
    axis /= np.linalg.norm(axis)
    size = (len(where) * grid.voxel_ml / 650) ** (1 / 3) * rng.uniform(0.92, 1.08)
    z, y, x = grid.axes()
    offset = (z - centre[0], y - centre[1], x - centre[2])
    along = sum(o * a for o, a in zip(offset, axis, strict=True))
    square = sum(o**2 for o in offset)
    across = np.sqrt(np.maximum(square - along**2, 0))
    outer = np.sqrt((along / (46 * size)) ** 2 + (across / (34 * size)) ** 2)
    inner = np.sqrt(((along + 3) / (36 * size)) ** 2 + (across / (22 * size)) ** 2)
    heart = phantom.tissue == Tissue.HEART
    wall = (outer < 1) & (inner > 1) & (along > -26 * size) & heart
    myocardium = float(np.exp(rng.uniform(np.log(1.5), np.log(13))))
    patch = np.exp(0.22 * grid.noise(22, rng)[wall])
    activity[wall] = np.clip(myocardium * patch, 0.8, 16)
    right = (outer > 1.15) & (outer < 1.75) & heart & (along > -20)
    activity[right] = np.maximum(activity[right], 0.28 * myocardium)


def _kidney_uptake(activity: Float, phantom: Phantom, tracer: Tracer, rng: np.random.Generator) -> None:
    """Cortex brighter than medulla, and urine in calyces and renal pelvis."""
    grid, marks = phantom.grid, phantom.landmarks
    kidneys = phantom.tissue == Tissue.KIDNEY
    box = _box(kidneys, grid, 12)
    if box is None:
        return
    inside = kidneys[box]
    depth = _depth(inside, grid)
    part = activity[box]
    part[inside & (depth > 11)] *= 0.8
    urine = _around(11, 0.5, rng) if tracer == "fdg" else _around(40, 0.25, rng)
    _, _, x = grid.axes(box)
    for side in (-1, 1):
        own = inside & ((x - marks.centre[1]) * side > 0)
        where = np.argwhere(own)
        if len(where) * grid.voxel_ml < 20:
            continue
        fill = rng.uniform(0.15, 1.0)
        reach = (where[:, 2] * grid.spacing[2]) * side
        medial = where[(reach < np.percentile(reach, 55)) & (depth[own] > 5)]
        if len(medial) == 0:
            continue
        middle = where.mean(0) * grid.spacing
        pelvis = middle - np.array((3, 3, side * 13))
        spots = [pelvis, *(medial[rng.integers(len(medial), size=3)] * grid.spacing)]
        origin = np.array([part_.start for part_ in box]) * grid.spacing
        nearest = paint_balls(grid, np.array(spots) + origin, np.array([9.0, 6, 6, 5]))[box]
        hot = (nearest >= 0) & (inside | (phantom.tissue[box] == Tissue.VISCERAL_FAT))
        part[hot] = np.maximum(part[hot], fill * urine)


def _bladder_uptake(activity: Float, phantom: Phantom, suv: float, rng: np.random.Generator) -> None:
    """Urine; the bladder has filled by up to 6 mm between the CT and its PET bed position."""
    grid = phantom.grid
    bladder = phantom.tissue == Tissue.BLADDER
    box = _box(bladder, grid, 10)
    if box is None:
        return
    outside = ndimage.distance_transform_edt(~bladder[box], sampling=grid.spacing)
    soft = np.isin(
        phantom.tissue[box], (Tissue.BLADDER, Tissue.VISCERAL_FAT, Tissue.MUSCLE, Tissue.COLON, Tissue.SMALL_BOWEL)
    )
    _, y, _ = grid.axes(box)
    full = (outside <= rng.uniform(0, 6)) & soft
    layer = 1 + 0.15 * np.tanh((y - y[full.any((0, 2))[None, :, None]].mean()) / 15)
    part = activity[box]
    part[full] = suv * np.broadcast_to(layer, part.shape)[full]


def _tube_uptake(
    activity: Float, phantom: Phantom, tracer: Tracer, table: Float, rng: np.random.Generator
) -> None:
    """Bowel in patches along its course, urine in stretches of the ureters."""
    tubes = phantom.tubes
    count = len(tubes.points)
    along = ndimage.gaussian_filter1d(rng.standard_normal(count), 7, mode="nearest")
    along /= along.std()
    factor = np.ones(count)
    values = table[tubes.kinds].astype(float)
    small, colon = tubes.kinds == Tissue.SMALL_BOWEL, tubes.kinds == Tissue.COLON
    if tracer == "fdg":
        factor[small] = np.exp(0.35 * along[small])
        avid = rng.choice([0.35, 0.6, 0.9], p=[0.5, 0.3, 0.2])
        factor[colon] = np.exp(avid * along[colon])
        hot = rng.uniform(2, 4) if rng.random() < 0.1 else 1.0  # metformin
        values[small | colon] = np.clip((values * factor)[small | colon] * hot, 0.7, 14)
    else:
        course = np.linspace(0, 1, max(1, int(small.sum())))
        values[small] = rng.uniform(8, 15) * np.exp(-course * 3.5) * np.exp(0.25 * along[small]) + 0.8
        values[colon] *= np.exp(0.3 * along[colon])
    ureter = tubes.kinds == Tissue.URETER
    urine = _around(9 if tracer == "fdg" else 20, 0.5, rng)
    values[ureter] = np.where(along[ureter] > rng.uniform(-0.2, 1.0), urine, 1.2)
    inside = tubes.nearest >= 0
    activity[inside] = values[tubes.nearest[inside]]


def _spots(
    phantom: Phantom, tracer: Tracer, rng: np.random.Generator
) -> list[tuple[Sequence[float], float, float]]:
    """Draw balls (centre z, y, x in mm, radius in mm, SUV) of normal and benign uptake that comes and goes."""
    marks = phantom.landmarks
    (head_y, head_x), base, k = marks.head, marks.skull_base, marks.scale
    y, x = marks.centre
    neck_y = float(marks.spine_y(marks.apex + 45 * k))
    adrenal_y = float(marks.spine_y(marks.hip + 235 * k)) - 22
    # centre, distance from the middle, radius, SUV from, to, how often
    pairs: dict[Tracer, list[tuple[tuple[float, float, float], float, float, float, float, float]]] = {
        "fdg": [
            ((base - 42, head_y - 36, head_x), 15, 7, 2.0, 6.0, 0.7),  # tonsils
            ((marks.apex + 52 * k, neck_y - 44, x), 6, 6, 2.0, 5.0, 0.35),  # vocal cords
            ((marks.apex + 22 * k, neck_y - 38, x), 18, 11, 2.0, 6.0, 0.15),  # thyroid
            ((marks.hip - 105 * k, y - 0.7 * marks.front, x), 12, 15, 2.0, 4.0, 0.3),  # testes
        ],
        "psma": [
            ((base + 12, head_y - 68, head_x), 34, 7, 5.0, 15.0, 1.0),  # lacrimal glands
            ((base - 48, head_y - 62, head_x), 24, 9, 5.0, 12.0, 1.0),  # sublingual glands
            ((marks.hip + 235 * k, adrenal_y, x), 14, 4, 2.0, 4.0, 0.5),  # coeliac ganglia
        ],
    }
    spots: list[tuple[Sequence[float], float, float]] = []
    for centre, apart, radius, low, high, share in pairs[tracer]:
        if rng.random() < share:
            suv = rng.uniform(low, high)
            spots += [((*centre[:2], centre[2] + side * apart), radius, suv) for side in (-1, 1)]
    return spots


def _incidental_uptake(activity: Float, phantom: Phantom, tracer: Tracer, rng: np.random.Generator) -> None:
    """Add uptake that comes and goes: tonsils, glands, joints; with FDG muscles and brown fat, too."""
    grid, marks, tissue = phantom.grid, phantom.landmarks, phantom.tissue
    spots = _spots(phantom, tracer, rng)
    if spots:
        points, radii, suvs = (np.array(values) for values in zip(*spots, strict=True))
        nearest = paint_balls(grid, points, radii)
        hot = (nearest >= 0) & (tissue > Tissue.GLAND) & (tissue != Tissue.AIRWAY)
        activity[hot] = np.maximum(activity[hot], suvs[nearest[hot]])
    if tracer != "fdg":
        return
    muscle = np.argwhere(tissue == Tissue.MUSCLE)
    if len(muscle) and rng.random() < 0.25:  # strained or tense
        for centre in muscle[rng.integers(len(muscle), size=rng.integers(1, 4))] * grid.spacing:
            hot = glow(grid, centre, rng.uniform((50, 25, 25), (140, 70, 70))) * (tissue == Tissue.MUSCLE)
            activity += activity * hot * rng.uniform(0.5, 3.5)
    if rng.random() < 0.12:  # brown fat
        fat = np.isin(tissue, (Tissue.FAT, Tissue.VISCERAL_FAT)) & (grid.noise(14, rng) > 0.4)
        suv = rng.uniform(2, 10)
        for side in (-1, 1):
            centre = (marks.apex, marks.centre[0], marks.centre[1] + side * 0.55 * marks.half_width)
            activity += fat * suv * glow(grid, centre, (45, 50, 45))


def body_uptake(phantom: Phantom, tracer: Tracer, rng: np.random.Generator) -> tuple[Float, float, list[str]]:
    """Activity of a healthy body before the scanner sees it.

    Returns
    -------
    activity : float32 array z, y, x
        SUV.
    liver : float
        SUV of the liver, to which the scanner's noise is scaled.
    benign : list of str
        Uptake without a tumour that was added, see :mod:`synthesis.benign`.
    """
    grid, tissue = phantom.grid, phantom.tissue
    table = _base_uptake(tracer, rng)
    activity = table[tissue]
    _tube_uptake(activity, phantom, tracer, table, rng)
    lungs = tissue == Tissue.LUNG
    _, y, _ = grid.axes()
    slope = 1 + 0.35 * np.clip((y - phantom.landmarks.centre[0]) / 90, -1, 1)
    activity[lungs] *= np.broadcast_to(slope, grid.shape)[lungs]
    stomach = tissue == Tissue.STOMACH
    box = _box(stomach, grid, 4)
    if box is not None:
        core = stomach[box] & (_depth(stomach[box], grid) > 9)
        activity[box][core] = 0.8 * rng.uniform(0.8, 1.4)
    if tracer == "fdg":
        _heart_uptake(activity, phantom, rng)
        brain = tissue == Tissue.BRAIN
        box = _box(brain, grid, 4)
        if box is not None:
            depth = _depth(brain[box], grid)
            grey = 0.62 + 0.75 * np.exp(-((depth / 13) ** 2)) + 0.45 * np.exp(-(((depth - 42) / 12) ** 2))
            activity[box][brain[box]] *= grey[brain[box]]
            folds = grid.noise(9, rng)[box]
            activity[box][brain[box]] *= np.exp(0.14 * folds[brain[box]])
    glands = tissue == Tissue.GLAND
    activity[glands] *= np.exp(0.25 * grid.noise(25, rng)[glands])
    texture = 1 + 0.10 * grid.noise(13, rng)
    activity *= np.clip(texture, 0.6, 1.4)
    _kidney_uptake(activity, phantom, tracer, rng)
    _bladder_uptake(activity, phantom, float(table[Tissue.BLADDER]), rng)
    _incidental_uptake(activity, phantom, tracer, rng)
    benign = add_benign(activity, phantom, tracer, rng)
    return np.asarray(activity, np.float32), float(table[Tissue.LIVER]), benign


def body_hu(phantom: Phantom, rng: np.random.Generator) -> Float:
    """CT numbers of a healthy body before the scanner sees it, float32 z, y, x; with or without contrast."""
    grid, tissue = phantom.grid, phantom.tissue
    contrast = rng.random() < 0.75
    oral = rng.random() < 0.3
    values = {
        Tissue.AIR: -1000,
        Tissue.SPLEEN: rng.uniform(100, 130) if contrast else 48,
        Tissue.KIDNEY: rng.uniform(140, 210) if contrast else 32,
        Tissue.LIVER: rng.uniform(90, 120) if contrast else rng.uniform(40, 65),
        Tissue.BLADDER: rng.uniform(5, 60) if contrast else 6,
        Tissue.LUNG: rng.uniform(-860, -780),
        Tissue.BRAIN: 36,
        Tissue.HEART: rng.uniform(120, 170) if contrast else 42,
        Tissue.STOMACH: rng.uniform(15, 60),
        Tissue.PROSTATE: 48,
        Tissue.GLAND: rng.uniform(0, 45),
        Tissue.SKIN: -40,
        Tissue.FAT: rng.uniform(-112, -98),
        Tissue.MUSCLE: rng.uniform(48, 66),
        Tissue.VISCERAL_FAT: rng.uniform(-108, -85),
        Tissue.CORTEX: rng.uniform(450, 750),
        Tissue.MARROW: rng.uniform(120, 260),
        Tissue.YELLOW_MARROW: -20,
        Tissue.DISC: 85,
        Tissue.AIRWAY: -960,
        Tissue.BLOOD: rng.uniform(130, 180) if contrast else 42,
        Tissue.OESOPHAGUS: 35,
        Tissue.SMALL_BOWEL: rng.uniform(120, 260) if oral else rng.uniform(25, 70),
        Tissue.COLON: rng.uniform(100, 300) if oral else rng.uniform(0, 40),
        Tissue.BOWEL_GAS: -880,
        Tissue.URETER: 20,
        Tissue.FLUID: 12,
    }
    table = np.array([values[tissue_] for tissue_ in Tissue], np.float32)
    hu = table[tissue]
    fine = grid.noise(5, rng)
    hu += 6 * fine
    lungs = tissue == Tissue.LUNG
    _, y, _ = grid.axes()
    slope = 45 * np.clip((y - phantom.landmarks.centre[0]) / 90, -1, 1)
    vessels = 130 * np.clip(grid.noise(6, rng)[lungs] - 1.2, 0, 2) ** 1.2
    hu[lungs] += np.broadcast_to(slope, grid.shape)[lungs] + 10 * fine[lungs] + vessels
    bone = np.isin(tissue, (Tissue.CORTEX, Tissue.MARROW))
    hu[bone] *= np.clip(1 + 0.18 * fine[bone], 0.5, 1.6)
    bowel = np.isin(tissue, (Tissue.COLON, Tissue.SMALL_BOWEL))
    hu[bowel] += 25 * fine[bowel]
    stomach = tissue == Tissue.STOMACH
    if stomach.any() and rng.random() < 0.6:
        level = np.argwhere(stomach)[:, 1]
        gas = stomach.copy()
        gas[:, int(np.percentile(level, rng.uniform(8, 40))) :] = False
        hu[ndimage.binary_erosion(gas)] = -900
    return hu
