"""One self-contained HTML page for a cohort: statistics, distributions, sortable cases and their error maps."""

from __future__ import annotations

import argparse
import base64
import csv
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

import numpy as np

from algorithm.cases import is_yes, named_synthetic
from algorithm.errors import MissingInputError, UsageError
from algorithm.outputs import written_as
from evaluation.outputs import COHORT_PAGE, make_way
from evaluation.scoring.metrics import METRICS
from evaluation.scoring.score import summarise

TEMPLATE = Path(__file__).with_name("cohort.html")

STATISTICS = {"mean": "Mean", "median": "Median", "std": "Std. dev.", "min": "Lowest", "max": "Highest"}

_PLOT_WIDTH, _PLOT_HEIGHT, _MARGIN = 270, 70, 12
_MIDDLE, _BOX_HEIGHT, _AXIS = 28, 32, 54

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaseRow:
    """One case of the page.

    Attributes
    ----------
    case : str
    values : dict
        Metric name (a key of :data:`evaluation.scoring.metrics.METRICS`) to value; NaN where it is not defined.
    synthetic : bool
        The images are not of a patient.
    missing : bool
        There was no prediction; the values are what the edition counts then.
    picture : bytes or None
        The error map, PNG.
    """

    case: str
    values: dict[str, float]
    synthetic: bool = False
    missing: bool = False
    picture: bytes | None = None


def read_rows(scores: Path, pictures: Path | None = None) -> list[CaseRow]:
    """Read the table that ``evaluation score --csv`` writes, and the pictures ``CASE.png`` where there are any.

    A case is synthetic if its name starts with "synthetic" or a column ``synthetic`` says so.

    Raises
    ------
    MissingInputError
        The table cannot be read, or the folder of pictures is not there.
    UsageError
        The table has no column ``case``, no metric, or a cell that is no number.
    """
    if pictures is not None and not pictures.is_dir():
        raise MissingInputError(f"there is no folder of pictures {pictures}; make it with `evaluation pictures`")
    try:
        with scores.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            columns, cells = list(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MissingInputError(f"cannot read the scores {scores}: {error}") from error
    metrics = [name for name in METRICS if name in columns]
    if "case" not in columns or not metrics:
        raise UsageError(
            f"{scores} must have the column case and metrics, as `evaluation score --csv` writes them"
        )
    return [_row(row, metrics, scores, pictures) for row in cells]


def page(rows: Sequence[CaseRow], title: str) -> str:
    """Return the page; it needs neither a server nor any other file."""
    metrics = [name for name in METRICS if any(name in row.values for row in rows)]
    synthetic = sum(row.synthetic for row in rows)
    missing = [row.case for row in rows if row.missing]
    notes = []
    if synthetic:
        which = "All cases are" if synthetic == len(rows) else f"{synthetic} of the {len(rows)} cases are"
        notes.append(f"{which} <strong>synthetic</strong>: their figures say nothing about patients.")
    if missing:
        notes.append(f"No prediction for {escape(', '.join(missing))}; counted as the edition says.")
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(title),
        subtitle=f"{_count(len(rows), 'case')}. H2ASeg tumour segmentation in PET/CT against the true masks.",
        notice="".join(f'<p class="warning" role="note">{note}</p>' for note in notes),
        statistics="".join(_statistics(group, members, metrics) for group, members in _groups(rows)) or _nothing(),
        plots="".join(_distributions(group, members, metrics) for group, members in _groups(rows)) or _nothing(),
        table=_table(rows, metrics),
        pictures=_gallery(rows),
    )


def write_page(rows: Sequence[CaseRow], title: str, path: Path) -> None:
    """Write the page whole.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    with written_as(path, COHORT_PAGE) as temporary:
        temporary.write_text(page(rows, title), encoding="utf-8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m evaluation cohort``."""
    parser.add_argument(
        "--scores", type=Path, required=True, metavar="CSV", help="Table that `score --csv` wrote."
    )
    parser.add_argument(
        "--pictures", type=Path, metavar="DIR", help="Folder that `pictures --out` wrote, with CASE.png."
    )
    parser.add_argument("--title", default="Cohort", help="Heading of the page.")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="The page, an HTML file.")


