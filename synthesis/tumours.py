"""Lesions of a synthetic body: where they grow, how large, how hot, and what of them the mask shows.

Uptake follows the AutoPET lesions (voxels: mean 7.1, median 4.7, half a per cent below 1.0 and above 52 SUV, from
the organisers' 2025 plan). The mask follows AutoPET's convention of labelling avid tissue: the cold centre of a
necrotic lesion belongs to it when it is at most 5 ml, and is left out when it is larger.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from synthesis.body import Bool, Float, Grid, Phantom, Tissue
from synthesis.uptake import Tracer

LARGEST_FILLED_CORE_ML = 5.0
LEAST_CONTRAST = {"liver": 1.25, "mass": 1.2}
"""Of a lesion's mean SUV to that around it, 1.5 elsewhere."""

LEAST_SUV = {"mass": 1.2}
"""Of a lesion's mean, 2.0 elsewhere: with 1.3 for all, 5 % of the voxels lay below 1.0 where AutoPET has 0.5 %."""

SMALLEST_LESION_ML = 0.3
LARGEST_LESION_ML = 1500.0
ANATOMICAL = 0.7
"""Share of the masses whose mask is the whole mass, however large its cold centre, as contours of sarcomas are."""

MASS = 0.2
"""Share of the FDG bodies with lesions that have a large mass, where the body has room for one."""

CLUSTERED = 0.25
"""Share of lesions that grow beside the one before."""

SITES: dict[Tracer, dict[str, float]] = {
    "fdg": {"node": 0.33, "lung": 0.17, "liver": 0.12, "bone": 0.20, "soft tissue": 0.10, "bowel": 0.08},
    "psma": {"node": 0.40, "bone": 0.42, "prostate": 0.10, "lung": 0.04, "liver": 0.04},
}
"""Share of lesions by site."""

MEDIAN_ML = {
    "node": 2.0,
    "lung": 2.5,
    "liver": 4.0,
    "bone": 3.0,
    "soft tissue": 5.0,
    "bowel": 5.0,
    "prostate": 2.5,
    "mass": 220.0,
}
"""A mass is like the sarcomas of Vallieres et al.: of 41 contours the medians are 353 ml, a mean SUV of 3.1 and
33 HU; a tenth lies above 900 ml, a tenth below 18 HU."""

BONE = (Tissue.CORTEX, Tissue.MARROW, Tissue.YELLOW_MARROW)
SOFT = (Tissue.FAT, Tissue.MUSCLE, Tissue.SKIN, Tissue.VISCERAL_FAT)
BOWEL = (Tissue.COLON, Tissue.SMALL_BOWEL, Tissue.BOWEL_GAS, Tissue.OESOPHAGUS)

ROOM: dict[str, tuple[Tissue, ...]] = {
    "node": (*SOFT, Tissue.BLOOD),
    "lung": (Tissue.LUNG,),
    "liver": (Tissue.LIVER,),
    "bone": (*BONE, Tissue.MUSCLE),
    "soft tissue": SOFT,
    "mass": (*SOFT, Tissue.BLOOD),
    "bowel": (*BOWEL, Tissue.VISCERAL_FAT),
    "prostate": (Tissue.PROSTATE,),
}
"""Tissues that a lesion of a site may replace."""


@dataclass(frozen=True)
class Layers:
    """What lesions are planted into.

    Attributes
    ----------
    activity, suv, hu : float32 arrays z, y, x
        True activity, the same as blurred by the scanner, and CT numbers.
    sigma : float
        Standard deviation in mm of the scanner's point spread.
    """

    activity: Float
    suv: Float
    hu: Float
    sigma: float


@dataclass(frozen=True)
class _Shape:
    """A lesion's seed, and its voxels inside a box: all of it, its cold core, and the part that the mask shows."""

    centre: NDArray[np.intp]
    box: tuple[slice, slice, slice]
    whole: Bool
    core: Bool
    shown: Bool


