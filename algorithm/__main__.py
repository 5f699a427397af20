"""Command line of the container: ``run`` (one grand-challenge job), ``predict``, ``preflight``, ``weights``.

Progress goes to stdout. A user's mistake ends in one sentence on stderr and exit code 2 (input) or 3
(installation). Every option can also be given as an environment variable ``H2ASEG_<OPTION>``, since
grand-challenge passes no arguments; the command line wins.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from algorithm.errors import UsageError, UserError

_PREFIX = "H2ASEG_"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    warnings.showwarning = _warn_on_stdout
    try:
        parser = _parser()
        if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
            arguments.insert(0, "run")
        args = parser.parse_args(arguments)
        # Imported only now: help and wrong options answer without the seconds that torch takes.
        from algorithm import commands

        return commands.COMMANDS[args.command](args)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    except PermissionError as error:
        print(
            f"Error: permission denied for {error.filename or error}; give this user access to it", file=sys.stderr
        )
        return UserError.exit_code
    except KeyboardInterrupt:
        print("Error: interrupted; no file was left half written", file=sys.stderr)
        return 130


def _warn_on_stdout(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a library's warning as progress: grand-challenge flags a job for any line on stderr."""
    print(f"{category.__name__}: {message}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m algorithm", description=__doc__, formatter_class=_Formatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    run = commands.add_parser("run", help="segment the grand-challenge job in an input folder (default)")
    _add(run, "--input", Path, Path("/input"), "folder with the job's sockets")
    _add(run, "--output", Path, Path("/output"), "folder for the results")
    _add(run, "--edition", str, None, "AutoPET edition: I, II, III, IV, V (default: recognised from the input)")
    _add_settings(run)

    predict = commands.add_parser("predict", help="segment a CT and a PET file")
    predict.add_argument("ct", type=Path, metavar="CT", help="CT in HU: .mha, .mhd, .nii, .nii.gz or .nrrd")
    predict.add_argument("pet", type=Path, metavar="PET", help="PET in SUV, of the same study")
    predict.add_argument("output", type=Path, metavar="OUT_FOLDER", help="folder for mask, report and picture")
    _add_settings(predict)

    preflight = commands.add_parser("preflight", help="check device, memory and weights without a case")
    _add(preflight, "--weights", Path, None, "checkpoint or folder of checkpoints")
    _add(preflight, "--device", str, "auto", "auto, cpu, cuda or cuda:N")

    weights = commands.add_parser("weights", help="import or verify checkpoints")
    actions = weights.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=_Parser)
    verify = actions.add_parser("verify", help="check files, names, shapes and sha256")
    verify.add_argument("path", type=Path, nargs="?", help="checkpoint or folder (default: those that run uses)")
    imported = actions.add_parser("import", help="turn a .pth of the authors' code into a checkpoint")
    imported.add_argument(
        "source", type=Path, metavar="FILE.pth", help="state dictionary with the 269 released names"
    )
    imported.add_argument("--description", type=Path, required=True, help="JSON that describes the checkpoint")
    imported.add_argument(
        "--out", type=Path, default=Path("weights"), help="folder to write to (default: weights)"
    )
    imported.add_argument("--force", action="store_true", help="replace a checkpoint of the same name")
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    _add(
        parser,
        "--weights",
        Path,
        None,
        "checkpoint or folder of checkpoints (default: /opt/ml/model, then built in)",
    )
    _add(parser, "--device", str, "auto", "auto, cpu, cuda or cuda:N")
    _add(parser, "--precision", str, "auto", "auto, float32, bfloat16 or float16")
    _add(
        parser,
        "--flips",
        int,
        None,
        "exactly this many of the 8 mirrorings, whatever the time limit (default: as many as fit it)",
    )
    _add(parser, "--overlap", float, None, "of neighbouring windows, 0 to below 1 (default: the checkpoint's)")
    _add(
        parser,
        "--time-limit",
        float,
        None,
        "seconds for the whole process (default: the edition's; predict: none)",
    )
    _add(parser, "--require-gpu", None, False, "fail where there is no GPU")
    _add(parser, "--whole-volume", None, False, "let windows cover the air around the patient too")
    _add(parser, "--report", Path, None, "write a run report (JSON) here")
    _add(parser, "--picture", Path, None, "write a projection of PET and mask (PNG) here")


def _add(
    parser: argparse.ArgumentParser,
    option: str,
    kind: type[str] | type[int] | type[float] | type[Path] | None,
    default: object,
    purpose: str,
) -> None:
    """Add an option whose default an environment variable can replace; ``kind`` None makes a switch."""
    variable = _PREFIX + option.removeprefix("--").replace("-", "_").upper()
    given = os.environ.get(variable, "").strip()
    if kind is None:
        if given.lower() not in ("", "0", "1", "false", "true"):
            raise UsageError(f"{variable} must be 0 or 1, got {given!r}")
        on = given.lower() in ("1", "true") if given else bool(default)
        parser.add_argument(option, action=argparse.BooleanOptionalAction, default=on, help=purpose)
        return
    if given:
        try:
            default = kind(given)
        except ValueError:
            raise UsageError(f"{variable} must be of the form of {option} ({purpose}), got {given!r}") from None
    parser.add_argument(option, type=kind, default=default, metavar=option[2:].upper(), help=purpose)


class _Parser(argparse.ArgumentParser):
    """Reports wrong usage like every other mistake: one sentence, exit code 2."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(f"{message}; see `{self.prog} --help`")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the paragraphs of the description."""


if __name__ == "__main__":
    raise SystemExit(main())
