"""The history of a window's speed: a row for each that ``patch --record`` measured.

Seconds of two machines say nothing to each other; the ratio to the plain network in the same run does.
"""

from __future__ import annotations

import csv
import io
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from algorithm.errors import OutputError
from algorithm.files import written_whole
from benchmark.process import ROOT

HISTORY = Path(__file__).resolve().parent / "history.csv"

COLUMNS = (
    "date_utc",
    "commit",
    "cpu",
    "gpu",
    "instruction_sets",
    "threads",
    "patch",
    "device",
    "precision",
    "plain_s",
    "product_s",
    "ratio",
)
"""Of the file; what they hold stands in docs/formats.md."""

_WRITTEN_HERE = ("benchmark/history.csv", "benchmark/RESULTS.md")  # by what is measured: no change of the code


def figures(
    patch: str, device: str, precision: str, plain_s: Sequence[float], product_s: Sequence[float]
) -> dict[str, str]:
    """Return a row's figures from the seconds of the plain network and of the product; medians are kept."""
    plain, product = statistics.median(plain_s), statistics.median(product_s)
    return {
        "patch": patch,
        "device": device,
        "precision": precision,
        "plain_s": f"{plain:.4g}",
        "product_s": f"{product:.4g}",
        "ratio": f"{plain / product:.3g}",
    }


def append(path: Path, processors: Mapping[str, str], rows: Sequence[Mapping[str, str]]) -> None:
    """Add rows to a history, which is made if need be; what it holds stays as it is.

    Parameters
    ----------
    path : Path
    processors : mapping
        Of the machine: ``cpu``, ``gpu``, ``instruction_sets``, ``threads``.
    rows : sequence of mapping
        From :func:`figures`.

    Raises
    ------
    OutputError
        The file is no history, or cannot be read or written.
    """
    earlier = earlier_text(path)
    added = io.StringIO()
    writer = csv.DictWriter(added, COLUMNS, lineterminator="\n")
    if not earlier:
        writer.writeheader()
    about = {"date_utc": f"{datetime.now(UTC):%Y-%m-%d}", "commit": commit(), **processors}
    writer.writerows({**about, **row} for row in rows)
    with written_whole(path) as temporary:
        temporary.write_text(earlier + added.getvalue(), encoding="utf-8")


def earlier_text(path: Path) -> str:
    """Return what a history holds, its last line ended; nothing where there is none.

    Raises
    ------
    OutputError
        The file is no history, or cannot be read.
    """
    if not path.exists():
        return ""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise OutputError(f"cannot add to the history {path}: {reason}; name another by --history") from error
    if not text:
        return ""
    header = text.splitlines()[0]
    if header != ",".join(COLUMNS):
        raise OutputError(
            f"the history {path} has other columns than {','.join(COLUMNS)}, got {header[:200]!r}; "
            "move it away, or name another by --history"
        )
    return text if text.endswith("\n") else text + "\n"


def commit(root: Path = ROOT) -> str:
    """Return the short hash of what is measured, ``+`` behind it where files differ; empty outside a checkout."""
    try:
        top, _, short = _git(root, "rev-parse", "--show-toplevel", "--short=10", "HEAD").strip().partition("\n")
        if Path(top).resolve() != root.resolve():  # of a checkout around this one
            return ""
        others = (f":(exclude){name}" for name in _WRITTEN_HERE)
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *others)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{short}+" if changed.strip() else short


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout
