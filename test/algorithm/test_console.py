"""The front door: how commands are found, how options come from the environment, how a program ends."""

from __future__ import annotations

import argparse
import errno
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from algorithm import console
from algorithm.console import BUG, INTERRUPTED, PIPE_CLOSED, Command
from algorithm.errors import UsageError, WeightsError
from algorithm.parser import Parser
from test.conftest import ROOT

raised: BaseException | None = None
seen: list[argparse.Namespace] = []


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--number", type=int, default=3, help="How many.")
    parser.add_argument("--sizes", type=float, nargs=3, default=(1.0, 2.0, 3.0), help="Three sizes.")
    parser.add_argument("--names", action="append", default=[], help="Repeatable.")
    parser.add_argument("--kind", choices=("a", "b"), help="Which kind.")
    parser.add_argument("--deep", action=argparse.BooleanOptionalAction, default=False, help="Go deep.")
    parser.add_argument("--needed", required=True, help="Without it nothing works.")


def act(options: argparse.Namespace) -> int:
    seen.append(options)
    if raised is not None:
        raise raised
    logging.getLogger("algorithm.test").info("at work")
    logging.getLogger("algorithm.test").debug("deep at work")
    return 5


COMMANDS = {
    "act": Command("Act once", f"{__name__}:add_options", f"{__name__}:act", "program act --needed x"),
    "lost": Command("Need a library", "no_such_library:add", "no_such_library:run", "program lost", needs="r.txt"),
}


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "raised", None)
    seen.clear()


def run(*words: str, default: str | None = None) -> int:
    return console.main("program", "What it does.", COMMANDS, words, default=default)


def test_a_command_returns_its_own_exit_code() -> None:
    assert run("act", "--needed", "x", "--number", "4") == 5
    assert seen[0].number == 4
    assert seen[0].sizes == (1.0, 2.0, 3.0)


def test_the_default_command_is_meant_where_none_is_named() -> None:
    assert run("--needed", "x", default="act") == 5
    assert run() == 2


def test_the_overview_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    shown = capsys.readouterr().out
    assert all(name in shown and f"{each.purpose}." in shown for name, each in COMMANDS.items())


def test_help_shows_defaults_variables_and_an_example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("H2ASEG_NUMBER", "no number")  # must not stand before help
    assert run("act", "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    for text in ("H2ASEG_NUMBER", "default: 1.0 2.0 3.0", "H2ASEG_DEEP", "program act --needed x"):
        assert text in shown


@pytest.mark.parametrize(
    ("variable", "text", "option", "value"),
    [
        ("H2ASEG_NUMBER", "7", "number", 7),
        ("H2ASEG_SIZES", "4 5 6", "sizes", [4.0, 5.0, 6.0]),
        ("H2ASEG_NAMES", "one two", "names", ["one", "two"]),
        ("H2ASEG_KIND", "b", "kind", "b"),
        ("H2ASEG_DEEP", "1", "deep", True),
        ("H2ASEG_DEEP", "false", "deep", False),
        ("H2ASEG_NUMBER", "  ", "number", 3),
    ],
)
def test_options_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, option: str, value: object
) -> None:
    monkeypatch.setenv(variable, text)
    monkeypatch.setenv("H2ASEG_NEEDED", "x")
    assert run("act") == 5
    assert getattr(seen[0], option) == value


@pytest.mark.parametrize(
    ("variable", "text", "sentence"),
    [
        ("H2ASEG_NUMBER", "seven", "H2ASEG_NUMBER must be of the form of --number (How many), got 'seven'"),
        ("H2ASEG_SIZES", "4 5", "H2ASEG_SIZES must hold 3 values, got '4 5'"),
        ("H2ASEG_KIND", "c", "H2ASEG_KIND must be one of a, b, got 'c'"),
        ("H2ASEG_DEEP", "yes", "H2ASEG_DEEP must be 0 or 1, got 'yes'"),
    ],
)
def test_a_wrong_variable_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str, text: str, sentence: str
) -> None:
    monkeypatch.setenv(variable, text)
    assert run("act", "--needed", "x") == 2
    assert capsys.readouterr().err == f"Error: {sentence}\n"


def test_the_command_line_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("H2ASEG_NUMBER", "no number at all")
    assert run("act", "--needed", "x", "--number", "9") == 5
    assert seen[0].number == 9


