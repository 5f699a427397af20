"""Whether a grid can be that of a human PET/CT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from algorithm.checks.contract import (
    LEAST_EXTENT_MM,
    LEAST_VOXELS,
    LEAST_WIDTH_MM,
    MOST_EXTENT_MM,
    NO_FINDINGS,
    SPACING_MM,
    Checks,
    Findings,
)
from algorithm.errors import InvalidImageError
from algorithm.formats.stored import shown, size_text

_RIGHT_ANGLE = 1e-3  # of the directions' products; headers of three decimals pass


def check_grid(image: sitk.Image, what: str, path: Path, checks: Checks) -> Findings:
    """Check size, spacing, extent and direction of a volume.

    Parameters
    ----------
    image : SimpleITK.Image
        3-D.
    what : str
        "CT" or "PET", for messages.
    path : Path
    checks : Checks

    Raises
    ------
    InvalidImageError
        The contract refuses the grid.
    """
    if not checks.on("grid"):
        return NO_FINDINGS
    size, spacing = image.GetSize(), np.array(image.GetSpacing())
    steps = " x ".join(f"{step:.4g}" for step in spacing)
    axes = np.array(image.GetDirection()).reshape(3, 3)
    extent = np.array(size) * spacing
    extents = " x ".join(f"{side:.4g}" for side in extent)
    wrong = advice = ""
    if min(size) < LEAST_VOXELS:
        wrong = f"must have at least {LEAST_VOXELS} voxels along each axis, got {size_text(size)}"
        advice = "give the whole volume"
    elif spacing.min() < SPACING_MM[0] or spacing.max() > SPACING_MM[1]:
        wrong = f"must have voxels of {SPACING_MM[0]:g} to {SPACING_MM[1]:g} mm, got {steps} mm"
        advice = "correct the spacing in its header, which counts in mm"
    elif extent.min() < LEAST_EXTENT_MM or np.sort(extent)[1] < LEAST_WIDTH_MM or extent.max() > MOST_EXTENT_MM:
        wrong = (
            f"must show a part of a human, of {LEAST_EXTENT_MM:g} mm or more along each axis, "
            f"{LEAST_WIDTH_MM:g} mm along two and {MOST_EXTENT_MM:g} mm at most, got {extents} mm"
        )
        advice = "correct the spacing in its header or give the whole volume"
    elif np.abs(axes.T @ axes - np.eye(3)).max() > _RIGHT_ANGLE:
        wrong = f"must have axes of length 1 at right angles, got the direction {_text(image.GetDirection())}"
        advice = "correct the direction in its header, or resample the image onto an upright grid"
    if wrong:
        raise InvalidImageError(f"the {what} {wrong} in {shown(path)}; {advice}, or use --no-checks grid")
    return NO_FINDINGS


def _text(numbers: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{number:.4g}" for number in numbers) + ")"
