"""The command line of the evaluation: one sub-command per module, imported only when it is asked for."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from algorithm.errors import InstallationError, UserError

# Sub-command: (module with add_arguments(parser) and main(args) -> int, one line of help).
COMMANDS = {
    "score": ("evaluation.scoring.score", "score masks against the truth by an edition's rules"),
    "compare": (
        "evaluation.scoring.compare",
        "compare several folders of masks: means, tests, intervals",
    ),
    "rank": ("evaluation.scoring.rank", "rank several submissions as an edition does"),
    "lesions": ("evaluation.scoring.lesions", "lesions found by size, false positives by organ"),
    "container": ("evaluation.container", "run as a grand-challenge evaluation container"),
    "emphasis": ("evaluation.figures.emphasis", "report how strongly the network weights PET and CT"),
    "pictures": ("evaluation.figures.pictures", "draw error maps"),
    "cohort": ("evaluation.figures.cohort", "write one page with a cohort's table, distributions and pictures"),
    "handover": ("evaluation.handover.make", "make a hand-over bundle"),
    "verify": ("evaluation.handover.verify", "repeat a hand-over bundle's inference and give a verdict"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command; return 0, or the exit code of the user's mistake (one sentence on stderr)."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="commands:\n" + "\n".join(f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items()),
    )
    parser.add_argument("command", choices=COMMANDS, metavar="command", help="one of the commands below")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)

    module_name, text = COMMANDS[chosen.command]
    try:
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            raise InstallationError(
                f"the command {chosen.command!r} needs the module {error.name}, which is not installed; "
                "install requirements-train.txt"
            ) from error
        command_parser = argparse.ArgumentParser(prog=f"python -m evaluation {chosen.command}", description=text)
        module.add_arguments(command_parser)
        return int(module.main(command_parser.parse_args(chosen.rest)))
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
