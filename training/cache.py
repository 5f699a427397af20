"""Preprocessing once: every case on the network's grid, as memory-mapped arrays, and what they have in common.

One folder per case, named by the case and a hash of its files and of the spacing, so that a changed file or
another spacing makes a new entry and an interrupted run goes on where it stopped. The intensities stay raw (HU,
SUV); :func:`algorithm.preprocessing.normalise` is applied to each crop, as inference applies it to each volume.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import multiprocessing
import re
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from tqdm import tqdm

from algorithm.cases import Case, Skipped, read_study
from algorithm.errors import InvalidImageError, MissingInputError, OutputError, ResourceError, UserError
from algorithm.images import AIR_HU
from algorithm.jsonfile import read_json
from algorithm.postprocessing import lesions, voxel_volume_ml
from algorithm.preprocessing import Box, body_mask, bounding_box, resample
from training.organ_maps import organ_map_of, read_organs
from training.studies import stamps_of, why_left_out

FORMAT = 6
"""Raised whenever what lies in an entry changes; part of the entries' hash."""

CENTRES_PER_LESION = 500
"""Crop centres drawn in each lesion, whatever its size: all of a case are equally likely to be trained on."""

BACKGROUND_POINTS = 20_000
"""Crop centres kept in the body outside the lesions: half of them anywhere, half where healthy uptake is high."""

HIGH_UPTAKE_SUV = 2.0
"""Above this, healthy tissue is easily taken for tumour: brain, heart, kidneys, bladder. It is little of the body,
so crops drawn evenly would seldom show it."""

MARGIN_MM = 20.0
"""Air kept around the patient, on each side. Two thirds of an AutoPET field of view lie beyond (measured on
synthetic bodies)."""

_DAY_S = 86_400.0
_PART = re.compile(r".+-[0-9a-f]{12}\.[0-9a-f]{32}\.part")
"""An entry that is being made."""

_LISTS = ("tumour_points", "background_points", "tumour_ct", "tumour_pet")

Spacing = tuple[float, float, float]
Number = TypeVar("Number", int, float)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CachedCase:
    """A preprocessed case, cut to the patient; its arrays, ``size`` in x, y, z, are opened on demand.

    Attributes
    ----------
    name, patient : str
    folder : Path
    size : tuple of int
        Voxels in x, y, z.
    spacing : tuple of float
        In mm, x, y, z.
    tumour_ml : float
        0 for a tumour-free case.
    sha256 : str
        Of its images and contours.
    synthetic : bool
        The images are not of a patient.
    """

    name: str
    patient: str
    folder: Path
    size: tuple[int, int, int]
    spacing: Spacing
    tumour_ml: float
    sha256: str
    synthetic: bool = False

    def ct(self) -> NDArray[np.int16]:
        """Return the CT in HU (memory-mapped)."""
        return self._open("ct")

    def pet(self) -> NDArray[np.float32]:
        """Return the PET in SUV (memory-mapped)."""
        return self._open("pet")

    def seg(self) -> NDArray[np.uint8]:
        """Return the contours, 0 or 1 (memory-mapped)."""
        return self._open("seg")

    def organs(self) -> NDArray[np.uint8] | None:
        """Return the organ map, labels as in ``synthesis.body.Tissue`` (memory-mapped); None without one."""
        return self._open("organs") if (self.folder / "organs.npy").is_file() else None

    def tumour_points(self) -> NDArray[np.int32]:
        """Return voxels inside lesions, (n, 3) in x, y, z: crop centres."""
        return self._open("tumour_points")

    def background_points(self) -> NDArray[np.int32]:
        """Return voxels in the body outside the lesions, (n, 3) in x, y, z: crop centres."""
        return self._open("background_points")

    def tumour_values(self, modality: str) -> NDArray[np.float32]:
        """Return the intensities of ``ct`` (HU) or ``pet`` (SUV) inside the lesions, (n,)."""
        return self._open(f"tumour_{modality}")

    def _open(self, what: str) -> NDArray:  # type: ignore[type-arg]
        return np.load(self.folder / f"{what}.npy", mmap_mode="r")  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Cache:
    """What became of a data set: the usable cases, and the others with their reasons."""

    cases: tuple[CachedCase, ...]
    skipped: tuple[Skipped, ...]

    def of(self, patients: Iterable[str]) -> tuple[CachedCase, ...]:
        """Return the cases of these patients."""
        wanted = set(patients)
        return tuple(case for case in self.cases if case.patient in wanted)


@dataclass(frozen=True)
class Statistics:
    """Intensities inside the tumours of some cases: 0.5 and 99.5 percentile, mean and standard deviation."""

    low: float
    high: float
    mean: float
    std: float
    voxels: int


