"""Time shared out among tables, so that the last is not missing because the first took long."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from benchmark import process

log = logging.getLogger(__name__)

NO_TIME = "left out: no time left"
CUT_OFF = "left out: did not end in the time left"
FAILED = "failed, the reason was printed"

_Result = TypeVar("_Result")


class Clock:
    """Tells how long the table at hand may still be measured; what it leaves over, the next may use.

    Parameters
    ----------
    minutes : float
        In all, from now on.
    """

    def __init__(self, minutes: float) -> None:
        self._began = time.monotonic()
        self._whole_s = 60 * minutes
        self._shared_out = 0.0

    def begin(self, table: str, share: float) -> None:
        """Begin with a table, which may take this share of the whole."""
        self._shared_out += share
        log.info("%s: up to %.0f s", table, max(0.0, self.left_s))

    @property
    def left_s(self) -> float:
        """Seconds that are left to the table."""
        return self._began + self._shared_out * self._whole_s - time.monotonic()

    def tried(self, work: Callable[[], _Result]) -> _Result | str:
        """Do some work by measuring processes, which end with the table's time; or return why there is nothing."""
        if self.left_s <= 0:
            return NO_TIME
        try:
            with process.within(self.left_s):
                return work()
        except process.OutOfTimeError:
            return CUT_OFF
        except process.ChildError as error:
            log.warning("%s", error)
            return FAILED
