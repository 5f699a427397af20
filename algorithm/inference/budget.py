"""How much time is left for a case, counted from a given start: the process's, or a request's."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_IMPORTED = time.monotonic()


def seconds_since_start() -> float:
    """Return how long this process has run: interpreter start and imports included where Linux tells."""
    try:
        # Field 22 of the line; the second, the command's name, may hold spaces but ends with the last bracket.
        started_ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started_ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return time.monotonic() - _IMPORTED


def process_start() -> float:
    """Return when this process started, on the clock of ``time.monotonic``."""
    return time.monotonic() - seconds_since_start()


@dataclass(frozen=True)
class Budget:
    """A moment by which the passes over a volume must have ended.

    Attributes
    ----------
    deadline : float
        On the clock of ``time.monotonic``; infinite for none.
    grace_s : float
        By so much a first pass may be late that is more than half done: to throw it away would cost more.
    """

    deadline: float = float("inf")
    grace_s: float = 0.0

    @classmethod
    def of_limit(cls, limit_s: float | None, reserve_s: float, started: float) -> Budget:
        """Return the budget of what must end within a limit.

        Parameters
        ----------
        limit_s : float or None
            Seconds; None: no limit.
        reserve_s : float
            Seconds of them that are kept for the rest, rather too many; half of them are the grace.
        started : float
            Moment from which the limit counts, on the clock of ``time.monotonic``.
        """
        return cls() if limit_s is None else cls(started + limit_s - reserve_s, reserve_s / 2)

    @property
    def remaining_s(self) -> float:
        """Seconds left; negative when too late."""
        return self.deadline - time.monotonic()

    def allows(self, cost_s: float) -> bool:
        """Tell whether something of this cost still fits."""
        return cost_s <= self.remaining_s


class TooSlowError(Exception):
    """A pass does not fit the budget.

    Parameters
    ----------
    factor : float
        Time that it needs over time that is left.
    window_s : sequence of float
        How long a window of each network took when it was timed; empty where it was not.
    """

    def __init__(self, factor: float, window_s: Sequence[float] = ()) -> None:
        self.factor = factor
        self.window_s = tuple(window_s)
        super().__init__(
            f"one pass takes {factor:.1f} times the time that is left"
            if factor > 1
            else "no time is left for a pass"
        )
