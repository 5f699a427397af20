"""How long a fresh process takes to its first window: ``python -m algorithm predict`` cut short there.

``python -m benchmark.first_window RESULT.json OPTION...``: the options are those of ``predict``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from algorithm import commands
from algorithm.__main__ import main
from algorithm.inference import predictor
from algorithm.inference.budget import seconds_since_start


class _Reached(BaseException):
    """The first window is done."""


def run(result: Path, options: list[str]) -> None:
    """Start the product's command line and write the seconds to the end of the imports and of the first window."""
    assert commands.COMMANDS  # imported here, so that the imports can be told from the rest
    imported_s = seconds_since_start()
    compute = predictor.Predictor.probability

    def first(self: predictor.Predictor, *arguments: Any) -> None:
        began_s = seconds_since_start()
        compute(self, *arguments)
        self._synchronise()
        seconds = {"imports": imported_s, "inputs": began_s, "first_window": seconds_since_start()}
        result.write_text(json.dumps(seconds))
        raise _Reached

    predictor.Predictor.probability = first  # type: ignore[method-assign, assignment]
    try:
        raise SystemExit(main(["predict", *options]))
    except _Reached:
        return


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2:])
