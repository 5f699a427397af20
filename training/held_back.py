"""Lists of the cases that a run does not learn from, to be segmented and scored by the programs that do that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from algorithm.cases import Case
from algorithm.files import relative_path
from algorithm.outputs import remove_earlier, text_kind, written_as
from evaluation.scoring.score import csv_text
from training.preparation import PreparedData
from training.splits import Split

HEADINGS = ("case", "ct", "pet", "truth", "truth_grid", "patient", "tracer", "synthetic")

LIST = text_kind("a list of cases", ",".join(HEADINGS))


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
                temporary.write_text(csv_text([HEADINGS, *_rows(cases, out)]), encoding="utf-8")
            written[role] = (path, len(cases))
    return written


def _rows(cases: Sequence[Case], out: Path) -> list[tuple[str, ...]]:
    return [
        (
            case.name,
            *(relative_path(path, out).as_posix() for path in case.files),
            "own" if case.truth_on_own_grid else "",
            case.patient,
            case.tracer or "",
            "yes" if case.synthetic else "",
        )
        for case in cases
    ]
