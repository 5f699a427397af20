"""Studies in a tree of DICOM files, as an archive exports many patients."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from algorithm.dicom.headers import read_header, text
from algorithm.sockets import CT_FOLDER, PET_FOLDER

_PET, _CT = "PT", "CT"


@dataclass
class _Study:
    """Where the files of one StudyInstanceUID (0020,000D) lie, and of which modality some of them are."""

    folders: list[Path] = field(default_factory=list)
    modalities: set[str] = field(default_factory=set)
    mixed: bool = False

    @property
    def folder(self) -> Path:
        """The lowest folder with all of them."""
        return Path(os.path.commonpath(self.folders))

    @property
    def may_have_pet(self) -> bool:
        """Whether a PET was seen, or could lie unseen in a folder of several series."""
        return self.mixed or _PET in self.modalities


def find_studies(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Yield the folders of the studies below a folder, and whether there may be a PET in it; in sorted order.

    Of each folder three files are looked at: archives export one folder per series. What is neither CT nor PET
    does not count: a DICOM SEG may lie among the results. The sockets of a grand-challenge job are left to the
    layout of jobs.
    """
    studies: dict[str, _Study] = {}
    for place, folders, names in os.walk(folder):
        folders.sort()
        here = Path(place)
        if here.parts[-2:] in (CT_FOLDER.parts, PET_FOLDER.parts):
            folders.clear()
            continue
        for series, modality, study_uid in _seen(here, sorted(names)):
            study = studies.setdefault(study_uid, _Study())
            study.mixed |= bool(series)
            study.modalities.add(modality)
            if here not in study.folders:
                study.folders.append(here)
    for study in sorted(studies.values(), key=lambda one: one.folder):
        yield study.folder, study.may_have_pet


def _seen(folder: Path, names: list[str]) -> list[tuple[bool, str, str]]:
    """Return, of three files, whether they are of several series, their modality and StudyInstanceUID."""
    headers = []
    for at in sorted({0, len(names) // 2, len(names) - 1} & set(range(len(names)))):
        try:
            header = read_header(folder / names[at])
        except (OSError, ValueError):
            continue
        if header is not None and text(header, "Modality").upper() in (_PET, _CT):
            headers.append(header)
    mixed = len({text(each, "SeriesInstanceUID") for each in headers}) > 1
    return [(mixed, text(each, "Modality").upper(), text(each, "StudyInstanceUID")) for each in headers]