def test_an_option_that_is_given_several_times_goes_before_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parser = Parser()
    parser.add_argument("--but", action="append", default=[])
    monkeypatch.setenv("H2ASEG_BUT", "a b")
    assert parser.parse_with_environment([]).but == ["a", "b"]
    assert parser.parse_with_environment(["--but", "c", "--but", "d"]).but == ["c", "d"]


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (UsageError("do it\nso"), 2, "Error: do it so\n"),
        (WeightsError("no weights"), 3, "Error: no weights\n"),
        (
            PermissionError(errno.EACCES, "no", "/x"),
            2,
            "Error: permission denied for /x; give this user access to it\n",
        ),
        (OSError(errno.ENOSPC, "full", "/x"), 2, "Error: the disk is full while writing /x; make room and run"),
        (MemoryError(), 2, "Error: this process may use no more memory; give it more"),
        (KeyboardInterrupt(), INTERRUPTED, "Error: interrupted; no file was left half written\n"),
        (BrokenPipeError(), PIPE_CLOSED, ""),
    ],
)
def test_every_ending_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    sentence: str,
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "raised", error)
    assert run("act", "--needed", "x") == code
    said = capsys.readouterr().err
    assert said.startswith(sentence)
    assert said.count("\n") == (1 if sentence else 0)


def test_a_bug_shows_its_trace_and_says_so_in_the_last_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "raised", ZeroDivisionError("by zero"))
    assert run("act", "--needed", "x") == BUG
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1].startswith(
        "Error: ZeroDivisionError: by zero. This is a bug of this software; please report it"
    )


def test_a_missing_library_is_a_broken_installation(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("lost") == 3
    assert "needs the module no_such_library" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "shown"),
    [((), {"at work"}), (("--quiet",), set()), (("--verbose",), {"at work", "deep at work"})],
)
def test_progress_goes_to_stdout(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], shown: set[str]
) -> None:
    assert run("act", "--needed", "x", *words) == 5
    said = capsys.readouterr()
    assert {line for line in ("at work", "deep at work") if f"{line}\n" in said.out.replace(": ", "\n")} == shown
    assert not said.err


def test_warnings_of_libraries_go_to_stdout() -> None:
    code = "import warnings; from algorithm import console; console.set_up_logging(); warnings.warn('an old call')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "an old call" in done.stdout
    assert not done.stderr


def test_a_closed_pipe_ends_quietly() -> None:
    command = [sys.executable, "-m", "algorithm", "run", "--help"]
    shell = ["bash", "-c", '"$@" | true; exit "${PIPESTATUS[0]}"', "bash", *command]
    done = subprocess.run(shell, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, PIPE_CLOSED)
    assert done.stderr == ""


class TestIsToServe:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.delenv("GRAND_CHALLENGE_COMPONENT_API_METHOD", raising=False)
        monkeypatch.setenv("H2ASEG_API_METHOD", "invoke")
        monkeypatch.setenv("H2ASEG_INPUT", str(tmp_path))
        return tmp_path

    @pytest.mark.parametrize(("told", "serves"), [("invoke", True), ("exec", False)])
    def test_the_platform_says_it(self, told: str, serves: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GRAND_CHALLENGE_COMPONENT_API_METHOD", told)
        assert console.is_to_serve(["--flips", "1"]) is serves

    def test_an_image_labelled_so_serves_where_no_job_lies_yet(self) -> None:
        assert console.is_to_serve([])

    def test_a_job_that_lies_there_is_done(self, folder: Path) -> None:
        (folder / "images").mkdir()
        assert not console.is_to_serve([])

    def test_whoever_gives_options_wants_a_job_done(self) -> None:
        assert not console.is_to_serve(["--flips", "1"])

    def test_a_folder_that_cannot_be_listed_is_the_jobs_mistake(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(_: Path) -> None:
            raise PermissionError

        monkeypatch.setattr(Path, "iterdir", refuse)
        assert not console.is_to_serve([])

    def test_no_folder_is_a_mistake(self, folder: Path) -> None:
        folder.rmdir()
        assert not console.is_to_serve([])

    @pytest.mark.parametrize("labelled", ["exec", ""])
    def test_any_other_image_does_one_job(self, labelled: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("H2ASEG_API_METHOD", labelled)
        assert not console.is_to_serve([])
