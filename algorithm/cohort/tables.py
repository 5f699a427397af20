"""A cohort's two tables, made from the folders of its cases: one row per case, one row per lesion."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from algorithm.cohort.record import read_record
from algorithm.files import written_whole
from algorithm.results import REPORT_NAME

COHORT_NAME, LESIONS_NAME = "cohort.csv", "lesions.csv"

_TOTALS = ("lesions", "mtv_ml", "tlg_g", "suv_max", "suv_peak", "dmax_mm")
_LESION = ("number", "mtv_ml", "suv_max", "suv_mean", "suv_peak", "tlg_g", "longest_diameter_mm")
_DIGITS = 4
_NOT_DONE = "not done"

COHORT_COLUMNS = ("case", "status", *_TOTALS, "seconds", "notes")
"""status: done, failed (the reason stands under notes), or not done where the run was ended before."""

LESION_COLUMNS = ("case", *_LESION, "left_mm", "posterior_mm", "superior_mm")
"""The last three are the lesion's centroid in the patient's space, as DICOM counts."""


def write_tables(out: Path, cases: Sequence[str], keys: Sequence[str]) -> None:
    """Write ``cohort.csv`` and ``lesions.csv``.

    Parameters
    ----------
    out : Path
        Folder with the cases' folders.
    cases : sequence of str
        In the order of the rows.
    keys : sequence of str
        What was asked of each; results of another request count as not there.

    Raises
    ------
    OutputError
        A table cannot be written.
    """
    rows, lesions = [], []
    for case, key in zip(cases, keys, strict=True):
        row, found = _rows_of(out / case, case, key)
        rows.append(row)
        lesions.extend(found)
    _write(out / COHORT_NAME, COHORT_COLUMNS, rows)
    _write(out / LESIONS_NAME, LESION_COLUMNS, lesions)


def _rows_of(folder: Path, case: str, key: str) -> tuple[list[Any], list[list[Any]]]:
    record, nothing = read_record(folder), [""] * len(_TOTALS)
    if record is None or record.key != key:
        return [case, _NOT_DONE, *nothing, "", ""], []
    if record.error:
        return [case, "failed", *nothing, f"{record.seconds:.1f}", record.error], []
    report = json.loads((folder / REPORT_NAME).read_text(encoding="utf-8"))
    totals = [_cell(report["totals"][name]) for name in _TOTALS]
    row = [case, "done", *totals, f"{record.seconds:.1f}", "; ".join(report["notes"])]
    lesions = [
        [case, *(_cell(lesion[name]) for name in _LESION), *(_cell(place) for place in lesion["centroid_mm"])]
        for lesion in report["lesions"]
    ]
    return row, lesions


def _cell(value: float | None) -> float | int | str:
    return "" if value is None else round(value, _DIGITS)


def _write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with written_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