def main(args: argparse.Namespace) -> int:
    """Write the page; returns the exit code."""
    make_way([(args.out, COHORT_PAGE)], [args.scores, args.pictures])
    rows = read_rows(args.scores, args.pictures)
    write_page(rows, args.title, args.out)
    log.info("wrote %s with %s", args.out, _count(len(rows), "case"))
    return 0


def _row(cells: dict[str, str], metrics: Sequence[str], scores: Path, pictures: Path | None) -> CaseRow:
    case = cells["case"]
    if not case:
        raise UsageError(f"{scores} has a row without a case: {','.join(map(str, cells.values()))[:200]}")
    values = {}
    for name in metrics:
        text = cells[name] or "nan"
        try:
            values[name] = float(text)
        except ValueError as error:
            raise UsageError(f"{scores} gives {text!r} as the {name} of {case}, which is not a number") from error
        if math.isinf(values[name]):
            raise UsageError(f"{scores} gives {text!r} as the {name} of {case}, which is not finite")
    picture = pictures / f"{case}.png" if pictures is not None else None
    return CaseRow(
        case=case,
        values=values,
        synthetic=named_synthetic(case) or is_yes(cells.get("synthetic") or ""),
        missing=is_yes(cells.get("missing") or ""),
        picture=picture.read_bytes() if picture is not None and picture.is_file() else None,
    )


def _groups(rows: Sequence[CaseRow]) -> list[tuple[str, list[CaseRow]]]:
    """Real and synthetic cases apart, so that no statistic mixes them."""
    real, synthetic = [row for row in rows if not row.synthetic], [row for row in rows if row.synthetic]
    groups = [(_count(len(real), "case"), real), (_count(len(synthetic), "synthetic case"), synthetic)]
    return [(text, members) for text, members in groups if members]