def _seeds(site: str, phantom: Phantom, free: Bool, rng: np.random.Generator) -> NDArray[np.intp]:
    """Voxels (flat indices) where a lesion of a site may have its centre."""
    tissue, marks = phantom.tissue, phantom.landmarks
    z, y, x = phantom.grid.axes()
    k, away = marks.scale, np.abs(x - marks.centre[1])
    mask: Bool
    if site == "node":
        fat = np.isin(tissue, (Tissue.FAT, Tissue.VISCERAL_FAT, Tissue.MUSCLE)) & ~phantom.limb
        spine = marks.spine_y(z[:, 0, 0]).astype(np.float32)[:, None, None]
        stations = [
            (z > marks.apex) & (z < marks.skull_base - 25) & (away > 18) & (away < 62),
            (z > marks.apex - 130 * k) & (z < marks.apex - 20 * k) & (away > 0.85 * marks.half_width),
            (z > marks.lung_base + 60) & (z < marks.apex) & (tissue == Tissue.VISCERAL_FAT),
            (z > marks.hip + 90 * k) & (z < marks.lung_base + 40) & (away < 48) & (y < spine) & (y > spine - 65),
            (z > marks.hip - 10 * k) & (z < marks.hip + 120 * k) & (away > 25) & (away < 85) & (y < spine),
            (z > marks.hip - 70 * k) & (z < marks.hip) & (away > 45) & (away < 110) & (y < marks.centre[0]),
        ]
        mask = fat & stations[rng.integers(len(stations))]
    elif site == "soft tissue":
        mask = np.isin(tissue, (Tissue.FAT, Tissue.MUSCLE))
    elif site == "mass":
        mask = tissue == Tissue.MUSCLE
        limb = (phantom.limb | (z < marks.hip - 60 * k)) & mask
        if rng.random() < 0.7 and limb.any():
            mask = limb
    elif site == "bone":
        mask = np.isin(tissue, (Tissue.MARROW, Tissue.YELLOW_MARROW, Tissue.CORTEX)) & (z < marks.skull_base)
    elif site == "bowel":
        mask = np.isin(tissue, (Tissue.COLON, Tissue.SMALL_BOWEL))
    else:
        mask = np.isin(tissue, ROOM[site])
    return np.flatnonzero(mask & free)


