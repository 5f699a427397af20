"""Command line of training: ``python -m training COMMAND --help``."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from algorithm.errors import UserError

# Command: the module that has its add_arguments(parser) and main(args), and what it does.
COMMANDS = {
    "fit": ("training.fit", "train one network"),
    "crossvalidate": (
        "training.crossvalidation",
        "train and score k folds, with or without the network's modules",
    ),
    "resampling": ("training.resampling", "measure what coarser grids cost"),
    "synthesize": ("synthesis.study", "make synthetic whole bodies from organ maps"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a user's mistake ends in one sentence on stderr and the exit code of its kind."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(
        prog="python -m training", description="Train H2ASeg and measure what it learned."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, purpose) in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.")
        if name in arguments:  # the other commands' modules need not be loaded
            importlib.import_module(module).add_arguments(command)
    args = parser.parse_args(arguments)
    try:
        return int(importlib.import_module(COMMANDS[args.command][0]).main(args))
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
