"""Images that are read without fault and still are not the CT in HU and PET in SUV of one patient at one place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from test.support.bodies import image_of
from test.support.odd_inputs import Odd, Pair, of_images

Images = tuple[sitk.Image, sitk.Image]
Change = Callable[[NDArray[np.float32]], NDArray[np.floating]]
Make = Callable[[Path], Pair]

_RNG_SEED = 3


def ct_as(change: Change) -> Make:
    """Return a maker of a pair whose CT's values are changed."""
    return of_images(lambda ct, pet: (_changed(ct, change), pet))


def pet_as(change: Change) -> Make:
    """Return a maker of a pair whose PET's values are changed."""
    return of_images(lambda ct, pet: (ct, _changed(pet, change)))


def _changed(image: sitk.Image, change: Change) -> sitk.Image:
    return image_of(change(sitk.GetArrayFromImage(image)).astype(np.float32), image)


def _noise(low: float, high: float) -> Change:
    return lambda values: np.random.default_rng(_RNG_SEED).uniform(low, high, values.shape)


def _normal(mean: float, spread: float) -> Change:
    return lambda values: np.random.default_rng(_RNG_SEED).normal(mean, spread, values.shape)


def _grey(low: float, high: float) -> Change:
    return lambda values: ((values - low) / (high - low) * 255).clip(0, 255).round()


def _hot(value: float) -> Change:
    def change(values: NDArray[np.float32]) -> NDArray[np.float32]:
        values[20, 18, 22] = value
        return values

    return change


def _moved(image: sitk.Image, *shift: float) -> sitk.Image:
    image.SetOrigin([at + by for at, by in zip(image.GetOrigin(), shift, strict=True)])
    return image


def _spaced(image: sitk.Image, factor: float) -> sitk.Image:
    image.SetSpacing([step * factor for step in image.GetSpacing()])
    return image


def _both(change: Callable[[sitk.Image], sitk.Image]) -> Make:
    return of_images(lambda ct, pet: (change(ct), change(pet)))


def _flipped(axis: int) -> Make:
    return ct_as(lambda values: np.flip(values, axis))


def _half_ct(values: NDArray[np.float32]) -> NDArray[np.float32]:
    values[:20] = -1024
    return values


def _window_of_pet(ct: sitk.Image, pet: sitk.Image) -> Images:
    values = sitk.GetArrayFromImage(pet)
    values[12:] = 0
    return ct, image_of(values)


def _left_handed(image: sitk.Image) -> sitk.Image:
    """Store the same body on a grid whose z axis runs the other way."""
    turned = image_of(sitk.GetArrayFromImage(image)[::-1])
    turned.SetOrigin(image.TransformIndexToPhysicalPoint((0, 0, image.GetSize()[2] - 1)))
    turned.SetDirection((1, 0, 0, 0, 1, 0, 0, 0, -1))
    return turned


_HU = "the CT must be in HU"
_SUV = "the PET must be in SUV"
_NO_TISSUES = "does not show fat and soft tissue at -100 and 40 HU"
_NO_AIR = "shows no air at -1000 HU"
_TOO_HIGH = "kBq/ml, counts, percent or grey levels"
_SWAPPED = "check that CT and PET are not swapped"
_EXTENT = "must show a part of a human"

_GRIDS = (
    Odd("one voxel", 2, "at least 8 voxels along each axis, got 1x1x1",
        _both(lambda image: image[20:21, 18:19, 20:21])),
    Odd("one slice", 2, "at least 8 voxels along each axis, got 46x38x1", _both(lambda image: image[:, :, 20:21])),
    Odd("CT of one slice", 2, "the CT must have at least 8 voxels",
        of_images(lambda ct, pet: (ct[:, :, 20:21], pet))),
    Odd("patient 0.2 mm wide", 2, "voxels of 0.2 to 15 mm, got 0.008", _both(lambda image: _spaced(image, 0.001))),
    Odd("spacing in cm", 2, _EXTENT, _both(lambda image: _spaced(image, 0.1))),
    Odd("spacing ten times too long", 2, "voxels of 0.2 to 15 mm, got 80",
        _both(lambda image: _spaced(image, 10))),
    Odd("voxels of 16 mm", 2, "voxels of 0.2 to 15 mm, got 16 x 16 x 16", _both(lambda image: _spaced(image, 2))),
    Odd("a cube of 25 mm", 2, _EXTENT, _both(lambda image: _spaced(image, 0.06))),
    Odd("left-handed grids", 0, "", _both(_left_handed)),
    Odd("left-handed CT, right-handed PET", 0, "", of_images(lambda ct, pet: (_left_handed(ct), pet))),
    Odd("a newborn", 0, "", _both(lambda image: _spaced(image, 0.4))),
)  # fmt: skip

