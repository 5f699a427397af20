"""How long the tracer had until the PET: what cannot be, and what is odd."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from algorithm.dicom.times import Injection, said
from algorithm.errors import InvalidImageError

_DAY_S = 86400.0
_HOUR_S = 3600.0
_MINUTE_S = 60.0
_ROUNDING_S = 1.0  # times without fractions
_SHORT_S = 300.0
_LONG_HALF_LIVES = 4.0
_MOST_HALF_LIVES = 10.0  # a thousandth is left
_MIDNIGHT = time()  # what anonymisers write in place of a time


@dataclass(frozen=True)
class Uptake:
    """From the injection to the PET.

    Attributes
    ----------
    given : Injection
        When the tracer was given.
    moments : tuple of datetime
        What of the PET counts, per slice.
    what : str
        What that is, for people.
    half_life_s : float
        Of the radionuclide.
    """

    given: Injection
    moments: tuple[datetime, ...]
    what: str
    half_life_s: float

    @cached_property
    def elapsed_s(self) -> NDArray[np.float64]:
        """Seconds from the injection, per slice."""
        return np.array([(moment - self.given.at).total_seconds() for moment in self.moments])

    def check(self, acquired: datetime, *, corrected: bool) -> None:
        """Refuse times that cannot be.

        Parameters
        ----------
        acquired : datetime
            When the acquisition began.
        corrected : bool
            The values are corrected to ``moments``; else these are when the slices were acquired, of which the
            first may well be when the tracer was given.

        Raises
        ------
        InvalidImageError
            The header's injection is at the moment of the PET, or at 00:00:00 as anonymisers write it; or the
            injection lies after the PET (by 1 s and more, as times without fractions are rounded), or more than
            10 half-lives before it, or more than a day where its day is not known or that is longer.
        """
        if self.given.source:
            self._check_own_time(acquired, corrected=corrected)
        ten = _MOST_HALF_LIVES * self.half_life_s
        most = ten if self.given.dated else min(ten, _DAY_S)
        for moment, seconds in zip(self.moments, self.elapsed_s, strict=True):
            if -_ROUNDING_S <= seconds <= most:
                continue
            by_half_life = most > _DAY_S or ten < seconds <= _DAY_S
            within = f"10 half-lives ({ten / _HOUR_S:.3g} h)" if by_half_life else "a day"
            raise InvalidImageError(
                f"the injection must lie within {within} before the PET, got {said(self.given.at)} for the "
                f"injection and {said(moment)} for {self.what}; give the injection's time with --injection-time"
            )

    def ends_with_injection(self, acquired: datetime) -> bool:
        """Tell whether ``moments`` are the injection's, and the acquisition came later: ADMIN, and no dummy."""
        waited_s = (acquired - self.given.at).total_seconds()
        return bool(np.abs(self.elapsed_s).max() <= _ROUNDING_S < waited_s)

    def notes(self) -> tuple[str, ...]:
        """Say what is odd."""
        found = []
        least, most = int(self.elapsed_s.argmin()), int(self.elapsed_s.argmax())
        if self.elapsed_s[least] < _SHORT_S:
            found.append(self._odd(least, "less than 5 min"))
        if self._long():
            found.append(self._odd(most, f"more than {_LONG_HALF_LIVES:g} half-lives"))
        if self.given.source and self.given.at.time() == _MIDNIGHT:
            found.append(
                f"{self.given.source} is exactly 00:00:00, as anonymisers write it; if it is not real, give the "
                "injection's time with --injection-time"
            )
        if not self.given.dated and _MOST_HALF_LIVES * self.half_life_s > _DAY_S:
            found.append(
                "the injection has no date, so the last such time before the scan was taken, "
                f"{said(self.given.at)}; if it was days before, give --injection-time with its date"
            )
        return tuple(found)

    def _long(self) -> bool:
        return bool(self.elapsed_s.max() > _LONG_HALF_LIVES * self.half_life_s)

    def _check_own_time(self, acquired: datetime, *, corrected: bool) -> None:
        closest = int(np.abs(self.elapsed_s).argmin())
        same = corrected and abs(self.elapsed_s[closest]) <= _ROUNDING_S
        midnight = self.given.at.time() == _MIDNIGHT and (acquired.time() == _MIDNIGHT or self._long())
        if same or midnight:
            raise InvalidImageError(
                f"the injection must have a time of its own, got {said(self.given.at)} for the injection and "
                f"{said(self.moments[closest])} for {self.what}, as anonymisers leave them; give the injection's "
                "time with --injection-time"
            )

    def _odd(self, index: int, how: str) -> str:
        return (
            f"{self.elapsed_s[index] / _MINUTE_S:.1f} min from the injection, {said(self.given.at)}, to "
            f"{self.what}, {said(self.moments[index])}, are {how}; if that is wrong, give the "
            "injection's time with --injection-time"
        )
