"""Random changes of training crops, drawn from a seed alone."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import set_track_meta
from monai.transforms import (
    Compose,
    MapTransform,
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    Randomizable,
    RandScaleIntensityd,
)
from torch import Tensor

from algorithm.description import AXES
from training.recipe import Augmentation

IMAGES = ("ct", "pet")
ALL = ("ct", "pet", "seg", "organs")


def build_augmentation(how: Augmentation, patch: tuple[int, int, int], *, turning: bool) -> Compose:
    """Return MONAI transforms of CT, PET, contours and organs, each (1, H, W, D) in x, y, z, to crops.

    With ``turning``, crops of :meth:`Augmentation.field` are always rotated and scaled, by one resampling;
    without, crops of the patch itself are never. Seed it with ``set_random_state`` before each crop.
    """
    set_track_meta(False)
    low, high = 1.0 / how.gamma, how.gamma
    steps: list[Any] = []
    if turning:
        steps.append(
            RandAffined(
                keys=ALL,
                prob=1.0,
                rotate_range=(0.0, 0.0, math.radians(how.rotation_deg)),
                scale_range=(how.scaling,) * 3,
                spatial_size=patch,
                mode=("bilinear", "bilinear", "nearest", "nearest"),
                padding_mode="border",
            )
        )
    steps += [RandFlipd(ALL, prob=how.flip, spatial_axis=AXES.index(axis)) for axis in how.mirrored]
    for modality in IMAGES:
        if high > low:
            steps.append(RandAdjustContrastd(modality, prob=how.probability, gamma=(low, high)))
        if how.brightness > 0:
            steps.append(RandScaleIntensityd(modality, factors=how.brightness, prob=how.probability))
        if how.noise > 0:
            steps.append(RandGaussianNoised(modality, prob=how.probability, std=how.noise, sample_std=True))
    if how.drop_modality > 0:
        steps.append(DropModalityd(IMAGES, how.drop_modality))
    return Compose(steps)


class DropModalityd(Randomizable, MapTransform):  # type: ignore[misc]
    """Blank one of the images with its smallest value (air, no uptake), at a given probability.

    Parameters
    ----------
    keys : sequence of str
        Of the images, of which one at most is blanked.
    prob : float
    """

    def __init__(self, keys: KeysCollection, prob: float) -> None:
        MapTransform.__init__(self, keys)
        self.prob = prob

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """Return the images by key, one of them blank perhaps."""
        images = dict(data)
        if self.R.random_sample() < self.prob:
            key = self.keys[self.R.randint(len(self.keys))]
            images[key] = images[key].new_full(images[key].shape, float(images[key].min()))
        return images


def draw_turning(how: Augmentation, rng: np.random.Generator) -> bool:
    """Draw whether a crop is rotated and scaled."""
    return how.turns and bool(rng.random() < how.probability)


def draw_misalignment(how: Augmentation, rng: np.random.Generator) -> tuple[int, int, int]:
    """Draw by how many voxels (x, y, z) the CT is shifted against PET and contours."""
    largest = how.misalignment_voxels
    if largest == 0 or rng.random() >= how.probability:
        return (0, 0, 0)
    x, y, z = rng.integers(-largest, largest + 1, size=3)
    return int(x), int(y), int(z)
