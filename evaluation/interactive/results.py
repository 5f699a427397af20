"""What the loop showed: areas and steps over all cases, as a table, JSON, CSV and a plot with a line per case."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from evaluation.interactive.loop import Played
from evaluation.scoring.curves import area_under_curve
from evaluation.scoring.metrics import METRICS

RANKED = {"V": ("dice", "lesion_f1"), "IV": ("dice", "fpv_ml", "fnv_ml")}
"""What each edition takes the area of: V Dice and DMM (the lesion F1 at IoU >= 0.1), IV Dice, FPV and FNV."""

SHOWN = ("dice", "lesion_f1", "lesion_sensitivity", "fpv_ml", "fnv_ml")

FALL = 0.005
"""A step that lowers a case's Dice or lesion F1 by more counts as a fall; it raises an FPV or FNV by more ml."""

_PANEL_INCH = (4.2, 3.6)


@dataclass(frozen=True)
class Curve:
    """One metric over all cases.

    Attributes
    ----------
    means : tuple of float
        Per step the mean over the cases where the metric is defined; NaN where there is none.
    area : float
        Mean of the cases' areas under the curve; a case where the metric is undefined at some step has none.
    falls : int
        Steps from one prediction to the next, of all cases, in which the value got worse by more than
        :data:`FALL`.
    moves : int
        All such steps with a value at both ends.
    """

    means: tuple[float, ...]
    area: float
    falls: int
    moves: int


def summarise(played: Sequence[Played]) -> dict[str, Curve]:
    """Return the curves of :data:`SHOWN` over cases of equally many steps."""
    return {metric: _curve([each.values(metric) for each in played], metric) for metric in SHOWN}


def _curve(rows: Sequence[Sequence[float]], metric: str) -> Curve:
    table = np.array(rows, dtype=np.float64)
    better = 1 if METRICS[metric].higher_is_better else -1
    moves = np.diff(table, axis=1) * better
    return Curve(
        means=tuple(_mean(column) for column in table.T.tolist()),
        area=_mean([_area(row) for row in rows]),
        falls=int(np.count_nonzero(moves < -FALL)),
        moves=int(np.count_nonzero(~np.isnan(moves))),
    )


def table(played: Sequence[Played]) -> str:
    """Return the table of means per step in Markdown."""
    steps = len(played[0].steps)
    lines = [
        "| Mean of | " + " | ".join(f"step {number}" for number in range(steps)) + " | area | worse steps |",
        "|---" * (steps + 3) + "|",
    ]
    for metric, curve in summarise(played).items():
        cells = [*(METRICS[metric].text(value) for value in curve.means), METRICS[metric].text(curve.area)]
        lines.append(
            f"| {METRICS[metric].heading} | " + " | ".join(cells) + f" | {curve.falls} of {curve.moves} |"
        )
    return "\n".join(lines)


def to_content(played: Sequence[Played], edition: str, **notes: Any) -> dict[str, Any]:
    """Return the content of ``interact.json``: how it was played, the curves, and every case step by step."""
    return {
        "edition": edition,
        **notes,
        "ranked_by_area_of": list(RANKED[edition]),
        "curves": {
            metric: {**vars(curve), "means": list(curve.means)} for metric, curve in summarise(played).items()
        },
        "cases": [
            {
                "case": each.case,
                "kind": each.kind,
                "areas": {metric: _area(each.values(metric)) for metric in RANKED[edition]},
                "steps": [
                    {
                        "drawn": [{"label": one.label, "points": len(one.points)} for one in step.drawn],
                        "seconds": round(step.seconds, 3),
                        "failure": step.failure,
                        **vars(step.scores),
                    }
                    for step in each.steps
                ],
            }
            for each in played
        ],
    }


def to_rows(played: Sequence[Played]) -> list[list[object]]:
    """Return the table of ``interact.csv``: a line of headings, then a line per case and step."""
    rows: list[list[object]] = [["case", "kind", "step", "drawn", "seconds", *SHOWN]]
    for each in played:
        for number, step in enumerate(each.steps):
            drawn = " ".join(one.label for one in step.drawn)
            scores = [getattr(step.scores, metric) for metric in SHOWN]
            rows.append([each.case, each.kind, number, drawn, round(step.seconds, 3), *scores])
    return rows


def draw(played: Sequence[Played], edition: str) -> Figure:
    """Draw what the edition ranks over the steps: a thin line per case, a thick one for the mean."""
    metrics = RANKED[edition]
    curves = summarise(played)
    figure = Figure(figsize=(_PANEL_INCH[0] * len(metrics), _PANEL_INCH[1]), layout="constrained")
    for axes, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        for each in played:
            axes.plot(each.values(metric), color="#8aa1b4", linewidth=0.7)
        axes.plot(curves[metric].means, color="#b2182b", linewidth=2.4, label="mean")
        axes.set_xlabel("scribbles" if edition == "V" else "clicks of each kind")
        axes.set_ylabel(METRICS[metric].heading)
        axes.set_xticks(range(len(played[0].steps)))
        axes.legend(frameon=False)
    return figure


def _area(values: Sequence[float]) -> float:
    return area_under_curve(values, len(values) - 1)


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan
