"""The files that ``python -m evaluation`` writes, so that it knows its own again; see :mod:`algorithm.outputs`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from algorithm.errors import OutputError, UsageError
from algorithm.outputs import (
    Kind,
    check_free,
    html_kind,
    is_one_of,
    json_kind,
    png_kind,
    remove_earlier,
    text_kind,
)

METRICS = json_kind("a metrics.json", "edition", "results", "aggregates")
SCORES = text_kind("a table of scores", "case,subset,missing,")
COMPARISON_CSV = text_kind("a comparison", "metric,method,n,")
COMPARISON_MARKDOWN = text_kind("a comparison", "| Metric | Method |")
COMPARISON_LATEX = text_kind("a comparison", r"\begin{tabular}{llr")
RANKS_JSON = json_kind("a ranking", "edition", "weights", "submissions")
RANKS_CSV = text_kind("a ranking", "submission,rank,mean_rank")
LESIONS_JSON = json_kind("a count of lesions", "iou", "sizes", "cases")
LESIONS_CSV = text_kind("a table of lesions", "case,volume_ml,iou")
COHORT_PAGE = html_kind("a cohort's page")
ERROR_MAP = png_kind("an error map")
PLOT = png_kind("a plot")
EMPHASIS = text_kind("a table of emphasis", "case,synthetic,level,gain,")
LOOP_JSON = json_kind("a record of the loop", "edition", "ranked_by_area_of", "curves", "cases")
LOOP_CSV = text_kind("a table of the loop", "case,kind,step,drawn,seconds")


def make_way(places: Iterable[tuple[Path | None, Kind]], inputs: Sequence[Path | None] = ()) -> None:
    """Before any work, see that the files asked for can be written, and remove those of an earlier run.

    Parameters
    ----------
    places : pairs of Path or None, and Kind
        None: not asked for.
    inputs : sequence of Path or None
        What is read.

    Raises
    ------
    OutputError
        A file is an input, cannot be written, or lies where something else is.
    UsageError
        Two of them are one file.
    """
    wanted: dict[Path, Kind] = {}
    for path, kind in places:
        if path is None:
            continue
        if path.resolve() in {other.resolve() for other in wanted}:
            raise UsageError(f"two results have the name {path}; give each its own")
        if is_one_of(path, [each for each in inputs if each is not None]):
            raise OutputError(f"{path} would overwrite an input; choose another name")
        wanted[path] = kind
    remove_earlier(wanted)
    for path, kind in wanted.items():
        check_free(path, kind)
