"""Options of a command: declared with argparse, given on the command line or in the environment.

Every option has a variable, ``H2ASEG_<OPTION>``: grand-challenge passes no arguments. The command line goes before
the environment, and the environment before the default.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from algorithm.errors import UsageError

PREFIX = "H2ASEG_"


class Parser(argparse.ArgumentParser):
    """Reports wrong usage like every other mistake: one sentence, exit code 2."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", _Formatter)
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with what argparse found wrong."""
        raise UsageError(f"{message}; see `{self.prog} --help`")

    def parse_with_environment(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse a command line; options that it leaves out come from the environment where that has them.

        A variable is converted only after the command line was read, so that a bad one cannot stand before
        ``--help`` or before an option that overrules it.

        Raises
        ------
        UsageError
            An option or variable makes no sense.
        """
        actions = {action.dest: action for action in _optional_actions(self)}
        for action in actions.values():
            text = os.environ.get(variable_of(action), "").strip()
            if text:
                action.default, action.required = _Given(text), False
        nested = any(isinstance(action, argparse._SubParsersAction) for action in self._actions)
        # Intermixed, so that options may stand between paths of which a command takes two or three.
        options = self.parse_args(list(words)) if nested else self.parse_intermixed_args(list(words))
        for dest, value in vars(options).items():
            if isinstance(value, _Given):
                setattr(options, dest, _converted(actions[dest], value.text))
        return options


def variable_of(action: argparse.Action) -> str:
    """Return the environment's name of an option."""
    longest = next((each for each in action.option_strings if each.startswith("--")), action.dest)
    return PREFIX + longest.lstrip("-").replace("-", "_").upper()


@dataclass(frozen=True)
class _Given:
    """What the environment holds for an option, not yet converted."""

    text: str

    def __str__(self) -> str:
        return self.text

    def __copy__(self) -> list[Any]:
        """Return no values: argparse copies the default of an option that appends, and adds the first to it."""
        return []


def _optional_actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the options of a parser and of its sub-commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _optional_actions(each)
        elif action.option_strings and action.dest != "help":
            yield action


def _converted(action: argparse.Action, text: str) -> Any:
    """Convert a variable as argparse converts the option's words; raises UsageError."""
    variable, option = variable_of(action), action.option_strings[0]
    if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
        if text.lower() not in ("0", "1", "false", "true"):
            raise UsageError(f"{variable} must be 0 or 1, got {text!r}")
        return text.lower() in ("1", "true")
    many = action.nargs not in (None, "?") or isinstance(action, argparse._AppendAction)
    kind = action.type if callable(action.type) else str
    try:
        values = [kind(word) for word in (text.split() if many else [text])]
    except (TypeError, ValueError, argparse.ArgumentTypeError):
        raise UsageError(
            f"{variable} must be of the form of {option} ({_help_of(action)}), got {text!r}"
        ) from None
    if isinstance(action.nargs, int) and len(values) != action.nargs:
        raise UsageError(f"{variable} must hold {action.nargs} values, got {text!r}")
    if action.choices is not None:
        for value in values:
            if value not in action.choices:
                raise UsageError(f"{variable} must be one of {', '.join(map(str, action.choices))}, got {text!r}")
    return values if many else values[0]


def _help_of(action: argparse.Action) -> str:
    return (action.help or "").partition(". ")[0].rstrip(".")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the paragraphs of description and example; says each option's default and its environment's name."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, max_help_position=30, width=min(115, shutil.get_terminal_size().columns), **options)

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if not action.option_strings or action.dest in ("help", "version"):
            return text
        notes = [variable_of(action)]
        default = action.default
        shown = default not in (None, argparse.SUPPRESS, [], ()) and default is not False
        if shown and "default" not in text:
            notes.insert(0, f"default: {_shown(default)}")
        return f"{text} [{'; '.join(notes)}]".replace("%(default)s", _shown(default).replace("%", "%%"))


def _shown(default: object) -> str:
    if isinstance(default, (list, tuple)):
        return " ".join(map(str, default))
    return str(default).lower() if isinstance(default, bool) else str(default)
