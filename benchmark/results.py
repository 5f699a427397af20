"""Tables in Markdown, and the file that collects them."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from algorithm.files import written_whole
from algorithm.outputs import text_kind

NOT_THERE = "-"
OF_A_GPU = "On a GPU: "
"""So begin titles of sections that say themselves which machine they are of: they stay beside any other's."""
_MACHINE = "Machine"
RESULTS = text_kind("a file of benchmark results", "# Benchmarks\n\nWritten by `python -m benchmark`")
_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Section:
    """A part of the results.

    Attributes
    ----------
    title : str
    text : str
        Markdown.
    """

    title: str
    text: str

    def __str__(self) -> str:
        return f"## {self.title}\n\n{self.text.strip()}\n"


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return a Markdown table; its header are the keys of all rows, in the order in which they come."""
    header = list(dict.fromkeys(name for row in rows for name in row))
    lines = [header, ["---"] * len(header), *([row.get(name, NOT_THERE) for name in header] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(seconds: Sequence[float]) -> str:
    """Return median, smallest and largest of some seconds."""
    low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
    return f"{short(middle)} ({short(low)} to {short(high)})" if len(seconds) > 1 else short(middle)


def short(number: float) -> str:
    """Return a number with three digits that count."""
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"


def gib(mib: float | None) -> str:
    """Return MiB as GiB."""
    return NOT_THERE if mib is None else f"{mib / 1024:.2f}"


def write_results(path: Path, head: str, machine: str, measured: Sequence[Section]) -> list[str]:
    """Write the file; sections of it that were not measured now stay if they are of the same machine.

    Those of a GPU say themselves which machine they are of: they stay in any case, and a run that measures nothing
    else leaves all others.

    Returns
    -------
    list of str
        The titles that were dropped because they are of another machine.
    """
    old = _sections(path.read_text(encoding="utf-8")) if path.is_file() else []
    new = {section.title for section in measured}
    described = next((section for section in old if section.title == _MACHINE), None)
    if described is None or not all(title.startswith(OF_A_GPU) for title in new):
        described = Section(_MACHINE, machine.strip())
    same = described in old
    others = [section for section in old if section.title not in (_MACHINE, *new)]
    kept = [section for section in others if same or section.title.startswith(OF_A_GPU)]
    with written_whole(path) as temporary:
        sections = [described, *kept, *measured]
        temporary.write_text("\n".join([head.strip() + "\n", *map(str, sections)]), encoding="utf-8")
    return [section.title for section in others if section not in kept]


def _sections(text: str) -> list[Section]:
    _, *pieces = _HEADING.split(text)
    return [Section(title, body.strip()) for title, body in zip(pieces[::2], pieces[1::2], strict=True)]
