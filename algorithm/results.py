"""What a segmented case leaves in its folder: mask, DICOM SEG, picture, page, report.

The report is written last, so that a folder with a report is whole. What an earlier run left under the same names
goes before a case begins: nobody shall take it for this run's.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from algorithm import __version__
from algorithm.clinic.page import PageInput, write_page
from algorithm.dicom.segmentation import highdicom_module, write_segmentation
from algorithm.dicom.series import FILE_FOLLOWS
from algorithm.dicom.study import Patient
from algorithm.errors import GeometryError, InvalidImageError, UnreadableImageError, UsageError
from algorithm.files import is_folder
from algorithm.formats.stored import shown
from algorithm.formats.volume import files_of
from algorithm.images import check_mask_path, write_mask
from algorithm.job import Result
from algorithm.outputs import (
    CASE_RECORD,
    MASK,
    MASK_NAME,
    PAGE,
    PICTURE,
    RUN_REPORT,
    SEGMENTATION,
    Kind,
    check_all_free,
    is_one_of,
    remove_earlier,
)
from algorithm.picture import write_picture
from algorithm.refusals import shortened
from algorithm.report import RunReport, write_report

_log = logging.getLogger(__name__)

SEGMENTATION_NAME = "tumour.seg.dcm"
PICTURE_NAME = "picture.png"
PAGE_NAME = "report.html"
REPORT_NAME = "report.json"
_KINDS = {
    MASK_NAME: MASK,
    SEGMENTATION_NAME: SEGMENTATION,
    PICTURE_NAME: PICTURE,
    PAGE_NAME: PAGE,
    REPORT_NAME: RUN_REPORT,
}
NAMES = tuple(_KINDS)

_JSON = Kind("a run report", lambda path: RUN_REPORT.knows(path) or CASE_RECORD.knows(path))

_PATIENT = (
    ("Patient", "name"),
    ("ID", "identifier"),
    ("Sex", "sex"),
    ("Born", "birth_date"),
    ("Age", "age"),
    ("Study date", "study_date"),
    ("Study", "study_description"),
    ("Accession number", "accession"),
)


@dataclass(frozen=True)
class Wanted:
    """Which results are written beside the mask, and how.

    Attributes
    ----------
    segmentation : bool or None
        A DICOM SEG; None: where the PET is DICOM, unless ``anonymous``.
    insists : bool
        The DICOM SEG was asked for: where none can be written, writing fails. Else the report says why.
    page : bool or None
        The page; None: where jinja2 is installed.
    viewer : bool
        With images to scroll through in the page.
    anonymous : bool
        Page and report name neither patient nor files.
    report, picture : Path or None
        Their places, where they are not to lie beside the mask.
    """

    segmentation: bool | None = None
    insists: bool = False
    page: bool | None = None
    viewer: bool = True
    anonymous: bool = False
    report: Path | None = None
    picture: Path | None = None

    def decided(self, pet: Path) -> Wanted:
        """Return the same with nothing left open, for a case with this PET (a file, or a folder of DICOM files).

        Raises
        ------
        UsageError
            A DICOM SEG is asked for, but the PET is no DICOM.
        InstallationError
            A DICOM SEG is wanted and highdicom is missing.
        """
        segmentation, page = self.segmentation, self.page
        if segmentation and not is_folder(pet):
            raise UsageError(
                f"--dicom-seg needs the PET's DICOM files to refer to, got the file {pet}; give their folder"
            )
        if segmentation is None:
            segmentation = is_folder(pet) and not self.anonymous
        if segmentation:
            highdicom_module()
        if page is None:
            page = importlib.util.find_spec("jinja2") is not None
        return dataclasses.replace(self, segmentation=segmentation, insists=bool(self.segmentation), page=page)


def remove_results(folder: Path, inputs: Sequence[Path], extra: Sequence[Path] = ()) -> None:
    """Remove what an earlier run left in a folder, and under the names of ``extra``; what is not ours stays.

    Raises
    ------
    OutputError
        A file cannot be removed.
    """
    places = {folder / name: kind for name, kind in _KINDS.items()}
    places |= {path: PICTURE if path.suffix.lower() == ".png" else _JSON for path in extra}
    remove_earlier({path: kind for path, kind in places.items() if not is_one_of(path, inputs)})


def clear_results(folder: Path, inputs: Sequence[Path], extra: Sequence[Path] = ()) -> None:
    """Remove what an earlier run left, as :func:`remove_results` does, and make sure that nothing else is there.

    Raises
    ------
    OutputError
        A result has an input's name, something else has a result's name, or a file cannot be removed.
    """
    remove_results(folder, inputs, extra)
    check_mask_path(folder / MASK_NAME, protect=inputs)
    check_all_free({folder / name: kind for name, kind in _KINDS.items()}, inputs)


def write_results(folder: Path, result: Result, wanted: Wanted) -> dict[str, Path]:
    """Write a case's results.

    Parameters
    ----------
    folder : Path
        Made if need be.
    result : Result
    wanted : Wanted
        With nothing left open, see :meth:`Wanted.decided`.

    Returns
    -------
    dict
        What was written where, in the order in which it is told: "DICOM SEG", "picture", "page", "report", "mask".

    Raises
    ------
    UserError
        A file cannot be written, or the DICOM files are not fit to be referred to.
    """
    pair, written = result.pair, {}
    mask = folder / MASK_NAME
    write_mask(result.mask, pair.pet, mask, protect=(pair.ct_path, pair.pet_path))
    report = result.report
    if wanted.segmentation:
        path = folder / SEGMENTATION_NAME
        try:
            if _write_segmentation(path, result):
                written["DICOM SEG"] = path
            else:
                report = _with_note(report, "no lesion was found, and DICOM has no segmentation without one")
        except (GeometryError, InvalidImageError, UnreadableImageError) as error:
            if wanted.insists:
                raise
            _log.warning("no DICOM SEG is written: %s", error)
            report = _with_note(report, f"no DICOM SEG was written: {error}")
    written["picture"] = wanted.picture or folder / PICTURE_NAME
    write_picture(written["picture"], pair.pet, result.mask)
    if wanted.page:
        written["page"] = folder / PAGE_NAME
        page = page_of(result, report)
        if wanted.anonymous:
            notes = _nameless_notes(page.notes, report)
            page = dataclasses.replace(page, suv=_nameless_text(page.suv), notes=notes)
        write_page(written["page"], page, viewer=wanted.viewer, anonymous=wanted.anonymous)
    written["report"] = wanted.report or folder / REPORT_NAME
    write_report(written["report"], _nameless(report) if wanted.anonymous else report)
    return {**written, "mask": mask}


def page_of(result: Result, report: RunReport) -> PageInput:
    """Return all that the page shows of a case, with the words of its report."""
    dicom = result.case.dicom
    reckoning = dicom.reckoning if dicom is not None else None
    files = [("CT", report.ct), ("PET", report.pet)]
    if dicom is not None:
        series = (("CT series", dicom.ct_series), ("PET series", dicom.pet_series))
        files += [(name, str(each)) for name, each in series if each is not None]
    method = [("Weights", f"{each.name}, sha256 {each.sha256[:16]}...") for each in report.weights]
    method += [
        ("Passes", f"{report.passes} of {report.passes_planned} ({report.stopped_because})"),
        ("Windows", f"{report.windows}, {report.flip_windows} for each further flip"),
        ("Device", f"{report.device}, {report.precision}"),
    ]
    return PageInput(
        ct=result.case.own_ct,
        pet=result.pair.pet,
        burden=result.burden,
        software=f"h2aseg-container {__version__}",
        created=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        patient=_patient_lines(dicom.patient) if dicom is not None else (),
        files=tuple(files),
        method=tuple(method),
        seconds=report.seconds,
        suv=reckoning.sentences() if reckoning is not None else (),
        notes=tuple(note for note in report.notes if reckoning is None or note not in reckoning.notes),
    )


def _write_segmentation(path: Path, result: Result) -> bool:
    dicom = result.case.dicom
    assert dicom is not None
    assert dicom.pet_series is not None
    return write_segmentation(
        path,
        result.burden.labels,
        result.pair.pet,
        dicom.pet_series.paths,
        software_version=__version__,
        weights=result.report.weights,
    )


def _patient_lines(patient: Patient) -> tuple[tuple[str, str], ...]:
    lines = ((name, getattr(patient, key)) for name, key in _PATIENT)
    return tuple((name, value) for name, value in lines if value)


def _with_note(report: RunReport, note: str) -> RunReport:
    return dataclasses.replace(report, notes=(*report.notes, note))


_DAY = r"(?<![\w.])(?:19|20)\d\d[01]\d[0-3]\d"  # as DICOM writes it
_NAMELESS = (
    (re.compile(r'(series (?:\S+|\(no number\))) ".*?" (?=\(\d+ slice)'), r"\1 "),  # SeriesDescription
    (re.compile(r",? UID [0-9][0-9.]*"), ""),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ](?=\d\d:\d\d)"), ""),
    (re.compile(rf"{_DAY}(?=\d\d)"), ""),
    (re.compile(rf"{_DAY}(?![\w.])"), "…"),
    (re.compile(r"\bbetween .*? (\(-?[\d.]+ mm\)) and .*? (\(-?[\d.]+ mm\))"), r"between … \1 and … \2"),
)
"""What sentences tell of an examination: free text, UIDs, dates, and names of slices' files."""


