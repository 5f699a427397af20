"""Synthetic bodies on grids of any direction, handedness, spacing and size, and a network that thresholds them.

The body is an ellipsoid of soft tissue with fat around it, lopsided so that no mirror image of it looks the same.
The lesion is a sphere that is hot in the PET and dense in the CT. Both images are computed from the same formulas
at the places of their own voxels, so that nothing is interpolated before the software does it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from torch import Tensor

from algorithm.description import Description, Normalisation
from algorithm.inference.execution import Execution
from algorithm.inference.predictor import Predictor
from test.support.checkpoints import TINY, TINY_PATCH
from test.support.predictors import CPU, Stub

BODY_RADII = (58.0, 46.0, 66.0)
"""Half axes in mm along the body's left, front and up: a small child's trunk."""

_FAT_FROM = 0.8
_HOT, _WARM = 12.0, 1.0
_DENSE, _SOFT, _FAT, _AIR = 600.0, 45.0, -100.0, -1000.0
_SUV_SCALE, _HU_SCALE = 20.0, (-1024.0, 1024.0)
_STEEPNESS = 12.0  # of the logits; the probability must not jump, or its interpolation would be that of a mask

Vector = tuple[float, float, float]
Volume = NDArray[np.float32]


@dataclass(frozen=True)
class Grid:
    """A grid: size in voxels, spacing in mm, the columns of its direction, and the place of its centre in mm."""

    size: tuple[int, int, int]
    spacing: Vector
    direction: NDArray[np.float64]
    centre: Vector

    @property
    def origin(self) -> NDArray[np.float64]:
        middle = (np.array(self.size) - 1) / 2 * np.array(self.spacing)
        origin: NDArray[np.float64] = np.array(self.centre) - self.direction @ middle
        return origin

    @property
    def left_handed(self) -> bool:
        return bool(np.linalg.det(self.direction) < 0)

    def places(self) -> tuple[Volume, Volume, Volume]:
        """Return x, y and z in mm of every voxel, each an array z, y, x."""
        steps = self.direction * np.array(self.spacing)
        axes = [np.arange(side, dtype=np.float64) for side in self.size]
        i, j, k = axes[0], axes[1][:, None], axes[2][:, None, None]
        x, y, z = (
            (self.origin[row] + steps[row, 0] * i + steps[row, 1] * j + steps[row, 2] * k).astype(np.float32)
            for row in range(3)
        )
        return x, y, z

    def image(self, values: Volume) -> sitk.Image:
        image = sitk.GetImageFromArray(values)
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin.tolist())
        image.SetDirection(self.direction.ravel().tolist())
        return image


@dataclass(frozen=True)
class Sphere:
    """The lesion: centre and radius in mm, in the patient's space."""

    centre: Vector
    radius: float


def rotation(quaternion: tuple[float, float, float, float], *, mirrored: bool) -> NDArray[np.float64]:
    """Return a rotation's matrix; mirrored: its first column turned round, which makes the grid left-handed."""
    a, b, c, d = np.array(quaternion) / np.linalg.norm(quaternion)
    matrix = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a - b * b + c * c - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a - b * b - c * c + d * d],
        ]
    )
    matrix[:, 0] *= -1.0 if mirrored else 1.0
    return matrix


def pet_of(grid: Grid, sphere: Sphere, at: Vector) -> sitk.Image:
    """Return the PET in SUV of a body at a place; edges are as wide as a voxel, as a scanner's resolution is."""
    depth = _depth(grid, at)
    edge = max(grid.spacing)
    body = np.clip((1 - depth) * min(BODY_RADII) / edge + 0.5, 0, 1) * _WARM
    body *= np.where(depth > _FAT_FROM, 0.5, 1.0)
    return grid.image(_with_sphere(body, _HOT, grid, sphere, edge))


def ct_of(grid: Grid, sphere: Sphere, at: Vector) -> sitk.Image:
    """Return the CT in HU of the same body."""
    depth = _depth(grid, at)
    values = np.where(depth < _FAT_FROM, _SOFT, np.where(depth < 1, _FAT, _AIR))
    return grid.image(_with_sphere(values, _DENSE, grid, sphere, max(grid.spacing)))


def describe_threshold(spacing: Vector | None) -> Description:
    """Return the description of a network that thresholds; its windows are small, so that there are several."""
    return Description(
        name="threshold",
        architecture=TINY,
        patch=TINY_PATCH,
        spacing=spacing,
        ct=Normalisation("clip-scale", *_HU_SCALE),
        pet=Normalisation("clip-scale", 0.0, _SUV_SCALE),
        overlap=0.25,
    )


def threshold_predictor() -> Predictor:
    """Return a predictor whose network calls tumour what is halfway to the lesion's values in both images."""
    predictor = Predictor([Stub(_threshold)], CPU, torch.float32)  # type: ignore[list-item]
    predictor.execution = Execution(CPU, torch.float32, 4, CPU)
    return predictor


def _threshold(ct: Tensor, pet: Tensor) -> Tensor:
    hu = ct * (_HU_SCALE[1] - _HU_SCALE[0]) + _HU_SCALE[0]
    suv = pet * _SUV_SCALE
    in_pet = (suv - (_HOT + _WARM) / 2) / (_HOT - _WARM)
    in_ct = (hu - (_DENSE + _SOFT) / 2) / (_DENSE - _SOFT)
    logit = _STEEPNESS * torch.minimum(in_pet, in_ct)
    return torch.cat([torch.zeros_like(logit), logit], dim=1)


def _depth(grid: Grid, at: Vector) -> Volume:
    """Return 0 at the body's axis and 1 on its skin; a bulge on one side tells left, front and up apart."""
    x, y, z = ((axis - place) / radius for axis, place, radius in zip(grid.places(), at, BODY_RADII, strict=True))
    depth: Volume = np.sqrt(x * x + y * y + z * z) * (1 + 0.12 * x - 0.09 * y + 0.15 * z)
    return depth


def _with_sphere(values: Volume, inside: float, grid: Grid, sphere: Sphere, edge: float) -> Volume:
    x, y, z = (axis - place for axis, place in zip(grid.places(), sphere.centre, strict=True))
    share = np.clip((sphere.radius - np.sqrt(x * x + y * y + z * z)) / edge + 0.5, 0, 1)
    mixed: Volume = (values * (1 - share) + inside * share).astype(np.float32)
    return mixed
