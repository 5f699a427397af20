"""The cases of an evaluation: which prediction belongs to which truth, by name or by a table."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from algorithm.errors import MissingInputError, UsageError

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".tif", ".tiff")
TABLE_COLUMNS = ("case", "truth", "prediction", "subset")

_OPTIONAL = ", ".join(TABLE_COLUMNS[1:])
_TRACER = re.compile(r"(fdg|psma)_", re.IGNORECASE)


@dataclass(frozen=True)
class Pair:
    """One case to score: its name, its files (no prediction: missing) and the subset it is averaged in."""

    case: str
    truth: Path
    prediction: Path | None
    subset: str | None


def find_pairs(truth: Path, prediction: Path, table: Path | None = None) -> tuple[list[Pair], list[Path]]:
    """Match predictions to truths.

    Parameters
    ----------
    truth, prediction : Path
        Two files, or two folders. In folders the truths define the cases; a prediction belongs to the truth of the
        same name, whatever their image formats.
    table : Path or None
        CSV file of the cases, see :data:`TABLE_COLUMNS`.

    Returns
    -------
    tuple of list
        The cases by name, and the predictions that belong to none of them.

    Raises
    ------
    MissingInputError
        A path is not there, there is no truth, or two files have the same case name.
    UsageError
        A folder is paired with a file, or the table is wrong.
    """
    for path, what in ((truth, "truth"), (prediction, "prediction")):
        if not path.exists():
            raise MissingInputError(f"the {what} {path} does not exist; give a mask or a folder of masks")
    if truth.is_dir() != prediction.is_dir():
        raise UsageError(f"give two files or two folders, got the truth {truth} and the prediction {prediction}")
    if not truth.is_dir():
        if table is not None:
            raise UsageError(f"--cases {table} needs folders, got the files {truth} and {prediction}")
        return [Pair(case_name(truth), truth, prediction, tracer(case_name(truth)))], []

    truths, predictions = masks_in(truth), masks_in(prediction)
    if table is None:
        if not truths:
            raise MissingInputError(f"no mask in {truth} (looked for {', '.join(IMAGE_SUFFIXES)})")
        pairs = [Pair(case, path, predictions.get(case), tracer(case)) for case, path in truths.items()]
    else:
        pairs = [_listed_pair(row, truth, prediction, truths, predictions) for row in read_table(table)]
    used = {pair.prediction for pair in pairs}
    return pairs, [path for path in predictions.values() if path not in used]


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a table of cases; every row has all of :data:`TABLE_COLUMNS`, empty where the file has no such column.

    Raises
    ------
    MissingInputError
        The file cannot be read.
    UsageError
        It has no column ``case``, no rows, unknown columns, or names a case twice.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise MissingInputError(f"cannot read the table of cases {path}: {error}") from error
    columns = set(rows[0]) if rows else set()
    if "case" not in columns or not columns <= set(TABLE_COLUMNS):
        got = ", ".join(sorted(str(column) for column in columns)) or "no rows"
        raise UsageError(f"the table {path} must have the column case and may have {_OPTIONAL}, got {got}")
    cases = [row["case"] for row in rows]
    twice = sorted({case for case in cases if cases.count(case) > 1})
    if twice:
        raise UsageError(f"the table {path} names {', '.join(twice)} more than once; give each case one row")
    return [{column: row.get(column) or "" for column in TABLE_COLUMNS} for row in rows]


def masks_in(folder: Path) -> dict[str, Path]:
    """Return the images of a folder by case name, in sorted order.

    Raises
    ------
    MissingInputError
        Two files have the same case name.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not path.name.endswith(IMAGE_SUFFIXES):
            continue
        other = found.setdefault(case_name(path), path)
        if other != path:
            raise MissingInputError(f"both {other} and {path} are masks of {case_name(path)}; keep one of them")
    return found


def case_name(path: Path | str) -> str:
    """Return the file's name without its image suffix."""
    name = Path(path).name
    return next((name.removesuffix(suffix) for suffix in IMAGE_SUFFIXES if name.endswith(suffix)), name)


def tracer(case: str) -> str | None:
    """Return ``fdg`` or ``psma`` if the case's name begins with it, as AutoPET III's names do."""
    match = _TRACER.match(case)
    return match.group(1).lower() if match else None


def _listed_pair(
    row: dict[str, str], truth: Path, prediction: Path, truths: dict[str, Path], predictions: dict[str, Path]
) -> Pair:
    case = row["case"]
    true_path = truth / row["truth"] if row["truth"] else truths.get(case)
    if true_path is None or not true_path.exists():
        raise MissingInputError(f"no truth for the listed case {case} in {truth}; correct the table or the folder")
    predicted_path = prediction / row["prediction"] if row["prediction"] else predictions.get(case)
    if predicted_path is not None and not predicted_path.exists():
        predicted_path = None
    return Pair(case, true_path, predicted_path, row["subset"] or tracer(case))
