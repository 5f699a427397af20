"""How long a fresh process takes to its first window: ``python -m algorithm predict`` cut short there.

``python -m benchmark.first_window RESULT.json OPTION...``: the options are those of ``predict``.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from algorithm.__main__ import main
from algorithm.inference import passes
from algorithm.inference.budget import seconds_since_start


def run(result: Path, options: list[str]) -> None:
    """Start the product's command line and write the seconds to the end of the imports and of the first window."""
    importlib.import_module("algorithm.commands.predict")  # so that the imports can be told from the rest
    imported_s = seconds_since_start()
    compute = passes.Pass.compute

    def first(self: passes.Pass, *arguments: Any) -> None:
        began_s = seconds_since_start()
        compute(self, *arguments)
        self.how.synchronise()
        seconds = {"imports": imported_s, "inputs": began_s, "first_window": seconds_since_start()}
        result.write_text(json.dumps(seconds))
        raise SystemExit(0)

    passes.Pass.compute = first  # type: ignore[method-assign, assignment]
    raise SystemExit(main(["predict", *options]))


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2:])
