"""Which prediction belongs to which truth: by name, or as a table of cases says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from algorithm.cases import (
    IMAGE_SUFFIXES,
    OWN_GRID,
    Row,
    case_name,
    group_of,
    is_yes,
    list_cases,
    masks_in,
    named_synthetic,
    read_table,
    tracer_of,
)
from algorithm.errors import MissingInputError, UsageError
from algorithm.outputs import MASK_NAME


@dataclass(frozen=True)
class Pair:
    """One case to score: its name, its files (no prediction: missing) and the subset it is averaged in.

    ``truth_on_own_grid``, ``synthetic``: see :class:`algorithm.cases.Case`.
    """

    case: str
    truth: Path
    prediction: Path | None
    subset: str | None
    truth_on_own_grid: bool = False
    synthetic: bool = False


def find_pairs(truth: Path | None, prediction: Path, table: Path | None = None) -> tuple[list[Pair], list[Path]]:
    """Match predictions to truths.

    Parameters
    ----------
    truth, prediction : Path
        Two files, or two folders. In folders the truths define the cases; a prediction belongs to the truth of the
        same name, whatever their image formats (see :func:`predictions_in`). Without a truth, see
        :func:`pairs_of_cases`.
    table : Path or None
        CSV of the cases, see :mod:`algorithm.cases`. Its paths lie inside the two folders, or beside the table.

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
    if truth is None:
        if table is None:
            raise UsageError("where the truth lies is missing; give --truth, or --cases with cases that have one")
        return pairs_of_cases(table, prediction)
    for path, what in ((truth, "truth"), (prediction, "prediction")):
        if not path.exists():
            raise MissingInputError(f"the {what} {path} does not exist; give a mask or a folder of masks")
    if truth.is_dir() != prediction.is_dir():
        raise UsageError(f"give two files or two folders, got the truth {truth} and the prediction {prediction}")
    if not truth.is_dir():
        if table is not None:
            raise UsageError(f"--cases {table} needs folders, got the files {truth} and {prediction}")
        return [named_pair(case_name(truth), truth, prediction)], []

    truths, predictions = masks_in(truth), predictions_in(prediction)
    if table is None:
        if not truths:
            raise MissingInputError(f"no mask in {truth} (looked for {', '.join(IMAGE_SUFFIXES)})")
        pairs = [named_pair(case, path, predictions.get(case)) for case, path in truths.items()]
    else:
        folders = (truth, prediction, table.parent)
        pairs = [
            _listed_pair(case, row, folders, truths, predictions)
            for case, row in read_table(table, others=False).items()
        ]
    used = {pair.prediction for pair in pairs}
    return pairs, [path for path in predictions.values() if path not in used]


def pairs_of_cases(source: Path, prediction: Path) -> tuple[list[Pair], list[Path]]:
    """Match predictions to cases that bring their own truth: a CSV or a tree of any layout.

    Parameters
    ----------
    source : Path
        As :func:`algorithm.cases.list_cases` takes it.
    prediction : Path
        Folder of masks, see :func:`predictions_in`.

    Raises
    ------
    MissingInputError
        There are no cases, one has no truth, or there is no such folder of predictions.
    UsageError
        The CSV has a column outside the schema, or is wrong otherwise.
    """
    if not prediction.is_dir():
        raise MissingInputError(f"the predictions {prediction} are no folder; give the folder of the masks")
    masks, pairs = predictions_in(prediction), []
    named = {case: row["prediction"] for case, row in _rows_of(source).items()}
    for case in list_cases(source):
        if case.truth is None:
            raise MissingInputError(
                f"the case {case.name} in {source} has no truth; leave it out, or add its truth"
            )
        mask = _predicted(case.name, named.get(case.name, ""), (prediction, source.parent), masks)
        pairs.append(Pair(case.name, case.truth, mask, case.group, case.truth_on_own_grid, case.synthetic))
    used = {pair.prediction for pair in pairs}
    return pairs, [path for path in masks.values() if path not in used]


def predictions_in(folder: Path) -> dict[str, Path]:
    """Return the masks in a folder by case name: its images, or a cohort's results, a folder per case.

    Raises
    ------
    MissingInputError
        Two images have the same case name.
    """
    of_cohort = {path.parent.name: path for path in sorted(folder.glob(f"*/{MASK_NAME}")) if path.is_file()}
    masks = masks_in(folder)
    twice = next((case for case in of_cohort if case in masks), None)
    if twice is not None:
        raise MissingInputError(
            f"the case {twice} has two masks in {folder}, {masks[twice].name} and {twice}/{MASK_NAME}; leave one"
        )
    return of_cohort | masks


def _listed_pair(
    case: str,
    row: Row,
    folders: tuple[Path, Path, Path],
    truths: dict[str, Path],
    predictions: dict[str, Path],
) -> Pair:
    """Return the pair of a row; ``folders`` are those of the truths, the predictions and the table."""
    truth, prediction, beside = folders
    true_path = _located(row["truth"], truth, beside) if row["truth"] else truths.get(case)
    if true_path is None or not true_path.exists():
        raise MissingInputError(f"no truth for the listed case {case} in {truth}; correct the table or the folder")
    mask = _predicted(case, row["prediction"], (prediction, beside), predictions)
    return pair_of_row(case, row, true_path, mask)


def pair_of_row(case: str, row: Row, truth: Path, prediction: Path | None) -> Pair:
    """Return a pair of files as a row of a table describes it."""
    subset = group_of(row["subset"], row["tracer"] or tracer_of(case), row["centre"])
    synthetic = named_synthetic(case) or is_yes(row["synthetic"])
    return Pair(case, truth, prediction, subset, row["truth_grid"] == OWN_GRID, synthetic)


def named_pair(case: str, truth: Path, prediction: Path | None) -> Pair:
    """Return a pair of files of which nothing is known but the name."""
    return Pair(case, truth, prediction, tracer_of(case), synthetic=named_synthetic(case))


def _rows_of(source: Path) -> dict[str, Row]:
    """Return the rows of a CSV; a tree has none."""
    return read_table(source, others=False) if source.is_file() else {}


def _predicted(case: str, named: str, folders: tuple[Path, Path], masks: dict[str, Path]) -> Path | None:
    """Return the mask of a case, as a table names it or else by the case's name; None where it is not there."""
    if not named:
        return masks.get(case)
    path = _located(named, *folders)
    return path if path.exists() else None


def _located(name: str, folder: Path, beside: Path) -> Path:
    """Return a file that a table names: inside the folder, or else beside the table."""
    return folder / name if (folder / name).exists() else beside / name
