"""DICOM headers: reading the few elements that are needed, and what their texts mean.

pydicom is imported on first use, with a sentence where it is missing.
"""

from __future__ import annotations

import functools
import logging
import math
import re
import warnings
from datetime import date, datetime, time, timedelta, timezone
from pathlib import Path
from types import ModuleType
from typing import Any

from algorithm.errors import InstallationError

Header = Any
"""A ``pydicom.Dataset`` with the elements of one slice; pydicom is not imported here to name its type."""

GE_SCAN_DATE_TIME = (0x0009, 0x0D, "GEMS_PETD_01")
PHILIPS_SUV_FACTOR = (0x7053, 0x00, "Philips PET Private Group")
PHILIPS_ACTIVITY_FACTOR = (0x7053, 0x09, "Philips PET Private Group")
"""Private elements: group, element within the block, and the creator that reserves the block (PS3.5, 7.8.1)."""

_PRIVATE_BLOCKS = range(0x10, 0x14)
_PREAMBLE = 128
_YEARS = range(1900, 9999)  # in which anything may have been scanned, or somebody born
_MINUTES_OF_A_DAY = 24 * 60
_STORED_DIRECTORY = "1.2.840.10008.1.3.10"  # Media Storage Directory: a DICOMDIR

_KEYWORDS = """
SpecificCharacterSet ImageType SOPClassUID SOPInstanceUID StudyDate SeriesDate AcquisitionDate AcquisitionDateTime
StudyTime SeriesTime AcquisitionTime AccessionNumber Modality Manufacturer StudyDescription SeriesDescription
TimezoneOffsetFromUTC PatientName PatientID PatientBirthDate PatientSex PatientAge PatientSize PatientWeight
ActualFrameDuration GantryDetectorTilt TriggerTime StudyInstanceUID SeriesInstanceUID SeriesNumber
TemporalPositionIdentifier ImagePositionPatient ImageOrientationPatient FrameOfReferenceUID
SamplesPerPixel NumberOfFrames Rows Columns PixelSpacing BitsStored PixelRepresentation
PixelPaddingValue PixelPaddingRangeLimit RescaleIntercept RescaleSlope RescaleType CorrectedImage
RadiopharmaceuticalInformationSequence NumberOfSlices SeriesType Units SUVType
AttenuationCorrectionMethod DecayCorrection FrameReferenceTime DecayFactor DoseCalibrationFactor
DecayCorrected AttenuationCorrected DecayCorrectionDateTime RealWorldValueMappingSequence
SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence
"""
"""All that is read of a file, so that thousands of files take seconds."""

_FRAME_KEYWORDS = {  # what an enhanced frame calls an element of the classic objects (PS3.3 C.7.6.16, C.8.22)
    "FrameAcquisitionDateTime": "AcquisitionDateTime",
    "FrameAcquisitionDuration": "ActualFrameDuration",
    "FrameType": "ImageType",
}

_OF_THE_WHOLE_OBJECT = ("NumberOfFrames", "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")


def pydicom_module() -> ModuleType:
    """Import pydicom.

    Raises
    ------
    InstallationError
        It is not installed.
    """
    try:
        import pydicom
    except ImportError:
        raise InstallationError(
            "DICOM folders need pydicom, which is not installed; run `pip install -r requirements-clinic.txt`"
        ) from None
    # Real headers break the rules in ways that do not matter here; what matters is checked where it is used.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    # Of a strange character set it would speak for every text of every file, by warnings and in its log.
    warnings.filterwarnings("ignore", "Unknown encoding")
    logging.getLogger("pydicom").setLevel(logging.ERROR)
    module: ModuleType = pydicom
    return module


def read_header(path: Path) -> Header | None:
    """Read the elements that this package needs, without pixels.

    Returns
    -------
    pydicom.Dataset or None
        None: the file is no DICOM, or a DICOMDIR.

    Raises
    ------
    ValueError
        The file is DICOM but damaged.
    """
    pydicom = pydicom_module()
    with path.open("rb") as stream:
        start = stream.read(_PREAMBLE + 4)
    marked, bare = start[_PREAMBLE:] == b"DICM", _begins_with_elements(start)
    if not marked and not bare:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_wanted(), force=bare)
        stored = str(getattr(header.file_meta, "MediaStorageSOPClassUID", ""))
    except Exception as error:  # whatever a damaged file makes pydicom stumble over
        raise ValueError(_one_line(error)) from error
    if stored == _STORED_DIRECTORY:
        return None
    if "SOPClassUID" not in header and "Rows" not in header:
        raise ValueError("it says neither what it is (SOPClassUID) nor how large (Rows)")
    return header


