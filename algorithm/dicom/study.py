"""A study's folder: one PET in SUV and one CT in HU, chosen or named, with how they came about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk

from algorithm.dicom.coverage import covered, height_mm
from algorithm.dicom.headers import Header, text
from algorithm.dicom.reckoning import Reckoning, SuvOverrides
from algorithm.dicom.series import VOLUME, Found, Series, count_by_modality, find_series
from algorithm.dicom.suv import reckon
from algorithm.dicom.volume import check_stack, empty_volume, read_ct_volume, read_pet_volume
from algorithm.errors import InvalidImageError, MissingInputError

Say = Callable[[str], None]

_AS_MUCH = 0.9  # of the body that the best series covers: a thin-sliced CT of the chest or the spine does not
_NAMES = {"PT": "PET", "CT": "CT"}
_OPTIONS = {"PT": "--pet-series", "CT": "--ct-series"}


@dataclass(frozen=True)
class Patient:
    """Whose study it is and when, as the PET's (else the CT's) header has it; empty where it has nothing.

    Attributes
    ----------
    name, identifier, sex, birth_date, age : str
        PatientName, PatientID, PatientSex, PatientBirthDate, PatientAge; dates as YYYY-MM-DD.
    study_date, study_description, accession : str
        StudyDate, StudyDescription, AccessionNumber.
    study_uid : str
        StudyInstanceUID.
    """

    name: str
    identifier: str
    sex: str
    birth_date: str
    age: str
    study_date: str
    study_description: str
    accession: str
    study_uid: str


@dataclass(frozen=True)
class DicomPet:
    """One PET.

    Attributes
    ----------
    image : SimpleITK.Image
        float32, SUVbw, on the series' grid.
    series : Series
        Where it came from.
    reckoning : Reckoning
        How it became SUV.
    patient : Patient
        Whose it is.
    notes : tuple of str
        What was chosen, left out or mended.
    """

    image: sitk.Image
    series: Series
    reckoning: Reckoning
    patient: Patient
    notes: tuple[str, ...]


@dataclass(frozen=True)
class DicomCt:
    """One CT: float32, HU, on its own grid; other attributes as those of :class:`DicomPet`."""

    image: sitk.Image
    series: Series
    patient: Patient
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """One PET and the CT that belongs to it.

    Attributes
    ----------
    pet : SimpleITK.Image
        float32, SUVbw, on its own grid.
    ct : SimpleITK.Image
        float32, HU, on its own grid.
    pet_series, ct_series : Series
        Where they came from, with files in slice order.
    reckoning : Reckoning
        How the PET became SUV.
    patient : Patient
        Whose study it is.
    notes : tuple of str
        What was chosen, left out or mended.
    """

    pet: sitk.Image
    ct: sitk.Image
    pet_series: Series
    ct_series: Series
    reckoning: Reckoning
    patient: Patient
    notes: tuple[str, ...]


def read_study(
    folder: Path,
    *,
    ct_folder: Path | None = None,
    pet_series: str | None = None,
    ct_series: str | None = None,
    overrides: SuvOverrides | None = None,
    say: Say | None = None,
) -> Study:
    """Read the PET and the CT of a study from a folder of DICOM files.

    Headers are read first; pixels only of the chosen two. Chosen are a PET corrected for attenuation and a CT with
    the same FrameOfReferenceUID: of PETs that cover as much of the body's height, and of CTs that cover as much of
    the PET's box, the one with the most slices.

    Parameters
    ----------
    folder : Path
        Nested to any depth, with other series and files among it.
    ct_folder : Path, optional
        Where the CT lies, if it has a folder of its own; whoever names that folder names the CT, so that one in
        another frame of reference is taken, with a note.
    pet_series, ct_series : str, optional
        SeriesInstanceUID to take instead.
    overrides : SuvOverrides, optional
        What the user supplies for the SUV.
    say : callable, optional
        Told about progress.

    Raises
    ------
    MissingInputError
        There is no PET or no CT, or there are several that fit equally well; the sentence lists them.
    InvalidImageError
        The chosen series, or a PET that covers more of the body, makes no volume (slices missing, double or
        uneven, gantry tilt), or the PET cannot become SUV; the sentence says what is missing.
    UnreadableImageError
        A file's pixels are damaged.
    InstallationError
        pydicom or a decoder is missing.
    """
    found = find_series(folder, say=say)
    apart = ct_folder is not None and ct_folder.resolve() != folder.resolve()
    ct_found = find_series(ct_folder, say=say) if ct_folder is not None and apart else found
    pets = _candidates(found, "PT", pet_series)
    cts = _candidates(ct_found, "CT", ct_series)
    if pet_series is None:
        pets = _with_partner(pets, cts)
    pet = _best(pets, "PT", found)
    if ct_series is None:
        cts = _fitting_cts(pet, cts, anywhere=apart)
    ct = _best(cts, "CT", ct_found)
    notes = _notes_on(pet, found, ct, ct_found)
    _check_patient(pet, ct)
    factors, reckoning = reckon(pet, overrides)  # refuses before thousands of pixels are read
    if say is not None:
        say(f"reading PET {pet} and CT {ct}")
    images = read_pet_volume(pet, factors), read_ct_volume(ct)
    return Study(*images, pet, ct, reckoning, _patient(pet.header), notes)


def _notes_on(pet: Series, found: Found, ct: Series, ct_found: Found) -> tuple[str, ...]:
    """Return what the report says of how the two series were found and chosen."""
    notes = [*found.notes, *_chosen(pet, found), *pet.notes]
    notes += [*(ct_found.notes if ct_found is not found else ()), *_chosen(ct, ct_found), *ct.notes]
    return (*notes, *_frames_of_reference(pet, ct))


def read_pet(
    folder: Path,
    *,
    series: str | None = None,
    overrides: SuvOverrides | None = None,
    say: Say | None = None,
) -> DicomPet:
    """Read one PET in SUV from a folder of DICOM files; arguments and errors as those of :func:`read_study`."""
    found = find_series(folder, say=say)
    pet = _best(_candidates(found, "PT", series), "PT", found)
    factors, reckoning = reckon(pet, overrides)
    notes = (*found.notes, *_chosen(pet, found), *pet.notes)
    return DicomPet(read_pet_volume(pet, factors), pet, reckoning, _patient(pet.header), notes)


def pet_grid(folder: Path) -> sitk.Image:
    """Return zeros on the grid of the PET that :func:`read_pet` takes, whether or not it can become SUV.

    Raises
    ------
    MissingInputError, InvalidImageError, InstallationError
        There is no such PET, or it makes no volume; as :func:`read_pet`.
    """
    found = find_series(folder)
    return empty_volume(_best(_candidates(found, "PT", None), "PT", found))


def read_ct(folder: Path, *, series: str | None = None, say: Say | None = None) -> DicomCt:
    """Read one CT in HU from a folder of DICOM files; arguments and errors as those of :func:`read_study`."""
    found = find_series(folder, say=say)
    ct = _best(_candidates(found, "CT", series), "CT", found)
    notes = (*found.notes, *_chosen(ct, found), *ct.notes)
    return DicomCt(read_ct_volume(ct), ct, _patient(ct.header), notes)


def _candidates(found: Found, modality: str, uid: str | None) -> list[Series]:
    """Series of a modality that could be the one; with a UID those that have it."""
    name, option = _NAMES[modality], _OPTIONS[modality]
    series = [one for one in found.series if one.modality == modality]
    if not series:
        raise MissingInputError(
            f"there is no {name} series in {found.folder}, only {count_by_modality(found)}; give the whole study"
        )
    if uid is not None:
        named = [one for one in series if one.uid == uid]
        if not named:
            raise MissingInputError(f"no {name} series has the UID {uid} of {option}; there are {_listed(series)}")
        return [one for one in named if one.kind == VOLUME] or named
    volumes = [one for one in series if one.kind == VOLUME]
    corrected = [one for one in volumes if modality != "PT" or one.attenuation_corrected]
    if volumes and not corrected:
        raise InvalidImageError(
            "the PET must be corrected for attenuation (ATTN in CorrectedImage), got none that is: "
            f"{_listed(volumes)}; give the corrected series"
        )
    return corrected or series


def _with_partner(pets: list[Series], cts: list[Series]) -> list[Series]:
    """Keep the PETs that share their frame of reference with a CT, where there are any."""
    frames = {ct.frame_of_reference for ct in cts} - {""}
    return [pet for pet in pets if pet.frame_of_reference in frames] or pets


def _fitting_cts(pet: Series, cts: list[Series], *, anywhere: bool) -> list[Series]:
    """CTs in the PET's frame of reference that cover it best; ``anywhere``: any, where none is in that frame."""
    same = [ct for ct in cts if ct.frame_of_reference == pet.frame_of_reference and ct.frame_of_reference]
    if not same:
        unknown = [ct for ct in cts if anywhere or not ct.frame_of_reference or not pet.frame_of_reference]
        if not unknown:
            raise MissingInputError(
                f"no CT shares the FrameOfReferenceUID of the PET {pet}, so none is known to lie in the same "
                f"space; there are {_listed(cts)}; name the one to use with --ct-series UID"
            )
        same = unknown
    if not pet.axial:
        return same
    parts = [covered(pet, ct) for ct in same]
    return [ct for ct, part in zip(same, parts, strict=True) if part >= _AS_MUCH * max(parts)]


