"""Whether a CT is in HU, told from where its air, fat and soft tissue lie.

By definition air has -1000 HU and water 0 (Hounsfield 1973); fat has about -100, muscle and organs 30 to 80. In
the 41 real and the synthetic patients at hand at least 83% of what is denser than -500 HU lies between -200 and
150, and the commonest value between -115 and 65.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from algorithm.checks.contract import NO_FINDINGS, OFFSETS, Checks, Findings
from algorithm.checks.sample import Volume, neighbours_alike, sample, voxel_litres
from algorithm.errors import InvalidImageError
from algorithm.formats.stored import shown

_STEP_MM = 6.0
_AIR_BELOW = -700.0
_AIR_MODE = (-1100.0, -750.0)
_TISSUE_ABOVE = -500.0
_SOFT = (-200.0, 150.0)
_LEAST_SOFT = 0.5
_COMMONEST = (-160.0, 130.0)
_MUSCLE_MODE = (15.0, 110.0)
_LEAST_TISSUE_L = 0.01
_LEAST_ALIKE = 0.3  # correlation of neighbours: 0.8 and more in real CTs, noisy ones included
_BIN_HU = 10.0
_PLACES = ((-160.0, -40.0, -98.0), (0.0, 100.0, 46.0))  # of fat and of muscle: from, to, commonest value


@dataclass(frozen=True)
class _Tissues:
    """What a CT shows at the places of air and tissue; ``wrong`` says what speaks against HU, or is empty."""

    air: float
    commonest: float
    wrong: str


def check_hu(ct: sitk.Image, path: Path, checks: Checks) -> tuple[sitk.Image, Findings]:
    """Check that a CT is in HU, and take away an offset with which it was stored.

    Parameters
    ----------
    ct : SimpleITK.Image
        float32, on its own grid.
    path : Path
    checks : Checks

    Returns
    -------
    SimpleITK.Image
        The CT in HU; the same object where nothing was to be corrected.
    Findings

    Raises
    ------
    InvalidImageError
        It is not in HU, or shows no patient.
    """
    if not checks.on("hu"):
        return ct, NO_FINDINGS
    values, litres = sample(ct, _STEP_MM), voxel_litres(ct, _STEP_MM)
    found = _tissues(values, litres)
    if not found.wrong:
        if neighbours_alike(ct, -1000.0, 1000.0) < _LEAST_ALIKE:
            raise _refusal("shows noise without any structure", path, "give the CT of the study")
        return ct, NO_FINDINGS
    offset = _offset(values, litres)
    if offset is not None:
        note = f"the CT was stored with {offset:g} added to its HU (0 is air); {offset:g} was taken away"
        return sitk.Cast(ct - offset, sitk.sitkFloat32), Findings((note,))
    raise _refusal(*_what_it_is(values, found, path))


def _refusal(wrong: str, path: Path, advice: str) -> InvalidImageError:
    return InvalidImageError(f"the CT must be in HU, but {shown(path)} {wrong}; {advice}, or use --no-checks hu")


def _tissues(values: Volume, litres: float) -> _Tissues:
    """Look for air, fat and soft tissue at their places in HU; ``litres`` is what one value stands for."""
    air, tissue = values[values < _AIR_BELOW], values[(values > _TISSUE_ABOVE) & (values < 3100)]
    commonest = _mode(tissue) if tissue.size else float("nan")
    air_mode = _air_mode(air)
    wrong = ""
    if tissue.size * litres < _LEAST_TISSUE_L:
        wrong = "shows no tissue"
    elif np.mean((tissue > _SOFT[0]) & (tissue < _SOFT[1])) < _LEAST_SOFT or not _within(commonest, _COMMONEST):
        wrong = "does not show fat and soft tissue at -100 and 40 HU"
    elif air.size > 0.002 * values.size:
        if not _within(air_mode, _AIR_MODE):
            wrong = f"shows air at {air_mode:.0f} HU"
    elif not _is_crop_without_air(values, tissue):
        wrong = "shows no air at -1000 HU"
    return _Tissues(air_mode, commonest, wrong)


def _air_mode(air: Volume) -> float:
    """Return the commonest value of air; the minimum, which scanners put outside their view, counts last."""
    if not air.size:
        return float("nan")
    lowest = float(air.min())
    inside = air[air > lowest]
    return _mode(inside) if inside.size > 0.01 * air.size else lowest


def _is_crop_without_air(values: Volume, tissue: Volume) -> bool:
    """Tell a tight crop that is in HU: it shows fat and muscle, and is not clipped at its lowest value."""
    muscle = tissue[(tissue > -40) & (tissue < 120)]
    return bool(
        np.mean(values < -300) < 0.02
        and np.mean(values <= values.min()) < 0.02
        and np.mean((tissue > -150) & (tissue < -50)) > 0.02
        and muscle.size > 0.05 * tissue.size
        and _within(_mode(muscle), _MUSCLE_MODE)
    )


def _offset(values: Volume, litres: float) -> float | None:
    """Return the offset without which a CT that begins at 0 is in HU; None if there is none.

    Where both do, it is the one that brings fat and muscle nearer to their places; air is the worse guide, since
    coils, pads and the clipping at 0 shift it.
    """
    if values.min() < -100:
        return None
    misses: dict[float, float] = {}
    for offset in OFFSETS:
        shifted = values - np.float32(offset)
        if not _tissues(shifted, litres).wrong:
            misses[offset] = sum(_miss(shifted, *place) for place in _PLACES)
    return min(misses, key=lambda offset: misses[offset]) if misses else None


def _miss(values: Volume, low: float, high: float, place: float) -> float:
    """Return how far the commonest value between two bounds lies from its place."""
    part = values[(values > low) & (values < high)]
    return abs(_mode(part) - place) if part.size else 0.0


def _what_it_is(values: Volume, found: _Tissues, path: Path) -> tuple[str, Path, str]:
    """Name the likeliest mistake: what is wrong, where, and what to do."""
    low, high = float(values.min()), float(values.max())
    got = f"values from {low:g} to {high:g}"
    if high - low < 1:
        return f"holds {low + 0.0:g} nearly everywhere", path, "give the CT of the study"
    whole = bool((values == np.round(values)).all())
    if low >= 0 and high <= 255 and whole and high > 100:
        return f"holds grey levels ({got})", path, "give the CT itself, not a picture of it"
    if low >= -50 and np.percentile(values, 99) < 100:
        return f"holds {got}, which look like a PET", path, "check that CT and PET are not swapped"
    return f"{found.wrong} ({got})", path, "apply the rescale slope and intercept of its DICOM series"


def _mode(values: Volume) -> float:
    """Return the middle of the commonest ten HU."""
    bins = np.floor(np.clip(values, -4000, 4000) / _BIN_HU).astype(np.int64)
    lowest = int(bins.min())
    counts = np.bincount((bins - lowest).ravel())
    return (lowest + int(counts.argmax()) + 0.5) * _BIN_HU


def _within(value: float, bounds: tuple[float, float]) -> bool:
    return bounds[0] <= value <= bounds[1]
