"""Readers of the PET/CT data sets on disk: which cases there are, and what is wrong with the others."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import SimpleITK as sitk

from algorithm.errors import GeometryError, InvalidImageError, MissingInputError, UsageError, UserError
from algorithm.images import geometry_text, read_image, read_pet_ct, same_geometry

Layout = Literal["autopet", "nnunet", "hecktor"]


@dataclass(frozen=True)
class Case:
    """One PET/CT study with its contours, as paths.

    Attributes
    ----------
    name : str
        Unique inside its data set: patient and study.
    patient : str
        Splits never separate the studies of one patient.
    study : str
    ct, pet, seg : Path
    seg_on_own_grid : bool
        The layout allows the contours to lie on another grid than the PET (HECKTOR); they are resampled.
    """

    name: str
    patient: str
    study: str
    ct: Path
    pet: Path
    seg: Path
    seg_on_own_grid: bool = False


@dataclass(frozen=True)
class Skipped:
    """A case that cannot be used, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class DataSet:
    """The cases below one folder.

    Attributes
    ----------
    folder : Path
    layout : {"autopet", "nnunet", "hecktor"}
    cases : tuple of Case
        Complete cases in sorted order. Their files have not been opened yet.
    skipped : tuple of Skipped
        Incomplete cases.
    """

    folder: Path
    layout: Layout
    cases: tuple[Case, ...]
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True)
class Study:
    """The images of a case, all on the PET's grid: CT in HU and PET in SUV (float32), contours (uint8 0/1)."""

    ct: sitk.Image
    pet: sitk.Image
    seg: sitk.Image


def find_cases(folder: Path, layout: Layout | None = None) -> DataSet:
    """List the cases below a folder.

    Parameters
    ----------
    folder : Path
    layout : {"autopet", "nnunet", "hecktor"}, optional
        ``autopet``: ``patient/study/{CTres,SUV,SEG}.nii.gz`` (AutoPET I and II).
        ``nnunet``: ``imagesTr/*_0000.nii.gz`` (CT), ``*_0001.nii.gz`` (PET), ``labelsTr/*.nii.gz`` (AutoPET III).
        ``hecktor``: ``imagesTr/*__CT.nii.gz``, ``*__PT.nii.gz``, ``labelsTr/*.nii.gz`` (HECKTOR 2022).
        Recognised from what lies in the folder if not given.

    Raises
    ------
    MissingInputError
        The folder is not there, or holds no complete case.
    UsageError
        No layout is recognised.
    """
    if not folder.is_dir():
        raise MissingInputError(f"the data folder {folder} does not exist; give one that holds PET/CT cases")
    layout = layout or _recognise(folder)
    cases: list[Case] = []
    skipped: list[Skipped] = []
    for found in _READERS[layout](folder):
        if isinstance(found, Case):
            cases.append(found)
        else:
            skipped.append(found)
    if not cases:
        first = (
            f"; the first of {len(skipped)} incomplete ones: {skipped[0].name}: {skipped[0].reason}"
            if skipped
            else ""
        )
        raise MissingInputError(f"no complete case of the {layout} layout in {folder}{first}")
    return DataSet(folder, layout, tuple(cases), tuple(skipped))


def read_study(case: Case) -> Study:
    """Read a case and put all its images on the PET's grid.

    The contours' labels other than 0 become 1 (as in the released training code; in HECKTOR primary tumour and
    nodes are both tumour).

    Raises
    ------
    UserError
        A file cannot be decoded, the PET is not in SUV, the contours lie on another grid, or hold no labels.
    """
    pair = read_pet_ct(case.ct, case.pet)
    labels = read_image(case.seg, "SEG")
    if case.seg_on_own_grid:
        labels = sitk.Resample(labels, pair.pet, sitk.Transform(), sitk.sitkNearestNeighbor, 0.0)
    elif not same_geometry(labels, pair.pet):
        raise GeometryError(
            f"{case.seg.name} ({geometry_text(labels)}) does not lie on the grid of {case.pet.name} "
            f"({geometry_text(pair.pet)})"
        )
    values = sitk.GetArrayViewFromImage(labels)
    if not np.array_equal(values, np.round(values)):
        raise InvalidImageError(f"{case.seg.name} holds fractions, expected whole-numbered labels")
    return Study(ct=pair.ct, pet=pair.pet, seg=sitk.Cast(sitk.NotEqual(labels, 0.0), sitk.sitkUInt8))


