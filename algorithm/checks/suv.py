"""Whether a PET is in SUV, told from its range here and from its distribution over the body.

An SUV of 1 is the mean of a body that loses nothing. In the 41 real FDG patients at hand the median over the body
is 0.4 to 1.0 and over its fat 0.2 to 0.7. Activity in kBq/ml is three to seven times that, so that at the low end
of this range the two cannot be told apart by their values alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from algorithm.checks.contract import NO_FINDINGS, Checks, Findings
from algorithm.checks.sample import Volume, neighbours_alike, sample
from algorithm.errors import InvalidImageError
from algorithm.formats.stored import shown

_STEP_MM = 6.0
_HIGHEST = 5000.0  # tumours of AutoPET reach 393, urine some hundreds; Bq/ml are in the tens of thousands
_LOWEST = -50.0  # reconstruction filters undershoot by a few; a CT goes down to -1024 HU
_LEAST_ALIKE = 0.2  # correlation of neighbours: 0.8 and more in real PETs
_ROUND_MAXIMA = (1.0, 100.0, 255.0, 32767.0, 65535.0)
_FAT_HU = (-130.0, -70.0)
_FAT_AT_MOST = 1.2
_BODY_AT_MOST = 10.0  # a brain-only scan has about 4
_TRUNK_L = 20.0
_TRUNK_AT_MOST = 2.5  # a body of 20 l and more in view, of a patient 2.5 times as heavy
_BODY_AT_LEAST = 0.05
_FEWEST = 200
_BQML = "divide by the injected dose (decay-corrected) per body weight"
_HEADERS = "see to its weight, dose and times (`python -m algorithm suv` shows and corrects them)"


def check_suv(pet: sitk.Image, path: Path, checks: Checks) -> Findings:
    """Check what a PET's values tell on their own.

    Parameters
    ----------
    pet : SimpleITK.Image
        float32.
    path : Path
    checks : Checks

    Raises
    ------
    InvalidImageError
        It cannot be in SUV.
    """
    if not checks.on("suv"):
        return NO_FINDINGS
    view = sitk.GetArrayViewFromImage(pet)
    low, high = float(view.min()), float(view.max())
    if low == high == 0:
        return Findings(("the PET shows no uptake anywhere; check the file",))
    values = sample(pet, _STEP_MM)
    got = f"values from {low:g} to {high:g}"
    if low < _LOWEST or np.mean(values < -20) > 0.005:
        raise _refusal(f"a minimum of {low:g}", path, "looks like a CT", "check that CT and PET are not swapped")
    if low == high:
        raise _refusal(f"{low:g} everywhere", path, "is no image", "give the PET of the study")
    if high <= 0 or np.mean(values < -0.5) > 0.01:
        raise _refusal(got, path, "is negative", "export it again with its rescale slope and intercept")
    if high > _HIGHEST:
        raise _too_high(f"a maximum of {high:g}", path, "looks like Bq/ml", _BQML)
    if any(abs(high - each) <= 1e-6 * each for each in _ROUND_MAXIMA):
        raise _refusal(f"a maximum of {high:g}", path, "looks scaled to its maximum", "give the SUV unscaled")
    if neighbours_alike(pet, 0.0, max(10.0 * float(np.abs(values).mean()), 1e-6)) < _LEAST_ALIKE:
        raise _refusal(got, path, "is noise without any structure", "give the PET of the study")
    return NO_FINDINGS


def check_uptake(pet: Volume, ct: Volume, body: NDArray[np.bool_], litres: float, path: Path) -> None:
    """Check the uptake of a body and of its fat.

    Parameters
    ----------
    pet, ct : float32 array, z, y, x
        Samples of both on the same places: SUV and HU.
    body : bool array
        The patient, on them.
    litres : float
        What one voxel of the samples stands for.
    path : Path

    Raises
    ------
    InvalidImageError
        The uptake is too high or too low for SUV.
    """
    inside = pet[body]
    if inside.size < _FEWEST or pet.max() <= 0:
        return
    mean, median = float(inside.mean()), float(np.median(inside))
    fat = pet[body & (ct > _FAT_HU[0]) & (ct < _FAT_HU[1])]
    fat_median = float(np.median(fat)) if fat.size >= _FEWEST else 0.0
    advice = f"{_BQML}, in the same units of activity"
    if fat_median > _FAT_AT_MOST:
        raise _too_high(f"{fat_median:.3g} in fat (usual: 0.2 to 0.8)", path, _NO_SUV, advice)
    if median > _BODY_AT_MOST or (inside.size * litres > _TRUNK_L and mean > _TRUNK_AT_MOST):
        raise _too_high(f"a mean of {mean:.3g} over the body (usual: 0.4 to 2)", path, _NO_SUV, advice)
    if mean < _BODY_AT_LEAST:
        raise _refusal(
            f"a mean of {mean:.3g} over the body (usual: 0.4 to 2)",
            path,
            "looks scaled down",
            "give the SUV unscaled",
        )


_NO_SUV = "looks like kBq/ml, counts, percent or grey levels"


def _too_high(got: str, path: Path, guess: str, advice: str) -> InvalidImageError:
    """Of a folder of DICOM the SUVs were reckoned here: then what its headers say is wrong."""
    if path.is_dir():
        guess, advice = "is too high for SUVs reckoned from DICOM", _HEADERS
    return _refusal(got, path, guess, advice)


def _refusal(got: str, path: Path, guess: str, advice: str) -> InvalidImageError:
    return InvalidImageError(
        f"the PET must be in SUV, got {got} in {shown(path)}, which {guess}; {advice}, or use --no-checks suv"
    )
