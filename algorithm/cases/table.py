"""Tables of cases (CSV): the one schema of :mod:`algorithm.cases`."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from algorithm.cases.case import Case
from algorithm.errors import MissingInputError, UsageError
from algorithm.files import is_file
from algorithm.formats.stored import shown

COLUMNS = (
    "case",
    "ct",
    "pet",
    "truth",
    "truth_grid",
    "prediction",
    "patient",
    "tracer",
    "centre",
    "data_set",
    "subset",
    "synthetic",
)

_GROUPS = ("centre", "data_set", "subset")

OWN_GRID = "own"

_MOST_BYTES = 64 * 2**20
_LONGEST_NAME = 200  # of a case; masks, reports and pictures are called after it

Row = dict[str, str]


def read_rows(path: Path) -> list[Row]:
    """Read any CSV with a line of headings, as texts.

    Raises
    ------
    MissingInputError
        The file cannot be read.
    UsageError
        It has no rows.
    """
    if path.exists() and (not path.is_file() or path.stat().st_size > _MOST_BYTES):
        raise MissingInputError(
            f"cannot read the table {path}: it is no regular file of {_MOST_BYTES // 2**20} MiB at most; give CSV"
        )
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, restkey="", restval="")
            rows = list(reader)
            headings = list(reader.fieldnames or ())  # of an empty file it reads on, so before it is closed
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MissingInputError(f"cannot read the table {path}: {error}; give a CSV in UTF-8") from error
    twice = next((name for name in headings if headings.count(name) > 1 and name), None)
    if twice is not None:
        raise UsageError(f"the table {path} has the column {shown(twice)} twice; keep one")
    if not rows:
        raise UsageError(f"the table {path} has no rows; give one per case")
    if any("\0" in str(cell) for row in rows for cell in row.values()):
        raise MissingInputError(f"the table {path} holds null characters; give a CSV in UTF-8")
    for row in rows:
        if len(row.get("case", "")) > _LONGEST_NAME:
            raise UsageError(
                f"the table {path} has a case with a name of {len(row['case'])} characters, and "
                f"{_LONGEST_NAME} are taken at most; shorten it"
            )
    return rows


def read_table(path: Path, needed: Iterable[str] = (), *, others: bool = True) -> dict[str, Row]:
    """Read a table of cases by the columns of the schema, empty where the file has no such column.

    Parameters
    ----------
    path : Path
    needed : iterable of str
        Columns besides ``case`` that must be there and have no empty cell.
    others : bool
        Whether columns outside the schema may stand in it. They are left alone.

    Returns
    -------
    dict
        Case to its row, in the order of the file.

    Raises
    ------
    MissingInputError
        There is no such file, or it cannot be read.
    UsageError
        A column is missing, a cell of it empty, or a case stands there twice.
    """
    if _is_there(path) and path.is_dir():
        raise UsageError(
            f"the table of cases must be a CSV, got the folder {path}; name a CSV (`evaluation score` and "
            "`compare` take a folder of studies where --truth is left out)"
        )
    if not is_file(path):
        raise MissingInputError(f"there is no table of cases at {path}; check the path")
    rows = read_rows(path)
    unknown = [name for name in rows[0] if name not in COLUMNS]
    if unknown and not others:
        raise UsageError(
            f"the table {path} has the unknown column {shown(unknown[0])}; known are {', '.join(COLUMNS)}"
        )
    for column in ("case", *needed):
        require_column(path, rows, column)
        for row in rows:
            if not row[column].strip():
                raise UsageError(f"the table {path} gives no {column} for {row['case'] or 'a case'}; fill it in")
    listed: dict[str, Row] = {}
    for row in rows:
        if listed.setdefault(row["case"], row) is not row:
            raise UsageError(f"the table {path} has the case {row['case']} twice; give each case one row")
    return {case: {column: _cell(row, column) for column in COLUMNS} for case, row in listed.items()}


def _cell(row: Row, column: str) -> str:
    """Return a cell; of those that name a group without the spaces around, and the tracer in small letters."""
    text = row.get(column, "")
    if column == "tracer":
        return text.strip().lower()
    return text.strip() if column in _GROUPS else text


def require_column(path: Path, rows: Sequence[Row], column: str) -> None:
    """Raise UsageError unless a table has a column."""
    if column not in rows[0]:
        got = shown(", ".join(name for name in rows[0] if name)) or "missing"
        raise UsageError(f"the table {path} lacks the column {column}; its columns are {got}")


def cases_of_table(path: Path) -> list[Case]:
    """Read the pairs of a table of cases, in the order of the file.

    Raises
    ------
    MissingInputError
        The table or a file that it names is missing.
    UsageError
        The table lacks a column or cell, or a case's name cannot name a file.
    """
    return [_case(path, name, row) for name, row in read_table(path, ("ct", "pet")).items()]


def is_yes(text: str) -> bool:
    """Read a yes/no cell of a CSV; an empty one is no."""
    return text.strip().lower() in ("1", "true", "yes", "synthetic")


def _case(path: Path, name: str, row: Row) -> Case:
    if name in (".", "..") or "/" in name or "\\" in name:
        raise UsageError(f"{path} has a case called {name!r}, which cannot name a file; rename it")
    files = {role: path.parent / row[role] for role in ("ct", "pet", "truth") if row[role]}
    for role, file in files.items():
        if not _is_there(file):
            raise MissingInputError(
                f"{path} names the {role} {shown(file)} of case {shown(name)}, which is not there; correct it"
            )
    if row["truth_grid"] not in ("", OWN_GRID):
        raise UsageError(
            f"the table {path} has {shown(row['truth_grid'])} as the truth_grid of {shown(name)}; give "
            f"{OWN_GRID}, or nothing where the truth lies on the PET's grid"
        )
    return Case(
        name,
        files["ct"],
        files["pet"],
        files.get("truth"),
        truth_on_own_grid=row["truth_grid"] == OWN_GRID,
        synthetic=is_yes(row["synthetic"]),
        patient=row["patient"],
        tracer=row["tracer"] or None,
        centre=row["centre"] or None,
        data_set=row["data_set"] or None,
        subset=row["subset"] or None,
    )


def _is_there(path: Path) -> bool:
    """Ask whether there is a file or folder; what the system refuses to look for is not there."""
    try:
        return path.exists()
    except OSError:  # a name that is too long
        return False