def _statistics(group: str, rows: Sequence[CaseRow], metrics: Sequence[str]) -> str:
    headings = "".join(
        f'<th scope="col">{heading}</th>' for heading in ("Metric", *STATISTICS.values(), "Defined")
    )
    lines = []
    for name in metrics:
        summary = summarise([row.values.get(name, math.nan) for row in rows])
        cells = "".join(f"<td>{METRICS[name].text(summary[key])}</td>" for key in STATISTICS)
        heading = escape(METRICS[name].heading)
        lines.append(
            f'<tr><th scope="row">{heading}</th>{cells}<td>{summary["count"]:.0f} of {len(rows)}</td></tr>'
        )
    return (
        f'<div class="scroll"><table><caption>Over {group}</caption>'
        f"<thead><tr>{headings}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _table(rows: Sequence[CaseRow], metrics: Sequence[str]) -> str:
    headings = ["Case", *(METRICS[name].heading for name in metrics)]
    head = "".join(f'<th scope="col"><button type="button">{escape(text)}</button></th>' for text in headings)
    lines = []
    for number, row in enumerate(rows):
        name = f'<a href="#picture-{number}">{escape(row.case)}</a>' if row.picture else escape(row.case)
        badges = _badge("synthetic", row.synthetic) + _badge("missing", row.missing)
        cells = "".join(_cell(metric, row.values.get(metric, math.nan)) for metric in metrics)
        first = f'<th scope="row" data-value="{escape(row.case)}">{name}{badges}</th>'
        lines.append(f'<tr data-picture="picture-{number}">{first}{cells}</tr>')
    return f'<table id="case-table"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def _cell(metric: str, value: float) -> str:
    exact = "" if math.isnan(value) else repr(value)
    return f'<td data-value="{exact}">{METRICS[metric].text(value)}</td>'


def _badge(text: str, shown: bool) -> str:
    return f'<span class="badge">{text}</span>' if shown else ""


def _gallery(rows: Sequence[CaseRow]) -> str:
    figures = []
    for number, row in enumerate(rows):
        if row.picture is None:
            continue
        case = escape(row.case)
        content = base64.b64encode(row.picture).decode("ascii")
        figures.append(
            f'<figure class="case" id="picture-{number}">'
            f"<figcaption>{case}{_badge('synthetic', row.synthetic)}</figcaption>"
            f'<img loading="lazy" alt="Error map of {case}: {_in_words(row)}" '
            f'src="data:image/png;base64,{content}">'
            "</figure>"
        )
    return f'<div id="gallery">{"".join(figures)}</div>' + ("" if figures else _nothing("No pictures were given."))


def _in_words(row: CaseRow) -> str:
    """Say in words what the picture's numbers are."""
    defined = [(name, row.values[name]) for name in METRICS if not math.isnan(row.values.get(name, math.nan))]
    return escape(", ".join(f"{METRICS[name].heading} {METRICS[name].text(value)}" for name, value in defined))


def _distributions(group: str, rows: Sequence[CaseRow], metrics: Sequence[str]) -> str:
    plots = "".join(_plot(name, rows) for name in metrics)
    return f'<h3>{group}</h3><div class="plots">{plots}</div>'


def _plot(metric: str, rows: Sequence[CaseRow]) -> str:
    """Draw a strip of the cases' values with their quartiles as inline SVG."""
    shown = METRICS[metric]
    points = [(row.case, value) for row in rows if math.isfinite(value := row.values.get(metric, math.nan))]
    if not points:
        return _captioned(shown.heading, "not defined")
    values = np.array([value for _, value in points])
    first, median, third = (float(value) for value in np.percentile(values, [25, 50, 75]))
    low, high = min(0.0, float(values.min())), max(1.0, float(values.max()))

    def across(value: float) -> float:
        return round(_MARGIN + (value - low) / (high - low) * (_PLOT_WIDTH - 2 * _MARGIN), 1)

    # Golden-ratio steps keep neighbours apart, the same way every time.
    dots = "".join(
        f'<circle cx="{across(value)}" cy="{_MIDDLE + (number * 0.618034 % 1 - 0.5) * _BOX_HEIGHT:.1f}" r="3">'
        f"<title>{escape(case)}: {shown.text(value)}</title></circle>"
        for number, (case, value) in enumerate(points)
    )
    words = f"{shown.heading} of {_count(len(points), 'case')}: median {shown.text(median)}"
    words += f", middle half {shown.text(first)} to {shown.text(third)}"
    top, bottom, right = _MIDDLE - _BOX_HEIGHT / 2, _MIDDLE + _BOX_HEIGHT / 2, _PLOT_WIDTH - _MARGIN
    width = max(across(third) - across(first), 0.5)
    return _captioned(
        shown.heading,
        f"median {shown.text(median)}",
        f'<svg viewBox="0 0 {_PLOT_WIDTH} {_PLOT_HEIGHT}" role="img" aria-label="{escape(words)}">'
        f'<rect class="box" x="{across(first)}" y="{top}" width="{width:.1f}" height="{_BOX_HEIGHT}"/>'
        f'<line class="median" x1="{across(median)}" x2="{across(median)}" y1="{top}" y2="{bottom}"/>{dots}'
        f'<line class="axis" x1="{_MARGIN}" x2="{right}" y1="{_AXIS}" y2="{_AXIS}"/>'
        f'<text x="{_MARGIN}" y="{_AXIS + 12}">{low:.4g}</text>'
        f'<text x="{right}" y="{_AXIS + 12}" text-anchor="end">{high:.4g}</text></svg>',
    )


def _captioned(heading: str, text: str, drawing: str = "") -> str:
    caption = f'<strong>{escape(heading)}</strong><span class="quiet">{text}</span>'
    return f'<figure class="plot"><figcaption>{caption}</figcaption>{drawing}</figure>'


def _nothing(text: str = "There are no cases.") -> str:
    return f'<p class="quiet">{text}</p>'


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