def _best(series: list[Series], modality: str, found: Found) -> Series:
    """Return the one with the most slices, of PETs the tallest; series without a problem and axial ones first."""
    name, option = _NAMES[modality], _OPTIONS[modality]
    pool = [one for one in series if not one.problem] or series
    pool = [one for one in pool if one.axial] or pool
    if modality == "PT" and len({one.study_uid for one in pool}) > 1:
        raise MissingInputError(
            f"{found.folder} holds PETs of several studies: {_listed(pool)}; give one study's folder, or name the "
            f"series with {option} UID"
        )
    if modality == "PT":
        pool = _tallest(pool, series)
    most = max(len(one.slices) for one in pool)
    pool = [one for one in pool if len(one.slices) == most]
    if len({one.uid for one in pool}) > 1:
        raise MissingInputError(
            f"{len(pool)} {name} series fit equally well: {_listed(pool)}; name the one to use with {option} UID"
        )
    if len(pool) > 1:
        raise MissingInputError(
            f"the slices of one {name} series lie in {len(pool)} stacks of equal size, which differ in "
            f"orientation, spacing, frame of reference or correction: {_listed(pool)}; give a folder with the "
            "files of one"
        )
    check_stack(pool[0])
    return pool[0]


def _tallest(pets: list[Series], candidates: list[Series]) -> list[Series]:
    """Return the PETs that cover the most of the body, unless one that cannot be used covers clearly more."""
    if pets[0].problem:  # then all have one
        return pets
    heights = [height_mm(pet) for pet in pets]
    most = max(heights)
    for other in candidates:
        if other.problem and other.axial and most < _AS_MUCH * height_mm(other):
            raise InvalidImageError(
                f"{other} cannot be used: {other.problem}; it covers {height_mm(other):.0f} mm, and "
                f"{pets[heights.index(most)]} only {most:.0f} mm; export it again, or name the other with "
                f"{_OPTIONS['PT']} UID"
            )
    return [pet for pet, height in zip(pets, heights, strict=True) if height >= _AS_MUCH * most]


