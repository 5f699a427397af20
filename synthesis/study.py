"""Synthetic whole-body PET/CT with lesions, made from organ maps: ``python -m training synthesize``.

The bodies teach a network trained on tumour crops what healthy organs look like, and test it where the truth is
known. They are made, not measured, and everything written from here says so.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage
from tqdm import tqdm

from algorithm.errors import InvalidImageError, MissingInputError, UsageError
from algorithm.images import read_image
from synthesis.anatomy import build_phantom
from synthesis.body import Float, Grid, Labels, Phantom, Tissue
from synthesis.tumours import Layers, add_lesions
from synthesis.uptake import Tracer, body_hu, body_uptake

SPACING = (4.0, 4.0, 3.27)
FWHM_TO_SIGMA = 1 / 2.3548


@dataclass(frozen=True)
class LesionRecord:
    """One lesion of a synthetic body.

    Attributes
    ----------
    site : str
        ``node``, ``lung``, ``liver``, ``bone``, ``soft tissue``, ``mass``, ``bowel`` or ``prostate``.
    volume_ml : float
        Volume of its part of the mask.
    suv_peak : float
        Highest SUV in the mask before noise.
    centre_mm : tuple of float
        Centroid x, y, z in the image's physical (LPS) coordinates.
    """

    site: str
    volume_ml: float
    suv_peak: float
    centre_mm: tuple[float, float, float]


@dataclass(frozen=True)
class SyntheticBody:
    """One synthetic scan; all images share one grid.

    Attributes
    ----------
    ct : SimpleITK.Image
        int16, HU.
    suv : SimpleITK.Image
        float32, SUV.
    seg : SimpleITK.Image
        uint8, 1 in lesions.
    organs : SimpleITK.Image
        uint8 organ map on the same grid.
    lesions : tuple of LesionRecord
    """

    ct: sitk.Image
    suv: sitk.Image
    seg: sitk.Image
    organs: sitk.Image
    lesions: tuple[LesionRecord, ...]


def _scan_ct(hu: Float, phantom: Phantom, rng: np.random.Generator) -> NDArray[np.int16]:
    """Resolution, noise, the table and the CT's round field of view (-1024 outside), int16 HU."""
    grid = phantom.grid
    air = phantom.tissue == Tissue.AIR
    hu[:, phantom.table] = np.where(air[:, phantom.table], rng.uniform(-450, -150), hu[:, phantom.table])
    blurred = ndimage.gaussian_filter(hu, [1.6 / s for s in grid.spacing], truncate=3)
    blurred += rng.uniform(6, 16) * rng.standard_normal(grid.shape, dtype=np.float32)
    _, y, x = grid.axes()
    middle = [n * s / 2 for n, s in zip(grid.shape, grid.spacing, strict=True)]
    field = rng.choice([250.0, 390.0], p=[0.6, 0.4])
    outside = (y[0] - middle[1]) ** 2 + (x[0] - middle[2]) ** 2 > field**2
    blurred[:, outside] = -1024
    return np.asarray(np.clip(np.rint(blurred), -1024, 3071), np.int16)


def _breathe(
    suv: Float, mask: NDArray[np.int16], phantom: Phantom, rng: np.random.Generator
) -> tuple[Float, NDArray[np.int16]]:
    """Shift PET and mask along z near the diaphragm by up to 8 mm: PET averages over breaths that the CT held."""
    grid, marks = phantom.grid, phantom.landmarks
    z = grid.axes()[0][:, 0, 0]
    reach = float(np.clip(rng.normal(0, 4), -8, 8))
    source = (z + reach * np.exp(-0.5 * ((z - marks.lung_base - 60) / 55) ** 2)) / grid.spacing[0]
    source = np.clip(source, 0, grid.shape[0] - 1)
    below = np.minimum(source.astype(int), grid.shape[0] - 2)
    weight = (source - below).astype(np.float32)[:, None, None]
    return suv[below] * (1 - weight) + suv[below + 1] * weight, mask[np.rint(source).astype(int)]


def _scan_pet(suv: Float, liver: float, sigma: float, grid: Grid, rng: np.random.Generator) -> Float:
    """Add correlated noise: 5 to 15 % of the liver's SUV in the liver, growing as the square root of SUV."""
    noise = ndimage.gaussian_filter(
        rng.standard_normal(grid.shape, dtype=np.float32), [0.75 * sigma / s for s in grid.spacing], truncate=3
    )
    noise /= noise.std()
    level = rng.uniform(0.05, 0.15)
    noisy = suv + level * np.sqrt(np.maximum(suv, 0.02) * liver) * noise
    return np.asarray(np.clip(noisy, 0, None), np.float32)


