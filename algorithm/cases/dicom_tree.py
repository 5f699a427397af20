"""Studies in a tree of DICOM files, as an archive exports many patients."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from algorithm.dicom.headers import read_header, text
from algorithm.sockets import CT_FOLDER, PET_FOLDER

_PET, _CT = "PT", "CT"


@dataclass
class _Study:
    """Where the files of one StudyInstanceUID (0020,000D) lie, and of which modality those looked at are."""

    folders: list[Path] = field(default_factory=list)
    modalities: set[str] = field(default_factory=set)

    @property
    def folder(self) -> Path:
        """The lowest folder with all of them."""
        return Path(os.path.commonpath(self.folders))


def find_studies(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Yield the folders of the studies below a folder once, in sorted order, and whether there is a PET in it.

    Of each folder three files are looked at, since archives export one folder per series. Only where a study's PET
    is not among them is every file of its folders: it may lie between the slices of its CT. What is neither CT nor
    PET does not count: a DICOM SEG may lie among the results. The sockets of a grand-challenge job are left to the
    layout of jobs. Studies that share their folder are one case, which fails with a sentence when it is read.
    """
    studies: dict[str, _Study] = {}
    for place, folders, names in os.walk(folder):
        folders.sort()
        here = Path(place)
        if here.parts[-2:] in (CT_FOLDER.parts, PET_FOLDER.parts):
            folders.clear()
            continue
        names.sort()
        looked_at = sorted({0, len(names) // 2, len(names) - 1} & set(range(len(names))))
        _note(studies, here, (names[at] for at in looked_at))
    without = [study for study in studies.values() if _PET not in study.modalities]
    for here in dict.fromkeys(place for study in without for place in study.folders):
        _note(studies, here, (path.name for path in sorted(here.iterdir())))
    with_pet: dict[Path, bool] = {}
    for study in studies.values():
        with_pet[study.folder] = with_pet.get(study.folder, False) or _PET in study.modalities
    yield from sorted(with_pet.items())


def _note(studies: dict[str, _Study], folder: Path, names: Iterable[str]) -> None:
    """Add what files are CT or PET, and of which study, to what is known of the studies."""
    for name in names:
        try:
            header = read_header(folder / name)
        except (OSError, ValueError):
            continue
        if header is None:
            continue
        modality = text(header, "Modality").upper()
        if modality in (_PET, _CT):
            study = studies.setdefault(text(header, "StudyInstanceUID"), _Study())
            study.modalities.add(modality)
            if folder not in study.folders:
                study.folders.append(folder)
