"""From a PET's stored values to SUVbw.

SUVbw = activity concentration [Bq/ml] x weight [g] / dose [Bq], the dose decayed to the time that the voxels are
corrected to.

Sources: Vácha et al., "Comprehensive Manual for SUV Computation and Digital Reference Objects for its
Verification" (CC BY 4.0), with its survey of 3433 PET series; DICOM PS3.3 C.8.9 (PET) and C.8.22 (enhanced PET);
private elements by the vendors' conformance statements as quoted in the former. Each rule below names its
elements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algorithm.dicom.body import body_factor, odd_build
from algorithm.dicom.decay import dose_at_reference
from algorithm.dicom.headers import (
    PHILIPS_ACTIVITY_FACTOR,
    PHILIPS_SUV_FACTOR,
    Header,
    items,
    number,
    private_number,
    text,
    words,
)
from algorithm.dicom.reckoning import WEIGHTS_KG, Reckoning, SuvOverrides
from algorithm.dicom.series import Series, attenuation_corrected
from algorithm.dicom.volume import voxel_volume_ml
from algorithm.errors import InvalidImageError

_HEAVIEST_KG = 1000.0
_NAMING = ("PatientID", "StudyInstanceUID")  # whose values no sentence tells
_UNIT_CODES = {  # UCUM codes of MeasurementUnitsCodeSequence (PS3.16 CID 84, 85), in enhanced PET
    "BQ/ML": ("BQML", ""),
    "{SUVBW}G/ML": ("GML", "BW"),
    "G/ML{SUVBW}": ("GML", "BW"),
    "{SUVLBM}G/ML": ("GML", "LBM"),
    "G/ML{SUVLBM}": ("GML", "LBM"),
    "G/ML{SUVLBM(JAMES128)}": ("GML", "LBMJAMES128"),
    "G/ML{SUVLBM(JANMA)}": ("GML", "LBMJANMA"),
    "{SUVIBW}G/ML": ("GML", "IBW"),
    "G/ML{SUVIBW}": ("GML", "IBW"),
    "{SUVBSA}CM2/ML": ("CM2ML", "BSA"),
    "CM2/ML{SUVBSA}": ("CM2ML", "BSA"),
    "{COUNTS}": ("CNTS", ""),
    "{COUNTS}/S": ("CPS", ""),
}


@dataclass(frozen=True)
class _Pet:
    """What the rules need: the slices' headers, and the user's word."""

    series: Series
    headers: list[Header]
    overrides: SuvOverrides


_Factors = tuple[NDArray[np.float64], Reckoning]


def reckon(series: Series, overrides: SuvOverrides | None = None) -> tuple[NDArray[np.float64], Reckoning]:
    """Find the factor from stored value to SUVbw for each slice of a PET.

    Parameters
    ----------
    series : Series
        A PET without a problem.
    overrides : SuvOverrides, optional
        What the user supplies in place of the headers.

    Returns
    -------
    factors : float64 array, one per slice
        RescaleSlope included.
    reckoning : Reckoning
        What they were reckoned from.

    Raises
    ------
    InvalidImageError
        The PET cannot be converted; the sentence says what is missing or contradicts.
    """
    pet = _Pet(series, [piece.header for piece in series.slices], overrides or SuvOverrides())
    for keyword in _NAMING:
        _check_alike(pet, keyword)
    slopes = _slopes(pet)
    units, suv_type = _units(pet)
    _check_corrections(pet)
    rule = _RULES.get(units)
    if rule is None:
        raise InvalidImageError(
            "the PET's Units must be BQML, GML, CM2ML, CNTS or CPS, got "
            f"{units or _unit_code(series.header) or 'none'} in {series}; export a PET in Bq/ml or SUV"
        )
    start = Reckoning(
        units=units,
        rule="",
        slices=len(slopes),
        slope_least=float(slopes.min()),
        slope_most=float(slopes.max()),
        factor_least=0.0,
        factor_most=0.0,
        decay_correction=_one_of(pet, _decay_correction, "DecayCorrection"),
    )
    per_value, reckoning = rule(pet, start, suv_type)
    factors = slopes * per_value
    reckoning = replace(reckoning, notes=(*reckoning.notes, *_unused(pet.overrides, reckoning)))
    return factors, replace(reckoning, factor_least=float(factors.min()), factor_most=float(factors.max()))


def _slopes(pet: _Pet) -> NDArray[np.float64]:
    """RescaleSlope (0028,1053) of each slice: in half of all series every slice has its own.

    Source: survey of Vácha et al.; RescaleIntercept (0028,1052) must be 0 (PS3.3 C.8.9.4.1.6).
    """
    slopes = []
    for piece in pet.series.slices:
        slope, intercept = _scaling(piece.header)
        if slope is None or slope <= 0:
            shown = "none" if slope is None else f"{slope:g}"
            raise InvalidImageError(
                f"RescaleSlope must be above 0, got {shown} in {piece.path}; export the PET again"
            )
        if intercept:
            raise InvalidImageError(
                f"RescaleIntercept of a PET must be 0, got {intercept:g} in {piece.path}; export the PET again"
            )
        slopes.append(slope)
    return np.array(slopes)


def _scaling(header: Header) -> tuple[float | None, float | None]:
    """Slope and intercept; in enhanced PET those of the real-world values where they name a unit that we know."""
    mapping = items(header, "RealWorldValueMappingSequence")
    if mapping and not text(header, "Units") and _mapped_units(header)[0]:
        return number(mapping[0], "RealWorldValueSlope"), number(mapping[0], "RealWorldValueIntercept")
    return number(header, "RescaleSlope"), number(header, "RescaleIntercept")


def _units(pet: _Pet) -> tuple[str, str]:
    """Units (0054,1001) and SUVType (0054,1006); in enhanced PET by RealWorldValueMappingSequence (0040,9096)."""
    units = _one_of(pet, lambda header: text(header, "Units").upper() or _mapped_units(header)[0], "Units")
    suv_type = _one_of(pet, lambda header: text(header, "SUVType").upper() or _mapped_units(header)[1], "SUVType")
    return units, suv_type


def _mapped_units(header: Header) -> tuple[str, str]:
    code = _unit_code(header)
    if code is None:
        return text(header, "RescaleType").upper() if text(header, "RescaleType").upper() == "BQML" else "", ""
    return _UNIT_CODES.get(code.upper(), ("", ""))


def _unit_code(header: Header) -> str | None:
    """Code of the real-world values' unit; beyond 16 characters it is a LongCodeValue (0008,0119) (PS3.3, 8.1)."""
    mapping = items(header, "RealWorldValueMappingSequence")
    codes = items(mapping[0], "MeasurementUnitsCodeSequence") if mapping else []
    return text(codes[0], "CodeValue") or text(codes[0], "LongCodeValue") if codes else None