_CTS = (
    Odd("CT stored with 1024 added", 0, "1024 was taken away", ct_as(lambda hu: hu + 1024)),
    Odd("CT stored with 1000 added", 0, "1000 was taken away", ct_as(lambda hu: (hu + 1000).clip(0))),
    Odd("CT with 500 added", 2, _HU, ct_as(lambda hu: hu + 500)),
    Odd("CT with 200 added", 2, _NO_TISSUES, ct_as(lambda hu: hu + 200)),
    Odd("CT with 2048 added", 2, _HU, ct_as(lambda hu: hu + 2048)),
    Odd("CT as 0 to 255, whole range", 2, "holds grey levels (values from 0 to", ct_as(_grey(-1024, 1500))),
    Odd("CT as 0 to 255, a window", 2, "holds grey levels (values from 0 to 255)", ct_as(_grey(-160, 240))),
    Odd("CT as 0 to 1", 2, _HU, ct_as(lambda hu: (hu - hu.min()) / (hu.max() - hu.min()))),
    Odd("CT clipped to a window", 2, _NO_AIR, ct_as(lambda hu: hu.clip(-160, 240))),
    Odd("CT constant", 2, "holds 40 nearly everywhere", ct_as(lambda hu: hu * 0 + 40)),
    Odd("CT all zeros", 2, "holds 0 nearly everywhere", ct_as(lambda hu: hu * 0)),
    Odd("CT all air", 2, "nearly everywhere", ct_as(lambda hu: hu * 0 - 1000)),
    Odd("CT all noisy air", 2, "shows no tissue", ct_as(_normal(-1000, 15))),
    Odd("CT noise, uniform", 2, _HU, ct_as(_noise(-1024, 1200))),
    Odd("CT noise around soft tissue", 2, _HU, ct_as(_normal(40, 60))),
    Odd("CT noise, wide", 2, _HU, ct_as(_normal(0, 400))),
    Odd("CT x100", 2, _NO_TISSUES, ct_as(lambda hu: hu * 100)),
    Odd("CT x10", 2, _NO_TISSUES, ct_as(lambda hu: hu * 10)),
    Odd("CT x2", 2, _HU, ct_as(lambda hu: hu * 2)),
    Odd("CT x0.5", 2, _HU, ct_as(lambda hu: hu * 0.5)),
    Odd("CT x0.1", 2, _HU, ct_as(lambda hu: hu * 0.1)),
    Odd("CT negated", 2, _HU, ct_as(lambda hu: -hu)),
    Odd("CT as attenuation per cm", 2, _HU, ct_as(lambda hu: (hu / 1000 + 1) * 0.096)),
    Odd("PET given twice", 2, _SWAPPED, of_images(lambda ct, pet: (pet, pet))),
    Odd("PET given twice, one hot voxel", 2, _SWAPPED,
        of_images(lambda ct, pet: (_changed(pet, _hot(4000)), pet))),
    Odd("CT with 3000 HU of metal", 0, "", ct_as(_hot(3071))),
    Odd("CT with -3024 outside its circle", 0, "", ct_as(lambda hu: np.where(hu < -990, -3024, hu))),
)  # fmt: skip

