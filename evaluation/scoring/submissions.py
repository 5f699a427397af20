"""What ``python -m evaluation rank`` reads: submissions as tables of scores or as folders of masks.

A **table** is the CSV that ``python -m evaluation score --csv`` writes, one row per case: ``case``, the metrics by
the names of :class:`evaluation.scoring.metrics.Scores` (an empty cell is NaN), and the ``edition`` whose rules
were applied, which may be missing; other columns are ignored. For the interactive editions it has one row per case
and step, and a column ``step`` from 0 to 10 (IV) or 5 (V).

A **folder** holds one mask per case, named as the truths are; for the interactive editions it holds the folders
``step_0`` to ``step_10`` (IV) or ``step_5`` (V) with such masks.

The **table of cases** (:mod:`algorithm.cases`) has ``tracer`` and ``centre`` for editions III and IV, and may have
``data_set``, within which V pools its lesion F1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from algorithm.cases import Row, read_rows, require_column
from algorithm.errors import MissingInputError, UsageError
from algorithm.formats.stored import shown
from evaluation.scoring.editions import RULES
from evaluation.scoring.pairs import find_pairs
from evaluation.scoring.ranking import Cases, Scheme, scheme_of
from evaluation.scoring.score import score_pairs

COUNTS = ("truth_lesions", "found_lesions", "false_lesions")
"""Columns that only the pooled lesion F1 needs; a table may lack them."""


def read_submission(path: Path, edition: str, truth: Path | None = None) -> Cases:
    """Read one submission, a table or a folder.

    Parameters
    ----------
    path : Path
    edition : str
        A key of :data:`evaluation.scoring.ranking.SCHEMES`; decides the metrics, and how masks are scored.
    truth : Path, optional
        Folder of true masks, needed where ``path`` is a folder.

    Raises
    ------
    MissingInputError
        There is nothing at ``path``, or it cannot be read.
    UsageError
        A table lacks a column, a step or a number, has a row twice, or was scored as another edition does; a
        folder comes without a truth.
    """
    if _there(path, Path.is_dir):
        if truth is None:
            raise UsageError(
                f"the folder of masks {path} needs the true masks; give their folder (--truth) or a CSV of scores"
            )
        return _score_folder(path, edition, truth)
    if not _there(path, Path.is_file):
        raise MissingInputError(f"there is no submission at {path}; give a CSV of scores or a folder of masks")
    return _from_rows(path, read_rows(path), scheme_of(edition), edition)


def choose_cases(name: str, cases: Cases, listed: Iterable[str]) -> Cases:
    """Return the listed cases of a submission; UsageError if it lacks one."""
    chosen = list(listed)
    missing = [case for case in chosen if case not in cases]
    if missing:
        raise UsageError(
            f"the submission {name} lacks {len(missing)} of the listed cases (the first is {missing[0]}); add "
            "them, or take them out of the table of cases"
        )
    return {case: cases[case] for case in chosen}


def _score_folder(folder: Path, edition: str, truth: Path) -> Cases:
    """Score a folder of masks, or the folders of an interactive edition's steps."""
    scheme = scheme_of(edition)
    folders = [folder]
    if scheme.last_step:
        folders = [folder / f"step_{step}" for step in range(scheme.last_step + 1)]
        for step_folder in folders:
            if not _there(step_folder, Path.is_dir):
                raise MissingInputError(
                    f"edition {edition} scores the steps 0 to {scheme.last_step}, but there is no folder "
                    f"{step_folder}; give one folder of masks per step"
                )
    curves: dict[str, dict[str, list[float]]] = {}
    for step_folder in folders:
        pairs, _ = find_pairs(truth, step_folder)
        for result in score_pairs(pairs, RULES[edition], surfaces=False):  # which no edition ranks
            curve = curves.setdefault(result.case, {name: [] for name in _columns(scheme)})
            for name, values in curve.items():
                values.append(float(getattr(result.scores, name)))
    return curves


def _from_rows(path: Path, rows: list[Row], scheme: Scheme, edition: str) -> Cases:
    """Sort a table's rows by case and step."""
    needed = {measure.metric for measure in scheme.measures}
    for column in ("case", *sorted(needed)):
        require_column(path, rows, column)
    scored_by = {row.get("edition", "").strip() for row in rows} - {""}
    others = [name for name in sorted(scored_by) if RULES.get(name) != RULES[edition]]  # I has the rules of II
    if others:
        raise UsageError(
            f"{path} was scored by the rules of edition {shown(others[0])}, not {edition}; score the masks "
            f"again with --edition {edition}"
        )
    if not scheme.last_step and "step" in rows[0]:
        raise UsageError(
            f"{path} has a column step, but edition {edition} scores one prediction per case; keep the rows of "
            "one step and leave the column out"
        )
    if scheme.last_step:
        require_column(path, rows, "step")
    names = [name for name in _columns(scheme) if name in rows[0]]
    steps: dict[str, dict[int, dict[str, float]]] = {}
    for row in rows:
        case = row["case"]
        step = _step(path, row, scheme.last_step) if scheme.last_step else 0
        by_step = steps.setdefault(case, {})
        if step in by_step:
            raise UsageError(
                f"{path} has the case {case}{f' at step {step}' if scheme.last_step else ''} twice; keep one row"
            )
        by_step[step] = {name: _number(path, row, name) for name in names}
    for case, by_step in steps.items():
        missing = sorted(set(range(scheme.last_step + 1)) - set(by_step))
        if missing:
            raise UsageError(
                f"the case {case} in {path} has no step {missing[0]}, but edition {edition} scores the steps 0 to "
                f"{scheme.last_step}; give a row for each"
            )
    return {
        case: {name: [by_step[step][name] for step in sorted(by_step)] for name in names}
        for case, by_step in steps.items()
    }


def _columns(scheme: Scheme) -> list[str]:
    """Return the metrics that an edition ranks, each once, and the counts of lesions."""
    return list(dict.fromkeys([*(measure.metric for measure in scheme.measures), *COUNTS]))


def _there(path: Path, kind: Callable[[Path], bool]) -> bool:
    """Ask whether a path is a folder or a regular file; one that the system refuses to look at is not."""
    try:
        return kind(path)
    except OSError:
        return False


def _step(path: Path, row: Mapping[str, str], last: int) -> int:
    text = row["step"].strip()
    if text not in map(str, range(last + 1)):
        raise UsageError(
            f"a step must be a whole number from 0 to {last}, got {text!r} for the case {row['case']} in {path}"
        )
    return int(text)


def _number(path: Path, row: Mapping[str, str], name: str) -> float:
    """Read a cell; an empty one is NaN, as in the tables that this project writes."""
    text = row[name].strip()
    try:
        value = float(text) if text else math.nan
    except ValueError:
        value = math.inf
    if math.isinf(value):
        raise UsageError(f"{name} must be a finite number or empty, got {text!r} for {row['case']} in {path}")
    return value
