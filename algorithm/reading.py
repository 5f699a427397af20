"""A case's CT and PET, wherever they come from: image files, or folders of DICOM files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import SimpleITK as sitk

from algorithm.checks.contract import Checks
from algorithm.dicom.reckoning import Reckoning, SuvOverrides
from algorithm.dicom.series import Series
from algorithm.dicom.study import Patient, pet_grid, read_ct, read_pet, read_study
from algorithm.errors import MissingInputError
from algorithm.files import is_file, is_folder
from algorithm.images import PetCt, pair_up, read_both, read_header, read_image

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")


@dataclass(frozen=True)
class DicomChoice:
    """What a user says about DICOM input; of image files nothing needs to be said.

    Attributes
    ----------
    pet_series, ct_series : str or None
        SeriesInstanceUID of the series to take.
    overrides : SuvOverrides
        What headers lack for the SUV.
    """

    pet_series: str | None = None
    ct_series: str | None = None
    overrides: SuvOverrides = field(default_factory=SuvOverrides)


@dataclass(frozen=True)
class DicomSource:
    """What DICOM headers tell of a case.

    Attributes
    ----------
    pet_series, ct_series : Series or None
        Those that were taken; None where that image came from a file.
    patient : Patient
        By the PET's headers, else the CT's.
    reckoning : Reckoning or None
        How the PET became SUV.
    notes : tuple of str
        What was chosen, left out or mended.
    """

    pet_series: Series | None
    ct_series: Series | None
    patient: Patient
    reckoning: Reckoning | None
    notes: tuple[str, ...]

    @property
    def odd(self) -> tuple[str, ...]:
        """What somebody should look at: of the slices that are there, and of how the PET became SUV."""
        series = [each for each in (self.pet_series, self.ct_series) if each is not None]
        reckoned = self.reckoning.notes if self.reckoning is not None else ()
        return (*(note for each in series for note in each.notes), *reckoned)


@dataclass(frozen=True)
class ReadCase:
    """A case as it was read.

    Attributes
    ----------
    pair : PetCt
        CT and PET on the PET's grid.
    own_ct : SimpleITK.Image
        The CT on its own grid, HU; that of the pair where it was not resampled or is not to be kept.
    dicom : DicomSource or None
        None: both images came from files.
    """

    pair: PetCt
    own_ct: sitk.Image
    dicom: DicomSource | None = None


def read_case(
    ct: Path,
    pet: Path,
    choice: DicomChoice | None = None,
    *,
    keep_ct: bool = False,
    checks: Checks | None = None,
    say: Callable[[str], None] | None = None,
) -> ReadCase:
    """Read and check a CT and a PET; each may be an image file or a folder of DICOM files.

    Parameters
    ----------
    ct, pet : Path
        The same folder for both is a study, in which the CT is chosen to fit the PET.
    choice : DicomChoice, optional
        What the user says about DICOM folders.
    keep_ct : bool
        Keep a CT of a finer grid beside the one on the PET's, for pictures; it may be the larger part of a case.
    checks : Checks, optional
        Which checks of the input contract are done; all by default.
    say : callable, optional
        Told about progress.

    Raises
    ------
    UserError
        As :func:`algorithm.images.read_pet_ct` and :func:`algorithm.dicom.study.read_study`.
    """
    choice = choice or DicomChoice()
    for path, what in ((ct, "CT"), (pet, "PET")):
        _refuse_single_slice(path, what)
    source: DicomSource | None
    if is_folder(ct) and is_folder(pet):
        study = read_study(
            pet,
            ct_folder=ct,
            pet_series=choice.pet_series,
            ct_series=choice.ct_series,
            overrides=choice.overrides,
            say=say,
        )
        source = DicomSource(study.pet_series, study.ct_series, study.patient, study.reckoning, study.notes)
        ct_image, pet_image = study.ct, study.pet
    elif is_folder(pet):
        ct_image = read_image(ct, "CT")
        found = read_pet(pet, series=choice.pet_series, overrides=choice.overrides, say=say)
        source = DicomSource(found.series, None, found.patient, found.reckoning, found.notes)
        pet_image = found.image
    elif is_folder(ct):
        pet_image = read_image(pet, "PET")
        alone = read_ct(ct, series=choice.ct_series, say=say)
        source = DicomSource(None, alone.series, alone.patient, None, alone.notes)
        ct_image = alone.image
    else:
        (ct_image, pet_image), source = read_both(ct, pet), None
    pair = pair_up(ct_image, pet_image, ct, pet, checks)
    return ReadCase(pair, ct_image if keep_ct else pair.ct, source)


def _refuse_single_slice(path: Path, what: str) -> None:
    """Refuse a DICOM file: most are one slice of a series, which would make a volume of one slice."""
    if path.suffix.lower() in DICOM_SUFFIXES and is_file(path):
        raise MissingInputError(
            f"the {what} {path} is one DICOM file, mostly one slice of many; give the folder that holds the series"
        )


def grid_of(pet: Path) -> sitk.Image:
    """Return an image on the grid of a PET, a file or a folder of DICOM files, whether or not it can become SUV.

    Its voxels are 0 where headers alone tell the grid.
    """
    if pet.is_dir():
        return pet_grid(pet)
    header = read_header(pet)
    if header is None:
        return read_image(pet, "PET")
    grid = sitk.Image(header.GetSize(), sitk.sitkFloat32)
    grid.SetSpacing(header.GetSpacing())
    grid.SetOrigin(header.GetOrigin())
    grid.SetDirection(header.GetDirection())
    return grid
