"""What a cohort's results hold, for the tests that look at them."""

from __future__ import annotations

import csv
import re
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


def dates_in(text: str) -> list[str]:
    """Return dates of eight digits, as DICOM writes them, outside of pictures and hashes."""
    plain = re.sub(r"base64,[\w+/=]+|\b[0-9a-f]{32,}\b", "", text)
    return re.findall(r"(?<![\w.])(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\w*", plain)
