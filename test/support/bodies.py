"""A small synthetic body, enough for the checks of the input contract: lopsided along every axis."""

from __future__ import annotations

from functools import cache

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

SIZE = (46, 38, 40)
SPACING = (8.0, 8.0, 8.0)
ORIGIN = (-180.0, -150.0, -400.0)

Volume = NDArray[np.float32]


def small_pair() -> tuple[sitk.Image, sitk.Image]:
    """Return a CT in HU and a PET in SUV, float32, on one grid: a trunk with lungs, liver, spine and one arm."""
    ct, pet = _arrays()
    return image_of(ct), image_of(pet)


def image_of(values: NDArray[np.generic], like: sitk.Image | None = None) -> sitk.Image:
    """Return an array, z, y, x, as an image on the small body's grid or another's."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(values))
    if like is not None:
        image.CopyInformation(like)
        return image
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    return image


@cache
def _arrays() -> tuple[Volume, Volume]:
    z, y, x = np.indices(SIZE[::-1]).astype(np.float32)
    rng = np.random.default_rng(20)

    def inside(centre: tuple[float, float, float], radii: tuple[float, float, float]) -> NDArray[np.bool_]:
        place = zip((z, y, x), centre, radii, strict=True)
        return np.asarray(sum(((axis - at) / radius) ** 2 for axis, at, radius in place) < 1)

    width = 1.0 - 0.35 * z / SIZE[2]  # hips wider than shoulders
    skin = (((x - 21) / (14 * width)) ** 2 + ((y - 18) / (10.5 * width)) ** 2 < 1) | inside(
        (30, 22, 40), (9, 3, 3)
    )
    muscle = ndimage.binary_erosion(skin, iterations=2)
    ct = np.select(
        [
            inside((20, 25, 21), (22, 2, 2)),
            inside((30, 17, 16), (7, 5, 4)) | inside((30, 17, 26), (7, 5, 3)),
            muscle,
            skin,
        ],
        [500, -820, 50, -100],
        -1000,
    ).astype(np.float32)
    liver, brim = inside((19, 17, 15), (4, 4, 5)), inside((4, 14, 22), (3, 3, 3))
    pet = np.select([brim, liver, ct < -900, ct < -500, ct < 0, ct > 200], [18, 2.4, 0, 0.5, 0.3, 1.2], 0.7)
    ct += rng.normal(0, 12, ct.shape).astype(np.float32)
    blurred = ndimage.gaussian_filter(pet.astype(np.float32), 0.6) * rng.uniform(0.9, 1.1, pet.shape)
    return ct.clip(-1024, None).round().astype(np.float32), blurred.astype(np.float32)