def _decay_correction(header: Header) -> str:
    """DecayCorrection (0054,1102); in enhanced PET by DecayCorrected (0018,9758) YES or NO."""
    said = text(header, "DecayCorrection").upper()
    return said or {"YES": "START", "NO": "NONE"}.get(text(header, "DecayCorrected").upper(), "")


def _check_corrections(pet: _Pet) -> None:
    """Refuse what is no quantitative PET.

    Source: CorrectedImage (0028,0051) must have ATTN, and DECY exactly where DecayCorrection (0054,1102) is START
    or ADMIN (PS3.3 C.8.9.1.1.4, QIBA's profile for FDG PET).
    """
    for piece in pet.series.slices:
        if not attenuation_corrected(piece.header):
            said = _joined(words(piece.header, "CorrectedImage")) or "empty"
            raise InvalidImageError(
                f"the PET must be corrected for attenuation, got CorrectedImage {said} (without ATTN) in "
                f"{piece.path}; give the corrected series"
            )
    corrections = words(pet.series.header, "CorrectedImage")
    decay = _decay_correction(pet.series.header)
    contradicts = decay in ("START", "ADMIN", "NONE") and ("DECY" in corrections) == (decay == "NONE")
    if corrections and contradicts:
        raise InvalidImageError(
            f"CorrectedImage {_joined(corrections)} contradicts DecayCorrection {decay} in {pet.series}: whether "
            "it is corrected for decay is unknown; export the PET again"
        )


def _from_activity(pet: _Pet, reckoning: Reckoning, to_bq_ml: NDArray[np.float64]) -> _Factors:
    """SUVbw of values that ``to_bq_ml`` turns into Bq/ml: x weight / dose at the time of correction."""
    weight, reckoning = _weight(pet, reckoning)
    _check_tracer(pet, reckoning.decay_correction)
    dose, reckoning = dose_at_reference(pet.headers, pet.overrides, reckoning)
    return to_bq_ml * weight * 1000.0 / dose, reckoning