_PETS = (
    Odd("PET in Bq/ml", 2, "which looks like Bq/ml", pet_as(lambda suv: suv * 4300)),
    Odd("PET x380, just under 5000", 2, _TOO_HIGH, pet_as(lambda suv: suv * (4900 / suv.max()))),
    Odd("PET in kBq/ml", 2, _TOO_HIGH, pet_as(lambda suv: suv * 5.5)),
    Odd("PET in counts", 2, _TOO_HIGH, pet_as(lambda suv: (suv * 150).round())),
    Odd("PET in percent", 2, "looks scaled to its maximum", pet_as(lambda suv: suv / suv.max() * 100)),
    Odd("PET as 0 to 255", 2, "looks scaled to its maximum", pet_as(lambda suv: (suv / suv.max() * 255).round())),
    Odd("PET as 0 to 250", 2, _TOO_HIGH, pet_as(lambda suv: (suv / suv.max() * 250).round())),
    Odd("PET as 0 to 1", 2, "looks scaled to its maximum", pet_as(lambda suv: suv / suv.max())),
    Odd("PET in MBq/ml", 2, "looks scaled down", pet_as(lambda suv: suv * 0.0043)),
    Odd("PET negated", 2, _SUV, pet_as(lambda suv: -suv)),
    Odd("PET less 5", 2, "is negative", pet_as(lambda suv: suv - 5)),
    Odd("PET constant", 2, "got 1 everywhere", pet_as(lambda suv: suv * 0 + 1)),
    Odd("PET constant and negative", 2, _SUV, pet_as(lambda suv: suv * 0 - 1)),
    Odd("PET noise", 2, "noise without any structure", pet_as(_noise(0, 12))),
    Odd("PET turned over", 2, _SUV, pet_as(lambda suv: suv.max() - suv)),
    Odd("PET all zeros", 0, "the PET shows no uptake anywhere", pet_as(lambda suv: suv * 0)),
    Odd("PET of a low dose", 0, "", pet_as(lambda suv: np.random.default_rng(_RNG_SEED).poisson(suv * 4) / 4)),
    Odd("PET with a hot bladder", 0, "", pet_as(_hot(390))),
    Odd("PET that undershoots a little", 0, "", pet_as(lambda suv: suv - 0.02)),
)  # fmt: skip

_PAIRS = (
    Odd("CT and PET swapped", 2, _SWAPPED, of_images(lambda ct, pet: (pet, ct))),
    Odd("swapped, a hot voxel in the PET", 2, _SWAPPED,
        of_images(lambda ct, pet: (_changed(pet, _hot(4000)), ct))),
    Odd("CT given twice", 2, _SWAPPED, of_images(lambda ct, pet: (ct, ct))),
    Odd("CT mirrored left to right", 2, "mirrored against the PET along x", _flipped(2)),
    Odd("CT mirrored front to back", 2, "mirrored against the PET along y", _flipped(1)),
    Odd("CT mirrored head to foot", 2, "mirrored against the PET along z", _flipped(0)),
    Odd("CT 100 mm to the left", 2, "check origin and direction",
        of_images(lambda ct, pet: (_moved(ct, 100, 0, 0), pet))),
    Odd("CT 100 mm forward", 2, "check origin and direction",
        of_images(lambda ct, pet: (_moved(ct, 0, -100, 0), pet))),
    Odd("CT 48 mm to the left", 2, "shifted against the PET: the bodies overlap better when it is moved by -",
        of_images(lambda ct, pet: (_moved(ct, 48, 0, 0), pet))),
    Odd("CT 160 mm up", 2, "of the body that the PET shows",
        of_images(lambda ct, pet: (_moved(ct, 0, 0, 160), pet))),
    Odd("CT 5 m away", 2, "CT and PET do not overlap in space",
        of_images(lambda ct, pet: (_moved(ct, 5000, 0, 0), pet))),
    Odd("CT of half the body", 2, "at least 70% of the body that the PET shows", ct_as(_half_ct)),
    Odd("CT cropped to its half", 2, "of the body that the PET shows",
        of_images(lambda ct, pet: (ct[:, :, 20:], pet))),
    Odd("PET with uptake in half the body", 2, "the PET must show at least 50%", of_images(_window_of_pet)),
    Odd("CT of another body", 2, "or use --no-checks", ct_as(lambda hu: np.roll(hu, (17, 12, 20), (0, 1, 2)))),
    Odd("CT finer than the PET", 0, "", of_images(lambda ct, pet: (sitk.Expand(ct, [2, 2, 2]), pet))),
)  # fmt: skip

VALUES = (*_GRIDS, *_CTS, *_PETS, *_PAIRS)
