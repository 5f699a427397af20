"""Readers of the layouts of data sets on disk. A new one is a function here and a row of :data:`LAYOUTS`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from algorithm.cases.case import Case, Skipped
from algorithm.cases.dicom_tree import find_studies
from algorithm.errors import MissingInputError
from algorithm.jsonfile import read_json
from algorithm.sockets import CT_FOLDER, DICOM_SUFFIX, PET_FOLDER

Layout = Literal["autopet", "nnunet", "hecktor", "jobs", "dicom"]


@dataclass(frozen=True)
class Found:
    """What may be a case: the files of each role.

    Attributes
    ----------
    name : str
        Unique in its folder; can be used as a file name.
    ct, pet, truth : sequence of Path
        The files of that role; just one makes the case complete.
    wanted : tuple of str
        How the files of the three roles should be called.
    patient : str
        By the name where left out.
    truth_on_own_grid, synthetic : bool
        See :class:`algorithm.cases.case.Case`.
    """

    name: str
    ct: list[Path]
    pet: list[Path]
    truth: list[Path]
    wanted: tuple[str, str, str]
    patient: str = ""
    truth_on_own_grid: bool = field(default=False, kw_only=True)
    synthetic: bool = field(default=False, kw_only=True)

    def judged(self, folder: Path, *, with_truth: bool) -> Case | Skipped:
        """Return the case, or why it is none; ``with_truth``: one without truth is incomplete."""
        roles = (self.ct, self.pet, self.truth)
        asked = zip(self.wanted, roles, (True, True, with_truth), strict=True)
        missing = [name for name, files, needed in asked if needed and not files]
        several = [str(path.relative_to(folder)) for files in roles if len(files) > 1 for path in files]
        if missing:
            return Skipped(self.name, f"no {', no '.join(missing)}")
        if several:
            listed = " and ".join(several)
            return Skipped(
                self.name, f"several files in one role, {listed}; keep one of them, or give the folder of one"
            )
        return Case(
            self.name,
            self.ct[0],
            self.pet[0],
            self.truth[0] if self.truth else None,
            self.synthetic,
            patient=self.patient,
            truth_on_own_grid=self.truth_on_own_grid,
        )


@dataclass(frozen=True)
class LayoutReader:
    """One row of :data:`LAYOUTS`.

    Attributes
    ----------
    looks : str
        What lies where.
    read : callable
        Takes the folder; yields what may be cases, in sorted order.
    """

    looks: str
    read: Callable[[Path], Iterator[Found]]


def _autopet(folder: Path) -> Iterator[Found]:
    """Read AutoPET I and II: studies, at any depth; those of one patient lie in one folder."""
    names = ("CTres.nii.gz", "SUV.nii.gz", "SEG.nii.gz")
    complete = {path.parent for name in names for path in folder.rglob(name)}
    below = (path for path in folder.glob("*/*") if path.is_dir())  # links are followed, unlike by rglob
    images = {path for path in below if any(path.glob("*.nii.gz"))}
    if not complete and not any((study / name).is_file() for study in images for name in names):
        return  # images of another layout
    for study in sorted(complete | images):
        parts = study.relative_to(folder).parts
        if any(part.startswith(".") for part in parts):  # of a killed run, or of macOS
            continue
        patient = parts[-2] if len(parts) > 1 else ""
        ct, pet, truth = (_existing([study / name]) for name in names)
        synthetic = _recorded_synthetic(study / "lesions.json")
        yield Found(_name(study, folder), ct, pet, truth, names, patient, synthetic=synthetic)


def _recorded_synthetic(record: Path) -> bool:
    """Tell whether the record that synthesis writes beside a body's images lies there."""
    try:
        content = read_json(record) if record.is_file() else None
    except MissingInputError:
        return False
    return isinstance(content, dict) and content.get("synthetic") is True