def build_cache(
    cases: Sequence[Case], folder: Path, spacing: Spacing, *, progress: bool = True, workers: int = 1
) -> Cache:
    """Preprocess the cases that are not in the cache yet.

    Like inference, it turns the axes to left, posterior, superior, the default of a description.

    Parameters
    ----------
    cases : sequence of Case
    folder : Path
        Created if needed; several data sets and spacings can share it.
    spacing : tuple of float
        Of the network, in mm, x, y, z.
    progress : bool
        Show a progress bar on stdout.
    workers : int
        Processes that share the cases.

    Returns
    -------
    Cache
        A damaged case is in ``skipped`` with its reason; the others are in the order given.

    Raises
    ------
    OutputError
        The cache folder cannot be written.
    ResourceError
        A worker was killed.
    """
    for part in folder.glob("*.part"):  # what killed runs left; a younger one may be another run's work
        with suppress(OSError):
            if _PART.fullmatch(part.name) and time.time() - part.stat().st_mtime > _DAY_S:
                shutil.rmtree(part)
    work = partial(_prepare, folder=folder, spacing=spacing)
    missing = sum(not _is_ready(folder / _entry_name(case, spacing)) for case in cases)
    bar = partial(tqdm, total=len(cases), desc="preprocessing", unit="case", file=sys.stdout, disable=not progress)
    if min(workers, missing) > 1:
        context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
        try:
            with ProcessPoolExecutor(min(workers, missing), context, _compute_alone) as pool:
                done = list(bar(pool.map(work, cases)))
        except BrokenProcessPool as error:
            raise ResourceError(
                "a process that preprocessed was killed, most likely for lack of memory; use fewer --workers"
            ) from error
    else:
        done = list(bar(map(work, cases)))
    return Cache(
        tuple(each for each in done if isinstance(each, CachedCase)),
        tuple(each for each in done if isinstance(each, Skipped)),
    )


def resample_contours(seg: sitk.Image, spacing: Spacing) -> tuple[NDArray[np.uint8], sitk.Image]:
    """Bring contours onto the network's grid: uint8 in z, y, x, and an image with the grid's geometry.

    Interpolating the indicator and cutting at one half keeps the contour's volume; nearest neighbour frays it.
    """
    indicator = resample(sitk.Cast(seg, sitk.sitkFloat32), spacing)
    return (_array(indicator) >= 0.5).astype(np.uint8), indicator


def tumour_statistics(cases: Iterable[CachedCase], modality: str) -> Statistics:
    """Measure the intensities of ``ct`` (HU) or ``pet`` (SUV) inside the tumours of the training cases.

    Raises
    ------
    MissingInputError
        No case has a tumour.
    """
    inside = [case.tumour_values(modality) for case in cases if case.tumour_ml > 0]
    if not inside:
        raise MissingInputError("none of the training cases holds a tumour; add cases with contours")
    values = np.concatenate(inside).astype(np.float64)
    low, high = np.percentile(values, (0.5, 99.5))
    return Statistics(float(low), float(high), float(values.mean()), float(values.std()), int(values.size))


def _compute_alone() -> None:
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def _prepare(case: Case, *, folder: Path, spacing: Spacing) -> CachedCase | Skipped:
    entry = folder / _entry_name(case, spacing)
    try:
        there = entry.exists()
        cached = _read_entry(case, entry) if there else None
        if cached is None:
            if there:  # and damaged; what is there by now is another run's
                shutil.rmtree(entry, ignore_errors=True)
            _build_entry(case, spacing, entry)
            cached = _read_entry(case, entry)
        if cached is None:
            raise OutputError(f"the cache entry {entry} is damaged and cannot be made anew; remove it")
        return cached
    except OutputError:
        raise
    except UserError as error:
        return Skipped(case.name, why_left_out(error, case))
    except OSError as error:
        raise OutputError(f"cannot write the cache entry {entry}: {error.strerror or error}") from error


def _is_ready(entry: Path) -> bool:
    return (entry / "entry.json").is_file()


def _entry_name(case: Case, spacing: Spacing) -> str:
    organs = organ_map_of(case)
    files = stamps_of((*case.files, organs) if organs else case.files)
    key = json.dumps([FORMAT, case.name, case.truth_on_own_grid, list(spacing), files])
    return f"{re.sub(r'[^A-Za-z0-9.-]+', '_', case.name)}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def _read_entry(case: Case, entry: Path) -> CachedCase | None:
    """Return what is in the cache; None where it is damaged, by its record or the arrays' headers and lengths."""
    try:
        stored = read_json(entry / "entry.json", "the cache entry")
        cached = CachedCase(
            case.name,
            case.patient,
            entry,
            _three(int, stored["size"]),
            _three(float, stored["spacing"]),
            float(stored["tumour_ml"]),
            str(stored["sha256"]),
            case.synthetic,
        )
        names = ("ct", "pet", "seg", *(["organs"] if organ_map_of(case) else []))
        volumes = [np.load(entry / f"{name}.npy", mmap_mode="r") for name in names]
        lists = [np.load(entry / f"{name}.npy", mmap_mode="r") for name in _LISTS]
    except (UserError, OSError, KeyError, TypeError, ValueError, EOFError) as error:
        log.info("the cache entry %s is damaged and made anew: %s", entry, error)
        return None
    whole = all(volume.shape == cached.size for volume in volumes) and all(each.ndim for each in lists)
    return cached if whole else None


