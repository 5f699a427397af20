"""What a cohort's results hold, for the tests that look at them."""

from __future__ import annotations

import csv
from pathlib import Path

QUICK = ("--device", "cpu", "--precision", "float32", "--flips", "1", "--no-html")
PATIENTS = ("anna", "bert", "carl")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def without_seconds(path: Path) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows(path)]


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