def _bqml(pet: _Pet, reckoning: Reckoning, _: str) -> _Factors:
    """BQML: Bq/ml as it is (87 % of the survey)."""
    reckoning = replace(reckoning, rule="SUVbw = Bq/ml x weight in g / dose in Bq, decayed to the same time")
    return _from_activity(pet, reckoning, np.ones(len(pet.headers)))


def _gml(pet: _Pet, reckoning: Reckoning, suv_type: str) -> _Factors:
    """GML: already normalised, by what SUVType (0054,1006) names; empty or BW is SUVbw (PS3.3 C.8.9.1)."""
    ones = np.ones(len(pet.headers))
    if suv_type in ("", "BW"):
        return ones, replace(reckoning, units="GML", rule="values are SUVbw already")
    if suv_type == "BSA":
        raise InvalidImageError(
            f"Units GML contradict SUVType BSA in {pet.series}; export a PET in Bq/ml or in SUV by body weight"
        )
    return _other_normalisation(pet, reckoning, suv_type, f"GML ({suv_type})")


def _cm2ml(pet: _Pet, reckoning: Reckoning, suv_type: str) -> _Factors:
    """CM2ML: normalised by body surface, SUVbw = value x W x 1000 / (BSA x 10^4)."""
    if suv_type not in ("", "BSA"):
        raise InvalidImageError(
            f"Units CM2ML contradict SUVType {suv_type} in {pet.series}; "
            "export a PET in Bq/ml or in SUV by body weight"
        )
    return _other_normalisation(pet, reckoning, "BSA", "CM2ML")


def _other_normalisation(pet: _Pet, reckoning: Reckoning, suv_type: str, units: str) -> _Factors:
    for keyword in ("PatientSize", "PatientSex"):
        _check_alike(pet, keyword)
    weight, reckoning = _weight(pet, reckoning)
    factor, reckoning = body_factor(pet.headers[0], suv_type, weight, reckoning)
    reckoning = replace(reckoning, units=units)
    return np.full(len(pet.headers), weight / factor), reckoning


def _cnts(pet: _Pet, reckoning: Reckoning, _: str) -> _Factors:
    """CNTS: Philips' private factors.

    SUV scale factor (7053,1000) where it is there and not 0, SUVbw = value x factor; else activity concentration
    factor (7053,1009), Bq/ml = value x factor; else no SUV.
    """
    for element, name in ((PHILIPS_SUV_FACTOR, "(7053,1000)"), (PHILIPS_ACTIVITY_FACTOR, "(7053,1009)")):
        factors = [private_number(header, element) for header in pet.headers]
        known = np.array([factor for factor in factors if factor], float)
        if len(known) < len(factors) or (known < 0).any():
            continue
        if element is PHILIPS_SUV_FACTOR:
            return known, replace(reckoning, rule=f"SUVbw = counts x Philips' SUV factor {name}, {_range(known)}")
        rule = f"Bq/ml = counts x Philips' activity factor {name}, {_range(known)}; SUVbw = Bq/ml x weight / dose"
        return _from_activity(pet, replace(reckoning, rule=rule), known)
    raise InvalidImageError(
        f"the PET {pet.series} is in counts (Units CNTS) without Philips' private factors (7053,1000) and "
        "(7053,1009); export it with private elements, or in Bq/ml"
    )


def _cps(pet: _Pet, reckoning: Reckoning, _: str) -> _Factors:
    """CPS: counts per second, where they are calibrated.

    With DCAL in CorrectedImage (0028,0051) Bq per voxel, to be divided by the voxel's volume in ml; else with
    DoseCalibrationFactor (0054,1322) Bq/ml = value x factor; else no SUV.
    """
    if all("DCAL" in words(header, "CorrectedImage") for header in pet.headers):
        volume = voxel_volume_ml(pet.series)
        rule = f"Bq/ml = counts/s / {volume:.6g} ml of a voxel (DCAL); SUVbw = Bq/ml x weight / dose"
        return _from_activity(pet, replace(reckoning, rule=rule), np.full(len(pet.headers), 1.0 / volume))
    factors = [number(header, "DoseCalibrationFactor") or 0.0 for header in pet.headers]
    if min(factors) > 0:
        known = np.array(factors)
        rule = f"Bq/ml = counts/s x DoseCalibrationFactor {_range(known)}; SUVbw = Bq/ml x weight / dose"
        return _from_activity(pet, replace(reckoning, rule=rule), known)
    raise InvalidImageError(
        f"the PET {pet.series} is in counts per second (Units CPS) without DCAL in CorrectedImage and without "
        "DoseCalibrationFactor; export it in Bq/ml"
    )