def _three(kind: Callable[[Any], Number], values: Sequence[Any]) -> tuple[Number, Number, Number]:
    x, y, z = values
    return kind(x), kind(y), kind(z)


def _build_entry(case: Case, spacing: Spacing, entry: Path) -> None:
    study = read_study(case)
    ct = _array(resample(study.ct, spacing, outside=AIR_HU))
    pet = _array(resample(study.pet, spacing))
    seg, grid = resample_contours(study.seg, spacing)
    body = body_mask(pet, ct, spacing)
    box = _with_margin(bounding_box(body | (seg > 0)), seg.shape, spacing)
    ct, pet, seg, body = ct[box], pet[box], seg[box], body[box]
    voxel_ml = voxel_volume_ml(spacing)
    tumour_points, background_points = _crop_centres(seg, pet, body, case.name)
    hu = np.clip(np.rint(ct), AIR_HU, np.iinfo(np.int16).max).astype(np.int16)
    volumes = {
        name: np.ascontiguousarray(volume.transpose(2, 1, 0))
        for name, volume in (("ct", hu), ("pet", pet), ("seg", seg))
    }
    organs = organ_map_of(case)
    if organs is not None:
        volumes["organs"] = np.ascontiguousarray(read_organs(organs, grid)[box].transpose(2, 1, 0))
    digest = hashlib.sha256()
    for volume in volumes.values():
        digest.update(volume.data)
    lists = {
        "tumour_points": tumour_points,
        "background_points": background_points,
        "tumour_ct": hu[seg > 0].astype(np.float32),
        "tumour_pet": pet[seg > 0],
    }
    stored = {
        "name": case.name,
        "patient": case.patient,
        "size": seg.shape[::-1],
        "spacing": spacing,
        "tumour_ml": float(seg.sum()) * voxel_ml,
        "sha256": digest.hexdigest(),
        "files": {path.name: path.stat().st_size for path in case.files},
    }
    part = entry.with_name(f"{entry.name}.{uuid.uuid4().hex}.part")  # another run may be making the same entry
    part.mkdir(parents=True)
    try:
        for name, values in (volumes | lists).items():
            np.save(part / f"{name}.npy", values)
        (part / "entry.json").write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")
        try:
            part.replace(entry)
        except OSError:
            if not _is_ready(entry):  # the other run was not faster either
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _with_margin(box: Box, shape: tuple[int, ...], spacing: Spacing) -> Box:
    """Enlarge a box (z, y, x) by the margin as far as the image reaches."""
    extra = [math.ceil(MARGIN_MM / side) for side in spacing[::-1]]
    sides = zip(box, extra, shape, strict=True)
    z, y, x = (slice(max(side.start - more, 0), min(side.stop + more, end)) for side, more, end in sides)
    return z, y, x


def _array(image: sitk.Image) -> NDArray[np.float32]:
    return sitk.GetArrayFromImage(image).astype(np.float32, copy=False)  # type: ignore[no-any-return]


def _crop_centres(
    seg: NDArray[np.uint8], pet: NDArray[np.float32], body: NDArray[np.bool_], seed: str
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Draw crop centres (x, y, z) inside and outside the lesions of arrays in z, y, x."""
    rng = np.random.default_rng(np.frombuffer(hashlib.sha256(seed.encode()).digest(), dtype=np.uint32))
    labels, count = lesions(seg)
    inside = np.flatnonzero(labels)
    lesion = labels.flat[inside]
    inside = inside[np.argsort(lesion, kind="stable")]
    sizes = np.bincount(lesion, minlength=count + 1)[1:]
    tumour = [rng.choice(voxels, CENTRES_PER_LESION) for voxels in np.split(inside, sizes.cumsum()[:-1]) if count]
    healthy = seg == 0
    if not healthy.any():
        raise InvalidImageError("the contours cover the whole image, which leaves no background to learn from")
    anywhere = np.flatnonzero(body & healthy if (body & healthy).any() else healthy)
    hot = np.flatnonzero(body & healthy & (pet > HIGH_UPTAKE_SUV))
    drawn = [rng.choice(places, BACKGROUND_POINTS // 2) for places in (anywhere, hot) if places.size]
    return _voxels(tumour, seg.shape), _voxels(drawn, seg.shape)


def _voxels(flat: Sequence[NDArray[np.intp]], shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Return the coordinates, (n, 3) in x, y, z, of places in an array of z, y, x."""
    places = np.concatenate([np.empty(0, np.intp), *flat])
    return np.stack(np.unravel_index(places, shape)[::-1], axis=1).astype(np.int32)
