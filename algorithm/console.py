"""The one front door of ``python -m algorithm``, ``evaluation``, ``training``, ``synthesis`` and ``benchmark``.

A program is a table of commands. A command's modules are imported when it is asked for, so that ``--help`` and a
wrong option answer without the seconds that torch takes. Every program ends alike: a mistake in one sentence
on stderr and the exit code of its kind, a bug in its stack trace and a sentence.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from algorithm.errors import InstallationError, OutputError, UsageError, UserError
from algorithm.files import discard_unfinished
from algorithm.parser import PREFIX, Parser
from algorithm.refusals import as_user_error, reason_of
from algorithm.streams import lasting_streams
from algorithm.surroundings import check_address_space, settle_in

PACKAGES = ("algorithm", "synthesis", "training", "evaluation", "benchmark")

BUG = 1
INTERRUPTED = 130  # as shells count a process that SIGINT ended
PIPE_CLOSED = 141  # likewise for SIGPIPE
TERMINATED = 143  # and SIGTERM

_LONGEST = 2000  # characters of a sentence
_GRACE_S = 3.0  # from SIGTERM to the end at any price; grand-challenge sends SIGKILL after 5 s


class Terminated(BaseException):
    """SIGTERM arrived: whatever runs ends as if it had failed, so that nothing half written stays."""


@dataclass(frozen=True)
class Command:
    """One command of a program.

    Attributes
    ----------
    purpose : str
        What it does, as a sentence without its full stop.
    options : str
        ``module:function`` that declares the options on a parser. It should import nothing slow.
    run : str
        ``module:function`` that takes the parsed options and returns the exit code.
    example : str
        A command line that somebody could type, from the program's name on.
    needs : str
        The requirements file that has what the command imports.
    prints_result : bool
        What it prints is its result, so that a stdout that cannot be written is a failure. Else files are: they
        are written whatever becomes of stdout.
    bug : int
        Exit code of a bug; 1 unless that means something else for the command.
    """

    purpose: str
    options: str
    run: str
    example: str
    needs: str = "requirements.txt"
    prints_result: bool = True
    bug: int = BUG


def main(
    program: str,
    description: str,
    commands: Mapping[str, Command],
    arguments: Sequence[str] | None = None,
    *,
    default: str | None = None,
) -> int:
    """Run one command of a program and return the exit code.

    Parameters
    ----------
    program : str
        As the user types it: ``python -m algorithm``.
    description : str
        What the program is for, in whole sentences.
    commands : mapping
        By name, in the order in which help lists them.
    arguments : sequence of str, optional
        The process's own by default.
    default : str, optional
        The command that is meant where none is named.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    with _endings() as ending, _sigterm_raised():
        _check_words(words)
        name, rest = _chosen(words, default)
        if name is None:
            print(_overview(program, description, commands, default))
        elif name not in commands:
            raise UsageError(
                f"the command must be one of {', '.join(commands)}, got {name!r}; see `{program} --help`"
            )
        else:
            _run(program, name, commands[name], rest, ending)
    return ending.code


def run_alone(program: str, command: Command, arguments: Sequence[str] | None = None) -> int:
    """Run a program that has one command, which the user does not name; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    with _endings() as ending, _sigterm_raised():
        _check_words(words)
        _run(program, "", command, words, ending)
    return ending.code


def _run(program: str, name: str, command: Command, words: Sequence[str], ending: _Ending) -> None:
    ending.bug, ending.prints_result = command.bug, command.prints_result
    settle_in()
    check_address_space()
    parser = Parser(
        prog=f"{program} {name}".rstrip(),
        description=f"{command.purpose}.",
        epilog=f"Example:\n  {command.example}",
    )
    _imported(command.options, command)(parser)
    _add_verbosity(parser)
    options = parser.parse_with_environment(words)
    set_up_logging(quiet=options.quiet, verbose=options.verbose)
    ending.code = int(_imported(command.run, command)(options))


def _check_words(words: Sequence[str]) -> None:
    """Raise UsageError for words that no library could take as a file's name."""
    given = {f"{name}=": value for name, value in os.environ.items() if name.startswith(PREFIX)}
    for what, word in [*(("", word) for word in words), *given.items()]:
        if "\0" in word or any("\ud800" <= letter <= "\udfff" for letter in word):
            named = what + word.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")[:200]
            if "\0" in word:
                raise UsageError(f"the argument {named} holds a null byte; give a path without it")
            raise UsageError(f"the argument {named} is not valid UTF-8 text; rename the file")


def is_to_serve(arguments: Sequence[str] | None = None) -> bool:
    """Tell whether a container that was given no command is to serve grand-challenge's invoke API.

    The platform says so in a variable. The local test of its starter kit does not: it starts an image labelled
    ``invoke`` without a word, and puts the first case into ``/input`` when the server is healthy. So such an image
    serves where there is nothing yet that one job could do.
    """
    told = os.environ.get("GRAND_CHALLENGE_COMPONENT_API_METHOD", "").strip().lower()
    if told:
        return told == "invoke"
    words = sys.argv[1:] if arguments is None else arguments
    labelled = os.environ.get(f"{PREFIX}API_METHOD", "").strip().lower()
    folder = Path(os.environ.get(f"{PREFIX}INPUT", "").strip() or "/input")
    if labelled != "invoke" or words:
        return False
    try:
        return folder.is_dir() and not any(folder.iterdir())
    except OSError:
        return False  # the job says what is wrong with its folder


