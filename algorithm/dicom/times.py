"""When a PET was administered, measured, and to when its voxels are corrected for decay."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

import numpy as np

from algorithm.dicom.headers import (
    GE_SCAN_DATE_TIME,
    Header,
    number,
    parse_date,
    parse_date_time,
    parse_time,
    private_text,
    text,
)

_HALF_DAY = timedelta(hours=12)
_UNDATED = date(1900, 1, 1)  # anonymisers' own choice where a date must be there


@dataclass(frozen=True)
class Reference:
    """To when the voxels of a series are corrected for decay.

    Attributes
    ----------
    per_slice : tuple of datetime
        In slice order.
    source : str
        The elements that say it, for people.
    other : tuple of datetime
        What another rule says, the one that differs most; empty where no other says anything.
    other_source : str
        Its elements.
    """

    per_slice: tuple[datetime, ...]
    source: str
    other: tuple[datetime, ...] = ()
    other_source: str = ""

    @property
    def apart_s(self) -> float:
        """Largest difference of the two rules, in s, with its sign; 0 where there is one rule only."""
        return _apart_s(self.per_slice, self.other)


def acquisition(header: Header) -> datetime | None:
    """Return when a slice's acquisition began.

    Source: AcquisitionDate (0008,0022) and AcquisitionTime (0008,0032), else AcquisitionDateTime (0008,002A);
    where anonymisation took the date, the series' (0008,0021) or study's (0008,0020), and the day after where the
    time has passed midnight since then.
    """
    clock = parse_time(text(header, "AcquisitionTime"))
    day = parse_date(text(header, "AcquisitionDate"))
    if clock is not None and day is not None:
        return datetime.combine(day, clock)
    whole = parse_date_time(text(header, "AcquisitionDateTime"), text(header, "TimezoneOffsetFromUTC"))
    if whole is not None:
        return whole
    start = _dated(header, "Series") or _dated(header, "Study")
    if clock is None:
        return None
    moment = datetime.combine(_any_date(header), clock)
    return moment + timedelta(days=1) if start is not None and start - moment > _HALF_DAY else moment


def series_start(header: Header) -> datetime | None:
    """Return SeriesDate (0008,0021) and SeriesTime (0008,0031); without a date that of the acquisition."""
    clock = parse_time(text(header, "SeriesTime"))
    day = parse_date(text(header, "SeriesDate")) or _any_date(header)
    return datetime.combine(day, clock) if clock is not None else None


def mean_activity_time_s(half_life_s: float, duration_s: float) -> float:
    """Return T_ave = ln(lambda T / (1 - exp(-lambda T))) / lambda: when a decaying source has its mean activity.

    Source: the facts of Vácha et al.; lambda = ln 2 / half-life, T the frame's duration.
    """
    rate = np.log(2.0) / half_life_s
    return float(np.log(rate * duration_s / -np.expm1(-rate * duration_s)) / rate)


def reference(headers: list[Header], half_life_s: float) -> Reference | None:
    """Return to when the voxels are corrected for DecayCorrection START; None where nothing says it.

    In this order: DecayCorrectionDateTime (0018,9701) of enhanced PET (PS3.3 C.8.22.4); GE's private scan date and
    time (0009,100D); per slice AcquisitionTime + T_ave - FrameReferenceTime (0054,1300), with T the
    ActualFrameDuration (0018,1242), both in ms; SeriesTime if not later than the first AcquisitionTime, else that
    (QIBA's order). A FrameReferenceTime of 0 is one that was not filled in: the mean of a frame's counts lies
    within it.
    """
    candidates = [
        (_stated(headers), "DecayCorrectionDateTime"),
        (_ge_scan(headers), "GE's private scan date and time (0009,100D)"),
        (_from_frames(headers, half_life_s), "AcquisitionTime + T_ave - FrameReferenceTime of each slice"),
        _qiba(headers),
    ]
    said = [(moments, source) for moments, source in candidates if moments]
    if not said:
        return None
    (used, source), others = said[0], said[1:]
    other = max(others, key=lambda one: abs(_apart_s(used, one[0])), default=((), ""))
    return Reference(used, source, *other)


def administration(start: str, clock: str, acquired: datetime | None, offset: str) -> datetime | None:
    """Return when the tracer was given.

    RadiopharmaceuticalStartDateTime (0018,1078) goes before RadiopharmaceuticalStartTime (0018,1072), which has no
    date: it gets the acquisition's, or the day before where it would lie after the acquisition (midnight). So does
    the former where anonymisation took the acquisition's date.
    """
    whole = parse_date_time(start, offset)
    undated = acquired is not None and acquired.date() == _UNDATED
    if whole is not None and not undated:
        return whole
    if whole is not None:
        clock = whole.strftime("%H%M%S.%f")
    alone = parse_time(clock)
    return _before(alone, acquired) if alone is not None and acquired is not None else None


def given_administration(value: str, acquired: datetime | None) -> datetime | None:
    """Parse a user's injection time: HH:MM[:SS] or YYYY-MM-DDTHH:MM[:SS]; None where it is none."""
    if ":" not in value:
        return None
    try:
        return datetime.fromisoformat(value).replace(tzinfo=None)
    except ValueError:
        pass
    try:
        alone = time.fromisoformat(value)
    except ValueError:
        return None
    return _before(alone, acquired) if acquired is not None else None


def _apart_s(used: tuple[datetime, ...], other: tuple[datetime, ...]) -> float:
    apart = [(b - a).total_seconds() for a, b in zip(used, other, strict=False)]
    return max(apart, key=abs, default=0.0)


def _before(clock: time, acquired: datetime) -> datetime:
    """Date a clock time: the scan's day, or the day before where midnight explains that it is later than the scan.

    It does not where the scan would then be more than half a day after the injection: clocks that differ by
    seconds must not become a wait of a day.
    """
    moment = datetime.combine(acquired.date(), clock)
    eve = moment - timedelta(days=1)
    return eve if moment > acquired and acquired - eve <= _HALF_DAY else moment


def _stated(headers: list[Header]) -> tuple[datetime, ...]:
    return _all(
        parse_date_time(text(header, "DecayCorrectionDateTime"), text(header, "TimezoneOffsetFromUTC"))
        for header in headers
    )


def _ge_scan(headers: list[Header]) -> tuple[datetime, ...]:
    return _all(parse_date_time(private_text(header, GE_SCAN_DATE_TIME)) for header in headers)


def _from_frames(headers: list[Header], half_life_s: float) -> tuple[datetime, ...]:
    return _all(_from_frame(header, half_life_s) for header in headers)


def _from_frame(header: Header, half_life_s: float) -> datetime | None:
    acquired = acquisition(header)
    duration_ms = number(header, "ActualFrameDuration")
    offset_ms = number(header, "FrameReferenceTime")
    if acquired is None or not duration_ms or duration_ms < 0 or not offset_ms:
        return None
    mean_s = mean_activity_time_s(half_life_s, duration_ms / 1000.0)
    return acquired + timedelta(seconds=mean_s - offset_ms / 1000.0)


def _qiba(headers: list[Header]) -> tuple[tuple[datetime, ...], str]:
    acquired = [moment for moment in map(acquisition, headers) if moment is not None]
    start = series_start(headers[0])
    first = min(acquired, default=None)
    if start is not None and (first is None or start <= first):
        return (start,) * len(headers), "SeriesTime"
    return ((first,) * len(headers), "the first AcquisitionTime") if first is not None else ((), "")


def _all(moments: object) -> tuple[datetime, ...]:
    """Return the moments where all slices have one, else nothing."""
    found: list[datetime | None] = list(moments)  # type: ignore[call-overload]
    known = tuple(moment for moment in found if moment is not None)
    return known if len(known) == len(found) else ()


def _dated(header: Header, which: str) -> datetime | None:
    day, clock = parse_date(text(header, f"{which}Date")), parse_time(text(header, f"{which}Time"))
    return datetime.combine(day, clock) if day is not None and clock is not None else None


def _any_date(header: Header) -> date:
    days = (parse_date(text(header, f"{which}Date")) for which in ("Acquisition", "Series", "Study"))
    return next((day for day in days if day is not None), _UNDATED)