def _resample_labels(image: sitk.Image, spacing: Sequence[float]) -> sitk.Image:
    """Nearest-neighbour resampling that keeps the outer corner of the first voxel and the direction."""
    old = np.array(image.GetSpacing())
    new = np.array(spacing, float)
    size = np.maximum(1, np.rint(np.array(image.GetSize()) * old / new)).astype(int)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    origin = np.array(image.GetOrigin()) + direction @ ((new - old) / 2)
    return sitk.Resample(
        image, size.tolist(), sitk.Transform(), sitk.sitkNearestNeighbor, origin.tolist(), new.tolist(),
        image.GetDirection(), 0, sitk.sitkUInt8,
    )  # fmt: skip


def _working_box(organs: Labels, grid: Grid) -> tuple[slice, slice, slice]:
    """Part of the grid that can hold body, arms and table: all slices, in plane the organs plus a margin."""
    where = np.nonzero(np.isin(organs, (Tissue.LUNG, Tissue.LIVER)).any(0))
    low = [int(np.min(w)) for w in where]
    high = [int(np.max(w)) + 1 for w in where]
    y = (low[0] - int(125 / grid.spacing[1]), high[0] + int(115 / grid.spacing[1]))
    x = (low[1] - int(175 / grid.spacing[2]), high[1] + int(175 / grid.spacing[2]))
    return (
        slice(None),
        slice(max(0, y[0]), min(grid.shape[1], y[1])),
        slice(max(0, x[0]), min(grid.shape[2], x[1])),
    )


def synthesise(
    organs: sitk.Image,
    tracer: Tracer,
    seed: int | Sequence[int],
    *,
    spacing: tuple[float, float, float] | None = SPACING,
    lesions: int | None = None,
) -> SyntheticBody:
    """Make one synthetic whole-body PET/CT from an organ map.

    Parameters
    ----------
    organs : SimpleITK.Image
        Organ map, labels 0 to 10 as in `synthesis.body.Tissue`, any axis-aligned direction.
    tracer : 'fdg' or 'psma'
    seed : int or sequence of int
        The same seed gives the same bytes.
    spacing : tuple of float or None
        Spacing x, y, z in mm of the result; None keeps the organ map's grid.
    lesions : int or None
        Number of lesions to plant, 0 for a tumour-free body; drawn from 1 to 15 when None.

    Returns
    -------
    SyntheticBody

    Raises
    ------
    InvalidImageError
        When the organ map is not 3-D, has a label above 10, or holds neither lungs nor liver.
    """
    if organs.GetDimension() != 3:
        raise InvalidImageError(
            f"an organ map must be 3-D, got {organs.GetDimension()} dimensions; give a label volume."
        )
    resampled = sitk.Cast(organs, sitk.sitkUInt8) if spacing is None else _resample_labels(organs, spacing)
    code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(resampled.GetDirection())
    upright = sitk.DICOMOrient(resampled, "LPS")
    whole = sitk.GetArrayFromImage(upright)
    if not np.isin(whole, (Tissue.LUNG, Tissue.LIVER)).any():
        raise InvalidImageError(
            "the organ map holds neither lungs (5) nor liver (3); give one that covers the trunk."
        )
    if whole.max() > Tissue.GLAND:
        raise InvalidImageError(
            f"an organ map has labels 0 to 10, got {whole.max()}; give one with these ten organs."
        )
    step = upright.GetSpacing()
    full = Grid(whole.shape, (step[2], step[1], step[0]))
    box = _working_box(whole, full)
    part = np.ascontiguousarray(whole[box])
    grid = Grid(part.shape, full.spacing)

    rng = np.random.default_rng(seed)
    phantom = build_phantom(part, grid, rng)
    activity, liver = body_uptake(phantom, tracer, rng)
    hu = body_hu(phantom, rng)
    sigma = rng.uniform(5, 8) * FWHM_TO_SIGMA
    suv = ndimage.gaussian_filter(activity, [sigma / s for s in grid.spacing], truncate=3)
    mask, sites = add_lesions(phantom, tracer, lesions, Layers(activity, suv, hu, sigma), rng)
    ct = _scan_ct(hu, phantom, rng)
    suv, mask = _breathe(suv, mask, phantom, rng)
    records = _records(suv, mask, sites, grid, upright, box)
    suv = _scan_pet(suv, liver, sigma, grid, rng)

    def image(values: Float | Labels | NDArray[np.int16], outside: float) -> sitk.Image:
        volume = np.full(full.shape, outside, values.dtype)
        volume[box] = values
        placed = sitk.GetImageFromArray(volume)
        placed.CopyInformation(upright)
        placed = sitk.DICOMOrient(placed, code)
        placed.CopyInformation(resampled)
        return placed

    return SyntheticBody(
        ct=image(ct, -1024),
        suv=image(suv, 0),
        seg=image((mask > 0).astype(np.uint8), 0),
        organs=resampled,
        lesions=records,
    )