def _nameless_text(lines: Iterable[str]) -> tuple[str, ...]:
    lines = list(lines)
    for pattern, instead in _NAMELESS:
        lines = [pattern.sub(instead, line) for line in lines]
    return tuple(lines)


def _nameless_notes(notes: Iterable[str], report: RunReport) -> tuple[str, ...]:
    """Return notes without the names of a report's files, and of its examination."""
    notes = [note.partition(FILE_FOLLOWS)[0] for note in notes]
    for name, stand_in in ((report.pet, "PET"), (report.ct, "CT")):
        whole = re.compile(rf"(?<![\w./]){re.escape(name)}(?![\w.])")
        notes = [whole.sub(stand_in, note) for note in notes]
    return _nameless_text(notes)


def nameless_failure(sentence: str, images: Iterable[Path]) -> str:
    """Return why a case failed without the names of its images' files, and of its examination."""
    names: set[str] = set()
    for image in images:
        files = files_of(image)
        folders = (folder for path in files for folder in path.parents if folder.is_relative_to(image))
        names |= {str(path) for path in (image, *files, *folders)} | {path.name for path in files if path == image}
    names |= {as_told(each) for each in names for as_told in (shown, shortened)}
    for name in sorted((" ".join(each.split()) for each in names), key=len, reverse=True):
        sentence = re.sub(rf"(?<![\w./]){re.escape(name)}(?:/[^\s,;:()]*|(?![\w.]))", "…", sentence)
    return _nameless_text([sentence])[0]


def _nameless(report: RunReport) -> RunReport:
    """Return the report without what names a patient or an examination: files, series, dates."""
    notes = _nameless_notes(report.notes, report)
    series = report.series and {
        name: dataclasses.replace(used, uid="", description="") for name, used in report.series.items()
    }
    suv = report.suv and {name: _nameless_value(value) for name, value in report.suv.items()}
    return dataclasses.replace(report, ct="", pet="", series=series, suv=suv, notes=notes)


def _nameless_value(value: object) -> object:
    if isinstance(value, str):
        return _nameless_text([value])[0]
    return list(_nameless_text(value)) if isinstance(value, list) else value
