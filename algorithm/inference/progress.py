"""What is seen of the work on a case while it goes on: lines in the log, and a bar on stdout."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from typing import NoReturn

from tqdm import tqdm

_log = logging.getLogger(__name__)

_BAR_S, _BAR_IN_LOG_S = 0.2, 10.0


def between_bars_s() -> float:
    """Return the time between two states of a bar on stdout, which is longer where stdout is a log."""
    return _BAR_S if sys.stdout.isatty() else _BAR_IN_LOG_S


@dataclass(frozen=True)
class Progress:
    """How much is shown.

    Attributes
    ----------
    level : int
        Of the lines in the log: ``logging.DEBUG`` where the case is one of many and the caller tells of it.
    bar : bool
        Show a bar on stdout while a pass goes on.
    """

    level: int = logging.INFO
    bar: bool = False

    def say(self, sentence: str) -> None:
        """Log one sentence."""
        _log.log(self.level, sentence)

    def bar_of(self, what: str, windows: int, *, worth_it: bool) -> tqdm[NoReturn]:
        """Return a bar that counts windows, if wanted and worth it; seldom redrawn where it goes into a log."""
        return tqdm(
            desc=what,
            total=windows,
            unit="window",
            file=sys.stdout,
            mininterval=between_bars_s(),
            leave=False,
            disable=not (self.bar and worth_it and _log.isEnabledFor(self.level)),
        )