def _records(
    suv: Float, mask: NDArray[np.int16], sites: list[str], grid: Grid, image: sitk.Image, box: tuple[slice, ...]
) -> tuple[LesionRecord, ...]:
    """Measure every lesion on the noise-free SUV."""
    records = []
    for number, (where, site) in enumerate(zip(ndimage.find_objects(mask), sites, strict=False), start=1):
        if where is None:
            continue
        own = mask[where] == number
        corner = [part.start + (whole.start or 0) for part, whole in zip(where, box, strict=True)]
        centre = np.argwhere(own).mean(0) + corner
        records.append(
            LesionRecord(
                site=site,
                volume_ml=round(float(own.sum()) * grid.voxel_ml, 4),
                suv_peak=round(float(suv[where][own].max()), 3),
                centre_mm=tuple(
                    round(c, 2) for c in image.TransformContinuousIndexToPhysicalPoint(centre[::-1].tolist())
                ),
            )
        )
    return tuple(records)


def write_case(body: SyntheticBody, folder: Path, **notes: Any) -> None:
    """Write ``CTres``, ``SUV``, ``SEG`` (AutoPET's names) and ``organs``, all ``.nii.gz``, and ``lesions.json``.

    The folder appears whole or not at all.

    Parameters
    ----------
    body : SyntheticBody
    folder : Path
        The study's folder, ``PATIENT/STUDY``; replaced when it exists.
    **notes
        Recorded in ``lesions.json`` beside the lesions.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for name, image in (("CTres", body.ct), ("SUV", body.suv), ("SEG", body.seg), ("organs", body.organs)):
        sitk.WriteImage(image, str(partial / f"{name}.nii.gz"), useCompression=True, compressionLevel=2)
    record = {"synthetic": True, **notes, "lesions": [asdict(lesion) for lesion in body.lesions]}
    (partial / "lesions.json").write_text(json.dumps(record, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


def find_anatomies(folder: Path) -> list[Path]:
    """Organ maps ``STUDY/organs.nii.gz`` below a folder, sorted by study.

    Raises
    ------
    MissingInputError
        When there is none.
    """
    maps = sorted(folder.glob("*/organs.nii.gz"))
    if not maps:
        raise MissingInputError(
            f"no organ map found in {folder} (looked for STUDY/organs.nii.gz); name the folder of the anatomies."
        )
    return maps


def split_anatomies(folder: Path, held_out: int = 12, seed: int = 0) -> tuple[list[Path], list[Path]]:
    """Split the organ maps below a folder by study into those for training and those held back for evaluation.

    Returns
    -------
    training, held_back : lists of Path
        Sorted; the same for the same folder, number and seed.
    """
    maps = find_anatomies(folder)
    if not 0 <= held_out < len(maps):
        raise UsageError(
            f"{held_out} anatomies cannot be held back of the {len(maps)} in {folder}; ask for fewer."
        )
    chosen = set(np.random.default_rng(seed).permutation(len(maps))[:held_out].tolist())
    return (
        [path for i, path in enumerate(maps) if i not in chosen],
        [path for i, path in enumerate(maps) if i in chosen],
    )


def tracer_of(study: str) -> Tracer:
    """Tracer named by a study's prefix (``psma_...``); FDG unless said otherwise."""
    return "psma" if study.lower().startswith("psma") else "fdg"