def _grow(
    centre: NDArray[np.intp], volume_ml: float, room: Bool, grid: Grid, rng: np.random.Generator, *, mass: bool
) -> _Shape | None:
    """Grow an irregular blob of a given volume around a voxel; None where there is no room for it.

    The blob is the set of voxels with the smallest noise-perturbed elliptic distance, as many as the volume asks.
    """
    radius = (volume_ml * 1000 * 3 / (4 * np.pi)) ** (1 / 3)
    axes = np.exp(rng.normal(0, 0.2, 3))
    axes /= np.prod(axes) ** (1 / 3)
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    middle = [float(c * s) for c, s in zip(centre, grid.spacing, strict=True)]
    box = grid.box(middle, 2.1 * radius + 2 * max(grid.spacing))
    z, y, x = grid.axes(box)
    offset = np.stack(np.broadcast_arrays(z - middle[0], y - middle[1], x - middle[2]), -1)
    distance = np.linalg.norm(offset @ turn / axes, axis=-1) / radius
    rough = ndimage.gaussian_filter(
        rng.standard_normal(distance.shape), [0.45 * radius / s + 0.3 for s in grid.spacing]
    )
    distance = distance * np.exp(0.22 * rough / max(float(rough.std()), 1e-6))
    distance[~room[box]] = np.inf
    wanted = max(1, round(volume_ml / grid.voxel_ml))
    if np.isfinite(distance).sum() < wanted:
        return None
    limit = np.partition(distance.ravel(), wanted - 1)[wanted - 1]
    if limit > 1.6:
        return None
    pieces, count = ndimage.label(distance <= limit, np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    whole = pieces == sizes.argmax()
    if count == 0 or whole.sum() * grid.voxel_ml < max(SMALLEST_LESION_ML, 0.75 * volume_ml):
        return None
    core = np.zeros_like(whole)
    if volume_ml > 6 and rng.random() < (0.6 if mass else 0.4):
        inner = distance < rng.uniform(0.45, 0.75) * limit
        core = inner & whole & ndimage.binary_erosion(whole)
    filled = core.sum() * grid.voxel_ml <= LARGEST_FILLED_CORE_ML or (mass and rng.random() < ANATOMICAL)
    shown = whole if filled else whole & ~core
    return _Shape(centre, box, whole, core, shown)


def _lesion_volume(site: str, rng: np.random.Generator) -> float:
    """Volume in ml: log-normal with many small ones."""
    if site == "mass":
        return float(np.clip(rng.lognormal(np.log(MEDIAN_ML[site]), 1.0), 20, 0.95 * LARGEST_LESION_ML))
    return float(np.clip(rng.lognormal(np.log(MEDIAN_ML[site]), 1.25), 1.25 * SMALLEST_LESION_ML, 80))


def _grow_somewhere(
    site: str,
    seeds: NDArray[np.intp],
    room: Bool,
    last: NDArray[np.intp] | None,
    grid: Grid,
    rng: np.random.Generator,
) -> _Shape | None:
    """Grow a lesion at a seed, now and then beside the last one; None when eight ever smaller find no room."""
    for attempt in range(8 if len(seeds) else 0):
        centre = np.array(np.unravel_index(rng.choice(seeds), grid.shape))
        if last is not None and attempt == 0 and rng.random() < CLUSTERED:
            nearby = last + np.rint(rng.normal(0, 22, 3) / grid.spacing).astype(int)
            nearby = np.clip(nearby, 0, np.array(grid.shape) - 1)
            centre = nearby if room[tuple(nearby)] else centre
        shape = _grow(centre, _lesion_volume(site, rng) * 0.8**attempt, room, grid, rng, mass=site == "mass")
        if shape is not None and shape.shown.sum() * grid.voxel_ml >= SMALLEST_LESION_ML:
            return shape
    return None


def _lesion_count(rng: np.random.Generator) -> int:
    """1 to 15, mostly few."""
    return int(np.clip(round(rng.lognormal(np.log(4.0), 0.8)), 1, 15))


def _plan_sites(count: int, tracer: Tracer, phantom: Phantom, rng: np.random.Generator) -> list[str]:
    """Sites of a body's lesions; some FDG bodies have a large mass, as a sarcoma would be."""
    shares = dict(SITES[tracer])
    if not (phantom.tissue == Tissue.PROSTATE).any():
        shares.pop("prostate", None)
    weights = np.array(list(shares.values()))
    sites = [str(s) for s in rng.choice(list(shares), size=count, p=weights / weights.sum())]
    if tracer == "fdg" and rng.random() < MASS:
        sites[0] = "mass"
    elif rng.random() < 0.06:  # disease all over the marrow
        sites = ["bone"] * int(rng.integers(8, 16))
    return sites


def _insert(shape: _Shape, site: str, target: float, layers: Layers, grid: Grid, rng: np.random.Generator) -> None:
    """Put one lesion into the layers, in place.

    The lesion's activity is chosen so that the mean of the *blurred* SUV over its mask is ``target``, raised to
    the site's least and where the background needs it for the least contrast.
    """
    activity, suv, hu = layers.activity, layers.suv, layers.hu
    margin = [int(np.ceil(3.2 * layers.sigma / s)) for s in grid.spacing]
    wide = tuple(
        slice(max(0, part.start - m), min(n, part.stop + m))
        for part, m, n in zip(shape.box, margin, grid.shape, strict=True)
    )
    inner = tuple(
        slice(part.start - w.start, part.stop - w.start) for part, w in zip(shape.box, wide, strict=True)
    )
    whole, core, shown = (np.zeros([w.stop - w.start for w in wide], bool) for _ in range(3))
    whole[inner], core[inner], shown[inner] = shape.whole, shape.core, shape.shown
    rough, length = (rng.uniform(0.35, 0.8), 2.5) if site == "mass" else (0.3, 1.2)
    texture = ndimage.gaussian_filter(rng.standard_normal(whole.shape), length)
    profile = np.exp(rough * texture / max(float(texture.std()), 1e-6))
    profile[core] = rng.uniform(0.1, 0.3)
    profile = np.where(whole, profile, 0).astype(np.float32)
    scale = [layers.sigma / s for s in grid.spacing]
    gain = ndimage.gaussian_filter(profile, scale, truncate=3, mode="constant")
    local = activity[wide]
    without = suv[wide] - ndimage.gaussian_filter(np.where(whole, local, 0), scale, truncate=3, mode="constant")
    near = ndimage.binary_dilation(whole, iterations=4) & ~ndimage.binary_dilation(whole, iterations=2)
    background = float(np.median(suv[wide][near])) if near.any() else 0.5
    target = max(target, 1.25 * LEAST_CONTRAST.get(site, 1.5) * background, LEAST_SUV.get(site, 2.0))
    strength = (target - float(without[shown].mean())) / float(gain[shown].mean())
    strength = min(strength, 12 * target)
    suv[wide] = without + strength * gain
    local[whole] = strength * profile[whole]
    part = hu[wide]
    if site == "bone":
        part[whole] = part[whole] * 0.4 + rng.choice([rng.uniform(30, 90), rng.uniform(300, 1300)]) * 0.8
    else:
        low, high = (15, 55) if site == "mass" else (30, 70)
        part[whole] = rng.uniform(low, high) if site != "liver" else part[whole] - rng.uniform(10, 50)
        part[core] = rng.uniform(10, 25)


def add_lesions(
    phantom: Phantom, tracer: Tracer, count: int | None, layers: Layers, rng: np.random.Generator
) -> tuple[NDArray[np.int16], list[str]]:
    """Plant lesions in place.

    Parameters
    ----------
    phantom : Phantom
    tracer : 'fdg' or 'psma'
    count : int or None
        How many to plant, drawn when None. Where the body has no room fewer are planted; now and then 8 to 15 in
        their place, all over the marrow.
    layers : Layers
        Changed in place.
    rng : numpy.random.Generator

    Returns
    -------
    mask : int16 array z, y, x
        Number of the lesion that a voxel belongs to, from 1; 0 outside.
    sites : list of str
        Site of each lesion.
    """
    grid, tissue = phantom.grid, phantom.tissue
    mask = np.zeros(grid.shape, np.int16)
    count = _lesion_count(rng) if count is None else count
    if count == 0:
        return mask, []
    hot = np.isin(tissue, (Tissue.BRAIN, Tissue.BLADDER, Tissue.KIDNEY, Tissue.HEART, Tissue.GLAND))
    steps = int(np.ceil(8.5 / max(grid.spacing)))
    free = ~ndimage.binary_dilation(hot, iterations=steps)
    if tracer == "fdg":
        level = float(np.clip(rng.lognormal(np.log(4.6), 0.55), 1.5, 30))
    else:
        level = float(np.clip(rng.lognormal(np.log(6.5), 0.5), 2.0, 25))
    sites: list[str] = []
    last: NDArray[np.intp] | None = None
    for site in _plan_sites(count, tracer, phantom, rng):
        seeds = _seeds(site, phantom, free, rng)
        if len(seeds) == 0:
            site, seeds = "bone", _seeds("bone", phantom, free, rng)
        shape = _grow_somewhere(site, seeds, np.isin(tissue, ROOM[site]) & free, last, grid, rng)
        if shape is None:
            continue
        cool = rng.uniform(0, 1.1) if site == "mass" else 0.0
        target = min(float(level * np.exp(rng.normal(0, 0.5) - cool)), 60.0)
        _insert(shape, site, target, layers, grid, rng)
        sites.append(site)
        mask[shape.box][shape.shown] = len(sites)
        free[shape.box] &= ~ndimage.binary_dilation(shape.whole)
        last = shape.centre
    return mask, sites
