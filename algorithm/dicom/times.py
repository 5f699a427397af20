"""When a PET was administered, measured, and to when its voxels are corrected for decay."""

from __future__ import annotations

import re
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

STATED = "DecayCorrectionDateTime"
"""The one source of a reference that may be the injection: enhanced PET has no word for ADMIN."""

_DAY, _HALF_DAY = timedelta(days=1), timedelta(hours=12)
_MINUTE_S = 60.0
_FRAMES = "AcquisitionTime + T_ave - FrameReferenceTime of each slice"
_LONGEST_FRAME_MS = 7 * 24 * 3600 * 1000.0  # beyond a week it is no time of a scan
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
    notes : tuple of str
        What was passed over, and why.
    """

    per_slice: tuple[datetime, ...]
    source: str
    other: tuple[datetime, ...] = ()
    other_source: str = ""
    notes: tuple[str, ...] = ()

    @property
    def farthest(self) -> int:
        """The slice where the two rules differ most; 0 where there is one rule only."""
        apart = [abs((b - a).total_seconds()) for a, b in zip(self.per_slice, self.other, strict=False)]
        return apart.index(max(apart)) if apart else 0

    @property
    def apart_s(self) -> float:
        """Largest difference of the two rules, in s, with its sign; 0 where there is one rule only."""
        return _apart_s(self.per_slice, self.other)

    @property
    def spread_s(self) -> float:
        """How far the slices' times lie apart, in s."""
        return _spread_s(self.per_slice)


@dataclass(frozen=True)
class Injection:
    """When the tracer was given.

    Attributes
    ----------
    at : datetime
        In the scanner's local time.
    source : str
        The element that says it; empty where the user did.
    dated : bool
        Whether its day was said, too; else it is the scan's, or the day before.
    other : datetime or None
        What the other element says, where that is more than a minute apart.
    other_source : str
        Its name.
    zone_unknown : bool
        It was said in a time zone, and nothing tells the scanner's.
    """

    at: datetime
    source: str = ""
    dated: bool = False
    other: datetime | None = None
    other_source: str = ""
    zone_unknown: bool = False


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
    return moment + _DAY if start is not None and start - moment > _HALF_DAY else moment


def series_start(header: Header) -> datetime | None:
    """Return SeriesDate (0008,0021) and SeriesTime (0008,0031); without a date that of the acquisition."""
    clock = parse_time(text(header, "SeriesTime"))
    day = parse_date(text(header, "SeriesDate")) or _any_date(header)
    return datetime.combine(day, clock) if clock is not None else None


def began(headers: list[Header]) -> datetime | None:
    """Return when the first slice was acquired, as well as it is known; None where no element has a time.

    Without AcquisitionTime that is when the series began, else to when the voxels are corrected.
    """
    acquired = [moment for moment in map(acquisition, headers) if moment is not None]
    corrected = (*_stated(headers), *_ge_scan(headers)[0])
    return min(acquired, default=series_start(headers[0]) or next(iter(corrected), None))


def mean_activity_time_s(half_life_s: float, duration_s: float) -> float:
    """Return T_ave = ln(lambda T / (1 - exp(-lambda T))) / lambda: when a decaying source has its mean activity.

    Source: the facts of Vácha et al.; lambda = ln 2 / half-life, T the frame's duration.
    """
    rate = np.log(2.0) / half_life_s
    return float(np.log(rate * duration_s / -np.expm1(-rate * duration_s)) / rate)


def reference(headers: list[Header], half_life_s: float, injected: datetime) -> Reference:
    """Return to when the voxels are corrected for DecayCorrection START, of headers that :func:`began` knows.

    In this order: DecayCorrectionDateTime (0018,9701) of enhanced PET (PS3.3 C.8.22.4); GE's private scan date and
    time (0009,100D); per slice AcquisitionTime + T_ave - FrameReferenceTime (0054,1300), with T the
    ActualFrameDuration (0018,1242), both in ms; SeriesTime if not later than the first AcquisitionTime, else that
    (QIBA's order); also that where SeriesTime lies before the injection. Where SeriesTime is used, the first
    AcquisitionTime is another rule; beside those before SeriesTime it is none, as early slices may be missing. A
    FrameReferenceTime of 0 is one that was not filled in: the mean of a frame's counts lies within it. All slices
    of a series are corrected to one time (PS3.3 C.8.9.1), so frame times by which these lie more than a minute
    apart are counted from something else, such as each bed's own start: QIBA's order goes before them. GE's time
    does not count where it lies more than a day from the acquisition: anonymisers shift dates and leave private
    ones.
    """
    scan, notes = _ge_scan(headers)
    frames = _from_frames(headers, half_life_s)
    qiba, left_out = _qiba(headers, injected)
    notes += left_out
    candidates = [
        (_stated(headers), STATED),
        (scan, "GE's private scan date and time (0009,100D)"),
        (frames, _FRAMES),
    ]
    scattered = _spread_s(frames) > _MINUTE_S
    late = [candidates.pop()] if scattered else []
    known = [(moments, source) for moments, source in candidates if moments]
    known += [*(qiba[:1] if known else qiba), *late]
    (used, source), others = known[0], known[1:]
    if scattered:
        notes += (
            f"{_FRAMES} spreads from {said(min(frames))} to {said(max(frames))}, although all slices of a series "
            f"are corrected to one time; {source} was used",
        )
    other = max(others, key=lambda one: abs(_apart_s(used, one[0])), default=((), ""))
    return Reference(used, source, *other, notes=notes)