def synthesise_many(
    anatomies: Path | Sequence[Path],
    out: Path,
    count: int,
    seed: int,
    *,
    spacing: tuple[float, float, float] | None = SPACING,
    tumour_free: float = 0.2,
    tracer: Tracer | None = None,
    progress: bool = True,
) -> list[Path]:
    """Write ``count`` synthetic bodies as ``OUT/synthetic_0000/STUDY/...``; finished ones are kept.

    Body ``i`` depends on the seed, on ``i`` and on the list of anatomies alone: not on what is already there, nor
    on ``count``. Anatomies are used in turn, in a seeded order.

    Parameters
    ----------
    anatomies : Path or sequence of Path
        Folder of ``STUDY/organs.nii.gz``, or the organ maps themselves.
    out : Path
    count : int
    seed : int
    spacing : tuple of float or None
        As for `synthesise`.
    tumour_free : float
        Share of bodies without a lesion, 0 to 1.
    tracer : 'fdg', 'psma' or None
        None takes each anatomy's own.
    progress : bool
        Show a progress bar.

    Returns
    -------
    list of Path
        The studies' folders.
    """
    if count < 1:
        raise UsageError(f"the number of bodies must be at least 1, got {count}.")
    if not 0 <= tumour_free <= 1:
        raise UsageError(f"the tumour-free share must be between 0 and 1, got {tumour_free}.")
    if spacing is not None and min(spacing) <= 0:
        raise UsageError(f"the spacing must be positive, got {' '.join(map(str, spacing))}.")
    maps = find_anatomies(anatomies) if isinstance(anatomies, Path) else list(anatomies)
    order = np.random.default_rng(seed).permutation(len(maps))
    folders = []
    for index in tqdm(range(count), desc="synthetic bodies", unit="body", disable=not progress, file=sys.stdout):
        path = maps[order[index % len(maps)]]
        study = path.parent.name
        folder = out / f"synthetic_{index:04d}" / study
        folders.append(folder)
        own: Tracer = tracer or tracer_of(study)
        made_of = {"anatomy": study, "tracer": own, "seed": seed, "index": index}
        grid = list(spacing) if spacing else None
        if _is_there(folder, {**made_of, "spacing": grid}):
            continue
        free = np.random.default_rng([seed, index, 1]).random() < tumour_free
        body = synthesise(
            read_image(path, "organ map"), own, [seed, index], spacing=spacing, lesions=0 if free else None
        )
        write_case(body, folder, **made_of, spacing=grid)
    return folders


def _is_there(folder: Path, made_of: dict[str, Any]) -> bool:
    """Tell whether this very body is finished; raises UsageError if another one has its place."""
    finished = sorted(folder.parent.glob("*/lesions.json"))
    for path in finished:
        stored = json.loads(path.read_text(encoding="utf-8"))
        # What an older version did not store is not compared.
        other = sorted(key for key, value in made_of.items() if stored.get(key, value) != value)
        if other:
            raise UsageError(
                f"{path.parent} is a body made with another {', '.join(other)}; choose another --out or remove it"
            )
    return bool(finished)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``python -m training synthesize``."""
    parser.add_argument("--anatomy", type=Path, required=True, metavar="DIR", help="folder of STUDY/organs.nii.gz")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the bodies go")
    parser.add_argument("--count", type=int, default=60, help="how many bodies (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--spacing", type=float, nargs=3, default=SPACING, metavar=("X", "Y", "Z"), help="mm (default: 4 4 3.27)"
    )
    parser.add_argument(
        "--tumour-free",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="share of bodies without lesions (default: %(default)s)",
    )
    parser.add_argument("--tracer", choices=get_args(Tracer), help="default: as each anatomy's name says")
    parser.add_argument(
        "--subset",
        choices=("all", "train", "held-out"),
        default="all",
        help="which anatomies of the split (default: %(default)s)",
    )
    parser.add_argument(
        "--held-out",
        type=int,
        default=12,
        metavar="N",
        help="anatomies kept for evaluation (default: %(default)s)",
    )


def main(args: argparse.Namespace) -> int:
    """Write synthetic bodies as the command line asks."""
    training, held_back = split_anatomies(args.anatomy, args.held_out if args.subset != "all" else 0)
    maps = held_back if args.subset == "held-out" else training
    folders = synthesise_many(
        maps,
        args.out,
        args.count,
        args.seed,
        spacing=tuple(args.spacing),
        tumour_free=args.tumour_free,
        tracer=args.tracer,
    )
    print(f"{len(folders)} synthetic bodies from {len(maps)} anatomies in {args.out}")
    return 0
