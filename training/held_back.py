"""Lists of the cases that a run does not learn from, to be segmented and scored by the programs that do that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from algorithm.cases import OWN_GRID, Case
from algorithm.files import relative_path
from algorithm.outputs import remove_earlier, text_kind, written_as
from evaluation.scoring.score import csv_text
from training.preparation import PreparedData
from training.splits import Split

_FIRST_HEADINGS = ("case", "ct", "pet", "truth", "truth_grid", "patient", "tracer", "synthetic")
HEADINGS = (*_FIRST_HEADINGS, "centre", "data_set", "subset")

LIST = text_kind("a list of cases", ",".join(_FIRST_HEADINGS))  # earlier ones had no more


def write_lists(data: PreparedData, split: Split, out: Path) -> dict[str, tuple[Path, int]]:
    """Write ``validation.csv`` and ``test.csv`` into the folder of a run: lists as ``--cases`` takes them.

    Where a role has no cases, the list that an earlier run left goes.

    Parameters
    ----------
    data : PreparedData
        Of these patients only the usable cases are listed.
    split : Split
    out : Path

    Returns
    -------
    dict
        Of each role that has cases the list, and how many it names.

    Raises
    ------
    OutputError
        Something else lies there, or it cannot be written.
    """
    written = {}
    for role, patients in (("validation", split.validation), ("test", split.test)):
        usable = {case.name for case in data.cases(patients)}
        cases = [case for dataset in data.datasets for case in dataset.cases if case.name in usable]
        path = out / f"{role}.csv"
        if not cases:
            remove_earlier({path: LIST})
        else:
            with written_as(path, LIST) as temporary:
                temporary.write_text(list_text(cases, out), encoding="utf-8")
            written[role] = (path, len(cases))
    return written


def list_text(cases: Sequence[Case], folder: Path) -> str:
    """Return the list of cases with truth that a CSV in this folder is, with all that scoring asks for."""
    rows = [
        (
            case.name,
            *(relative_path(path, folder).as_posix() for path in case.files),
            OWN_GRID if case.truth_on_own_grid else "",
            case.patient,
            case.tracer or "",
            "yes" if case.synthetic else "",
            case.centre or "",
            case.data_set or "",
            case.subset or "",
        )
        for case in cases
    ]
    return csv_text([HEADINGS, *rows])