def _chosen(series: Series, found: Found) -> tuple[str, ...]:
    """Say which of several series was taken."""
    others = [one for one in found.series if one.modality == series.modality and one is not series]
    if not others:
        return ()
    name = _NAMES[series.modality]
    return (f"the {name} is {series}; not taken: {_listed(others)}",)


def _frames_of_reference(pet: Series, ct: Series) -> tuple[str, ...]:
    if not pet.frame_of_reference or not ct.frame_of_reference:
        return ("PET or CT have no FrameOfReferenceUID; they are taken to lie in the same space",)
    if pet.frame_of_reference != ct.frame_of_reference:
        return (
            "PET and CT have different FrameOfReferenceUIDs; they are taken to lie in the same space, as named",
        )
    return ()


def _check_patient(pet: Series, ct: Series) -> None:
    a, b = text(pet.header, "PatientID"), text(ct.header, "PatientID")
    if a and b and a != b:
        raise InvalidImageError(
            f"PET and CT must be of one patient, got two PatientIDs, one in the PET {pet} and another in the CT "
            f"{ct}; give one study"
        )


_MOST_LISTED = 12


def _listed(series: list[Series]) -> str:
    shown = "; ".join(str(one) for one in series[:_MOST_LISTED])
    return f"{shown}; and {len(series) - _MOST_LISTED} more" if len(series) > _MOST_LISTED else shown


def _patient(header: Header) -> Patient:
    def day(keyword: str) -> str:
        value = text(header, keyword)
        return f"{value[:4]}-{value[4:6]}-{value[6:8]}" if len(value) == 8 and value.isdigit() else value

    return Patient(
        name=text(header, "PatientName"),
        identifier=text(header, "PatientID"),
        sex=text(header, "PatientSex"),
        birth_date=day("PatientBirthDate"),
        age=text(header, "PatientAge"),
        study_date=day("StudyDate"),
        study_description=text(header, "StudyDescription"),
        accession=text(header, "AccessionNumber"),
        study_uid=text(header, "StudyInstanceUID"),
    )