def administration(start: str, clock: str, acquired: datetime, offset: str) -> Injection | None:
    """Return when the tracer was given; None where neither element says it.

    RadiopharmaceuticalStartDateTime (0018,1078) goes before RadiopharmaceuticalStartTime (0018,1072), which has no
    date: it gets the acquisition's, or the day before where it would lie after the acquisition (midnight). So does
    the former where anonymisation took the acquisition's date. Where the former names a time zone and the object
    has none (``offset``), the latter goes before it: that is local time, as the object's other times are.
    """
    whole, alone = parse_date_time(start, offset), parse_time(clock)
    names = ("RadiopharmaceuticalStartDateTime", "RadiopharmaceuticalStartTime")
    if whole is None:
        return Injection(_before(alone, acquired), names[1]) if alone is not None else None
    dated = acquired.date() != _UNDATED
    if not dated:
        whole = _before(whole.time(), acquired)
    zoned = re.search(r"[+-]\d{4}$", start.strip()) is not None and not re.fullmatch(r"[+-]\d{4}", offset)
    if alone is None:
        return Injection(whole, names[0], dated, zone_unknown=zoned)
    both = (whole, _nearest(alone, whole))
    if zoned:
        both, names = both[::-1], names[::-1]
    if abs((both[1] - both[0]).total_seconds()) <= _MINUTE_S:
        return Injection(both[0], names[0], dated)
    return Injection(both[0], names[0], dated, both[1], names[1])


def given_administration(value: str, acquired: datetime) -> Injection | None:
    """Parse a user's injection time: HH:MM[:SS] or YYYY-MM-DDTHH:MM[:SS], local time; None where it is none."""
    if ":" not in value:
        return None
    try:
        whole = datetime.fromisoformat(value)
    except ValueError:
        pass
    else:
        return Injection(whole, dated=True) if whole.tzinfo is None else None
    try:
        alone = time.fromisoformat(value)
    except ValueError:
        return None
    return Injection(_before(alone, acquired)) if alone.tzinfo is None else None


def said(moment: datetime) -> str:
    """Write a moment for people, without fractions where it has none."""
    return moment.isoformat(sep=" ", timespec="milliseconds" if moment.microsecond else "seconds")


def time_said(value: str) -> str:
    """Write an element (date and time, or a time alone) as :func:`said` does; empty where it is none."""
    moment, clock = parse_date_time(value), parse_time(value)
    return said(moment) if moment else clock.isoformat() if clock else ""


def _spread_s(moments: tuple[datetime, ...]) -> float:
    return (max(moments) - min(moments)).total_seconds() if moments else 0.0


def _nearest(clock: time, moment: datetime) -> datetime:
    """Return the moment with a clock time that lies nearest to another."""
    same_day = datetime.combine(moment.date(), clock)
    return min((same_day + days * _DAY for days in (-1, 0, 1)), key=lambda one: abs(one - moment))


def _apart_s(used: tuple[datetime, ...], other: tuple[datetime, ...]) -> float:
    apart = [(b - a).total_seconds() for a, b in zip(used, other, strict=False)]
    return max(apart, key=abs, default=0.0)


def _before(clock: time, acquired: datetime) -> datetime:
    """Date a clock time: the scan's day, or the day before where midnight explains that it is later than the scan.

    It does not where the scan would then be more than half a day after the injection: clocks that differ by
    seconds must not become a wait of a day.
    """
    moment = datetime.combine(acquired.date(), clock)
    eve = moment - _DAY
    return eve if moment > acquired and acquired - eve <= _HALF_DAY else moment


def _stated(headers: list[Header]) -> tuple[datetime, ...]:
    return _all(
        parse_date_time(text(header, "DecayCorrectionDateTime"), text(header, "TimezoneOffsetFromUTC"))
        for header in headers
    )


def _ge_scan(headers: list[Header]) -> tuple[tuple[datetime, ...], tuple[str, ...]]:
    """GE's scan date and time, and a note where it cannot be this scan's."""
    moments = _all(parse_date_time(private_text(header, GE_SCAN_DATE_TIME)) for header in headers)
    acquired = acquisition(headers[0]) or series_start(headers[0])
    if not moments or acquired is None or abs(moments[0] - acquired) <= _DAY:
        return moments, ()
    return (), (  # without the date itself: it may be the true one of an anonymised study
        "GE's private scan date and time (0009,100D) was left out: it lies more than a day from the acquisition, "
        "so dates were changed and this one was not",
    )


def _from_frames(headers: list[Header], half_life_s: float) -> tuple[datetime, ...]:
    return _all(_from_frame(header, half_life_s) for header in headers)


def _from_frame(header: Header, half_life_s: float) -> datetime | None:
    acquired = acquisition(header)
    duration_ms = number(header, "ActualFrameDuration")
    offset_ms = number(header, "FrameReferenceTime")
    if acquired is None or not duration_ms or duration_ms < 0 or not offset_ms:
        return None
    if max(duration_ms, abs(offset_ms)) > _LONGEST_FRAME_MS:
        return None
    mean_s = mean_activity_time_s(half_life_s, duration_ms / 1000.0)
    return acquired + timedelta(seconds=mean_s - offset_ms / 1000.0)


def _qiba(
    headers: list[Header], injected: datetime
) -> tuple[list[tuple[tuple[datetime, ...], str]], tuple[str, ...]]:
    """SeriesTime and the first AcquisitionTime, what cannot be it left out; a note where that is odd."""
    acquired = [moment for moment in map(acquisition, headers) if moment is not None]
    start, first = series_start(headers[0]), min(acquired, default=None)
    notes: tuple[str, ...] = ()
    if start is not None and first is not None and not injected <= start <= first:
        if start < injected:
            notes = (f"SeriesTime {said(start)} was left out: it lies before the injection, {said(injected)}",)
        start = None
    rules = ((start, "SeriesTime"), (first, "the first AcquisitionTime"))
    return [((moment,) * len(headers), source) for moment, source in rules if moment is not None], notes


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