def frames(header: Header) -> list[Header]:
    """Return one flat header per frame.

    That is the object's own for a classic slice, and for an enhanced multi-frame object its elements overlaid by
    the shared and then by the frame's functional groups (PS3.3 C.7.6.16).

    Raises
    ------
    ValueError
        The functional groups are damaged.
    """
    if "PerFrameFunctionalGroupsSequence" not in header:
        return [header]
    try:
        return _flattened(header)
    except Exception as error:  # whatever damaged elements make pydicom stumble over
        raise ValueError(_one_line(error)) from error


def lacks_preamble(path: Path) -> bool:
    """Tell whether a file begins with DICOM elements, as before PS3.10 gave files a preamble."""
    with path.open("rb") as stream:
        return _begins_with_elements(stream.read(4))


def _begins_with_elements(start: bytes) -> bool:
    return start[:2] in (b"\x08\x00", b"\x02\x00") and start[3:4] == b"\x00"


def text(header: Header, keyword: str) -> str:
    """Return an element as a text of one line; empty where it is missing or empty."""
    value = _value(header, keyword)
    return "" if value is None else " ".join(str(value).replace("\x00", "").split())


def words(header: Header, keyword: str) -> tuple[str, ...]:
    """Return the values of a coded element, in capitals; empty where it is missing."""
    value = _value(header, keyword)
    if value is None or value == "":
        return ()
    return tuple(str(word).strip().upper() for word in ([value] if isinstance(value, str) else value))


def items(header: Header, keyword: str) -> list[Header]:
    """Return the items of a sequence; none where it is missing or damaged."""
    value = _value(header, keyword)
    return [] if value is None or isinstance(value, str) else list(value)


def number(header: Header, keyword: str) -> float | None:
    """Return an element as a finite number; None where it is missing, empty or no number."""
    try:
        return _finite(_value(header, keyword))
    except (TypeError, ValueError):
        return None


def numbers(header: Header, keyword: str, count: int) -> tuple[float, ...] | None:
    """Return exactly ``count`` finite numbers, or None."""
    try:
        values = [_finite(value) for value in _value(header, keyword) or ()]
    except (TypeError, ValueError):
        return None
    found = tuple(value for value in values if value is not None)
    return found if len(found) == count == len(values) else None


def private_text(header: Header, element: tuple[int, int, str]) -> str:
    """Return a private element as a text, from the block that its creator reserved.

    A block without a creator counts where it is the first one: anonymisers remove creators and leave values.
    """
    group, offset, creator = element
    for block in _PRIVATE_BLOCKS:
        owner = _as_text(_value(header, (group, block))).lower()
        if owner == creator.lower() or (not owner and block == _PRIVATE_BLOCKS[0]):
            value = _as_text(_value(header, (group, block << 8 | offset)))
            if value:
                return value
    return ""


def private_number(header: Header, element: tuple[int, int, str]) -> float | None:
    """Return a private element as a finite number, or None."""
    try:
        return _finite(private_text(header, element) or None)
    except ValueError:
        return None


def parse_date(value: str) -> date | None:
    """Parse a DA value, YYYYMMDD (or the YYYY.MM.DD of ACR-NEMA); None where it is none.

    The first and the last years that there are, as in 00010101 and 99991231, are what anonymisers leave.
    """
    match = re.fullmatch(r"(\d{4})[.-]?(\d{2})[.-]?(\d{2})", value.strip())
    try:
        day = date(*map(int, match.groups())) if match else None
    except ValueError:
        return None
    return day if day is not None and day.year in _YEARS else None


def parse_time(value: str) -> time | None:
    """Parse a TM value, HH[MM[SS[.FFFFFF]]] (colons allowed, as in ACR-NEMA); None where it is none."""
    match = re.fullmatch(r"(\d{2}):?(?:(\d{2}):?(?:(\d{2})(?:\.(\d{1,6})\d*)?)?)?", value.strip())
    if not match:
        return None
    hour, minute, second, fraction = match.groups()
    try:  # a leap second, 60, is taken as 59
        return time(int(hour), int(minute or 0), min(int(second or 0), 59), int((fraction or "0").ljust(6, "0")))
    except ValueError:
        return None


