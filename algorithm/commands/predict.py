"""``predict``: a study to its mask, DICOM SEG, report and picture; with ``--cases`` a whole cohort."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from algorithm.cases import list_cases
from algorithm.cohort.run import Cohort, run_cohort
from algorithm.cohort.share import joined
from algorithm.cohort.tables import COHORT_NAME
from algorithm.commands.common import (
    check_options,
    check_results,
    segmenter_of,
    settings_of,
    tell,
    tell_tumour,
)
from algorithm.commands.suv import overrides_of
from algorithm.dicom.reckoning import SuvOverrides
from algorithm.errors import MissingInputError, UsageError
from algorithm.files import check_writable, claimed, is_file, is_folder
from algorithm.inference.budget import process_start
from algorithm.inference.progress import Progress
from algorithm.outputs import MASK_NAME
from algorithm.reading import DicomChoice
from algorithm.results import (
    PICTURE_NAME,
    REPORT_NAME,
    Wanted,
    clear_results,
    remove_results,
    write_results,
)

_OF_ONE_CASE = (
    "report",
    "picture",
    "pet_series",
    "ct_series",
    "weight_kg",
    "dose_mbq",
    "injection_time",
    "half_life_s",
)


def predict(args: argparse.Namespace) -> int:
    """Segment one study, or a cohort where ``--cases`` names one."""
    if args.cases is not None:
        check_options(args)
        return _cohort(args)
    out = args.paths[-1]
    # A folder that is there may hold an earlier study's results; one that is not stays unmade after a mistake.
    if len(args.paths) not in (2, 3) or not out.is_dir():
        _study_of(args.paths)
    with claimed(out):
        return _one(args)


def _one(args: argparse.Namespace) -> int:
    """Segment one study; from here on, the folder of results holds no earlier run's."""
    elsewhere = [path for path in (args.report, args.picture) if path is not None]
    remove_results(args.paths[-1], args.paths[:-1], elsewhere)
    check_options(args)
    ct, pet, out = _study_of(args.paths)
    choice = DicomChoice(args.pet_series, args.ct_series, overrides_of(args))
    _check_choice(choice, ct, pet)
    clear_results(out, (ct, pet))
    wanted = _in_time(wanted_of(args), args.time_limit).decided(pet)
    report, picture = wanted.report or out / REPORT_NAME, wanted.picture or out / PICTURE_NAME
    check_results(report, picture, out / MASK_NAME, (ct, pet))
    result = segmenter_of(args).segment(
        ct,
        pet,
        settings_of(args, args.time_limit),
        started=process_start(),
        progress=Progress(bar=True),
        choice=choice,
        keep_ct=bool(wanted.page),
    )
    for what, path in write_results(out, result, wanted).items():
        tell(f"{what}: {path}")
    tell_tumour(result)
    return 0


def wanted_of(args: argparse.Namespace) -> Wanted:
    """Return which results the options ask for."""
    return Wanted(
        args.dicom_seg,
        page=args.html,
        viewer=args.viewer,
        anonymous=args.anonymous,
        report=args.report,
        picture=args.picture,
    )


def _in_time(wanted: Wanted, time_limit_s: float | None) -> Wanted:
    """Return the same without a page that nobody asked for where time is short: it is made after the mask."""
    hurried = time_limit_s is not None and wanted.page is None
    return dataclasses.replace(wanted, page=False) if hurried else wanted


def _study_of(paths: list[Path]) -> tuple[Path, Path, Path]:
    """Return CT, PET and the results' folder."""
    if len(paths) == 3:
        return paths[0], paths[1], paths[2]
    if len(paths) != 2:
        raise UsageError(
            f"predict takes a study's folder, or a CT and a PET, and then a folder for the results, got "
            f"{len(paths)} path(s); see `python -m algorithm predict --help`"
        )
    study, out = paths
    if is_file(study):
        raise UsageError(
            f"with two paths the first must be a study's folder of DICOM files, got the file {study}; give "
            "CT, PET and a folder for the results"
        )
    if not is_folder(study):
        raise MissingInputError(f"there is no study folder {study}; check the path")
    return study, study, out


def _check_choice(choice: DicomChoice, ct: Path, pet: Path) -> None:
    """Raise UsageError for options that speak of DICOM where there is a file."""
    about_pet = choice.pet_series is not None or choice.overrides != SuvOverrides()
    if about_pet and is_file(pet):
        raise UsageError(
            f"--pet-series and what a SUV is reckoned from are for DICOM, got the file {pet}; leave them out"
        )
    if choice.ct_series is not None and is_file(ct):
        raise UsageError(f"--ct-series is for DICOM, got the file {ct}; leave it out")


def _cohort(args: argparse.Namespace) -> int:
    """Segment the cases of a list or tree, this process's share of them under torchrun."""
    if len(args.paths) != 1:
        raise UsageError(f"with --cases predict takes one path, the folder for the results, got {len(args.paths)}")
    for option in _OF_ONE_CASE:
        if getattr(args, option) is not None:
            raise UsageError(f"--{option.replace('_', '-')} is for one case; leave it out with --cases")
    cases, out = list_cases(args.cases), args.paths[0]
    check_writable(out / COHORT_NAME)
    wanted = _in_time(wanted_of(args), args.time_limit)
    cohort = Cohort(cases, out, settings_of(args, args.time_limit), wanted)
    with joined() as share:
        run_cohort(cohort, segmenter_of(args, share.device(args.device)), share)
    return 0
