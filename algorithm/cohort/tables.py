"""A cohort's two tables, made from the folders of its cases: one row per case, one row per lesion."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from algorithm.cohort.record import read_record
from algorithm.outputs import Kind, check_all_free, remove_earlier, text_kind, written_as
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


_COHORT_TABLE = text_kind("a cohort's table", ",".join(COHORT_COLUMNS))
_LESION_TABLE = text_kind("a table of lesions", ",".join(LESION_COLUMNS))


def remove_tables(out: Path) -> None:
    """Remove an earlier run's tables; raises OutputError if something else has their names."""
    places = {out / COHORT_NAME: _COHORT_TABLE, out / LESIONS_NAME: _LESION_TABLE}
    remove_earlier(places)
    check_all_free(places)


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
    _write(out / COHORT_NAME, _COHORT_TABLE, COHORT_COLUMNS, rows)
    _write(out / LESIONS_NAME, _LESION_TABLE, LESION_COLUMNS, lesions)


def _rows_of(folder: Path, case: str, key: str) -> tuple[list[Any], list[list[Any]]]:
    record, nothing = read_record(folder), [""] * len(_TOTALS)
    if record is None or record.key != key:
        return [case, _NOT_DONE, *nothing, "", ""], []
    if record.error:
        return [case, "failed", *nothing, f"{record.seconds:.1f}", record.error], []
    try:
        report = json.loads((folder / REPORT_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # somebody removed or damaged it; the next run makes the case again
        return [case, _NOT_DONE, *nothing, "", ""], []
    totals = [_cell(report["totals"][name]) for name in _TOTALS]
    row = [case, "done", *totals, f"{record.seconds:.1f}", "; ".join(report["notes"])]
    lesions = [
        [case, *(_cell(lesion[name]) for name in _LESION), *(_cell(place) for place in lesion["centroid_mm"])]
        for lesion in report["lesions"]
    ]
    return row, lesions


def _cell(value: float | None) -> float | int | str:
    return "" if value is None else round(value, _DIGITS)


def _write(path: Path, kind: Kind, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with (  # names of files may hold any byte
        written_as(path, kind) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
