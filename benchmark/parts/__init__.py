"""The parts of the benchmark: each takes the session, measures, and returns a section of the results."""

from __future__ import annotations

from collections.abc import Callable

from benchmark.parts.beside import neighbour
from benchmark.parts.focused_flips import flips
from benchmark.parts.gpu import gpu
from benchmark.parts.growing import growth
from benchmark.parts.one_patch import patch
from benchmark.parts.reduced_precision import agreement
from benchmark.parts.scoring_speed import scoring
from benchmark.parts.server import serving
from benchmark.parts.start import startup
from benchmark.parts.time_limit import deadline
from benchmark.parts.whole_body import body
from benchmark.results import Section
from benchmark.session import Session

GPU = "gpu"
"""The part that only a machine with a GPU does unasked."""

PARTS: dict[str, Callable[[Session], Section]] = {
    "patch": patch,
    "body": body,
    "startup": startup,
    "growth": growth,
    "agreement": agreement,
    "flips": flips,
    "deadline": deadline,
    "serving": serving,
    "neighbour": neighbour,
    "scoring": scoring,
    GPU: gpu,
}
