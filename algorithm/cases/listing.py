"""Lists of cases: every pair of a folder or CSV, or those with truth and what is wrong with the others."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from algorithm.cases.case import Case, DataSet, Skipped
from algorithm.cases.hints import hint
from algorithm.cases.layouts import LAYOUTS, Layout
from algorithm.cases.table import cases_of_table
from algorithm.errors import MissingInputError, UsageError
from algorithm.files import refuse_unreadable

WHERE_CASES_LIE = (
    "a CSV with the columns case, ct and pet (and truth, synthetic, ...; paths relative to the CSV), or a folder "
    f"that holds {'; '.join(reader.looks for reader in LAYOUTS.values())}"
)

log = logging.getLogger(__name__)


def list_cases(source: Path) -> list[Case]:
    """List the pairs of a CSV or folder, with or without truth, sorted by name.

    Raises
    ------
    MissingInputError
        There is nothing there, or a listed file is missing.
    UsageError
        The CSV lacks a column, or two cases have the same name.
    """
    if source.is_file():
        cases = cases_of_table(source)
    elif source.is_dir():
        _require_readable(source)
        cases, skipped = _sorted_out(source, LAYOUTS, with_truth=False)
        for each in skipped:
            log.info("left out %s: %s", each.name, each.reason)
    else:
        raise MissingInputError(f"there are no cases at {source}; give {WHERE_CASES_LIE}")
    if not cases:
        advice = hint(source) if source.is_dir() else None
        raise MissingInputError(f"found no case in {source}; {advice or f'give {WHERE_CASES_LIE}'}")
    _require_unique(cases, source)
    return sorted(cases, key=lambda case: case.name)


def find_cases(source: Path, layout: Layout | None = None) -> DataSet:
    """List the cases with truth of a CSV or of a folder in one layout, and those that are incomplete.

    Parameters
    ----------
    source : Path
    layout : str, optional
        A key of :data:`algorithm.cases.layouts.LAYOUTS`. Recognised from what lies in the folder if not given.

    Raises
    ------
    MissingInputError
        The folder is not there, or holds no complete case.
    UsageError
        No layout is recognised, or two cases have the same name.
    """
    if source.is_file():
        listed = cases_of_table(source)
        cases = [case for case in listed if case.truth is not None]
        skipped = [Skipped(case.name, "the list names no truth") for case in listed if case.truth is None]
        folder, found = source.parent, "csv"
    elif source.is_dir():
        _require_readable(source)
        recognised = layout or _recognise(source)
        cases, skipped = _sorted_out(source, [recognised], with_truth=True)
        folder, found = source, recognised
    else:
        raise MissingInputError(f"the data folder {source} does not exist; give one that holds PET/CT cases")
    if not cases:
        first = (
            f"; the first of {len(skipped)} incomplete ones: {skipped[0].name}: {skipped[0].reason}"
            if skipped
            else ""
        )
        raise MissingInputError(f"no complete case of the {found} layout in {source}{first}")
    _require_unique(cases, source)
    return DataSet(folder, found, tuple(cases), tuple(skipped))


def _require_readable(folder: Path) -> None:
    """Raise MissingInputError for a folder that cannot be looked into: a search would pass it over in silence."""
    for _ in os.walk(folder, onerror=refuse_unreadable):
        pass


def _sorted_out(folder: Path, layouts: Iterable[Layout], *, with_truth: bool) -> tuple[list[Case], list[Skipped]]:
    cases: list[Case] = []
    skipped: list[Skipped] = []
    for layout in layouts:
        for found in LAYOUTS[layout].read(folder):
            judged = found.judged(folder, with_truth=with_truth)
            if isinstance(judged, Case):
                cases.append(judged)
            else:
                skipped.append(judged)
    return cases, skipped


def _recognise(folder: Path) -> Layout:
    for layout, reader in LAYOUTS.items():
        if any(True for _ in reader.read(folder)):
            return layout
    looks = "; ".join(f"{layout}: {reader.looks}" for layout, reader in LAYOUTS.items())
    advice = hint(folder) or (
        f"name the layout's top folder ({looks}), or a list of cases (CSV with the columns case, ct, pet, truth)"
    )
    raise UsageError(f"{folder} holds none of the layouts {', '.join(LAYOUTS)}; {advice}")


def _require_unique(cases: Iterable[Case], source: Path) -> None:
    repeated = [name for name, count in Counter(case.name for case in cases).items() if count > 1]
    if repeated:
        raise UsageError(f"{source} has several cases called {min(repeated)}; give each its own name")