def _weight(pet: _Pet, reckoning: Reckoning) -> tuple[float, Reckoning]:
    """PatientWeight (0010,1030) in kg; above 1000 it was entered in g (survey of Vácha et al.)."""
    given = pet.overrides.weight_kg
    if given is not None:
        said = f"weight {given:g} kg, the header has {text(pet.headers[0], 'PatientWeight') or 'none'}"
        return given, replace(reckoning, weight_kg=given, overrides=(*reckoning.overrides, said))
    _check_alike(pet, "PatientWeight")
    weight = number(pet.headers[0], "PatientWeight")
    shown = text(pet.headers[0], "PatientWeight") or "none"
    if weight is None or weight <= 0:
        raise InvalidImageError(
            f"PatientWeight must be above 0, got {shown} in {pet.series}; give the weight with --weight-kg"
        )
    notes = reckoning.notes
    if weight > _HEAVIEST_KG:
        notes = (*notes, f"PatientWeight {weight:g} was taken as g, as no patient weighs above 1000 kg")
        weight /= 1000.0
    least, most = WEIGHTS_KG
    if not least <= weight <= most:
        raise InvalidImageError(
            f"PatientWeight must be {least:g} to {most:g} kg, got {shown} in {pet.series}; give the weight with "
            "--weight-kg"
        )
    notes = (*notes, *odd_build(pet.headers[0], weight))
    return weight, replace(reckoning, weight_kg=weight, notes=notes)


def _unused(overrides: SuvOverrides, reckoning: Reckoning) -> list[str]:
    """Name what the user gave in vain."""
    options = (
        ("weight", overrides.weight_kg),
        ("dose", overrides.dose_mbq),
        ("injection", overrides.injection_time),
        ("half-life", overrides.half_life_s),
    )
    return [
        f"the {name} was given but is not needed for these units and this decay correction"
        for name, value in options
        if value is not None and not any(said.startswith(name) for said in reckoning.overrides)
    ]


def _one_of(pet: _Pet, value: Callable[[Header], str], name: str) -> str:
    """Return what all slices say alike."""
    said: Iterable[str] = {value(header) for header in pet.headers}
    found = sorted(said)
    if len(found) > 1:
        several = " and ".join(one or "none" for one in found)
        got = f"{len(found)} different ones" if name in _NAMING else several
        raise InvalidImageError(
            f"{name} must be the same in all slices, got {got} in {pet.series}; export the PET again"
        )
    return found[0]


def _check_tracer(pet: _Pet, decay_correction: str) -> None:
    """Refuse slices that differ in what is used of the tracer."""
    used = ["RadionuclideTotalDose"] if pet.overrides.dose_mbq is None else []
    if decay_correction != "ADMIN":
        used += ["RadionuclideHalfLife"] if pet.overrides.half_life_s is None else []
        if pet.overrides.injection_time is None:
            used += ["RadiopharmaceuticalStartDateTime", "RadiopharmaceuticalStartTime"]
    for keyword in used:
        _check_alike(pet, keyword, "RadiopharmaceuticalInformationSequence")


def _check_alike(pet: _Pet, keyword: str, sequence: str = "") -> None:
    """Refuse slices that differ in an element, or in one of a sequence's first item; "70" and "70.0" are alike."""

    def value(header: Header) -> str:
        for holder in items(header, sequence)[:1] if sequence else [header]:
            figure = number(holder, keyword)
            digits = 15 if keyword.endswith("Time") else 12  # a date and a time have 14
            return text(holder, keyword) if figure is None else f"{figure:.{digits}g}"
        return ""

    _one_of(pet, value, keyword)


def _joined(values: tuple[str, ...]) -> str:
    return "\\".join(values)


def _range(values: NDArray[np.float64]) -> str:
    least, most = float(values.min()), float(values.max())
    return f"{least:.6g}" if least == most else f"{least:.6g} to {most:.6g}"


_RULES: dict[str, Callable[[_Pet, Reckoning, str], Any]] = {
    "BQML": _bqml,
    "GML": _gml,
    "CM2ML": _cm2ml,
    "CNTS": _cnts,
    "CPS": _cps,
}
