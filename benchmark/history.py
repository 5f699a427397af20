"""The history of a window's speed: a row for every time that ``patch --record`` was measured (``history.csv``).

Seconds of two machines say nothing to each other; ratios to the plain network in the same run do.
"""

from __future__ import annotations

import csv
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from algorithm.files import written_whole
from benchmark.process import ROOT

HISTORY = Path(__file__).resolve().parent / "history.csv"

_MACHINE = ("CPU", "cores", "instruction sets", "GPU", "software")
_MEASURED = (
    "patch",
    "device",
    "precision",
    "product (s)",
    "plain / product",
    "plain, memory reused / product",
    "plain float32 / product",
    "plain float32, memory reused / product",
    "difference",
)
COLUMNS = ("date", "commit", *_MACHINE, *_MEASURED)
"""Of the file. Whatever was not measured is ``-``."""


def record(path: Path, machine: Mapping[str, str], rows: Sequence[Mapping[str, str]]) -> None:
    """Append what was measured of a window to a history.

    Parameters
    ----------
    path : Path
        Made if need be.
    machine : mapping
        Its properties, see :func:`benchmark.machine.describe`.
    rows : sequence of mapping
        Of the table of ``patch``.

    Raises
    ------
    OutputError, OSError
        The file cannot be read or written.
    """
    earlier = read_history(path) if path.is_file() else []
    about = {"date": time.strftime("%Y-%m-%d"), "commit": commit(), **{name: machine[name] for name in _MACHINE}}
    with written_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, restval="-", lineterminator="\n")
        writer.writeheader()
        writer.writerows(earlier)
        writer.writerows({**about, **{name: row[name] for name in _MEASURED if name in row}} for row in rows)


def read_history(path: Path = HISTORY) -> list[dict[str, str]]:
    """Return the rows of a history, oldest first."""
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def commit() -> str:
    """Return the commit that is measured, ``+`` behind it where files differ from it; ``unknown`` without git."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--abbrev=10", "--exclude=*", "--dirty=+"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()
