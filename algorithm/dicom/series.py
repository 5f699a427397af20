"""Finding the image series in a folder: headers only, told apart, sorted, and judged.

A series here is a stack of slices that can be one volume: same SeriesInstanceUID (0020,000E), modality
(0008,0060), frame of reference (0020,0052), orientation (0020,0037), matrix and kind. One SeriesInstanceUID can
hold several such stacks (a localiser in the CT's series); each is a :class:`Series` of its own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from algorithm.dicom.headers import Header, frames, number, numbers, read_header, text, words
from algorithm.dicom.stack import Slice, stacked
from algorithm.errors import MissingInputError, UnreadableImageError
from algorithm.files import walked

VOLUME, LOCALISER, PROJECTION, PICTURE = "volume", "localiser", "projection", "picture without position"

_LOCALISER_WORDS = {"LOCALIZER", "SCOUT", "TOPOGRAM"}
_PROJECTION_WORDS = {
    "MIP",
    "MINIP",
    "PROJECTION",
    "PROJECTION IMAGE",
    "REPROJECTION",
    "VOLUME_RENDER",
    "RENDERING",
}
_PROJECTION_NAME = re.compile(r"(?<![a-z])(mip|maximum intensity|reprojection)(?![a-z])", re.IGNORECASE)
FILE_FOLLOWS = ", the first being "
"""In a note: what comes after it is a file's name, which a report without names leaves out."""

_ORIENTATION_TOLERANCE = 2e-3  # per cosine: 0.1 degrees, or half a voxel over 250 voxels
_AXIAL_COSINE = 0.8
_PROGRESS_FILES = 1000


@dataclass(frozen=True)
class Series:
    """One stack of slices, sorted along its normal.

    Attributes
    ----------
    uid : str
        SeriesInstanceUID.
    modality : str
        "CT", "PT" or another.
    kind : str
        ``VOLUME``, ``LOCALISER``, ``PROJECTION`` (a maximum-intensity projection or reprojection) or ``PICTURE``.
    orientation : tuple of float
        Direction cosines of rows and columns (ImageOrientationPatient), patient space (LPS); empty for a picture.
    slices : tuple of Slice
        By position along the normal (rows x columns), lowest first; a slice of an enhanced object is one frame.
    problem : str
        Why the slices make no volume; empty where they do.
    notes : tuple of str
        What was left out or is odd.
    """

    uid: str
    modality: str
    kind: str
    orientation: tuple[float, ...]
    slices: tuple[Slice, ...] = field(repr=False)
    problem: str = ""
    notes: tuple[str, ...] = ()

    @property
    def header(self) -> Header:
        """The lowest slice's header."""
        return self.slices[0].header

    @property
    def number(self) -> str:
        """SeriesNumber (0020,0011)."""
        return text(self.header, "SeriesNumber")

    @property
    def description(self) -> str:
        """SeriesDescription (0008,103E)."""
        return text(self.header, "SeriesDescription")

    @property
    def study_uid(self) -> str:
        """StudyInstanceUID (0020,000D)."""
        return text(self.header, "StudyInstanceUID")

    @property
    def frame_of_reference(self) -> str:
        """FrameOfReferenceUID (0020,0052); empty where there is none."""
        return text(self.header, "FrameOfReferenceUID")

    @property
    def paths(self) -> tuple[Path, ...]:
        """Files in slice order, an enhanced multi-frame file once."""
        return tuple(dict.fromkeys(piece.path for piece in self.slices))

    @property
    def attenuation_corrected(self) -> bool:
        """Whether a PET says that it is corrected for attenuation."""
        return attenuation_corrected(self.header)

    @property
    def normal(self) -> NDArray[np.float64]:
        """Direction of the stack, a unit vector in patient space (x, y, z; LPS)."""
        return np.cross(self.orientation[:3], self.orientation[3:])

    @property
    def axial(self) -> bool:
        """Whether the slices are axial, up to an oblique angle of some 35 degrees."""
        return bool(self.orientation) and abs(self.normal[2]) > _AXIAL_COSINE

    def __str__(self) -> str:
        """Name the series as lists of candidates do."""
        what = f", {self.kind}" if self.kind != VOLUME else ""
        plain = (
            ", not corrected for attenuation" if self.modality == "PT" and not self.attenuation_corrected else ""
        )
        slices = f"{len(self.slices)} slice{'s' if len(self.slices) > 1 else ''}"
        return (
            f'series {self.number or "(no number)"} "{self.description or "no description"}"'
            f" ({slices}{what}{plain}, UID {self.uid})"
        )


