"""Synthetic whole-body PET/CT with lesions, as a tree of studies in AutoPET's layout.

The bodies teach a network trained on tumour crops what healthy organs look like, and test it where the truth is
known. They are made, not measured, and everything written from here says so.
"""

from __future__ import annotations

import gzip
import json
import shutil
import sys
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from tqdm import tqdm

from algorithm.errors import InvalidImageError, MissingInputError, OutputError, UsageError
from algorithm.files import check_writable, claimed
from algorithm.images import read_image
from algorithm.jsonfile import read_json
from synthesis.scan import SPACING, SyntheticBody, synthesise
from synthesis.uptake import Tracer

_FINEST_MM, _COARSEST_MM = 0.5, 50.0
_BLOCK = 2**22
_FILES = {"CTres.nii.gz", "SUV.nii.gz", "SEG.nii.gz", "organs.nii.gz", "lesions.json"}


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
    for left in folder.parent.glob(".*.partial"):  # by killed runs, as this one holds the results' folder
        shutil.rmtree(left, ignore_errors=True)
    part = folder.with_name(f".{folder.name}.partial")
    part.mkdir()
    for name, image in (("CTres", body.ct), ("SUV", body.suv), ("SEG", body.seg), ("organs", body.organs)):
        _write_image(image, part / f"{name}.nii.gz")
    drawn = {"style": asdict(body.style), "benign": list(body.benign)}
    record = {"synthetic": True, **notes, **drawn, "lesions": [asdict(lesion) for lesion in body.lesions]}
    (part / "lesions.json").write_text(json.dumps(record, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    part.replace(folder)


def _write_image(image: sitk.Image, path: Path) -> None:
    """Write, and read the stream again: on a full disk SimpleITK writes half a file in silence."""
    try:
        sitk.WriteImage(image, str(path), useCompression=True, compressionLevel=2)
        with gzip.open(path) as stream:
            while stream.read(_BLOCK):
                pass
    except (RuntimeError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise OutputError(
            f"{path} could not be stored completely; free some space or choose another --out"
        ) from error


def find_anatomies(folder: Path) -> list[Path]:
    """Organ maps ``STUDY/organs.nii.gz`` below a folder, sorted by study.

    Raises
    ------
    MissingInputError
        When there is none.
    """
    maps = sorted(folder.glob("[!.]*/organs.nii.gz"))
    if not maps:
        raise MissingInputError(
            f"no organ map found in {folder} (looked for STUDY/organs.nii.gz); name the folder of the anatomies"
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
        raise UsageError(f"{held_out} anatomies cannot be held back of the {len(maps)} in {folder}; ask for fewer")
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
    tumour_free: float = 1 / 3,
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
    _check(count, seed, spacing, tumour_free)
    check_writable(out / "body")
    maps = find_anatomies(anatomies) if isinstance(anatomies, Path) else list(anatomies)
    order = np.random.default_rng(seed).permutation(len(maps))
    bar = partial(tqdm, desc="synthetic bodies", unit="body", disable=not progress, file=sys.stdout)
    folders = []
    with claimed(out):
        for index in bar(range(count)):
            path = maps[order[index % len(maps)]]
            study = path.parent.name
            folder = out / f"synthetic_{index:04d}" / study
            folders.append(folder)
            own: Tracer = tracer or tracer_of(study)
            made_of = {"anatomy": study, "tracer": own, "seed": seed, "index": index}
            made_of |= {"spacing": list(spacing) if spacing else None, "tumour_free": tumour_free}
            if _is_there(folder, made_of):
                continue
            free = np.random.default_rng([seed, index, 1]).random() < tumour_free
            body = _synthesised(path, own, [seed, index], spacing, 0 if free else None)
            write_case(body, folder, **made_of)
    return folders


def _synthesised(
    path: Path, tracer: Tracer, seed: list[int], spacing: tuple[float, float, float] | None, lesions: int | None
) -> SyntheticBody:
    """Make the body of one organ map of many; what is wrong with it is told with its path."""
    organs = read_image(path, "organ map")
    try:
        return synthesise(organs, tracer, seed, spacing=spacing, lesions=lesions)
    except InvalidImageError as error:
        raise InvalidImageError(f"{path}: {error}") from error


def _check(count: int, seed: int, spacing: tuple[float, float, float] | None, tumour_free: float) -> None:
    """Raise UsageError for numbers that make no sense."""
    if count < 1:
        raise UsageError(f"the number of bodies must be at least 1, got {count}")
    if not 0 <= tumour_free <= 1:
        raise UsageError(f"the tumour-free share must be between 0 and 1, got {tumour_free}")
    if spacing is not None and not all(_FINEST_MM <= step <= _COARSEST_MM for step in spacing):
        raise UsageError(
            f"the spacing must be {_FINEST_MM:g} to {_COARSEST_MM:g} mm, got {' '.join(map(str, spacing))}"
        )
    if seed < 0:
        raise UsageError(f"the seed must not be negative, got {seed}")


def _is_there(folder: Path, made_of: dict[str, Any]) -> bool:
    """Tell whether this very body is finished; raises UsageError if another one has its place."""
    finished = sorted(folder.parent.glob("[!.]*/lesions.json"))
    for path in finished:
        stored = read_json(path, "the record of a body")
        if not isinstance(stored, dict):
            raise UsageError(f"{path} is not the record of a body; choose another --out or remove it")
        # What an older version did not store is not compared.
        other = sorted(key for key, value in made_of.items() if stored.get(key, value) != value)
        if other:
            raise UsageError(
                f"{path.parent} is a body made with another {', '.join(other)}; choose another --out or remove it"
            )
    # A body whose record is missing is made again; it is known by holding nothing but a body's files.
    if not finished and folder.exists() and not {path.name for path in folder.iterdir()} <= _FILES:
        raise OutputError(f"{folder} is there already and is not a synthetic body; choose another --out")
    return bool(finished)
