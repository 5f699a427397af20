"""How much time is left for a case, counted from the start of the process."""

from __future__ import annotations

import os
import time
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


@dataclass(frozen=True)
class Budget:
    """A moment by which the passes over a volume must have ended.

    Attributes
    ----------
    deadline : float
        On the clock of ``time.monotonic``; infinite for none.
    """

    deadline: float = float("inf")

    @classmethod
    def of_limit(cls, limit_s: float | None, reserve_s: float) -> Budget:
        """Return the budget of a process that must end within ``limit_s``, keeping ``reserve_s`` for the rest."""
        if limit_s is None:
            return cls()
        return cls(time.monotonic() + limit_s - seconds_since_start() - reserve_s)

    @property
    def remaining_s(self) -> float:
        """Seconds left; negative when too late."""
        return self.deadline - time.monotonic()

    def allows(self, cost_s: float) -> bool:
        """Tell whether something of this cost still fits."""
        return cost_s <= self.remaining_s
