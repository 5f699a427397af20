"""Scoring a pair of masks: a visit of each component against one labelling."""

from __future__ import annotations

import statistics
import time

from benchmark import process
from benchmark.parts.rows import command
from benchmark.results import Section, short, spread, table
from benchmark.session import Session, times


def scoring(session: Session) -> Section:
    """Score a pair of masks by visiting each component over the full volume, and by one labelling."""
    answer = process.measure_once(
        "metrics_speed:scoring", lesions=session.options.lesions, shape=session.options.size[::-1]
    )
    median_s = statistics.median(answer["counted_s"])
    row = {
        "masks": times(session.options.size),
        "lesions": " and ".join(map(str, answer["lesions"])),
        "visiting each (s)": short(answer["plain_s"]),
        "one labelling (s)": spread(answer["counted_s"]),
        "times as fast": short(answer["plain_s"] / median_s),
        "all measures (s)": spread(answer["all_s"]),
        "equal": "to the last digit" if answer["equal"] else "NO",
        "command": command(session, "scoring"),
    }
    text = f"""
Dice, FPV and FNV of a pair of synthetic masks. "Visiting each": the rules of the published scripts
(`test/support/plain_metrics.py`), each component compared over the full volume, labelling not counted. "One
labelling": `evaluation.scoring.metrics.count_overlaps`, labelling and crop included; "all measures": with lesion
scores, HD95 and surface Dice. Median (smallest to largest).

{table([row])}

* Measured {time.strftime("%Y-%m-%d %H:%M %Z")}."""
    return Section("Scoring a mask", text)