@dataclass(frozen=True)
class Found:
    """What a folder holds.

    Attributes
    ----------
    folder : Path
        Where it was looked for.
    series : tuple of Series
        By modality, number and UID.
    notes : tuple of str
        Files that were left out.
    """

    folder: Path
    series: tuple[Series, ...]
    notes: tuple[str, ...] = ()


def find_series(folder: Path, *, say: Callable[[str], None] | None = None) -> Found:
    """Read the headers of all files below a folder and sort them into series.

    Files that are no DICOM, DICOMDIR, and objects without an image (contours, reports) are left out; damaged DICOM
    files are named in the notes.

    Parameters
    ----------
    folder : Path
        Searched to its full depth.
    say : callable, optional
        Told about progress on large folders.

    Raises
    ------
    MissingInputError
        There is no such folder, or no DICOM image in it.
    UnreadableImageError
        All DICOM files in it are damaged.
    InstallationError
        pydicom is missing.
    """
    if not folder.is_dir():
        raise MissingInputError(f"there is no folder {folder}; give the folder with the study's DICOM files")
    stacks: dict[tuple[object, ...], list[Slice]] = {}
    damaged: list[str] = []
    foreign = others = 0
    for count, path in enumerate(_files(folder), start=1):
        if say is not None and count % _PROGRESS_FILES == 0:
            say(f"{count} files looked at")
        try:
            header = read_header(path)
            flat = [] if header is None else frames(header)
        except (OSError, ValueError) as error:
            damaged.append(f"{path} ({error})")
            continue
        if header is None:
            foreign += 1
        elif number(header, "Rows") and text(header, "SeriesInstanceUID"):
            _sort_in(stacks, path, flat)
        else:
            others += 1
    if not stacks:
        raise _nothing_found(folder, damaged, foreign + others)
    series = [_series(key, slices) for key, slices in stacks.items()]
    series.sort(key=lambda one: (one.modality, _natural(one.number), one.uid, -len(one.slices)))
    return Found(folder, tuple(series), _left_out(damaged, foreign))


def attenuation_corrected(header: Header) -> bool:
    """Tell whether a PET says that it is corrected for attenuation.

    Source: CorrectedImage (0028,0051) has ATTN; in enhanced PET AttenuationCorrected (0018,9759) is YES (PS3.3
    C.8.9.1, C.8.22.4). CorrectedImage may be empty (type 2); AttenuationCorrectionMethod (0054,1101) tells then.
    """
    corrections = words(header, "CorrectedImage")
    if corrections:
        return "ATTN" in corrections
    method = text(header, "AttenuationCorrectionMethod").lower()
    return text(header, "AttenuationCorrected").upper() == "YES" or method not in ("", "none", "no")


def _files(folder: Path) -> list[Path]:
    """Return the files below a folder, sorted; links to folders are followed, each folder is entered once."""
    found = (place / name for place, _, names in walked(folder) for name in names)
    return sorted(path for path in found if path.is_file())


def _sort_in(stacks: dict[tuple[object, ...], list[Slice]], path: Path, flat: list[Header]) -> None:
    for index, frame in enumerate(flat):
        orientation = numbers(frame, "ImageOrientationPatient", 6)
        position = numbers(frame, "ImagePositionPatient", 3)
        kind = _kind(frame, orientation is not None and position is not None)
        piece = Slice(path, index, frame, position or ())
        base = _identity(frame, kind)
        for key, slices in stacks.items():
            same = key[:-1] == base and (orientation is None or kind == PICTURE or _close(key[-1], orientation))
            if same:
                slices.append(piece)
                break
        else:
            stacks[(*base, () if kind == PICTURE or orientation is None else orientation)] = [piece]


def _identity(header: Header, kind: str) -> tuple[object, ...]:
    modality = text(header, "Modality").upper()
    step = numbers(header, "PixelSpacing", 2) or ()
    return (
        text(header, "SeriesInstanceUID"),
        modality,
        kind,
        text(header, "FrameOfReferenceUID"),
        number(header, "Rows"),
        number(header, "Columns"),
        tuple(round(value, 3) for value in step),
        modality == "PT" and attenuation_corrected(header),
    )


def _close(a: object, b: tuple[float, ...]) -> bool:
    assert isinstance(a, tuple)
    return len(a) == len(b) and all(abs(x - y) < _ORIENTATION_TOLERANCE for x, y in zip(a, b, strict=True))


def _kind(header: Header, placed: bool) -> str:
    """Tell volumes from what only looks like one, by ImageType (0008,0008), SeriesType (0054,1000) and name."""
    types = set(words(header, "ImageType"))
    if types & _LOCALISER_WORDS:
        return LOCALISER
    if types & _PROJECTION_WORDS or "REPROJECTION" in words(header, "SeriesType"):
        return PROJECTION
    if _PROJECTION_NAME.search(text(header, "SeriesDescription")):
        return PROJECTION
    grey = (number(header, "SamplesPerPixel") or 1) == 1
    loose = (number(header, "NumberOfFrames") or 1) > 1  # frames without groups have no places
    return VOLUME if placed and grey and not loose else PICTURE


def _series(key: tuple[object, ...], slices: list[Slice]) -> Series:
    uid, modality, kind, orientation = str(key[0]), str(key[1]), str(key[2]), key[-1]
    assert isinstance(orientation, tuple)
    if kind != VOLUME or modality not in ("CT", "PT"):
        return Series(uid, modality, kind, orientation, tuple(slices), problem=f"it is a {kind}")
    ordered, problem, notes = stacked(slices, orientation)
    announced = number(ordered[0].header, "NumberOfSlices")
    if modality == "PT" and not problem and announced and announced > len(ordered):
        notes = (*notes, f"the PET announces {announced:.0f} slices (NumberOfSlices), {len(ordered)} are here")
    return Series(uid, modality, kind, orientation, ordered, problem, notes)


def _natural(value: str) -> tuple[int, str]:
    return (int(value) if value.isdigit() else 0, value)


def _nothing_found(folder: Path, damaged: list[str], left_out: int) -> MissingInputError | UnreadableImageError:
    if damaged:
        return UnreadableImageError(f"cannot read the DICOM file {damaged[0]}; export the study again")
    return MissingInputError(
        f"there is no DICOM image in {folder}, only other files ({left_out}); give the study's folder"
        if left_out
        else f"the folder {folder} is empty; give the folder with the study's DICOM files"
    )


def _left_out(damaged: list[str], foreign: int) -> tuple[str, ...]:
    notes = []
    if damaged:
        notes.append(f"damaged DICOM files left out: {len(damaged)}{FILE_FOLLOWS}{damaged[0]}")
    if foreign:
        notes.append(f"files that are no DICOM images left out: {foreign}")
    return tuple(notes)


def count_by_modality(found: Found) -> str:
    """Say how many series of which modality a folder holds, for messages."""
    counts = Counter(one.modality or "unknown" for one in found.series)
    return ", ".join(f"{count} {modality}" for modality, count in sorted(counts.items()))