def _nnunet(folder: Path) -> Iterator[Found]:
    """Read nnU-Net's raw format, as AutoPET III has it."""
    images, labels = folder / "imagesTr", folder / "labelsTr"
    names = {re.sub(r"_000[01]\.nii\.gz$", "", path.name) for path in images.glob("[!.]*_000[01].nii.gz")}
    if names:
        names |= {path.name.removesuffix(".nii.gz") for path in labels.glob("[!.]*.nii.gz")}
    for name in sorted(names):
        ct, pet, truth = images / f"{name}_0000.nii.gz", images / f"{name}_0001.nii.gz", labels / f"{name}.nii.gz"
        wanted = (f"imagesTr/{ct.name}", f"imagesTr/{pet.name}", f"labelsTr/{truth.name}")
        yield Found(name, _existing([ct]), _existing([pet]), _existing([truth]), wanted)


def _hecktor(folder: Path) -> Iterator[Found]:
    """Read HECKTOR, at any depth; CT and contours have a finer grid than the PET.

    In 2022 ``imagesTr`` and ``labelsTr`` lie side by side, since 2025 each patient has a folder: all of them are
    told by their names alone.
    """
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("[!.]*.nii.gz")):
        files.setdefault(path.name, []).append(path)
    images = [name for name in files if re.search(r"__[CP]T\.nii\.gz$", name)]
    for name in sorted({re.sub(r"__[CP]T\.nii\.gz$", "", file) for file in images}):
        ct, pet = f"{name}__CT.nii.gz", f"{name}__PT.nii.gz"
        truth = [path for file in (f"{name}.nii.gz", f"{name}__GTV.nii.gz") for path in files.get(file, [])]
        wanted = (ct, pet, f"{name}.nii.gz among the labels")
        yield Found(name, files.get(ct, []), files.get(pet, []), truth, wanted, truth_on_own_grid=True)


def _jobs(folder: Path) -> Iterator[Found]:
    """Read the input folders of grand-challenge's jobs, at any depth."""
    for images in sorted(folder.rglob(CT_FOLDER.parts[0])):
        job = images.parent
        ct, pet = (_in_socket(job / socket) for socket in (CT_FOLDER, PET_FOLDER))
        if ct or pet:
            wanted = (f"image in {CT_FOLDER}", f"image in {PET_FOLDER}", "truth in a job's input")
            yield Found(_name(job, folder), ct, pet, [], wanted)


def _dicom(folder: Path) -> Iterator[Found]:
    """Read studies of DICOM files, at any depth; which series are CT and PET is found when a case is read."""
    for study, may_have_pet in find_studies(folder):
        files = [study] if may_have_pet else []
        yield Found(_name(study, folder), [study], files, [], ("CT series", "PET series", "truth in DICOM"))


LAYOUTS: dict[Layout, LayoutReader] = {
    "autopet": LayoutReader("PATIENT/STUDY/CTres.nii.gz, SUV.nii.gz and SEG.nii.gz (AutoPET I and II)", _autopet),
    "nnunet": LayoutReader(
        "imagesTr/*_0000.nii.gz (CT), *_0001.nii.gz (PET) and labelsTr/*.nii.gz (AutoPET III)", _nnunet
    ),
    "hecktor": LayoutReader(
        "imagesTr/*__CT.nii.gz, *__PT.nii.gz and labelsTr/*.nii.gz, or all in a folder per patient (HECKTOR)",
        _hecktor,
    ),
    "jobs": LayoutReader(
        "images/ct and images/pet, one file or a DICOM series each (grand-challenge jobs; no truth)", _jobs
    ),
    "dicom": LayoutReader("studies of DICOM files, a folder each (no truth)", _dicom),
}
"""Every layout of a folder, in the order in which they are tried."""


def _existing(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if path.is_file()]


def _in_socket(folder: Path) -> list[Path]:
    """Return the images of a socket; a socket of DICOM files is one image."""
    files = sorted(path for path in folder.glob("[!.]*") if path.is_file())
    return [folder] if any(path.suffix.lower() == DICOM_SUFFIX for path in files) else files


def _name(case_folder: Path, folder: Path) -> str:
    """Return a name that can name a file: the folders on the way, joined."""
    return "_".join(case_folder.relative_to(folder).parts) or folder.resolve().name
