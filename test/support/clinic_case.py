"""A small synthetic body with lesions, for the report page."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from algorithm.clinic.page import PageInput
from algorithm.lesions import measure_burden

SPACING = (4.0, 4.0, 3.0)  # x, y, z
SHAPE = (60, 50, 64)  # z, y, x
LESIONS = (  # centre z, y, x; radius in voxels; SUV
    (40, 25, 20, 4, 12.0),
    (20, 20, 40, 3, 6.5),
    (30, 30, 32, 2, 21.0),
    (50, 22, 36, 1, 4.0),
)


def synthetic_case(
    direction: tuple[float, ...] = (1, 0, 0, 0, 1, 0, 0, 0, 1),
) -> tuple[sitk.Image, sitk.Image, NDArray[np.uint8]]:
    """Return CT (HU), PET (SUV) and the lesions' mask (z, y, x) of an elliptic cylinder."""
    z, y, x = np.indices(SHAPE)
    body = ((y - 25) / 18) ** 2 + ((x - 32) / 26) ** 2 < 1
    hu = np.where(body, 40, -1000).astype(np.int16)
    suv = np.where(body, 1.0, 0.0).astype(np.float32)
    mask = np.zeros(SHAPE, np.uint8)
    for cz, cy, cx, radius, level in LESIONS:
        ball = (z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 <= radius**2
        away = ((z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2)[ball] / radius**2
        suv[ball] = level * (1 - 0.3 * away)  # hottest in the middle
        mask[ball] = 1
    images = [sitk.GetImageFromArray(each) for each in (hu, suv)]
    for image in images:
        image.SetSpacing(SPACING)
        image.SetDirection(direction)
        image.SetOrigin((-120.5, -98.0, -700.25))
    return images[0], images[1], mask


def page_input(**changes: object) -> PageInput:
    """Return all that a page shows, for the synthetic body."""
    ct, pet, mask = synthetic_case()
    values: dict[str, object] = {
        "ct": ct,
        "pet": pet,
        "burden": measure_burden(mask, pet),
        "software": "h2aseg-container 0.1.0",
        "created": "2026-01-02 09:00 UTC",
        "patient": (("Patient", "Phantom^Synthetic"), ("ID", "SYN-001")),
        "files": (("PET", "/somewhere/SYN-001/pet.nii.gz"),),
        "method": (("Weights", "h2aseg, sha256 abab"),),
        "seconds": {"read": 1.25, "predict": 10.0},
        "suv": ("Units are BQML.",),
        "notes": ("the CT was resampled onto the PET's grid",),
    }
    return PageInput(**(values | changes))  # type: ignore[arg-type]
