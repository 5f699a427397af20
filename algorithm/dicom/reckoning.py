"""What a SUV was reckoned from, for people and for the report; and what a user supplies where headers lack it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from datetime import datetime

from algorithm.dicom.times import given_administration
from algorithm.errors import UsageError

WEIGHTS_KG = (0.5, 700.0)
"""Between these lies the weight of every patient."""


@dataclass(frozen=True)
class SuvOverrides:
    """What a user says in place of the headers; None leaves it to them.

    Attributes
    ----------
    weight_kg : float or None
        Body weight.
    dose_mbq : float or None
        Administered activity at the time of injection.
    injection_time : str or None
        HH:MM[:SS], on the day of the acquisition or the day before, or YYYY-MM-DDTHH:MM[:SS].
    half_life_s : float or None
        Of the radionuclide.

    Raises
    ------
    UsageError
        A value makes no sense.
    """

    weight_kg: float | None = None
    dose_mbq: float | None = None
    injection_time: str | None = None
    half_life_s: float | None = None

    def __post_init__(self) -> None:
        limits = (("weight_kg", *WEIGHTS_KG), ("dose_mbq", 0.1, 20000.0), ("half_life_s", 10.0, 1e9))
        for name, least, most in limits:
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and least <= value <= most):
                option = name.replace("_", "-")
                raise UsageError(f"--{option} must lie between {least:g} and {most:g}, got {value:g}")
        if self.injection_time is not None and given_administration(self.injection_time, datetime.max) is None:
            raise UsageError(
                "--injection-time must be of the form HH:MM:SS or YYYY-MM-DDTHH:MM:SS, in the scanner's local "
                f"time, got {self.injection_time!r}"
            )


@dataclass(frozen=True)
class Reckoning:
    """How stored values became SUVbw.

    Attributes
    ----------
    units : str
        Units (0054,1001), with SUVType (0054,1006) where it is not body weight.
    rule : str
        The formula, in words.
    slices : int
        How many slices were converted.
    slope_least, slope_most : float
        RescaleSlope over the slices.
    factor_least, factor_most : float
        From stored value to SUVbw, over the slices.
    weight_kg, height_m : float or None
        As used; None where they were not needed.
    sex : str
        PatientSex (0010,0040) where it was needed, else empty.
    dose_mbq : float or None
        Administered activity; None where it was not needed.
    dose_used_mbq_least, dose_used_mbq_most : float or None
        The same at the time that the voxels are corrected to.
    half_life_s : float or None
        As used.
    nuclide : str
        As the header names it.
    decay_correction : str
        DecayCorrection (0054,1102), or what an enhanced PET's own elements amount to.
    injected_at : str
        ISO 8601; empty where it was not needed.
    corrected_to_first, corrected_to_last : str
        Time that the voxels are corrected to, over the slices; empty where it was not needed.
    corrected_to_source : str
        The elements that say it.
    decay_least, decay_most : float or None
        What of the dose was left then; with DecayCorrection NONE, by what the slices' values were multiplied.
    overrides : tuple of str
        What the user supplied in place of the headers.
    notes : tuple of str
        What was mended or is odd.
    """

    units: str
    rule: str
    slices: int
    slope_least: float
    slope_most: float
    factor_least: float
    factor_most: float
    weight_kg: float | None = None
    height_m: float | None = None
    sex: str = ""
    dose_mbq: float | None = None
    dose_used_mbq_least: float | None = None
    dose_used_mbq_most: float | None = None
    half_life_s: float | None = None
    nuclide: str = ""
    decay_correction: str = ""
    injected_at: str = ""
    corrected_to_first: str = ""
    corrected_to_last: str = ""
    corrected_to_source: str = ""
    decay_least: float | None = None
    decay_most: float | None = None
    overrides: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """Return the attributes as JSON types."""
        plain = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}

    def sentences(self) -> tuple[str, ...]:
        """Return the reckoning as sentences, in the order in which one checks it by hand."""
        lines = [
            f"Units are {self.units}: {self.rule}.",
            f"{self.slices} slices; RescaleSlope {_span(self.slope_least, self.slope_most)}, stored value to "
            f"SUVbw x {_span(self.factor_least, self.factor_most)}.",
        ]
        body = []
        if self.weight_kg is not None:
            body.append(f"weight {self.weight_kg:g} kg")
        if self.height_m is not None:
            body.append(f"height {self.height_m:g} m")
        if self.sex:
            body.append(f"sex {self.sex}")
        if body:
            lines.append(f"Patient: {', '.join(body)}.")
        lines += self._dose_sentences()
        lines += [f"Given by the user: {said}." for said in self.overrides]
        lines += [f"Note: {note}." for note in self.notes]
        return tuple(lines)

    def _dose_sentences(self) -> list[str]:
        if self.dose_mbq is None:
            return []
        given = f" at {self.injected_at}" if self.injected_at else ""
        nuclide = f" of {self.nuclide}" if self.nuclide else ""
        lines = [f"Dose {self.dose_mbq:.6g} MBq{nuclide}{given}; DecayCorrection {self.decay_correction}."]
        if self.decay_least is None or self.decay_most is None or self.half_life_s is None:
            return lines
        decay = _span(self.decay_least, self.decay_most)
        if self.decay_correction == "NONE":
            return [
                *lines,
                f"Half-life {self.half_life_s:g} s; slices multiplied by {decay} back to the injection.",
            ]
        least, most = self.dose_used_mbq_least or 0.0, self.dose_used_mbq_most or 0.0
        when = self.corrected_to_first
        if self.corrected_to_last != when:
            when += f" to {self.corrected_to_last}"
        return [
            *lines,
            f"Half-life {self.half_life_s:g} s; voxels are corrected to {when} (by {self.corrected_to_source}); "
            f"{decay} of the dose was left then, {_span(least, most)} MBq.",
        ]


def _span(least: float, most: float) -> str:
    return f"{least:.6g}" if f"{least:.6g}" == f"{most:.6g}" else f"{least:.6g} to {most:.6g}"
