"""Studies in a tree of DICOM files, as an archive exports many patients."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from algorithm.dicom.headers import read_header, text
from algorithm.files import walked
from algorithm.sockets import CT_FOLDER, PET_FOLDER

_PET, _CT = "PT", "CT"

_log = logging.getLogger(__name__)


@dataclass
class _Study:
    """The folders with files of one StudyInstanceUID (0020,000D), and of which modality those looked at are."""

    places: dict[Path, set[str]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The lowest folder with all of them."""
        return Path(os.path.commonpath(self.places))

    @property
    def modalities(self) -> set[str]:
        return set().union(*self.places.values())

    @property
    def parts(self) -> list[_Study]:
        """What lies in each of the folders next below, as studies of their own."""
        parts: dict[tuple[str, ...], _Study] = {}
        for place, found in self.places.items():
            next_below = place.relative_to(self.folder).parts[:1]
            parts.setdefault(next_below, _Study()).places[place] = found
        return list(parts.values())


def find_studies(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Yield the folders of the studies below a folder once, in sorted order, and whether there is a PET in it.

    What is neither CT nor PET does not count: a DICOM SEG may lie among the results. The sockets of a
    grand-challenge job are left to the layout of jobs. Copies of a study that lie apart, with other studies among
    them, are apart here too. The CT of a PET may be another study beside it. Else studies that share their folder
    are one case, which fails with a sentence when it is read.

    Raises
    ------
    MissingInputError
        A folder cannot be looked into.
    """
    studies = _copies_apart(_looked_through(folder), folder)
    pets, cts = (_whose(studies, modality, folder) for modality in (_PET, _CT))
    cases, others, lent_from = set(), [], set()
    for number, study in enumerate(studies):
        if _PET not in study.modalities:
            others.append(study.folder)
            continue
        place = _with_a_ct(study.folder, {number}, pets, cts)
        cases.add(place)
        if place != study.folder:
            lent_from.add(place)
    without = {place for place in others if lent_from.isdisjoint((place, *place.parents))}
    yield from sorted([*((place, True) for place in cases), *((place, False) for place in without - cases)])


def _looked_through(folder: Path) -> list[_Study]:
    """Return the studies below a folder.

    Of each folder three files are looked at, since archives export one folder per series. Only where a study's PET
    or CT is not among them, or where it shares its folder, is every file of its folders: the slices of one may lie
    between those of the other.
    """
    studies: dict[str, _Study] = {}
    for here, folders, names in walked(folder):
        if here.parts[-2:] in (CT_FOLDER.parts, PET_FOLDER.parts):
            folders.clear()
            continue
        looked_at = sorted({0, len(names) // 2, len(names) - 1} & set(range(len(names))))
        _note(studies, here, (names[at] for at in looked_at))
    pets = _whose(list(studies.values()), _PET, folder)
    doubtful = [
        study
        for number, study in enumerate(studies.values())
        if study.modalities != {_PET, _CT} or pets.get(study.folder, set()) - {number}
    ]
    for here in dict.fromkeys(place for study in doubtful for place in study.places):
        _note(studies, here, (path.name for path in sorted(here.iterdir())))
    return list(studies.values())


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
            study.places.setdefault(folder, set()).add(modality)


def _whose(studies: Sequence[_Study], modality: str, root: Path) -> dict[Path, set[int]]:
    """Return by folder, down from the root, the numbers of the studies with a modality in it or deeper."""
    found: dict[Path, set[int]] = {}
    for number, study in enumerate(studies):
        for place in (place for place, modalities in study.places.items() if modality in modalities):
            for above in (place, *place.parents):
                found.setdefault(above, set()).add(number)
                if above == root:
                    break
    return found


def _copies_apart(studies: Sequence[_Study], root: Path) -> list[_Study]:
    """Return the studies, and those that were exported more than once among others as several."""
    pets, found = _whose(studies, _PET, root), []
    for number, study in enumerate(studies):
        parts = _apart(study, number, pets)
        copies = [str(part.folder) for part in parts if _PET in part.modalities]
        if len(copies) > 1:
            _log.warning("%s hold one and the same study; each is a case of its own", " and ".join(copies))
        found += parts
    return found


def _apart(study: _Study, number: int, pets: dict[Path, set[int]]) -> list[_Study]:
    """Return the parts of a study whose folder holds other PETs too, where one part is whole; else the study."""
    parts = study.parts if pets.get(study.folder, set()) - {number} else []
    if len(parts) < 2 or not any(part.modalities == {_PET, _CT} for part in parts):
        return [study]
    return [each for part in parts for each in _apart(part, number, pets)]


def _with_a_ct(folder: Path, own: set[int], pets: dict[Path, set[int]], cts: dict[Path, set[int]]) -> Path:
    """Return the lowest folder from this one up that has a CT and no other PET; this one where there is none."""
    above = (folder, *folder.parents)
    return next((place for place in above if place in cts and pets.get(place) == own), folder)
