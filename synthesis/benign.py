"""Uptake that is no tumour and comes and goes: glands, joints, muscles, reactive nodes, urine where it drips.

Nothing here is ever in the mask. How often and how hot follows what reports of FDG and PSMA scans call pitfalls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from synthesis.body import Float, Grid, Phantom, Tissue, paint_balls

Ball = tuple[Sequence[float], float, float]
"""Centre z, y, x in mm, radius in mm, SUV."""

SOFT = (Tissue.FAT, Tissue.VISCERAL_FAT, Tissue.MUSCLE, Tissue.SKIN)


def glow(grid: Grid, centre: ArrayLike, size: ArrayLike) -> Float:
    """Gaussian bump of height 1; ``size`` is its standard deviation along z, y, x in mm."""
    bump = [
        np.exp(-0.5 * ((axis - c) / s) ** 2)
        for axis, c, s in zip(grid.axes(), np.asarray(centre), np.asarray(size), strict=True)
    ]
    return np.asarray(bump[0] * bump[1] * bump[2], np.float32)


def _both_sides(centre: tuple[float, float, float], apart: float, radius: float, suv: float) -> list[Ball]:
    z, y, x = centre
    return [((z, y, x + side * apart), radius, suv) for side in (-1, 1)]


def _joints(phantom: Phantom, rng: np.random.Generator) -> list[Ball]:
    """Worn or inflamed joints, mostly on both sides."""
    marks = phantom.landmarks
    (y, x), w, k = marks.centre, marks.half_width, marks.scale
    places = [
        ((marks.apex - 25 * k, y + 0.1 * marks.back, x), 1.22 * w, 24.0),  # shoulders
        ((marks.hip, y, x), 88.0, 26.0),  # hips
        ((marks.hip - 400 * k, y, x), 92.0, 32.0),  # knees
        ((marks.apex - 38 * k, y - 0.9 * marks.front, x), 22.0, 9.0),  # sternoclavicular
        ((marks.hip + 150 * k, float(marks.spine_y(marks.hip + 150 * k)) + 24, x), 16.0, 8.0),  # facets
    ]
    balls: list[Ball] = []
    for centre, apart, radius in places:
        if rng.random() < 0.35:
            pair = _both_sides(centre, apart, radius * rng.uniform(0.6, 1.1), rng.uniform(1.2, 5.0))
            balls += pair if rng.random() < 0.7 else [pair[rng.integers(2)]]
    return balls


def _reactive_nodes(phantom: Phantom, rng: np.random.Generator) -> list[Ball]:
    """Small nodes in the hila, one armpit or both groins, as after a vaccination or with sarcoid."""
    marks = phantom.landmarks
    (y, x), w, k = marks.centre, marks.half_width, marks.scale
    hilum = (marks.apex - 115 * k, float(marks.spine_y(marks.apex - 115 * k)) - 42, x)
    armpit = (marks.apex - 75 * k, y, x)
    groin = (marks.hip - 25 * k, y - 0.6 * marks.front, x)
    suv = rng.uniform(1.5, 4.5)
    kind = rng.integers(3)
    if kind == 0:
        return _both_sides(hilum, rng.uniform(28, 42), rng.uniform(5, 8), suv)
    if kind == 1:
        side = rng.choice([-1, 1])
        return [
            (
                (*(np.array(armpit[:2]) + rng.normal(0, 14, 2)), x + side * (1.05 * w + rng.normal(0, 8))),
                radius,
                suv,
            )
            for radius in rng.uniform(4, 7, rng.integers(1, 5))
        ]
    return [
        ((*(np.array(groin[:2]) + rng.normal(0, 10, 2)), x + side * (72 + rng.normal(0, 8))), radius, suv)
        for side in (-1, 1)
        for radius in rng.uniform(4, 6.5, rng.integers(1, 3))
    ]


def _pelvis(phantom: Phantom, rng: np.random.Generator) -> list[Ball]:
    """Return a womb and ovaries as in some phases of the cycle."""
    marks = phantom.landmarks
    z, (y, x) = marks.hip + 45 * marks.scale, marks.centre
    balls: list[Ball] = [((z, y - 8, x + rng.normal(0, 6)), rng.uniform(9, 15), rng.uniform(1.8, 5))]
    if rng.random() < 0.5:
        balls.append(((z + 12, y, x + rng.choice([-1, 1]) * 36), rng.uniform(6, 10), rng.uniform(2, 6)))
    return balls


def _leaked_injection(phantom: Phantom, rng: np.random.Generator) -> list[Ball]:
    """Tracer that ran out of a vein, along one arm."""
    where = np.argwhere(phantom.arm) * phantom.grid.spacing
    if not len(where):
        return []
    centre = where[rng.integers(len(where))]
    return [
        (tuple(centre + rng.normal(0, 10, 3)), radius, float(np.exp(rng.uniform(np.log(4), np.log(80)))))
        for radius in rng.uniform(5, 16, rng.integers(1, 4))
    ]


def _urine(phantom: Phantom, rng: np.random.Generator) -> list[Ball]:
    """Urine on the skin between the thighs."""
    marks = phantom.landmarks
    start = np.array([marks.hip - 75 * marks.scale, marks.centre[0] - 0.55 * marks.front, marks.centre[1]])
    suv = float(np.exp(rng.uniform(np.log(2), np.log(30))))
    return [(tuple(start + np.array((-14.0 * i, rng.normal(0, 4), rng.normal(0, 5)))), 6.0, suv) for i in range(5)]


def _thymus(phantom: Phantom, rng: np.random.Generator) -> list[Ball]:
    marks = phantom.landmarks
    z, y, x = marks.apex - 75 * marks.scale, marks.centre[0] - 0.72 * marks.front, marks.centre[1]
    suv = rng.uniform(1.5, 3.5)
    return [((z - 12.0 * i, y, x + side * 9), 10.0, suv) for i in range(3) for side in (-1, 1)]


FDG: dict[str, tuple[float, Callable[[Phantom, np.random.Generator], list[Ball]]]] = {
    "joints": (0.6, _joints),
    "reactive nodes": (0.3, _reactive_nodes),
    "womb": (0.12, _pelvis),
    "leaked injection": (0.1, _leaked_injection),
    "urine on the skin": (0.1, _urine),
    "thymus": (0.08, _thymus),
}
"""How often each comes, and what draws it."""

PSMA: dict[str, tuple[float, Callable[[Phantom, np.random.Generator], list[Ball]]]] = {
    "joints": (0.2, _joints),
    "leaked injection": (0.08, _leaked_injection),
    "urine on the skin": (0.15, _urine),
}


def add_benign(activity: Float, phantom: Phantom, tracer: str, rng: np.random.Generator) -> list[str]:
    """Add what is drawn, in place, to the activity and, where it is a lump of its own, to the tissue.

    Returns
    -------
    list of str
        What was added.
    """
    added, balls = [], []
    for name, (share, draw) in (FDG if tracer == "fdg" else PSMA).items():
        if rng.random() < share and (drawn := draw(phantom, rng)):
            added.append(name)
            balls += drawn
    if balls:
        centres, radii, suvs = (np.array(values, float) for values in zip(*balls, strict=True))
        nearest = paint_balls(phantom.grid, centres, radii)
        hot = (nearest >= 0) & ((phantom.tissue >= Tissue.SKIN) & (phantom.tissue != Tissue.AIRWAY))
        activity[hot] = np.maximum(activity[hot], suvs[nearest[hot]])
        lump = hot & np.isin(phantom.tissue, (Tissue.FAT, Tissue.VISCERAL_FAT)) & (radii[nearest] < 16)
        phantom.tissue[lump] = Tissue.MUSCLE
    vary_muscles(activity, phantom, tracer, rng)
    return added


def vary_muscles(activity: Float, phantom: Phantom, tracer: str, rng: np.random.Generator) -> None:
    """Let muscles differ by group, in place; now and then FDG shows those in use, or all after a meal."""
    grid, marks = phantom.grid, phantom.landmarks
    muscle = phantom.tissue == Tissue.MUSCLE
    factor = np.exp(0.2 * grid.noise((110, 45, 45), rng))
    if tracer == "fdg":
        factor *= rng.uniform(1.8, 4.0) if rng.random() < 0.06 else 1.0
        z, _, x = grid.axes()
        for low, high in (
            (-np.inf, marks.hip),
            (marks.hip, marks.lung_base),
            (marks.apex - 90, marks.apex + 20),
            (marks.apex + 20, np.inf),
        ):
            for side in (-1, 1):
                if rng.random() < 0.08:
                    group = (
                        np.clip((z - low) / 40, 0, 1)
                        * np.clip((high - z) / 40, 0, 1)
                        * ((x - marks.centre[1]) * side > 0)
                    )
                    noise = np.clip(0.6 + 0.6 * grid.noise((80, 30, 30), rng), 0, 2)
                    factor *= 1 + group * noise * rng.uniform(0.5, 3.0)
    activity[muscle] *= np.clip(factor[muscle], 0.4, 6)
