"""``python -m training``: makes weights and measures what they learned."""

from __future__ import annotations

from collections.abc import Sequence

from algorithm import console
from algorithm.console import Command

PROGRAM = "python -m training"
DESCRIPTION = "Trains H2ASeg on any tree of studies and measures what it learned."


def _command(module: str, options: str, purpose: str, example: str) -> Command:
    return Command(
        purpose,
        f"training.options:{options}",
        f"training.{module}:main",
        example,
        "requirements-train.txt",
        prints_result=module == "resampling",
    )


COMMANDS = {
    "fit": _command(
        "fit",
        "add_fit",
        "Train one network",
        f"{PROGRAM} fit --cases FDG-PET-CT-Lesions --cache cache --out runs/autopet --steps 100000",
    ),
    "crossvalidate": _command(
        "crossvalidation",
        "add_crossvalidate",
        "Train and score k folds, with or without the network's modules",
        f"{PROGRAM} crossvalidate --cases studies --cache cache --out runs/cv --folds 5",
    ),
    "blend": _command(
        "blend",
        "add_blend",
        "Go part of the way back from a checkpoint to the one that its training began with",
        f"{PROGRAM} blend --first runs/base/last.json --last runs/fine/last.json --share 0.5 --out runs/blend",
    ),
    "precision": _command(
        "precision",
        "add_precision",
        "Prove which number formats a network may be computed in",
        f"{PROGRAM} precision --weights runs/autopet/last.json --cases validation",
    ),
    "cleanup": _command(
        "cleanup",
        "add_cleanup",
        "Choose threshold and clean-up of the mask on validation cases",
        f"{PROGRAM} cleanup --weights runs/autopet/last.json --cases validation --out cleanup.csv --write",
    ),
    "mistakes": _command(
        "mining",
        "add_mistakes",
        "List where a network errs on training cases, for fit --mistakes",
        f"{PROGRAM} mistakes --weights runs/base/last.json --cases studies --cache cache --out mistakes.json",
    ),
    "resampling": _command(
        "resampling",
        "add_resampling",
        "Measure what coarser grids cost",
        f"{PROGRAM} resampling --cases studies --spacing 4 4 4",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    return console.main(PROGRAM, DESCRIPTION, COMMANDS, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
