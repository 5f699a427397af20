"""``python -m synthesis``: makes synthetic whole bodies from organ maps."""

from __future__ import annotations

from collections.abc import Sequence

from algorithm import console
from algorithm.console import Command

PROGRAM = "python -m synthesis"

COMMAND = Command(
    "Make synthetic whole-body PET/CT studies with tumours from organ maps",
    "synthesis.command:add_arguments",
    "synthesis.command:main",
    f"{PROGRAM} --anatomy organ_maps --out bodies --count 12 --seed 1",
    prints_result=False,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the bodies and return the exit code."""
    return console.run_alone(PROGRAM, COMMAND, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