def reason(error: UserError, case: Case) -> str:
    """Return an error's sentence without the case's folders, which the reader knows from the case's name."""
    text = str(error)
    for path in (case.ct, case.pet, case.seg):
        text = text.replace(str(path), path.name)
    return text


def _recognise(folder: Path) -> Layout:
    for layout in get_args(Layout):
        if any(True for _ in _READERS[layout](folder)):
            return layout  # type: ignore[no-any-return]
    raise UsageError(
        f"{folder} holds none of the layouts autopet (patient/study/SUV.nii.gz), nnunet "
        "(imagesTr/*_0000.nii.gz) and hecktor (*__CT.nii.gz); name the layout's top folder"
    )


def _autopet(folder: Path) -> Iterator[Case | Skipped]:
    names = ("CTres.nii.gz", "SUV.nii.gz", "SEG.nii.gz")
    studies = sorted(path for path in folder.glob("*/*") if path.is_dir() and any(path.glob("*.nii.gz")))
    if not any((study / name).is_file() for study in studies for name in names):
        return  # images of another layout
    for study in studies:
        missing = [name for name in names if not (study / name).is_file()]
        patient = study.parent.name
        name = f"{patient}/{study.name}"
        if missing:
            yield Skipped(name, f"no {', no '.join(missing)}")
        else:
            ct, pet, seg = (study / file for file in names)
            yield Case(name, patient, study.name, ct, pet, seg)


def _nnunet(folder: Path) -> Iterator[Case | Skipped]:
    images = folder / "imagesTr"
    names = {re.sub(r"_000[01]\.nii\.gz$", "", path.name) for path in images.glob("*_000[01].nii.gz")}
    if names:
        names |= {path.name.removesuffix(".nii.gz") for path in (folder / "labelsTr").glob("*.nii.gz")}
    for name in sorted(names):
        files = (
            images / f"{name}_0000.nii.gz",
            images / f"{name}_0001.nii.gz",
            folder / "labelsTr" / f"{name}.nii.gz",
        )
        missing = [f"{path.parent.name}/{path.name}" for path in files if not path.is_file()]
        if missing:
            yield Skipped(name, f"no {', no '.join(missing)}")
        else:
            yield Case(name, _nnunet_patient(name), name, *files)


def _nnunet_patient(name: str) -> str:
    """Return the patient of an AutoPET III case (``fdg_<patient>_<date>...``), else the case's whole name."""
    match = re.match(r"((?:fdg|psma)_[0-9a-f]+)_", name)
    return match.group(1) if match else name


def _hecktor(folder: Path) -> Iterator[Case | Skipped]:
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.nii.gz")):
        files.setdefault(path.name, []).append(path)
    images = [name for name in files if re.search(r"__[CP]T\.nii\.gz$", name)]
    for name in sorted({re.sub(r"__[CP]T\.nii\.gz$", "", file) for file in images}):
        found = [files.get(f"{name}__{modality}.nii.gz", []) for modality in ("CT", "PT")]
        found.append([path for file in (f"{name}.nii.gz", f"{name}__GTV.nii.gz") for path in files.get(file, [])])
        wanted = (f"{name}__CT.nii.gz", f"{name}__PT.nii.gz", f"{name}.nii.gz among the labels")
        missing = [file for file, paths in zip(wanted, found, strict=True) if not paths]
        twice = [str(path.relative_to(folder)) for paths in found if len(paths) > 1 for path in paths]
        if missing:
            yield Skipped(name, f"no {', no '.join(missing)}")
        elif twice:
            yield Skipped(name, f"several files in one role, {' and '.join(twice)}; keep one of them")
        else:
            ct, pet, seg = (paths[0] for paths in found)
            yield Case(name, name, name, ct, pet, seg, seg_on_own_grid=True)


_READERS: dict[str, Callable[[Path], Iterator[Case | Skipped]]] = {
    "autopet": _autopet,
    "nnunet": _nnunet,
    "hecktor": _hecktor,
}
