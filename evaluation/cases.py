"""Which PET/CT cases lie below a folder, or stand in a case list (CSV)."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from algorithm.errors import MissingInputError, UsageError

LAYOUTS = (
    "a CSV with the columns case, ct, pet and optionally truth and synthetic (paths relative to the CSV), "
    "a folder with studies (CTres.nii.gz and SUV.nii.gz, optionally SEG.nii.gz), "
    "or a folder with grand-challenge jobs (images/ct and images/pet)"
)


@dataclass(frozen=True)
class Case:
    """One PET/CT pair, as paths.

    Attributes
    ----------
    name : str
        Unique in its list; can be used as a file name.
    ct, pet : Path
    truth : Path or None
        The mask to compare with, where there is one.
    synthetic : bool
        The images are not of a patient: the list says so, or the name starts with "synthetic".
    """

    name: str
    ct: Path
    pet: Path
    truth: Path | None = None
    synthetic: bool = False

    @property
    def title(self) -> str:
        """The name as it heads a picture or a table's row."""
        return title_of(self.name, synthetic=self.synthetic)


def title_of(name: str, *, synthetic: bool) -> str:
    """Return a case's name, marked if it is synthetic and does not say so itself."""
    return f"{name} (synthetic)" if synthetic and not named_synthetic(name) else name


def named_synthetic(name: str) -> bool:
    """Tell whether a case's name itself says that it is synthetic."""
    return name.lower().startswith("synthetic")


def said_true(text: str) -> bool:
    """Read a yes/no cell of a CSV; an empty one is no."""
    return text.strip().lower() in ("1", "true", "yes", "synthetic")


def list_cases(source: Path) -> list[Case]:
    """List the cases of a CSV or folder, sorted by name; see :data:`LAYOUTS`.

    Raises
    ------
    MissingInputError
        There is nothing there, or a listed file is missing.
    UsageError
        The CSV lacks a column, or two cases have the same name.
    """
    if source.is_file():
        cases = list(_from_csv(source))
    elif source.is_dir():
        cases = [*_studies(source), *_jobs(source)]
    else:
        raise MissingInputError(f"there are no cases at {source}; give {LAYOUTS}")
    if not cases:
        raise MissingInputError(f"found no case in {source}; give {LAYOUTS}")
    names = [case.name for case in cases]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UsageError(f"{source} has several cases called {repeated[0]}; give each its own name")
    return sorted(cases, key=lambda case: case.name)


def _from_csv(path: Path) -> Iterator[Case]:
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        missing = {"case", "ct", "pet"} - set(reader.fieldnames or ())
        if missing:
            raise UsageError(f"the case list {path} lacks the column {sorted(missing)[0]}; give {LAYOUTS}")
        for row in reader:
            name = row["case"]
            if not name or name in (".", "..") or "/" in name or "\\" in name:
                raise UsageError(f"{path} has a case called {name!r}, which cannot name a file; rename it")
            files = {key: path.parent / row[key] for key in ("ct", "pet", "truth") if row.get(key)}
            for key in ("ct", "pet"):
                if key not in files:
                    raise UsageError(f"{path} gives no {key} for case {name}; fill it in")
            for key, file in files.items():
                if not file.is_file():
                    raise MissingInputError(f"{path} names the {key} {file} of case {name}, which is not there")
            synthetic = said_true(row.get("synthetic") or "") or named_synthetic(name)
            yield Case(name, files["ct"], files["pet"], files.get("truth"), synthetic)


def _studies(folder: Path) -> Iterator[Case]:
    """Yield the studies of the AutoPET NIfTI layout."""
    for pet in folder.rglob("SUV.nii.gz"):
        ct, truth = pet.with_name("CTres.nii.gz"), pet.with_name("SEG.nii.gz")
        if ct.is_file():
            name = _name(pet.parent, folder)
            yield Case(name, ct, pet, truth if truth.is_file() else None, named_synthetic(name))


def _jobs(folder: Path) -> Iterator[Case]:
    """Yield the grand-challenge input folders."""
    for images in folder.rglob("images"):
        pairs = [sorted(path for path in (images / what).glob("*") if path.is_file()) for what in ("ct", "pet")]
        if [len(found) for found in pairs] == [1, 1]:
            name = _name(images.parent, folder)
            yield Case(name, pairs[0][0], pairs[1][0], synthetic=named_synthetic(name))


def _name(case_folder: Path, folder: Path) -> str:
    parts = case_folder.relative_to(folder).parts
    return "_".join(parts) or folder.resolve().name