def set_up_logging(*, quiet: bool = False, verbose: bool = False) -> None:
    """Send progress and libraries' warnings to stdout: grand-challenge flags a job for any line on stderr.

    Parameters
    ----------
    quiet : bool
        Warnings alone.
    verbose : bool
        Everything, with the time and the place that says it.
    """
    handler = _StdoutHandler()
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(name)s: %(message)s" if verbose else "%(message)s", "%H:%M:%S")
    )
    root = logging.getLogger()
    root.handlers = [each for each in root.handlers if not isinstance(each, _StdoutHandler)] + [handler]
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    for package in PACKAGES:
        logging.getLogger(package).setLevel(level)
    logging.captureWarnings(True)


@dataclass
class _Ending:
    code: int = 0
    bug: int = BUG
    prints_result: bool = True


class _endings:  # noqa: N801  (a context manager that is used like a function)
    """Turns whatever a command raises into its exit code and what the user reads."""

    def __enter__(self) -> _Ending:
        self.ending = _Ending()
        self.stack = contextlib.ExitStack()
        self.stdout = self.stack.enter_context(lasting_streams())
        return self.ending

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        with self.stack:
            if isinstance(error, SystemExit):  # --help and --version
                self.ending.code = int(error.code or 0)
            elif error is not None:
                self.ending.code = _told(error, self.ending.bug)
            self.stdout.flush()
            failure = self.stdout.failure
            if failure is not None and self.ending.prints_result and self.ending.code == 0:
                self.ending.code = PIPE_CLOSED if isinstance(failure, BrokenPipeError) else OutputError.exit_code
                if self.ending.code != PIPE_CLOSED:
                    _say(f"cannot write to standard output: {reason_of(failure)}; the files asked for are written")
        return True


@contextlib.contextmanager
def _sigterm_raised() -> Iterator[None]:
    """Let SIGTERM raise :class:`Terminated` in the main thread, which alone may set handlers.

    Without a handler, the first process of a container is deaf to it. Where the work does not come back in time
    from a library's long call, the process ends without it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        watchdog = threading.Timer(_GRACE_S, _end_at_any_price)
        watchdog.daemon = True
        watchdog.start()
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end_at_any_price() -> NoReturn:
    discard_unfinished()
    _say("terminated; no file was left half written")
    os._exit(TERMINATED)


def _told(error: BaseException, bug: int) -> int:
    """Say on stderr what ended the command, in one sentence; return the exit code."""
    if isinstance(error, BrokenPipeError):
        return PIPE_CLOSED
    if isinstance(error, KeyboardInterrupt):
        _say("interrupted; no file was left half written")
        return INTERRUPTED
    if isinstance(error, Terminated):
        _say("terminated; no file was left half written")
        return TERMINATED
    known = error if isinstance(error, UserError) else as_user_error(error)
    if known is not None:
        _say(str(known))
        return known.exit_code
    traceback.print_exception(error)
    _say(
        f"{type(error).__name__}: {error or 'no further words'}. This is a bug of this software; please report it "
        "with the lines above and the command that you gave"
    )
    return bug


def _say(sentence: str) -> None:
    line = " ".join(sentence.split())
    print(f"Error: {line if len(line) <= _LONGEST else line[:_LONGEST] + '...'}", file=sys.stderr, flush=True)


class _StdoutHandler(logging.Handler):
    """Writes to whatever ``sys.stdout`` is now."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record; a log that nobody can read must not end the work."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            print(self.format(record), flush=True)


def _chosen(words: list[str], default: str | None) -> tuple[str | None, list[str]]:
    """Return the command's name, None where the overview is asked for, and the words after it."""
    if words[:1] in (["-h"], ["--help"]):
        return None, []
    if default is not None and (not words or words[0].startswith("-")):
        return default, words
    return (words[0], words[1:]) if words else ("", [])


def _overview(program: str, description: str, commands: Mapping[str, Command], default: str | None) -> str:
    width = max(map(len, commands))
    lines = [
        f"  {name:<{width}}  {each.purpose}{' (where no command is named)' if name == default else ''}."
        for name, each in commands.items()
    ]
    return "\n".join(
        [
            f"Usage: {program} COMMAND [OPTION ...]\n",
            f"{description.strip()}\n",
            "Commands:",
            *lines,
            f"\n`{program} COMMAND --help` lists a command's options.",
        ]
    )


def _add_verbosity(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("progress")
    group.add_argument("--quiet", action="store_true", help="Print warnings and results alone.")
    group.add_argument("--verbose", action="store_true", help="Print everything, with the time.")


def _imported(path: str, command: Command) -> Callable[..., Any]:
    """Import ``module:function``.

    Raises
    ------
    InstallationError
        A library is not installed.
    """
    module, _, function = path.partition(":")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in PACKAGES:
            raise
        raise InstallationError(
            f"this command needs the module {error.name}, which is not installed; run "
            f"`python -m pip install -r {command.needs}`"
        ) from error
    return found
