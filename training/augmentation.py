"""Random changes of training crops, drawn from a seed alone."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
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

IMAGES = ("ct", "pet")
ALL = ("ct", "pet", "seg")


@dataclass(frozen=True)
class Augmentation:
    """How much training crops are changed; a zero switches a change off.

    Attributes
    ----------
    probability : float
        Of each change of intensities, and of the rotation and scaling together.
    rotation_deg : float
        Largest rotation about z (the released code rotates by up to 45, taken as radians by mistake).
    scaling : float
        Largest relative change of size.
    flip : float
        Probability of mirroring, for each axis.
    gamma : float
        Largest exponent of the contrast change; its inverse is the smallest. At least 1; 1 switches it off.
    brightness : float
        Largest relative change of the normalised intensities.
    noise : float
        Largest standard deviation of noise added to the normalised intensities.
    misalignment_voxels : int
        Largest shift of the CT against PET and contours, each axis (breathing, motion between the scans).
    drop_modality : float
        Probability that one of CT and PET is blanked, so that the network learns from each alone.
    """

    probability: float = 0.3
    rotation_deg: float = 30.0
    scaling: float = 0.2
    flip: float = 0.5
    gamma: float = 1.5
    brightness: float = 0.1
    noise: float = 0.1
    misalignment_voxels: int = 0
    drop_modality: float = 0.0

    def __post_init__(self) -> None:
        for name in ("probability", "flip", "drop_modality"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        for name in ("rotation_deg", "brightness", "noise", "misalignment_voxels"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.scaling < 1:
            raise ValueError(f"scaling must be at least 0 and below 1, got {self.scaling}")
        if not 1 <= self.gamma < math.inf:
            raise ValueError(f"gamma must be at least 1, got {self.gamma}")

    @property
    def turns(self) -> bool:
        """Whether crops are rotated or scaled, and so must be cut larger first."""
        return self.rotation_deg > 0 or self.scaling > 0

    def field(self, patch: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the sides (x, y, z, of the patch's parity) to cut, so that turning brings in no empty corners."""
        if not self.turns:
            return patch
        angle = math.radians(min(self.rotation_deg, 45.0))
        zoom = 1.0 + self.scaling
        x, y, z = patch
        width = zoom * (x * math.cos(angle) + y * math.sin(angle))
        height = zoom * (x * math.sin(angle) + y * math.cos(angle))
        sides = (max(width, x), max(height, y), zoom * z)
        return tuple(side + 2 * math.ceil((need - side) / 2) for side, need in zip(patch, sides, strict=True))  # type: ignore[return-value]


def build_augmentation(how: Augmentation, patch: tuple[int, int, int], *, turning: bool) -> Compose:
    """Return MONAI transforms of ``{"ct", "pet", "seg"}``, each (1, H, W, D) in x, y, z, to crops of ``patch``.

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
                mode=("bilinear", "bilinear", "nearest"),
                padding_mode="border",
            )
        )
    steps += [RandFlipd(ALL, prob=how.flip, spatial_axis=axis) for axis in range(3) if how.flip > 0]
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
