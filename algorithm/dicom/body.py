"""Lean body mass, ideal weight and body surface: what a SUV can be normalised by in place of weight."""

from __future__ import annotations

import math
from dataclasses import replace

from algorithm.dicom.headers import Header, number, text
from algorithm.dicom.reckoning import Reckoning
from algorithm.errors import InvalidImageError

_CM_ABOVE = 3.0
_HEIGHTS_M = (0.3, 2.5)
_BMIS = (4.0, 100.0)  # kg/m^2: from the smallest of newborns to more than scanners bear; inches as cm give 140
_USUAL_BMIS = (8.0, 80.0)
_NAMES = {
    "LBM": "lean body mass (James, 120)",
    "LBMJAMES128": "lean body mass (James, 128)",
    "LBMJANMA": "lean body mass (Janmahasatian)",
    "IBW": "ideal body weight",
    "BSA": "body surface (Du Bois)",
}


def body_factor(header: Header, suv_type: str, weight_kg: float, reckoning: Reckoning) -> tuple[float, Reckoning]:
    """Return by what a PET was normalised, in kg, so that SUVbw = value x weight / factor.

    The body surface in m^2 counts 10 kg each: SUVbw = value x W x 1000 / (BSA x 10^4).

    Parameters
    ----------
    header : pydicom.Dataset
        PatientSize (0010,1020) in m (above 3: in cm) and PatientSex (0010,0040).
    suv_type : str
        SUVType (0054,1006): LBM, LBMJAMES128, LBMJANMA, IBW or BSA.
    weight_kg : float
        Body weight.
    reckoning : Reckoning
        Gets height, sex and rule.

    Raises
    ------
    InvalidImageError
        An unknown SUVType, height or sex are missing, or the height is none of a human or does not fit the weight.
    """
    if suv_type not in _NAMES:
        raise InvalidImageError(
            f"SUVType must be BW, {', '.join(_NAMES)}, got {suv_type}; "
            "export a PET in Bq/ml or in SUV by body weight"
        )
    height, notes = _height_m(header, suv_type, weight_kg)
    sex = "" if suv_type == "BSA" else _sex(header, suv_type)
    factor = _factor(suv_type, sex, weight_kg, height * 100.0)
    if factor <= 0:
        raise InvalidImageError(
            f"{_NAMES[suv_type]} is {factor:.1f} kg for weight {weight_kg:g} kg and PatientSize {height:g} m, "
            "which cannot be; give the weight with --weight-kg or export a PET in Bq/ml"
        )
    rule = f"SUVbw = value x weight / {_NAMES[suv_type]}, {weight_kg:g} kg / {factor:.5g} kg"
    if suv_type == "BSA":
        surface = f"{factor / 10.0:.5g} m^2 x 10 kg/m^2"
        rule = f"SUVbw = value x weight / {_NAMES[suv_type]}, {weight_kg:g} kg / ({surface})"
    return factor, replace(reckoning, height_m=height, sex=sex, rule=rule, notes=(*reckoning.notes, *notes))


def odd_build(header: Header, weight_kg: float) -> tuple[str, ...]:
    """Note a weight that hardly fits PatientSize (0010,1020); nothing where that is missing or no human's."""
    stored = number(header, "PatientSize") or 0.0
    height = _in_m(stored)
    if not _HEIGHTS_M[0] <= height <= _HEIGHTS_M[1] or _USUAL_BMIS[0] <= weight_kg / height**2 <= _USUAL_BMIS[1]:
        return ()
    return (
        f"PatientWeight {weight_kg:g} kg and PatientSize {stored:g} give a body mass index of "
        f"{weight_kg / height**2:.1f} kg/m^2, which hardly any patient has; if the weight is wrong, give it with "
        "--weight-kg",
    )


def _in_m(stored: float) -> float:
    return stored / 100.0 if stored > _CM_ABOVE else stored


def _factor(suv_type: str, sex: str, weight: float, height_cm: float) -> float:
    """Formulas of Vácha et al. (W kg, H cm); for sex O the mean of both; BSA in units of 10 kg."""
    if suv_type == "BSA":
        return 10.0 * 0.007184 * math.pow(height_cm, 0.725) * math.pow(weight, 0.425)
    if sex == "O":
        return (_factor(suv_type, "M", weight, height_cm) + _factor(suv_type, "F", weight, height_cm)) / 2.0
    man = sex == "M"
    squared = (weight / height_cm) ** 2
    if suv_type == "IBW":
        return 48.0 + 1.06 * (height_cm - 152.0) if man else 45.5 + 0.91 * (height_cm - 152.0)
    if suv_type == "LBMJANMA":
        bmi = weight / (height_cm / 100.0) ** 2
        return 9270.0 * weight / (6680.0 + 216.0 * bmi if man else 8780.0 + 244.0 * bmi)
    if man:
        return 1.10 * weight - (128.0 if suv_type == "LBMJAMES128" else 120.0) * squared
    return 1.07 * weight - 148.0 * squared


def _height_m(header: Header, suv_type: str, weight_kg: float) -> tuple[float, tuple[str, ...]]:
    stored = number(header, "PatientSize")
    if stored is None or stored <= 0:
        raise InvalidImageError(
            f"PatientSize must be above 0 to undo SUVType {suv_type}, got "
            f"{text(header, 'PatientSize') or 'none'}; export a PET in Bq/ml or in SUV by body weight"
        )
    height = _in_m(stored)
    in_cm = height != stored
    bmi = weight_kg / height**2
    if not (_HEIGHTS_M[0] <= height <= _HEIGHTS_M[1] and _BMIS[0] <= bmi <= _BMIS[1]):
        raise InvalidImageError(
            f"PatientSize must be in m, {_HEIGHTS_M[0]:g} to {_HEIGHTS_M[1]:g}, and fit the weight, got {stored:g}"
            f"{' (taken as cm)' if in_cm else ''} for {weight_kg:g} kg; export a PET in Bq/ml or in SUV by body "
            "weight"
        )
    return height, ((f"PatientSize {stored:g} was taken as cm",) if in_cm else ())


def _sex(header: Header, suv_type: str) -> str:
    sex = text(header, "PatientSex").upper()
    if sex not in ("M", "F", "O"):
        raise InvalidImageError(
            f"PatientSex must be M, F or O to undo SUVType {suv_type}, got {sex or 'none'}; "
            "export a PET in Bq/ml or in SUV by body weight"
        )
    return sex
