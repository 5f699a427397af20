"""The dose of a PET, decayed to the time that its voxels are corrected to."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from algorithm.dicom.headers import Header, items, number, text
from algorithm.dicom.reckoning import Reckoning, SuvOverrides
from algorithm.dicom.times import (
    STATED,
    Injection,
    Reference,
    acquisition,
    administration,
    began,
    given_administration,
    reference,
    said,
    time_said,
)
from algorithm.dicom.uptake import Uptake
from algorithm.errors import InvalidImageError

HALF_LIVES_S = {"F-18": 6586.2, "Ga-68": 4057.0, "C-11": 1223.0, "N-13": 598.0, "Ge-68": 23400000.0}
"""Where RadionuclideHalfLife (0018,1075) is missing; source: Vácha et al."""

_CODES = {  # PS3.16 CID 4020, SNOMED CT and the older SNOMED-RT that scanners write
    "F-18": ("77004003", "C-111A1"),
    "Ga-68": ("35337001", "C-131A3"),
    "C-11": ("40565003", "C-105A1"),
    "N-13": ("21576001", "C-107A1"),
    "Ge-68": ("53315004", "C-128A2"),
}
_MEANINGS = {  # "18F", "^18^Fluorine", "F-18", "Fluorine 18"
    "F-18": r"18\W*F|F\w*\W*18",
    "Ga-68": r"68\W*Ga|Ga\w*\W*68",
    "C-11": r"11\W*C|C\w*\W*11",
    "N-13": r"13\W*N|N\w*\W*13",
    "Ge-68": r"68\W*Ge|Ge\w*\W*68",
}
_MINUTE_S = 60.0
_MEGA = 1e6
_MOST_MBQ_TYPED = 1e4  # survey of Vácha et al.: two clear peaks, 4e2 (MBq) and 4e8 (Bq)
_MOST_MCI = 60.0  # of Rb-82 and O-15; of F-18 a quarter
_MBQ_PER_MCI = 37.0
_LEAST_BQ = 1e6
_MOST_BQ = 2e10
_HALF_LIFE_TOLERANCE = 0.02
_DECAY_FACTOR_TOLERANCE = 0.02


def dose_at_reference(
    headers: list[Header], overrides: SuvOverrides, reckoning: Reckoning
) -> tuple[NDArray[np.float64], Reckoning]:
    """Return, per slice, the dose in Bq by which Bq/ml have to be divided.

    Rules by DecayCorrection (0054,1102), PS3.3 C.8.9.1.1.6:

    * ADMIN: the dose as administered, and nothing else.
    * START: dose x exp(-lambda (t_ref - t_admin)); t_ref by :func:`algorithm.dicom.times.reference`. Where an
      enhanced PET names the injection's own time as t_ref, and was acquired later, that is ADMIN.
    * NONE: each slice's values x lambda T / (1 - exp(-lambda T)) x exp(lambda (t_acq - t_admin)), then the dose as
      administered; that is, the dose over this factor. T is the ActualFrameDuration (0018,1242).

    Raises
    ------
    InvalidImageError
        Dose, half-life or times are missing or cannot be right.
    """
    decay_correction = reckoning.decay_correction
    if decay_correction not in ("ADMIN", "START", "NONE"):
        raise InvalidImageError(
            f"DecayCorrection must be START, ADMIN or NONE, got {decay_correction or 'none'}; export the PET again"
        )
    tracer = _tracer(headers[0])
    dose, reckoning = _dose_bq(tracer, overrides, reckoning)
    reckoning = replace(reckoning, dose_mbq=dose / _MEGA, nuclide=nuclide_name(tracer))
    if decay_correction == "ADMIN":
        used = np.full(len(headers), dose)
        return used, _with_dose(reckoning, used)
    half_life, reckoning = _half_life_s(tracer, overrides, reckoning)
    if decay_correction == "START":
        return _decayed_dose(headers, overrides, reckoning, dose, half_life)
    return _uncorrected(headers, overrides, reckoning, dose, half_life)


def nuclide_name(tracer: Header) -> str:
    """Return the radionuclide of RadionuclideCodeSequence (0054,0300), as "F-18"; empty where it is unknown."""
    codes = items(tracer, "RadionuclideCodeSequence")
    if not codes:
        return ""
    value, meaning = text(codes[0], "CodeValue"), text(codes[0], "CodeMeaning")
    for nuclide, known in _CODES.items():
        if value in known:
            return nuclide
    for nuclide, pattern in _MEANINGS.items():
        if re.search(rf"(?<![A-Za-z0-9])(?:{pattern})(?![0-9])", meaning, re.IGNORECASE):
            return nuclide
    return meaning


def _decayed_dose(
    headers: list[Header], overrides: SuvOverrides, reckoning: Reckoning, dose: float, half_life: float
) -> tuple[NDArray[np.float64], Reckoning]:
    """DecayCorrection START."""
    acquired = began(headers)
    if acquired is None:
        raise InvalidImageError(
            "AcquisitionTime and SeriesTime are missing, so it is unknown to when the voxels are corrected for "
            "decay; export the PET with its times"
        )
    given, reckoning = _administration(headers, overrides, reckoning, acquired)
    corrected = reference(headers, half_life, given.at)
    uptake = Uptake(given, corrected.per_slice, "the time that the PET is corrected to", half_life)
    left = np.exp(-np.log(2.0) / half_life * uptake.elapsed_s)
    administered = corrected.source == STATED and uptake.ends_with_injection(acquired)
    if administered:
        reckoning = replace(reckoning, decay_correction="ADMIN")
        uptake = Uptake(given, (acquired,), "the acquisition", half_life)
        other: tuple[str, ...] = ()  # the other rules are START's
    else:
        other = (*_disagreement(corrected, half_life), *_by_decay_factor(headers, corrected, half_life))
    uptake.check(acquired, corrected=not administered)
    notes = (*corrected.notes, *other, *_of_injection(given, half_life))
    reckoning = replace(
        reckoning,
        injected_at=said(given.at),
        corrected_to_first=said(min(corrected.per_slice)),
        corrected_to_last=said(max(corrected.per_slice)),
        corrected_to_source=corrected.source,
        decay_least=float(left.min()),
        decay_most=float(left.max()),
        notes=(*reckoning.notes, *notes, *uptake.notes()),
    )
    return dose * left, _with_dose(reckoning, dose * left)


def _uncorrected(
    headers: list[Header], overrides: SuvOverrides, reckoning: Reckoning, dose: float, half_life: float
) -> tuple[NDArray[np.float64], Reckoning]:
    """DecayCorrection NONE."""
    acquired = [acquisition(header) for header in headers]
    durations_ms = [number(header, "ActualFrameDuration") or 0.0 for header in headers]
    known = [moment for moment in acquired if moment is not None]
    if len(known) < len(headers) or min(durations_ms) <= 0:
        raise InvalidImageError(
            "AcquisitionTime or ActualFrameDuration are missing, and DecayCorrection is NONE, so the decay cannot "
            "be corrected; export the PET with its times, or corrected for decay"
        )
    given, reckoning = _administration(headers, overrides, reckoning, min(known))
    uptake = Uptake(given, tuple(known), "the acquisition", half_life)
    uptake.check(min(known), corrected=False)
    rate = np.log(2.0) / half_life
    during = _during(rate * np.array(durations_ms) / 1000.0)
    factor = during * np.exp(rate * uptake.elapsed_s)
    reckoning = replace(
        reckoning,
        injected_at=said(given.at),
        decay_least=float(factor.min()),
        decay_most=float(factor.max()),
        notes=(*reckoning.notes, *_of_injection(given, half_life), *uptake.notes()),
    )
    return dose / factor, _with_dose(reckoning, np.array([dose]))


def _tracer(header: Header) -> Header:
    """First item of RadiopharmaceuticalInformationSequence (0054,0016), or nothing at all."""
    tracers = items(header, "RadiopharmaceuticalInformationSequence")
    if len(tracers) > 1:
        doses = {number(item, "RadionuclideTotalDose") for item in tracers}
        if len(doses) > 1:
            raise InvalidImageError(
                f"the PET must have one tracer, got {len(tracers)} items of "
                "RadiopharmaceuticalInformationSequence with different doses; export a PET of one tracer"
            )
    return tracers[0] if tracers else {}


def _dose_bq(tracer: Header, overrides: SuvOverrides, reckoning: Reckoning) -> tuple[float, Reckoning]:
    """RadionuclideTotalDose (0018,1074): Bq, but some 10^2 to 10^3 mean MBq."""
    shown = text(tracer, "RadionuclideTotalDose") or "none"
    if overrides.dose_mbq is not None:
        told = f"dose {overrides.dose_mbq:g} MBq, the header has {shown}"
        return overrides.dose_mbq * _MEGA, replace(reckoning, overrides=(*reckoning.overrides, told))
    dose = number(tracer, "RadionuclideTotalDose")
    if dose is None or dose <= 0:
        raise InvalidImageError(
            f"RadionuclideTotalDose must be above 0, got {shown}; give the dose with --dose-mbq"
        )
    if 1.0 <= dose < _MOST_MBQ_TYPED:
        note = f"RadionuclideTotalDose {shown} was taken as MBq"
        if dose <= _MOST_MCI:
            note += f"; if it is in mCi, give --dose-mbq {dose * _MBQ_PER_MCI:g}"
        return dose * _MEGA, replace(reckoning, notes=(*reckoning.notes, note))
    if not _LEAST_BQ <= dose <= _MOST_BQ:
        raise InvalidImageError(
            f"RadionuclideTotalDose must be in Bq (or MBq), got {shown}, which is neither for a PET; give the "
            "dose with --dose-mbq"
        )
    return dose, reckoning


def _half_life_s(tracer: Header, overrides: SuvOverrides, reckoning: Reckoning) -> tuple[float, Reckoning]:
    """RadionuclideHalfLife (0018,1075) in s; where it is missing, by RadionuclideCodeSequence (0054,0300)."""
    nuclide = nuclide_name(tracer)
    stored = number(tracer, "RadionuclideHalfLife")
    shown = text(tracer, "RadionuclideHalfLife") or "none"
    if overrides.half_life_s is not None:
        told = f"half-life {overrides.half_life_s:g} s, the header has {shown}"
        return overrides.half_life_s, replace(
            reckoning, half_life_s=overrides.half_life_s, overrides=(*reckoning.overrides, told)
        )
    usual = HALF_LIVES_S.get(nuclide)
    notes = reckoning.notes
    if stored is None or stored <= 0:
        if usual is None:
            raise InvalidImageError(
                f"RadionuclideHalfLife must be above 0, got {shown}, and the radionuclide "
                f"{nuclide or '(none named)'} is none of {', '.join(HALF_LIVES_S)}; give it with --half-life-s"
            )
        stored = usual
        notes = (*notes, f"RadionuclideHalfLife is missing: {usual:g} s of {nuclide} was used")
    elif usual is not None and abs(stored * 60.0 / usual - 1.0) < _HALF_LIFE_TOLERANCE:
        raise InvalidImageError(
            f"RadionuclideHalfLife must be in s, got {shown}, the minutes of {nuclide} ({usual:g} s); "
            "give it with --half-life-s"
        )
    elif usual is not None and abs(stored / usual - 1.0) > _HALF_LIFE_TOLERANCE:
        notes = (*notes, f"RadionuclideHalfLife {shown} s was used, although {nuclide} has {usual:g} s")
    return stored, replace(reckoning, half_life_s=stored, notes=notes)


def _administration(
    headers: list[Header], overrides: SuvOverrides, reckoning: Reckoning, acquired: datetime
) -> tuple[Injection, Reckoning]:
    """When the tracer was given: by the user, else by the header."""
    tracer = _tracer(headers[0])
    start, clock = (text(tracer, f"RadiopharmaceuticalStart{kind}") for kind in ("DateTime", "Time"))
    if overrides.injection_time is not None:
        given = given_administration(overrides.injection_time, acquired)
        assert given is not None  # SuvOverrides checked its form
        has = time_said(start) or time_said(clock) or ("no time" if start or clock else "none")
        told = f"injection at {said(given.at)}, the header has {has}"
        return given, replace(reckoning, overrides=(*reckoning.overrides, told))
    found = administration(start, clock, acquired, text(headers[0], "TimezoneOffsetFromUTC"))
    if found is None:
        raise InvalidImageError(
            f"RadiopharmaceuticalStartDateTime and RadiopharmaceuticalStartTime must be a time, got "
            f"{start or clock or 'none'}; give the injection's time with --injection-time"
        )
    return found, reckoning


def _of_injection(given: Injection, half_life: float) -> tuple[str, ...]:
    """Name the element that has another time of injection, and what it would give."""
    if given.zone_unknown:
        return (
            f"{given.source} names a time zone and the PET none, so {said(given.at)} was taken as the scanner's "
            "local time; if it is not, give the injection's time with --injection-time",
        )
    if given.other is None:
        return ()
    ratio = _times_as_high((given.at - given.other).total_seconds(), half_life)
    return (
        f"the injection is taken as given at {said(given.at)} by {given.source}; by {given.other_source} it would "
        f"be {said(given.other)}, and SUVs {ratio:.3f} times as high",
    )


def _disagreement(corrected: Reference, half_life: float) -> tuple[str, ...]:
    """Name a second rule that differs by more than a minute and what it would give, and times that spread."""
    notes = []
    if corrected.spread_s > _MINUTE_S:
        first, last = said(min(corrected.per_slice)), said(max(corrected.per_slice))
        notes.append(
            f"the slices are taken as corrected to times from {first} to {last} by {corrected.source}, although "
            "all of a series are corrected to one; each slice's own was used"
        )
    if abs(corrected.apart_s) > _MINUTE_S:
        used, other = corrected.per_slice[corrected.farthest], corrected.other[corrected.farthest]
        ratio = _times_as_high(corrected.apart_s, half_life)
        notes.append(
            f"the voxels are taken as corrected to {said(used)} by {corrected.source}; by "
            f"{corrected.other_source} it would be {said(other)}, and SUVs {ratio:.3f} times as high"
        )
    return tuple(notes)


def _by_decay_factor(headers: list[Header], corrected: Reference, half_life: float) -> tuple[str, ...]:
    """Name the slice whose DecayFactor (0054,1321) differs most from what the time of correction gives it.

    That is exp(lambda (t_acq - t_ref)) x lambda T / (1 - exp(-lambda T)), as PS3.3 C.8.9.1.1.5 connects them; T is
    the ActualFrameDuration (0018,1242). A factor of 1 is one that was not filled in: every frame decays.
    """
    rate = np.log(2.0) / half_life
    found = []
    for header, moment in zip(headers, corrected.per_slice, strict=True):
        acquired, factor = acquisition(header), number(header, "DecayFactor") or 0.0
        duration_ms = number(header, "ActualFrameDuration") or 0.0
        if acquired is not None and duration_ms > 0 and factor > 0 and factor != 1.0:
            until = rate * (acquired - moment).total_seconds()
            wanted = float(np.exp(until) * _during(np.array(rate * duration_ms / 1000.0)))
            found.append((abs(wanted / factor - 1.0), acquired, factor, moment, wanted))
    if not found or max(found)[0] <= _DECAY_FACTOR_TOLERANCE:
        return ()
    _, acquired, factor, moment, wanted = max(found)
    return (
        f"DecayFactor is {factor:.4f} in the slice acquired at {said(acquired)}, where the time that it is taken "
        f"as corrected to, {said(moment)} by {corrected.source}, gives {wanted:.4f}; if DecayFactor is right, "
        f"SUVs are {wanted / factor:.3f} times as high",
    )


def _during(decay: NDArray[np.float64]) -> NDArray[np.float64]:
    """By how much a frame's mean activity is below that at its start; ``decay`` is lambda x duration."""
    return decay / -np.expm1(-decay)


def _times_as_high(later_s: float, half_life: float) -> float:
    """By how much SUVs rise where as many seconds more lie between injection and correction."""
    return float(np.exp(np.log(2.0) / half_life * later_s))


def _with_dose(reckoning: Reckoning, used: NDArray[np.float64]) -> Reckoning:
    least, most = float(used.min()) / _MEGA, float(used.max()) / _MEGA
    return replace(reckoning, dose_used_mbq_least=least, dose_used_mbq_most=most)
