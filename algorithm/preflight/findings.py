"""Checks, their verdicts, and the table that a user reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from algorithm.errors import UserError


class Verdict(Enum):
    """How a check ended."""

    PASSED = "passed"
    WARNING = "warning"
    FAILED = "FAILED"
    SKIPPED = "skipped"


class RefusedError(Exception):
    """A check found what would be refused; its text says what, with the value got, and what to do."""


class DoubtfulError(Exception):
    """A check found what would go through, but with a warning."""


class NotTriedError(Exception):
    """A check could not be carried out here; its text says why."""


class PreflightError(UserError):
    """The image would not get through."""

    exit_code: ClassVar[int] = 1


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes
    ----------
    check : str
        What was asked.
    verdict : Verdict
    found : str
        What there was; where it failed, why, and what to do.
    """

    check: str
    verdict: Verdict
    found: str


def carried_out(check: str, ask: Callable[[], str]) -> Finding:
    """Carry out a check, which returns what it found or raises one of this module's errors."""
    try:
        return Finding(check, Verdict.PASSED, ask())
    except RefusedError as error:
        return Finding(check, Verdict.FAILED, str(error))
    except DoubtfulError as error:
        return Finding(check, Verdict.WARNING, str(error))
    except NotTriedError as error:
        return Finding(check, Verdict.SKIPPED, str(error))


def failures(findings: Sequence[Finding]) -> list[Finding]:
    """Return those that failed, in their order."""
    return [each for each in findings if each.verdict is Verdict.FAILED]


def table(findings: Sequence[Finding]) -> str:
    """Return the findings as a table: check, verdict, what was found."""
    rows = [("check", "verdict", "found"), *((each.check, each.verdict.value, each.found) for each in findings)]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(f"{check:<{first}}  {verdict:<{second}}  {found}" for check, verdict, found in rows)


def raise_first(findings: Sequence[Finding]) -> None:
    """Raise PreflightError with the reason of the first failure, if there is one."""
    failed = failures(findings)
    if failed:
        more = f" ({len(failed) - 1} more failed)" if len(failed) > 1 else ""
        raise PreflightError(f"{failed[0].check}: {failed[0].found}{more}")
