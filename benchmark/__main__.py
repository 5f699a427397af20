"""Benchmarks of the product against the published form: ``python -m benchmark [PART...]``."""

from __future__ import annotations

from collections.abc import Sequence

from algorithm import console

PROGRAM = "python -m benchmark"

COMMAND = console.Command(
    "Measure the product against the published form; print tables in Markdown and keep them in a file.\n\n"
    "Sections of parts that were not measured stay in the file as long as the machine is the same. Measure on a "
    "machine that does nothing else",
    "benchmark.options:add_arguments",
    "benchmark.run:main",
    f"{PROGRAM} patch --device cpu --precision bfloat16",
    needs="requirements-dev.txt",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the chosen parts and return the exit code."""
    return console.run_alone(PROGRAM, COMMAND, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