def parse_date_time(value: str, offset: str = "") -> datetime | None:
    """Parse a DT value, YYYYMMDDHH[MM[SS[.FFFFFF]]][&ZZXX], into local time; None where day or hour is missing.

    Parameters
    ----------
    value : str
        The element.
    offset : str
        TimezoneOffsetFromUTC (0008,0201) of the object, in which its other times are given; a time zone within
        ``value`` is converted to it, and left out where the object names none.
    """
    match = re.fullmatch(r"(\d{8})[T ]?([\d:.]+)\s*([+-]\d{4})?", value.strip())
    if not match:
        return None
    day, clock = parse_date(match[1]), parse_time(match[2].rstrip("."))
    if day is None or clock is None:
        return None
    moment = datetime.combine(day, clock)
    theirs, ours = _zone(match[3] or ""), _zone(offset)
    if theirs is not None and ours is not None:
        moment = moment.replace(tzinfo=theirs).astimezone(ours).replace(tzinfo=None)
    return moment


def _zone(offset: str) -> timezone | None:
    """Parse an offset from UTC, as in +0100; None where it is none."""
    if not re.fullmatch(r"[+-]\d{4}", offset):
        return None
    minutes = int(offset[1:3]) * 60 + int(offset[3:5])
    if minutes >= _MINUTES_OF_A_DAY:
        return None
    return timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes))


@functools.cache
def _wanted() -> list[Any]:
    """Return the tags to read, as pydicom's own type, which it need not convert for each file."""
    tags: list[Any] = _KEYWORDS.split()
    for group, offset, _ in (GE_SCAN_DATE_TIME, PHILIPS_SUV_FACTOR, PHILIPS_ACTIVITY_FACTOR):
        for block in _PRIVATE_BLOCKS:
            tags += [group << 16 | block, group << 16 | block << 8 | offset]
    return [pydicom_module().tag.Tag(tag) for tag in dict.fromkeys(tags)]


def _flattened(header: Header) -> list[Header]:
    dataset = pydicom_module().Dataset
    top = dataset()
    top.update({element.tag: element for element in header if element.keyword not in _OF_THE_WHOLE_OBJECT})
    for item in (header.get("SharedFunctionalGroupsSequence") or [])[:1]:
        _overlay(top, item)
    flat = []
    for item in header.PerFrameFunctionalGroupsSequence:
        frame = dataset()
        frame.update({element.tag: element for element in top})
        _overlay(frame, item)
        flat.append(frame)
    return flat or [header]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _overlay(flat: Header, groups: Header) -> None:
    """Put the elements of the functional groups' first items into a flat header."""
    for group in groups:
        if group.VR != "SQ" or not group.value:
            continue
        for element in group.value[0]:
            flat[element.tag] = element
            classic = _FRAME_KEYWORDS.get(element.keyword)
            if classic is not None:
                setattr(flat, classic, element.value)
        if group.keyword == "RealWorldValueMappingSequence":
            flat.RealWorldValueMappingSequence = group.value


def _value(header: Header, keyword: str | tuple[int, int]) -> Any:
    """Return an element's value, or its text where its representation does not allow it (a weight "70,5")."""
    try:
        return header.get(keyword)
    except Exception:  # whatever pydicom stumbles over while it converts
        raw = _raw(header, keyword)
        return raw.decode("latin-1").strip() if isinstance(raw, bytes) else None


def _raw(header: Header, keyword: str | tuple[int, int]) -> object:
    try:
        return header.get_item(keyword).value
    except Exception:  # it cannot even be told what kind of value it has
        return None


def _finite(value: object) -> float | None:
    if value is None or value == "":
        return None
    result = float(value)  # type: ignore[arg-type]
    if not math.isfinite(result):
        raise ValueError(f"{value!r} is not finite")
    return result


def _as_text(element: Any) -> str:
    """Return the value of an element as a text; of unknown private elements there are only bytes."""
    value = getattr(element, "value", None)
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    return "" if value is None else str(value).strip().strip("\x00").strip()
