"""The example under every command's help is a command line that its parser takes."""

from __future__ import annotations

import importlib
import shlex

import pytest

from algorithm.console import PACKAGES, Command, _add_verbosity, _imported
from algorithm.parser import Parser


def examples() -> list[tuple[str, Command]]:
    """Return the command's name and itself, of every program; '' where a program has one command alone."""
    found = []
    for package in PACKAGES:
        module = importlib.import_module(f"{package}.__main__")
        commands = vars(module).get("COMMANDS") or {"": module.COMMAND}
        found += [(name, command) for name, command in commands.items()]
    return found


@pytest.mark.parametrize(("name", "command"), examples())
def test_an_example_is_taken(name: str, command: Command) -> None:
    words = shlex.split(command.example)
    assert words[:2] == ["python", "-m"]
    rest = words[3:]
    if name:
        assert rest.pop(0) == name
    parser = Parser(prog="example")
    _imported(command.options, command)(parser)
    _add_verbosity(parser)
    parser.parse_with_environment(rest)
