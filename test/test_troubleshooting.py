"""``docs/troubleshooting.md`` has a place for every sentence in which a command can end."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import algorithm.errors
from algorithm.cohort.run import CohortError
from algorithm.console import PACKAGES
from algorithm.errors import UserError
from algorithm.formats.stored import FormatError
from algorithm.preflight.findings import PreflightError
from test.conftest import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
ANYTHING = "…"

ERRORS = {
    name for name, kind in vars(algorithm.errors).items() if isinstance(kind, type) and issubclass(kind, UserError)
}
REASONS = {FormatError.__name__, "AbsentError"}  # halves of the sentence "cannot read the PET X: REASON; ADVICE"


_PASSED_ON = "…; see `… --help`"  # after the words of argparse


def sentences() -> Iterator[tuple[str, str]]:
    """Yield where each error is made, and its constant parts with … for what stands between them."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and node.args and _name(node.func) in ERRORS | REASONS:
                    for text in filter(_says_something, _texts(node.args[0])):
                        yield f"{path.relative_to(ROOT)}:{node.lineno}", text


def _says_something(text: str) -> bool:
    """Tell whether a text has a word of its own, and does not only pass on the words of another."""
    return text != _PASSED_ON and re.search(r"[A-Za-z]{3,}", text) is not None


def _name(function: ast.expr) -> str:
    return getattr(function, "id", None) or getattr(function, "attr", "")


def _texts(expression: ast.expr) -> list[str]:
    """Return the texts that an expression may be; none where they are made elsewhere."""
    match expression:
        case ast.IfExp():
            return _texts(expression.body) + _texts(expression.orelse)
        case ast.Constant(value=str() as text):
            return [text] if text else []
        case ast.JoinedStr():
            parts = (_texts(each) if isinstance(each, ast.Constant) else [ANYTHING] for each in expression.values)
            return ["".join(part[0] for part in parts if part)]
    return []


def patterns() -> list[str]:
    """Return what stands in backticks at the head of the page's entries."""
    text = PAGE.read_text(encoding="utf-8")
    heads = re.findall(r"^\* (.*?)\n\n", text, re.DOTALL | re.MULTILINE)
    return [" ".join(each.split()) for head in heads for each in re.findall(r"`([^`]+)`", head)]


def covers(pattern: str, sentence: str) -> bool:
    """Tell whether a pattern is the beginning of a sentence, or of what follows one of its values."""
    wanted = ".*".join(re.escape(part) for part in pattern.split(ANYTHING))
    return re.match(wanted.removeprefix(" "), sentence) is not None


def test_every_sentence_has_its_place() -> None:
    known = patterns()
    lost = {f"{where}: {text}" for where, text in sentences() if not any(covers(each, text) for each in known)}
    assert not lost, "no entry of docs/troubleshooting.md covers\n" + "\n".join(sorted(lost))


def test_every_entry_is_of_a_sentence() -> None:
    texts = [text for _, text in sentences()]
    dead = [pattern for pattern in patterns() if not any(covers(pattern, text) for text in texts)]
    assert not dead, f"no sentence in the sources begins like {dead}"


def test_no_pattern_says_nothing() -> None:
    """A pattern without words of its own would cover everything."""
    assert all(_says_something(pattern) for pattern in patterns())


def kinds(of: type[UserError]) -> Iterator[type[UserError]]:
    yield of
    for kind in of.__subclasses__():
        yield from kinds(kind)


@pytest.mark.parametrize("page", [PAGE, PAGE.with_name("outputs.md")], ids=lambda page: page.name)
def test_every_exit_code_is_told(page: Path) -> None:
    codes = {str(kind.exit_code) for kind in kinds(UserError)}
    assert codes >= {str(CohortError.exit_code), str(PreflightError.exit_code)}
    rows = dict(re.findall(r"^\| ([\d, ]+) \| (.*) \|$", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert codes <= {code for row in rows for code in row.split(", ")}
    assert "`preflight IMAGE`" in rows["1"]


def test_there_are_sentences() -> None:
    assert len(list(sentences())) > 300
