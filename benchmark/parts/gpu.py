"""All that a first user with a GPU should measure, within minutes that are shared out among the tables."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from algorithm.cases import list_cases
from benchmark.parts.clock import Clock
from benchmark.parts.gpu_rows import SETTINGS, Case, Tables
from benchmark.parts.one_patch import HOW
from benchmark.parts.rows import Row, body_text, command
from benchmark.results import OF_A_GPU, Section, table
from benchmark.session import Session

_PAIRS = 3  # of the user's, the first


@dataclass(frozen=True)
class _Table:
    """One table.

    Attributes
    ----------
    title : str
    share : float
        Of all the minutes.
    words : str
        What it shows; ``{precision}`` and ``{repetitions}`` are filled in.
    rows : callable
        Measures them.
    """

    title: str
    share: float
    words: str
    rows: Callable[[Tables], list[Row]]


_TABLES = (
    _Table(
        "What the device does at its best",
        0.05,
        """A large matrix product or convolution, whichever is faster, and a large copy: the floors come from them.
A GPU may round float32 in them, as torch lets it in convolutions; the product's float32 is not rounded.""",
        Tables.best,
    ),
    _Table("One patch", 0.25, HOW, Tables.patches),
    _Table(
        "Whole body",
        0.27,
        """From files to mask, each row a fresh process: loading the network and the device's start count. The box
is on. MONAI is `sliding_window_inference` over the plain network; for the windows that were not computed their
time is added. "Times the product": end to end.""",
        Tables.bodies,
    ),
    _Table(
        "Windows at a time",
        0.1,
        """The network on a row of windows, {precision}. Peaks are the device's, volume and sums included: in use,
and taken by torch's allocator, CUDA's own left out.""",
        Tables.ladder,
    ),
    _Table(
        "Less device memory",
        0.1,
        """That body, one flip, {precision}, by one process whose device memory is capped
(`torch.cuda.set_per_process_memory_fraction`): first without a cap, then at shares of what was taken. "Steps
taken": what the product did for want of memory. The mask is compared with the first row's of its setting.""",
        Tables.capped,
    ),
    _Table(
        "Agreement with the CPU",
        0.11,
        "Dice of the mask with the one that the CPU computes in float32, one flip, setting `default`.",
        Tables.agreement,
    ),
    _Table(
        "Tuning",
        0.07,
        """What a server tries before it is healthy (`algorithm/inference/tuner.py`), one change at a time upon the
best so far.""",
        Tables.tuning,
    ),
    _Table(
        "With and without",
        0.05,
        """That body, four flips, kernels warm, by the way that tuning chose, with two of its switches set in turn.
The mask is compared with the first row's of its setting.""",
        Tables.switches,
    ),
)


def gpu(session: Session) -> Section:
    """Measure a GPU; with ``--device cpu`` rehearse it, as far as a CPU has what is measured."""
    device, minutes = session.options.device or "cuda", session.options.minutes
    tables = Tables(session, device, Clock(minutes), _pairs(session))
    filled_in = {"precision": tables.precision, "repetitions": session.options.repetitions}
    parts = []
    for each in _TABLES:
        tables.clock.begin(each.title, each.share)
        parts.append(f"### {each.title}\n\n{each.words.format(**filled_in)}\n\n{table(each.rows(tables))}")
    machine = "\n".join(f"* {name}: {value}" for name, value in session.machine.items())
    measured = "\n\n".join(parts)
    how = command(session, "gpu", device=device)
    text = f"""
{machine}
{body_text(session, SETTINGS)}
* Measured {time.strftime("%Y-%m-%d %H:%M %Z")} within {minutes:g} minutes by {how}.
  What did not fit is named in its table.

{measured}"""
    title = OF_A_GPU + session.machine["GPU"] if device == "cuda" else "A CPU in place of a GPU"
    return Section(title, text)


def _pairs(session: Session) -> list[Case]:
    """Return the first of the user's pairs; none where there are none."""
    if session.cases is None:
        return []
    return [(case.name, str(case.ct), str(case.pet)) for case in list_cases(Path(session.cases))[:_PAIRS]]
